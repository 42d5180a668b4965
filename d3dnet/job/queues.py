"""Stages that work at the same time: one reads ahead, one writes behind, through bounded queues.

The stage in the middle is the caller's own thread, which signals and exceptions reach.
"""

import threading
from collections.abc import Callable, Generator, Iterable
from queue import Empty, Full, Queue
from typing import Generic, Literal, TypeVar, cast, overload

T = TypeVar("T")
WAIT = 0.1  # seconds after which a stage that waits looks whether it is to stop


@overload
def read_ahead(
    items: Iterable[T], depth: int, wait: Literal[True] = True
) -> Generator[T, None, None]: ...
@overload
def read_ahead(
    items: Iterable[T], depth: int, wait: Literal[False]
) -> Generator[T | None, None, None]: ...
def read_ahead(
    items: Iterable[T], depth: int, wait: bool = True
) -> Generator[T | None, None, None]:
    """`items`, made by a thread of its own, at most `depth` before they are asked for.

    What it raises is raised here, in its turn. Closing this generator stops the thread. Where
    nothing is there yet and it is not to `wait`, it yields None.

    >>> list(read_ahead(range(3), depth=2))
    [0, 1, 2]
    """
    # Item, error, whether it is the end.
    queue: Queue[tuple[T | None, BaseException | None, bool]] = Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple[T | None, BaseException | None, bool]) -> None:
        while not stopped.is_set():
            try:
                return queue.put(entry, timeout=WAIT)
            except Full:
                pass

    def run() -> None:
        try:
            for item in items:
                put((item, None, False))
                if stopped.is_set():
                    return
            put((None, None, True))
        except BaseException as error:
            put((None, error, True))
        finally:
            if hasattr(items, "close"):
                items.close()

    thread = threading.Thread(target=run, name="reader", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item, error, ended = queue.get(block=wait)
            except Empty:
                item, error, ended = None, None, False
            if error is not None:
                raise error
            if ended:
                return
            yield item
    finally:
        stopped.set()
        thread.join()


class WriteBehind(Generic[T]):
    """`write` called for every item by a thread of its own, at most `depth` later: a context.

    Leaving the context waits until all is written; after an exception what waits is dropped.

    Raises (`put` and leaving): what `write` raised.
    """

    def __init__(self, write: Callable[[T], None], depth: int) -> None:
        self._write = write
        self._queue: Queue[tuple[T | None, bool]] = Queue(depth)
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand over an item. Waits while the queue is full."""
        self._put(item, False)

    def __enter__(self) -> "WriteBehind[T]":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self._put(None, True)
                while self._thread.is_alive():  # a join alone would hold signals back
                    self._thread.join(WAIT)
        finally:
            self._stopped.set()
            self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _put(self, item: T | None, last: bool) -> None:
        while self._error is None:
            try:
                return self._queue.put((item, last), timeout=WAIT)
            except Full:
                pass
        raise self._error

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                item, last = self._queue.get(timeout=WAIT)
            except Empty:
                continue
            try:
                if last:
                    return
                self._write(cast(T, item))  # of None are only those that are the last
            except BaseException as error:
                self._error = error
                return
