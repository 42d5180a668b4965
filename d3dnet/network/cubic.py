"""Planes to any size, by Keys' cubic (a = −½): beside the network, before it and after it.

The cubic is widened as much as the picture shrinks, so that nothing aliases; beyond the edges the
last sample is repeated. Pictures are scaled about their edges: the centre of sample X of the result
lies at (X + ½) / scale − ½ in the source. Chroma follows luma, so that colours stay on their edges
wherever its samples lie.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """Where chroma samples lie: step and first position in luma samples, (rows, columns)."""

    step: tuple[int, int] = (1, 1)
    offset: tuple[float, float] = (0.0, 0.0)


LUMA = Grid()


def resample_luma(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An (h, w) plane as (rows, columns) `size`, float32.

    >>> resample_luma(np.ones((2, 3)), (8, 12)).shape
    (8, 12)
    """
    scale = (size[0] / plane.shape[0], size[1] / plane.shape[1])
    return resample_chroma(plane, size, scale, LUMA, LUMA)


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
        factor = scale[axis] * source.step[axis] / target.step[axis]  # samples made of one
        whole = factor >= 1 and factor == int(factor) and size[axis] <= factor * plane.shape[axis]
        luma = target.step[axis] * np.arange(factor if whole else size[axis]) + target.offset[axis]
        luma = (luma + 0.5) / scale[axis] - 0.5
        position = (luma - source.offset[axis]) / source.step[axis]
        if whole:
            plane = _in_phases(plane, axis, size[axis], position)
        else:
            plane = _at_positions(plane, axis, position, max(1.0, 1 / factor))
    return plane


def _at_positions(plane: np.ndarray, axis: int, position: np.ndarray, stretch: float) -> np.ndarray:
    """Samples at `position` along `axis`, with the cubic `stretch` times wider."""
    first = np.ceil(position - 2 * stretch).astype(int)
    taps = first[:, None] + np.arange(int(4 * stretch) + 1)
    weights = keys_cubic((taps - position[:, None]) / stretch)
    weights /= weights.sum(axis=1, keepdims=True)
    taps = taps.clip(0, plane.shape[axis] - 1)
    along = (slice(None), None) if axis == 0 else (None, slice(None))
    result = np.zeros([len(position) if a == axis else plane.shape[a] for a in (0, 1)], np.float32)
    for tap in range(taps.shape[1]):
        result += weights[:, tap].astype(np.float32)[along] * plane.take(taps[:, tap], axis).astype(
            np.float32
        )
    return result


def _in_phases(plane: np.ndarray, axis: int, size: int, position: np.ndarray) -> np.ndarray:
    """The same, much faster, where every sample becomes the same number of samples.

    Args:
        position: of the samples made of the first one, in the source; those of the next ones lie a
            sample further each.
    """
    length, factor = plane.shape[axis], len(position)
    first = np.floor(position).astype(int) - 1
    before, after = max(0, -int(first.min())), max(0, int(first.max()) + 3)
    pad = [(0, 0), (0, 0)]
    pad[axis] = (before, after)
    padded = np.pad(plane, pad, mode="edge")
    shape = list(plane.shape)
    shape[axis] = factor * length
    result = np.empty(shape, np.float32)

    def along(start: int, stop: int | None, step: int = 1) -> tuple[slice, slice]:
        cut = slice(start, stop, step)
        return (cut, slice(None)) if axis == 0 else (slice(None), cut)

    for phase in range(factor):
        start = before + int(first[phase])
        fraction = position[phase] - np.floor(position[phase])  # past the second of four neighbours
        weights = keys_cubic(fraction - np.arange(-1.0, 3.0)).astype(np.float32)
        result[along(phase, None, factor)] = sum(
            weight * padded[along(start + tap, start + tap + length)]
            for tap, weight in enumerate(weights)
        )
    return result[along(0, size)]


def keys_cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel, a = −½, as MATLAB's ``imresize`` writes it.

    >>> keys_cubic(np.array([0, 0.5, -1, 1.5, 3]))
    array([ 1.    ,  0.5625,  0.    , -0.0625,  0.    ])
    """
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
