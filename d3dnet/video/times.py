"""Times of pictures that go on, one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from d3dnet.errors import InputError

NEW_BEGINNING = Fraction(1, 2)  # seconds back; less may be a fault of one time


@dataclass(frozen=True)
class Shown:
    """From when to when a frame is shown, in seconds."""

    time: Fraction
    end: Fraction


def without_new_beginnings(
    pictures: Iterator[tuple[av.VideoFrame, int | None]], time_base: Fraction, path: Path
) -> Iterator[tuple[av.VideoFrame, int | None]]:
    """Pictures as they are; InputError where their times begin again, as those of the sound do."""
    latest: int | None = None
    for frame, pts in pictures:
        if pts is not None and latest is not None and (latest - pts) * time_base > NEW_BEGINNING:
            raise InputError(
                f"{path}: its times begin again after {float(latest * time_base):.3f} s, as in "
                f"joined files; first make them go on: ffmpeg -i {path.name} -map 0 -c copy "
                "joined.mkv"
            )
        latest = pts if latest is None or pts is None else max(latest, pts)
        yield frame, pts


def increasing_times(
    pictures: Iterator[tuple[av.VideoFrame, int | None]], step: int
) -> Iterator[tuple[av.VideoFrame, int]]:
    """A time for every picture: `step` after the last where it has none, or else at least 1."""
    last: int | None = None
    for frame, pts in pictures:
        if pts is None:
            pts = 0 if last is None else last + step
        elif last is not None and pts <= last:
            pts = last + 1
        last = pts
        yield frame, pts
