"""Workers on this machine: processes, one for each device."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from typing import Any

from d3dnet.job.workers import ENDED, LOST, WAIT, Message, Workers, answers


class Devices:
    """Processes of this machine, one for each device; a context manager.

    Args:
        devices: names as for `torch.device`; twice the same makes two processes for it.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self.count = self.together = len(devices)
        self.stopped = threading.Event()
        self._context = multiprocessing.get_context("spawn")
        self._lock = threading.Lock()
        self._all = [_Process(self._context, device) for device in devices]
        self._free = [*self._all]

    def __enter__(self) -> "Devices":
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._all:
            process.kill()

    def start(self, function: Callable[..., Iterator[Message]], *args: object) -> "_Process | None":
        with self._lock:
            process = self._free.pop(0) if self._free else None
        if process is not None:
            process.send(function, args)
        return process

    def wait(self, tasks: "Sequence[_Process]") -> "list[tuple[_Process, Message]]":
        if not tasks:
            time.sleep(WAIT)
        pipes = [task.pipe for task in tasks if task.pipe is not None]
        ready = connection.wait(pipes, WAIT) if pipes else []
        got = [(task, task.receive()) for task in tasks if task.pipe in ready]
        for task, message in got:
            if message is ENDED or message is LOST:
                with self._lock:
                    self._free.append(task)
        return got

    def cancel(self, task: "_Process") -> None:
        task.kill()
        with self._lock:
            self._free.append(task)


class _Process:
    """A process for one device, begun when it is needed, and again if it died."""

    def __init__(self, context: Any, device: str) -> None:
        self._context = context
        self.device = device
        self._process: Any = None
        self.pipe: connection.Connection[Any, Any] | None = None  # None until it is begun

    def send(self, function: Callable[..., Iterator[Message]], args: Sequence[object]) -> None:
        if self._process is None or not self._process.is_alive():
            self.pipe, theirs = self._context.Pipe()
            self._process = self._context.Process(
                target=_serve, args=(theirs, self.device), daemon=True
            )
            self._process.start()
            theirs.close()
        request = pickle.dumps((function, args))  # by value, also what torch might share
        assert self.pipe is not None
        with contextlib.suppress(OSError):  # it has just died, as `receive` will find
            self.pipe.send_bytes(request)

    def receive(self) -> Message:
        assert self.pipe is not None
        try:
            message: Message = self.pipe.recv()
        except (EOFError, OSError):
            self.kill()
            return LOST
        return ENDED if message == ENDED else message

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(pipe: "connection.Connection[Any, Any]", device: str) -> None:
    """Do what the driver asks for, until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides
    threading.Thread(target=_die_with_driver, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):  # it is gone
        while True:
            function, args = pickle.loads(pipe.recv_bytes())
            for message in answers(function, device, args):
                pipe.send(message)
            pipe.send(ENDED)


def _die_with_driver() -> None:
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
    os._exit(1)


@contextlib.contextmanager
def workers_of(device: str, workers: Workers | None) -> Iterator[Workers | None]:
    """`workers`; or a process for each of several devices, as "cuda:0,1"."""
    first, *others = device.split(",")
    kind = first.partition(":")[0]
    if workers is not None or not others:
        yield workers
        return
    names = [f"{kind}:{name}" if name.isdigit() else name for name in others]
    with Devices([first, *names]) as processes:
        yield processes
