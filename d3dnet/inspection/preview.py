"""A few frames of a video, before and after, and how long all of it would take."""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from torch import nn

from d3dnet.errors import InputError
from d3dnet.inspection import drawing
from d3dnet.job.upscale import upscale_video
from d3dnet.network.bicubic import Bicubic
from d3dnet.network.interface import Network
from d3dnet.video.source import VideoSource

AROUND = 3  # frames on either side that a shown frame is made with
SHEET = 1600  # width of a picture, at most
ACCENT = (235, 120, 20)


@dataclass(frozen=True)
class Preview:
    """What was made.

    Attributes:
        pictures: the files.
        seconds_per_frame: the network's time for a frame.
        frames: of the whole video, as far as the file says.
    """

    pictures: tuple[Path, ...]
    seconds_per_frame: float
    frames: int | None


def preview(
    path: str | os.PathLike[str],
    folder: Path,
    network: Network,
    *,
    count: int = 4,
    crop: tuple[int, int, int] | None = None,
    on_picture: Callable[[Path], None] | None = None,
    ffmpeg: str | os.PathLike[str] | None = None,
) -> Preview:
    """Draw frames from across a video, before (bicubic) and after, with an enlarged part of each.

    Each is upscaled with three frames on either side of it, fewer than in a whole video.

    Args:
        path: the video.
        folder: where the PNGs go, as NAME-preview-1.png ...; it exists.
        network: on its device.
        count: how many frames.
        crop: (row, column, rows) of the part in pixels of the result, twice as wide as high; None
            for where there is most detail.
        on_picture: called with each file when it is complete.

    Raises:
        InputError, ProgramError: as `d3dnet.upscale_video` would.
    """
    with VideoSource(path) as source:
        frames, rate = source.frames_estimate, Fraction(source.frame_rate)
        begin = source.first_pts * source.time_base
    length = (frames or 1) / rate
    times = [begin + length * (2 * index + 1) / (2 * count) for index in range(count)]
    # In a short video the same frame only once.
    times = sorted({begin + round((at - begin) * rate) / rate for at in times})
    pictures, spent, made = [], 0.0, 0
    for number, at in enumerate(times, start=1):
        start = max(begin, at - AROUND / rate)
        images: list[np.ndarray] = []
        seconds = []
        for model in (Bicubic(), network):
            clock = time.perf_counter()
            shown, number_made = _upscaled(path, start, at, rate, model, ffmpeg)
            images.append(shown)
            seconds.append(time.perf_counter() - clock)
        # Decoding and encoding take as long with either.
        spent += max(0.0, seconds[1] - seconds[0])
        made += number_made
        title = f"{Path(path).name} at {float(at):.2f} s"
        file = folder / f"{Path(path).stem}-preview-{number}.png"
        pictures.append(drawing.write_png(file, picture(images[0], images[1], title, crop)))
        if on_picture is not None:
            on_picture(file)
    return Preview(tuple(pictures), spent / made, frames)


def _upscaled(
    path: str | os.PathLike[str],
    start: Fraction,
    at: Fraction,
    rate: Fraction,
    model: Network,
    ffmpeg: str | os.PathLike[str] | None,
) -> tuple[np.ndarray, int]:
    """The frame at a time, (H, W, 3) uint8 RGB, and how many were made for it."""
    with tempfile.TemporaryDirectory() as folder:
        pattern = Path(folder) / "%03d.png"
        count = round((at - start) * rate) + 1 + AROUND
        # Half a frame earlier: times in files are rounded.
        begin = max(Fraction(0), start - 1 / rate / 2)
        upscale_video(
            path,
            pattern,
            model=cast(nn.Module, model),  # a Network is one
            start=f"{float(begin):.6f}",
            frames=count,
            sound=False,  # which nobody expects of pictures
            ffmpeg=ffmpeg,
        )
        files = sorted(Path(folder).glob("*.png"))
        index = min(len(files) - 1, count - 1 - AROUND)
        image = cv2.imread(str(files[index]), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{path}: no frame at {float(at):.2f} s")
    return image[..., ::-1], len(files)


def picture(
    before: np.ndarray, after: np.ndarray, title: str, crop: tuple[int, int, int] | None = None
) -> np.ndarray:
    """Both frames above, the same part of both below, pixel for pixel or enlarged.

    Args:
        before, after: (H, W, 3) uint8 RGB of one size.
        crop: as for `preview`.
    """
    height, width = after.shape[:2]
    half = min(SHEET // 2, 2 * width)
    top, left, rows = crop or detailed_part(after)
    rows = max(1, min(rows, height, width // 2))
    top, left = min(top, height - rows), min(left, width - 2 * rows)
    whole, part = [], []
    for image, name in ((before, "bicubic"), (after, "d3dnet")):
        small = np.ascontiguousarray(drawing.resized(image, half))
        y0, x0, y1, x1 = (round(v * half / width) for v in (top, left, top + rows, left + 2 * rows))
        drawing.frame_of(small, y0, x0, y1, x1, ACCENT)
        whole.append(drawing.captioned(small, name))
        inner = image[top : top + rows, left : left + 2 * rows]
        part.append(drawing.captioned(drawing.resized(inner, half), f"{name}, the marked part"))
    heading = drawing.caption(f"{title}: {width // 4}x{height // 4} to {width}x{height}", size=0.65)
    return drawing.sheet([heading, drawing.beside(whole), drawing.beside(part)])


def detailed_part(image: np.ndarray) -> tuple[int, int, int]:
    """(row, column, rows) of the part with the most detail: a quarter as high, twice as wide.

    >>> image = np.zeros((96, 160, 3), np.uint8)
    >>> image[64:, 96::2] = 255
    >>> row, column, rows = detailed_part(image)
    >>> row + rows > 64 and column + 2 * rows > 96
    True
    """
    height, width = image.shape[:2]
    rows = max(1, min(height // 4, width // 4))
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    # Capped, so that a few hard edges, such as captions, do not outweigh texture.
    detail = np.minimum(np.abs(cv2.Laplacian(grey, cv2.CV_32F)), 40)
    sums = cv2.integral(detail)
    inside = (
        sums[rows:, 2 * rows :]
        - sums[:-rows, 2 * rows :]
        - sums[rows:, : -2 * rows]
        + sums[:-rows, : -2 * rows]
    )
    row, column = np.unravel_index(np.argmax(inside), inside.shape)
    return int(row), int(column), rows
