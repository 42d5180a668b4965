"""What files are called: which names are of images and of videos, and their order."""

import re
from pathlib import Path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
# What a file in a folder is called when it is a video; FFmpeg finds out what is in it.
VIDEO_SUFFIXES = tuple(
    ".264 .265 .3gp .asf .avi .dv .flv .gif .h264 .h265 .hevc .ivf .m2ts .m2v .m4v .mkv .mov .mp4 "
    ".mpeg .mpg .mts .mxf .nut .obu .ogv .rm .ts .vob .webm .wmv .y4m".split()
)


def looks_like_image(path: Path) -> bool:
    """Whether a file is an image, by its name.

    >>> looks_like_image(Path("a/frame.PNG")), looks_like_image(Path("a.mp4"))
    (True, False)
    """
    return path.suffix.lower() in IMAGE_SUFFIXES


def looks_like_video(path: Path) -> bool:
    """Whether a file is a video, by its name.

    >>> looks_like_video(Path("a/clip.MP4")), looks_like_video(Path("notes.txt"))
    (True, False)
    """
    return path.suffix.lower() in VIDEO_SUFFIXES


def is_hidden(path: Path) -> bool:
    """Whether a file is one that systems leave beside others, such as macOS's ``._clip.mp4``.

    >>> is_hidden(Path("a/._clip.mp4"))
    True
    """
    return path.name.startswith(".")


def natural_order(path: Path) -> list[tuple[int, int | str]]:
    """A key to sort files by: digits in their names count as numbers, 9 comes before 10.

    >>> names = ["im10.png", "Im9.png", "im.png"]
    >>> [path.name for path in sorted(map(Path, names), key=natural_order)]
    ['im.png', 'Im9.png', 'im10.png']
    """
    parts = re.split(r"(\d+)", path.stem.lower())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]
