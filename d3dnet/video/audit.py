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

from d3dnet.errors import AuditError, InputError
from d3dnet.video.encode import time_offset
from d3dnet.video.hdr import Mastering, encoder_parameters
from d3dnet.video.images import is_image
from d3dnet.video.likeness import likenesses
from d3dnet.video.picture import RANGE_LIMITED, RANGE_UNSPECIFIED, UNSPECIFIED, ColourTags, Frame
from d3dnet.video.source import VideoSource
from d3dnet.video.streams import MATROSKA, QUICKTIME, Kept, is_same_sound
from d3dnet.video.target import Target

MAX_SHIFT = Fraction(50, 1000)  # seconds between the beginnings of source and result
MAX_SOUND_SHIFT = Fraction(30, 1000)
MAX_LENGTH = Fraction(1, 2)  # seconds that a file may say it is longer or shorter than its content
TAGGING_CODECS = ("libx264", "libx265")  # say all tags, or none, in these containers:
TAGGING_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")


@dataclass(frozen=True)
class _SoundEnds:
    """Of a sound stream.

    Attributes:
        times: of the first and the last packet, in seconds after the first picture, if there is
            any; rate: samples per second.
    """

    times: tuple[Fraction, Fraction] | None
    rate: int


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


class _Times:
    """How many frames there are of a video, and when the first and the last are shown."""

    def __init__(self, video: VideoSource) -> None:
        self._base = video.time_base
        self.count = 0
        self.first = self.last = Fraction(0)

    def add(self, frame: Frame | None) -> None:
        if frame is not None:
            self.last = frame.pts * self._base
            self.first = self.last if self.count == 0 else self.first
            self.count += 1

    @property
    def since(self) -> Fraction:
        return self.last - self.first


def _pictures(before: VideoSource, after: VideoSource, target: Target) -> Iterator[Row]:
    times, sample = (_Times(before), _Times(after)), 0
    worst, tick = Fraction(0), after.time_base
    quality: list[float] = []
    alike = True
    for index, (one, two) in enumerate(zip_longest(before.frames(), after.frames())):
        times[0].add(one)
        times[1].add(two)
        if one is None or two is None:
            continue
        worst = max(worst, abs(times[1].since - times[0].since))
        if index == sample:
            sample = max(1, 2 * sample)
            found = likenesses(one, before, two, after)
            of_planes = zip_longest(quality, (plane.psnr for plane in found))
            quality = [min(psnr for psnr in both if psnr is not None) for both in of_planes]
            alike &= all(plane.fits for plane in found)
    wanted, made = f"{target.width}×{target.height}", f"{after.width}×{after.height}"
    yield Row("size", wanted, made, wanted == made)
    counts = [side.count for side in times]
    yield Row("frames", str(counts[0]), str(counts[1]), counts[0] == counts[1])
    if 0 in counts:
        return
    text = ", ".join(f"{value:.1f}" for value in quality)
    yield Row("picture", "scaled down", f"{text} dB", alike)
    if target.layout.alpha:
        kept = "kept" if after.layout.alpha else "lost"
        yield Row("transparency", "kept", kept, after.layout.alpha)
    if is_image(after.path):  # which have no times
        return
    start = times[0].first + time_offset(before, after.path) * before.time_base
    free = after.path.suffix.lower() not in (*QUICKTIME, *MATROSKA)
    fits = free or abs(times[1].first - start) <= max(tick, MAX_SHIFT)
    yield Row("first time", f"{float(start):.4f} s", f"{float(times[1].first):.4f} s", fits)
    yield Row("times", "exact", f"within {1000 * float(worst):.3f} ms", worst <= tick)
    texts = [f"{float(side.since):.4f} s" for side in times]
    fits = abs(times[1].since - times[0].since) <= tick
    if not free and (said := _wrong_length(before, after, times[1])) is not None:
        fits = False
        texts[1] += f" in a file of {float(said):.4f} s"
    yield Row("duration", texts[0], texts[1], fits)


def _wrong_length(before: VideoSource, after: VideoSource, times: _Times) -> Fraction | None:
    """Seconds that a result says it is long, if it ends long after or before all that is in it."""
    shown, said = before.last_shown, after.length
    if said is None or after.streams.subtitles:  # which may be shown for longer than all else
        return None
    ends = times.last + (1 / before.frame_rate if shown is None else shown.end - shown.time)
    if before.length is not None and not before.reading.is_part:
        offset = time_offset(before, after.path) * before.time_base
        ends = max(ends, before.length + before.begins + offset)
    # Some count from zero, some from the beginning.
    long_enough = times.last - MAX_LENGTH <= said + max(Fraction(0), after.begins)
    return None if long_enough and said <= ends + MAX_LENGTH else said


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
        if ends[number].times or path.suffix.lower() not in QUICKTIME
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
    before: VideoSource, held: _SoundEnds, after: VideoSource, number: int, how: str
) -> Iterator[Row]:
    """How the first and last packet of a sound stream have moved against the picture."""
    reading = before.reading
    made = _sound_ends(after, number)
    rate = min(48000, held.rate, made.rate)
    if held.times is None or made.times is None:
        one, two = ("some" if ends.times else "none" for ends in (held, made))
        yield Row(f"sound {number}", one, two, one == two or reading.is_part)
        return
    moved = [b - a for a, b in zip(held.times, made.times, strict=True)]
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
) -> _SoundEnds:
    """Times of the first and last packet of a sound stream between two times, and its sample rate.

    In seconds after the first picture; None if there is no packet. Packets are not kept: a film has
    a million.
    """
    with av.open(
        f"file:{video.path}", metadata_errors="replace", options=dict(probing)
    ) as container:
        sound = container.streams.audio[index]
        base = sound.time_base or Fraction(0)
        first: int | None = None
        last = 0
        for packet in container.demux(sound):
            time = packet.pts
            if time is None or (start is not None and time * base < start):
                continue
            if stop is not None and time * base >= stop:
                continue
            last = time if first is None else max(last, time)
            first = time if first is None else min(first, time)
        rate = sound.rate or 48000
        if first is None:
            return _SoundEnds(None, rate)
        zero = video.first_pts * video.time_base
        return _SoundEnds((first * base - zero, last * base - zero), rate)


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
