"""Deformable 3-D convolution and its gradients written out as loops, in float64.

Shares no code with d3dnet: it follows the definition position by position, tap by tap and corner by
corner; only the channels of a pixel are handled as a vector.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray


@dataclass(frozen=True)
class Result:
    output: ndarray
    grad_input: ndarray
    grad_offset: ndarray
    grad_weight: ndarray
    grad_bias: ndarray
    grad_mask: ndarray


def deform_conv3d(
    x: ndarray,
    offset: ndarray,
    weight: ndarray,
    bias: ndarray | None,
    mask: ndarray | None,
    stride: tuple[int, int, int],
    padding: tuple[int, int, int],
    dilation: tuple[int, int, int],
    dims: str,
    grad: ndarray | None = None,
    negative_slope: float = 1.0,
) -> Result:
    """Return the output and, for an output gradient (ones if None), every gradient."""
    if negative_slope != 1:
        arguments = (x, offset, weight, bias, mask, stride, padding, dilation, dims)
        return with_leaky_relu(arguments, grad, negative_slope)
    batch, channels, *size = x.shape
    outputs, group_channels, *kernel = weight.shape
    taps = kernel[0] * kernel[1] * kernel[2]
    conv_groups = channels // group_channels
    offset_groups = offset.shape[1] // (taps * len(dims))
    shared = channels // offset_groups  # channels moved by one offset group
    out_size = offset.shape[2:]
    output = np.zeros((batch, outputs, *out_size))
    if bias is not None:
        output += bias[None, :, None, None, None]
    if grad is None:
        grad = np.ones_like(output)
    grad_x, grad_offset = np.zeros_like(x), np.zeros_like(offset)
    grad_weight = np.zeros_like(weight)
    grad_mask = np.zeros((batch, offset_groups * taps, *out_size))

    for b in range(batch):
        for at in np.ndindex(*out_size):
            for tap, (i, j, k) in enumerate(np.ndindex(*kernel)):
                column = np.zeros(channels)
                grad_column = np.zeros(channels)
                for g in range(conv_groups):
                    ins = slice(g * group_channels, (g + 1) * group_channels)
                    outs = slice(g * outputs // conv_groups, (g + 1) * outputs // conv_groups)
                    grad_column[ins] = weight[outs, :, i, j, k].T @ grad[(b, outs, *at)]
                for g in range(offset_groups):
                    moved = slice(g * shared, (g + 1) * shared)
                    factor = 1.0 if mask is None else mask[(b, g * taps + tap, *at)]
                    position = []
                    for axis in range(3):
                        p = float(at[axis] * stride[axis] - padding[axis])
                        p += (i, j, k)[axis] * dilation[axis]
                        if "THW"[axis] in dims:
                            row = (g * taps + tap) * len(dims) + dims.index("THW"[axis])
                            p += offset[(b, row, *at)]
                        position.append(p)
                    for corner, w, slopes in cell(position, size):
                        pixel = x[(b, moved, *corner)]
                        if w != 0:
                            column[moved] += factor * w * pixel
                            grad_x[(b, moved, *corner)] += factor * w * grad_column[moved]
                            grad_mask[(b, g * taps + tap, *at)] += w * (pixel @ grad_column[moved])
                        for n, name in enumerate(dims):
                            row = (g * taps + tap) * len(dims) + n
                            slope = slopes["THW".index(name)]
                            grad_offset[(b, row, *at)] += (
                                factor * slope * (pixel @ grad_column[moved])
                            )
                for g in range(conv_groups):
                    ins = slice(g * group_channels, (g + 1) * group_channels)
                    outs = slice(g * outputs // conv_groups, (g + 1) * outputs // conv_groups)
                    output[(b, outs, *at)] += weight[outs, :, i, j, k] @ column[ins]
                    grad_weight[outs, :, i, j, k] += np.outer(grad[(b, outs, *at)], column[ins])
    return Result(output, grad_x, grad_offset, grad_weight, grad.sum((0, 2, 3, 4)), grad_mask)


def with_leaky_relu(arguments: tuple, grad: ndarray | None, negative_slope: float) -> Result:
    """The same of a LeakyReLU of the output: where that is negative, all is scaled."""
    output = deform_conv3d(*arguments).output
    slope = np.array([negative_slope if value <= 0 else 1.0 for value in output.ravel()])
    slope = slope.reshape(output.shape)
    gradients = deform_conv3d(*arguments, grad=slope if grad is None else slope * grad)
    return replace(gradients, output=slope * output)


def cell(position: list[float], size: list[int]) -> list[tuple[tuple[int, ...], float, list]]:
    """Corners inside the clip around a position: (t, h, w), weight, slope along each axis.

    Empty for a position at ≤ -1 or ≥ size in any dimension. The slope is the derivative of the
    weight within [floor(p), floor(p) + 1).
    """
    if any(not -1 < p < n for p, n in zip(position, size, strict=True)):
        return []
    corners = []
    for ends in np.ndindex(2, 2, 2):
        corner = tuple(math.floor(p) + end for p, end in zip(position, ends, strict=True))
        if any(not 0 <= c < n for c, n in zip(corner, size, strict=True)):
            continue
        fractions = [p - math.floor(p) for p in position]
        weights = [f if end else 1 - f for f, end in zip(fractions, ends, strict=True)]
        slopes = []
        for axis in range(3):
            sign = 1 if ends[axis] else -1
            others = [w for other, w in enumerate(weights) if other != axis]
            slopes.append(sign * others[0] * others[1])
        corners.append((corner, weights[0] * weights[1] * weights[2], slopes))
    return corners
