"""The result against its source: both are read again from their files, and compared.

Frames and their times, streams, tags, size, and the picture itself: at frames 0, 1, 2, 4, 8, … the
result is made as small as the source again and their difference measured.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType

import av
import numpy as np

from d3dnet.errors import AuditError, InputError
from d3dnet.video.colour import grid_of, to_network
from d3dnet.video.encode import time_offset
from d3dnet.video.hdr import Mastering, encoder_parameters
from d3dnet.video.images import is_image
from d3dnet.video.picture import RANGE_LIMITED, RANGE_UNSPECIFIED, UNSPECIFIED, ColourTags, Frame
from d3dnet.video.resample import resample_chroma, resample_luma
from d3dnet.video.source import VideoSource
from d3dnet.video.streams import MATROSKA, QUICKTIME, Kept, is_same_sound
from d3dnet.video.target import Target

MIN_PSNR = 20.0  # dB of each plane; a wrong picture, not one of low quality
MAX_SHIFT = Fraction(50, 1000)  # seconds between the beginnings of source and result
MAX_SOUND_SHIFT = Fraction(30, 1000)
TAGGING_CODECS = ("libx264", "libx265")  # say all tags, or none, in these containers:
TAGGING_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")


# Times of the first and the last packet, in seconds after the first picture, if there is any; and
# the sample rate.
SoundEnds = tuple[tuple[Fraction, Fraction] | None, int]


@dataclass(frozen=True)
class Row:
    """One property: of the source as it should be, of the result as it is, and if that fits."""

    name: str
    source: str
    result: str
    fits: bool


@dataclass(frozen=True)
class Audit:
    """What was compared."""

    rows: tuple[Row, ...]

    @property
    def faults(self) -> list[Row]:
        return [row for row in self.rows if not row.fits]

    def table(self) -> str:
        """A line for each property; those that do not fit are marked."""
        cells = [("", "source", "result"), *((r.name, r.source, r.result) for r in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in (0, 1)]
        marks = ["", *("" if row.fits else "  MISMATCH" for row in self.rows)]
        return "\n".join(
            f"{name:{widths[0]}}  {source:{widths[1]}}  {result}{mark}".rstrip()
            for (name, source, result), mark in zip(cells, marks, strict=True)
        )

    def check(self, path: Path, made: Path) -> None:
        """Raise AuditError unless all fits. `made`: where the result is, until it is `path`."""
        if self.faults:
            what = "; ".join(f"{r.name}: {r.source} became {r.result}" for r in self.faults)
            raise AuditError(
                f"{path}: not given its name, as it differs from its source: {what}; to be looked "
                f"at as {made}. The same command only joins and compares it again; to make it "
                "anew, with another encoder or settings, add --restart"
            )


def audit(result: Path, source: VideoSource, target: Target, kept: Kept) -> Audit:
    """Compare a complete file with what it was made from.

    Args:
        result: the file.
        source: what it was made from; it is opened again.
        target, kept: what was to be written.
    """
    with VideoSource(source.path, source.reading) as before:
        try:
            after = VideoSource(result, parallel=True)  # the count tells what it loses
        except InputError as error:
            return Audit((Row("file", "readable", str(error), False),))
        with after:
            rows = [*_pictures(before, after, target)]
            if not is_image(result):
                rows += _streams(before, after, result, kept)
                rows += _tags(before, after, target, result)
    return Audit(tuple(rows))


def _pictures(before: VideoSource, after: VideoSource, target: Target) -> Iterator[Row]:
    count, sample = [0, 0], 0
    first, last = [None, None], [None, None]
    worst, tick = Fraction(0), after.time_base
    quality: list[float] = []
    for index, pair in enumerate(zip_longest(before.frames(), after.frames())):
        for side, (frame, video) in enumerate(zip(pair, (before, after), strict=True)):
            if frame is not None:
                count[side] += 1
                last[side] = frame.pts * video.time_base
                first[side] = last[side] if first[side] is None else first[side]
        if None in pair:
            continue
        worst = max(worst, abs((last[1] - first[1]) - (last[0] - first[0])))
        if index == sample:
            sample = max(1, 2 * sample)
            found = plane_psnr(pair[0], before, pair[1], after)
            quality = [min(a, b) for a, b in zip_longest(quality, found, fillvalue=np.inf)]
    size = f"{target.width}×{target.height}"
    yield Row(
        "size", size, f"{after.width}×{after.height}", size == f"{after.width}×{after.height}"
    )
    yield Row("frames", str(count[0]), str(count[1]), count[0] == count[1])
    if None in first:
        return
    text = ", ".join(f"{value:.1f}" for value in quality)
    yield Row("picture", "scaled down", f"{text} dB", min(quality) >= MIN_PSNR)
    if target.layout.alpha:
        found = "kept" if after.layout.alpha else "lost"
        yield Row("transparency", "kept", found, after.layout.alpha)
    if is_image(after.path):  # which have no times
        return
    start = first[0] + time_offset(before, after.path) * before.time_base
    free = after.path.suffix.lower() not in (*QUICKTIME, *MATROSKA)
    fits = free or abs(first[1] - start) <= max(tick, MAX_SHIFT)
    yield Row("first time", f"{float(start):.4f} s", f"{float(first[1]):.4f} s", fits)
    yield Row("times", "exact", f"within {1000 * float(worst):.3f} ms", worst <= tick)
    seconds = [float(end - begin) for begin, end in zip(first, last, strict=True)]
    fits = abs(seconds[0] - seconds[1]) <= tick
    yield Row("duration", f"{seconds[0]:.4f} s", f"{seconds[1]:.4f} s", fits)


def plane_psnr(small: Frame, before: VideoSource, large: Frame, after: VideoSource) -> list[float]:
    """dB of the planes of a frame of `after`, made as small as that of `before`, against it.

    Luma, chroma, and alpha where both have it; all are taken in 8-bit limited range (`to_network`).
    """
    luma, chroma = to_network(small.planes, before.layout)
    other, other_chroma = to_network(large.planes, after.layout)
    alphas = []
    if before.layout.alpha:
        *chroma, alpha = chroma
        alphas.append(alpha)
    if after.layout.alpha:
        *other_chroma, alpha = other_chroma
        alphas.append(alpha)
    scale = (luma.shape[0] / other.shape[0], luma.shape[1] / other.shape[1])
    pairs = [(255 * luma, resample_luma(255 * other, luma.shape))]
    pairs += [
        (
            plane,
            resample_chroma(
                made, plane.shape, scale, grid_of(after.layout), grid_of(before.layout)
            ),
        )
        for plane, made in zip(chroma, other_chroma, strict=False)
    ]
    if len(alphas) == 2:
        pairs.append((255 * alphas[0], resample_luma(255 * alphas[1], luma.shape)))
    errors = [float(((one - two) ** 2).mean()) for one, two in pairs]
    return [float(10 * np.log10(255**2 / max(error, 1e-3))) for error in errors]


def _streams(before: VideoSource, after: VideoSource, path: Path, kept: Kept) -> Iterator[Row]:
    one, two = before.streams, after.streams
    reading = before.reading
    begin = before.first_pts * before.time_base if reading.is_part else None
    end, probing = before.end, kept.probing
    ends = {number: _sound_ends(before, number, begin, end, probing) for number in kept.sound}
    # A track of nothing is none in QuickTime.
    held = {
        number: how
        for number, how in kept.sound.items()
        if ends[number][0] or path.suffix.lower() not in QUICKTIME
    }
    wanted = [one.sound[n] if to == "copy" else to for n, to in held.items()]
    same = len(wanted) == len(two.sound) and all(
        to != "copy" or is_same_sound(one.sound[n], found)
        for (n, to), found in zip(held.items(), two.sound, strict=False)
    )
    if one.sound:
        left_out = "without content" if kept.sound else "left out"
        yield Row("sound", ", ".join(wanted) or left_out, ", ".join(two.sound) or "none", same)
    for number, (stream, how) in enumerate(held.items()):
        if number < len(two.sound):
            yield from _sound_times(before, ends[stream], after, number, how)
    counts = [
        ("subtitles", len(kept.subtitles), len(two.subtitles)),
        ("attachments", one.attachments if kept.attachments else 0, two.attachments),
        ("cover art", len(kept.covers), len(two.covers)),
    ]
    if path.suffix.lower() in (*MATROSKA, *QUICKTIME) and not before.reading.is_part:
        counts.append(("chapters", one.chapters, two.chapters))
    for name, expected, found in counts:
        if expected or found:
            yield Row(name, str(expected), str(found), expected == found)


def _sound_times(
    before: VideoSource, held: SoundEnds, after: VideoSource, number: int, how: str
) -> Iterator[Row]:
    """How the first and last packet of a sound stream have moved against the picture."""
    reading = before.reading
    ends, rates = zip(held, _sound_ends(after, number), strict=True)
    rate = min(48000, *rates)
    if None in ends:
        fits = ends == (None, None) or reading.is_part
        yield Row(
            f"sound {number}", "some" if ends[0] else "none", "some" if ends[1] else "none", fits
        )
        return
    moved = [b - a for a, b in zip(*ends, strict=True)]
    allowed = MAX_SOUND_SHIFT
    if how != "copy" or reading.is_part:  # other packets, and an encoder's delay
        allowed += Fraction(2 * 1152, rate)
    text = ", ".join(f"{1000 * float(value):+.1f}" for value in moved)
    yield Row(f"sound {number} moved", "0 ms", f"{text} ms", max(map(abs, moved)) <= allowed)


def _sound_ends(
    video: VideoSource,
    index: int,
    start: Fraction | None = None,
    stop: Fraction | None = None,
    probing: Mapping[str, str] = MappingProxyType({}),
) -> SoundEnds:
    """Times of the first and last packet of a sound stream between two times, and its sample rate.

    In seconds after the first picture; None if there is no packet. Packets are not kept: a film has
    a million.
    """
    with av.open(
        f"file:{video.path}", metadata_errors="replace", options=dict(probing)
    ) as container:
        sound = container.streams.audio[index]
        first = last = None
        for packet in container.demux(sound):
            time = packet.pts
            if time is None or (start is not None and time * sound.time_base < start):
                continue
            if stop is not None and time * sound.time_base >= stop:
                continue
            first = time if first is None else min(first, time)
            last = time if last is None else max(last, time)
        if first is None:
            return None, sound.rate or 48000
        zero = video.first_pts * video.time_base
        return (first * sound.time_base - zero, last * sound.time_base - zero), sound.rate or 48000


def _tags(before: VideoSource, after: VideoSource, target: Target, path: Path) -> Iterator[Row]:
    strict = (
        target.encoding.codec in TAGGING_CODECS
        and path.suffix.lower() in TAGGING_SUFFIXES
        and target.layout.family == "yuv"
    )
    wanted, found = [], []
    made_rgb = after.layout.family == "rgb" and target.layout.family == "yuv"  # by the program
    fits = made_rgb or after.layout.full_range == target.layout.full_range
    for item in fields(ColourTags):
        if made_rgb and item.name in ("range", "matrix"):
            continue
        one, two = getattr(target.colour, item.name), getattr(after.colour, item.name)
        unknown: tuple[object, ...] = (UNSPECIFIED,)
        if item.name == "range":
            unknown = (RANGE_UNSPECIFIED, RANGE_LIMITED)
        elif item.name == "chroma_location":
            unknown = ("unspecified", "left")
            if target.layout.chroma_step != (2, 2):
                one = two = "unspecified"
        alike = one == two or (one in unknown and two in unknown)
        fits &= alike or (not strict and (one in unknown or two in unknown))
        wanted.append(str(one))
        found.append(str(two))
    yield Row("colour tags", " ".join(wanted), " ".join(found), fits)
    ratio, made = target.sample_aspect_ratio or 1, after.sample_aspect_ratio or 1
    yield Row("pixel aspect", str(ratio), str(made), ratio == made or not strict)
    if encoder_parameters(target.mastering, target.encoding.codec):
        yield Row(
            "mastering",
            "given",
            "as given" if _alike(target.mastering, after.mastering) else "another, or none",
            _alike(target.mastering, after.mastering) or not strict,
        )


def _alike(one: Mastering, two: Mastering) -> bool:
    """Whether two `Mastering`s are the same but for rounding."""
    numbers = [[*(m.display or ()), *(m.light or ())] for m in (one, two)]
    return len(numbers[0]) == len(numbers[1]) and all(
        abs(a - b) <= max(1e-4, 1e-3 * abs(a)) for a, b in zip(*numbers, strict=True)
    )
