"""Workers on other machines: runs of segments as Ray tasks.

All machines need d3dnet, and the input, the weights and the work folder under the same names.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from d3dnet.errors import ClusterError, WorkerError
from d3dnet.job.workers import ENDED, LOST, WAIT, Message, answers

CPUS = 4  # of a task, where machines have as many
QUEUED = 4  # tasks that wait for a place, beyond those that have one


class Cluster:
    """A Ray cluster; a context manager. Workers as `d3dnet.job.workers.Workers`.

    Args:
        address: "auto" (the one this machine belongs to), "local" (this machine alone), or as
            `ray.init` takes it. Where Ray is connected already, that connection is used.
        device: as for `d3dnet.load_model`, there.
        cpus_per_task, gpus_per_task: None for up to 4, and for 1 if a machine has GPUs and
            `device` does not say otherwise.

    Raises:
        ClusterError: see there.
    """

    def __init__(
        self,
        address: str,
        device: str = "auto",
        cpus_per_task: int | None = None,
        gpus_per_task: float | None = None,
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise ClusterError("--ray: Ray is not installed: pip install 'd3dnet[ray]'") from None
        self._ray = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            self._connect(address)
        machines = self._machines()
        if gpus_per_task is None:
            gpus = any(machine.get("GPU") for machine in machines)
            gpus_per_task = 1 if gpus and device.startswith(("auto", "cuda")) else 0
        fitting = [m.get("CPU", 0) for m in machines if m.get("GPU", 0) >= gpus_per_task]
        self._cpus = cpus_per_task or max(1, min(CPUS, int(max(fitting, default=1))))
        self._needs = {"CPU": self._cpus, "GPU": gpus_per_task}
        self._device = device
        if not any(map(self._places, machines)):
            self.__exit__()
            there = ", ".join(f"{m.get('CPU', 0):g} and {m.get('GPU', 0):g}" for m in machines)
            raise ClusterError(
                f"--ray {address}: no machine there has {self._cpus} CPUs and {gpus_per_task:g} "
                f"GPUs for a task (they have {there}); see --cpus-per-task, --gpus-per-task"
            )
        self.stopped = threading.Event()
        self._running: set[Any] = set()
        self._function = ray.remote(
            num_returns="streaming", max_retries=0, num_cpus=self._cpus, num_gpus=gpus_per_task
        )(_task)

    def _connect(self, address: str) -> None:
        before = signal.getsignal(signal.SIGTERM)
        more = {"include_dashboard": False} if address == "local" else {}
        try:
            self._ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **more)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ClusterError(
                f"--ray {address}: no Ray cluster answers there ({error}); start one with "
                "ray start --head, or use --ray local"
            ) from None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray has one of its own

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._ours:
            self._ray.shutdown()

    @property
    def count(self) -> int:
        return max(1, sum(map(self._places, self._machines())))

    @property
    def together(self) -> int:
        return max(1, *map(self._places, self._machines()))

    def start(self, function: Callable[..., Iterator[Message]], *args: object) -> Any | None:
        if len(self._running) >= self.count + QUEUED:
            return None
        task = self._function.remote(self._cpus, function, self._device, args)
        self._running.add(task)
        return task

    def wait(self, tasks: Sequence[Any]) -> list[tuple[Any, Message]]:
        if not tasks:
            time.sleep(WAIT)
            return []
        ready, _ = self._ray.wait(list(tasks), num_returns=1, timeout=WAIT)
        return [(task, self._receive(task)) for task in ready]

    def cancel(self, task: Any) -> None:
        self._running.discard(task)
        self._ray.cancel(task, force=True)

    def _receive(self, task: Any) -> Message:
        message: Message
        try:
            message = self._ray.get(next(task))
            return message
        except StopIteration:
            message = ENDED
        except self._ray.exceptions.RayTaskError as error:  # it could not even begin
            message = {"error": WorkerError(f"a worker failed: {error.cause!r}")}
        except self._ray.exceptions.RayError:
            message = LOST
        self._running.discard(task)
        return message

    def _machines(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _places(self, machine: dict[str, float]) -> int:
        """How many tasks at once a machine has place for."""
        return int(min(machine.get(kind, 0) / need for kind, need in self._needs.items() if need))


def _task(
    threads: int, function: Callable[..., Iterator[Message]], device: str, args: Sequence[object]
) -> Iterator[Message]:
    torch.set_num_threads(threads)
    yield from answers(function, device, args)
