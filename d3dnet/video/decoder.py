"""Frames of a stream that may be damaged, or end before its container says, and what is done then.

Four things are noticed: packets that cannot be decoded, pictures that the decoder calls corrupt,
pictures that it leaves out without a word (in codecs where each packet is one), and an end that
comes too early: bytes that the container counts and the file does not have, or a length in its
header that its packets do not reach. The last alone is told, and no error.
"""

from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
import av.filter
from av.stream import Stream

from d3dnet.errors import InputError
from d3dnet.video import OnError
from d3dnet.video.completeness import missing_bytes

HINT = "see --on-error conceal, or stop"

# Containers whose header says how long they are; of others FFmpeg says how long their content is.
PROMISING = ("mov,", "matroska", "avi", "flv", "asf")
SLACK = Fraction(1, 2)  # seconds that a whole file's packets may lack of the length in its header

# What reads the alpha that lies beside pictures in Matroska; FFmpeg's own decoders do not.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}

# Every packet is a picture to be shown; what cannot be decoded is left out without an error.
PICTURE_PER_PACKET = ("hevc", "av1")

UNKNOWN_COUNT = 2**30  # from how many frames on; of an AVI that was written to a pipe

Picture = tuple[av.VideoFrame, int | None]
Decode = Callable[["av.Packet[av.VideoStream] | None"], list[av.VideoFrame]]


class Decoder:
    """The frames of a video stream and their times; what is damaged is treated as asked.

    Args:
        container, stream: opened with PyAV; all packets are read.
        path: of the file, for messages and for its size; None for the latter skips it (images).
        on_error: "fail", "conceal" (repeat the last good frame at the times of those that are lost)
            or "stop" (the frames before the damage are all).
        step: units of the stream's time base between frames, nominally.
        damage: what was found is added to it, as text.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        path: Path,
        on_error: OnError,
        step: int,
        damage: list[str],
    ) -> None:
        self._container, self._stream = container, stream
        self._path, self._on_error, self._step, self._damage = path, on_error, step, damage
        self._decode = video_decoder(stream)
        self._time_base = stream.time_base or Fraction(1)
        self._waiting: set[int] = set()  # times of packets whose frame has not come out
        self._repeats: list[int] = []  # times at which the last picture is shown again
        self._dts: int | None = None  # of the last packet
        self._good: av.VideoFrame | None = None
        self._last: int | None = None  # time of the last frame
        self._count = self._faults = 0
        self._end = Fraction(0)  # where the packets end, of all streams
        self._torn = False  # whether the last packet is incomplete

    def frames(self) -> Iterator[Picture]:
        """Every frame, in the order in which the decoder gives them.

        Raises:
            InputError: there is damage, and `on_error` is "fail".
        """
        conceal = self._on_error == "conceal"
        packets = self._container.demux()
        ended = False
        while not ended:
            decoded: list[av.VideoFrame] = []
            reason, lost = "", None
            packet = None
            try:
                packet = next(packets, None)
                ended = packet is None
                if packet is not None:
                    self._notice(packet)
                    if packet.stream is not self._stream:
                        continue
                    lost = time_of(packet)
                    if lost is not None and packet.size == 0:  # the picture before it, again
                        self._repeats.append(lost)
                        continue
                    self._await(packet)
                    decoded = self._decode(cast("av.Packet[av.VideoStream]", packet))
            except av.EOFError:
                ended = True
            except (av.FFmpegError, OSError) as error:
                reason = reason_of(error)
                ended = isinstance(error, OSError) and not isinstance(error, av.InvalidDataError)
                if packet is None and conceal:  # of the container: no packet follows
                    self._damage.append(f"unreadable after {self._count} frames ({reason})")
            for frame in decoded:
                pts = frame.pts if frame.pts is not None else frame.dts
                if frame.is_corrupt and (self._good is not None or self._on_error != "conceal"):
                    reason = "a corrupt picture"
                    lost = pts
                    if conceal:
                        self._faults += 1
                        continue
                    break
                missing = self._missing(pts)
                if missing and not conceal:
                    reason, lost = "a missing picture", min(missing)
                    break
                self._faults = max(self._faults, len(missing))
                yield from self._given(frame, pts)
            if reason and self._on_error != "conceal":
                yield from self._given_up(reason, lost)
                return
            if reason and not decoded:
                self._faults += 1
        yield from self._ended()

    def _await(self, packet: "av.Packet[Stream]") -> None:
        """Expect the frame of a packet, unless that is hidden or later ones have come out."""
        if packet.dts is not None and self._dts is not None and packet.dts < self._dts:
            self._waiting.clear()  # times begin anew, as in joined files
        self._dts = packet.dts
        time = time_of(packet)
        if time is None or packet.is_discard or (self._last is not None and time <= self._last):
            return
        self._waiting.add(time)

    def _missing(self, pts: int | None) -> list[int]:
        """Times of frames before `pts` that should have come out.

        Not of those before the first: a stream may be cut where they lack what they refer to.
        """
        if not self._is_picture_per_packet or pts is None or self._good is None:
            return []
        return [time for time in self._waiting if time < pts]

    @property
    def _is_picture_per_packet(self) -> bool:
        return self._stream.codec_context.codec.canonical_name in PICTURE_PER_PACKET

    def _given(self, frame: av.VideoFrame, pts: int | None) -> Iterator[Picture]:
        """A good frame, after those that were lost before it."""
        if self._on_error == "conceal" and self._good is not None:
            self._faults -= yield from self._concealed(pts)
        yield from self._repeated(pts)
        if pts is not None:
            self._waiting = {time for time in self._waiting if time > pts}
        self._good, self._last = frame, pts
        self._count += 1
        yield frame, pts

    def _repeated(self, until: int | None) -> Iterator[Picture]:
        """The last frame, at times before `until` of packets that say no more than that."""
        due = sorted(time for time in self._repeats if until is None or time < until)
        self._repeats = [time for time in self._repeats if time not in due]
        if self._good is None:
            return
        for time in due:
            self._last = time
            self._count += 1
            yield self._good, time

    def _given_up(self, reason: str, lost: int | None) -> Iterator[Picture]:
        """What the decoder still has from before the damage; or an error."""
        if self._on_error == "fail":
            raise InputError(f"{self._path}: damaged after {self._count} frames ({reason}); {HINT}")
        try:
            rest = self._decode(None)
        except (av.FFmpegError, OSError):
            rest = []
        for frame in rest:
            if frame.is_corrupt or lost is None or frame.pts is None or frame.pts >= lost:
                break
            yield from self._given(frame, frame.pts)
        self._damage.append(f"damaged after {self._count} frames ({reason}); it ends there")

    def _concealed(self, until: int | None) -> Generator[Picture, None, int]:
        """The last good frame again for each that was lost before `until`; returns how many.

        Of frames whose packets are not even found the times are those of a constant rate.
        """
        lost = sorted(time for time in self._waiting if until is None or time < until)
        self._waiting.difference_update(lost)
        lost = lost[: self._faults]
        for before, after in pairwise([*lost, *([] if until is None else [until])]):
            while after - before > 1.5 * self._step:
                before += self._step
                lost.append(before)
        assert self._good is not None  # a frame is repeated that there was
        for pts in sorted(lost):
            self._damage.append(f"lost at {self._seconds(pts)} s, concealed")
            self._last = pts
            yield self._good, pts
        return min(self._faults, len(lost))

    def _notice(self, packet: "av.Packet[Stream]") -> None:
        """Where the content ends, so far."""
        time = time_of(packet)
        if time is not None and packet.time_base is not None:
            self._end = max(self._end, (time + (packet.duration or 0)) * packet.time_base)
        if packet.size:
            self._torn = packet.is_corrupt

    def _ended(self) -> Iterator[Picture]:
        """After the last packet: whether there should be more."""
        yield from self._repeated(None)
        if self._on_error == "conceal" and self._good is not None:
            yield from self._concealed(None)
        elif self._is_picture_per_packet and self._good is not None and self._waiting:
            yield from self._given_up("a missing picture", min(self._waiting))
            return
        promised = promised_end(self._container, self._stream)
        missing = missing_bytes(self._path)
        early = promised is not None and promised - self._end > SLACK
        if not (missing or early):
            if self._torn:
                self._damage.append("its last packet is incomplete")
            return
        what = f"ends early, after {float(self._end):.3f} s"
        what += f" of {float(promised):.3f} s" if promised is not None else ""
        what += f", {missing} bytes are missing" if missing else ""
        if self._on_error == "fail" and missing:  # headers alone are too often wrong
            raise InputError(f"{self._path}: {what}; {HINT}")
        self._damage.append(what)
        if self._on_error == "conceal" and promised is not None and self._last is not None:
            yield from self._filled(promised, missing, self._last)

    def _filled(self, promised: Fraction, missing: int, last: int) -> Iterator[Picture]:
        """The last good frame up to the promised end, if as much of the file is missing."""
        assert self._good is not None
        size = self._path.stat().st_size
        if promised * size > 4 * self._end * (size + missing):
            return  # a length that cannot be true
        first = pts = last + self._step
        while (pts + Fraction(self._step, 2)) * self._time_base < promised:
            yield self._good, pts
            pts += self._step
        if pts > first:
            end = self._seconds(pts - self._step)
            self._damage.append(f"lost from {self._seconds(first)} s to {end} s, concealed")

    def _seconds(self, pts: int) -> str:
        return f"{float(pts * self._time_base):.3f}"


def video_decoder(stream: av.VideoStream) -> Decode:
    """What makes frames of a packet of `stream`, or of None at the end."""
    name = ALPHA_DECODERS.get(stream.codec_context.name)
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    if name not in av.codecs_available or tags.get("alpha_mode") != "1":
        return stream.codec_context.decode
    decoder = av.CodecContext.create(name, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.extradata = stream.codec_context.extradata
    return decoder.decode


def promised_end(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction | None:
    """Time in seconds where the video ends, as the container's header says; None if it does not."""
    if not container.format.name.startswith(PROMISING):
        return None
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        # Its length is that of what is there.
        return stream.frames / stream.average_rate if stream.frames < UNKNOWN_COUNT else None
    if stream.duration:
        return ((stream.start_time or 0) + stream.duration) * (stream.time_base or Fraction(1))
    # Some count it from the first picture, some from zero.
    return Fraction(container.duration, av.time_base) if container.duration else None


def time_of(packet: "av.Packet[Any]") -> int | None:
    """When its picture is shown; as good as known, where the container does not say."""
    return packet.dts if packet.pts is None else packet.pts


def reason_of(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def deinterlaced(
    pictures: Iterator[tuple[av.VideoFrame, int | None]], time_base: Fraction
) -> Iterator[tuple[av.VideoFrame, int | None]]:
    """One whole frame of each two fields, by FFmpeg's bwdif, at the time of the first field."""
    graph: av.filter.Graph | None = None
    kind = None
    times: list[int | None] = []
    for frame, pts in pictures:
        if kind != (frame.width, frame.height, frame.format.name):  # else it would be resized
            if graph is not None:
                graph.push(None)
                yield from _pulled(graph, times)
            kind = (frame.width, frame.height, frame.format.name)
            graph = av.filter.Graph()
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=time_base
            )
            bwdif, sink = graph.add("bwdif", "mode=send_frame"), graph.add("buffersink")
            source.link_to(bwdif)
            bwdif.link_to(sink)
            graph.configure()
        assert graph is not None
        times.append(pts)
        graph.push(frame)
        yield from _pulled(graph, times)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph, times)


def _pulled(
    graph: av.filter.Graph, times: list[int | None]
) -> Iterator[tuple[av.VideoFrame, int | None]]:
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        assert isinstance(frame, av.VideoFrame)
        yield frame, times.pop(0)
