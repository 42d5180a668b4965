"""Motion between neighbouring low-resolution frames, for networks that follow it.

A *guided frame* is a tensor of 7 channels: a frame's luma, and for the frame before it and the one
after it each where its pixels are found there: rows and columns from the pixel's own place, in
low-resolution pixels, and a confidence from 0 to 1. Where there is no such frame, all are zero.

Optical flow is OpenCV's DIS (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV
2016) of luma in 8 bits, enlarged twice so that patches of 8 pixels still see small things. The
confidence asks whether the way there and back ends where it began (Sundaram et al., "Dense point
trajectories", ECCV 2010, with a soft bound). It is the same whatever runs beside it: whole frames,
each pair by itself.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

CHANNELS = 7  # of a guided frame
BEFORE, AFTER = slice(1, 4), slice(4, 7)  # its motion to the neighbouring frames
REACH = 64.0  # pixels that a motion has at most, in rows and in columns
ENLARGED = 2  # times, for the flow
SMALLEST = 8  # rows or columns; smaller frames are taken to stand still
WORKERS = 2  # threads that look for motion, so many pairs of frames ahead

Plane = npt.NDArray[np.float32]


class Pair(NamedTuple):
    """Motion between two frames, (3, h, w) each: from the first to the second, and back."""

    there: Plane
    back: Plane


def pair_motion(first: np.ndarray, second: np.ndarray) -> Pair:
    """Where the pixels of two neighbouring frames are found in the other one.

    Args:
        first, second: (h, w) uint8 luma.

    Returns:
        Rows, columns and confidence, float32; ``first[p]`` is ``second[p + there[:2, p]]``.

    >>> frame = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    >>> frame = cv2.GaussianBlur(frame, (0, 0), 2)
    >>> there, _ = pair_motion(frame, np.roll(frame, 2, axis=1))
    >>> bool(abs(np.median(there[1]) - 2) < 0.1)
    True
    """
    height, width = first.shape
    if min(height, width) < SMALLEST:
        still = np.zeros((3, height, width), np.float32)
        still[2] = 1
        return Pair(still, still.copy())
    large = [_enlarged(frame) for frame in (first, second)]
    there, back = (
        _reduced(dense_flow(here, other), (width, height))
        for here, other in (large, reversed(large))
    )
    return Pair(*(np.stack([*a, _confidence(a, b)]) for a, b in ((there, back), (back, there))))


def dense_flow(
    first: np.ndarray, second: np.ndarray, preset: int = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
) -> np.ndarray:
    """DIS optical flow of (h, w) uint8 frames: (h, w, 2) float32 pixels, columns before rows."""
    begin_with_nothing = cast(np.ndarray, None)  # accepted, though OpenCV's types do not say so
    flow: np.ndarray = cv2.DISOpticalFlow.create(preset).calc(first, second, begin_with_nothing)
    return flow


def _enlarged(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape
    size = (ENLARGED * width, ENLARGED * height)
    return cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)


def _reduced(flow: np.ndarray, size: tuple[int, int]) -> Plane:
    """Flow (H, W, 2), columns first, of enlarged frames -> (2, h, w), rows first, within reach."""
    flow = cv2.resize(flow, size, interpolation=cv2.INTER_AREA) / ENLARGED
    rows_first = np.ascontiguousarray(flow[..., ::-1].transpose(2, 0, 1), np.float32)
    return np.clip(rows_first, -REACH, REACH)


def _confidence(there: Plane, back: Plane) -> Plane:
    """1 where the way there and back ends where it began, towards 0 the further from it."""
    rows, columns = np.indices(there.shape[1:], np.float32) + there
    way_back = np.stack(
        [
            cv2.remap(p, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for p in back
        ]
    )
    missed = np.square(there + way_back).sum(0)
    length = np.square(there).sum(0) + np.square(way_back).sum(0)
    confidence: Plane = np.exp(-missed / (0.5 + 0.05 * length))
    return confidence


def guided(frames: Iterable[Tensor], workers: int = WORKERS) -> Iterator[Tensor]:
    """The frames of one shot with the motion to their neighbours.

    Args:
        frames: (1, h, w) luma in [0, 1], all of one size.
        workers: threads; so many frames are taken ahead, and one besides.

    Yields:
        (7, h, w) float32 on the CPU, see above.
    """
    waiting: deque[tuple[Tensor, Future[Pair] | None]] = deque()  # a frame, and the way to it
    with ThreadPoolExecutor(workers) as pool:
        before: Pair | None = None  # the way to the first one that waits
        last: np.ndarray | None = None
        for frame in frames:
            luma = frame.detach().to("cpu", torch.float32)
            codes = (luma[0].nan_to_num().clamp(0, 1) * 255).round().byte().numpy()
            way = None if last is None else pool.submit(pair_motion, last, codes)
            last = codes
            waiting.append((luma, way))
            while len(waiting) > workers + 1:
                before, result = _next(waiting, before)
                yield result
        while waiting:
            before, result = _next(waiting, before)
            yield result


def _next(
    waiting: deque[tuple[Tensor, Future[Pair] | None]], before: Pair | None
) -> tuple[Pair | None, Tensor]:
    """The first frame that waits, with its motion; and the way to the next one."""
    luma, _ = waiting.popleft()
    way = waiting[0][1] if waiting else None
    after = None if way is None else way.result()
    result = torch.zeros(CHANNELS, *luma.shape[1:])
    result[:1] = luma
    if before is not None:
        result[BEFORE] = torch.from_numpy(before.back)
    if after is not None:
        result[AFTER] = torch.from_numpy(after.there)
    return after, result


def with_motion(clips: Tensor) -> Tensor:
    """Clips of luma (B, 1, T, h, w) in [0, 1] -> guided frames (B, 7, T, h, w), same device."""
    if clips.device.type == "meta":  # shapes alone, which count work
        return clips.expand(-1, CHANNELS, -1, -1, -1)
    found = [torch.stack(list(guided(clip.unbind(1))), 1) for clip in clips]
    return torch.stack(found).to(clips.device)
