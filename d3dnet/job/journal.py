"""The work folder of an unfinished result, and the journal in it: what is done, whatever happens.

The journal is a file of JSON lines that is only appended to, each line on the disk before the work
goes on. Its first line says what is made of what, and how; work on anything else is refused. A last
line that a crash tore off counts for nothing.
"""

import contextlib
import errno
import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from d3dnet.errors import BusyError, DiskError, OtherWorkError
from d3dnet.files import remove, sync
from d3dnet.network.plan import Plan

SUFFIX = ".d3dnet"
JOURNAL, LOCK, SHARES_FILE = "journal.jsonl", "lock", "shares.json"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
LONGEST_NAME = 200  # bytes; file systems allow 255


def work_folder(path: Path, parent: Path | None = None) -> Path:
    """Where work on the result `path` is kept: beside it, or in `parent`."""
    name = path.name
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f"{name[:40]}.{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
    return (parent or path.parent) / (name + SUFFIX)


class Lock:
    """A file that one process holds, until it ends, however it ends.

    Raises:
        BusyError: another one holds it.
    """

    def __init__(self, path: Path, what: Path | str) -> None:
        self._path = path
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+b")
            try:
                _lock(file)
            except OSError as error:
                file.close()
                if error.errno in NO_LOCKS:
                    raise DiskError(
                        f"{path}: this file system has no locks ({error.strerror}); mount it with "
                        "them, or keep the work on another disk with --work-dir"
                    ) from None
                raise BusyError(
                    f"{what}: another process works on it; wait for it, or choose another name"
                ) from None
            # Whoever held it may have removed it meanwhile.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                    break
            file.close()
        self._file = file

    def release(self) -> None:
        """Let others have it."""
        self._file.close()

    def remove(self) -> None:
        """Let others have it, and remove it with its folder, if nothing else is there."""
        if os.name == "nt":  # where nothing that is open can be removed
            self.release()
        with contextlib.suppress(OSError):
            self._path.unlink()
            self._path.parent.rmdir()
        self.release()


class Journal:
    """What is done for a result, in folders that one process at a time has: a context manager.

    Leaving it removes the folders if nothing was done yet, or `finished` is set: all was.

    Args:
        path: the result.
        parent: where to keep the work; None for the result's own folder.
        share: name of the share that is made, in a folder of its own within those; "": all.

    Attributes:
        folder: where work is kept; beside: a folder next to the result, on the same disk.
        header: the first line, or None; records: all others, in their order.

    Raises:
        BusyError: another process works on the result.
    """

    def __init__(self, path: Path, parent: Path | None = None, share: str = "") -> None:
        self.beside = work_folder(path) / share
        self.folder = work_folder(path, parent) / share
        self.finished = False
        self._what = f"{path}, {share}" if share else str(path)
        self._share = share
        self._locks = [Lock(self.beside / LOCK, self._what)]
        if self.folder != self.beside:
            try:
                self._locks.append(Lock(self.folder / LOCK, self._what))
            except BaseException:
                self._locks[0].remove()
                raise
        self._path = self.folder / JOURNAL
        self._appending = threading.Lock()
        self.header: dict[str, Any] | None = None
        self.records: list[dict[str, Any]] = []
        if lines := [*_whole_lines(self._path)]:
            self.header, *self.records = lines
        self._cut_off_rest()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.finished or not self.any_done:
            self.restart()
            for lock in self._locks:
                lock.remove()
            for folder in (self.folder, self.beside) if self._share else ():
                with contextlib.suppress(OSError):
                    folder.parent.rmdir()
        else:
            for lock in self._locks:
                lock.release()

    @property
    def any_done(self) -> bool:
        """Whether there is anything to go on with."""
        shares = (self.folder / SHARES_FILE).exists()
        return shares or any("segment" in record for record in self.records)

    def begin(self, made_of: Mapping[str, Any], plan: Plan) -> None:
        """Go on with the work that is there, or begin.

        Args:
            made_of: what decides on the result: names and values that JSON can hold.
            plan: what was decided at the beginning, and holds until the end.

        Raises:
            OtherWorkError: the work that is there is of something else; names what differs.
        """
        made_of = json.loads(json.dumps(made_of))
        if self.header is None:
            values = plan.to_dict()
            self._append({"made_of": made_of, "plan": values, "key": key(made_of, values)})
            self.header = {"made_of": made_of, "plan": values}
            sync(self.folder)
            return
        there = self.header.get("made_of", {})
        found = key(there, self.header.get("plan", {}))
        if found != self.header.get("key", found):
            differences = ["its journal is damaged"]
        else:
            differences = differing(there, made_of)
        if differences:
            raise OtherWorkError(
                f"{self._what}: {self.folder} holds unfinished work of another kind "
                f"({'; '.join(differences)}); run the command that began it, or use --restart"
            )

    @property
    def plan(self) -> Plan | None:
        """What was decided at the beginning; None before that.

        Raises:
            OtherWorkError: another version decided it otherwise.
        """
        values = self.header.get("plan") if self.header else None
        return plan_of(values, self._what, self.folder) if values else None

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line, and have it on the disk. From any thread."""
        with self._appending:
            self._append(record)
            self.records.append(dict(record))

    def restart(self) -> None:
        """Forget and remove all that was done."""
        self.header, self.records = None, []
        for folder in {self.folder, self.beside}:
            # What says that there is work goes first: a run that is broken off here leaves none.
            first = (JOURNAL, SHARES_FILE)
            for path in sorted(folder.iterdir(), key=lambda path: path.name not in first):
                if path.name != LOCK:
                    remove(path)

    def _cut_off_rest(self) -> None:
        """What follows the last whole line, or the next one would be a part of it."""
        if self._path.exists():
            lines = self._path.read_bytes().splitlines(keepends=True)
            whole = len(self.records) + (self.header is not None)
            os.truncate(self._path, sum(map(len, lines[:whole])))

    def _append(self, record: Mapping[str, Any]) -> None:
        with open(self._path, "ab") as file:
            size = file.tell()
            try:
                file.write(json.dumps(record).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    os.truncate(self._path, size)
                raise


def plan_of(values: Mapping[str, Any], what: Path | str, folder: Path) -> Plan:
    """The plan that a journal in `folder` holds for a result.

    Raises:
        OtherWorkError: it is of another version.
    """
    try:
        return Plan.from_dict(values)
    except ValueError as error:
        raise OtherWorkError(
            f"{what}: {folder} holds unfinished work of another version of d3dnet "
            f"({error}); go on with that version, or use --restart"
        ) from None


def is_complete(folder: Path) -> bool:
    """Whether a result was complete in this folder, but for giving it its name."""
    return any("complete" in record for record in _whole_lines(folder / JOURNAL))


def key(made_of: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """SHA-256 of what decides on every frame."""
    text = json.dumps([made_of, plan], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _shown(value: object) -> object:
    return "not given" if value is None else value


def differing(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between what two results are made of, as text; both as JSON gives them."""
    return [
        f"{name}: {_shown(there.get(name))} there, {_shown(now.get(name))} now"
        for name in sorted({*there, *now})
        if there.get(name) != now.get(name)
    ]


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """What the file holds up to the first line that is none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for line in data.splitlines(keepends=True):
        try:
            record = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            record = None
        if not isinstance(record, dict):
            return
        yield record


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
