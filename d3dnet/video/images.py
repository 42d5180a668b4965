"""Images as a video: a folder, a glob or a printf pattern of them; and images as a result."""

import glob
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from d3dnet.errors import InputError
from d3dnet.video.names import IMAGE_SUFFIXES, is_hidden, looks_like_image, natural_order

# What is written, and FFmpeg's encoder of it.
ENCODERS = {".png": "png", ".tif": "tiff", ".tiff": "tiff", ".bmp": "bmp"}
ALONE = (".png", ".tif", ".tiff")  # of these a result may be one; segments cannot hold others
NUMBER = re.compile(r"%0?(\d*)d")
DEFAULT_NAME = "%06d.png"


def image_files(name: str | os.PathLike[str]) -> list[Path] | None:
    """The images that a folder, a glob or a printf pattern means, in order; None for other names.

    Digits in names count as numbers: 9 comes before 10. A file of that very name is no pattern.

    Raises:
        InputError: none is there, or they are of several kinds.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number in (9, 10):
    ...         (Path(folder) / f"im{number}.png").touch()
    ...     [file.name for file in image_files(folder)]
    ['im9.png', 'im10.png']
    """
    path = Path(os.path.abspath(name))
    if path.is_dir():
        files = [file for file in path.iterdir() if looks_like_image(file)]
        files = [file for file in files if not is_hidden(file)]
    elif path.exists() or not looks_like_image(path):
        return None
    elif NUMBER.search(path.name):
        before, after = (re.escape(part) for part in _parts(path.name))
        pattern = re.compile(f"{before}\\d+{after}")
        there = path.parent.iterdir() if path.parent.is_dir() else ()
        files = [file for file in there if pattern.fullmatch(file.name)]
    elif glob.has_magic(str(path)):
        files = [Path(file) for file in glob.glob(str(path))]
    else:
        return None
    if not files:
        raise InputError(f"{path}: no images there; accepted are {' '.join(IMAGE_SUFFIXES)}")
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) > 1:
        raise InputError(f"{path}: images of several kinds ({' '.join(kinds)}); name one of them")
    return sorted(files, key=natural_order)


def is_image(path: Path) -> bool:
    """Whether a result of this name is an image, or numbered ones."""
    return is_pattern(path) or path.suffix.lower() in ALONE


def is_pattern(path: Path) -> bool:
    """Whether a result of this name is numbered images."""
    return path.suffix.lower() in ENCODERS and NUMBER.search(path.name) is not None


def written_images(pattern: Path) -> list[Path]:
    """The images that are there under the name of a result."""
    return image_files(pattern) or [] if _any(pattern) else []


def linked(files: Sequence[Path]) -> tuple[tempfile.TemporaryDirectory, str]:
    """A folder with links to images, numbered from 0, and FFmpeg's pattern of them."""
    folder = tempfile.TemporaryDirectory(prefix="d3dnet-")
    for number, file in enumerate(files):
        os.symlink(file, f"{folder.name}/{number:09d}{file.suffix}")
    return folder, f"file:{folder.name.replace('%', '%%')}/%09d{files[0].suffix}"


def escaped(part: Path) -> str:
    """FFmpeg's name of numbered images, where the folder's name may hold a percent sign."""
    return f"{str(part.parent).replace('%', '%%')}/{part.name}"


def _any(pattern: Path) -> bool:
    try:
        return bool(image_files(pattern))
    except InputError:
        return False


def _parts(name: str) -> tuple[str, str]:
    found = NUMBER.search(name)
    return name[: found.start()], name[found.end() :]
