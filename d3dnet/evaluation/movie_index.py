"""The MOVIE index of video quality: spatial, temporal ("T-MOVIE") and their product.

Seshadrinathan and Bovik, "Motion tuned spatio-temporal quality assessment of natural videos", IEEE
TIP 19(2), 2010, as version 1.0 of the authors' release computes it, from which published figures
come. It departs from the paper in places; each is remarked on below.

The filters are in `movie_gabor.py`, the motion of the ground truth in `movie_flow.py`; here are the
index, its sums over the filters, and its maps. Axes are (y, x, t) = (row, column, frame);
everything is float64. Maps have the size of a frame, and are 0 where a filter does not fit.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from d3dnet.evaluation.movie_flow import add_constraints, combine_flows, scale_flow
from d3dnet.evaluation.movie_gabor import (
    RADIUS,
    SCALES,
    Scale,
    gabor_tiles,
    gaussian,
    responses,
    separable,
)

FIRST_FRAME, INTERVAL = 17, 8  # schedule of the release, counting frames from 1
SMALLEST = 54  # rows and columns: the temporal map leaves out 26 on every side
TEMPORAL_BORDER, SPATIAL_BORDER, GABOR_BORDER = 26, 19, 23

DC_SIGMA = 1 / (SCALES[2].frequency - 1 / SCALES[2].sigma)
DC_HALF = 3
WINDOW_RADIUS, WINDOW_SIGMA = 3, 2.0  # the paper has sigma 7/3; the release divides integers
GABOR_MASK, DC_MASK, TEMPORAL_MASK = 0.1, 1.0, 100.0


@dataclass(frozen=True)
class MovieFrame:
    """One evaluated frame; ``index`` counts from 0 in the clip."""

    index: int
    spatial: float
    temporal: float


@dataclass(frozen=True)
class MovieScore:
    """A clip: means over its evaluated frames. Lower is better; tables print them x 1000.

    Attributes:
        movie: spatial times the square root of temporal.
        spatial: Spatial MOVIE.
        temporal: Temporal MOVIE, "T-MOVIE".
        frames: the evaluated frames.
    """

    movie: float
    spatial: float
    temporal: float
    frames: tuple[MovieFrame, ...]


def movie(
    sr: np.ndarray | Tensor,
    hr: np.ndarray | Tensor,
    *,
    start: int = FIRST_FRAME,
    interval: int = INTERVAL,
    device: torch.device | str | None = None,
) -> MovieScore:
    """The MOVIE index of a clip against its ground truth.

    Args:
        sr: (T, H, W) luma of the clip under test, code values in [0, 255]: uint8 or floating
            point. At least 33 frames of 54 x 54.
        hr: the same of the ground truth; motion is estimated on it alone.
        start: first evaluated frame, counting from 1; 17 or more.
        interval: frames from one evaluated frame to the next.
        device: where to compute; by default where the tensors are, for arrays the CPU.

    Raises:
        ValueError: for other shapes, clips too short or frames too small, values that are not
            finite, or a schedule without frames.
    """
    sr, hr = (_luma_clip(name, clip, device) for name, clip in (("sr", sr), ("hr", hr)))
    if sr.shape != hr.shape:
        raise ValueError(
            f"sr: got shape {tuple(sr.shape)}; accepted is that of the ground truth "
            f"{tuple(hr.shape)}"
        )
    if hr.device != sr.device:
        raise ValueError(f"sr: is on {sr.device} and hr on {hr.device}; accepted is one device")
    evaluated = evaluated_frames(len(hr), start, interval)
    frames = []
    for index in evaluated:
        window = slice(index - RADIUS, index + RADIUS + 1)
        maps = movie_maps(sr[window].double(), hr[window].double())
        frames.append(MovieFrame(index, *map(_pool, maps)))
    spatial, temporal = (
        sum(getattr(frame, name) for frame in frames) / len(frames)
        for name in ("spatial", "temporal")
    )
    return MovieScore(spatial * math.sqrt(temporal), spatial, temporal, tuple(frames))


def evaluated_frames(frames: int, start: int = FIRST_FRAME, interval: int = INTERVAL) -> range:
    """Indices, from 0, of the frames of a clip at which MOVIE is evaluated.

    Args:
        frames: of the clip.
        start, interval: of `movie`.

    Raises:
        ValueError: when there are none, or for a schedule that begins too early.

    >>> list(evaluated_frames(49))
    [16, 24, 32]
    """
    if start <= RADIUS or interval < 1:
        raise ValueError(
            f"start and interval: got {start} and {interval}; accepted are {RADIUS + 1} and more, "
            "1 and more"
        )
    evaluated = range(start - 1, frames - RADIUS, interval)
    if not evaluated:
        raise ValueError(
            f"MOVIE: got {frames} frames; accepted are {start + RADIUS} and more when the first "
            f"evaluated frame is number {start}, for it sees {RADIUS} frames to either side"
        )
    return evaluated


def movie_maps(sr: Tensor, hr: Tensor) -> tuple[Tensor, Tensor]:
    """The spatial and the temporal map of the middle frame of a window of frames.

    Args:
        sr: (33, H, W) float64 luma in [0, 255] of the clip under test.
        hr: the same of the ground truth.

    Returns:
        spatial: (H - 38, W - 38), the map E; in its outer 4 pixels only the DC channel counts.
        temporal: (H - 52, W - 52), the map E_T.
    """
    dc = torch.stack([dc_response(clip) for clip in (sr, hr)])
    local_mean = smooth(dc)
    deviation = (dc - local_mean) ** 2
    peak = peak_amplitude(hr)
    channels = [channel_sums(sr, hr, scale, peak) for scale in SCALES]
    velocity, _ = combine_flows(
        [scale_flow(sums.constraints, scale) for sums, scale in zip(channels, SCALES, strict=True)]
    )
    tuned = deviation + sum(
        tuned_energy(sums.energy, velocity, scale)
        for sums, scale in zip(channels, SCALES, strict=True)
    )
    energy = deviation + sum(sums.energy[:, 0] for sums in channels)
    ratio = tuned / (energy + TEMPORAL_MASK)
    temporal = smooth((ratio[0] - ratio[1]) ** 2)
    spatial = dc_error(dc, local_mean)
    _inside(spatial, GABOR_BORDER).add_(sum(_inside(sums.error, GABOR_BORDER) for sums in channels))
    return _inside(spatial / 4, SPATIAL_BORDER), _inside(temporal, TEMPORAL_BORDER)


# Responses


def dc_response(frames: Tensor) -> Tensor:
    """(33, H, W) float64 to the response (H, W) of the DC filter at the middle frame."""
    kernel = torch.from_numpy(gaussian(DC_SIGMA, DC_HALF))
    middle = frames[RADIUS - DC_HALF : RADIUS + DC_HALF + 1]
    return separable(torch.tensordot(kernel.to(frames.device), middle, 1), kernel)


def peak_amplitude(frames: Tensor) -> float:
    """The largest |R| of all filters and pixels of (33, H, W) float64 frames."""
    return max(
        response.abs().max().item()
        for scale in SCALES
        for tile in gabor_tiles(frames, scale)
        for response in responses(tile.around(frames), scale)
    )


@dataclass(frozen=True)
class ChannelSums:
    """Sums over the filters of a scale, at each pixel.

    Attributes:
        energy: (2, 4, H, W): for the clip under test and the ground truth, the sums of |R|^2, and
            of |R|^2 times w_y, w_x and w_t.
        constraints: (7, H, W): sums of n_y n_y, n_y n_x, n_x n_x, m n_y, m n_x, m m and 1 over the
            constraints on the velocity: normal (n_y, n_x), speed m along it.
        error: (H, W), the scale's part E_s of the spatial map.
    """

    energy: Tensor
    constraints: Tensor
    error: Tensor


def channel_sums(sr: Tensor, hr: Tensor, scale: Scale, peak: float) -> ChannelSums:
    """Run the filters of a scale over both clips.

    Args:
        sr: (33, H, W) float64, clip under test.
        hr: the same, ground truth.
        scale: of `SCALES`.
        peak: `peak_amplitude` of the ground truth.
    """
    sums = hr.new_zeros(2 * 4 + 7 + 1, *hr.shape[1:])
    frequencies = torch.from_numpy(scale.frequencies).to(hr.device)
    for tile in gabor_tiles(hr, scale, rim=WINDOW_RADIUS):
        local = hr.new_zeros(len(sums), *tile.size)
        energy, constraints, error = local[:8].unflatten(0, (2, 4)), local[8:15], local[15]
        of_sr = responses(tile.around(sr), scale)
        of_hr = responses(tile.around(hr), scale, derivatives=True)
        for frequency, low, high in zip(frequencies, of_sr, of_hr, strict=True):
            pair = torch.cat([low, high[:1]])
            power = pair.real**2 + pair.imag**2
            energy[:, 0] += power
            energy[:, 1:] += frequency[:, None, None] * power[:, None]
            error += _gabor_error(power)
            add_constraints(constraints, high, power[1], frequency, scale, peak)
        tile.put(local, sums)
    energy, constraints, error = sums.split([8, 7, 1])
    return ChannelSums(energy.unflatten(0, (2, 4)), constraints, error[0] / 70)


def _gabor_error(power: Tensor) -> Tensor:
    """The spatial error of a filter from |R|^2 of both clips, (2, h, w) to (h, w)."""
    low, high = power.sqrt()
    of_low, of_high, difference = smooth(torch.cat([power, ((low - high) ** 2)[None]]))
    error: Tensor = difference / (torch.maximum(of_low, of_high).sqrt() + GABOR_MASK) ** 2
    return error


# Maps


def tuned_energy(energy: Tensor, velocity: Tensor, scale: Scale) -> Tensor:
    """Energy of a scale's filters, weighted by how far each is from the plane of the motion.

    d = (v_x w_y + v_y w_x + w_t) / sqrt(|v|^2 + 1) for each filter; its weight is W - d, shifted
    and scaled to a mean of 0 and a maximum of 1 over the scale's filters, so that W drops out. The
    release crosses the components of the velocity, and d has a sign; the paper has neither.

    Args:
        energy: of `ChannelSums`.
        velocity: (2, H, W), (v_y, v_x).
        scale: of `SCALES`.

    Returns:
        (2, H, W): clip under test, ground truth.
    """
    length = (velocity.square().sum(0) + 1).sqrt()
    unit = torch.stack([velocity[1], velocity[0], torch.ones_like(length)]) / length
    frequencies = torch.from_numpy(scale.frequencies).to(unit.device)
    mean = torch.einsum("a,ahw->hw", frequencies.mean(0), unit)
    smallest = torch.full_like(mean, math.inf)
    for frequency in frequencies:
        smallest = torch.minimum(smallest, torch.einsum("a,ahw->hw", frequency, unit))
    weighted = (unit * energy[:, 1:]).sum(1)
    return (mean * energy[:, 0] - weighted) / (mean - smallest)


def dc_error(dc: Tensor, local_mean: Tensor) -> Tensor:
    """The spatial error of the DC channel.

    Args:
        dc: (2, H, W), responses of the DC filter to the clip under test and the ground truth.
        local_mean: (2, H, W), their means in the window; the one of the centre is taken for all.

    Returns:
        (H, W); within 3 pixels of the border samples wrap around.
    """
    weights = torch.from_numpy(_window()).tolist()
    offsets = range(-WINDOW_RADIUS, WINDOW_RADIUS + 1)
    power, difference = torch.zeros_like(dc), torch.zeros_like(dc[0])
    for p, weight_p in zip(offsets, weights, strict=True):
        for q, weight_q in zip(offsets, weights, strict=True):
            shifted = (dc.roll((-p, -q), (1, 2)) - local_mean).abs()
            power += weight_p * weight_q * shifted**2
            difference += weight_p * weight_q * (shifted[0] - shifted[1]) ** 2
    return difference / (2 * (power.amax(0).sqrt() + DC_MASK) ** 2)


def smooth(maps: Tensor) -> Tensor:
    """Mean over the 7 x 7 Gaussian window, of (..., H, W) float64; zeros beyond the border."""
    return separable(maps, torch.from_numpy(_window()))


def _window() -> np.ndarray:
    window = gaussian(WINDOW_SIGMA, WINDOW_RADIUS)
    window /= window.sum()
    return window


def _inside(maps: Tensor, border: int) -> Tensor:
    return maps[..., border:-border, border:-border]


def _pool(error: Tensor) -> float:
    return (error.std() / (1 - error.mean())).item()


def _luma_clip(name: str, clip: np.ndarray | Tensor, device: torch.device | str | None) -> Tensor:
    clip = torch.as_tensor(clip, device=device)
    if clip.dim() != 3 or min(clip.shape[1:]) < SMALLEST:
        raise ValueError(
            f"{name}: got shape {tuple(clip.shape)}; accepted is (T, H, W), H and W at least "
            f"{SMALLEST}"
        )
    if clip.dtype != torch.uint8 and not clip.is_floating_point():
        raise ValueError(f"{name}: got {clip.dtype}; accepted are uint8 and floating point luma")
    if not clip.isfinite().all():
        raise ValueError(f"{name}: holds values that are not finite; accepted are code values")
    return clip
