"""A few frames of a video, before and after, and how long all of it would take."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace
from torch import Tensor

from d3dnet.inspection import drawing
from d3dnet.network.bicubic import Bicubic
from d3dnet.network.interface import Network
from d3dnet.network.run import run_paired
from d3dnet.video.colour import Layout, from_network, to_network
from d3dnet.video.picture import ColourTags, fill, layout_of
from d3dnet.video.reading import Reading
from d3dnet.video.scenes import shots
from d3dnet.video.source import VideoSource

AROUND = 3  # frames on either side that a shown frame is made with
SHEET = 1600  # width of a picture, at most
ACCENT = (235, 120, 20)
MATRICES = {1: Colorspace.ITU709, 9: Colorspace.BT2020}  # by H.273's number; others are BT.601


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
        InputError: as `d3dnet.upscale_video` would.
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
            shown, number_made = _upscaled(path, start, at, rate, model)
            images.append(shown)
            seconds.append(time.perf_counter() - clock)
        # Decoding takes as long with either.
        spent += max(0.0, seconds[1] - seconds[0])
        made += number_made
        title = f"{Path(path).name} at {float(at):.2f} s"
        file = folder / f"{Path(path).stem}-preview-{number}.png"
        pictures.append(drawing.write_png(file, picture(images[0], images[1], title, crop)))
        if on_picture is not None:
            on_picture(file)
    return Preview(tuple(pictures), spent / made, frames)


def _upscaled(
    path: str | os.PathLike[str], start: Fraction, at: Fraction, rate: Fraction, network: Network
) -> tuple[np.ndarray, int]:
    """The frame at a time, (H, W, 3) uint8 RGB, and how many were made for it."""
    count = round((at - start) * rate) + 1 + AROUND
    # Half a frame earlier: times in files are rounded.
    begin = max(Fraction(0), start - 1 / rate / 2)
    with VideoSource(path, Reading(start=begin, frames=count)) as source:
        layout, peak = source.layout, 2**source.layout.depth - 1
        cut = shots(source.frames(), peak, "auto", source.time_base)
        made: list[tuple[Tensor, tuple[np.ndarray, ...]]] = []
        for _, shot in groupby(cut, key=lambda one: one[0]):
            seen = (to_network(frame.planes, layout) for _, frame, _ in shot)
            frames = ((torch.from_numpy(luma)[None], rest) for luma, rest in seen)
            made += run_paired(network, frames)
        luma, rest = made[min(len(made) - 1, count - 1 - AROUND)]
        return _rgb(luma[0].float().cpu().numpy(), rest, layout, source.colour), len(made)


def _rgb(
    luma: np.ndarray, rest: Sequence[np.ndarray], source: Layout, tags: ColourTags
) -> np.ndarray:
    """What came out of the network and went past it, as a picture without alpha."""
    if source.family == "rgb":
        green, blue, red = from_network(luma, rest, source, layout_of("gbrp", full_range=True))
        return np.stack([red, green, blue], -1)
    whole = layout_of("yuv444p", full_range=source.full_range)
    frame = av.VideoFrame(luma.shape[1], luma.shape[0], whole.pixel_format)
    fill(frame, from_network(luma, rest, source, whole))
    return frame.to_ndarray(
        format="rgb24",
        src_colorspace=MATRICES.get(tags.matrix, Colorspace.ITU601),
        src_color_range=ColorRange.JPEG if source.full_range else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )


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
