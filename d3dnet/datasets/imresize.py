"""The degradations of published x4 results: MATLAB's bicubic ``imresize`` (BI), and BD.

Source: the behaviour of MATLAB's ``imresize(A, scale, 'bicubic')``: Keys' cubic with a = -0.5,
widened by 1/scale when shrinking (antialiasing), symmetric borders, rows before columns.

BD is a Gaussian blur (sigma 1.6, 13 taps, symmetric borders), of which every 4th pixel is kept, the
first one first, as by DUF and by the D3Dnet authors' group. (BasicVSR's has 12 taps and so other
pixel centres.)
"""

from functools import lru_cache
from typing import Literal, get_args

import numpy as np

from d3dnet.network import SCALE
from d3dnet.network.cubic import keys_cubic

Recipe = Literal["double", "uint8"]
Degradation = Literal["double", "uint8", "bd"]
DEGRADATIONS: tuple[Degradation, ...] = get_args(Degradation)
BD_SIGMA = 1.6
BD_RADIUS = 6


@lru_cache(maxsize=64)
def resize_taps(size: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Source indices and weights, each (ceil(size * scale), taps), of one axis of `imresize`."""
    out_size = int(np.ceil(size * scale))
    stretch = min(scale, 1.0)  # antialiasing: the kernel is stretched when shrinking
    width = 4 / stretch
    # 1-based output centres mapped to input coordinates, as MATLAB does it.
    centre = np.arange(1, out_size + 1) / scale + 0.5 * (1 - 1 / scale)
    left = np.floor(centre - width / 2)
    index = left[:, None] + np.arange(int(np.ceil(width)) + 2)
    weight = stretch * keys_cubic(stretch * (centre[:, None] - index))
    weight /= weight.sum(axis=1, keepdims=True)
    used = np.any(weight != 0, axis=0)
    return _mirrored(index[:, used].astype(np.int64) - 1, size), weight[:, used]


@lru_cache(maxsize=64)
def bd_taps(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Source indices and weights, each (ceil(size / 4), 13), of one axis of the BD degradation."""
    reach = np.arange(-BD_RADIUS, BD_RADIUS + 1)
    weight = np.exp(-(reach**2) / (2 * BD_SIGMA**2))
    weight /= weight.sum()
    index = np.arange(0, size, SCALE)[:, None] + reach
    return _mirrored(index, size), np.broadcast_to(weight, index.shape)


def _mirrored(index: np.ndarray, size: int) -> np.ndarray:
    """Indices beyond a symmetric border: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ..."""
    index = index % (2 * size)
    mirrored: np.ndarray = np.minimum(index, 2 * size - 1 - index)
    return mirrored


def _filter_axis(image: np.ndarray, axis: int, taps: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    index, weight = taps
    lines = np.ascontiguousarray(np.moveaxis(image, axis, 0))
    shape = (len(index), *lines.shape[1:])
    out, product = np.zeros(shape), np.empty(shape)
    broadcast = (-1,) + (1,) * (lines.ndim - 1)
    # One tap after the other, as MATLAB sums: where a sum is a tie but for rounding errors, they
    # decide which way it goes.
    for tap in range(index.shape[1]):
        np.take(lines, index[:, tap], axis=0, out=product, mode="clip")
        product *= weight[:, tap].reshape(broadcast)
        out += product
    return np.moveaxis(out, 0, axis)


def _resize_axis(image: np.ndarray, axis: int, scale: float) -> np.ndarray:
    return _filter_axis(image, axis, resize_taps(image.shape[axis], scale))


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)


def imresize(image: np.ndarray, scale: float, recipe: Recipe = "double") -> np.ndarray:
    """Resize the first two axes of ``image`` by ``scale`` as MATLAB's bicubic ``imresize`` does.

    Args:
        image: (H, W) or (H, W, C), uint8 code values or floating point of any range.
        scale: output size over input size; the output is ceil(size * scale).
        recipe: for uint8 images, when results are rounded to 8 bit (floor(x + 0.5)):
            ``"double"`` once at the end, on [0, 1] (``im2double`` first); ``"uint8"`` after each
            of the two passes (MATLAB called on the 8-bit image itself).

    Returns:
        The resized image: uint8 for uint8 input, otherwise float64, not clipped.

    Raises:
        ValueError: for a wrong number of axes, dtype, scale or recipe.

    >>> imresize(np.full((8, 8, 3), 200, np.uint8), 1 / 4).tolist()
    [[[200, 200, 200], [200, 200, 200]], [[200, 200, 200], [200, 200, 200]]]
    """
    if image.ndim not in (2, 3):
        raise ValueError(f"image: got {image.ndim} axes; accepted are (H, W) and (H, W, C)")
    if scale <= 0:
        raise ValueError(f"scale: got {scale}; accepted is a number above 0")
    if recipe not in ("double", "uint8"):
        raise ValueError(f"recipe: got {recipe!r}; accepted are 'double' and 'uint8'")
    if np.issubdtype(image.dtype, np.floating):
        return _resize_axis(_resize_axis(image.astype(np.float64), 0, scale), 1, scale)
    if image.dtype != np.uint8:
        raise ValueError(f"image: got dtype {image.dtype}; accepted are uint8 and floating point")
    if recipe == "uint8":
        rows = _to_uint8(_resize_axis(image.astype(np.float64), 0, scale))
        return _to_uint8(_resize_axis(rows.astype(np.float64), 1, scale))
    unit = image.astype(np.float64) / 255
    return _to_uint8(_resize_axis(_resize_axis(unit, 0, scale), 1, scale) * 255)


def blur_decimate(image: np.ndarray) -> np.ndarray:
    """The BD degradation of an (H, W) or (H, W, C) uint8 image: uint8, rounded once, a quarter.

    >>> blur_decimate(np.full((8, 8), 200, np.uint8)).tolist()
    [[200, 200], [200, 200]]
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"image: got {image.dtype} {image.shape}; accepted is uint8 (H, W[, C])")
    blurred = image.astype(np.float64)
    for axis in (0, 1):
        blurred = _filter_axis(blurred, axis, bd_taps(image.shape[axis]))
    return _to_uint8(blurred)


def degrade(image: np.ndarray, degradation: Degradation) -> np.ndarray:
    """The low-resolution image that a data set is made with.

    Args:
        image: (H, W) or (H, W, C) uint8; rows and columns beyond a multiple of 4 are cut off.
        degradation: a recipe of `imresize`, or "bd".

    Returns:
        (H // 4, W // 4[, C]) uint8.

    Raises:
        ValueError: for an unknown degradation.

    >>> degrade(np.zeros((18, 33), np.uint8), "bd").shape
    (4, 8)
    """
    height, width = (size - size % SCALE for size in image.shape[:2])
    image = image[:height, :width]
    if degradation == "bd":
        return blur_decimate(image)
    if degradation not in DEGRADATIONS:
        raise ValueError(
            f"degradation: got {degradation!r}; accepted are {', '.join(DEGRADATIONS)}"
        )
    return imresize(image, 1 / SCALE, degradation)
