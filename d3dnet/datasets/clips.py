"""Training clips: videos, folders of frames, and stills, as pairs of luma.

Below a folder, at any depth, a clip is made of

- each video file, whatever ffmpeg reads (not longer than needed: it is decoded at once);
- each folder of numbered frames;
- each still, which is an image directly in the folder or anywhere in one called ``stills``; it is
  turned into a clip (`d3dnet.datasets.stills`).

Folders of low-resolution frames (``lr_x4``, ``BIx4`` ...) are passed over: the low-resolution side
is made of the RGB frame, rounded to 8 bit, as for the published training set. The luma of both
sides is not rounded there, and here kept in 1/256 of a code value.
"""

import contextlib
import hashlib
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from d3dnet.datasets.benchmarks import BD_FOLDERS, HR_FOLDERS, LR_FOLDERS
from d3dnet.datasets.frames import (
    as_rgb,
    clip_name,
    frame_paths,
    iterate_frames,
    read_image,
)
from d3dnet.datasets.imresize import Degradation, degrade, imresize
from d3dnet.datasets.luma import store_luma
from d3dnet.datasets.stills import clip_of_still
from d3dnet.network import SCALE
from d3dnet.video.names import looks_like_image, looks_like_video

STILLS_FOLDER = "stills"
SOURCES_PER_PROCESS = 8  # fewer are decoded sooner than a process has started
_CACHE_FORMAT = 3  # another one when clips of the same file come out otherwise


@dataclass(frozen=True)
class Clip:
    """One clip: ``hr`` (T, 4h, 4w) and ``lr`` (T, h, w), uint16 luma in 1/256 of a code value.

    ``motion`` (6, T, h, w) is that of ``lr`` to the frame before and to the one after, as
    `d3dnet.network.motion` has it; None where it was not looked for.
    """

    name: str
    hr: np.ndarray
    lr: np.ndarray
    motion: np.ndarray | None = None


class Clips(Protocol):
    """Clips by their number: a list of them, or what reads each when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Clip: ...


def clip_from_rgb(
    name: str, frames: Iterable[np.ndarray], degradation: Degradation = "double"
) -> Clip:
    """A clip of (H, W, 3) uint8 RGB frames; rows and columns beyond a multiple of 4 are cut off.

    >>> clip = clip_from_rgb("grey", np.full((2, 9, 8, 3), 128, np.uint8))
    >>> clip.hr.shape, clip.lr.shape, clip.hr.dtype
    ((2, 8, 8), (2, 2, 2), dtype('uint16'))
    """
    hr, lr = [], []
    for frame in frames:
        height, width = (size - size % SCALE for size in frame.shape[:2])
        hr.append(store_luma(frame[:height, :width]))
        lr.append(store_luma(degrade(frame, degradation)))
    return Clip(name, np.stack(hr), np.stack(lr))


def find_sources(root: Path) -> list[Path]:
    """The videos, folders of frames, and stills below ``root``, sorted.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when there are none in it.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; give one with clips")
    sources = set()
    for path in root.rglob("*"):
        inside = [part.lower() for part in path.relative_to(root).parts]
        hidden = any(part.startswith(".") for part in inside)
        if hidden or not path.is_file() or set(inside) & {*LR_FOLDERS, *BD_FOLDERS}:
            continue
        if looks_like_video(path):
            sources.add(path)
        elif looks_like_image(path):
            still = path.parent == root or STILLS_FOLDER in inside
            sources.add(path if still else path.parent)
    if not sources:
        raise ValueError(
            f"{root}: no clips found; accepted are video files, folders of frames, and stills "
            f"(images directly in it, or in a folder called {STILLS_FOLDER})"
        )
    return sorted(sources)


def load_clip(
    source: Path,
    still_frames: int = 9,
    degradation: Degradation = "double",
    size: float = 1.0,
) -> Clip:
    """Read one of `find_sources` as a `Clip`; a still's path depends on its name alone.

    Args:
        size: frames are first resized so much, see `d3dnet.datasets.imresize.imresize`.

    Raises:
        ValueError: when it cannot be read, is not of 8 bits, or its frames differ in size.
    """
    frames = _rgb_frames(source, still_frames)
    if size != 1:
        frames = (imresize(frame, size) for frame in frames)
    return clip_from_rgb(_name(source), frames, degradation)


def load_clips(
    root: Path,
    cache: Path | None = None,
    still_frames: int = 9,
    degradation: Degradation = "double",
    size: float = 1.0,
) -> list[Clip]:
    """Read every clip below ``root``, sorted by path.

    Args:
        root: a folder, see above.
        cache: folder for decoded clips, so that the next start is quick. They are found again by
            the contents of their files and by how they were made, and mapped instead of read.
        still_frames: length of the clips made of stills.
        degradation: what makes the low-resolution side.
        size: frames are first resized so much.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when there are no clips in it, or one cannot be read.

    >>> import cv2
    >>> with tempfile.TemporaryDirectory() as root:
    ...     _ = cv2.imwrite(f"{root}/still.png", np.full((64, 96, 3), 128, np.uint8))
    ...     [clip] = load_clips(Path(root), still_frames=5)
    >>> clip.name, len(clip.hr), clip.hr.shape[1] // clip.lr.shape[1]
    ('still', 5, 4)
    """
    sources, settings = find_sources(Path(root)), (still_frames, degradation, size)
    if cache is None:
        return [load_clip(s, *settings) for s in tqdm(sources, desc="clips", unit="clip")]
    made_by = f"{still_frames} {degradation}" + ("" if size == 1 else f" {size}")
    places = {
        source: Path(cache)
        / f"{_name(source)}-{_fingerprint(source, f'{_CACHE_FORMAT} {source.name} {made_by}')}"
        for source in sources
    }
    _fill_cache({s: place for s, place in places.items() if not place.is_dir()}, settings)
    return [_read_cached(_name(source), place) for source, place in places.items()]


def _fill_cache(places: dict[Path, Path], settings: tuple[int, Degradation, float]) -> None:
    """Decode sources into their places in the cache; many of them in processes."""
    count = min(os.cpu_count() or 1, len(places) // SOURCES_PER_PROCESS)
    with contextlib.ExitStack() as stack:
        spread: Callable[..., Iterable[None]] = map
        if count > 1:
            # Not forked: torch may have threads here already.
            context = multiprocessing.get_context("spawn")
            spread = stack.enter_context(ProcessPoolExecutor(count, context)).map
        done = spread(partial(_decode_into, settings), places.items())
        for _ in tqdm(done, "clips", len(places), unit="clip", disable=not places):
            pass


def _decode_into(settings: tuple[int, Degradation, float], place: tuple[Path, Path]) -> None:
    source, stored = place
    _write_cached(load_clip(source, *settings), stored)


def _name(source: Path) -> str:
    inside = source.parent if source.name.lower() in HR_FOLDERS else source  # calendar/hr
    return clip_name(inside)


def _rgb_frames(source: Path, still_frames: int) -> Iterator[np.ndarray]:
    if looks_like_image(source) and source.is_file():
        seed = int.from_bytes(hashlib.sha256(source.name.encode()).digest()[:8], "little")
        still = as_rgb(read_image(source))
        yield from clip_of_still(still, still_frames, np.random.default_rng(seed))
        return
    size = None
    for path, frame in iterate_frames(source):
        if size not in (None, frame.shape[:2]):
            raise ValueError(
                f"{path}: a frame of {frame.shape[:2]} among frames of {size}; accepted are "
                f"frames of one size (if these are stills, put them in a folder {STILLS_FOLDER})"
            )
        size = frame.shape[:2]
        yield as_rgb(frame)
    if size is None:
        raise ValueError(f"{source}: holds no frames; remove it or copy it again")


def _fingerprint(source: Path, made_by: str) -> str:
    digest = hashlib.blake2b(made_by.encode(), digest_size=12)
    for path in frame_paths(source) if source.is_dir() else [source]:
        digest.update(path.name.encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def _read_cached(name: str, stored: Path) -> Clip:
    hr, lr = (np.load(stored / f"{side}.npy", mmap_mode="r") for side in ("hr", "lr"))
    return Clip(name, hr, lr)


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
    """The source of a clip: its name without the window number ("davis_cows_2" -> "davis_cows").

    >>> source_of("davis_cows_2"), source_of("kodak_01")
    ('davis_cows', 'kodak_01')
    """
    stem, _, number = name.rpartition("_")
    return stem if number.isdigit() and stem not in ("kodak", "urban") else name
