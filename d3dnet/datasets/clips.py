"""Training clips: short high-resolution videos and stills, as pairs of luma.

A folder of videos (``*.mp4`` and what else ffmpeg reads) and of stills (``*.jpg, *.png``), the
latter turned into clips by a slow sub-pixel pan, zoom and rotation. The low-resolution side is made
of the RGB frame, rounded to 8 bit, as for the published training set; the luma of both sides is not
rounded there, and here kept in 1/256 of a code value.
"""

import hashlib
import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from tqdm import tqdm

from d3dnet.datasets.imresize import imresize
from d3dnet.metrics import luma

SCALE = 4
LUMA_STEPS = 256  # of stored luma in a code value
VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".y4m"}
STILL_SUFFIXES = {".jpg", ".jpeg", ".png"}
_CACHE_FORMAT = 2  # another one when clips of the same file come out otherwise


@dataclass(frozen=True)
class Clip:
    """One clip: ``hr`` (T, 4h, 4w) and ``lr`` (T, h, w), uint16 luma in 1/256 of a code value."""

    name: str
    hr: np.ndarray
    lr: np.ndarray


def store_luma(rgb: np.ndarray) -> np.ndarray:
    """Luma of (..., 3) uint8 RGB as it is stored: (...) uint16 in 1/256 of a code value."""
    return np.round(LUMA_STEPS * luma(rgb)).astype(np.uint16)


def unit_luma(stored: np.ndarray) -> np.ndarray:
    """Stored luma as the network takes it: float32 in [0, 1]."""
    return stored.astype(np.float32) / np.float32(255 * LUMA_STEPS)


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


def clip_from_rgb(name: str, frames: Iterable[np.ndarray]) -> Clip:
    """A clip of (H, W, 3) uint8 RGB frames; rows and columns beyond a multiple of 4 are cut off."""
    hr, lr = [], []
    for frame in frames:
        height, width = (size - size % SCALE for size in frame.shape[:2])
        frame = frame[:height, :width]
        hr.append(store_luma(frame))
        lr.append(store_luma(imresize(frame, 1 / SCALE)))
    return Clip(name, np.stack(hr), np.stack(lr))


def load_clip(path: Path, still_frames: int = 9) -> Clip:
    """Read one video or still as a `Clip`; a still's path depends on its name alone."""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return clip_from_rgb(path.stem, read_rgb_frames(path))
    still = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if still is None:
        raise ValueError(f"{path}: cannot be read as an image; replace or remove the file")
    seed = int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:8], "little")
    still = np.ascontiguousarray(still[..., ::-1])
    return clip_from_rgb(path.stem, pan_still(still, still_frames, np.random.default_rng(seed)))


def load_clips(root: Path, cache: Path | None = None, still_frames: int = 9) -> list[Clip]:
    """Read every clip and still below ``root``, sorted by name.

    Args:
        root: folder with videos and stills, searched recursively.
        cache: folder for decoded clips, so that the next start is quick. They are found again by
            the contents of their file and by how they were made, and mapped instead of read.
        still_frames: length of the clips made of stills.

    Raises:
        ValueError: when there is none, or a still cannot be read.
    """
    suffixes = VIDEO_SUFFIXES | STILL_SUFFIXES
    paths = sorted(p for p in Path(root).rglob("*") if p.suffix.lower() in suffixes)
    if not paths:
        raise ValueError(f"{root}: no clips found; accepted are videos {sorted(VIDEO_SUFFIXES)}")
    clips = []
    for path in tqdm(paths, desc="clips", unit="clip"):
        if cache is None:
            clips.append(load_clip(path, still_frames))
            continue
        made_by = f"{_CACHE_FORMAT} {path.name} {still_frames}"
        stored = cache / f"{path.stem}-{_fingerprint(path, made_by)}"
        clip = _read_cached(path.stem, stored)
        if clip is None:
            _write_cached(load_clip(path, still_frames), stored)
            clip = _read_cached(path.stem, stored)
        clips.append(clip)
    return clips


def _fingerprint(path: Path, made_by: str) -> str:
    digest = hashlib.blake2b(made_by.encode(), digest_size=12)
    digest.update(path.read_bytes())
    return digest.hexdigest()


def _read_cached(name: str, stored: Path) -> Clip | None:
    hr, lr = stored / "hr.npy", stored / "lr.npy"
    if not stored.is_dir():
        return None
    return Clip(name, np.load(hr, mmap_mode="r"), np.load(lr, mmap_mode="r"))


def _write_cached(clip: Clip, stored: Path) -> None:
    """Write a clip where `_read_cached` finds it; a folder appears only when it is complete."""
    stored.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=stored.parent, suffix=".part") as partial:
        complete = Path(partial) / "clip"
        complete.mkdir()
        np.save(complete / "hr.npy", clip.hr)
        np.save(complete / "lr.npy", clip.lr)
        try:
            complete.rename(stored)
        except OSError:  # another process was quicker
            if not stored.is_dir():
                raise


def source_of(name: str) -> str:
    """The source of a clip: its name without the window number ("davis_cows_2" -> "davis_cows")."""
    stem, _, number = name.rpartition("_")
    return stem if number.isdigit() and stem not in ("kodak", "urban") else name
