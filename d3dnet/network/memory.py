"""How much memory is free: of the machine, of a container's share of it, of a GPU."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
# Version 2 and 1: the limit, what is used, and the file cache in it, which gives way.
FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class NotEnoughMemoryError(ValueError):
    """What is asked for does not fit; the message is one line."""

    exit_code = 3


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device without taking them from anyone.

    For a CUDA device its own; otherwise those of the machine (what is available, not swap), or
    what the cgroups of this process leave, if that is less.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What PyTorch holds and does not use is as good as free.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min([psutil.virtual_memory().available, *_left_by_cgroups()])


def parse_size(text: str) -> int:
    """Bytes of "800M", "6G", "1.5GiB" or "1000000".

    Raises:
        ValueError: anything else.
    """
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    power = "KMGT".find(number[-1:]) + 1 if number else 0
    try:
        value = float(number[:-1] if power else number) * 1024**power
        if not 0 < value < float("inf"):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"got {text!r}; accepted are bytes, or a number with K, M, G or T, as 6G"
        ) from None
    return int(value)


def show_size(size: float) -> str:
    """Bytes as a person reads them: "90 KiB", "850 MiB", "6.2 GiB"."""
    mebibytes = size / 2**20
    if mebibytes < 10:
        return f"{size / 1024:.0f} KiB"
    if mebibytes < 1000:
        return f"{mebibytes:.0f} MiB"
    return f"{mebibytes / 1024:.1f} GiB"


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
