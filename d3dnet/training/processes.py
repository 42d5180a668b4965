"""The processes of a training: one, or as many as torchrun starts, on one machine or several."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from d3dnet.network.checkpoints import resolve_device


@dataclass(frozen=True)
class Processes:
    """Where this process stands among `count`. Only rank 0 writes files and prints."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether it is this process that writes files and prints."""
        return self.rank == 0

    def mean(self, *values: float) -> list[float]:
        """The mean of each value over all processes, the same to the bit in each of them."""
        if self.count == 1:
            return [float(value) for value in values]
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return (total / self.count).tolist()

    @contextmanager
    def first_on_its_machine_first(self) -> Iterator[None]:
        """What one process caches on disk, the others of its machine find there."""
        waits = self.count > 1 and int(os.environ.get("LOCAL_RANK", self.rank)) > 0
        if waits:
            dist.barrier()
        yield
        if self.count > 1 and not waits:
            dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in each."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Any) -> Any:
        """The value of rank 0, in each."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """This process among those of torchrun (by its environment), each with a GPU of its own.

    Args:
        device: as of `TrainingConfig`; of several processes on GPUs, each takes the one of its
            LOCAL_RANK.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        yield Processes(0, 1, resolve_device(device))
        return
    chosen = resolve_device(device)
    if chosen.type == "cuda":
        chosen = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), count, chosen)
    finally:
        dist.destroy_process_group()
