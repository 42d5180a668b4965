"""Random augmented patches of training clips, the same for any number of workers and resumes.

A training set is a map-style data set over sample numbers without end: ``dataset[index]`` gives
``lr`` (1, T, h, w) and ``hr`` (1, T, 4h, 4w), float32 luma in [0, 1]; of clips with motion, ``lr``
is of guided frames (7, T, h, w; `d3dnet.network.motion`). All that is random about a sample (clip,
place, augmentation) comes from a generator of its own, seeded with (seed, index), so that it
matters neither which worker or process draws it nor what was drawn before. ``len`` is the number of
samples in an epoch; indices go on beyond it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from d3dnet.datasets.clips import Clip, Clips
from d3dnet.datasets.luma import unit_luma
from d3dnet.network import SCALE

Cuboid = tuple[slice, slice, slice]
# Frames as the network takes them (C, T, h, w), and stored luma (1, T, 4h, 4w).
Pair = tuple[np.ndarray, np.ndarray]
Candidate = TypeVar("Candidate")


class Samples(Protocol):
    """A training set: a map-style data set of torch, over sample numbers without end."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Tensor, ...]: ...


class ClipPatches:
    """Patches of clips of any lengths and sizes, drawn in proportion to their pixels.

    Args:
        clips: each with at least ``frames`` frames of at least ``patch`` low-resolution pixels
            each way. Loader workers share them where processes are forked.
        frames: consecutive frames of a sample.
        patch: height and width at low resolution.
        seed: another one gives other samples.
        candidates: places drawn for a sample, of which the one with the most detail is taken:
            flat patches have next to nothing to teach.
        augment: flip, transpose and reverse in time, each half of the time.

    Raises:
        ValueError: when there is no clip, or one is too short or too small.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        frames: int,
        patch: int,
        seed: int = 0,
        candidates: int = 1,
        augment: bool = True,
    ) -> None:
        if not clips:
            raise ValueError("clips: got none; at least one is needed")
        for clip in clips:
            _check_size(clip, (frames, patch, patch))
        self.clips = clips
        self.size = (frames, patch, patch)
        self.seed = seed
        self.candidates = candidates
        self.augment = augment
        pixels = np.array([clip.lr.size for clip in clips], float)
        self._shares = pixels / pixels.sum()

    def __len__(self) -> int:
        """As many samples as there are clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Sample ``index`` (0, 1, ... without end): lr and hr."""
        rng = np.random.default_rng([self.seed, index])

        def choose() -> Clip:
            return self.clips[rng.choice(len(self.clips), p=self._shares)]

        return draw_patch(choose, self.size, rng, self.candidates, self.augment)


class EpochPatches:
    """Patches of clips each of which is visited once in an epoch, in an order of the epoch's own.

    Index // len is the epoch. As for Vimeo-90k, whose septuplets are all of one size: give
    `d3dnet.datasets.vimeo90k.open_septuplets` as ``clips``.

    Args:
        clips: may be read on demand.
        frames, patch, seed, candidates, augment: as of `ClipPatches`; all candidates are of the
            one clip.

    Raises:
        ValueError: when there is no clip; when drawing, if a clip is too short or too small.
    """

    def __init__(
        self,
        clips: Clips,
        frames: int,
        patch: int,
        seed: int = 0,
        candidates: int = 1,
        augment: bool = True,
    ) -> None:
        if not len(clips):
            raise ValueError("clips: got none; at least one is needed")
        self.clips = clips
        self.size = (frames, patch, patch)
        self.seed = seed
        self.candidates = candidates
        self.augment = augment
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def __len__(self) -> int:
        """As many samples as there are clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Sample ``index`` (0, 1, ... without end): lr and hr."""
        epoch, position = divmod(index, len(self))
        if self._order[0] != epoch:
            # A third number, so that no sample has the generator of an epoch.
            order = np.random.default_rng([self.seed, epoch, 1]).permutation(len(self))
            self._order = (epoch, order)
        clip = self.clips[int(self._order[1][position])]
        _check_size(clip, self.size)
        rng = np.random.default_rng([self.seed, index])
        return draw_patch(lambda: clip, self.size, rng, self.candidates, self.augment)


def draw_patch(
    choose: Callable[[], Clip],
    size: tuple[int, int, int],
    rng: np.random.Generator,
    candidates: int = 1,
    augment: bool = True,
) -> tuple[Tensor, Tensor]:
    """A random patch of ``size`` (frames, height, width at low resolution) of chosen clips.

    Args:
        choose: the clip for each candidate.
        rng: the only source of randomness.
        candidates, augment: as of `ClipPatches`.

    Returns:
        lr (1, T, h, w), or guided frames (7, T, h, w) of clips with motion, and hr (1, T, 4h, 4w),
        float32 luma in [0, 1].
    """
    places = []
    for _ in range(candidates):
        clip = choose()
        places.append((clip, _random_place(clip.lr.shape, size, rng)))
    clip, (t, y, x) = most_detailed(places, _middle)
    high = (slice(SCALE * side.start, SCALE * side.stop) for side in (y, x))
    lr, hr = unit_luma(clip.lr[t, y, x])[None], clip.hr[None, t, *high]
    if clip.motion is not None:
        lr = np.concatenate([lr, _within(clip.motion[:, t, y, x])])
    return as_sample(augmented((lr, hr), rng) if augment else (lr, hr))


def augmented(pair: Pair, rng: np.random.Generator) -> Pair:
    """Flip, transpose and reverse in time, each half of the time, both alike."""
    lr, hr = pair
    if rng.random() < 0.5:
        lr, hr = reversed_in_time(lr), np.flip(hr, 1)
    return flip_and_transpose((lr, hr), rng)


def as_sample(pair: Pair) -> tuple[Tensor, Tensor]:
    """Low-resolution frames, and stored luma beside them, as the network takes them."""
    lr, hr = pair
    return torch.from_numpy(np.ascontiguousarray(lr)), torch.from_numpy(unit_luma(hr))


def _within(motion: np.ndarray) -> np.ndarray:
    """Motion (6, T, h, w) of a part of a clip: none beyond its ends."""
    part: np.ndarray = motion.astype(np.float32)
    part[:3, 0] = part[3:, -1] = 0
    return part


def _check_size(clip: Clip, size: tuple[int, int, int]) -> None:
    if any(have < wanted for have, wanted in zip(clip.lr.shape, size, strict=True)):
        frames, height, width = size
        raise ValueError(
            f"clip {clip.name}: got (frames, height, width) {clip.lr.shape} at low resolution; "
            f"accepted are {frames} frames of {height}x{width} and more"
        )


def _random_place(
    shape: tuple[int, int, int], size: tuple[int, int, int], rng: np.random.Generator
) -> Cuboid:
    starts = [
        int(rng.integers(have - wanted + 1)) for have, wanted in zip(shape, size, strict=True)
    ]
    t, y, x = (slice(start, start + wanted) for start, wanted in zip(starts, size, strict=True))
    return t, y, x


def most_detailed(
    places: Sequence[Candidate], middle_of: Callable[[Candidate], np.ndarray]
) -> Candidate:
    """The one whose middle frame, stored luma (h, w), has the steepest mean gradient."""
    if len(places) == 1:
        return places[0]

    def detail(place: Candidate) -> float:
        luma = unit_luma(middle_of(place))
        return sum(float(np.abs(np.diff(luma, axis=axis)).mean()) for axis in (0, 1))

    return max(places, key=detail)


def _middle(at: tuple[Clip, Cuboid]) -> np.ndarray:
    clip, (t, y, x) = at
    return clip.lr[(t.start + t.stop) // 2, y, x]


def flip_and_transpose(pair: Pair, rng: np.random.Generator) -> Pair:
    """Flip (C, T, h, w) arrays either way and transpose them, each half of the time, both alike."""
    lr, hr = pair
    for axis in (2, 3):
        if rng.random() < 0.5:
            lr, hr = flipped(lr, axis), np.flip(hr, axis)
    if rng.random() < 0.5:
        lr, hr = transposed(lr), hr.swapaxes(2, 3)
    return lr, hr


# What flips, transposition and time reversal do to guided frames (7, T, h, w), whose motion has
# rows and columns, to the frame before and after; frames of luma alone have no motion to change.


def flipped(lr: np.ndarray, axis: int) -> np.ndarray:
    """Frames upside down (axis 2) or mirrored (axis 3)."""
    signs = np.ones(len(lr), np.float32)
    signs[axis - 1 :: 3] = -1  # rows are channels 1 and 4, columns 2 and 5
    return np.flip(lr, axis) * signs[:, None, None, None]


def transposed(lr: np.ndarray) -> np.ndarray:
    """Frames with rows for columns."""
    channels = [0, 2, 1, 3, 5, 4, 6] if len(lr) > 1 else [0]
    return lr.swapaxes(2, 3)[channels]


def reversed_in_time(lr: np.ndarray) -> np.ndarray:
    """Frames from the last to the first."""
    channels = [0, 4, 5, 6, 1, 2, 3] if len(lr) > 1 else [0]
    return np.flip(lr, 1)[channels]
