"""d3dnet: video super-resolution with deformable 3-D convolution."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from d3dnet.arrays import upscale_frames
    from d3dnet.checkpoints import load_model
    from d3dnet.model import D3Dnet
    from d3dnet.upscale import upscale_video

# Loaded at first use: importing torch takes seconds, `d3dnet --help` should not.
_HOMES = {
    "D3Dnet": "d3dnet.model",
    "load_model": "d3dnet.checkpoints",
    "upscale_frames": "d3dnet.arrays",
    "upscale_video": "d3dnet.upscale",
}
__all__ = ["D3Dnet", "load_model", "upscale_frames", "upscale_video"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'd3dnet' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
