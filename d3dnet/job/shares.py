"""The segments of one result in shares, which are made apart, on any machines, and then joined.

What they have in common is in one file of the work folder, which the first share to come writes:
what is made of what, the plan, and which segments each share has. It reads the source once for
that. Each share has a folder, a journal and a lock of its own in there.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from d3dnet.errors import BusyError, OtherWorkError, SharesMissingError
from d3dnet.files import write_whole
from d3dnet.job.journal import (
    JOURNAL,
    LOCK,
    SHARES_FILE,
    Journal,
    Lock,
    differing,
    plan_of,
    work_folder,
)
from d3dnet.job.ledger import Job, Ledger
from d3dnet.job.segments import Segment
from d3dnet.network.plan import Plan
from d3dnet.video.images import is_pattern

JOIN = "join"
WAIT = 0.5  # seconds between looks whether the first share has written what all need


@dataclass(frozen=True)
class Share:
    """One of so many shares, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Of "2/4"; `ValueError` for what is none."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"segment: got {text!r}; accepted is I/N, from 1/N to N/N")
        return cls(int(found[1]), int(found[2]))

    @property
    def name(self) -> str:
        return f"share-{self.number}-of-{self.of}"

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True)
class Part:
    """Segments from `begin` to number `last`, and their frames; or from None: no segment at all.

    With None for the others: to the end of the video.
    """

    begin: Segment | None
    last: int | None
    frames: int | None


class Shares:
    """What all shares of a result have in common.

    Attributes:
        path, parent: as for `Journal`; folder: of the work.
        parts: of the shares, in order.
    """

    def __init__(self, path: Path, parent: Path | None) -> None:
        self.path = path
        self.parent = parent
        self.folder = work_folder(path, parent)
        self._plan: dict[str, Any] = {}
        self.parts: list[Part] = []
        self._made_of: dict[str, Any] = {}
        self._lock: Lock | None = None

    @property
    def plan(self) -> Plan | None:
        """How the network is run; None until it is settled.

        Raises:
            OtherWorkError: another version settled it otherwise.
        """
        return plan_of(self._plan, self.path, self.folder) if self._plan else None

    def wait(self) -> None:
        """Until it is settled, or it is ours to do so; then nobody else begins before `let_go`.

        Raises:
            OtherWorkError: there is work without shares.
        """
        while not self.read():
            if (self.folder / JOURNAL).exists():
                raise OtherWorkError(
                    f"{self.path}: {self.folder} holds unfinished work without shares; run the "
                    "command that began it, without --segment, or remove it"
                )
            try:
                self._lock = Lock(self.folder / LOCK, self.path)
            except BusyError:
                time.sleep(WAIT)
                continue
            if self.read():
                self.let_go()
            return

    def let_go(self) -> None:
        """Let others begin, if they wait for us."""
        if self._lock is not None:
            self._lock.release() if self._plan else self._lock.remove()
            self._lock = None

    def journal(self, share: Share) -> Journal:
        """That of a share."""
        return Journal(self.path, self.parent, share.name)

    def read(self) -> bool:
        """Whether it is settled already."""
        try:
            content = json.loads((self.folder / SHARES_FILE).read_bytes())
        except FileNotFoundError:
            return False
        self._plan, self._made_of = content["plan"], content["made_of"]
        self.parts = [
            Part(begin and Segment.from_dict(begin), last, frames)
            for begin, last, frames in content["parts"]
        ]
        return True

    def settle(
        self,
        count: int | None,
        made_of: Mapping[str, Any],
        plan: Plan,
        find: Callable[[], Iterable[tuple[Segment, int]]],
    ) -> None:
        """See that it is the same work as that of the others; the first one writes it down.

        Args:
            count: of shares, None for as many as there are; made_of, plan: as for `Journal.begin`.
            find: gives all segments, and how many frames each has.

        Raises:
            OtherWorkError: the other shares are of something else; names what differs.
        """
        now = json.loads(json.dumps(made_of))
        if not self._plan:
            self._plan, self._made_of = plan.to_dict(), now
            self.parts = divided(list(find()), count or 1)
            parts = [(p.begin and asdict(p.begin), p.last, p.frames) for p in self.parts]
            content = {"made_of": now, "plan": self._plan, "parts": parts}
            write_whole(self.folder / SHARES_FILE, json.dumps(content).encode())
            self.let_go()
        differences = differing(self._made_of, now)
        if count not in (None, len(self.parts)):
            differences = [f"{len(self.parts)} shares there, {count} now"]
        if differences:
            raise OtherWorkError(
                f"{self.path}: {self.folder} holds shares of another kind "
                f"({'; '.join(differences)}); run the command that began them, or remove it"
            )


def divided(found: list[tuple[Segment, int]], count: int) -> list[Part]:
    """Runs of segments, with about as many frames each."""
    total = sum(frames for _, frames in found)
    shares: list[list[tuple[Segment, int]]] = [[] for _ in range(count)]
    before = 0
    for segment, frames in found:
        shares[(2 * before + frames) * count // (2 * total)].append((segment, frames))
        before += frames
    return [
        Part(share[0][0], share[-1][0].number, sum(frames for _, frames in share))
        if share
        else Part(None, -1, 0)
        for share in shares
    ]


@contextmanager
def journal_of_whole(path: Path, parent: Path | None, restart: bool) -> Iterator[Journal]:
    """The journal of a result that is made as a whole.

    Args:
        path, parent: as for `Journal`.
        restart: forget what is there.

    Raises:
        OtherWorkError: there are shares. BusyError: another process works on it.
    """
    shares = Shares(path, parent)
    if shares.read():
        if not restart:
            raise OtherWorkError(
                f"{path}: {shares.folder} holds shares (--segment); make the others and use d3dnet "
                "join, or use --restart to begin again without"
            )
        for lock in shares.folder.glob(f"share-*/{LOCK}"):
            Lock(lock, path).release()  # refused while one is being made
    with Journal(path, parent) as journal:
        if restart or not journal.any_done:
            journal.restart()
        yield journal


@contextmanager
def journal_of_share(shares: "Shares", share: Share, restart: bool) -> Iterator[Journal]:
    """The journal of a share; `shares` is then settled, or to be settled by this one.

    Raises:
        OtherWorkError: there is work without shares. BusyError: another process makes this share.
    """
    with ExitStack() as stack:
        stack.callback(shares.let_go)
        shares.wait()
        journal = stack.enter_context(shares.journal(share))
        if restart or not journal.any_done:
            journal.restart()
        yield journal


@contextmanager
def journal_of_join(shares: "Shares") -> Iterator[Journal]:
    """The journal of a result that is to be joined of shares.

    Raises:
        SharesMissingError: there are none. BusyError: another process works on it.
    """
    if not shares.read():
        raise SharesMissingError(
            f"{shares.path}: no shares in {shares.folder}; make them with d3dnet upscale --segment "
            "1/N to N/N"
        )
    with Journal(shares.path, shares.parent) as journal:
        yield journal


@contextmanager
def collected(shares: Shares, job: Job, ledger: Ledger) -> Iterator[None]:
    """Within it, no share is worked on, and `ledger` has the segments of all.

    Raises:
        BusyError: a share is being made. SharesMissingError: some are not complete; names them.
    """
    missing = []
    with ExitStack() as stack:
        for number, part in enumerate(shares.parts, start=1):
            if part.begin is None or part.last is None:
                continue
            share = Share(number, len(shares.parts))
            journal = stack.enter_context(shares.journal(share))
            done = Ledger(replace(job, folder=journal.folder), journal)
            numbers = [n for n in range(part.begin.number, part.last + 1) if n not in done.frames]
            if numbers:
                of = part.last + 1 - part.begin.number
                missing.append(f"{share} ({len(numbers)} of {of} segments)")
            elif is_pattern(shares.path):
                journal.append({"joining": True})
            ledger.include(done)
        if missing:
            raise SharesMissingError(
                f"{shares.path}: shares are not complete: {', '.join(missing)}; make them with "
                "d3dnet upscale --segment, as the others"
            )
        yield
