"""What a decoded picture carries beside its samples, read so that it does no harm."""

from collections.abc import Iterable, Mapping
from typing import cast

import av
import av.filter
from av.sidedata.sidedata import SideData as Data
from av.sidedata.sidedata import Type

SideData = Mapping[str, bytes]  # by FFmpeg's names, as it lays them out in memory

READ = (
    *("DISPLAYMATRIX", "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "A53_CC"),
    *("SPHERICAL", "STEREO3D", "DYNAMIC_HDR_PLUS", "DYNAMIC_HDR_VIVID"),
    *("DOVI_METADATA", "DOVI_RPU_BUFFER"),
)
KINDS = 64  # more than FFmpeg has


def side_data_of(frame: av.VideoFrame) -> SideData:
    """What is known of `READ`.

    PyAV (to 18.1) frees a dictionary twice that belongs to side data, as the name of the ICC
    profile in a PNG, and dies of it; and it cannot read any of a frame that has some it has no name
    for, as EXIF. So all else is taken out by a filter before it looks.
    """
    graph = av.filter.Graph()
    last: av.filter.context.FilterContext = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    read = {cast(int, Type[name].value) for name in READ}
    for kind in range(KINDS):
        if kind not in read:
            following = graph.add("sidedata", f"mode=delete:type={kind}")
            last.link_to(following)
            last = following
    sink = graph.add("buffersink")
    last.link_to(sink)
    graph.configure()
    graph.push(frame)
    calm = graph.pull()
    assert isinstance(calm, av.VideoFrame)
    found = cast(Iterable[Data], calm.side_data)  # it goes through these, and not through keys
    return {data.type.name: bytes(data) for data in found}
