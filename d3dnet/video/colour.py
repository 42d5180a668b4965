"""Planes of a picture ↔ what the network sees, and chroma four times larger.

The network was trained on BT.601 luma of limited range divided by 255, black at 16/255 and white at
235/255. That is a limited-range luma plane as it is stored; a full-range plane is mapped onto it
and back. Everything between decoding and encoding is float32, so deep pictures stay deep.

A *layout* says what the planes of a picture mean. Chroma positions are in luma samples: with steps
(2, 2) and offset (0.5, 0), chroma sample (i, j) lies at luma row 2i + 0.5, column 2j. Alpha is one
plane more, as large as luma and of full range; like chroma it goes past the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from d3dnet.network import SCALE
from d3dnet.network.cubic import Grid, resample_chroma, resample_luma

LUMA_BLACK, LUMA_SPAN = 16.0, 219.0  # limited range, in 8-bit code values
CHROMA_ZERO, CHROMA_SPAN = 128.0, 224.0

# MATLAB rgb2ycbcr, as in training: R, G, B in [0, 1] to 8-bit limited-range code values (BT.601).
RGB_TO_YCBCR = np.array(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
)
YCBCR_ZERO = np.array([LUMA_BLACK, CHROMA_ZERO, CHROMA_ZERO])
YCBCR_TO_RGB = np.linalg.inv(RGB_TO_YCBCR)

# Where chroma lies in a block of `step` luma samples: 0 first, 0.5 middle, 1 last (row, column).
# The keys are FFmpeg's names; a location that is not given is "left", as in MPEG-2 and later.
CHROMA_LOCATIONS = {
    "unspecified": (0.5, 0.0),
    "left": (0.5, 0.0),
    "center": (0.5, 0.5),
    "topleft": (0.0, 0.0),
    "top": (0.0, 0.5),
    "bottomleft": (1.0, 0.0),
    "bottom": (1.0, 0.5),
}


@dataclass(frozen=True)
class Layout:
    """What the planes of a picture mean.

    Attributes:
        pixel_format: FFmpeg's name of the planar little-endian format.
        family: "yuv" (three planes), "grey" (one) or "rgb" (three: green, blue, red).
        depth: bits per sample, 8 to 16; samples are uint8 up to 8 bits and uint16 above.
        chroma_step: luma samples per chroma sample (rows, columns); (1, 1) but for "yuv".
        chroma_offset: position of the first chroma sample in luma samples (row, column).
        full_range: black at 0 and white at 2^depth − 1, instead of 16 and 235 (times 2^(depth−8)).
        alpha: whether there is one plane more: 0 transparent, 2^depth − 1 opaque.
    """

    pixel_format: str
    family: Literal["yuv", "grey", "rgb"]
    depth: int
    chroma_step: tuple[int, int] = (1, 1)
    chroma_offset: tuple[float, float] = (0.0, 0.0)
    full_range: bool = False
    alpha: bool = False

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8 if self.depth <= 8 else np.uint16)

    def plane_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """(rows, columns) of each plane of a picture of `height` × `width` luma samples."""
        chroma = (-(-height // self.chroma_step[0]), -(-width // self.chroma_step[1]))
        sizes = [(height, width)] if self.family == "grey" else [(height, width), chroma, chroma]
        return [*sizes, (height, width)] if self.alpha else sizes


def chroma_offset(location: str, step: tuple[int, int]) -> tuple[float, float]:
    """Position of the first chroma sample in luma samples, for FFmpeg's name of a location."""
    row, column = CHROMA_LOCATIONS[location]
    return row * (step[0] - 1), column * (step[1] - 1)


def grid_of(layout: Layout) -> Grid:
    """Where the chroma samples of `layout` lie."""
    return Grid(layout.chroma_step, layout.chroma_offset)


def to_network(
    planes: Sequence[np.ndarray], layout: Layout
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Planes to the network's luma and to what goes past it.

    Returns:
        luma: (h, w) float32 in [0, 1], limited range over 255.
        rest: () for grey, else Cb and Cr, float32 in 8-bit limited-range code values, on the grid
            of `layout`'s chroma; then, if `layout` has it, alpha, (h, w) float32 in [0, 1].
    """
    if layout.alpha:
        luma, chroma = to_network(planes[:-1], replace(layout, alpha=False))
        return luma, (*chroma, planes[-1].astype(np.float32) / _top(layout.depth))
    if layout.family == "rgb":
        green, blue, red = (plane.astype(np.float32) / _top(layout.depth) for plane in planes)
        luma, cb, cr = rgb_to_ycbcr(red, green, blue)
        return luma / np.float32(255), (cb, cr)
    luma = _expand(planes[0], layout, LUMA_BLACK, LUMA_SPAN) / np.float32(255)
    return luma, tuple(_expand(plane, layout, CHROMA_ZERO, CHROMA_SPAN) for plane in planes[1:])


def from_network(
    luma: np.ndarray,
    rest: Sequence[np.ndarray],
    source: Layout,
    target: Layout,
    size: tuple[int, int] | None = None,
) -> tuple[np.ndarray, ...]:
    """The network's luma (4h, 4w) and what came out of `to_network` beside it to `target`'s planes.

    Chroma is interpolated from `source`'s grid onto that of `target`, four times larger; grey
    becomes neutral chroma where `target` has any. Alpha is interpolated likewise, or opaque.

    Args:
        size: (rows, columns) of the result where it is not four times larger: luma is made smaller
            from that, chroma is interpolated at once (`d3dnet.network.cubic`).
    """
    height, width = size or luma.shape
    if target.alpha:
        alpha = np.ones((height, width))
        if source.alpha:  # the cubic overshoots
            alpha = resample_luma(rest[-1], (height, width)).clip(0, 1)
        planes = from_network(luma, rest, source, replace(target, alpha=False), size)
        return (*planes, _quantise(alpha * _top(target.depth), target.depth))
    chroma = rest[:-1] if source.alpha else rest
    sizes = target.plane_sizes(height, width)
    code_values = luma * np.float32(255)
    scale = (SCALE * height / luma.shape[0], SCALE * width / luma.shape[1])
    if (height, width) != luma.shape:
        code_values = resample_luma(code_values, (height, width))
    if target.family == "grey":
        return (_compress(code_values, target, LUMA_BLACK, LUMA_SPAN),)
    chroma = [
        resample_chroma(plane, sizes[1], scale, grid_of(source), grid_of(target))
        for plane in chroma
    ]
    if not chroma:
        chroma = [np.full(sizes[1], CHROMA_ZERO, np.float32)] * 2
    if target.family == "rgb":
        red, green, blue = ycbcr_to_rgb(code_values, *chroma)
        return tuple(
            _quantise(plane * _top(target.depth), target.depth) for plane in (green, blue, red)
        )
    return (
        _compress(code_values, target, LUMA_BLACK, LUMA_SPAN),
        *(_compress(plane, target, CHROMA_ZERO, CHROMA_SPAN) for plane in chroma),
    )


def rgb_to_ycbcr(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> list[np.ndarray]:
    """R, G, B in [0, 1] to Y, Cb, Cr in 8-bit limited-range code values, BT.601 (float32)."""
    return [
        (row[0] * red + row[1] * green + row[2] * blue + zero).astype(np.float32, copy=False)
        for row, zero in zip(
            RGB_TO_YCBCR.astype(np.float32), YCBCR_ZERO.astype(np.float32), strict=True
        )
    ]


def ycbcr_to_rgb(luma: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> list[np.ndarray]:
    """The inverse of `rgb_to_ycbcr`; values outside [0, 1] are not clipped."""
    zero = YCBCR_ZERO.astype(np.float32)
    luma, cb, cr = luma - zero[0], cb - zero[1], cr - zero[2]
    return [row[0] * luma + row[1] * cb + row[2] * cr for row in YCBCR_TO_RGB.astype(np.float32)]


def _top(depth: int) -> np.float32:
    return np.float32(2**depth - 1)


def _expand(plane: np.ndarray, layout: Layout, zero: float, span: float) -> np.ndarray:
    """Stored samples to 8-bit limited-range code values, float32."""
    samples = plane.astype(np.float32)
    if not layout.full_range:
        return samples / np.float32(2 ** (layout.depth - 8))
    if zero == CHROMA_ZERO:
        samples -= np.float32(2 ** (layout.depth - 1))
    return samples * (np.float32(span) / _top(layout.depth)) + np.float32(zero)


def _compress(values: np.ndarray, layout: Layout, zero: float, span: float) -> np.ndarray:
    """The inverse of `_expand`, rounded to whole samples."""
    if not layout.full_range:
        return _quantise(values * np.float32(2 ** (layout.depth - 8)), layout.depth)
    samples = (values - np.float32(zero)) * (_top(layout.depth) / np.float32(span))
    if zero == CHROMA_ZERO:
        samples += np.float32(2 ** (layout.depth - 1))
    return _quantise(samples, layout.depth)


def _quantise(samples: np.ndarray, depth: int) -> np.ndarray:
    samples = np.clip(np.rint(samples), 0, 2**depth - 1)
    return samples.astype(np.uint8 if depth <= 8 else np.uint16)
