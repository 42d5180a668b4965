"""Scenes made of stills: a ground that moves, and pieces of other stills that move over it.

Videos of which every frame is sharp, and every motion known to be there: what pans lack are things
that move apart from each other, hide and uncover, turn and come nearer. A ground is copied by whole
high-resolution pixels most of the time (its truth is then as sharp as the still), or turned and
scaled; pieces have soft edges of their own shape.
"""

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from d3dnet.datasets.clips import Clips
from d3dnet.datasets.imresize import Degradation, degrade
from d3dnet.datasets.luma import LUMA_STEPS, unit_luma
from d3dnet.datasets.patches import as_sample, augmented, most_detailed
from d3dnet.network import SCALE
from d3dnet.network.motion import with_motion

EDGE = 16  # low-resolution pixels around a patch, so that motion is seen as in a whole frame
SLOW, FAST = 8.0, 24.0  # high-resolution pixels a frame, at most
SLOW_SHARE = 0.7
SLOWEST = 0.2
ACCELERATION = 0.12  # standard deviation, pixels a frame per frame
SHAKY, SHAKE = 0.3, 0.6  # share of all paths; standard deviation of every frame's place, pixels
COPIED = 0.6  # share of grounds that move by whole pixels
TURN, GROWTH = 0.008, 0.01  # standard deviations, radians and shares of the size a frame
PIECES = (0.45, 0.35, 0.2)  # how often there are none, one, two
CODES = 255 * LUMA_STEPS


class Scenes:
    """Samples like those of `d3dnet.datasets.patches.ClipPatches`, each a scene made of stills.

    Args:
        clips: each is as likely to give the ground or a piece, and each of its frames.
        frames: of a sample.
        patch: height and width at low resolution.
        seed: another one gives other samples.
        candidates: stills drawn for each part, of which the one with the most detail is taken.
        degradation: what makes the low-resolution side; of luma, rounded to 8 bit.
        guided: whether the low-resolution side is of guided frames (`d3dnet.network.motion`).

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
        guided: bool = False,
    ) -> None:
        self.clips, self.side = clips, SCALE * (patch + 2 * EDGE)
        self.frames, self.patch, self.seed, self.candidates = frames, patch, seed, candidates
        self.degradation, self.guided = degradation, guided

    def __len__(self) -> int:
        """As many samples as there are clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Sample ``index`` (0, 1, ... without end): lr (1 or 7, T, h, w) and hr (1, T, 4h, 4w)."""
        rng = np.random.default_rng([self.seed, index, 3])  # a third number: no other set's
        hr = self._draw(rng)
        codes = [np.round(frame / LUMA_STEPS).astype(np.uint8) for frame in hr]
        lr = np.stack([degrade(frame, self.degradation) for frame in codes])
        low = unit_luma(lr.astype(np.uint16) * LUMA_STEPS)[None]
        if self.guided:
            low = with_motion(torch.from_numpy(low)[None])[0].numpy()
        inside, inside_hr = slice(EDGE, -EDGE), slice(SCALE * EDGE, -SCALE * EDGE)
        pair = low[:, :, inside, inside], hr[None, :, inside_hr, inside_hr]
        return as_sample(augmented(pair, rng))

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        """(T, side, side) uint16 luma as it is stored."""
        speed = SLOW if rng.random() < SLOW_SHARE else FAST
        frames = self._ground(speed, rng)
        for _ in range(rng.choice(len(PIECES), p=PIECES)):
            self._lay_piece(frames, speed, rng)
        stored: np.ndarray = np.clip(np.rint(frames), 0, CODES).astype(np.uint16)
        return stored

    def _still(self, rng: np.random.Generator) -> np.ndarray:
        """A frame as float32, as it is stored."""

        def draw() -> np.ndarray:
            clip = self.clips[int(rng.integers(len(self.clips)))]
            frame: np.ndarray = clip.hr[int(rng.integers(len(clip.hr)))]
            least = SCALE * self.patch
            if min(frame.shape) < least:
                raise ValueError(
                    f"clip {clip.name}: got {frame.shape}; accepted is {least} or more"
                )
            return frame

        def middle(frame: np.ndarray) -> np.ndarray:
            y, x = ((size - SCALE * self.patch) // 2 for size in frame.shape)
            part: np.ndarray = frame[y::SCALE, x::SCALE][: self.patch, : self.patch]
            return part

        drawn = [draw() for _ in range(self.candidates)]
        still: np.ndarray = most_detailed(drawn, middle).astype(np.float32)
        return still

    def _ground(self, speed: float, rng: np.random.Generator) -> np.ndarray:
        still, path = self._still(rng), walk(self.frames, speed, rng)
        corner = [rng.uniform(0, max(1, size - self.side)) for size in still.shape]
        turn, growth = rng.normal(0, TURN), rng.normal(0, GROWTH)
        if rng.random() < COPIED:
            path, turn, growth = np.round(path), 0.0, 0.0
            corner = [round(value) for value in corner]
        time = np.arange(self.frames) - (self.frames - 1) / 2
        centre = np.array(corner) + self.side / 2
        frames = [
            _window(still, centre + move, self.side, turn * t, math.exp(growth * t))
            for move, t in zip(path, time, strict=True)
        ]
        return np.stack(frames)

    def _lay_piece(self, frames: np.ndarray, speed: float, rng: np.random.Generator) -> None:
        """Cut a piece out of a still, and lay it over all frames where its path leads."""
        still = self._still(rng)
        size = [int(self.side * rng.uniform(0.25, 0.6)) for _ in range(2)]
        corner = [
            int(rng.integers(max(1, have - own)))
            for have, own in zip(still.shape, size, strict=True)
        ]
        piece = still[corner[0] :, corner[1] :][: size[0], : size[1]]
        shape = blob(piece.shape[0], piece.shape[1], rng)
        start = [rng.uniform(-0.2 * own, self.side - 0.8 * own) for own in piece.shape]
        path = np.array(start) + rng.uniform(0.5, 1.5) * walk(self.frames, speed, rng)
        if rng.random() < 0.5:
            path = np.round(path)
        for frame, (y, x) in zip(frames, path, strict=True):
            to = np.array([[1, 0, x], [0, 1, y]], np.float64)
            over = cv2.warpAffine(shape, to, (self.side, self.side), flags=cv2.INTER_LINEAR)
            values = cv2.warpAffine(
                piece, to, (self.side, self.side),
                flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE,
            )  # fmt: skip
            frame += over * (values - frame)


def walk(frames: int, speed: float, rng: np.random.Generator) -> np.ndarray:
    """Where a thing is: a drift in a random direction, slightly accelerated, sometimes shaky.

    Args:
        frames: how many.
        speed: high-resolution pixels a frame, at most; each octave below it is as likely.

    Returns:
        (frames, 2) rows and columns, zero in the middle of the time unless shaky.
    """
    time = np.arange(frames)[:, None] - (frames - 1) / 2
    angle = rng.uniform(0, 2 * math.pi)
    pace = math.exp(rng.uniform(math.log(SLOWEST), math.log(speed)))
    path = pace * np.array([math.sin(angle), math.cos(angle)]) * time
    path += rng.normal(0, ACCELERATION, 2) * time**2 / 2
    if rng.random() < SHAKY:
        path += rng.normal(0, SHAKE, path.shape)
    return path


def blob(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A shape of its own: (height, width) float32 from 0 outside to 1 inside, with a soft edge."""
    coarse = rng.normal(size=(max(3, height // 24), max(3, width // 24))).astype(np.float32)
    noise = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:height, :width]
    away = 8 * ((y / height - 0.5) ** 2 + (x / width - 0.5) ** 2)
    inside = (0.5 * noise + 1 - away > 0.3).astype(np.float32)
    shape: np.ndarray = cv2.GaussianBlur(inside, (0, 0), rng.uniform(0.5, 1.5))
    return shape


def _window(
    still: np.ndarray, centre: np.ndarray, side: int, angle: float, size: float
) -> np.ndarray:
    """The square around a centre, turned and scaled about it; by whole pixels where not."""
    c, s = size * math.cos(angle), size * math.sin(angle)
    half = side / 2
    # Of the result's pixel (x, y), its place in the still.
    place = np.array([[c, -s, 0], [s, c, 0]], np.float64)
    place[0, 2] = centre[1] - (c * half - s * half)
    place[1, 2] = centre[0] - (s * half + c * half)
    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    window: np.ndarray = cv2.warpAffine(
        still, place, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT_101
    )
    return window
