"""A decoded picture: its planes, what they mean, and which way up it is."""

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import av
import av.filter
import av.logging
import numpy as np
from av.video.format import VideoFormat

from d3dnet.video.colour import Layout, chroma_offset
from d3dnet.video.sidedata import SideData

# FFmpeg's values of color_range, colorspace, ...; all but the range are those of ITU-T H.273.
UNSPECIFIED = 2
RANGE_UNSPECIFIED, RANGE_LIMITED, RANGE_FULL = 0, 1, 2

_log_level = threading.Lock()  # libav has one for all: left raised, any decoder may hang

GREY_ALPHA = "ya8"  # samples and alpha alternate: there is no planar format of these


@dataclass(frozen=True)
class ColourTags:
    """How a picture says its colours are to be read: numbers as in ITU-T H.273 (2: unspecified).

    `range` is FFmpeg's: 0 unspecified, 1 limited, 2 full. `chroma_location` is FFmpeg's name.
    """

    range: int = RANGE_UNSPECIFIED
    matrix: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    chroma_location: str = "unspecified"


@dataclass(frozen=True)
class Frame:
    """A picture: planes (rows, columns) as in its layout, and `pts` in units of the time base."""

    planes: tuple[np.ndarray, ...]
    pts: int


@dataclass(frozen=True)
class Orientation:
    """What turns a stored picture into the shown one: transpose, then flip."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def apply(self, plane: np.ndarray) -> np.ndarray:
        plane = plane.T if self.transpose else plane
        plane = plane[::-1] if self.flip_rows else plane
        return plane[:, ::-1] if self.flip_columns else plane


def layout_of(
    pixel_format: str, *, location: str = "unspecified", full_range: bool = False
) -> Layout:
    """The layout of a planar pixel format, by FFmpeg's names of it and of a chroma location.

    Raises:
        ValueError: not one of the planar little-endian formats of 8 to 16 bits, nor `GREY_ALPHA`.
    """
    if pixel_format == GREY_ALPHA:
        return Layout(pixel_format, "grey", 8, full_range=full_range, alpha=True)
    described = VideoFormat(pixel_format, 64, 64)
    parts = described.components
    alpha = any(part.is_alpha for part in parts)
    planar = sorted(part.plane for part in parts) == list(range(len(parts)))
    if (
        not planar
        or len(parts) - alpha not in (1, 3)
        or described.has_palette
        or described.is_big_endian
        or "msb" in pixel_format
        or not 8 <= parts[0].bits <= 16
        or (pixel_format.endswith("f16le"))
    ):
        raise ValueError(f"{pixel_format} is not planar little-endian of 8 to 16 bits")
    if len(parts) == 1:
        return Layout(pixel_format, "grey", parts[0].bits, full_range=full_range)
    if described.is_rgb:
        return Layout(pixel_format, "rgb", parts[0].bits, full_range=True, alpha=alpha)
    step = (64 // parts[1].height, 64 // parts[1].width)
    return Layout(
        pixel_format, "yuv", parts[0].bits, step, chroma_offset(location, step), full_range, alpha
    )


def planar_format(stored: VideoFormat) -> str:
    """The planar little-endian format (or `GREY_ALPHA`) that holds all that `stored` can."""
    name = stored.name.replace("yuvj", "yuv")
    try:
        return layout_of(name).pixel_format
    except ValueError:
        pass
    bits = max(part.bits for part in stored.components) if stored.components else 8
    alpha = stored.has_palette or any(part.is_alpha for part in stored.components)
    if stored.is_rgb or stored.has_palette or stored.is_bayer or stored.name.startswith("xyz"):
        names = ("gbrap", "gbrap{}le") if alpha else ("gbrp", "gbrp{}le")
    elif not any(part.is_chroma for part in stored.components):
        names = (GREY_ALPHA, "gbrap{}le") if alpha else ("gray", "gray{}le")
    else:
        step = (16 // stored.chroma_height(16), 16 // stored.chroma_width(16))
        kinds = {(2, 2): "420", (1, 2): "422", (1, 1): "444", (2, 1): "440", (1, 4): "411"}
        kind = f"{'yuva' if alpha else 'yuv'}{kinds.get(step, '444')}p"
        names = (kind, kind + "{}le")
    for depth in (8, 10, 12, 14):
        name = names[depth > 8].format(depth)
        if bits <= depth and _exists(name):
            return name
    return names[1].format(16)


def planes(frame: av.VideoFrame, planar_format: str) -> list[np.ndarray]:
    """Planes of a frame, without padding; a view into it where its format is planar already."""
    if frame.format.name.replace("yuvj", "yuv") != planar_format:
        frame = frame.reformat(format=planar_format)
    layout = layout_of(planar_format)
    planes = []
    sizes = layout.plane_sizes(frame.height, frame.width)
    if planar_format == GREY_ALPHA:
        sizes = [(frame.height, 2 * frame.width)]
    for plane, (rows, columns) in zip(frame.planes, sizes, strict=True):
        samples = np.frombuffer(memoryview(plane), layout.dtype)
        samples = samples.reshape(rows, abs(plane.line_size) // layout.dtype.itemsize)
        samples = samples[::-1] if plane.line_size < 0 else samples
        planes.append(samples[:, :columns])
    if planar_format == GREY_ALPHA:
        return [planes[0][:, 0::2], planes[0][:, 1::2]]
    return planes


def fill(frame: av.VideoFrame, planes: Sequence[np.ndarray]) -> None:
    """Write planes, as `planes` gives them, into a frame of their format."""
    if frame.format.name == GREY_ALPHA:
        planes = [np.stack(planes, -1).reshape(len(planes[0]), -1)]
    for to, plane in zip(frame.planes, planes, strict=True):
        samples = np.frombuffer(memoryview(to), plane.dtype)
        rows = samples.reshape(-1, to.line_size // plane.itemsize)
        rows[:, : plane.shape[1]] = plane


def orientation(side_data: SideData) -> Orientation:
    """From the display matrix, which maps (x, y) to (a·x + c·y, b·x + d·y)."""
    data = side_data.get("DISPLAYMATRIX")
    if data is None or len(data) < 36:
        return Orientation()
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5]
    if abs(int(a)) + abs(int(d)) >= abs(int(b)) + abs(int(c)):
        return Orientation(False, flip_rows=bool(d < 0), flip_columns=bool(a < 0))
    return Orientation(True, flip_rows=bool(b < 0), flip_columns=bool(c < 0))


def flipped_offset(
    sizes: list[tuple[int, int]],
    step: tuple[int, int],
    offset: tuple[float, float],
    orientation: Orientation,
) -> tuple[float, float]:
    """Where the first chroma sample lies after the flips, in stored rows and columns."""
    flips = (orientation.flip_rows, orientation.flip_columns)
    if orientation.transpose:
        flips = flips[::-1]
    if len(sizes) < 2:
        return offset
    luma, chroma = sizes
    row, column = (
        (luma[axis] - 1) - (offset[axis] + step[axis] * (chroma[axis] - 1))
        if flips[axis]
        else offset[axis]
        for axis in (0, 1)
    )
    return row, column


def chroma_location(container: av.container.InputContainer, stream: av.VideoStream) -> str:
    """FFmpeg's name of the chroma location of the first picture that can be decoded.

    PyAV does not expose it; FFmpeg's showinfo filter prints it. While its log is read, a thread of
    a decoder that logs waits for Python, and hangs if Python waits for that decoder: so `container`
    is to be one opened for this alone, before those whose frames are decoded in parallel.
    """
    stream.codec_context.thread_count = 1
    packets = container.demux(stream)
    while True:
        try:
            frame = next(frame for packet in packets for frame in packet.decode())
        except av.InvalidDataError:
            continue
        except (StopIteration, av.FFmpegError, OSError):
            return "unspecified"
        return _shown_chroma_location(frame)


def _shown_chroma_location(frame: av.VideoFrame) -> str:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    info = graph.add("showinfo", "checksum=0")
    sink = graph.add("buffersink")
    source.link_to(info)
    info.link_to(sink)
    graph.configure()
    with _log_level:
        level = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)
        try:
            with av.logging.Capture() as lines:
                graph.push(frame)
                graph.pull()
        finally:
            av.logging.set_level(level)
    found = re.search(r" cl:(\S+)", "".join(text for _, _, text in lines))
    return found.group(1) if found else "unspecified"


def _exists(pixel_format: str) -> bool:
    try:
        return bool(VideoFormat(pixel_format))
    except ValueError:
        return False
