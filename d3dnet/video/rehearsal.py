"""The join before the work: some empty pictures and a second of all else, by the very command.

What does not go into the result is known then, and not after hours.
"""

import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from d3dnet.errors import EncoderError, OutputError
from d3dnet.video.encode import SegmentSink, time_offset
from d3dnet.video.ffmpeg import Program
from d3dnet.video.images import is_image, is_pattern
from d3dnet.video.join import coded_times, join
from d3dnet.video.source import VideoSource
from d3dnet.video.streams import (
    LOSSLESS_SOUND,
    QUICKTIME,
    SOUND_ENCODERS,
    TRANSPORT,
    Kept,
    Streams,
    is_same_sound,
    streams_of,
)
from d3dnet.video.target import Target, warn_of_profile

PICTURES = 5  # enough for some to be coded before they are shown
LENGTH = Fraction(1)  # seconds of sound and subtitles that are tried
PATIENCE = 20.0  # seconds; of subtitles that come late, the whole file is read
FURTHEST = 256 << 20  # bytes of a file that are looked through for what its streams are
NAMES_TOLD = 8  # of tags


def rehearse(
    path: Path, folder: Path, target: Target, source: VideoSource, program: Program, kept: Kept
) -> Kept:
    """Try everything with a few empty frames: encoder, container, and all that is copied.

    Sound that the container cannot hold will be encoded again; what cannot be kept in any way is
    left out. Warnings name both.

    Args:
        path: the result; `folder`: where to write.

    Returns:
        `kept`, as far as it works, with the encoders of sound that do.

    Raises:
        EncoderError: the result could not be written.
        OutputError: the container cannot hold what the encoder makes.
    """
    warn_of_profile(path, source, target)
    for note in source.notes:
        warnings.warn(f"{source.path}: {note}", stacklevel=3)
    segment, joined = folder / "check", folder / f"check{path.suffix}"
    sizes = target.layout.plane_sizes(target.height, target.width)
    offset = time_offset(source, path)
    empty = [np.zeros(size, target.layout.dtype) for size in sizes]
    step = 1 / (target.frame_rate * target.time_base)
    count = 1 if is_image(path) else PICTURES
    times = [source.first_pts + round(number * step) for number in range(count)]
    try:
        with SegmentSink(segment, target, program, result=path, offset=offset) as sink:
            for pts in dict.fromkeys(times):
                sink.write(empty, pts)
    except EncoderError as error:
        if target.encoding.arguments and type(error) is EncoderError:
            words = shlex.join(target.encoding.arguments)
            raise EncoderError(f"{error}; it was given --ffmpeg-args={words!r}") from None
        raise
    if is_pattern(path):
        for image in segment.iterdir():
            image.unlink()
        segment.rmdir()
        return kept
    trial = _Trial(segment, joined, path, target, source, program)
    try:
        found = trial.settled(kept)
    finally:
        segment.unlink(missing_ok=True)
        joined.unlink(missing_ok=True)
    for text in (*trial.told, *_encoded_again(path, source, found)):
        warnings.warn(f"{path}: {text}", stacklevel=3)
    if offset and not source.reading.is_part and source.first_pts > 0:
        warnings.warn(
            f"{path}: the clock of {source.path.name} begins at {float(source.begins):.3f} s; the "
            "result begins at zero",
            stacklevel=3,
        )
    return found


class _Trial:
    """Trying what goes into a result, without the pictures.

    Attributes:
        told: what is left out, for warnings.
    """

    def __init__(
        self,
        segment: Path,
        joined: Path,
        path: Path,
        target: Target,
        source: VideoSource,
        program: Program,
    ) -> None:
        self.told: list[str] = []
        self._segment, self._joined, self._path = segment, joined, path
        self._target, self._source, self._program = target, source, program
        first = (source.first_pts + time_offset(source, path)) * source.time_base
        self._until = first + LENGTH
        self._begun = set(_begun(source, LENGTH))

    def settled(self, kept: Kept) -> Kept:
        """What works of `kept`, and how."""
        kept = self._with_silent_sound(kept)
        if self._fault(kept):
            self._see_that_pictures_fit()
            kept = self._each_by_itself(kept)
            if fault := self._fault(kept):
                raise EncoderError(fault)
        return self._with_tags(kept)

    def _run(self, kept: Kept, target: Target | None = None) -> Streams | None:
        """Join; what is then there, or None where it is too short to be read.

        Raises:
            EncoderError: it fails, or what is made cannot be read again.
        """
        complete = join(
            [self._segment],
            self._joined,
            target or self._target,
            self._source,
            self._program,
            kept,
            until=self._until,
            seconds=PATIENCE,
        )
        return self._read() if complete else None

    def _read(self) -> Streams | None:
        """What a result has; None where it is too short to be read."""
        suffix = self._path.suffix.lower()
        if is_image(self._path):
            return None
        try:
            with av.open(
                f"file:{self._joined}",
                format="mpegts" if suffix in TRANSPORT else None,
                metadata_errors="replace",
            ) as container:
                for stream in container.streams.video:
                    if stream.codec_context is not None:
                        found = streams_of(container, stream)
                        self._see_that_times_are_kept(container, stream)
                        return found
                if not container.streams:
                    return None
        except (av.FFmpegError, OSError, ValueError):
            return None
        raise EncoderError(f"{self._path}: ffmpeg stopped: nothing could read it again")

    def _see_that_times_are_kept(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> None:
        made = [packet for packet in container.demux(stream) if packet.size]
        base = stream.time_base or Fraction(0)
        found = sorted(packet.pts * base for packet in made if packet.pts is not None)
        times = sorted(coded_times(self._segment))
        moved = [
            abs((other - found[0]) - (time - times[0]))
            for time, other in zip(times, found, strict=False)
        ]
        if len(found) == len(times) and max(moved) > 1 / (2 * self._target.frame_rate):
            raise EncoderError(f"{self._path}: ffmpeg stopped: pictures change their times")

    def _fault(self, kept: Kept) -> str:
        """Why what is to be kept cannot be; "" if it can."""
        try:
            found = self._run(kept)
        except EncoderError as error:
            return str(error)
        if found is None:
            return ""
        # QuickTime has no track of nothing.
        partly = self._path.suffix.lower() in QUICKTIME
        expected = [n for n in kept.sound if not partly or n in self._begun]
        wanted = [
            self._source.streams.sound[n] if kept.sound[n] == "copy" else "" for n in expected
        ]
        if len(found.sound) < len(wanted) or not all(
            codec == "" or is_same_sound(codec, other) or partly
            for codec, other in zip(wanted, found.sound, strict=False)
        ):
            return f"{self._path}: of sound {', '.join(map(repr, wanted))} it has {found.sound}"
        if len(found.subtitles) < len(kept.subtitles) and not partly:
            return f"{self._path}: of {len(kept.subtitles)} subtitles it has {found.subtitles}"
        return ""

    def _see_that_pictures_fit(self) -> None:
        """Raise OutputError if the container cannot hold the picture, with nothing else asked."""
        try:
            self._run(Kept())
        except EncoderError:
            encoding = replace(self._target.encoding, arguments=())
            try:
                self._run(Kept(), replace(self._target, encoding=encoding))
            except EncoderError as error:
                reason = str(error).partition(" stopped: ")[2]
                raise OutputError(_misfit(self._path, self._target, reason)) from None
            raise

    def _each_by_itself(self, kept: Kept) -> Kept:
        """Every stream tried alone: those that work, and how."""
        only = Kept(probing=kept.probing)
        sound, subtitles = {}, {}
        for number, first in kept.sound.items():
            codec = self._source.streams.sound[number]
            faults = []
            for encoder in dict.fromkeys((first, *_encoders(codec))):
                fault = self._fault(replace(only, sound={number: encoder}))
                if not fault:
                    sound[number] = encoder
                    break
                faults.append(fault)
            else:
                self._leave_out(f"sound {number} ({codec})", faults[0])
        for number, encoder in kept.subtitles.items():
            if fault := self._fault(replace(only, subtitles={number: encoder})):
                codec = self._source.streams.subtitles[number]
                self._leave_out(f"subtitles {number} ({codec})", fault)
            else:
                subtitles[number] = encoder
        covers, attachments = kept.covers, kept.attachments
        if covers and (fault := self._fault(replace(only, covers=covers))):
            covers = ()
            self._leave_out("cover art", fault)
        if attachments and (fault := self._fault(replace(only, attachments=True))):
            attachments = False
            self._leave_out("attachments", fault)
        return replace(
            kept, sound=sound, subtitles=subtitles, covers=covers, attachments=attachments
        )

    def _leave_out(self, what: str, fault: str) -> None:
        reason = fault.partition(" stopped: ")[2] or fault
        self.told.append(f"left out {what}, which cannot be kept ({reason})")

    def _with_silent_sound(self, kept: Kept) -> Kept:
        """Without sound that has no content; with what it takes to know that which begins late."""
        silent = [number for number in self._source.streams.silent if number in kept.sound]
        if not silent:
            return kept
        begins = first_packets(self._source, silent)
        sound = dict(kept.sound)
        for number in silent:
            if number in begins and begins[number][1] <= FURTHEST:
                continue
            codec = self._source.streams.sound[number]
            reason = (
                f"which begins at {float(begins[number][0]):.0f} s, too late to be known"
                if number in begins
                else "which has no content"
            )
            self.told.append(f"left out sound {number} ({codec}), {reason}")
            del sound[number]
        late = [begins[number] for number in silent if number in sound]
        if not late:
            return replace(kept, sound=sound)
        duration = max(time for time, _ in late) - self._source.begins + 5
        probing = {
            "probesize": str(max(place for _, place in late) + (8 << 20)),
            "analyzeduration": str(int(duration * 1_000_000)),
        }
        return replace(kept, sound=sound, probing=probing)

    def _with_tags(self, kept: Kept) -> Kept:
        """With a way of writing tags that loses the fewest; those that are lost are told."""
        if is_image(self._path):
            return kept
        lost = self._lost_tags(kept)
        if lost and self._path.suffix.lower() in QUICKTIME:
            other = replace(kept, any_tags=True)
            found = self._lost_tags(other)
            if found is not None and len(found) < len(lost):
                kept, lost = other, found
        if lost:
            names = ", ".join(lost[:NAMES_TOLD])
            names += f" and {len(lost) - NAMES_TOLD} more" if len(lost) > NAMES_TOLD else ""
            suffix = self._path.suffix
            where = "; .mkv has" if suffix.lower() != ".mkv" else ""
            self.told.append(f"without the tags {names}, for which {suffix} has no room{where}")
        return kept

    def _lost_tags(self, kept: Kept) -> list[str] | None:
        try:
            found = self._run(kept)
        except EncoderError:
            return None
        if found is None:
            return None
        source = self._source.streams
        lost = [*_missing(source.tags, found.tags)]
        lost += _missing(source.metadata, found.metadata, " of the picture")
        if len(found.sound_tags) == len(kept.sound):
            for number, other in zip(kept.sound, found.sound_tags, strict=True):
                lost += _missing(source.sound_tags[number], other, f" of sound {number}")
        return list(dict.fromkeys(lost))


def _missing(tags: Mapping[str, str], found: Mapping[str, str], of: str = "") -> Iterator[str]:
    held = {key.lower() for key in found}
    return (f"{key}{of}" for key in tags if key.lower() not in (held | UNTOLD_TAGS))


# Of containers rather than of their content.
UNTOLD_TAGS = {"handler_name", "creation_time", "language", "service_name", "service_provider"}


def _encoders(codec: str) -> Sequence[str]:
    """How sound can go into a container, the best first."""
    return ("copy", *(("flac",) if codec.startswith(LOSSLESS_SOUND) else ()), *SOUND_ENCODERS)


def _encoded_again(path: Path, source: VideoSource, kept: Kept) -> Iterator[str]:
    encoded = [
        f"{source.streams.sound[number]} as {encoder}"
        for number, encoder in kept.sound.items()
        if encoder != "copy"
    ]
    if encoded:
        where = "; .mkv would keep it" if path.suffix.lower() != ".mkv" else ""
        yield (
            f"{path.suffix} cannot hold the sound as it is; encoded again: "
            f"{', '.join(encoded)}{where}"
        )


def _misfit(path: Path, target: Target, reason: str) -> str:
    codec = "libvpx-vp9" if path.suffix.lower() == ".webm" else "libx264"
    other = f", such as {codec}," if codec != target.encoding.codec else ""
    where = "" if path.suffix.lower() == ".mkv" else ", such as .mkv"
    return (
        f"{path}: {path.suffix} cannot hold what {target.encoding.codec} makes ({reason}); "
        f"choose another --codec{other} or another container{where}"
    )


def _begun(source: VideoSource, length: Fraction) -> Iterator[int]:
    """Numbers of the sound streams that have packets in the first seconds of what is read."""
    first, end = source.first_pts * source.time_base, source.end
    last = first + length if end is None else min(first + length, end)
    for number, time, _ in source.all_packets(first):
        if time >= last:
            break
        if number is not None and time >= first:
            yield number


def first_packets(source: VideoSource, numbers: Sequence[int]) -> dict[int, tuple[Fraction, int]]:
    """Time in seconds, and place in the file, of the first packet of those sound streams."""
    found: dict[int, tuple[Fraction, int]] = {}
    for number, time, place in source.all_packets():
        if number is not None and number in numbers and number not in found:
            found[number] = (time, place)
            if len(found) == len(numbers):
                break
    return found
