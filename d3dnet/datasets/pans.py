"""Pans over single frames, moved by whole high-resolution pixels.

What several low-resolution frames know beyond one is where their pixels fall, and in natural videos
that is buried under large motion, blur and compression: a network learns to upscale each frame by
itself long before it learns to join them. Here nothing is hidden: a window slides over one sharp
frame by up to a low-resolution pixel a frame, its high-resolution side is copied, never sampled,
and every frame lacks what its neighbours have.
"""

import math

import numpy as np
import torch
from torch import Tensor

from d3dnet.datasets.clips import Clips
from d3dnet.datasets.imresize import Degradation, degrade
from d3dnet.datasets.luma import LUMA_STEPS, unit_luma
from d3dnet.datasets.patches import Samples, as_sample, flip_and_transpose, most_detailed
from d3dnet.network import SCALE

SPEED = (0.2, 4.0)  # of a pan, high-resolution pixels a frame
ACCELERATION = 0.12  # standard deviation, pixels a frame per frame
SHAKY = 0.3  # of all pans
SHAKE = 0.6  # of those: standard deviation of every frame's place, pixels
MARGIN = 2 * SCALE  # pixels around a window that its low-resolution side depends on


class Pans:
    """Samples like those of `d3dnet.datasets.patches.ClipPatches`, each a pan over one frame.

    Args:
        clips: each clip is as likely, and each of its frames.
        frames: of a sample.
        patch: height and width at low resolution.
        seed: another one gives other samples.
        candidates: places drawn for a sample, of which the one with the most detail is taken.
        degradation: what makes the low-resolution side; of luma, rounded to 8 bit.

    Raises:
        ValueError: when drawing, if a clip is too small.
    """

    def __init__(
        self,
        clips: Clips,
        frames: int,
        patch: int,
        seed: int = 0,
        candidates: int = 1,
        degradation: Degradation = "double",
    ) -> None:
        self.clips, self.frames, self.patch = clips, frames, patch
        self.seed, self.candidates, self.degradation = seed, candidates, degradation

    def __len__(self) -> int:
        """As many samples as there are clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Sample ``index`` (0, 1, ... without end): lr and hr."""
        rng = np.random.default_rng([self.seed, index, 2])  # a third number: no patch's generator
        side = SCALE * self.patch

        def draw() -> tuple[np.ndarray, np.ndarray]:
            clip = self.clips[int(rng.integers(len(self.clips)))]
            frame = clip.hr[int(rng.integers(clip.hr.shape[0]))]
            if min(frame.shape) < side:
                raise ValueError(f"clip {clip.name}: got {frame.shape}; accepted is {side} or more")
            return frame, pan(self.frames, np.array(frame.shape) - side, rng)

        def middle(drawn: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
            frame, path = drawn
            y, x = path[self.frames // 2]
            return frame[y : y + side : SCALE, x : x + side : SCALE]

        frame, path = most_detailed([draw() for _ in range(self.candidates)], middle)
        # Where the frame ends, its border goes on.
        around = np.pad(frame, MARGIN, "edge")
        windows = [around[y:, x:][: side + 2 * MARGIN, : side + 2 * MARGIN] for y, x in path]
        inside = slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN)
        inside_lr = tuple(slice(MARGIN // SCALE, -(MARGIN // SCALE)) for _ in range(2))
        codes = [np.round(window / LUMA_STEPS).astype(np.uint8) for window in windows]
        lr = np.stack([degrade(window, self.degradation)[inside_lr] for window in codes])
        hr = np.stack([window[inside] for window in windows])
        unit = unit_luma(lr.astype(np.uint16) * LUMA_STEPS)
        return as_sample(flip_and_transpose((unit[None], hr[None]), rng))


def pan(frames: int, room: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where a window is: a drift in a random direction, slightly accelerated, sometimes shaky.

    Args:
        frames: how many.
        room: (2,) rows and columns that the window may move over.

    Returns:
        (frames, 2) int, rows and columns from 0 to ``room``.
    """
    t = np.arange(frames)[:, None] - (frames - 1) / 2
    angle = rng.uniform(0, 2 * math.pi)
    velocity = rng.uniform(*SPEED) * np.array([math.sin(angle), math.cos(angle)])
    path: np.ndarray = velocity * t + rng.normal(0, ACCELERATION, 2) * t**2 / 2
    if rng.random() < SHAKY:
        path += rng.normal(0, SHAKE, path.shape)
    path = np.round(path - path.min(axis=0)).astype(int)
    path = np.minimum(path, room)
    path += rng.integers(0, room - path.max(axis=0) + 1)
    return path


class Mixed:
    """Samples of which a share are of another kind, evenly spread over their numbers.

    Args:
        samples, others: two data sets; of both, sample ``index`` is taken there or not at all.
        share: of the others, 0 to 1.
    """

    def __init__(self, samples: Samples, others: Samples, share: float) -> None:
        self.samples, self.others, self.share = samples, others, share

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        is_other = int((index + 1) * self.share) > int(index * self.share)
        return (self.others if is_other else self.samples)[index]


class WithSingleFrames:
    """Samples, each with some single frames of other places, as scenes that stand still.

    A network of few frames first learns to upscale each frame by itself, and for that seven frames
    of one place teach little more than one. See `d3dnet.network.model.D3Dnet.forward_still`.

    Args:
        samples: a data set.
        singles: one whose samples are of one frame; number index · count + i goes with ``index``.
        count: single frames of a sample.
    """

    def __init__(self, samples: Samples, singles: Samples, count: int) -> None:
        self.samples, self.singles, self.count = samples, singles, count

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        """lr and hr of the sample, and (count, 1, h, w) and (count, 1, 4h, 4w) of single frames."""
        numbers = range(index * self.count, (index + 1) * self.count)
        sides = zip(*(self.singles[number] for number in numbers), strict=True)
        return *self.samples[index], *(torch.cat(side, 1).transpose(0, 1) for side in sides)
