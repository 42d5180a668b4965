"""The stage around the network: frames of any size, in pieces that fit into memory.

A frame is cut into tiles, each computed with a halo: all the input that its pixels depend on, which
is the receptive field of the convolutions (`spatial_radius`) and what the offsets of the D3D
layers reach, one after the other. Beyond the frame there is no halo, but the zeros that the network
pads with, so that tiled and untiled frames are the same but for rounding.

Each tile is a clip of its own (`streaming.py`). Its state is kept from one block of frames to
the next or, if the plan says so, built anew from the frames before it. The latter also heals: when
the offsets of a tile reach further than its halo, or a GPU's memory is full, the plan is changed,
all states are dropped, and the same frames are computed again.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

import torch
from torch import Tensor

from d3dnet.network import Mode
from d3dnet.network.interface import Feed, Plannable
from d3dnet.network.offsets import measured_reach
from d3dnet.network.plan import Plan, spans
from d3dnet.network.streaming import same_size


class Tile(NamedTuple):
    """Rows and columns (begin, end) that a tile answers for, and those that it computes."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    outer_rows: tuple[int, int]
    outer_columns: tuple[int, int]

    @property
    def has_halo(self) -> bool:
        return (self.rows, self.columns) != (self.outer_rows, self.outer_columns)

    def of_result(self, scale: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Where its pixels are in the whole (1, s h, s w) result, and in its own."""
        whole, own = [slice(None)], [slice(None)]
        for (begin, end), (outer, _) in zip(self[:2], self[2:], strict=True):
            whole.append(slice(scale * begin, scale * end))
            own.append(slice(scale * (begin - outer), scale * (end - outer)))
        return tuple(whole), tuple(own)


def tiles(height: int, width: int, tile: int, halo: int) -> list[Tile]:
    """Tiles that cover a frame, from the top left; sizes differ by a pixel at most."""
    columns = spans(width, tile, halo)
    return [
        Tile((y0, y1), (x0, x1), outer_rows, outer_columns)
        for (y0, y1), outer_rows in spans(height, tile, halo)
        for (x0, x1), outer_columns in columns
    ]


def run_tiled(
    network: Plannable,
    frames: Iterable[Tensor],
    plan: Plan,
    mode: Mode = "sequence",
    on_plan: Callable[[Plan], None] | None = None,
) -> Iterator[Tensor]:
    """Super-resolve the frames of one shot, as the plan says.

    Args:
        network: in eval mode, on its device.
        frames: (1, h, w) luma in [0, 1], all of one size.
        plan: from `d3dnet.network.plan.make_plan`; its tile, reach, chunk and block are used.
        mode: "sequence" or "window".
        on_plan: called with the new plan when it had to be changed: further calls, and a resumed
            run, are best given that one.

    Yields:
        One (1, s h, s w) float32 frame on the CPU for each input frame, in order, at most
        radius + block (or chunk) + 1 frames behind the input.

    Raises:
        torch.OutOfMemoryError: even the smallest tile does not fit into the GPU's memory.
    """
    shot = _Shot(network, plan, mode, on_plan)
    size = plan.block or plan.chunk
    frames = network.guide(same_size(frames))
    block = list(islice(frames, size))
    while block:
        following = list(islice(frames, 1))  # the last block is to know that it is
        yield from shot.compute(block, last=not following)
        block = [*following, *islice(frames, size - len(following))]


class _ReachExceededError(Exception):
    """Offsets reach `reach` pixels, further than the halo of their tile allows."""

    def __init__(self, reach: int) -> None:
        self.reach = reach


class _Shot:
    """What is known of a shot between two blocks: its last frames, and the states of its tiles."""

    def __init__(
        self, network: Plannable, plan: Plan, mode: Mode, on_plan: Callable[[Plan], None] | None
    ) -> None:
        self.network, self.plan, self.mode, self.on_plan = network, plan, mode, on_plan
        self.radius = network.begin(mode).radius
        self.before: list[Tensor] = []  # the last 2 radius frames
        self.taken_in = self.put_out = 0  # frames
        self.states: dict[Tile, Feed] = {}

    def compute(self, block: list[Tensor], last: bool) -> list[Tensor]:
        """The frames that are complete with these, which are the next ones."""
        while True:
            try:
                results = self._all_tiles(block, last)
                break
            except _ReachExceededError as error:
                height, width = block[0].shape[1:]
                plan = self.plan.with_reach(error.reach, height, width)
            except torch.OutOfMemoryError:
                height, width = block[0].shape[1:]
                halved = self.plan.halved(height, width)
                if halved is None:
                    raise
                plan = halved
            # Outside the handlers, whose traceback would hold on to the memory of the attempt.
            self.states.clear()
            torch.cuda.empty_cache()
            self.plan = plan
            if self.on_plan is not None:
                self.on_plan(plan)
        self.before = [*self.before, *block][-2 * self.radius :]
        self.taken_in += len(block)
        self.put_out += len(results)
        return results

    def _all_tiles(self, block: list[Tensor], last: bool) -> list[Tensor]:
        height, width = block[0].shape[1:]
        scale = self.network.scale
        complete = self.taken_in + len(block) - (0 if last else self.radius)
        count = max(0, complete - self.put_out)
        results = [torch.empty(1, scale * height, scale * width) for _ in range(count)]
        halo = self.network.spatial_radius + self.plan.reach
        for tile in tiles(height, width, self.plan.tile, halo):
            with measured_reach(self.network) as reach:
                self._one_tile(tile, block, last, results)
            if tile.has_halo and reach() > self.plan.reach:
                raise _ReachExceededError(reach())
        return results

    def _one_tile(self, tile: Tile, block: list[Tensor], last: bool, results: list[Tensor]) -> None:
        """Write the tile's part of every result."""
        state = self.states.pop(tile, None)
        if state is None:
            # Built anew: the first of the frames before only serve the others.
            skip = self.put_out - (self.taken_in - len(self.before))
            state = self.network.begin(self.mode, skip)
            block = [*self.before, *block]
        y, x = slice(*tile.outer_rows), slice(*tile.outer_columns)
        pieces = (
            torch.stack([frame[:, y, x] for frame in block[start : start + self.plan.chunk]], 1)
            for start in range(0, len(block), self.plan.chunk)
        )
        outputs = chain.from_iterable(state.feed(piece[None]) for piece in pieces)
        if last:
            outputs = chain(outputs, state.finish())
        place, part = tile.of_result(self.network.scale)
        for result, output in zip(results, outputs, strict=True):
            result[place] = output[part]
        if not (self.plan.block or last):
            self.states[tile] = state
