"""What is to be written: pictures and their tags, the encoder's clock, what the container holds."""

import contextlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.format import ContainerFormat

from d3dnet.video.colour import Layout
from d3dnet.video.decode import RANGE_FULL, RANGE_LIMITED, ColourTags, VideoSource, layout_of
from d3dnet.video.errors import OutputError
from d3dnet.video.ffmpeg import Program, has_option, pixel_formats

DEFAULT_CODEC = "libx264"
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
