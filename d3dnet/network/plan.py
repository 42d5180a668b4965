"""How the network is run over a video: fixed at the start, from the memory that is free.

What needs memory, per pixel of the input (of all tiles with their halos, where there are tiles),
for the published network (64 channels) in float32; 16-bit types need half of the first two. The
figures are estimates from small frames (160×120, 320×128), checked at 320×180 alone: 1.2 GB were
expected there in chunks of 8, and a run took 1.3 GB more than the process at rest:

- the **state** of a shot that is being computed: 4 frames of features for each of the 5 residual
  blocks and 6 for the bottleneck, 6.7 kB. It is the price of computing nothing twice, and it does
  not get less with smaller tiles or chunks, as all tiles have theirs.
- the **work**: what a layer reads and writes, its offsets and copies in the layout it needs: 1.8 kB
  for each frame of a chunk and 1 kB besides. With the state: 9.5 kB for chunks of 1, 22 kB for 8.
- results that wait for the other tiles, 64 bytes a frame; the last 28 input frames, 4 bytes each;
- on the CPU, blocks of less than 32 MB that the allocator does not give back: 350 MB, whatever the
  size; and outside of the network the encoder, 4 kB (x264 for 1280×720: 260 MB).

None of it grows with the length of the video. So a frame is computed whole while state and work
fit, with fewer frames at once if need be. Where they do not fit, tiles are computed one after the
other for a *block* of frames, and each begins anew from the 28 frames before the block: only one
tile's state is held at a time, for 28 frames' work a block more. `make_plan` tries all combinations
and takes the one with the least work that fits.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise, product
from typing import Any

import torch

from d3dnet.errors import NotEnoughMemoryError
from d3dnet.network import Mode
from d3dnet.network.interface import Network, Plannable
from d3dnet.network.memory import free_memory
from d3dnet.network.offsets import expected_reach
from d3dnet.wording import show_size

CHUNK = 8  # frames computed together where memory allows; the result does not depend on it
BLOCKS = (0, 128, 64, 32, 16, 8)
SMALLEST_TILE = 16
USABLE = 0.8  # of the memory that is free, at most
HEAP = 350 * 2**20  # bytes that the CPU's allocator holds and does not use
OUTSIDE = 4500  # bytes per input pixel: decoder and encoder, and frames on their way


@dataclass(frozen=True)
class Plan:
    """How the network is run. Two runs with one plan on one machine give the same frames.

    Attributes:
        precision: arithmetic of the network, one of `d3dnet.network.PRECISIONS`.
        device: its kind, "cpu", "cuda" or "mps"; memory was planned for it.
        threads: of the CPU.
        chunk: frames computed together.
        tile: rows and columns of a tile in input pixels, without its halo; 0: the whole frame.
        reach: input pixels that the offsets of all D3D layers may reach in a row, part of the halo.
        block: frames for which all tiles are computed in turn, each beginning anew; 0: the states
            of all tiles are kept, from chunk to chunk.
    """

    precision: str = "float32"
    device: str = "cpu"
    threads: int = 1
    chunk: int = CHUNK
    tile: int = 0
    reach: int = 0
    block: int = 0

    def __post_init__(self) -> None:
        least = {"threads": 1, "chunk": 1, "tile": 0, "reach": 0, "block": 0}
        for name, value in least.items():
            found = getattr(self, name)
            if not isinstance(found, int) or found < value:
                raise ValueError(f"{name}: got {found!r}; accepted is a number from {value} up")

    def to_dict(self) -> dict[str, Any]:
        """Names and values, for a journal."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Plan":
        """The plan of `to_dict`; `ValueError` if a value is missing, unknown or out of range."""
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ValueError(f"plan: got {sorted(values)}; accepted are {sorted(names)}")
        return cls(**values)

    def with_reach(self, reach: int, height: int, width: int) -> "Plan":
        """For offsets that were found to reach so far: a larger halo, in smaller tiles."""
        reach = min(max(reach + reach // 4, self.reach + 1), max(height, width))
        side = self.tile - 2 * (reach - self.reach)
        return replace(self, reach=reach, tile=max(side, min(self.tile, SMALLEST_TILE)))

    def halved(self, height: int, width: int) -> "Plan | None":
        """For memory that was full: tiles half as large, one state at a time; None: no more."""
        side = self.tile or max(height, width)
        if side <= SMALLEST_TILE:
            return None
        return replace(self, tile=max(SMALLEST_TILE, -(-side // 2)), block=self.block or 32)


def spans(length: int, tile: int, halo: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Cut a length into equal parts of at most `tile` (0: one part), with and without halo.

    Returns:
        ((begin, end), (outer begin, outer end)) of each part; the outer ends stay within.
    """
    count = math.ceil(length / tile) if tile else 1
    ends = [round(length * index / count) for index in range(count + 1)]
    return [
        ((begin, end), (max(0, begin - halo), min(length, end + halo)))
        for begin, end in pairwise(ends)
    ]


@dataclass(frozen=True)
class Cost:
    """What a plan takes: bytes on the network's device and in the host besides, and work.

    `work` is the time in units of that of a whole frame with its neighbours' features at hand.
    """

    device: int
    host: int
    work: float


def cost(network: Plannable, plan: Plan, height: int, width: int, mode: Mode = "sequence") -> Cost:
    """What a plan takes for frames of this size."""
    halo = network.spatial_radius + plan.reach
    outer = [
        [end - begin for _, (begin, end) in spans(length, plan.tile, halo)]
        for length in (height, width)
    ]
    largest, every = math.prod(map(max, outer)), math.prod(map(sum, outer))
    takes = network.footprint(mode, plan.chunk)
    work = every / (height * width) * (1 + 0.1 / plan.chunk) * takes.effort
    if plan.block:
        work *= 1 + 2 * takes.radius / plan.block
    held = 4 * network.scale**2 * (plan.block or plan.chunk) + 4 * (2 * takes.radius + plan.block)
    return Cost(
        device=round((largest if plan.block else every) * takes.state + largest * takes.work),
        host=round(height * width * held),
        work=work,
    )


def make_plan(
    network: Network,
    height: int,
    width: int,
    *,
    mode: Mode = "sequence",
    tile: int | None = None,
    max_memory: int | None = None,
) -> Plan:
    """Plan how to run a network over frames of this size, from the memory that is free now.

    Args:
        network: on its device, in its precision. One that is not `Plannable` gets a plan
            that nothing is taken from but the threads.
        height, width: of the input frames.
        mode: "sequence" or "window".
        tile: rows and columns of a tile, 0 for whole frames; None for what memory allows.
        max_memory: bytes that may be used, on a CUDA device its own, otherwise this process's and
            its encoder's; None for four fifths of what is free.

    Raises:
        NotEnoughMemoryError: no plan fits; it says how much is needed.
        ValueError: a negative tile or limit.
    """
    threads = torch.get_num_threads()
    if max_memory is not None and max_memory <= 0:
        raise ValueError(f"max_memory: got {max_memory}; accepted is a number of bytes above 0")
    if not isinstance(network, Plannable):
        return Plan(threads=threads, chunk=1)
    weight = next(network.parameters())
    fixed = Plan(
        precision=str(weight.dtype).removeprefix("torch."),
        device=weight.device.type,
        threads=threads,
        reach=expected_reach(network),
    )
    longest = max(height, width)
    sides = [0, *(-(-longest // parts) for parts in (2, 3, 4, 6, 8, 12, 16, 24, 32, 64))]
    sides = [side for side in sides if not 0 < side < SMALLEST_TILE]
    if tile is not None:
        sides = [tile if tile < longest else 0]
    chunks = (1,) if mode == "window" else (8, 4, 2, 1)
    plans = [
        replace(fixed, tile=side, chunk=chunk, block=block)
        for side, chunk, block in product(sides, chunks, BLOCKS)
    ]
    costs = {plan: cost(network, plan, height, width, mode) for plan in plans}
    on_device, in_host = _limits(network, height * width, max_memory)
    shared = weight.device.type != "cuda"

    def fits(plan: Plan) -> bool:
        needed = costs[plan]
        in_all = needed.host + (needed.device if shared else 0)
        return needed.device <= on_device and in_all <= in_host

    if fitting := [plan for plan in plans if fits(plan)]:
        return min(fitting, key=lambda plan: costs[plan].work)
    least = min(costs.values(), key=lambda needed: needed.device + needed.host)
    raise NotEnoughMemoryError(
        f"memory: the network needs {show_size(least.device + least.host)} at least for "
        f"{width}×{height} frames{f' in tiles of {tile}' if tile else ''}; "
        f"{show_size(max(0, min(on_device, in_host)))} may be used: close other programs, or give "
        "a higher --max-memory or a smaller --tile"
    )


def _limits(network: Plannable, pixels: int, max_memory: int | None) -> tuple[float, float]:
    """Bytes that may be used on the network's device, and in the host; on the CPU both at once."""
    device = next(network.parameters()).device
    host = USABLE * free_memory(torch.device("cpu"))
    if device.type != "cuda" and max_memory is not None:
        import psutil  # training does without

        host = max_memory - psutil.Process().memory_info().rss
    host -= min(OUTSIDE * pixels, host / 2)  # encoders differ: no reason to refuse
    if device.type != "cuda":
        return math.inf, host - HEAP
    if max_memory is None:
        return USABLE * free_memory(device), host
    return max_memory - torch.cuda.memory_allocated(device), host
