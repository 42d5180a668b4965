"""Images as a video: a folder, a glob or a printf pattern of them; and images as a result."""

import glob
import os
import re
import stat
import struct
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
MOST_PAGES = 100_000


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


def regular_file(name: str | os.PathLike[str]) -> Path:
    """The absolute path of a file (or of what is none, such as a pattern of images).

    What is redirected (`/dev/stdin`) is named by the file behind it: other programs, which read it
    too, have another standard input.

    Raises:
        InputError: it is a pipe or a device, which can be read only once.
    """
    path = Path(os.path.abspath(name))
    if path.parts[1:2] in (("dev",), ("proc",)):
        path = Path(os.path.realpath(path))
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        mode = None
    described = re.match(r"(/proc/\d+/fd/)?(pipe|socket):", str(path).removeprefix("/dev/fd/"))
    if described or not (mode is None or stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(
            f"{os.fspath(name)}: a pipe or a device, and a video is read more than once; "
            "write it to a file first, and name that"
        )
    return path


def further_pages(path: Path) -> int:
    """How many pictures a TIFF has after its first."""
    seen: set[int] = set()
    try:
        with open(path, "rb") as file:
            head = file.read(16)
            order = {b"II": "<", b"MM": ">"}.get(head[:2])
            if order is None:
                return 0
            (kind,) = struct.unpack_from(f"{order}H", head, 2)
            if kind not in (42, 43):
                return 0
            number, offset, entry, first = ("H", "I", 12, 4) if kind == 42 else ("Q", "Q", 20, 8)
            (at,) = struct.unpack_from(order + offset, head, first)
            while at and at not in seen and len(seen) < MOST_PAGES:
                seen.add(at)
                file.seek(at)
                (count,) = struct.unpack(order + number, file.read(struct.calcsize(number)))
                file.seek(count * entry, os.SEEK_CUR)
                (at,) = struct.unpack(order + offset, file.read(struct.calcsize(offset)))
    except (OSError, ValueError, OverflowError, struct.error):
        pass  # a chain that is broken ends there
    return max(0, len(seen) - 1)


def is_image(path: Path) -> bool:
    """Whether a result of this name is an image, or numbered ones."""
    return is_pattern(path) or path.suffix.lower() in ALONE


def is_pattern(path: Path) -> bool:
    """Whether a result of this name is numbered images."""
    return path.suffix.lower() in ENCODERS and NUMBER.search(path.name) is not None


def written_images(pattern: Path) -> list[Path]:
    """The images that are there under the name of a result."""
    return image_files(pattern) or [] if _any(pattern) else []


def linked(files: Sequence[Path]) -> tuple[tempfile.TemporaryDirectory[str], str]:
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
    assert found is not None  # of a pattern
    return name[: found.start()], name[found.end() :]
