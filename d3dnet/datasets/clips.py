"""Training clips: short high-resolution videos and stills, held in memory as luma.

A folder of videos (``*.mp4`` and what else ffmpeg reads) and of stills (``*.jpg, *.png``), the
latter turned into clips by a slow sub-pixel pan, zoom and rotation. The low-resolution side is
MATLAB's bicubic of the RGB frame (recipe ``double``), as for the published training set.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from d3dnet.datasets.imresize import imresize
from d3dnet.metrics import luma

SCALE = 4
VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".y4m"}
STILL_SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class Clip:
    """One clip: ``hr`` (T, 4h, 4w) uint8 and ``lr`` (T, h, w) float32 luma in code values."""

    name: str
    hr: np.ndarray
    lr: np.ndarray


def read_rgb_frames(path: Path) -> Iterator[np.ndarray]:
    """The frames of a video file as (H, W, 3) uint8 RGB."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def pan_still(still: np.ndarray, frames: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Turn an (H, W, 3) still into frames: a straight pan with slight zoom and rotation.

    The path is linear in time, up to 4 high-resolution pixels a frame, so that the motion at
    low resolution is sub-pixel; each frame is sampled once from the still (Lanczos).
    """
    height, width = still.shape[:2]
    velocity = rng.uniform(-4, 4, size=2)
    turn = math.radians(rng.uniform(-0.3, 0.3))
    zoom = rng.uniform(-0.004, 0.004)
    for index in range(frames):
        t = index - (frames - 1) / 2
        matrix = cv2.getRotationMatrix2D(
            (width / 2, height / 2), math.degrees(turn * t), 1 + zoom * t
        )
        matrix[:, 2] += velocity * t
        yield cv2.warpAffine(
            still, matrix, (width, height), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT
        )


def _make_clip(name: str, frames: Iterator[np.ndarray]) -> Clip:
    hr, lr = [], []
    for frame in frames:
        height, width = (size - size % SCALE for size in frame.shape[:2])
        frame = frame[:height, :width]
        hr.append(np.round(luma(frame)).astype(np.uint8))
        lr.append(luma(imresize(frame, 1 / SCALE)).astype(np.float32))
    return Clip(name, np.stack(hr), np.stack(lr))


def load_clip(path: Path, still_frames: int = 9) -> Clip:
    """Read one video or still as a `Clip`; a still's path depends on its name alone."""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return _make_clip(path.stem, read_rgb_frames(path))
    still = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if still is None:
        raise ValueError(f"{path}: cannot be read as an image; replace or remove the file")
    seed = int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:8], "little")
    still = np.ascontiguousarray(still[..., ::-1])
    return _make_clip(path.stem, pan_still(still, still_frames, np.random.default_rng(seed)))


def load_clips(root: Path, cache: Path | None = None) -> list[Clip]:
    """Read every clip and still below ``root``, sorted by name.

    Args:
        root: folder with videos and stills, searched recursively.
        cache: folder for decoded clips (.npz), so that the next start is quick.

    Raises:
        ValueError: when there is none, or a still cannot be read.
    """
    suffixes = VIDEO_SUFFIXES | STILL_SUFFIXES
    paths = sorted(p for p in Path(root).rglob("*") if p.suffix.lower() in suffixes)
    if not paths:
        raise ValueError(f"{root}: no clips found; accepted are videos {sorted(VIDEO_SUFFIXES)}")
    clips = []
    for path in tqdm(paths, desc="clips", unit="clip"):
        stored = cache / f"{path.stem}.npz" if cache else None
        if stored and stored.exists():
            with np.load(stored) as data:
                clips.append(Clip(path.stem, data["hr"], data["lr"]))
            continue
        clips.append(load_clip(path))
        if stored:
            cache.mkdir(parents=True, exist_ok=True)
            partial = stored.with_suffix(".part.npz")
            np.savez(partial, hr=clips[-1].hr, lr=clips[-1].lr)
            partial.rename(stored)
    return clips


def source_of(name: str) -> str:
    """The source of a clip: its name without the window number ("davis_cows_2" -> "davis_cows")."""
    stem, _, number = name.rpartition("_")
    return stem if number.isdigit() and stem not in ("kodak", "urban") else name


def _draw_place(
    clips: Sequence[Clip], shares: np.ndarray, size: tuple[int, int, int], rng: np.random.Generator
) -> tuple[Clip, tuple[slice, slice, slice], float]:
    """A random place in a random clip, and its detail: the mean gradient of its middle frame."""
    clip = clips[rng.choice(len(clips), p=shares)]
    place = []
    for have, wanted in zip(clip.lr.shape, size, strict=True):
        start = int(rng.integers(have - wanted + 1))
        place.append(slice(start, start + wanted))
    place = tuple(place)
    middle = clip.lr[place][size[0] // 2]
    return clip, place, sum(float(np.abs(np.diff(middle, axis=axis)).mean()) for axis in (0, 1))


def sample_batch(
    clips: Sequence[Clip],
    batch: int,
    frames: int,
    patch: int,
    rng: np.random.Generator,
    candidates: int = 1,
) -> tuple[Tensor, Tensor]:
    """Draw random augmented crops; clips are drawn in proportion to their pixels.

    Flips, transposition and temporal reversal are each applied half of the time.

    Args:
        clips: with at least ``frames`` frames of at least ``patch`` pixels each way.
        batch: number of crops.
        frames: consecutive frames of each.
        patch: height and width at low resolution.
        rng: the only source of randomness.
        candidates: places drawn for each crop, of which the one with the most detail is taken:
            flat patches have next to nothing to teach.

    Returns:
        lr (batch, 1, frames, patch, patch) and hr (batch, 1, frames, 4 patch, 4 patch), float32
        luma in [0, 1].
    """
    pixels = np.array([clip.lr.size for clip in clips], float)
    shares = pixels / pixels.sum()
    lrs, hrs = [], []
    for _ in range(batch):
        places = [
            _draw_place(clips, shares, (frames, patch, patch), rng) for _ in range(candidates)
        ]
        clip, (t, y, x), _ = max(places, key=lambda place: place[2])
        lr = clip.lr[t, y, x]
        hr = clip.hr[t, *(slice(SCALE * side.start, SCALE * side.stop) for side in (y, x))]
        for axis in range(3):
            if rng.random() < 0.5:
                lr, hr = np.flip(lr, axis), np.flip(hr, axis)
        if rng.random() < 0.5:
            lr, hr = lr.transpose(0, 2, 1), hr.transpose(0, 2, 1)
        lrs.append(lr.astype(np.float32) / 255)
        hrs.append(hr.astype(np.float32) / 255)
    lr, hr = (torch.from_numpy(np.stack(crops)[:, None]) for crops in (lrs, hrs))
    return lr, hr
