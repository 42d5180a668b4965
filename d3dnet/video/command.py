"""The words for the ffmpeg program: encode the pictures, copy all else from the source."""

import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import ffmpeg

from d3dnet.video.decode import VideoSource
from d3dnet.video.ffmpeg import Program
from d3dnet.video.hdr import encoder_parameters
from d3dnet.video.images import escaped, is_pattern
from d3dnet.video.picture import UNSPECIFIED
from d3dnet.video.streams import COVER_TYPES, MATROSKA, QUICKTIME, TRANSPORT, Kept
from d3dnet.video.target import FRAME_CLOCK_SUFFIXES, Target, encoder_time_base

DEFAULT_CRF = {"libx264": 18, "libx264rgb": 18, "libx265": 20, "libsvtav1": 24, "libvpx-vp9": 24}


def encoder_command(
    path: Path,
    target: Target,
    source: VideoSource,
    program: Program,
    kept: Kept,
    *,
    delay: Fraction = Fraction(0),
    cover_files: Sequence[Path] = (),
    only_one_frame: bool = False,
) -> list[str]:
    """The command that reads NUT on its standard input and the rest from `source`'s file.

    Args:
        kept: what is copied from there.
        delay: seconds added to the source's times.
        cover_files: covers as files, for Matroska, where they are attachments.
        only_one_frame: stop after one picture and one packet of sound.
    """
    suffix, encoding = path.suffix.lower(), target.encoding
    tags = _colour_options(target)
    pictures = ffmpeg.input("pipe:0", format="nut", **tags)
    time_base = encoder_time_base(target, path.suffix)
    options: dict[str, object] = {
        "c:v:0": encoding.codec,
        "pix_fmt:v:0": target.encoder_format or target.layout.pixel_format,
        # Without both of these times snap to multiples of 1 / frame rate.
        "fps_mode:v:0": "passthrough",
        "enc_time_base:v:0": f"{time_base.numerator}/{time_base.denominator}",
        # Pictures arrive slowly; let the sound wait for them.
        "max_muxing_queue_size": 100_000,
        **tags,
        **_encoder_options(target, suffix),
    }
    if target.sample_aspect_ratio is not None:
        ratio = target.sample_aspect_ratio
        options["filter:v:0"] = f"setsar={ratio.numerator}/{ratio.denominator}"
    if suffix in FRAME_CLOCK_SUFFIXES:
        options["bf"] = 0  # no times, so pictures are shown in the order in which they are coded
    if suffix in TRANSPORT:
        options |= {"mpegts_copyts": 1, "muxdelay": 0, "muxpreload": 0}
    if suffix in MATROSKA:
        # Or sound that begins before zero, hidden by an edit list or for the decoder to start
        # with, moves all to behind zero; newer programs do not by themselves.
        options["avoid_negative_ts"] = "disabled"
    if source.streams.disposition:
        options["disposition:v:0"] = "+".join(source.streams.disposition)
    streams = [pictures["v:0"]]
    if not source.images:
        rest = ffmpeg.input(f"file:{source.path}", **_part_options(source, delay))
        options |= {"map_metadata": 1, "map_chapters": 1}
        # None: ffmpeg-python leaves out an input of which no stream is named.
        streams.append(rest["v:1000?"])
    url = f"file:{path}"
    if is_pattern(path):
        url = f"file:{escaped(path)}"
        options |= {"f": "image2", "start_number": 1}
    if target.encoder_format not in (None, target.layout.pixel_format):
        options["sws_flags"] = "accurate_rnd+full_chroma_int"
    for number, (index, encoder) in enumerate(kept.sound.items()):
        streams.append(rest[f"a:{index}"])
        options[f"c:a:{number}"] = encoder
    if source.reading.is_part:
        options["copypriorss"] = 0  # no sound from before it
        if source.end is not None:
            length = source.end - source.first_pts * source.time_base
            options["t"] = f"{float(length):.6f}"
    words: list[str] = []
    if only_one_frame:
        options |= {"frames:v": 1, "frames:a": 1}
    else:
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
        # ffmpeg-python writes an option once; these may be many.
        for key, value in source.streams.metadata.items():
            words += ["-metadata:s:v:0", f"{key}={value}"]
        first = source.streams.attachments if kept.attachments else 0
        for number, (cover, (_, codec)) in enumerate(
            zip(cover_files, kept.covers, strict=False), start=first
        ):
            words += ["-attach", f"file:{cover}"]
            words += [f"-metadata:s:t:{number}", f"mimetype={COVER_TYPES.get(codec, 'image/jpeg')}"]
            words += [f"-metadata:s:t:{number}", f"filename=cover{cover.suffix}"]
    command = (
        ffmpeg.output(*streams, url, **options)
        .global_args("-hide_banner", "-nostdin", "-v", "error", "-copyts", "-y")
        .compile(cmd=program.path)
    )
    end = command.index(url)
    return [*command[:end], *words, *encoding.arguments, *command[end:]]


def _part_options(source: VideoSource, delay: Fraction) -> dict[str, object]:
    """Options of the source's input: which part of it, and when."""
    options: dict[str, object] = {"itsoffset": f"{float(delay):.6f}"}
    if source.reading.is_part:
        start = source.first_pts * source.time_base
        options |= {"seek_timestamp": 1, "ss": f"{float(start):.6f}"}
    return options


def _encoder_options(target: Target, suffix: str) -> dict[str, object]:
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
        if suffix in QUICKTIME:
            options["tag:v:0"] = "hvc1"  # or Apple's players refuse it
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
