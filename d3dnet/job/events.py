"""What `upscale_video` tells while it works. Every event can be shown as JSON with `as_json`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from d3dnet.video.audit import Audit


@dataclass(frozen=True)
class Start:
    """Work begins, or goes on.

    Attributes:
        input, output: paths; work: folder of what is unfinished.
        width, height: of the result.
        frames: in the source, as far as it says; done: of these, finished before.
        plan: what was decided for the whole result: precision, device, threads, chunk.
    """

    input: Path
    output: Path
    work: Path
    width: int
    height: int
    frames: int | None
    done: int
    plan: dict[str, Any]


@dataclass(frozen=True)
class Progress:
    """A frame was made: how many there are, of how many (if known), and in which segment."""

    done: int
    frames: int | None
    segment: int


@dataclass(frozen=True)
class SegmentDone:
    """A segment is finished, and will not be made again.

    Attributes:
        segment: its number; first: number of its first frame; frames: how many it has.
        cuts: numbers of the frames in it that begin a shot.
    """

    segment: int
    first: int
    frames: int
    cuts: tuple[int, ...]


@dataclass(frozen=True)
class WorkKept:
    """The run ends before its result is complete: so many frames, in `work`, need not be made."""

    work: Path
    frames: int


@dataclass(frozen=True)
class ShareDone:
    """A share of the segments is complete: which, of how many, with so many frames, in `work`."""

    share: int
    shares: int
    frames: int
    work: Path


@dataclass(frozen=True)
class Done:
    """The result is complete."""

    output: Path
    audit: Audit


NAMES = {
    Start: "start",
    Progress: "progress",
    SegmentDone: "segment",
    WorkKept: "kept",
    ShareDone: "share",
    Done: "done",
}
Event = Start | Progress | SegmentDone | WorkKept | ShareDone | Done


def as_json(event: Event) -> dict[str, Any]:
    """What `json.dumps` takes: "event", its kind, and its attributes."""
    return {"event": NAMES[type(event)], **asdict(event, dict_factory=_plain)}


def _plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in items}
