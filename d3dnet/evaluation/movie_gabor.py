"""Gabor filters in space and time, 35 at each of three scales, and their responses.

Those of the MOVIE index (`movie_index.py`). Axes are (y, x, t) = (row, column, frame); everything
is float64. Filters run in tiles, so that memory does not grow with their number.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

RADIUS = 16  # frames that the longest filter reaches to either side
DC_LEAKAGE = 0.001  # of the Gaussian that is taken from every response
TILE = 224  # rows and columns of responses computed at a time
ORIENTATIONS = (  # speed, degrees between orientations, number of orientations
    (0.0, 20, 9),
    (1 / math.sqrt(3), 22, 17),
    (math.sqrt(3), 40, 9),
)


@dataclass(frozen=True)
class Scale:
    """Gabor filters of one scale.

    Attributes:
        frequency: W, radians per sample; |(w_y, w_x, w_t)| of every filter.
        sigma: of the Gaussian envelope, in samples, the same on every axis.
        half: samples that a filter reaches to either side.
        frequencies: (35, 3) float64, (w_y, w_x, w_t) of each filter.
    """

    frequency: float
    sigma: float
    half: int
    frequencies: np.ndarray


def _scale(number: int) -> Scale:
    frequency = 0.7 * math.pi / 2 ** (number / 2)
    sigma = (math.sqrt(2) + 1) / ((math.sqrt(2) - 1) * frequency)  # half an octave
    rows = []
    for speed, step, count in ORIENTATIONS:
        angle = np.deg2rad(step * np.arange(count))
        radius = frequency / math.sqrt(1 + speed**2)
        axes = (np.cos(angle), np.sin(angle), np.full(count, speed))
        rows.append(radius * np.stack(axes, -1))
    return Scale(frequency, sigma, int(6 * sigma + 1) // 2, np.concatenate(rows))


SCALES = tuple(_scale(number) for number in range(3))


def gaussian(sigma: float, half: int) -> np.ndarray:
    """(2 half + 1,) samples of a Gaussian; not made to sum to 1 after truncation."""
    k = np.arange(-half, half + 1)
    return np.exp(-(k**2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)


def gabor(frequency: np.ndarray | float, scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """Gabor kernels of one axis and their derivatives, each (..., 2 half + 1) complex."""
    k = np.arange(-scale.half, scale.half + 1)
    frequency = np.asarray(frequency, np.float64)[..., None]
    kernel = gaussian(scale.sigma, scale.half) * np.exp(1j * frequency * k)
    return kernel, (1j * frequency - k / scale.sigma**2) * kernel


def responses(frames: Tensor, scale: Scale, *, derivatives: bool = False) -> Iterator[Tensor]:
    """Responses of the 35 filters of a scale at the middle frame, one filter after the other.

    Convolution, the kernel flipped, wherever the whole of it fits; by FFT in space.

    Args:
        frames: (33, H, W) float64.
        scale: of `SCALES`.
        derivatives: also yield those by y, x and t, which are filters of their own.

    Yields:
        (1 or 4, H - 2 half, W - 2 half) complex128: R, and R^y, R^x, R^t with `derivatives`.
    """
    device, half = frames.device, scale.half
    height, width = frames.shape[1:]
    size = _fft_size(height), _fft_size(width)

    def spectra(kernels: np.ndarray, axis: int) -> Tensor:
        spectrum: Tensor = torch.fft.fft(torch.from_numpy(kernels).to(device), size[axis])
        return spectrum

    # In time first: only one output frame is asked for, and a scale has three frequencies w_t.
    speeds, of_filter = np.unique(scale.frequencies[:, 2], return_inverse=True)
    envelope = gaussian(scale.sigma, half)
    kernels = np.concatenate([envelope[None], *gabor(speeds, scale)])[:, ::-1]
    in_time = torch.from_numpy(np.concatenate([kernels.real, kernels.imag])).to(device)
    middle = frames[RADIUS - half : RADIUS + half + 1].flatten(1)
    planes = torch.complex(*(in_time @ middle).view(2, -1, height, width))
    planes = torch.fft.fft2(planes, size)
    leak = DC_LEAKAGE * spectra(envelope, 0)[:, None] * spectra(envelope, 1) * planes[0]
    planes, changes = planes[1:].chunk(2)

    y, dy = (spectra(kernels, 0)[..., None] for kernels in gabor(scale.frequencies[:, 0], scale))
    x, dx = (spectra(kernels, 1) for kernels in gabor(scale.frequencies[:, 1], scale))
    for n, speed in enumerate(of_filter):
        plane, kernel = planes[speed], y[n] * x[n]
        products = torch.empty(4 if derivatives else 1, *size, dtype=plane.dtype, device=device)
        torch.sub(plane * kernel, leak, out=products[0])
        if derivatives:
            torch.mul(plane, dy[n] * x[n], out=products[1])
            torch.mul(plane, y[n] * dx[n], out=products[2])
            torch.mul(changes[speed], kernel, out=products[3])
        yield torch.fft.ifft2(products)[..., 2 * half : height, 2 * half : width]


def separable(maps: Tensor, kernel: Tensor) -> Tensor:
    """Filter (..., H, W) with a symmetric kernel along both axes, zeros beyond the border."""
    return along(along(maps, kernel, -2), kernel, -1)


def along(maps: Tensor, weights: Tensor, dim: int) -> Tensor:
    """Weighted sum of each sample's neighbours along one axis, zeros beyond the border."""
    half, size = len(weights) // 2, maps.shape[dim]
    result = maps * weights[half]
    for offset in range(-half, half + 1):
        if offset and abs(offset) < size:
            place, source = max(-offset, 0), max(offset, 0)
            neighbours = maps.narrow(dim, source, size - abs(offset))
            result.narrow(dim, place, size - abs(offset)).add_(
                neighbours, alpha=weights[half + offset].item()
            )
    return result


@dataclass(frozen=True)
class GaborTile:
    """Responses computed at a time: at the ``outer`` pixels, of which the ``core`` is kept.

    The rim between them is for windows, which reach beyond the core. Both are (rows, columns).
    """

    outer: tuple[slice, slice]
    core: tuple[slice, slice]
    half: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the outer pixels."""
        rows, columns = self.outer
        return rows.stop - rows.start, columns.stop - columns.start

    def around(self, frames: Tensor) -> Tensor:
        """The pixels of (T, H, W) frames that the responses at the outer pixels need."""
        rows, columns = (
            slice(pixels.start - self.half, pixels.stop + self.half) for pixels in self.outer
        )
        return frames[:, rows, columns]

    def put(self, local: Tensor, maps: Tensor) -> None:
        """Copy the core of maps (..., h, w) of the outer pixels into (..., H, W) of the frame."""
        rows, columns = (
            slice(core.start - outer.start, core.stop - outer.start)
            for outer, core in zip(self.outer, self.core, strict=True)
        )
        maps[..., *self.core] = local[..., rows, columns]


def gabor_tiles(frames: Tensor, scale: Scale, rim: int = 0) -> Iterator[GaborTile]:
    """Tiles that cover the pixels of (T, H, W) frames at which the filters of a scale fit.

    Args:
        frames: of which the size counts.
        scale: of `SCALES`.
        rim: pixels around the core, where there are any.
    """

    def spans(size: int) -> list[tuple[slice, slice]]:
        first, stop = scale.half, size - scale.half
        return [
            (
                slice(max(start - rim, first), min(start + TILE + rim, stop)),
                slice(start, min(start + TILE, stop)),
            )
            for start in range(first, stop, TILE)
        ]

    for rows in spans(frames.shape[1]):
        for columns in spans(frames.shape[2]):
            outer, core = zip(rows, columns, strict=True)
            yield GaborTile(outer, core, scale.half)


@cache
def _fft_size(size: int) -> int:
    """The smallest size from ``size`` up that has no prime factor above 5."""
    rest = size
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    return size if rest == 1 else _fft_size(size + 1)
