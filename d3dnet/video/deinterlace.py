"""Whole frames from interlaced ones."""

from collections.abc import Iterator
from fractions import Fraction

import av
import av.filter


def deinterlaced(
    pictures: Iterator[tuple[av.VideoFrame, int | None]], time_base: Fraction
) -> Iterator[tuple[av.VideoFrame, int | None]]:
    """One whole frame of each two fields, by FFmpeg's bwdif, at the time of the first field."""
    graph = kind = None
    times: list[int | None] = []
    for frame, pts in pictures:
        if kind != (frame.width, frame.height, frame.format.name):  # else it would be resized
            if graph is not None:
                graph.push(None)
                yield from _pulled(graph, times)
            kind = (frame.width, frame.height, frame.format.name)
            graph = av.filter.Graph()
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=time_base
            )
            bwdif, sink = graph.add("bwdif", "mode=send_frame"), graph.add("buffersink")
            source.link_to(bwdif)
            bwdif.link_to(sink)
            graph.configure()
        times.append(pts)
        graph.push(frame)
        yield from _pulled(graph, times)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph, times)


def _pulled(
    graph: av.filter.Graph, times: list[int | None]
) -> Iterator[tuple[av.VideoFrame, int | None]]:
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        yield frame, times.pop(0)
