"""From frames to finished segments: read, run through the network, written, at the same time.

One thread reads, one runs the network, one writes; between them are short queues, so that memory
does not grow with the length of the video.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d3dnet.job.events import SegmentDone
from d3dnet.job.ledger import Job, Ledger, Picture, SegmentWriter
from d3dnet.job.queues import WriteBehind, read_ahead
from d3dnet.job.segments import Place, Segment, placed, warm_up
from d3dnet.network import MODES
from d3dnet.network.checkpoints import load_model
from d3dnet.network.model import D3Dnet
from d3dnet.network.plan import Plan
from d3dnet.network.streaming import Windows, stream
from d3dnet.network.tiling import run_tiled
from d3dnet.video import colour
from d3dnet.video.source import VideoSource

READ_AHEAD, WRITE_BEHIND = 8, 2  # frames that wait between the threads
SCALE = colour.SCALE
MIN_SIZE = 8  # rows and columns that the network needs
WHOLE_FRAMES = Plan()


def make_segments(
    job: Job,
    source: VideoSource,
    network: nn.Module,
    ledger: Ledger,
    begin: Segment,
    last: int | None = None,
) -> Iterator[Place | SegmentDone]:
    """Segments from `begin` on to number `last`, or to the end, encoded and entered in `ledger`.

    Yields the place of every frame when the network has made it, and what is finished.
    """
    layout = source.layout
    needs = partial(warm_up, network, job.mode)
    frames = placed(source, job.cuts, lambda: needs(ledger.plan), begin)
    prepared = (Picture(*colour.to_network(frame.planes, layout), place) for frame, place in frames)
    writer = SegmentWriter(job, layout, ledger, source.damage)
    following = None
    with closing(read_ahead(prepared, READ_AHEAD)) as pictures, writer:
        with WriteBehind(writer.write, WRITE_BEHIND) as behind:
            for picture in enlarged(pictures, network, job.mode, ledger):
                if last is not None and picture.place.segment.number > last:
                    following = picture.place.segment
                    break
                if picture.place.index >= begin.first:  # before it the network only warms up
                    behind.put(picture)
                    yield picture.place
                yield from writer.done()
        writer.finish(following)
        yield from writer.done()


def enlarged(
    pictures: Iterable[Picture], network: nn.Module, mode: str, ledger: Ledger
) -> Iterator[Picture]:
    """Pictures with their luma four times larger, each shot by itself, by the ledger's plan."""
    for _, shot in groupby(pictures, key=lambda picture: picture.place.shot):
        yield from _enlarged_shot(shot, network, mode, ledger)


def _enlarged_shot(
    shot: Iterable[Picture], network: nn.Module, mode: str, ledger: Ledger
) -> Iterator[Picture]:
    waiting: deque[Picture] = deque()  # in the network

    def luma_frames() -> Iterator[Tensor]:
        for picture in shot:
            waiting.append(picture)
            yield torch.from_numpy(picture.luma)[None]

    for luma in run_network(network, luma_frames(), mode, ledger.plan, ledger.change_plan):
        yield replace(waiting.popleft(), luma=luma[0].float().cpu().numpy())


def run_network(
    network: nn.Module,
    luma: Iterable[Tensor],
    mode: str,
    plan: Plan = WHOLE_FRAMES,
    on_plan: Callable[[Plan], None] | None = None,
) -> Iterator[Tensor]:
    """(1, h, w) float32 luma frames in [0, 1] to as many (1, 4h, 4w), one by one, in order.

    Frames of less than 8 rows or columns are padded with the last one, and cut again.
    `plan` and `on_plan`: of D3Dnet, see `d3dnet.network.tiling.run_tiled`.
    """
    size: list[int] = []

    def padded() -> Iterator[Tensor]:
        for frame in luma:
            size[:] = [SCALE * length for length in frame.shape[1:]]
            rows, columns = (max(0, MIN_SIZE - length) for length in frame.shape[1:])
            yield F.pad(frame[None], (0, columns, 0, rows), mode="replicate")[0]

    if isinstance(network, D3Dnet):
        results = run_tiled(network, padded(), plan, mode, on_plan)
    elif mode == "sequence":
        results = network.stream(padded())
    else:
        results = stream(Windows(network), padded(), chunk=1)
    while True:
        with torch.inference_mode():  # not around a yield, where it would leak to the caller
            result = next(results, None)
        if result is None:
            return
        yield result[:, : size[0], : size[1]]


def load_network(
    model: str | os.PathLike[str] | nn.Module, device: str | torch.device, precision: str
) -> nn.Module:
    if isinstance(model, nn.Module):
        return model
    return load_model(model, device=device, precision=precision)


def check_mode(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"mode: got {mode!r}; accepted are {', '.join(MODES)}")
