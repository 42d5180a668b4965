"""d3dnet: video super-resolution with deformable 3-D convolution."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from d3dnet.job.frames import upscale_frames
    from d3dnet.job.upscale import upscale_video
    from d3dnet.network.checkpoints import load_model
    from d3dnet.network.model import D3Dnet

# Loaded at first use: importing torch takes seconds, `d3dnet --help` should not.
_HOMES = {
    "D3Dnet": "d3dnet.network.model",
    "load_model": "d3dnet.network.checkpoints",
    "upscale_frames": "d3dnet.job.frames",
    "upscale_video": "d3dnet.job.upscale",
}
__all__ = ["D3Dnet", "load_model", "upscale_frames", "upscale_video"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'd3dnet' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
