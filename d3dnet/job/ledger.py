"""What is to be done for one result, what of it is done, and the writing of its segments."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

import d3dnet
from d3dnet.files import size_of
from d3dnet.job.events import SegmentDone
from d3dnet.job.segments import Place, Segment, fingerprint
from d3dnet.job.settings import Cuts
from d3dnet.network import Mode
from d3dnet.network.checkpoints import tensors_sha256
from d3dnet.network.interface import Network
from d3dnet.network.plan import Plan
from d3dnet.video import colour
from d3dnet.video.encode import SegmentSink
from d3dnet.video.ffmpeg import Program
from d3dnet.video.images import is_pattern
from d3dnet.video.reading import Reading
from d3dnet.video.source import VideoSource
from d3dnet.video.target import Target, segment_format


@dataclass(frozen=True)
class Job:
    """All that segments are made of; it can be pickled and sent to another machine.

    Attributes:
        input: what `VideoSource` takes, with `reading`.
        model: what `d3dnet.network.run.load_network` takes; mode: of the network.
        cuts: as for `d3dnet.video.scenes.shots`.
        plan: holds for all segments.
        target, program: what is encoded, and by what; offset: ticks added to times.
        output: the result; folder: where its segments are kept.
    """

    input: str
    reading: Reading
    model: str | nn.Module
    mode: Mode
    cuts: Cuts
    plan: Plan
    target: Target
    program: Program
    offset: int
    output: Path
    folder: Path

    def path_of(self, number: int) -> Path:
        """The file of a segment; or a folder, of numbered images."""
        suffix = "" if is_pattern(self.output) else f".{segment_format(self.target)}"
        return self.folder / f"{number:06d}{suffix}"


@dataclass(frozen=True)
class Picture:
    """A frame on its way: luma (h, w) float32 in [0, 1], and chroma as `colour.to_network`'s."""

    luma: np.ndarray
    chroma: tuple[np.ndarray, ...]
    place: Place


class Records(Protocol):
    """What was found out, and where more of it is written down: a `Journal`, or who keeps one."""

    @property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """What is known already."""

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record. From any thread."""


class Ledger:
    """What of a result is done, by its journal and the files that are there.

    Attributes:
        frames: number of frames of each finished segment, by its number.
        damage: what was found broken in the source while they were made.
        plan: how the network is run from now on.
    """

    def __init__(self, job: Job, journal: Records) -> None:
        self.frames: dict[int, int] = {}
        self.damage: list[str] = []
        self.plan = job.plan
        self._job = job
        self._journal = journal
        self._known: dict[int, Segment] = {}
        self._paths: dict[int, Path] = {}
        self._ended_by: int | None = None  # number of the last segment
        # Images are then on their way to where they are joined.
        self._joining = any("joining" in record for record in journal.records)
        for record in journal.records:
            self._take(record)

    @property
    def done(self) -> int:
        """Frames of all finished segments."""
        return sum(self.frames.values())

    def add(self, segment: Segment, frames: int, following: Segment | None, **more: object) -> None:
        """A segment is finished: have it on the disk. `following`: the next, None after the end."""
        record = {
            "segment": asdict(segment),
            "frames": frames,
            "bytes": size_of(self._job.path_of(segment.number)),
            "following": None if following is None else asdict(following),
            **more,
        }
        self.enter(record)

    def enter(self, record: dict[str, Any]) -> None:
        """Add what was found out: a line for the journal."""
        self._journal.append(record)
        self._take(record)

    def include(self, share: "Ledger") -> None:
        """Count what is done for a share of the result as done for the result."""
        self.frames |= share.frames
        self._paths |= share._paths
        self.damage += [what for what in share.damage if what not in self.damage]

    def change_plan(self, plan: Plan) -> None:
        """Memory, or the reach of offsets, was other than planned: go on so, in later runs too."""
        self.enter({"plan": plan.to_dict()})

    def unfinished(
        self, first: Segment, last: int | None = None
    ) -> tuple[Segment, int | None] | None:
        """Where to go on, and the last segment before one that is finished; None if all are.

        Args:
            first, last: of those to be made, a segment and a number; None: to the end.
        """
        self._known.setdefault(first.number, first)
        number = first.number
        while number in self.frames:
            if number in (self._ended_by, last):
                return None
            number += 1
        later = [finished for finished in self.frames if finished > number]
        return self._known[number], min(later) - 1 if later else last

    def paths(self) -> list[Path]:
        """The finished segments, in order."""
        return [self._paths[number] for number in sorted(self.frames)]

    def _take(self, record: Mapping[str, Any]) -> None:
        if "plan" in record:
            self.plan = Plan.from_dict(record["plan"])
        if "segment" not in record:
            return
        segment = Segment.from_dict(record["segment"])
        self._known[segment.number] = segment
        if record["following"] is None:
            self._ended_by = segment.number
        else:
            self._known[segment.number + 1] = Segment.from_dict(record["following"])
        path = self._job.path_of(segment.number)
        if self._joining or (path.exists() and size_of(path) == record["bytes"]):
            self.frames[segment.number] = record["frames"]
            self._paths[segment.number] = path
        self.damage += [what for what in record.get("damage", ()) if what not in self.damage]


class SegmentWriter:
    """Pictures from the network to segments: a context manager, which aborts after an exception.

    Args:
        job: what they are made of; source: layout of its planes.
        ledger: where a segment is entered when it is finished.
        damage: what the reader has found broken so far.
    """

    def __init__(self, job: Job, source: colour.Layout, ledger: Ledger, damage: list[str]) -> None:
        self._job = job
        self._source = source
        self._ledger = ledger
        self._damage = damage
        self._sink: SegmentSink | None = None
        self._segment: Segment | None = None
        self._cuts: list[int] = []
        self._done: SimpleQueue[SegmentDone] = SimpleQueue()

    def __enter__(self) -> "SegmentWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._sink is not None:
            self._sink.abort()

    def write(self, picture: Picture) -> None:
        """Add the next frame; a segment ends where another one begins."""
        job, place, target = self._job, picture.place, self._job.target
        if self._sink is None or place.segment != self._segment:
            self.finish(place.segment)
            self._segment = place.segment
            self._sink = SegmentSink(
                job.path_of(place.segment.number),
                target,
                job.program,
                result=job.output,
                first=place.index,
                offset=job.offset,
            )
        if place.cut:
            self._cuts.append(place.index)
        size = (target.height, target.width)
        planes = colour.from_network(
            picture.luma, picture.chroma, self._source, target.layout, size
        )
        self._sink.write(planes, place.pts)

    def finish(self, following: Segment | None) -> None:
        """End the segment, if there is one. `following`: the next one; None at the end."""
        if self._sink is None or self._segment is None:
            return
        self._sink.finish()
        frames, self._sink = self._sink.frames, None
        cuts, self._cuts = tuple(self._cuts), []
        damage = list(self._damage)
        self._ledger.add(self._segment, frames, following, cuts=cuts, damage=damage)
        self._done.put(SegmentDone(self._segment.number, self._segment.first, frames, cuts))

    def done(self) -> Iterator[SegmentDone]:
        """Those finished since this was last asked."""
        with contextlib.suppress(Empty):
            while True:
                yield self._done.get_nowait()


def made_of(job: Job, source: VideoSource, network: Network) -> dict[str, object]:
    """What decides on the frames of a result, by name; JSON can hold it."""
    tensors = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    settings = {**vars(job.reading), **vars(job.target.encoding)}
    return {
        "source": fingerprint(source),
        "weights": f"{type(network).__name__} {tensors_sha256(tensors)}",
        "version": d3dnet.__version__,
        "torch": torch.__version__,
        "ffmpeg": job.program.version,
        "output": job.output.name,
        "mode": job.mode,
        "cuts": job.cuts if isinstance(job.cuts, str) else [*map(str, job.cuts)],
        **{name: None if value is None else str(value) for name, value in settings.items()},
    }
