"""What is to be written: size, pixels and tags of the pictures, the encoder's settings."""

import contextlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.format import ContainerFormat

from d3dnet.errors import OutputError
from d3dnet.network import SCALE
from d3dnet.video import DEFAULT_CODEC
from d3dnet.video.colour import Layout
from d3dnet.video.ffmpeg import Program, has_option, pixel_formats
from d3dnet.video.hdr import NO_MASTERING, Mastering
from d3dnet.video.images import image_files, is_image, is_pattern, written_images
from d3dnet.video.picture import RANGE_FULL, RANGE_LIMITED, ColourTags, layout_of
from d3dnet.video.profiles import common_profile, is_of
from d3dnet.video.source import VideoSource
from d3dnet.video.streams import MATROSKA

RGB_CODECS = ("png", "tiff", "bmp", "qtrle")  # YCbCr is made RGB for these, by the program
ALPHA_IN_MATROSKA_ONLY = ("libvpx", "libvpx-vp9")  # beside the picture, where there is room for it
PRORES = ("prores", "prores_ks", "prores_aw")
QUICKTIME_CODECS = (*PRORES, "dnxhd", "qtrle", "smc", "avrp", "dxv", "tiff")
NO_ALPHA = ("libx265",)  # it takes alpha, but FFmpeg does not read it again
PROFILED = (".png", ".tif", ".tiff")  # images that can be given an ICC profile
BT601 = 6  # matrix tag of the YCbCr that RGB is made into: H.273's SMPTE 170M

# Encoders and containers that know frame rates but no times: their clock ticks once per frame.
FRAME_CLOCK_CODECS = ("mpeg1video", "mpeg2video")
FRAME_CLOCK_SUFFIXES = (".avi",)
MAX_TIME_BASE = {"mpeg4": 65535, "libxvid": 65535}
FALLBACK_TIME_BASE = Fraction(1, 90000)

# Packed formats that some encoders take; made of the planar ones without loss.
PACKED = {
    "bgr0": "gbrp",
    "rgb0": "gbrp",
    "0rgb": "gbrp",
    "0bgr": "gbrp",
    "rgb24": "gbrp",
    "bgr24": "gbrp",
    "rgb48le": "gbrp16le",
    "rgb48be": "gbrp16le",
    "gray16be": "gray16le",
    "rgba": "gbrap",
    "bgra": "gbrap",
    "argb": "gbrap",
    "abgr": "gbrap",
    "rgba64le": "gbrap16le",
    "rgba64be": "gbrap16le",
}
NOT_IN_NUT = ("yuv440p10le", "yuv440p12le", "gbrap14le")  # the pipe takes them for others


@dataclass(frozen=True)
class Encoding:
    """How the result is encoded.

    Attributes:
        codec: name of an encoder of the program.
        crf: constant quality; None for a good one.
        preset: as the encoder has them; None for its own default.
        pixel_format: FFmpeg's name; None for the one that keeps the most.
        arguments: further words for the ffmpeg program, before the name of the result.
    """

    codec: str = DEFAULT_CODEC
    crf: float | None = None
    preset: str | None = None
    pixel_format: str | None = None
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """What is to be written: the pictures, their colours and clock, and the encoder's settings.

    Attributes:
        height, width: luma samples.
        layout, colour: what the planes mean, and the tags that say so.
        time_base: seconds per unit of the pts given to `SegmentSink.write`.
        frame_rate: frames per second, nominal; times are those of the frames.
        sample_aspect_ratio: width of a pixel over its height, or None.
        encoding: the encoder and its settings.
        encoder_format: pixel format that the encoder is given where it is not that of `layout`:
            packed RGB.
        mastering: of HDR.
        profile: the ICC profile that images are given.
    """

    height: int
    width: int
    layout: Layout
    colour: ColourTags
    time_base: Fraction
    frame_rate: Fraction
    sample_aspect_ratio: Fraction | None = None
    encoding: Encoding = Encoding()
    encoder_format: str | None = None
    mastering: Mastering = NO_MASTERING
    profile: bytes = b""


@dataclass(frozen=True)
class Size:
    """How large the result is: a scale, or a height, or a width, or both of these.

    A side that is not given follows from the other, at the source's proportions.
    """

    scale: float | None = None
    height: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and (self.height, self.width) != (None, None):
            raise ValueError("scale: got one with a height or width; accepted is the one or other")
        if self.scale is not None and not 0 < self.scale <= SCALE:
            raise ValueError(f"scale: got {self.scale}; accepted is a number up to {SCALE}")
        for name in ("height", "width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}; accepted is a number of pixels from 1 up")

    def of(self, height: int, width: int, step: tuple[int, int] = (1, 1)) -> tuple[int, int]:
        """(height, width) for a source of this size, the nearest multiples of the chroma step.

        Raises:
            OutputError: more than four times larger.
        """
        rows = columns = Fraction(self.scale or SCALE)
        if self.height is not None:
            rows = columns = Fraction(self.height, height)
        if self.width is not None:
            columns = Fraction(self.width, width)
            rows = rows if self.height is not None else columns
        ratio = (rows, columns)
        if max(ratio) > SCALE:
            raise OutputError(
                f"{width}×{height} can be made {SCALE * width}×{SCALE * height} at most; "
                "ask for that or less"
            )
        made = [
            max(1, round(length * times / n)) * n
            for length, times, n in zip((height, width), ratio, step, strict=True)
        ]
        return made[0], made[1]


def target_of(
    source: VideoSource, size: Size, program: Program, encoding: Encoding, suffix: str = ".mkv"
) -> Target:
    """`source` made larger, as near to its layout as the encoder and the container can hold.

    RGB that the encoder cannot take becomes 4:4:4 YCbCr, BT.601, limited range, tagged so.

    Args:
        suffix: extension of the result.

    Raises:
        ProgramError: `program` has no such encoder.
        OutputError: it has not the settings asked for, or takes no planar format known here; or
            the size is too large.
    """
    codec = encoding.codec
    for option in ("crf", "preset"):
        if getattr(encoding, option) is not None and not has_option(
            program, f"encoder={codec}", option
        ):
            raise OutputError(f"--{option}: the encoder {codec} has no such setting; leave it out")
    formats = pixel_formats(program, codec)
    if encoding.pixel_format is not None:
        if encoding.pixel_format not in formats:
            raise OutputError(
                f"--pix-fmt: got {encoding.pixel_format!r}; {codec} takes {' '.join(formats)}"
            )
        formats = (encoding.pixel_format,)
    elif not _holds_alpha(codec, suffix):
        formats = tuple(name for name in formats if "yuva" not in name and "gbrap" not in name)
    layout, encoder_format = choose_layout(source.layout, formats, codec)
    colour = source.colour
    if source.layout.family == "rgb" and layout.family == "yuv":
        colour = ColourTags(RANGE_LIMITED, BT601, colour.primaries, colour.transfer)
    elif layout.full_range != source.layout.full_range:
        range_ = RANGE_FULL if layout.full_range else RANGE_LIMITED
        colour = ColourTags(range_, colour.matrix, colour.primaries, colour.transfer)
    height, width = size.of(source.height, source.width, layout.chroma_step)
    return Target(
        height=height,
        width=width,
        layout=layout_of(
            layout.pixel_format,
            location=colour.chroma_location,
            full_range=layout.full_range,
        ),
        colour=colour,
        time_base=source.time_base,
        frame_rate=source.frame_rate,
        sample_aspect_ratio=source.sample_aspect_ratio,
        encoding=encoding,
        encoder_format=encoder_format,
        mastering=source.mastering,
        profile=_profile(source, layout.family, suffix),
    )


def _profile(source: VideoSource, family: str, suffix: str) -> bytes:
    """The ICC profile of all images of `source`, if a result of this kind can have it."""
    if not source.is_image or suffix.lower() not in PROFILED:
        return b""
    profile = common_profile(source.images or [source.path]) or b""
    return profile if is_of(profile, "grey" if family == "grey" else "rgb") else b""


def warn_of_profile(path: Path, source: VideoSource, target: Target) -> None:
    """Warn of an ICC profile that is lost."""
    if not source.is_image or target.profile:
        return
    images = source.images or [source.path]
    if common_profile(images) is None:
        reason = "which are not the same in all of them"
    elif not common_profile(images):
        return
    elif path.suffix.lower() not in PROFILED:
        reason = f"which {path.suffix} does not hold; .png and .tif do"
    else:
        reason = "which is of another kind of colours"
    warnings.warn(
        f"{path}: without the ICC profile of {source.path.name}, {reason}; its colours may look "
        "different",
        stacklevel=3,
    )


def rounded(size: Size, source: VideoSource, target: Target) -> str:
    """Which sides of `target` are not as long as asked for, and why; "" if all are."""
    asked, made = size.of(source.height, source.width), (target.height, target.width)
    sides = [
        f"{name} {before} becomes {after}"
        for name, before, after in zip(("height", "width"), asked, made, strict=True)
        if before != after and (getattr(size, name) or size.scale)
    ]
    if not sides:
        return ""
    step = max(target.layout.chroma_step)
    return (
        f"{' and '.join(sides)}: {target.layout.pixel_format} needs multiples of {step}, "
        "a 4:4:4 --pix-fmt such as yuv444p does not"
    )


def choose_layout(source: Layout, pixel_formats: Sequence[str], codec: str) -> tuple[Layout, str]:
    """The one of `pixel_formats` that keeps the most of `source`.

    That is alpha first, then depth, then chroma, then family.

    Returns:
        Layout of the planes, and the encoder's format, which differs from it for packed ones.

    Raises:
        OutputError: none of them is a planar format of YCbCr, grey or RGB.
    """
    full_range_only = all(not name.startswith("yuv4") for name in pixel_formats)
    candidates = []
    for name in pixel_formats:
        if name in NOT_IN_NUT or (name.startswith("yuvj") and not full_range_only):
            continue  # of the latter yuv420p with a full-range tag says the same
        full_range = (source.full_range and source.family != "rgb") or name.startswith("yuvj")
        planar = PACKED.get(name, name.replace("yuvj", "yuv"))
        with contextlib.suppress(ValueError):
            candidates.append((layout_of(planar, full_range=full_range), name))
    useless = {"grey": ("rgb",), "yuv": ("rgb", "grey"), "rgb": ("grey",)}[source.family]
    if source.family == "yuv" and codec in RGB_CODECS:
        kinds = ["rgba64", "rgba", "bgra", "argb"] if source.alpha else ["rgb48", "rgb24", "bgr24"]
        kinds = kinds if source.depth > 8 else kinds[1:]
        return source, next(
            name
            for kind in kinds
            for name in pixel_formats
            if name in (kind, f"{kind}be", f"{kind}le")
        )
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
            layout.alpha != source.alpha,
            max(0, source.depth - layout.depth),
            sum(coarser) if source.family != "grey" else 0,
            layout.family != source.family,
            layout.depth - source.depth,
            sum(finer),
        )

    return min(candidates, key=loss)


def _holds_alpha(codec: str, suffix: str) -> bool:
    if codec in ALPHA_IN_MATROSKA_ONLY:
        return suffix.lower() in MATROSKA
    return codec not in NO_ALPHA


def warn_of_alpha(path: Path, target: Target) -> None:
    """Warn of transparency that is lost."""
    warnings.warn(
        f"{path}: without the transparency (alpha) of its source, which {target.encoding.codec} "
        "cannot hold here; .mkv with --codec ffv1 and .mov with --codec prores_ks can",
        stacklevel=3,
    )


def segment_format(target: Target) -> str:
    """FFmpeg's name of the container that holds what the encoder makes, until all is joined."""
    if target.layout.alpha and target.encoding.codec in ALPHA_IN_MATROSKA_ONLY:
        return "matroska"
    return "mov" if target.encoding.codec in QUICKTIME_CODECS else "nut"


def encoder_time_base(target: Target, suffix: str) -> Fraction:
    """Seconds per tick of the encoder's clock: the source's where encoder and container can."""
    frame_clock = 1 / target.frame_rate
    if target.encoding.codec in FRAME_CLOCK_CODECS or suffix.lower() in FRAME_CLOCK_SUFFIXES:
        return frame_clock
    if target.time_base.denominator > MAX_TIME_BASE.get(target.encoding.codec, 2**31 - 1):
        return frame_clock
    if target.time_base.denominator > 10**6:
        return FALLBACK_TIME_BASE
    return target.time_base


def result_path(name: str | os.PathLike[str]) -> Path:
    """Where a result goes: through a symbolic link, which stays, to what it points at."""
    path = Path(os.path.abspath(name))
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def check_output_path(path: str | os.PathLike[str], source: Path, *, overwrite: bool) -> Path:
    """The absolute path of a result that may be written.

    Raises:
        OutputError: it is the source, exists already without `overwrite`, its folder is missing or
            not writable, or its extension is that of no video container.
    """
    given, path = path, Path(os.path.abspath(path))
    if path.is_dir():
        raise OutputError(f"{given}: a folder; name a file, such as {given}/video.mp4")
    images = written_images(path) if is_pattern(path) else []
    ours, theirs = [path, *images], image_files(source) or []
    if set(map(os.path.realpath, ours)) & set(map(os.path.realpath, theirs)):
        raise OutputError(f"{given}: the images of the input; choose another name or folder")
    if images and not overwrite:
        raise OutputError(
            f"{given}: {images[0].name} exists already; choose another name or use --overwrite"
        )
    if not path.parent.is_dir():
        raise OutputError(f"{given}: the folder {path.parent} does not exist; create it first")
    if os.path.realpath(path) == os.path.realpath(source) or (
        path.exists() and source.exists() and os.path.samefile(path, source)
    ):
        raise OutputError(f"{given}: the same file as the input; choose another name")
    if path.exists() and not overwrite:
        raise OutputError(f"{given}: exists already; choose another name or use --overwrite")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{given}: the folder {path.parent} is not writable")
    if is_image(path):
        return path
    if not any(map(_holds_video, muxers_of(path.suffix))):
        raise OutputError(
            f"{given}: {path.suffix or 'no extension'} is no video container; "
            "use for example .mp4, .mkv, .mov or .webm"
        )
    return path


def _holds_video(muxer: str) -> bool:
    with av.open(os.devnull, "w", format=muxer) as container:
        covers_only = container.default_video_codec in ("none", "png")
    return not (covers_only or muxer.startswith("image2"))


def muxers_of(suffix: str) -> list[str]:
    """FFmpeg's names of the containers that a file extension, with its dot, may mean."""
    names = []
    for name in sorted(av.formats_available):
        with contextlib.suppress(ValueError):
            if suffix[1:].lower() in ContainerFormat(name, "w").extensions:
                names.append(name)
    return names
