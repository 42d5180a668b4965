"""From frames to finished segments: read, run through the network, written, at the same time.

One thread reads, one runs the network, one writes; between them are short queues, so that memory
does not grow with the length of the video.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import groupby

import torch

from d3dnet.job.events import SegmentDone
from d3dnet.job.ledger import Job, Ledger, Picture, SegmentWriter
from d3dnet.job.queues import WriteBehind, read_ahead
from d3dnet.job.segments import Place, Segment, placed, warm_up
from d3dnet.network import Mode
from d3dnet.network.interface import Network
from d3dnet.network.run import run_paired
from d3dnet.video import colour
from d3dnet.video.source import VideoSource

READ_AHEAD, WRITE_BEHIND = 8, 2  # frames that wait between the threads


def make_segments(
    job: Job,
    source: VideoSource,
    network: Network,
    ledger: Ledger,
    begin: Segment,
    last: int | None = None,
) -> Generator[Place | SegmentDone, None, None]:
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
    pictures: Iterable[Picture], network: Network, mode: Mode, ledger: Ledger
) -> Iterator[Picture]:
    """Pictures with their luma four times larger, each shot by itself, by the ledger's plan."""
    for _, shot in groupby(pictures, key=lambda picture: picture.place.shot):
        yield from _enlarged_shot(shot, network, mode, ledger)


def _enlarged_shot(
    shot: Iterable[Picture], network: Network, mode: Mode, ledger: Ledger
) -> Iterator[Picture]:
    frames = ((torch.from_numpy(picture.luma)[None], picture) for picture in shot)
    for luma, picture in run_paired(network, frames, mode, ledger.plan, ledger.change_plan):
        yield replace(picture, luma=luma[0].float().cpu().numpy())
