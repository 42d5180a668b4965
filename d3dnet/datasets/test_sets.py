"""Test sets (Vid4, SPMC-11, Vimeo-90k and folders like them) in the layouts people have.

Below the set's folder (``root/Vid4``, or ``root`` itself), a clip is one of

- a lossless video file, ``calendar.mkv``;
- a folder of frames, ``calendar/im1.png``;
- a folder with ground truth and low-resolution frames, ``calendar/hr/hr_01.png`` beside
  ``calendar/lr_x4/lr_01.png``, or ``car05_001/truth/`` beside ``car05_001/input4/``;
- the same the other way round, ``GT/calendar/00000001.png`` beside ``BIx4/calendar/``; Vimeo-90k:
  ``sequences/00001/0266/im1.png`` beside ``LR_x4/``, listed in ``sep_testlist.txt``.

Frames are sorted by the numbers in their names. Clips are found at once and read on demand.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from d3dnet.datasets.imresize import Recipe, imresize

SCALE = 4
IMAGE_SUFFIXES = {".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg"}
VIDEO_SUFFIXES = {".mkv", ".avi", ".mov", ".mp4", ".y4m", ".nut"}
# Folder names, lower case, the usual first: ground truth, and bicubic ("BI") low resolution.
HR_FOLDERS = ("hr", "gt", "truth", "sequences")
LR_FOLDERS = ("lr_x4", "bix4", "input4")
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
class Clip:
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
        frames = read_clip(self.hr, limit)
        return np.repeat(frames[..., None], 3, -1) if frames.ndim == 3 else frames

    def read_lr(self, limit: int | None = None) -> np.ndarray | None:
        """The low-resolution frames that came with the set, (T, h, w, 3) uint8 RGB, or None."""
        if self.lr is None:
            return None
        frames = read_clip(self.lr, limit)
        return np.repeat(frames[..., None], 3, -1) if frames.ndim == 3 else frames


def canonical_name(dataset: str) -> str:
    """The published name of a set ("vid4" -> "Vid4"); an unknown name is returned as it is."""
    return SET_NAMES.get(re.sub(r"[^a-z0-9]", "", dataset.lower()), dataset)


def find_clips(dataset: str, root: str | os.PathLike[str]) -> list[Clip]:
    """The clips of a test set, sorted by name.

    Args:
        dataset: "Vid4", "SPMC-11", "Vimeo-90k" (however spelt), or the name of any folder laid
            out like one of them.
        root: the folder that holds the set's folder, or the set's folder itself.

    Raises:
        FileNotFoundError: when there is no such folder, or no clip in it.
        ValueError: when clips of a list (``sep_testlist.txt``) are missing.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"root: {root} is not a folder; give the one that holds {dataset}")
    folder = _set_folder(canonical_name(dataset), root)
    clips = _listed_clips(folder) or _clips_by_role(folder) or _clips_by_name(folder)
    if not clips:
        raise FileNotFoundError(
            f"{folder}: no clips of {dataset} found; accepted are video files "
            f"({', '.join(sorted(VIDEO_SUFFIXES))}), folders of frames, hr/ + lr_x4/, "
            "GT/ + BIx4/, and truth/ + input4/ (see d3dnet/datasets/test_sets.py)"
        )
    return clips


def read_clip(source: str | os.PathLike[str], limit: int | None = None) -> np.ndarray:
    """Read a video file or a folder of numbered images.

    Args:
        source: the file or folder.
        limit: read only so many frames.

    Returns:
        (T, H, W, 3) uint8 RGB, or (T, H, W) uint8 where the frames are stored as grey.

    Raises:
        FileNotFoundError: when there is nothing to read.
        ValueError: when a frame is damaged, not of 8 bits, or unlike the others.
    """
    source = Path(source)
    frames = []
    for name, frame in islice(_named_frames(source), limit):
        if frames and frame.shape != frames[0].shape:
            raise ValueError(
                f"{name}: a frame of shape {frame.shape} among frames of {frames[0].shape}; "
                "accepted are frames of one size and kind"
            )
        frames.append(frame)
    if not frames:
        raise FileNotFoundError(f"{source}: no frames found; accepted are a video or images")
    return np.stack(frames)


def make_lr(hr: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Low-resolution frames as the published test sets were made: bicubic, a quarter of the size.

    Args:
        hr: (T, H, W, 3) uint8 RGB; rows and columns beyond a multiple of 4 are cut off.
        recipe: of `imresize`.

    Returns:
        (T, H // 4, W // 4, 3) uint8 RGB.
    """
    height, width = (size - size % SCALE for size in hr.shape[1:3])
    return np.stack([imresize(frame[:height, :width], 1 / SCALE, recipe) for frame in hr])


def frame_paths(folder: Path) -> list[Path]:
    """The images of a folder in the order of the numbers in their names.

    Raises:
        ValueError: when the folder mixes several numbered series ("sr_y_01.png", "sr_rgb_01.png").
    """
    paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    paths = [path for path in paths if not path.name.startswith(".")]
    series = {re.sub(r"\d+$", "", path.stem) for path in paths}
    if len(paths) > 1 and 1 < len(series) < len(paths):
        raise ValueError(
            f"{folder}: holds several series of frames ({', '.join(sorted(series))}); "
            "accepted is one: move the others out"
        )
    return sorted(paths, key=_natural_order)


def is_clip(path: Path) -> bool:
    """Whether a path is a video file or a folder with images directly in it."""
    if path.is_dir():
        return any(child.suffix.lower() in IMAGE_SUFFIXES for child in path.iterdir())
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def clip_name(path: Path) -> str:
    """The name of the clip at a path: a folder's name, or a file's without its suffix."""
    return path.name if path.is_dir() else path.stem


def _natural_order(path: Path) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", path.stem.lower())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part]


def _named_frames(source: Path) -> Iterator[tuple[Path, np.ndarray]]:
    if source.is_dir():
        yield from ((path, _read_image(path)) for path in frame_paths(source))
    elif source.exists():
        yield from ((source, frame) for frame in _read_video(source))


def _read_image(path: Path) -> np.ndarray:
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f"{path}: cannot be read as an image; copy it again")
    if image.dtype != np.uint8:
        raise ValueError(f"{path}: got samples of {image.dtype}; accepted are images of 8 bits")
    return image if image.ndim == 2 else np.ascontiguousarray(image[..., 2::-1])


def _read_video(path: Path) -> Iterator[np.ndarray]:
    import av

    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                stored_grey = frame.format.name == "gray"
                yield frame.to_ndarray(format="gray" if stored_grey else "rgb24")
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path}: cannot be decoded as a video ({error}); copy it again") from None


def _set_folder(name: str, root: Path) -> Path:
    for child in sorted(root.iterdir()):
        if child.is_dir() and canonical_name(child.name) == name:
            return child
    return root


def _role_folder(folder: Path, roles: tuple[str, ...]) -> Path | None:
    """The sub-folder of ``folder`` that has one of the names ``roles``, in any case."""
    children = {child.name.lower(): child for child in folder.iterdir() if child.is_dir()}
    return next((children[role] for role in roles if role in children), None)


def _listed_clips(folder: Path) -> list[Clip]:
    """Vimeo-90k: the clips of ``sep_testlist.txt``."""
    listing = folder / "sep_testlist.txt"
    hr = _role_folder(folder, HR_FOLDERS)
    if not listing.exists() or hr is None:
        return []
    names = listing.read_text().split()
    missing = [name for name in names if not (hr / name).is_dir()]
    if missing:
        raise ValueError(
            f"{hr}: {len(missing)} of the {len(names)} clips of {listing.name} are missing "
            f"({', '.join(missing[:3])} ...); copy them or remove them from the list"
        )
    lr = _role_folder(folder, LR_FOLDERS)
    return [Clip(name, hr / name, lr / name if lr else None) for name in names]


def _clips_by_role(folder: Path) -> list[Clip]:
    """``GT/calendar`` + ``BIx4/calendar``."""
    hr, lr = _role_folder(folder, HR_FOLDERS), _role_folder(folder, LR_FOLDERS)
    if hr is None:
        return []
    if is_clip(hr):  # the set's folder is itself one clip, hr/ + lr_x4/
        return [Clip(folder.name, hr, lr)]
    low = {clip_name(path): path for path in lr.iterdir() if is_clip(path)} if lr else {}
    found = sorted(path for path in hr.iterdir() if is_clip(path))
    return [Clip(clip_name(path), path, low.get(clip_name(path))) for path in found]


def _clips_by_name(folder: Path) -> list[Clip]:
    """``calendar.mkv``, ``calendar/im1.png``, or ``calendar/hr`` + ``calendar/lr_x4``."""
    clips = []
    for path in sorted(folder.iterdir()):
        hr = _role_folder(path, HR_FOLDERS) if path.is_dir() else None
        if hr is not None:
            clips.append(Clip(path.name, hr, _role_folder(path, LR_FOLDERS)))
        elif is_clip(path):
            clips.append(Clip(clip_name(path), path))
    return clips
