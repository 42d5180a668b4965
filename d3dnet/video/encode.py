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
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import ffmpeg
import numpy as np
from av.format import ContainerFormat

from d3dnet.video.colour import Layout
from d3dnet.video.decode import RANGE_FULL, RANGE_LIMITED, ColourTags, VideoSource, layout_of
from d3dnet.video.errors import EncoderError, OutputError
from d3dnet.video.ffmpeg import Program, has_option, pixel_formats

DEFAULT_CODEC = "libx264"
DEFAULT_CRF = {"libx264": 18, "libx264rgb": 18, "libx265": 20, "libsvtav1": 24, "libvpx-vp9": 24}
BT601 = 6  # matrix tag of the YCbCr that RGB is made into: H.273's SMPTE 170M

# Encoders and containers that know frame rates but no times: their clock ticks once per frame.
FRAME_CLOCK_CODECS = ("mpeg1video", "mpeg2video")
FRAME_CLOCK_SUFFIXES = (".avi",)
MAX_TIME_BASE = {"mpeg4": 65535, "libxvid": 65535}
FALLBACK_TIME_BASE = Fraction(1, 90000)

# Subtitles as text, and what they become in a container that has its own kind of them.
TEXT_SUBTITLES = ("subrip", "srt", "ass", "ssa", "webvtt", "mov_text", "text")
SUBTITLE_ENCODERS = {".mp4": "mov_text", ".m4v": "mov_text", ".mov": "mov_text", ".webm": "webvtt"}

# Packed formats that some encoders take RGB in; made of the planar ones without loss.
PACKED_RGB = {
    "bgr0": "gbrp",
    "rgb0": "gbrp",
    "0rgb": "gbrp",
    "0bgr": "gbrp",
    "rgb24": "gbrp",
    "bgr24": "gbrp",
    "rgb48le": "gbrp16le",
}


@dataclass(frozen=True)
class Target:
    """What is to be written: the pictures, their colours and clock, and the encoder's settings.

    Attributes:
        height, width: luma samples.
        layout, colour: what the planes mean, and the tags that say so.
        time_base: seconds per unit of the pts given to `VideoSink.write`.
        frame_rate: frames per second, nominal; times are those of the frames.
        sample_aspect_ratio: width of a pixel over its height, or None.
        codec: name of an encoder of the program.
        crf: constant quality; None for the encoder's default here.
        encoder_format: pixel format that the encoder is given where it is not that of `layout`:
            packed RGB.
    """

    height: int
    width: int
    layout: Layout
    colour: ColourTags
    time_base: Fraction
    frame_rate: Fraction
    sample_aspect_ratio: Fraction | None = None
    codec: str = DEFAULT_CODEC
    crf: float | None = None
    encoder_format: str | None = None


def target_of(
    source: VideoSource, scale: int, program: Program, codec: str, crf: float | None
) -> Target:
    """`source` made `scale` times larger, as near to its layout as `codec` can hold.

    RGB that the encoder cannot take becomes 4:4:4 YCbCr, BT.601, limited range, tagged so.

    Raises:
        ProgramError: `program` has no encoder `codec`.
        OutputError: `codec` has no quality setting crf, or takes no planar format known here.
    """
    if crf is not None and not has_option(program, codec, "crf"):
        raise OutputError(f"--crf: the encoder {codec} has no such setting; leave it out")
    layout, encoder_format = choose_layout(source.layout, pixel_formats(program, codec), codec)
    colour = source.colour
    if source.layout.family == "rgb" and layout.family == "yuv":
        colour = ColourTags(RANGE_LIMITED, BT601, colour.primaries, colour.transfer)
    elif layout.full_range != source.layout.full_range:
        range_ = RANGE_FULL if layout.full_range else RANGE_LIMITED
        colour = ColourTags(range_, colour.matrix, colour.primaries, colour.transfer)
    return Target(
        height=scale * source.height,
        width=scale * source.width,
        layout=layout_of(
            layout.pixel_format,
            location=colour.chroma_location,
            full_range=layout.full_range,
        ),
        colour=colour,
        time_base=source.time_base,
        frame_rate=source.frame_rate,
        sample_aspect_ratio=source.sample_aspect_ratio,
        codec=codec,
        crf=crf,
        encoder_format=encoder_format,
    )


def choose_layout(source: Layout, pixel_formats: Sequence[str], codec: str) -> tuple[Layout, str]:
    """The one of `pixel_formats` that keeps the most of `source`: depth, then chroma, then family.

    Returns:
        Layout of the planes, and the encoder's format, which differs from it for packed RGB.

    Raises:
        OutputError: none of them is a planar format of YCbCr, grey or RGB.
    """
    full_range_only = all(not name.startswith("yuv4") for name in pixel_formats)
    candidates = []
    for name in pixel_formats:
        if name.startswith("yuvj") and not full_range_only:
            continue  # yuv420p with a full-range tag says the same
        full_range = (source.full_range and source.family != "rgb") or name.startswith("yuvj")
        planar = PACKED_RGB.get(name, name.replace("yuvj", "yuv"))
        with contextlib.suppress(ValueError):
            candidates.append((layout_of(planar, full_range=full_range), name))
    useless = {"grey": ("rgb",), "yuv": ("rgb", "grey"), "rgb": ("grey",)}[source.family]
    candidates = [choice for choice in candidates if choice[0].family not in useless]
    if not candidates:
        raise OutputError(
            f"the encoder {codec} takes only {' '.join(pixel_formats)}; "
            f"none of these can hold {source.pixel_format}"
        )

    def loss(choice: tuple[Layout, str]) -> tuple[float, ...]:
        layout = choice[0]
        coarser = [max(0, layout.chroma_step[axis] - source.chroma_step[axis]) for axis in (0, 1)]
        finer = [max(0, source.chroma_step[axis] - layout.chroma_step[axis]) for axis in (0, 1)]
        return (
            max(0, source.depth - layout.depth),
            sum(coarser) if source.family != "grey" else 0,
            layout.family != source.family,
            layout.depth - source.depth,
            sum(finer),
        )

    return min(candidates, key=loss)


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


def subtitle_encoders(codecs: Sequence[str], suffix: str) -> dict[int, str]:
    """Which subtitle streams a container can hold, by number, and their encoder or "copy"."""
    suffix = suffix.lower()
    encoders = {}
    for index, codec in enumerate(codecs):
        if suffix == ".mkv":
            encoders[index] = "srt" if codec == "mov_text" else "copy"
        elif codec in TEXT_SUBTITLES and suffix in SUBTITLE_ENCODERS:
            same = codec == SUBTITLE_ENCODERS[suffix]
            encoders[index] = "copy" if same else SUBTITLE_ENCODERS[suffix]
        elif codec.startswith(("dvbsub", "dvb_subtitle")) and suffix == ".ts":
            encoders[index] = "copy"
    return encoders


def warn_of_loss(path: Path, source: VideoSource) -> None:
    """Warn, once, of the streams of `source` that the container of `path` cannot hold."""
    kept = subtitle_encoders(source.subtitles, path.suffix)
    lost = [
        f"subtitles {index} ({codec})"
        for index, codec in enumerate(source.subtitles)
        if index not in kept
    ]
    if source.attachments and path.suffix.lower() != ".mkv":
        lost.append(f"{source.attachments} attachments")
    if lost:
        warnings.warn(
            f"{path}: {path.suffix} cannot hold {', '.join(lost)}; .mkv can", stacklevel=3
        )


def encoder_time_base(target: Target, suffix: str) -> Fraction:
    """Seconds per tick of the encoder's clock: the source's where encoder and container can."""
    frame_clock = 1 / target.frame_rate
    if target.codec in FRAME_CLOCK_CODECS or suffix.lower() in FRAME_CLOCK_SUFFIXES:
        return frame_clock
    if target.time_base.denominator > MAX_TIME_BASE.get(target.codec, 2**31 - 1):
        return frame_clock
    if target.time_base.denominator > 10**6:
        return FALLBACK_TIME_BASE
    return target.time_base


def check_output_path(path: str | os.PathLike[str], source: Path, *, overwrite: bool) -> Path:
    """The absolute path of a result that may be written.

    Raises:
        OutputError: it is the source, exists already without `overwrite`, its folder is missing or
            not writable, or its extension is that of no video container.
    """
    given, path = path, Path(os.path.abspath(path))
    if path.is_dir():
        raise OutputError(f"{given}: a folder; name a file, such as {given}/video.mp4")
    if not path.parent.is_dir():
        raise OutputError(f"{given}: the folder {path.parent} does not exist; create it first")
    if os.path.realpath(path) == os.path.realpath(source) or (
        path.exists() and os.path.samefile(path, source)
    ):
        raise OutputError(f"{given}: the same file as the input; choose another name")
    if path.exists() and not overwrite:
        raise OutputError(f"{given}: exists already; choose another name or use --overwrite")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{given}: the folder {path.parent} is not writable")
    names = muxers_of(path.suffix)
    if not names or all(name.startswith("image2") for name in names):
        raise OutputError(
            f"{given}: {path.suffix or 'no extension'} is no video container; "
            "use for example .mp4, .mkv, .mov or .webm"
        )
    return path


def muxers_of(suffix: str) -> list[str]:
    """FFmpeg's names of the containers that a file extension, with its dot, may mean."""
    names = []
    for name in sorted(av.formats_available):
        with contextlib.suppress(ValueError):
            if suffix[1:].lower() in ContainerFormat(name, "w").extensions:
                names.append(name)
    return names


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
        if value != 2:
            options[option] = value
    if target.layout.chroma_step != (1, 1) and colour.chroma_location != "unspecified":
        options["chroma_sample_location"] = colour.chroma_location
    return options
