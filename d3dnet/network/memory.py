"""How much memory is free: of the machine, of a container's share of it, of a GPU."""

from collections.abc import Iterator
from pathlib import Path

import torch

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
# Version 2 and 1: the limit, what is used, and the file cache in it, which gives way.
FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device without taking them from anyone.

    For a CUDA device its own; otherwise those of the machine (what is available, not swap), or
    what the cgroups of this process leave, if that is less.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What PyTorch holds and does not use is as good as free.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    import psutil  # training does without

    return min([psutil.virtual_memory().available, *_left_by_cgroups()])


def _left_by_cgroups() -> Iterator[int]:
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:
        lines = []  # not Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root = CGROUPS / "memory" if controllers else CGROUPS
        if controllers and "memory" not in controllers.split(","):
            continue
        # In a container the path may be the host's: the group is then the root itself.
        folder = root / path.lstrip("/")
        yield from filter(None, map(_left, {root, folder, *_between(root, folder)}))


def _between(root: Path, folder: Path) -> list[Path]:
    """The groups above a group, which limit it too."""
    return [parent for parent in folder.parents if parent.is_relative_to(root)]


def _left(folder: Path) -> int | None:
    for limit, used, cache in FILES:
        try:
            most = (folder / limit).read_text().strip()
            held = int((folder / used).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        return None if most == "max" else max(1, int(most) - held + int(stat.get(cache, 0)))
    return None
