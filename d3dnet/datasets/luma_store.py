"""A store of clips of one shape, packed as luma into memory-mapped shards.

A folder with ``00000.hr.npy``, ``00000.lr.npy`` ... (numpy's format: (clips, T, H, W) uint16 luma
in 1/256 of a code value) and ``index.json``: what the store was made of and how, and for each shard
its clips, those left out, and size and SHA-256 of its files. A shard is in the index once its files
are complete on disk, so that packing goes on where it was stopped, however it was stopped.
"""

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from d3dnet.datasets.clips import Clip, Clips
from d3dnet.datasets.luma import LUMA_STEPS
from d3dnet.errors import BadClipError
from d3dnet.files import write_whole, written_whole

FORMAT = "d3dnet luma store 1"
INDEX = "index.json"
SIDES = ("hr", "lr")
SHARD_CLIPS = 128

BadFiles = dict[str, list[tuple[str, str]]]  # of each bad clip, its files and what is wrong


class LumaStore:
    """A complete store; its clips are views into mapped files, read where they are touched.

    Attributes:
        settings: what the store was made with.
        names: of the clips, in order.

    Raises:
        FileNotFoundError: when there is no store.
        ValueError: when it is incomplete, or files are missing or cut off.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        index = _read_index(self.path)
        if index is None:
            raise FileNotFoundError(f"{self.path}: no {INDEX}; give the folder of a packed set")
        self.settings = index["settings"]
        self._shards = index["shards"]
        wanted = -(-self.settings["clips"] // self.settings["shard_clips"])
        bad = [shard["number"] for shard in self._shards if not _is_there(self.path, shard)]
        if bad or len(self._shards) < wanted:
            raise ValueError(
                f"{self.path}: {len(self._shards) - len(bad)} of {wanted} shards are there and "
                "whole; run the command that packed it again"
            )
        self.names = [name for shard in self._shards for name in shard["names"]]
        self._starts = list(accumulate((len(s["names"]) for s in self._shards), initial=0))
        self._maps: dict[int, list[np.ndarray]] = {}

    @staticmethod
    def is_at(path: str | os.PathLike[str]) -> bool:
        """Whether there is a store, complete or not."""
        return (Path(path) / INDEX).is_file()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Clip:
        index = range(len(self))[index]
        number = bisect_right(self._starts, index) - 1
        if number not in self._maps:
            files = (self.path / self._shards[number]["files"][side]["name"] for side in SIDES)
            self._maps[number] = [np.load(file, mmap_mode="r") for file in files]
        hr, lr = (side[index - self._starts[number]] for side in self._maps[number])
        return Clip(self.names[index], hr, lr)

    def __getstate__(self) -> dict[str, Any]:
        """Without its maps: another process opens its own."""
        return self.__dict__ | {"_maps": {}}


class NamedClips(Clips, Protocol):
    """Clips whose names are known before any of them is read."""

    @property
    def names(self) -> Sequence[str]:
        """One for each clip, in their order."""
        ...


def pack(
    clips: NamedClips,
    path: str | os.PathLike[str],
    settings: dict[str, Any],
    shard_clips: int = SHARD_CLIPS,
    skip_bad: bool = False,
    workers: int = 2,
) -> BadFiles:
    """Pack clips into a store, or go on with it.

    Args:
        clips: all of one shape; getting one may raise `BadClipError`.
        path: folder of the store.
        settings: what the store is made with, in JSON's types; a store goes on only with the same.
        shard_clips: clips in a shard.
        skip_bad: leave bad clips out. Otherwise shards with bad clips are not written, so that
            mending their files and running again completes the store.
        workers: threads that decode.

    Returns:
        The bad clips, each with its files and what is wrong with them.

    Raises:
        ValueError: when there is a store made with other settings.

    >>> import tempfile
    >>> from d3dnet.datasets.clips import clip_from_rgb
    >>> class Two:
    ...     names = ["black", "white"]
    ...     def __getitem__(self, index):
    ...         frames = np.full((7, 8, 8, 3), 255 * index, np.uint8)
    ...         return clip_from_rgb(self.names[index], frames)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     bad = pack(Two(), folder, {"degradation": "double"})
    ...     store = LumaStore(folder)
    ...     bad, store.names, int(store[1].hr.max()) / LUMA_STEPS, verify(folder)
    ({}, ['black', 'white'], 235.0, [])
    """
    path = Path(path)
    names = clips.names
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    settings = settings | {
        "clips": len(names),
        "names_sha256": digest,
        "shard_clips": shard_clips,
        "luma_steps": LUMA_STEPS,
    }
    index = _read_index(path) or {"format": FORMAT, "settings": settings, "shards": []}
    if index["settings"] != settings:
        had = index["settings"]
        unlike = [key for key in settings.keys() | had.keys() if settings.get(key) != had.get(key)]
        raise ValueError(
            f"{path}: holds a store made with other settings ({', '.join(sorted(unlike))}); "
            "give another folder, or the settings of before"
        )
    path.mkdir(parents=True, exist_ok=True)
    done = {shard["number"]: shard for shard in index["shards"] if _is_there(path, shard)}
    if skip_bad:
        bad = {name: files for shard in done.values() for name, files in shard["bad"].items()}
    else:  # clips left out before are wanted now
        done = {number: shard for number, shard in done.items() if not shard["bad"]}
        bad = {}
    shape = next((tuple(shard["shape"]) for shard in done.values() if shard["shape"]), None)

    def read(number: int) -> Clip | BadClipError:
        try:
            return clips[number]
        except BadClipError as error:
            return error

    bar = tqdm(total=len(names), desc="pack", unit="clip")
    with ThreadPoolExecutor(workers) as pool:  # decoding lets go of the GIL
        for number, start in enumerate(range(0, len(names), shard_clips)):
            wanted = range(start, min(start + shard_clips, len(names)))
            if number not in done:
                good, worse, shape = _sort_out(pool.map(read, wanted), shape)
                bad |= worse
                if skip_bad or not worse:
                    done[number] = _write_shard(path, number, good, worse)
                    shards = [done[key] for key in sorted(done)]
                    _write_index(path, index | {"shards": shards})
            bar.update(len(wanted))
            bar.set_postfix(bad=len(bad))
    bar.close()
    return bad


def verify(path: str | os.PathLike[str]) -> list[str]:
    """Compare every file of a store with its checksum; return what is wrong, a line a file."""
    path = Path(path)
    index = _read_index(path)
    if index is None:
        raise FileNotFoundError(f"{path}: no {INDEX}; give the folder of a packed set")
    entries = [file for shard in index["shards"] for file in shard["files"].values()]
    wrong = []
    for entry in tqdm(entries, desc="verify", unit="file"):
        file = path / entry["name"]
        if not file.is_file():
            wrong.append(f"{file}: missing")
        elif file.stat().st_size != entry["bytes"]:
            wrong.append(f"{file}: {file.stat().st_size} bytes instead of {entry['bytes']}")
        elif _sha256(file) != entry["sha256"]:
            wrong.append(f"{file}: its contents differ from its checksum")
    return wrong


def _sort_out(
    read: Iterator[Clip | BadClipError], shape: tuple[int, ...] | None
) -> tuple[list[Clip], BadFiles, tuple[int, ...] | None]:
    """Good clips, bad ones with what is wrong, and the shape that all must have."""
    good: list[Clip] = []
    bad: BadFiles = {}
    for clip in read:
        if isinstance(clip, BadClipError):
            bad[clip.name] = clip.files
            continue
        shape = shape or clip.hr.shape
        if clip.hr.shape == shape:
            good.append(clip)
        else:
            bad[clip.name] = [(clip.name, f"shape {clip.hr.shape}, the store's is {shape}")]
    return good, bad, shape


def _write_shard(path: Path, number: int, clips: list[Clip], bad: BadFiles) -> dict[str, Any]:
    """Write the files of a shard and return its entry in the index."""
    files = {}
    for side in SIDES if clips else ():
        file = path / f"{number:05}.{side}.npy"
        with written_whole(file) as part, open(part, "wb") as out:
            np.save(out, np.stack([getattr(clip, side) for clip in clips]))
        files[side] = {
            "name": file.name,
            "bytes": file.stat().st_size,
            "sha256": _sha256(file),
        }
    return {
        "number": number,
        "names": [clip.name for clip in clips],
        "shape": clips[0].hr.shape if clips else None,
        "bad": bad,
        "files": files,
    }


def _write_index(path: Path, index: dict[str, Any]) -> None:
    write_whole(path / INDEX, json.dumps(index, indent=1).encode())


def _read_index(path: Path) -> dict[str, Any] | None:
    if not (path / INDEX).is_file():
        return None
    try:
        index: dict[str, Any] = json.loads((path / INDEX).read_text())
        known = index["format"] == FORMAT
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ValueError(f"{path / INDEX}: not an index of format {FORMAT!r}; pack the set again")
    return index


def _is_there(path: Path, shard: dict[str, Any]) -> bool:
    """Whether the files of a shard are there in full length."""
    return all(
        (path / file["name"]).is_file() and (path / file["name"]).stat().st_size == file["bytes"]
        for file in shard["files"].values()
    )


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
