"""Planes to any size: where the result is not four times larger than the source.

Luma comes from the network four times larger and is made smaller from that; chroma is interpolated
from its own samples at once. Keys' cubic (a = −½), which is widened as much as the picture shrinks,
so that nothing aliases; beyond the edges the last sample is repeated. Pictures are scaled about
their edges: the centre of sample X of the result lies at (X + ½) / scale − ½ in the source.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Where chroma samples lie: step and first position in luma samples, (rows, columns)."""

    step: tuple[int, int] = (1, 1)
    offset: tuple[float, float] = (0.0, 0.0)


def resample_luma(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An (h, w) plane as (rows, columns) `size`, float32."""
    scale = (size[0] / plane.shape[0], size[1] / plane.shape[1])
    return resample_chroma(plane, size, scale, Grid(), Grid())


def resample_chroma(
    plane: np.ndarray,
    size: tuple[int, int],
    scale: tuple[float, float],
    source: Grid,
    target: Grid,
) -> np.ndarray:
    """A chroma plane on the grid `source` onto the grid `target` of a picture `scale` times larger.

    Args:
        plane: (h, w).
        size: (rows, columns) of the result, float32.
        scale: luma samples of the result per luma sample of the source, (rows, columns).
    """
    for axis in (0, 1):
        luma = target.step[axis] * np.arange(size[axis]) + target.offset[axis]
        luma = (luma + 0.5) / scale[axis] - 0.5
        position = (luma - source.offset[axis]) / source.step[axis]
        spacing = target.step[axis] / (scale[axis] * source.step[axis])
        plane = _resample_axis(plane, axis, position, max(1.0, spacing))
    return plane


def _resample_axis(
    plane: np.ndarray, axis: int, position: np.ndarray, stretch: float
) -> np.ndarray:
    """Samples at `position` along `axis`, with the cubic `stretch` times wider."""
    first = np.ceil(position - 2 * stretch).astype(int)
    taps = first[:, None] + np.arange(int(4 * stretch) + 1)
    weights = keys_cubic((taps - position[:, None]) / stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    taps = taps.clip(0, plane.shape[axis] - 1)
    along = (slice(None), None) if axis == 0 else (None, slice(None))
    shape = list(plane.shape)
    shape[axis] = len(position)
    total = np.zeros(shape, np.float32)
    for tap in range(taps.shape[1]):
        samples = plane.take(taps[:, tap], axis).astype(np.float32)
        total += weights[:, tap].astype(np.float32)[along] * samples
    return total


def keys_cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel, a = −½, as MATLAB's ``imresize`` writes it.

    >>> keys_cubic(np.array([0, 0.5, -1, 1.5, 3]))
    array([ 1.    ,  0.5625,  0.    , -0.0625,  0.    ])
    """
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
