"""A video file to frames: planes as they are stored, and the exact time of each."""

import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import av.filter
import av.logging
import numpy as np
from av.stream import Disposition
from av.video.format import VideoFormat

from d3dnet.video.colour import Layout, chroma_offset
from d3dnet.video.errors import InputError

MIN_SIZE = 8

# FFmpeg's values of color_range, colorspace, ...; all but the range are those of ITU-T H.273.
UNSPECIFIED = 2
RANGE_UNSPECIFIED, RANGE_LIMITED, RANGE_FULL = 0, 1, 2


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


class VideoSource:
    """The first video stream of a file, opened for reading from its start, once.

    A rotation or flip in the file is applied: frames come out as they are to be seen.

    Attributes:
        path: absolute path of the file.
        height, width: luma samples of a frame.
        layout, colour: what the planes mean, and the tags that say so.
        time_base: seconds per unit of a frame's pts.
        frame_rate: average frames per second, as far as the container knows; at least a guess.
        sample_aspect_ratio: width of a pixel over its height; None where the file does not say.
        subtitles: codec name of each subtitle stream.
        attachments: number of attached files, such as fonts.
        metadata: the video stream's language and title, where it has any.
        frames_estimate: how many frames the container claims, or None. Never relied upon.

    Raises:
        InputError: missing, not a video, damaged beyond reading, or smaller than 8×8.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        self._container = _open(self.path)
        try:
            self._stream = _video_stream(self._container, self.path)
            self._stream.thread_type = "AUTO"
            self.time_base: Fraction = self._stream.time_base
            self.frame_rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
            streams = self._container.streams
            self.subtitles = tuple(_codec_name(stream) for stream in streams.subtitles)
            self.attachments = len(streams.attachments)
            self.metadata = {
                key: value
                for key, value in self._stream.metadata.items()
                if key in ("language", "title") and value != "und"
            }
            self._pictures = self._decoded()
            first = next(self._pictures, None)
            if first is None:
                raise InputError(f"{self.path}: no frame of its video stream can be decoded")
            self._first = first
            self._describe(first)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> "VideoSource":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    @property
    def frames_estimate(self) -> int | None:
        stream, container = self._stream, self._container
        if stream.frames:
            return stream.frames
        if stream.duration:
            return max(1, round(stream.duration * self.time_base * self.frame_rate))
        if container.duration:
            return max(1, round(Fraction(container.duration, av.time_base) * self.frame_rate))
        return None

    @property
    def first_pts(self) -> int:
        """Time of the first frame, in units of the time base."""
        return _time_of(self._first) or 0

    def frames(self) -> Iterator[Frame]:
        """Every frame of the stream, in the order of their times, which strictly increase.

        A frame without a time, or with one that does not follow its predecessor's, gets the next
        time that a constant frame rate, or else the time base, allows.

        Raises:
            InputError: the file is damaged, or its frames change their size or pixel format.
        """
        step = max(1, round(1 / (self.frame_rate * self.time_base)))
        last: int | None = None
        stored = (self._first.width, self._first.height, self._first.format.name)
        for frame in chain([self._first], self._pictures):
            if (frame.width, frame.height, frame.format.name) != stored:
                raise InputError(
                    f"{self.path}: the picture changes from {stored} to "
                    f"{(frame.width, frame.height, frame.format.name)} within the stream, which is "
                    "not supported; convert it to one size and pixel format first"
                )
            pts = _time_of(frame)
            if pts is None:
                pts = 0 if last is None else last + step
            elif last is not None and pts <= last:
                pts = last + 1
            last = pts
            planes = _planes(frame, self._stored_format)
            yield Frame(tuple(self._orientation.apply(plane) for plane in planes), pts)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        count = 0
        try:
            for frame in self._container.decode(self._stream):
                yield frame
                count += 1
        except (av.FFmpegError, OSError) as error:
            raise InputError(
                f"{self.path}: damaged after {count} frames ({_reason(error)})"
            ) from error

    def _describe(self, frame: av.VideoFrame) -> None:
        self._orientation = _orientation(frame)
        transpose = self._orientation.transpose
        location, interlaced = _shown_info(frame)
        if interlaced:
            warnings.warn(
                f"{self.path}: interlaced; the network expects whole frames", stacklevel=4
            )
        full = frame.color_range == RANGE_FULL or frame.format.name.startswith("yuvj")
        self._stored_format = _planar_format(frame.format)
        stored = layout_of(self._stored_format, location=location, full_range=full)
        if stored.family == "grey" and frame.color_range != RANGE_LIMITED:
            full = True  # as FFmpeg reads grey pictures that do not say
        if stored.family == "rgb":
            full = True
        self.colour = ColourTags(
            range=RANGE_FULL if full else frame.color_range,
            matrix=frame.colorspace,
            primaries=frame.color_primaries,
            transfer=frame.color_trc,
            chroma_location=location,
        )
        self.height, self.width = frame.height, frame.width
        step, offset = stored.chroma_step, stored.chroma_offset
        sizes = [(frame.height, frame.width), *stored.plane_sizes(frame.height, frame.width)[1:2]]
        offset = _flipped_offset(sizes, step, offset, self._orientation)
        aspect = self._stream.sample_aspect_ratio
        if transpose:
            self.height, self.width = frame.width, frame.height
            step, offset = step[::-1], offset[::-1]
            aspect = 1 / aspect if aspect else aspect
        self.sample_aspect_ratio: Fraction | None = aspect or None
        self.layout = Layout(
            pixel_format=stored.pixel_format,
            family=stored.family,
            depth=stored.depth,
            chroma_step=step,
            chroma_offset=offset,
            full_range=full,
        )
        if min(self.height, self.width) < MIN_SIZE:
            raise InputError(
                f"{self.path}: {self.width}×{self.height} is too small; "
                f"at least {MIN_SIZE}×{MIN_SIZE} is needed"
            )


def layout_of(
    pixel_format: str, *, location: str = "unspecified", full_range: bool = False
) -> Layout:
    """The layout of a planar pixel format, by FFmpeg's names of it and of a chroma location.

    Raises:
        ValueError: not one of the planar little-endian formats of 8 to 16 bits without alpha.
    """
    described = VideoFormat(pixel_format, 64, 64)
    parts = described.components
    planar = sorted(part.plane for part in parts) == list(range(len(parts)))
    if (
        not planar
        or len(parts) not in (1, 3)
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
        return Layout(pixel_format, "rgb", parts[0].bits, full_range=True)
    step = (64 // parts[1].height, 64 // parts[1].width)
    return Layout(
        pixel_format, "yuv", parts[0].bits, step, chroma_offset(location, step), full_range
    )


def _open(path: Path) -> av.container.InputContainer:
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: a folder, not a video file")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: empty")
    try:
        return av.open(f"file:{path}", metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable video ({_reason(error)})") from error


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise InputError(f"{path}: no decoder for its video stream")
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise InputError(f"{path}: no video stream, only: {', '.join(kinds) or 'nothing'}")


def _time_of(frame: av.VideoFrame) -> int | None:
    return frame.pts if frame.pts is not None else frame.dts


def _codec_name(stream: av.stream.Stream) -> str:
    return stream.codec_context.name if stream.codec_context is not None else "unknown"


def _planar_format(stored: VideoFormat) -> str:
    """The planar little-endian format without alpha that holds all that `stored` can."""
    name = stored.name.replace("yuvj", "yuv").replace("yuva", "yuv").replace("gbrap", "gbrp")
    try:
        return layout_of(name).pixel_format
    except ValueError:
        pass
    bits = max(part.bits for part in stored.components) if stored.components else 8
    depth = next((depth for depth in (8, 10, 12, 14, 16) if bits <= depth), 16)
    suffix = "" if depth == 8 else f"{depth}le"
    if stored.is_rgb or stored.has_palette or stored.is_bayer or stored.name.startswith("xyz"):
        return f"gbrp{suffix}"
    if not any(part.is_chroma for part in stored.components):
        return f"gray{suffix}"
    step = (16 // stored.chroma_height(16), 16 // stored.chroma_width(16))
    kinds = {(2, 2): "420", (1, 2): "422", (1, 1): "444", (2, 1): "440", (1, 4): "411"}
    return f"yuv{kinds.get(step, '444')}p{suffix}"


def _planes(frame: av.VideoFrame, planar_format: str) -> list[np.ndarray]:
    """Planes of a frame, without padding; a view into it where its format is planar already."""
    name = frame.format.name.replace("yuvj", "yuv").replace("yuva", "yuv").replace("gbrap", "gbrp")
    if name != planar_format:
        frame = frame.reformat(format=planar_format)
    layout = layout_of(planar_format)
    planes = []
    sizes = layout.plane_sizes(frame.height, frame.width)
    for plane, (rows, columns) in zip(frame.planes, sizes, strict=False):  # alpha is left out
        samples = np.frombuffer(plane, layout.dtype)
        samples = samples.reshape(rows, abs(plane.line_size) // layout.dtype.itemsize)
        samples = samples[::-1] if plane.line_size < 0 else samples
        planes.append(samples[:, :columns])
    return planes


def _orientation(frame: av.VideoFrame) -> Orientation:
    """From the display matrix, which maps (x, y) to (a·x + c·y, b·x + d·y)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5]
    if abs(int(a)) + abs(int(d)) >= abs(int(b)) + abs(int(c)):
        return Orientation(False, flip_rows=bool(d < 0), flip_columns=bool(a < 0))
    return Orientation(True, flip_rows=bool(b < 0), flip_columns=bool(c < 0))


def _flipped_offset(
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
    return tuple(
        (luma[axis] - 1) - (offset[axis] + step[axis] * (chroma[axis] - 1))
        if flips[axis]
        else offset[axis]
        for axis in (0, 1)
    )


def _shown_info(frame: av.VideoFrame) -> tuple[str, bool]:
    """Chroma location (FFmpeg's name) and whether the frame is interlaced.

    PyAV does not expose the location; FFmpeg's showinfo filter prints it.
    """
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    info = graph.add("showinfo", "checksum=0")
    sink = graph.add("buffersink")
    source.link_to(info)
    info.link_to(sink)
    graph.configure()
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        with av.logging.Capture() as lines:
            graph.push(frame)
            graph.pull()
    finally:
        av.logging.set_level(level)
    found = re.search(r" cl:(\S+)", "".join(text for _, _, text in lines))
    return (found.group(1) if found else "unspecified"), frame.interlaced_frame


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
