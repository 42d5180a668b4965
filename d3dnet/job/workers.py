"""Segments made by several processes at once, of which one, the driver, keeps the journal.

The driver reads the source once to find its segments, hands out runs of them, and enters what comes
back. Within a run the network's state is carried on; before it the network warms up, as after a
break. A worker that dies costs the segment that it was making: the rest of its run is handed out
again. Workers are processes of this machine (`local_workers.py`) or of others (`ray_workers.py`).
"""

import socket
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import torch
from torch import nn

from d3dnet.errors import OtherWorkError, OutputError, VideoError, WorkerError
from d3dnet.files import size_of
from d3dnet.job.events import Progress, SegmentDone
from d3dnet.job.journal import differing
from d3dnet.job.ledger import Job, Ledger, made_of
from d3dnet.job.pipeline import make_segments
from d3dnet.job.queues import read_ahead
from d3dnet.job.segments import LONGEST, Place, Segment, find_segments, warm_up
from d3dnet.network.interface import Network
from d3dnet.network.memory import free_memory
from d3dnet.network.plan import USABLE, Plan, make_plan
from d3dnet.network.run import load_network
from d3dnet.video.ffmpeg import find_program
from d3dnet.video.source import VideoSource

Message = dict[str, Any]
LOST: Message = {"lost": True}  # the worker died
ENDED: Message = {"ended": True}
DEATHS = 3  # of workers at one segment, until it is given up
RUN = 8  # segments that are handed out together at most
EVERY, WAIT = 0.5, 0.2  # seconds between reports of progress; that a look for messages may take
VISIBLE_WITHIN = 30.0  # seconds in which what one machine writes is to be seen by another


class Workers(Protocol):
    """Where runs of segments are made; from any thread.

    Attributes:
        stopped: set to have all threads end that wait for messages.
    """

    stopped: threading.Event

    @property
    def count(self) -> int:
        """How many work at once."""

    @property
    def together(self) -> int:
        """How many of them share the memory of a machine."""

    def start(self, function: Callable[..., Iterator[Message]], *args: object) -> Any | None:
        """Have `function(device, *args)` called; the task, or None if none is free."""

    def wait(self, tasks: Sequence[Any]) -> list[tuple[Any, Message]]:
        """Messages that have come of tasks, after a moment at most; the last is ENDED or LOST."""

    def cancel(self, task: Any) -> None:
        """End a task at once."""


@dataclass
class Run:
    """Segments from `begin` to number `last`.

    `deaths` of workers at the first of them; frames `made`, of them `entered` with their segments.
    """

    begin: Segment
    last: int
    deaths: int = 0
    made: int = 0
    entered: int = 0


# In the worker.


def plan_there(
    device: str,
    model: str | nn.Module,
    precision: str,
    height: int,
    width: int,
    limits: dict[str, Any],
    together: int,
) -> Iterator[Message]:
    """What `make_plan` decides where the network will run, with as many beside it."""
    network = _network(model, device, precision)
    kinds = {parameter.device.type for parameter in network.parameters()}
    if together > 1 and limits["max_memory"] is None and "cuda" not in kinds:
        free = free_memory(torch.device("cpu"))
        limits = {**limits, "max_memory": int(USABLE * free / together)}
    yield {"plan": make_plan(network, height, width, **limits).to_dict()}


def make_run(
    device: str, job: Job, made: dict[str, Any], begin: Segment, last: int
) -> Iterator[Message]:
    """Make segments; gives lines for the journal, and how many frames there are in between.

    Args:
        made: what `made_of` gave the driver.
    """
    if not job.folder.is_dir():
        raise OutputError(f"{job.folder}: not there; it must be on storage that all machines share")
    if not Path(job.program.path).exists():
        job = replace(job, program=find_program())
    if job.plan.device == "cpu":
        torch.set_num_threads(job.plan.threads)
    network = _network(job.model, device, job.plan.precision)
    with warnings.catch_warnings(), VideoSource(job.input, job.reading) as source:
        warnings.simplefilter("ignore")  # the driver has warned
        if differences := differing(made, made_of(job, source, network)):
            raise OtherWorkError(f"this machine would make other frames: {'; '.join(differences)}")
        records: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
        ledger = Ledger(job, _Reported(records))
        told, frames, number = time.monotonic(), 0, begin.number
        with closing(make_segments(job, source, network, ledger, begin, last)) as events:
            for event in events:
                if isinstance(event, Place):
                    frames, number = frames + 1, event.segment.number
                while not records.empty():
                    yield {"record": records.get()}
                if isinstance(event, SegmentDone) or time.monotonic() > told + EVERY:
                    yield {"segment": number, "made": frames}
                    told = time.monotonic()


class _Reported:
    """In the place of a journal: what is found out goes to the driver."""

    def __init__(self, found_out: SimpleQueue[Mapping[str, Any]]) -> None:
        self.records: tuple[Mapping[str, Any], ...] = ()
        self._found_out = found_out

    def append(self, record: Mapping[str, Any]) -> None:
        self._found_out.put(record)


def _network(model: str | nn.Module, device: str, precision: str) -> Network:
    if isinstance(model, nn.Module):
        return load_network(model.to(device) if device != "auto" else model)
    return _loaded(model, device, precision)


_loaded = lru_cache(maxsize=1)(load_network)


def answers(
    function: Callable[..., Iterator[Message]], device: str, args: Sequence[object]
) -> Iterator[Message]:
    """What a function yields; and what it raises, as a message too."""
    try:
        yield from function(device, *args)
    except Exception as error:
        if isinstance(error, VideoError):
            error.args = (f"{socket.gethostname()}: {error}",)
        yield {"error": error}


# In the driver.


def settle_plan(workers: Workers, *args: object) -> Plan:
    """The plan of `plan_there`, made by a worker."""
    while (task := workers.start(plan_there, *args, workers.together)) is None:
        _unless_stopped(workers)
        workers.wait([])
    answer: Message = {}
    while True:
        _unless_stopped(workers)
        for _, message in workers.wait([task]):
            if message is ENDED:
                if "error" in answer:
                    raise answer["error"]
                return Plan.from_dict(answer["plan"])
            if message is LOST:
                raise WorkerError("a worker died while it loaded the network")
            answer = message


def spread(
    job: Job,
    source: VideoSource,
    network: Network,
    ledger: Ledger,
    workers: Workers,
    begin: Segment,
    last: int | None,
    frames: int | None,
) -> Generator[Progress | SegmentDone, None, None]:
    """Have the unfinished segments from `begin` to number `last` made, and enter them.

    Args:
        frames: in all these segments, as far as is known.

    Raises:
        WorkerError: workers die again and again, or write where it cannot be seen from here; and
            all that making segments raises.
    """
    made = made_of(job, source, network)
    segments = (frames or 0) / source.frame_rate / LONGEST
    size = min(RUN, max(1, int(segments / (4 * workers.count))))
    found = find_segments(source, job.cuts, lambda: warm_up(network, job.mode, ledger.plan), begin)
    todo = read_ahead(_runs(found, ledger.frames, last, size), 2 * workers.count, wait=False)
    again: deque[Run] = deque()
    running: dict[Any, Run] = {}
    ended = False
    try:
        while not ended or again or running:
            _unless_stopped(workers)
            to_start = again.popleft() if again else None
            if to_start is None and not ended:
                try:
                    to_start = next(todo)
                except StopIteration:
                    ended = True
            if to_start is not None:
                rest = replace(job, plan=ledger.plan)
                task = workers.start(make_run, rest, made, to_start.begin, to_start.last)
                if task is not None:
                    running[task] = to_start
                    continue
                again.appendleft(to_start)
            for task, message in workers.wait(list(running)):
                run = running[task]
                if message is ENDED or message is LOST:
                    del running[task]
                    again.extend(_rest(run, ledger, job))
                elif "error" in message:
                    raise message["error"]
                elif "record" in message:
                    yield from _entered(message["record"], ledger, job, run)
                else:
                    run.made = message["made"]
                    unfinished = sum(max(0, run.made - run.entered) for run in running.values())
                    yield Progress(ledger.done + unfinished, frames, message["segment"])
    finally:
        todo.close()
        for task in running:
            workers.cancel(task)


def _unless_stopped(workers: Workers) -> None:
    if workers.stopped.is_set():
        raise KeyboardInterrupt


def _runs(
    found: Iterable[tuple[Segment, int]], finished: dict[int, int], last: int | None, size: int
) -> Iterator[Run]:
    """What is unfinished of the segments, in runs."""
    run: Run | None = None
    for segment, _ in found:
        done = segment.number in finished
        if run is not None and (done or segment.number - run.begin.number >= size):
            yield run
            run = None
        if last is not None and segment.number > last:
            break
        if not done:
            run = Run(run.begin if run else segment, segment.number)
    if run is not None:
        yield run


def _entered(record: dict[str, Any], ledger: Ledger, job: Job, run: Run) -> Iterator[SegmentDone]:
    """Enter what a worker has found out; of a segment, once its file is seen here."""
    if "segment" not in record:
        ledger.enter(record)
        return
    segment = Segment.from_dict(record["segment"])
    path, until = job.path_of(segment.number), time.monotonic() + VISIBLE_WITHIN
    while not (path.exists() and size_of(path) == record["bytes"]):
        if time.monotonic() > until:
            raise WorkerError(
                f"{path}: a worker has written it, but it is not seen here; the folder must be on "
                "storage that all machines share: choose one with --work-dir"
            )
        time.sleep(WAIT)
    ledger.enter(record)
    run.entered += record["frames"]
    run.deaths = 0
    yield SegmentDone(segment.number, segment.first, record["frames"], tuple(record["cuts"]))


def _rest(run: Run, ledger: Ledger, job: Job) -> Iterator[Run]:
    """What is left of a run that ended, to be made by another worker."""
    left = ledger.unfinished(run.begin, run.last)
    if left is None:
        return
    if run.deaths + 1 >= DEATHS:
        raise WorkerError(
            f"{job.output}: the worker of segment {left[0].number} died {DEATHS} times; what is "
            "finished is kept: see whether it lacks memory (--max-memory), and run it again"
        )
    yield Run(left[0], run.last, run.deaths + 1)
