"""Test sets (Vid4, SPMC-11, Vimeo-90k and folders like them) in the layouts people have.

Below the set's folder (``root/Vid4``, or ``root`` itself), a clip is one of

- a lossless video file, ``calendar.mkv``;
- a folder of frames, ``calendar/im1.png``;
- a folder with ground truth and low-resolution frames, ``calendar/hr/hr_01.png`` beside
  ``calendar/lr_x4/lr_01.png``, or ``car05_001/truth/`` beside ``car05_001/input4/``;
- the same the other way round, ``GT/calendar/00000001.png`` beside ``BIx4/calendar/``; Vimeo-90k:
  ``sequences/00001/0266/im1.png`` beside ``LR_x4/``, listed in ``sep_testlist.txt`` (or ``GT/``
  beside ``BIx4/``, listed in ``meta_info_Vimeo90K_test_GT.txt``).

Low-resolution frames by the BD degradation are looked for in ``lr_x4_BD/`` or ``BDx4/`` instead. Of
SPMC's 30 clips the eleven of SPMC-11 are taken. Frames are sorted by the numbers in their names.
Clips are found at once and read on demand.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d3dnet.datasets.frames import (
    as_rgb,
    clip_name,
    frame_paths,
    is_clip,
    read_clip,
)
from d3dnet.datasets.imresize import Degradation, degrade
from d3dnet.video.names import VIDEO_SUFFIXES

SEPTUPLET = 7  # frames of a clip of Vimeo-90k
# Folder names, lower case, the usual first: ground truth, bicubic low resolution, and BD.
HR_FOLDERS = ("hr", "gt", "truth", "sequences")
LR_FOLDERS = ("lr_x4", "lr_x4_bi", "bix4", "input4")
BD_FOLDERS = ("lr_x4_bd", "bdx4", "blur4")
# Clips that a published mean is over.
SPMC_11 = (
    "car05_001 hdclub_003_001 hitachi_isee5_001 hk004_001 HKVTG_004 jvc_009_001 NYVTG_006 "
    "PRVTG_012 RMVTG_011 veni3_011 veni5_015"
)
KNOWN_CLIPS = {
    "Vid4": ("calendar", "city", "foliage", "walk"),
    "SPMC-11": tuple(SPMC_11.split()),
}
# What people call the sets, lower case without punctuation.
SET_NAMES = {
    "vid4": "Vid4",
    "spmc11": "SPMC-11",
    "spmc": "SPMC-11",
    "spmcs": "SPMC-11",
    "vimeo90k": "Vimeo-90k",
    "vimeo90kt": "Vimeo-90k",
    "vimeo": "Vimeo-90k",
    "vimeoseptuplet": "Vimeo-90k",
}


@dataclass(frozen=True)
class BenchmarkClip:
    """One clip of a test set: where its frames are.

    Attributes:
        name: as in published tables ("calendar"; "00001/0266").
        hr: video file or folder of the ground-truth frames.
        lr: the same of low-resolution frames that came with the set, or None.
    """

    name: str
    hr: Path
    lr: Path | None = None

    def read_hr(self, limit: int | None = None) -> np.ndarray:
        """The first ``limit`` (or all) ground-truth frames, (T, H, W, 3) uint8 RGB."""
        return as_rgb(read_clip(self.hr, limit))

    def read_lr(self, limit: int | None = None) -> np.ndarray | None:
        """The low-resolution frames that came with the set, (T, h, w, 3) uint8 RGB, or None."""
        return None if self.lr is None else as_rgb(read_clip(self.lr, limit))


def canonical_name(dataset: str) -> str:
    """The published name of a set ("vid4" -> "Vid4"); an unknown name is returned as it is.

    >>> canonical_name("VID-4"), canonical_name("mine")
    ('Vid4', 'mine')
    """
    return SET_NAMES.get(re.sub(r"[^a-z0-9]", "", dataset.lower()), dataset)


def find_clips(
    dataset: str, root: str | os.PathLike[str], degradation: Degradation = "double"
) -> list[BenchmarkClip]:
    """The clips of a test set, sorted by name.

    Args:
        dataset: "Vid4", "SPMC-11", "Vimeo-90k" (however spelt), or the name of any folder laid
            out like one of them.
        root: the folder that holds the set's folder, or the set's folder itself.
        degradation: whose low-resolution frames to look for, bicubic ones or "bd".

    Raises:
        FileNotFoundError: when there is no such folder, or no clip in it.
        ValueError: when clips of a list (``sep_testlist.txt``), or frames of them, are missing.

    >>> import cv2, tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     (Path(root) / "Vid4" / "walk").mkdir(parents=True)
    ...     _ = cv2.imwrite(f"{root}/Vid4/walk/im1.png", np.zeros((8, 8, 3), np.uint8))
    ...     [(clip.name, clip.read_hr().shape) for clip in find_clips("vid4", root)]
    [('walk', (1, 8, 8, 3))]
    """
    lr_folders = BD_FOLDERS if degradation == "bd" else LR_FOLDERS
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"root: {root} is not a folder; give the one that holds {dataset}")
    name = canonical_name(dataset)
    folder = _set_folder(name, root)
    clips = (
        _listed_clips(folder, lr_folders)
        or _clips_by_role(folder, lr_folders)
        or _clips_by_name(folder, lr_folders)
    )
    known = {clip.casefold() for clip in KNOWN_CLIPS.get(name, ())}
    clips = [clip for clip in clips if clip.name.casefold() in known] or clips
    if not clips:
        raise FileNotFoundError(
            f"{folder}: no clips of {dataset} found; accepted are video files "
            f"({', '.join(VIDEO_SUFFIXES)}), folders of frames, hr/ + lr_x4/, "
            "GT/ + BIx4/, truth/ + input4/, and sequences/ + sep_testlist.txt (see data/README.md)"
        )
    return clips


def make_lr(hr: np.ndarray, degradation: Degradation) -> np.ndarray:
    """Low-resolution frames as the published test sets were made, a quarter of the size.

    Args:
        hr: (T, H, W, 3) uint8 RGB; rows and columns beyond a multiple of 4 are cut off.
        degradation: of `d3dnet.datasets.imresize.degrade`.

    Returns:
        (T, H // 4, W // 4, 3) uint8 RGB.

    >>> make_lr(np.zeros((2, 17, 32, 3), np.uint8), "double").shape
    (2, 4, 8, 3)
    """
    return np.stack([degrade(frame, degradation) for frame in hr])


def _set_folder(name: str, root: Path) -> Path:
    for child in sorted(root.iterdir()):
        if child.is_dir() and canonical_name(child.name) == name:
            return child
    return root


def role_folder(folder: Path, roles: tuple[str, ...]) -> Path | None:
    """The sub-folder of ``folder`` that has one of the names ``roles``, in any case."""
    children = {child.name.lower(): child for child in folder.iterdir() if child.is_dir()}
    return next((children[role] for role in roles if role in children), None)


def _listed_clips(folder: Path, lr_folders: tuple[str, ...]) -> list[BenchmarkClip]:
    """Vimeo-90k: the clips of its list, names at the start of lines."""
    listings = [folder / "sep_testlist.txt", *sorted(folder.glob("meta_info*test*.txt"))]
    listing = next((path for path in listings if path.exists()), None)
    hr = role_folder(folder, HR_FOLDERS)
    if listing is None or hr is None:
        return []
    names = [line.split()[0] for line in listing.read_text().splitlines() if line.strip()]
    missing = [name for name in names if not (hr / name).is_dir()]
    if missing:
        raise ValueError(
            f"{hr}: {len(missing)} of the {len(names)} clips of {listing.name} are missing "
            f"({', '.join(missing[:3])} ...); copy them or remove them from the list"
        )
    # Without its first frame a septuplet's fourth would be taken for its third.
    partial = [name for name in names if len(frame_paths(hr / name)) != SEPTUPLET]
    if partial:
        raise ValueError(
            f"{hr}: {len(partial)} of the {len(names)} clips of {listing.name} do not have "
            f"{SEPTUPLET} frames ({', '.join(partial[:3])} ...); copy them or remove them from the "
            "list"
        )
    lr = role_folder(folder, lr_folders)
    return [BenchmarkClip(name, hr / name, lr / name if lr else None) for name in names]


def _clips_by_role(folder: Path, lr_folders: tuple[str, ...]) -> list[BenchmarkClip]:
    """``GT/calendar`` + ``BIx4/calendar``."""
    hr, lr = role_folder(folder, HR_FOLDERS), role_folder(folder, lr_folders)
    if hr is None:
        return []
    if is_clip(hr):  # the set's folder is itself one clip, hr/ + lr_x4/
        return [BenchmarkClip(folder.name, hr, lr)]
    low = {clip_name(path): path for path in lr.iterdir() if is_clip(path)} if lr else {}
    found = sorted(path for path in hr.iterdir() if is_clip(path))
    return [BenchmarkClip(clip_name(path), path, low.get(clip_name(path))) for path in found]


def _clips_by_name(folder: Path, lr_folders: tuple[str, ...]) -> list[BenchmarkClip]:
    """``calendar.mkv``, ``calendar/im1.png``, or ``calendar/hr`` + ``calendar/lr_x4``."""
    clips = []
    for path in sorted(folder.iterdir()):
        hr = role_folder(path, HR_FOLDERS) if path.is_dir() else None
        if hr is not None:
            clips.append(BenchmarkClip(path.name, hr, role_folder(path, lr_folders)))
        elif is_clip(path):
            clips.append(BenchmarkClip(clip_name(path), path))
    return clips
