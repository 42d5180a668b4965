"""The words for the ffmpeg program: encode a segment; join segments, copy all else beside them."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import ffmpeg

from d3dnet.video.ffmpeg import Program, filters_see_container_ticks, has_option
from d3dnet.video.hdr import encoder_parameters
from d3dnet.video.images import escaped, is_image, is_pattern
from d3dnet.video.picture import UNSPECIFIED
from d3dnet.video.source import VideoSource
from d3dnet.video.streams import COVER_TYPES, MATROSKA, QUICKTIME, TRANSPORT, Kept
from d3dnet.video.target import (
    FRAME_CLOCK_SUFFIXES,
    Target,
    encoder_time_base,
    muxers_of,
    segment_format,
)

DEFAULT_CRF = {"libx264": 18, "libx264rgb": 18, "libx265": 20, "libsvtav1": 24, "libvpx-vp9": 24}
HASHABLE = "name in hexadecimal: "
HEADED_CODECS = ("mpeg4", "libxvid")  # whose headers are not repeated among the pictures

# Ticks per second of containers that keep how long a picture is shown, but for QuickTime's kind.
TICKS = {**dict.fromkeys(MATROSKA, 1000), ".flv": 1000, **dict.fromkeys(TRANSPORT, 90000)}
LEAST_TICKS = 10_000  # of QuickTime's kind, where FFmpeg chooses them

# Layouts that libopus takes; those of other encoders are known to the program.
OPUS_LAYOUTS = "mono|stereo|3.0|quad|5.0|5.1|6.1|7.1"

# Options of the program that are of the file, or of sound, and not of the picture's encoder.
CONTAINER_OPTIONS = (
    *("metadata", "map_metadata", "map_chapters", "disposition", "attach", "program", "timestamp"),
    *("f", "fflags", "tag", "vtag", "brand", "t", "to", "fs", "shortest", "max_interleave_delta"),
    *("an", "sn", "dn", "af", "ac", "ar", "ab", "aq", "acodec", "scodec", "filter_complex"),
)


@dataclass(frozen=True)
class Ending:
    """The end of the pictures of a result.

    Attributes:
        length: seconds that the last one is shown.
        shown_last, coded_last: numbers of packets, as they are coded.
    """

    length: Fraction
    shown_last: int
    coded_last: int


def segment_command(
    path: Path, target: Target, program: Program, suffix: str, number: int = 1
) -> list[str]:
    """The command that encodes the raw pictures in the NUT on its standard input.

    Args:
        path: a segment; or a printf pattern of images.
        suffix: extension of the result that the segment is for; `number`: of the first image.
    """
    encoding, tags = target.encoding, _colour_options(target)
    pictures = ffmpeg.input("pipe:0", format="nut", **tags)
    time_base = encoder_time_base(target, suffix)
    options: dict[str, object] = {
        "c:v:0": encoding.codec,
        "pix_fmt:v:0": target.encoder_format or target.layout.pixel_format,
        # Without both of these times snap to multiples of 1 / frame rate.
        "fps_mode:v:0": "passthrough",
        "enc_time_base:v:0": f"{time_base.numerator}/{time_base.denominator}",
        # Decoding begins before showing: such times may be negative.
        "avoid_negative_ts": "disabled",
        **tags,
        **_encoder_options(target),
    }
    if target.sample_aspect_ratio is not None:
        ratio = target.sample_aspect_ratio
        options["filter:v:0"] = (
            # Its largest part is 100 by itself, and others are then rounded.
            f"setsar={ratio}:max={max(ratio.numerator, ratio.denominator)}"
        )
    if suffix.lower() in FRAME_CLOCK_SUFFIXES:
        options["bf"] = 0  # no times, so pictures are shown in the order in which they are coded
    url = f"file:{path}"
    if is_pattern(path):
        url = f"file:{escaped(path)}"
        options |= {"f": "image2", "start_number": number}
    else:
        options["f"] = segment_format(target)
    if target.encoder_format not in (None, target.layout.pixel_format):
        options["sws_flags"] = "accurate_rnd+full_chroma_int"
    words, _ = sorted_arguments(encoding.arguments, suffix, program)
    return _command(program, [pictures["v:0"]], url, options, words)


def join_command(
    path: Path,
    target: Target,
    source: VideoSource,
    program: Program,
    kept: Kept,
    *,
    delay: Fraction = Fraction(0),
    cover_files: Sequence[Path] = (),
    ending: Ending | None = None,
    until: Fraction | None = None,
) -> list[str]:
    """The command that reads coded pictures on its standard input, the rest from `source`.

    Args:
        kept: what is copied from there.
        delay: seconds added to the source's times.
        cover_files: covers as files, for Matroska, where they are attachments.
        ending: how long the last picture is shown; None: as long as one of the frame rate.
        until: time in the result after which nothing is copied.
    """
    suffix, encoding = path.suffix.lower(), target.encoding
    pictures = ffmpeg.input("pipe:0", format=segment_format(target))
    ticks = _container_ticks(target, suffix, program)
    duration = "DURATION" if ticks == "" else _durations(target, suffix, ticks, ending)
    filters = f"setts=pts=PTS:dts=DTS:duration={duration}"
    if suffix in TRANSPORT and encoding.codec in HEADED_CODECS:
        filters += ",dump_extra"  # there is no other place for their headers
    options: dict[str, object] = {
        "c:v:0": "copy",
        "copytb": 1,
        "bsf:v:0": filters,
        # Pictures may arrive slowly; let the sound wait for them.
        "max_muxing_queue_size": 100_000,
        **_colour_options(target),
    }
    if encoding.codec == "libx265" and suffix in QUICKTIME:
        options["tag:v:0"] = "hvc1"  # or Apple's players refuse it
    if suffix in FRAME_CLOCK_SUFFIXES:
        options["r:v:0"] = f"{target.frame_rate.numerator}/{target.frame_rate.denominator}"
    elif suffix in QUICKTIME and "timecode" in source.streams.metadata:
        options["r:v:0"] = str(source.base_rate)  # by which it counts, if the frames vary
    if suffix in QUICKTIME and kept.any_tags:
        options["movflags"] = "+use_metadata_tags"
    if _has_own_ticks(suffix, program) and filters_see_container_ticks(program):
        options["video_track_timescale"] = ticks
    if suffix in TRANSPORT:
        options |= {"mpegts_copyts": 1, "muxdelay": 0, "muxpreload": 0}
    if suffix in (*MATROSKA, *FRAME_CLOCK_SUFFIXES):
        # Or sound that begins before zero, hidden by an edit list or for the decoder to start
        # with, moves all to behind zero; newer programs do not by themselves.
        options["avoid_negative_ts"] = "disabled"
    if is_image(path):
        options |= {"f": "image2", "update": 1}  # of one picture; it is coded already
    if source.streams.disposition:
        options["disposition:v:0"] = "+".join(source.streams.disposition)
    streams = [pictures["v:0"]]
    if not source.images:
        rest = ffmpeg.input(
            _hashable(f"file:{source.path}"), **_part_options(source, delay), **kept.probing
        )
        options |= {"map_metadata": 1, "map_chapters": 1}
        # None: ffmpeg-python leaves out an input of which no stream is named.
        streams.append(rest["v:1000?"])
    for number, (index, encoder) in enumerate(kept.sound.items()):
        streams.append(rest[f"a:{index}"])
        options[f"c:a:{number}"] = encoder
        # What is decoded is not cut at the beginning of the part otherwise, or twice.
        cut = ["atrim=start=0"] if encoder != "copy" and source.reading.is_part else []
        cut += [f"aformat=channel_layouts={OPUS_LAYOUTS}"] if encoder == "libopus" else []
        if cut:
            options[f"filter:a:{number}"] = ",".join(cut)
    ends = [] if until is None else [until]
    if source.reading.is_part:
        options["copypriorss"] = 0  # no sound from before it
        if source.end is not None:
            ends.append(source.end - source.first_pts * source.time_base)
    if ends:
        options["t"] = f"{float(min(ends)):.6f}"
    for number, (index, encoder) in enumerate(kept.subtitles.items()):
        streams.append(rest[f"s:{index}"])
        options[f"c:s:{number}"] = encoder
    if kept.attachments:
        streams.append(rest["t?"])
        options["c:t"] = "copy"
    if suffix in QUICKTIME:
        for number, (index, _) in enumerate(kept.covers, start=1):
            streams.append(rest[f"v:{index}"])
            options |= {f"c:v:{number}": "copy", f"disposition:v:{number}": "attached_pic"}
            options[f"copypriorss:v:{number}"] = 1  # of a part, too
    # ffmpeg-python writes an option once; these may be many.
    words: list[str] = []
    for key, value in source.streams.metadata.items():
        words += ["-metadata:s:v:0", f"{key}={value}"]
    first = source.streams.attachments if kept.attachments else 0
    for number, (cover, (_, codec)) in enumerate(
        zip(cover_files, kept.covers, strict=False), start=first
    ):
        words += ["-attach", f"file:{cover}"]
        words += [f"-metadata:s:t:{number}", f"mimetype={COVER_TYPES.get(codec, 'image/jpeg')}"]
        words += [f"-metadata:s:t:{number}", f"filename=cover{cover.suffix}"]
    _, more = sorted_arguments(encoding.arguments, suffix, program)
    return _command(program, streams, f"file:{path}", options, [*words, *more])


def sorted_arguments(
    words: Sequence[str], suffix: str, program: Program
) -> tuple[list[str], list[str]]:
    """Further words for ffmpeg: those of the encoder, and those of sound, container and tags."""
    encoder: list[str] = []
    container: list[str] = []
    side = encoder
    for word in words:
        if re.match(r"-[a-zA-Z]", word):
            name, *specifier = word[1:].split(":")
            beside = specifier[:1] in (["a"], ["s"], ["d"], ["t"]) or name in CONTAINER_OPTIONS
            beside = beside or any(
                has_option(program, f"muxer={muxer}", name) for muxer in muxers_of(suffix)
            )
            side = container if beside else encoder
        side.append(word)
    return encoder, container


def _command(
    program: Program,
    streams: list[object],
    url: str,
    options: dict[str, object],
    words: Sequence[str],
) -> list[str]:
    command = (
        ffmpeg.output(*streams, _hashable(url), **options)
        .global_args("-hide_banner", "-nostdin", "-v", "error", "-copyts", "-y")
        .compile(cmd=program.path)
    )
    command = [_as_it_is(word) if word.startswith(HASHABLE) else word for word in command]
    end = command.index(url)
    return [*command[:end], *words, *command[end:]]


def _hashable(name: str) -> str:
    """A name for ffmpeg-python, which cannot take those that are no UTF-8."""
    return HASHABLE + os.fsencode(name).hex()


def _as_it_is(name: str) -> str:
    return os.fsdecode(bytes.fromhex(name.removeprefix(HASHABLE)))


def _part_options(source: VideoSource, delay: Fraction) -> dict[str, object]:
    """Options of the source's input: which part of it, and when."""
    options: dict[str, object] = {"itsoffset": f"{float(delay):.6f}"}
    if source.reading.is_part:
        start = source.first_pts * source.time_base
        options |= {"seek_timestamp": 1, "ss": f"{float(start):.6f}", "noaccurate_seek": None}
    return options


def _has_own_ticks(suffix: str, program: Program) -> bool:
    """Whether a container is of QuickTime's kind, whose ticks can be chosen."""
    return any(
        has_option(program, f"muxer={muxer}", "video_track_timescale")
        for muxer in muxers_of(suffix)
    )


def _container_ticks(target: Target, suffix: str, program: Program) -> str:
    """Ticks per second of times in filters, for their expressions; "" if that is not known."""
    if not filters_see_container_ticks(program):
        return "1/TB"
    if not _has_own_ticks(suffix, program):
        return str(TICKS.get(suffix, ""))
    ticks = encoder_time_base(target, suffix).denominator
    return str(ticks * -(-LEAST_TICKS // ticks))


def _durations(target: Target, suffix: str, ticks: str, ending: Ending | None) -> str:
    """How long pictures are shown, as an expression: an edit list ends with the last of them."""
    usual = f"({ticks})/{float(target.frame_rate):.6f}"
    if ending is None:
        return f"max(1\\,{usual})"
    last = f"eq(N\\,{ending.shown_last})"
    if suffix not in MATROSKA:  # the samples lie there in the order in which they are coded
        last += f"+eq(N\\,{ending.coded_last})"
    length = f"{ending.length.numerator}/{ending.length.denominator}*({ticks})"
    return f"max(1\\,if({last}\\,{length}\\,{usual}))"


def _encoder_options(target: Target) -> dict[str, object]:
    encoding = target.encoding
    crf = DEFAULT_CRF.get(encoding.codec) if encoding.crf is None else encoding.crf
    options: dict[str, object] = dict(encoder_parameters(target.mastering, encoding.codec))
    if crf is not None:
        options["crf"] = f"{crf:g}"
    if target.layout.alpha and encoding.codec == "libvpx":
        options["auto-alt-ref"] = 0  # its transparency needs that
    if encoding.preset is not None:
        options["preset"] = encoding.preset
    if encoding.codec == "libx265":
        more = options.get("x265-params")
        options["x265-params"] = "log-level=error" + (f":{more}" if more else "")
    return options


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
