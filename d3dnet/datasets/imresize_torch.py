"""`imresize` and BD on batches of tensors, on any device, equal to the numpy ones to the last bit.

Equal because products are added in the same order, in double precision, each rounded by itself
(`imresize` says why that matters). On a CPU the numpy ones take about half the time.
"""

import math

import numpy as np
import torch
from torch import Tensor

from d3dnet.datasets.imresize import (
    DEGRADATIONS,
    SCALE,
    Degradation,
    Recipe,
    bd_taps,
    resize_taps,
)


def imresize(images: Tensor, scale: float, recipe: Recipe = "double") -> Tensor:
    """Resize images by ``scale`` as MATLAB's bicubic ``imresize`` does.

    Args:
        images: (..., H, W), uint8 code values or floating point of any range.
        scale: output size over input size; the output is ceil(size * scale).
        recipe: as of `d3dnet.datasets.imresize.imresize`.

    Returns:
        The resized images: uint8 for uint8 input, otherwise float64, not clipped.

    Raises:
        ValueError: for a wrong number of axes, dtype, scale or recipe.
    """
    _check(images)
    if scale <= 0:
        raise ValueError(f"scale: got {scale}; accepted is a number above 0")
    if recipe not in ("double", "uint8"):
        raise ValueError(f"recipe: got {recipe!r}; accepted are 'double' and 'uint8'")
    height, width = images.shape[-2:]
    rows, columns = resize_taps(height, scale), resize_taps(width, scale)
    if images.is_floating_point():
        return _filter_columns(_filter_rows(images.double(), rows), columns)
    if recipe == "uint8":
        resized = _to_uint8(_filter_rows(images.double(), rows))
        return _to_uint8(_filter_columns(resized.double(), columns))
    # By a tensor of the device: CUDA multiplies by the inverse of a number, which is not the same.
    unit = images.double() / torch.tensor(255.0, dtype=torch.float64, device=images.device)
    return _to_uint8(_filter_columns(_filter_rows(unit, rows), columns) * 255)


def degrade(images: Tensor, degradation: Degradation) -> Tensor:
    """Low-resolution images as a data set is made with: see `d3dnet.datasets.imresize.degrade`.

    Args:
        images: (..., H, W) uint8; rows and columns beyond a multiple of 4 are cut off.
        degradation: a recipe of `imresize`, or "bd".

    Returns:
        (..., H // 4, W // 4) uint8.
    """
    _check(images)
    height, width = (size - size % SCALE for size in images.shape[-2:])
    images = images[..., :height, :width]
    if degradation == "bd":
        blurred = _filter_rows(images.double(), bd_taps(height))
        return _to_uint8(_filter_columns(blurred, bd_taps(width)))
    if degradation not in DEGRADATIONS:
        raise ValueError(
            f"degradation: got {degradation!r}; accepted are {', '.join(DEGRADATIONS)}"
        )
    return imresize(images, 1 / SCALE, degradation)


def _check(images: Tensor) -> None:
    if images.ndim < 2:
        raise ValueError(f"images: got {images.ndim} axes; accepted is (..., H, W)")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"images: got {images.dtype}; accepted are uint8 and floating point")


def _filter_rows(images: Tensor, taps: tuple[np.ndarray, np.ndarray]) -> Tensor:
    """Filter along the height: (..., H, W) float64 to (..., out, W)."""
    lead, (height, width) = images.shape[:-2], images.shape[-2:]
    # Height first, so that a tap takes whole rows of memory.
    lines = images.reshape(-1, height, width).movedim(1, 0).reshape(height, -1)
    index, weight = (torch.from_numpy(np.array(part)).to(lines.device) for part in taps)
    out = lines.new_zeros(len(index), lines.shape[1])
    product = torch.empty_like(out)
    for tap in range(index.shape[1]):
        torch.index_select(lines, 0, index[:, tap], out=product)
        out += product.mul_(weight[:, tap, None])
    return out.reshape(len(index), math.prod(lead), width).movedim(0, 1).reshape(*lead, -1, width)


def _filter_columns(images: Tensor, taps: tuple[np.ndarray, np.ndarray]) -> Tensor:
    return _filter_rows(images.transpose(-1, -2), taps).transpose(-1, -2)


def _to_uint8(images: Tensor) -> Tensor:
    return images.add(0.5).floor_().clamp_(0, 255).to(torch.uint8)
