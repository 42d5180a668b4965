"""A video as segments: where they begin, and how one is taken up after a break.

A segment ends at a cut, or after ten seconds at most. Inside a run the network goes on from one to
the next; after a break it has to see some frames before the first again. It is given them in the
same groups as without the break, so that every convolution has the same shape, and the frames of
the segment are the same to the last bit.
"""

import hashlib
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from typing import Any

import av
import numpy as np

from d3dnet.errors import InputError
from d3dnet.network import Mode
from d3dnet.network.interface import Network
from d3dnet.network.plan import Plan
from d3dnet.video.picture import Frame
from d3dnet.video.scenes import shots
from d3dnet.video.source import VideoSource

SHORTEST, LONGEST = Fraction(5), Fraction(9)  # seconds: a cut ends one; anything does (but a flash)
EARLIER = (Fraction(0), Fraction(2), Fraction(10), None)  # seconds to seek before, when taking up
REMEMBERED = 400  # frames, more than any network needs
SAMPLES, SAMPLE = 64, 1 << 16  # of a source: places, and bytes at each, that tell it from others


@dataclass(frozen=True)
class Segment:
    """Where a segment begins.

    Attributes:
        number: of the segment; first: of its first frame; pts: time of that frame.
        enter: number of the frame from which on the network must see them; enter_pts: its time.
        checks: CRC-32 of the frames from `enter` to `first`, both included; () for the first.
    """

    number: int
    first: int
    pts: int
    enter: int
    enter_pts: int
    checks: tuple[int, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Segment":
        """Of `dataclasses.asdict`, also after JSON."""
        return cls(**{**values, "checks": tuple(values["checks"])})


@dataclass(frozen=True)
class Place:
    """Which frame it is: its number and time, whether it begins a shot, and its segment."""

    index: int
    pts: int
    shot: int
    cut: bool
    segment: Segment


@dataclass(frozen=True)
class WarmUp:
    """How far a network must go back: so many frames, or more, at multiples of `chunk`."""

    frames: int
    chunk: int = 1

    def start(self, first: int, shot: int) -> int:
        """The frame to begin with, for `first` of a shot that begins with frame `shot`."""
        return max(shot, shot + (first - self.frames - shot) // self.chunk * self.chunk)


def warm_up(network: Network, mode: Mode, plan: Plan) -> WarmUp:
    """What a network needs to make the very frames that it makes without a break."""
    if mode == "window":
        return WarmUp((network.window or 1) // 2)
    radius, chunk = network.temporal_radius, plan.chunk
    if radius == 0:
        return WarmUp(0)
    if plan.block:
        # Each block is made from the 2 radius frames before it, and ends a radius before its input.
        return WarmUp(-(-2 * radius // plan.block) * plan.block - radius, plan.block)
    # A layer that looks n frames ahead in all gives frames in groups that end n before the chunks'.
    # Until its first whole group their shapes are others; `radius - n` more is what is seen of it.
    return WarmUp(max(radius, *(radius - n + -n % chunk for n in range(1, radius + 1))), chunk)


def segmented(
    shots: Iterable[tuple[int, Frame, bool]],
    time_base: Fraction,
    needs: Callable[[], WarmUp],
    begin: Segment,
) -> Iterator[tuple[Frame, Place]]:
    """Frames, each with its place.

    Args:
        shots: as `d3dnet.video.scenes.shots` gives them, from frame `begin.enter` on.
        time_base: seconds per unit of their pts.
        needs: of the network, now.
        begin: the segment to begin with.
    """
    recent: deque[tuple[int, int]] = deque(maxlen=REMEMBERED)  # time, checksum
    segment, origin = begin, begin.enter
    last, can_end = None, True
    for index, (shot, frame, can_end_after) in enumerate(shots, begin.enter):
        recent.append((frame.pts, checksum(frame)))
        cut = last is not None and shot != last
        origin = index if cut else origin
        age = (frame.pts - segment.pts) * time_base
        if index > segment.first and can_end and age >= (SHORTEST if cut else LONGEST):
            enter = max(needs().start(index, origin), index + 1 - len(recent))
            seen = list(recent)[enter - index - 1 :]
            segment = Segment(
                segment.number + 1, index, frame.pts, enter, seen[0][0], tuple(c for _, c in seen)
            )
        yield frame, Place(index, frame.pts, shot, cut, segment)
        last, can_end = shot, can_end_after


def placed(
    source: VideoSource,
    cuts: str | list[Fraction],
    needs: Callable[[], WarmUp],
    begin: Segment,
) -> Iterator[tuple[Frame, Place]]:
    """Frames of a source from `begin.enter` on, each with its place.

    Args:
        cuts: as for `d3dnet.video.scenes.shots`; needs: of the network, now.
    """
    found = shots(
        *(taken_up(source, begin), 2**source.layout.depth - 1, cuts, source.time_base),
        known=begin.first - begin.enter,
    )
    return segmented(found, source.time_base, needs, begin)


def find_segments(
    source: VideoSource,
    cuts: str | list[Fraction],
    needs: Callable[[], WarmUp],
    begin: Segment,
) -> Iterator[tuple[Segment, int]]:
    """All segments from `begin` on, and how many frames each has, without making them.

    Args: as for `placed`.
    """
    segment, frames = begin, 0
    for _, place in placed(source, cuts, needs, begin):
        if place.segment != segment:
            yield segment, frames
            segment, frames = place.segment, 0
        frames += place.index >= begin.first
    yield segment, frames


def taken_up(source: VideoSource, segment: Segment) -> Iterator[Frame]:
    """The frames of `source` from `segment.enter` on, the same as without a break.

    Sought where that gives the same frames, else read from the beginning.

    Raises:
        InputError: they are not there any more.
    """
    for before in EARLIER if segment.enter else (None,):
        damage = list(source.damage)
        try:
            frames = source.frames_from(segment.enter, segment.enter_pts, before)
            head = list(islice(frames, len(segment.checks)))
        except (InputError, av.FFmpegError, OSError):
            if before is None:
                raise
            head = []
        if not segment.checks or (
            tuple(map(checksum, head)) == segment.checks
            and (head[0].pts, head[-1].pts) == (segment.enter_pts, segment.pts)
        ):
            return chain(head, frames)
        source.damage[:] = damage
    raise InputError(
        f"{source.path}: frames {segment.enter} to {segment.first} are not what they were before "
        "the break; use --restart"
    )


def checksum(frame: Frame) -> int:
    """CRC-32 of all planes."""
    value = 0
    for plane in frame.planes:
        value = zlib.crc32(np.ascontiguousarray(plane).data, value)
    return value


def fingerprint(source: VideoSource) -> str:
    """SHA-256 of size and samples of a source's file, or files; not of its name."""
    digest = hashlib.sha256()
    files = source.images or [source.path]
    digest.update(f"{len(files)}".encode())
    step = max(1, len(files) // SAMPLES)
    for number, file in enumerate(files):
        size = os.stat(file).st_size
        digest.update(f" {size}".encode())
        if number % step == 0:
            with open(file, "rb") as opened:
                places = SAMPLES if len(files) == 1 else 1
                for place in range(places):
                    opened.seek(max(0, size - SAMPLE) * place // max(1, places - 1))
                    digest.update(opened.read(SAMPLE))
    return digest.hexdigest()
