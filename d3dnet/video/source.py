"""A video file to frames: planes as they are stored, and the exact time of each."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from heapq import heappush, heappushpop
from itertools import chain, dropwhile, islice
from typing import cast

import av
import numpy as np
from av.container import Flags

from d3dnet.errors import InputError
from d3dnet.video.changes import Changes
from d3dnet.video.colour import Layout
from d3dnet.video.completeness import missing_bytes, trailing_bytes
from d3dnet.video.decoder import (
    HINT,
    Decoder,
    deinterlaced,
    time_of,
)
from d3dnet.video.hdr import Mastering, lost_metadata, mastering_of
from d3dnet.video.images import further_pages, image_files, linked, regular_file
from d3dnet.video.opening import opened, video_stream
from d3dnet.video.picture import (
    RANGE_FULL,
    RANGE_LIMITED,
    ColourTags,
    Frame,
    chroma_location,
    flipped_offset,
    layout_of,
    orientation,
    planar_format,
    planes,
)
from d3dnet.video.reading import WHOLE, Reading
from d3dnet.video.sidedata import side_data_of
from d3dnet.video.streams import Streams, streams_of
from d3dnet.video.times import Shown, increasing_times, without_new_beginnings
from d3dnet.wording import counted

# AVI has no times but the order of frames; those that PyAV asks FFmpeg to guess are a frame late.
GUESSED_LATE = {"h264", "hevc"}


class VideoSource:
    """The first video stream of a file, opened for reading once.

    A rotation or flip in the file is applied: frames come out as they are to be seen.

    Args:
        path: the file; or images: a folder, a glob or a printf pattern of them.
        reading: which frames, and how.
        parallel: decode several frames at once. Damage comes up at another frame than its own
            then, or not at all: near the end, PyAV drops errors if good frames come out with them.

    Attributes:
        path: absolute path of the file; `reading`: as given.
        images: the files, where it is images; they have no other streams.
        is_image: whether it is images, or one.
        height, width: luma samples of a frame.
        layout, colour: what the planes mean, and the tags that say so.
        mastering: of HDR; lost_metadata: what else the first frame says, and no result will.
        transparent: whether a frame was transparent anywhere: the first, or a later one.
        time_base: seconds per unit of a frame's pts.
        frame_rate: average frames per second, as far as the container knows; at least a guess.
        length: seconds, as its header says; None where it does not.
        begins: time in seconds at which the first of its streams begins.
        base_rate: the lowest that has room for all times, where frames are left out; a guess.
        sample_aspect_ratio: width of a pixel over its height; None where the file does not say.
        streams: what else is in the file.
        first_pts: time of the first frame, in units of the time base.
        damage: what could not be decoded, or changes, as text; grows while frames are read.
        notes: what else is to be told of the file, as text.

    Raises:
        InputError: missing, not a video, damaged beyond reading, interlaced (without
            `deinterlace`), or nothing in the part that was asked for.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        reading: Reading = WHOLE,
        *,
        parallel: bool = False,
    ) -> None:
        self._parallel = parallel
        self.path = regular_file(path)
        self.damage: list[str] = []
        self.transparent = False
        self._pictures: Iterator[tuple[av.VideoFrame, int]] = iter(())
        self.reading = reading
        self.images = image_files(path)
        for image in self.images or ():
            if image.stat().st_size == 0:  # FFmpeg would take it for the end
                raise InputError(f"{image}: empty; make it again, or leave it out")
        self._links: tempfile.TemporaryDirectory[str] | None = None
        self._url = f"file:{self.path}"
        if self.images:
            self._links, self._url = linked(self.images)
        with self._fresh() as container:
            stream = video_stream(container, self.path)
            self._chroma_location = chroma_location(container, stream)
        self._open()
        try:
            self.time_base = self._stream.time_base or Fraction(1)
            self.frame_rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
            begins = Fraction(self._container.start_time or 0, av.time_base)
            length = self._container.duration
            self.length = None if length is None else Fraction(length, av.time_base)
            self.begins = min(begins, (self._stream.start_time or 0) * self.time_base)
            self.base_rate: Fraction = self._stream.base_rate or self.frame_rate
            self.is_image = self._container.format.name.endswith(("_pipe", "image2"))
            self.streams: Streams = streams_of(self._container, self._stream)
            first = self._seek()
            if first is None:
                asked = " in the part that was asked for" if reading.is_part else ""
                raise InputError(
                    f"{self.path}: no frame of its video stream{asked} can be decoded"
                    + "".join(f" ({what})" for what in self.damage[:1])
                )
            self._describe(first)
            self.notes = self._notes()
            missing = missing_bytes(self.path)
            if missing and reading.on_error == "fail" and not reading.is_part:
                raise InputError(f"{self.path}: cut off, {missing} bytes are missing; {HINT}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "VideoSource":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()
        if self._links is not None:
            self._links.cleanup()

    @property
    def frames_estimate(self) -> int | None:
        """How many frames the container claims, or None. Never relied upon."""
        stream, container, reading = self._stream, self._container, self.reading
        if stream.frames and not reading.is_part:
            return stream.frames
        if stream.duration:
            seconds = stream.duration * self.time_base
        elif container.duration:
            seconds = Fraction(container.duration, av.time_base)
        else:
            return reading.frames
        count = stream.frames or max(1, round(seconds * self.frame_rate))
        if reading.start is not None or reading.end is not None:
            begin = (stream.start_time or 0) * self.time_base
            start = begin if reading.start is None else max(begin, reading.start)
            end = begin + seconds
            end = end if reading.end is None else min(end, reading.end)
            count = max(1, round((end - start) * self.frame_rate))
        return min(count, reading.frames) if reading.frames else count

    @property
    def is_one_frame(self) -> bool:
        """Whether one frame is all: of an image, or because no more are asked for."""
        if self.reading.frames == 1:
            return True
        with self._fresh() as container:
            stream = video_stream(container, self.path)
            packets = (packet for packet in container.demux(stream) if packet.size)
            return next(packets, None) is not None and next(packets, None) is None

    @property
    def last_shown(self) -> Shown | None:
        """When the last frame that is read is shown, as far as the container says."""
        end, last = self.end, None
        with self._fresh() as container:
            for packet in container.demux(video_stream(container, self.path)):
                time = time_of(packet)
                if time is None or time < self.first_pts or packet.is_discard:
                    continue
                begin = time * self.time_base
                length = (packet.duration or 0) * self.time_base
                if (end is None or begin < end) and (last is None or begin >= last.time):
                    last = Shown(begin, begin + length)
        if last is None or last.end == last.time:
            return None
        return last if end is None else Shown(last.time, min(last.end, end))

    @property
    def end(self) -> Fraction | None:
        """Time in seconds where the part ends that is read; None for the end of the file."""
        reading = self.reading
        if reading.frames is None:
            return reading.end
        earliest: list[int] = []  # times of one frame more than are read, negative, as a heap
        with self._fresh() as container:
            for packet in container.demux(video_stream(container, self.path)):
                time = time_of(packet)
                if time is None or time < self.first_pts:
                    continue
                if len(earliest) <= reading.frames:
                    heappush(earliest, -time)
                    continue
                heappushpop(earliest, -time)
                if packet.dts is not None and packet.dts > -earliest[0]:
                    break  # nothing is shown before it is decoded
        if len(earliest) > reading.frames:
            after = -earliest[0] * self.time_base
            return after if reading.end is None else min(after, reading.end)
        return reading.end

    def all_packets(
        self, start: Fraction | None = None
    ) -> Iterator[tuple[int | None, Fraction, int]]:
        """Which sound stream a packet is of (None: none), its time in seconds, its place in bytes.

        In the order of the file, about from `start` on; those without a time are left out.
        """
        with self._fresh() as container, contextlib.suppress(av.FFmpegError, OSError):
            if start is not None:
                container.seek(int(start * av.time_base))
            numbers = {stream.index: n for n, stream in enumerate(container.streams.audio)}
            for packet in container.demux():
                time = time_of(packet)
                if time is not None and packet.time_base is not None:
                    place = packet.pos or 0
                    yield numbers.get(packet.stream_index), time * packet.time_base, place

    def frames_from(self, number: int, pts: int, before: Fraction | None) -> Iterator[Frame]:
        """As `frames`, from that one on which has this number, counted from 0, and this time.

        It may come out otherwise than without a break, or later ones first, where seeking in the
        file is not exact.

        Args:
            before: begin decoding so many seconds before it; None: at the beginning.
        """
        self._container.close()
        self._open()
        if before is None:
            self._seek()
            self._pictures = islice(self._pictures, number, None)
        else:
            self._container.seek(pts - int(before / self.time_base), stream=self._stream)
            self._pictures = dropwhile(lambda picture: picture[1] < pts, self._timed())
        return self.frames(number)

    def frames(self, number: int = 0) -> Iterator[Frame]:
        """Every frame, in the order of their times, which strictly increase.

        A frame without a time, or with one that does not follow its predecessor's, gets the next
        time that a constant frame rate, or else the time base, allows.

        Raises:
            InputError: the file is damaged or ends early (and `on_error` is "fail"), or its frames
                change their size or pixel format, or become interlaced.
        """
        stored = None
        for count, (frame, pts) in enumerate(self._pictures, number):
            kind = (frame.width, frame.height, frame.format.name)
            stored = stored or kind
            if kind != stored:
                raise InputError(
                    f"{self.path}: the picture changes from {stored} to {kind} within the stream, "
                    "which is not supported; convert it to one size and pixel format first"
                )
            if self.reading.end is not None and pts * self.time_base >= self.reading.end:
                return
            if self.reading.frames is not None and count >= self.reading.frames:
                return
            if frame.interlaced_frame and not self.reading.deinterlace:
                raise InputError(
                    f"{self.path}: interlaced from {float(pts * self.time_base):.3f} s on; the "
                    "network needs whole frames: use --deinterlace"
                )
            aspect = self._stream.codec_context.sample_aspect_ratio
            for text in self._changes.in_(frame, aspect):
                self.damage.append(f"{text} at {float(pts * self.time_base):.3f} s")
            turned = tuple(map(self._orientation.apply, planes(frame, self._stored_format)))
            self.transparent = self.transparent or self._is_transparent(turned)
            yield Frame(turned, pts)

    def _fresh(self) -> av.container.InputContainer:
        options = {"framerate": str(self.reading.image_rate)} if self.images else {}
        container = opened(self.path, self._url, options)
        contexts: list[av.VideoCodecContext | None]
        contexts = [stream.codec_context for stream in container.streams.video]
        codecs = {context.name for context in contexts if context is not None}
        if container.format.name == "avi" and codecs & GUESSED_LATE:
            container.flags &= ~cast(int, Flags.gen_pts.value)
        return container

    def _open(self) -> None:
        self._container = self._fresh()
        try:
            self._stream = video_stream(self._container, self.path)
        except BaseException:
            self._container.close()
            raise
        self._stream.thread_type = "AUTO" if self._parallel else "SLICE"

    def _seek(self) -> av.VideoFrame | None:
        """Go to the first frame that was asked for, and return it; `_pictures` begins with it."""
        start = self.reading.start
        if start is not None:
            try:
                self._container.seek(int(start / self.time_base), stream=self._stream)
                early = next(self._decoded(), None)
                reached = early is not None and (early[1] or 0) * self.time_base <= start
            except (av.FFmpegError, OSError, InputError):
                reached = False
            self._container.close()
            self.damage.clear()
            self._open()
            if reached:
                self._container.seek(int(start / self.time_base), stream=self._stream)
        pictures = self._timed()
        for frame, pts in pictures:
            time = pts * self.time_base
            if self.reading.end is not None and time >= self.reading.end:
                return None
            if start is None or time >= start:
                self.first_pts = pts
                self._pictures = chain([(frame, pts)], pictures)
                return frame
        return None

    def _timed(self) -> Iterator[tuple[av.VideoFrame, int]]:
        """Frames as they are used, with times that increase."""
        step = max(1, round(1 / (self.frame_rate * self.time_base)))
        pictures = self._decoded()
        if self.reading.deinterlace:
            pictures = deinterlaced(pictures, self.time_base)
        # Nothing that refers to this object: PyAV's are to be freed with it, not whenever.
        return increasing_times(without_new_beginnings(pictures, self.time_base, self.path), step)

    def _decoded(self) -> Iterator[tuple[av.VideoFrame, int | None]]:
        step = max(1, round(1 / (self.frame_rate * self.time_base)))
        return Decoder(
            self._container, self._stream, self.path, self.reading.on_error, step, self.damage
        ).frames()

    def _describe(self, frame: av.VideoFrame) -> None:
        side_data = side_data_of(frame)
        self._orientation = orientation(side_data)
        transpose = self._orientation.transpose
        if frame.interlaced_frame and not self.reading.deinterlace:
            raise InputError(
                f"{self.path}: interlaced; the network needs whole frames: use --deinterlace"
            )
        full = frame.color_range == RANGE_FULL or frame.format.name.startswith("yuvj")
        self._stored_format = planar_format(frame.format)
        stored = layout_of(self._stored_format, location=self._chroma_location, full_range=full)
        if stored.family == "grey" and frame.color_range != RANGE_LIMITED:
            full = True  # as FFmpeg reads grey pictures that do not say
        if stored.family == "rgb":
            full = True
        self.colour = ColourTags(
            range=RANGE_FULL if full else frame.color_range,
            matrix=frame.colorspace,
            primaries=frame.color_primaries,
            transfer=frame.color_trc,
            chroma_location=self._chroma_location,
        )
        self.mastering: Mastering = mastering_of(side_data)
        self.lost_metadata = lost_metadata(side_data)
        self.height, self.width = frame.height, frame.width
        step, offset = stored.chroma_step, stored.chroma_offset
        sizes = [(frame.height, frame.width), *stored.plane_sizes(frame.height, frame.width)[1:2]]
        offset = flipped_offset(sizes, step, offset, self._orientation)
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
            alpha=stored.alpha,
        )
        self.transparent = self._is_transparent(planes(frame, self._stored_format))
        self._changes = Changes()

    def _notes(self) -> list[str]:
        notes = []
        if extra := trailing_bytes(self.path):
            notes.append(f"{counted(extra, 'byte')} after its end are not looked at")
        if self.is_image and (pages := sum(map(further_pages, self.images or [self.path]))):
            notes.append(f"{counted(pages, 'further page')} of it left out")
        return notes

    def _is_transparent(self, planes: Sequence[np.ndarray]) -> bool:
        return self.layout.alpha and bool((planes[-1] < 2**self.layout.depth - 1).any())
