"""Frames to a file: raw pictures with their own times, as NUT on a pipe to the ffmpeg program.

The program encodes the pictures, copies everything else from the source and writes the container.
The file appears under its name only when it is complete.
"""

import contextlib
import os
import re
import secrets
import subprocess
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import ffmpeg
import numpy as np

from d3dnet.video.decode import UNSPECIFIED, VideoSource
from d3dnet.video.errors import EncoderError
from d3dnet.video.ffmpeg import Program
from d3dnet.video.target import Target, encoder_time_base, subtitle_encoders

DEFAULT_CRF = {"libx264": 18, "libx264rgb": 18, "libx265": 20, "libsvtav1": 24, "libvpx-vp9": 24}


class VideoSink:
    """A video file being written: `write` every frame, then `finish`; or `abort`.

    As a context manager it finishes, or aborts after an exception. Nothing is left behind by an
    aborted one.

    Args:
        path: the result; its folder must exist. Replaced when finished.
        target: what is written.
        source: the file whose sound is copied.
        program: the ffmpeg program.

    Raises (all methods):
        EncoderError: the program failed; the message is its first complaint.
    """

    def __init__(self, path: Path, target: Target, source: VideoSource, program: Program) -> None:
        self.path = path
        self._target = target
        self._source = source
        self._program = program
        token = f"{os.getpid()}-{secrets.token_hex(3)}"
        self._part = path.with_name(f".{path.stem[:40]}.part-{token}{path.suffix}")
        self._process: subprocess.Popen[bytes] | None = None
        self._container: av.container.OutputContainer | None = None

    def __enter__(self) -> "VideoSink":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()

    def check(self, pts: int) -> None:
        """Try everything with one empty frame: encoder, container, sound, folder.

        Raises:
            EncoderError: the result could not be written; nothing is left behind.
        """
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
            with open(self._part, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(self._part, self.path)
            self._release()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Stop the encoder and remove what it has written."""
        self._release()
        self._part.unlink(missing_ok=True)

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
        self._offset = max(0, -first_pts)
        command = encoder_command(
            self._part,
            target,
            self._source,
            self._program,
            sound_delay=self._offset * target.time_base,
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

    def _mux(self, planes: Sequence[np.ndarray], pts: int) -> None:
        frame = av.VideoFrame(
            self._target.width, self._target.height, self._target.layout.pixel_format
        )
        for to, plane in zip(frame.planes, planes, strict=True):
            samples = np.frombuffer(to, plane.dtype)
            rows = samples.reshape(-1, to.line_size // plane.itemsize)
            rows[:, : plane.shape[1]] = plane
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


def encoder_command(
    path: Path,
    target: Target,
    source: VideoSource,
    program: Program,
    *,
    sound_delay: Fraction = Fraction(0),
    only_one_frame: bool = False,
) -> list[str]:
    """The command that reads NUT on its standard input and the rest from `source`'s file.

    Args:
        sound_delay: seconds added to the source's times.
        only_one_frame: stop after one picture and one packet of sound.
    """
    tags = _colour_options(target)
    pictures = ffmpeg.input("pipe:0", format="nut", **tags)
    rest = ffmpeg.input(f"file:{source.path}", itsoffset=f"{float(sound_delay):.6f}")
    crf = DEFAULT_CRF.get(target.codec) if target.crf is None else target.crf
    time_base = encoder_time_base(target, path.suffix)
    options: dict[str, object] = {
        "c:v": target.codec,
        "pix_fmt": target.encoder_format or target.layout.pixel_format,
        # Without both of these times snap to multiples of 1 / frame rate.
        "fps_mode": "passthrough",
        "enc_time_base": f"{time_base.numerator}/{time_base.denominator}",
        "c:a": "copy",
        "map_metadata": 1,
        "map_chapters": 1,
        # Pictures arrive slowly; let the sound wait for them.
        "max_muxing_queue_size": 100_000,
        **tags,
    }
    if crf is not None:
        options["crf"] = f"{crf:g}"
    if target.codec == "libx265":
        options["x265-params"] = "log-level=error"
        if path.suffix.lower() in (".mp4", ".mov", ".m4v"):
            options["tag:v"] = "hvc1"  # or Apple's players refuse it
    if target.sample_aspect_ratio is not None:
        ratio = target.sample_aspect_ratio
        options["vf"] = f"setsar={ratio.numerator}/{ratio.denominator}"
    if path.suffix.lower() in (".ts", ".m2ts", ".mts"):
        options |= {"mpegts_copyts": 1, "muxdelay": 0, "muxpreload": 0}
    # ffmpeg-python writes an option once; these are two names of the one for the first stream.
    for key, option in (("language", "metadata:s:v:0"), ("title", "metadata:s:0")):
        if key in source.metadata:
            options[option] = f"{key}={source.metadata[key]}"
    streams = [pictures["v:0"], rest["a?"]]
    if only_one_frame:
        options |= {"frames:v": 1, "frames:a": 1}
    else:
        encoders = subtitle_encoders(source.subtitles, path.suffix)
        for output_index, (index, encoder) in enumerate(encoders.items()):
            streams.append(rest[f"s:{index}"])
            options[f"c:s:{output_index}"] = encoder
        if source.attachments and path.suffix.lower() == ".mkv":
            streams.append(rest["t?"])
            options["c:t"] = "copy"
    return (
        ffmpeg.output(*streams, f"file:{path}", **options)
        .global_args("-hide_banner", "-nostdin", "-v", "error", "-copyts", "-y")
        .compile(cmd=program.path)
    )


def first_complaint(text: str) -> str:
    """The first line of what ffmpeg printed, without the `[part @ address]` before it."""
    for line in text.splitlines():
        line = re.sub(r"^(\[[^\]]*\] *)+", "", line).strip()
        if line:
            return line
    return ""


def _colour_options(target: Target) -> dict[str, object]:
    """Tags for the pipe's input side and the output side alike, so that nothing is converted."""
    colour = target.colour
    options: dict[str, object] = {}
    if colour.range:
        options["color_range"] = colour.range
    for option, value in (
        ("colorspace", colour.matrix),
        ("color_primaries", colour.primaries),
        ("color_trc", colour.transfer),
    ):
        if value != UNSPECIFIED:
            options[option] = value
    if target.layout.chroma_step != (1, 1) and colour.chroma_location != "unspecified":
        options["chroma_sample_location"] = colour.chroma_location
    return options
