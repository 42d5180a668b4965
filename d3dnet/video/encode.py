"""Frames to a file: raw pictures with their own times, as NUT on a pipe to the ffmpeg program.

The program encodes the pictures, copies everything else from the source and writes the container.
The file appears under its name only when it is complete.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np

from d3dnet.video.command import encoder_command, first_complaint
from d3dnet.video.decode import VideoSource
from d3dnet.video.errors import EncoderError
from d3dnet.video.ffmpeg import Program
from d3dnet.video.images import is_pattern, written_images
from d3dnet.video.picture import fill
from d3dnet.video.streams import Kept, sound_encoders
from d3dnet.video.target import Target


class VideoSink:
    """A video file being written: `write` every frame, then `finish`; or `abort`.

    As a context manager it finishes, or aborts after an exception. Nothing is left behind by an
    aborted one.

    Args:
        path: the result; its folder must exist. Replaced when finished.
        target: what is written.
        source: the file that all but the picture is copied from.
        program: the ffmpeg program.
        kept: what is copied.
        inspect: called with the complete file before it gets its name; if it raises, it never does.

    Raises (all methods):
        EncoderError: the program failed; the message is its first complaint.
    """

    def __init__(
        self,
        path: Path,
        target: Target,
        source: VideoSource,
        program: Program,
        kept: Kept,
        inspect: Callable[[Path], None] | None = None,
    ) -> None:
        self.path = path
        self.kept = kept
        self._target = target
        self._source = source
        self._program = program
        self._inspect = inspect
        token = f"{os.getpid()}-{secrets.token_hex(3)}"
        self._folder: Path | None = None  # of numbered images, until they are complete
        self._part = path.with_name(f".{path.stem[:40]}.part-{token}{path.suffix}")
        if is_pattern(path):
            self._folder = path.with_name(f".part-{token}")
            self._part = self._folder / path.name
        self._process: subprocess.Popen[bytes] | None = None
        self._container: av.container.OutputContainer | None = None
        self._covers: list[Path] = []

    def __enter__(self) -> "VideoSink":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()

    def check(self) -> None:
        """Try everything with one empty frame: encoder, container, sound, folder.

        Sound that the container cannot hold will be encoded again, with a warning.

        Raises:
            EncoderError: the result could not be written; nothing is left behind.
            OutputError: the container can hold the sound in no way.
        """
        try:
            self._try_one_frame()
        except EncoderError:
            sound = self._source.streams.sound
            encoders = {}
            if self.kept.sound:
                found = sound_encoders(self._source.path, sound, self._part, self._program)
                encoders = dict(enumerate(found))
            if encoders == self.kept.sound:
                raise
            self.kept = replace(self.kept, sound=encoders)
            self._try_one_frame()
        encoded = [
            f"{self._source.streams.sound[number]} as {encoder}"
            for number, encoder in self.kept.sound.items()
            if encoder != "copy"
        ]
        if encoded:
            warnings.warn(
                f"{self.path}: {self.path.suffix} cannot hold the sound as it is; encoded again: "
                f"{', '.join(encoded)}; .mkv would keep it",
                stacklevel=3,
            )

    def _try_one_frame(self) -> None:
        pts = self._source.first_pts
        try:
            self._start(pts, only_one_frame=True)
            sizes = self._target.layout.plane_sizes(self._target.height, self._target.width)
            self._mux([np.zeros(size, self._target.layout.dtype) for size in sizes], pts)
            self._end()
        finally:
            self.abort()

    def write(self, planes: Sequence[np.ndarray], pts: int) -> None:
        """Add a picture: planes as `target.layout` has them, time in units of `target.time_base`.

        Times must increase. Waits while the encoder is busy.
        """
        if self._process is None:
            self._start(pts)
        self._mux(planes, pts)

    def finish(self) -> None:
        """Wait for the encoder and give the file its name."""
        try:
            if self._process is None:
                raise EncoderError(f"{self.path}: there was no frame to write")
            self._end()
            files = [self._part] if self._folder is None else written_images(self._part)
            for name in files:
                with open(name, "rb+") as file:
                    os.fsync(file.fileno())
            if self._inspect is not None:
                self._inspect(self._part)
            for name in files:
                os.replace(
                    name, self.path if self._folder is None else self.path.parent / name.name
                )
            self.abort()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Stop the encoder and remove what it has written."""
        self._release()
        for path in (self._part, *self._covers):
            path.unlink(missing_ok=True)
        self._covers.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _release(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        if self._container is not None:
            with contextlib.suppress(av.FFmpegError, OSError, ValueError):
                self._container.close()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._complaints.close()
        self._process = self._container = None

    def _start(self, first_pts: int, only_one_frame: bool = False) -> None:
        target = self._target
        # Neither NUT nor most containers show pictures before zero: then all begins there.
        self._offset = -first_pts if first_pts < 0 or self._source.reading.is_part else 0
        if self.kept.covers and not only_one_frame and self.path.suffix.lower() == ".mkv":
            self._covers = self._extracted_covers()
        if self._folder is not None:
            self._folder.mkdir(exist_ok=True)
        command = encoder_command(
            self._part,
            target,
            self._source,
            self._program,
            self.kept,
            delay=self._offset * target.time_base,
            cover_files=self._covers,
            only_one_frame=only_one_frame,
        )
        self._complaints = tempfile.TemporaryFile()
        # A session of its own: Ctrl-C reaches us alone, and we decide what becomes of the file.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._complaints,
            start_new_session=True,
        )
        self._container = av.open(self._process.stdin, "w", format="nut", buffer_size=1 << 20)
        stream = self._container.add_stream("rawvideo", rate=target.frame_rate)
        stream.width, stream.height = target.width, target.height
        stream.pix_fmt = target.layout.pixel_format
        stream.time_base = stream.codec_context.time_base = target.time_base
        self._stream = stream

    def _extracted_covers(self) -> list[Path]:
        """Cover pictures of the source as files beside the result."""
        files = []
        with av.open(f"file:{self._source.path}", metadata_errors="replace") as container:
            for index, codec in self.kept.covers:
                suffix = ".png" if codec == "png" else ".jpg"
                path = self._part.with_name(f"{self._part.stem}.cover{index}{suffix}")
                files.append(path)
                stream = container.streams.video[index]
                packets = (bytes(packet) for packet in container.demux(stream) if packet.size)
                path.write_bytes(next(packets, b""))
                container.seek(0)
        return files

    def _mux(self, planes: Sequence[np.ndarray], pts: int) -> None:
        frame = av.VideoFrame(
            self._target.width, self._target.height, self._target.layout.pixel_format
        )
        fill(frame, planes)
        frame.pts, frame.time_base = pts + self._offset, self._target.time_base
        try:
            self._container.mux(self._stream.encode(frame))
        except (av.FFmpegError, OSError):
            self._fail()

    def _end(self) -> None:
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._process.stdin.close()
        except (av.FFmpegError, OSError):
            self._fail()
        if self._process.wait() != 0:
            self._fail()

    def _fail(self) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
        self._complaints.seek(0)
        complaint = first_complaint(self._complaints.read(65536).decode(errors="replace"))
        raise EncoderError(
            f"{self.path}: ffmpeg {self._program.version} stopped: "
            f"{complaint or f'exit code {self._process.returncode}'}"
        ) from None
