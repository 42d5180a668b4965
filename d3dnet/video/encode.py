"""Frames to a segment: raw pictures with their own times, as NUT on a pipe to the ffmpeg program.

The segment appears under its name only when it is complete. `join` makes a video of segments.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, MappingProxyType

import av
import numpy as np

from d3dnet.errors import DiskError, EncoderError
from d3dnet.files import sync
from d3dnet.video.command import first_complaint, segment_command
from d3dnet.video.ffmpeg import Program
from d3dnet.video.images import is_pattern, written_images
from d3dnet.video.picture import fill
from d3dnet.video.profiles import add_profile
from d3dnet.video.source import VideoSource
from d3dnet.video.streams import TRANSPORT
from d3dnet.video.target import Target

NO_OPTIONS: Mapping[str, str] = MappingProxyType({})
LATEST_BEGINNING = 10  # seconds; a clock that begins later counts something else
INTERRUPTIONS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
DISK_FULL_WORDS = ("No space left on device", "Disk quota exceeded", "File too large")


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Interruptions wait: inside of PyAV's writing they are lost, and what is written with them."""
    if threading.current_thread() is not threading.main_thread():  # signals come there alone
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
    for number in INTERRUPTIONS:
        handler = signal.getsignal(number)
        if callable(handler):
            handlers[number] = handler
    for number in handlers:
        signal.signal(number, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            handlers[came[0][0]](*came[0])


class EncoderFeed:
    """The ffmpeg program at work, and the pipe that it reads.

    Args:
        command: as `d3dnet.video.command` makes them.
        program: whose command it is.
        path: what it writes, for messages.
        pipe, options: the container on the pipe, and options of its muxer.

    Raises (all methods):
        EncoderError: the program failed; the message is its first complaint. DiskError if it says
            that the disk is full.
    """

    def __init__(
        self,
        command: Sequence[str],
        program: Program,
        path: Path,
        pipe: str = "nut",
        options: Mapping[str, str] = NO_OPTIONS,
    ) -> None:
        self._program = program
        self._path = path
        self._complaints = tempfile.TemporaryFile()
        # A session of its own: Ctrl-C reaches us alone, and we decide what becomes of the file.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._complaints,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._input = self._process.stdin
        self.pipe = av.open(
            self._input,
            "w",
            format=pipe,
            options={"avoid_negative_ts": "disabled", **options},
            buffer_size=1 << 20,
        )

    def mux(self, packets: Iterable["av.Packet[av.VideoStream]"]) -> None:
        """Add packets. Waits while the program is busy."""
        try:
            for packet in packets:
                with signals_wait():
                    self.pipe.mux(packet)
        except (av.FFmpegError, OSError):
            self._fail()

    def end(self, seconds: float | None = None) -> bool:
        """Wait until the program has written all; or for so long, and stop it; whether it has."""
        try:
            with signals_wait():
                self.pipe.close()
            self._input.close()
        except (av.FFmpegError, OSError):
            self._fail()
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        if code != 0:
            self._fail()
        self._complaints.close()
        return True

    def kill(self) -> None:
        """Stop the program, if it still runs."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            self.pipe.close()
        with contextlib.suppress(OSError):
            self._input.close()
        self._complaints.close()

    def _fail(self) -> None:
        with contextlib.suppress(OSError):
            self._input.close()
        self._process.wait()
        self._complaints.seek(0)
        text = self._complaints.read(65536).decode(errors="replace")
        for reason in DISK_FULL_WORDS:
            if reason in text:
                raise DiskError(f"{self._path}: {reason}") from None
        silence = f"it says no more than exit code {self._process.returncode}"
        raise EncoderError(
            f"{self._path}: ffmpeg {self._program.version} stopped: "
            f"{first_complaint(text) or silence}"
        ) from None


class SegmentSink:
    """A segment being written: `write` every frame, then `finish`; or `abort`.

    As a context manager it finishes, or aborts after an exception. Nothing is left behind by an
    aborted one.

    Args:
        path: the segment, a file as `segment_format` says; or a folder of numbered images.
        target: what is written.
        program: the ffmpeg program.
        result: name of what the segment is a part of; its extension chooses the encoder's clock.
            A printf pattern makes images.
        first: number of its first frame in the result; `offset`: ticks added to times.

    Raises (all methods):
        EncoderError: the program failed; the message is its first complaint. DiskError if it says
            that the disk is full.
    """

    def __init__(
        self,
        path: Path,
        target: Target,
        program: Program,
        *,
        result: Path,
        first: int = 0,
        offset: int = 0,
    ) -> None:
        self.path = path
        self.frames = 0
        self._target = target
        self._offset = offset
        # An orphaned program may still be writing another one.
        self._part = path.with_name(f"{path.name}.part-{secrets.token_hex(4)}")
        self._images = self._part / result.name if is_pattern(result) else None
        if self._images is not None:
            self._part.mkdir()
        command = segment_command(
            self._images or self._part, target, program, result.suffix, first + 1
        )
        self._feed = EncoderFeed(command, program, path)
        stream = self._feed.pipe.add_stream("rawvideo", rate=target.frame_rate)
        stream.width, stream.height = target.width, target.height
        stream.pix_fmt = target.layout.pixel_format
        stream.time_base = stream.codec_context.time_base = target.time_base
        self._stream = stream

    def __enter__(self) -> "SegmentSink":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()

    def write(self, planes: Sequence[np.ndarray], pts: int) -> None:
        """Add a picture: planes as `target.layout` has them, time in units of `target.time_base`.

        Times must increase. Waits while the encoder is busy.
        """
        target = self._target
        frame = av.VideoFrame(target.width, target.height, target.layout.pixel_format)
        fill(frame, planes)
        frame.pts, frame.time_base = pts + self._offset, target.time_base
        self._feed.mux(self._stream.encode(frame))
        self.frames += 1

    def finish(self) -> None:
        """Wait for the encoder, see that all frames are there, and give the segment its name."""
        try:
            self._feed.mux(self._stream.encode(None))
            self._feed.end()
            files = [self._part] if self._images is None else written_images(self._images)
            written = len(files) if self._images else len(packet_times(self._part))
            if written != self.frames:
                raise EncoderError(
                    f"{self.path}: ffmpeg wrote {written} pictures of {self.frames}; "
                    "choose another --codec"
                )
            for name in files:
                if self._target.profile and self._images:
                    add_profile(name, self._target.profile)
                sync(name)
            if self._images is not None:
                sync(self._part)
            if self.path.is_dir():  # of a run that was killed before it wrote that down
                shutil.rmtree(self.path)
            os.replace(self._part, self.path)
            sync(self.path.parent)
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Stop the encoder and remove what it has written."""
        self._feed.kill()
        if self._images is not None:
            shutil.rmtree(self._part, ignore_errors=True)
        else:
            self._part.unlink(missing_ok=True)


def packet_times(path: Path) -> list[int]:
    """When the coded pictures of a segment are shown, in order, in units of its time base."""
    with av.open(f"file:{path}") as container:
        packets = container.demux(video=0)
        return sorted(p.pts for p in packets if p.size and p.pts is not None)


def time_offset(source: VideoSource, result: Path) -> int:
    """Ticks that the times of a result are later than those of its source."""
    first = source.first_pts
    # Neither NUT nor most containers show pictures before zero: then all begins there.
    if first < 0 or source.reading.is_part:
        return -first
    if source.begins > LATEST_BEGINNING and result.suffix.lower() not in TRANSPORT:
        return -int(source.begins / source.time_base)
    return 0
