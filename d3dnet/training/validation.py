"""Held-out clips: PSNR, pictures, and how far offsets reach."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from d3dnet.datasets.clips import Clip
from d3dnet.datasets.luma import unit_luma
from d3dnet.evaluation.metrics import psnr
from d3dnet.network import Mode
from d3dnet.network.interface import Network
from d3dnet.network.model import D3D
from d3dnet.network.offsets import deformable_layers, watched_offsets

BORDER = 8  # high-resolution pixels that are not scored
FRAMES = 7  # of a clip that are, from its beginning


@torch.no_grad()
def super_resolve(
    model: Network,
    clip: Clip,
    mode: Mode = "sequence",
    device: str | torch.device = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """The first frames of a clip, those of its window if the network has one; or the middle one.

    Returns:
        sr and hr, (T, 4h, 4w) luma in [0, 1], not cropped.
    """
    length = model.window or FRAMES
    lr = torch.from_numpy(unit_luma(clip.lr[None, None, :length])).to(device)
    hr = unit_luma(clip.hr[:length])
    if mode == "window":
        sr, hr = model(lr)[:, :, None], hr[length // 2][None]
    else:
        sr = model.forward_sequence(lr)
    return sr[0, 0].clamp(0, 1).cpu().numpy(), hr


def cropped_psnr(sr: np.ndarray, hr: np.ndarray) -> float:
    """PSNR in dB over all frames, `BORDER` pixels cut from every side."""
    inner = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    return psnr(sr[inner], hr[inner], peak=1)


def validate(
    model: Network,
    clips: Sequence[Clip],
    mode: Mode = "sequence",
    device: str | torch.device = "cpu",
) -> list[float]:
    """PSNR in dB of each clip."""
    return [cropped_psnr(*super_resolve(model, clip, mode, device)) for clip in clips]


@torch.no_grad()
def offset_reach(model: Network, lr: Tensor) -> float:
    """The mean length of offsets in pixels, of the layer where it is largest; 0 while rigid.

    Args:
        lr: (B, 1, T, h, w) luma in [0, 1].
    """
    reaches: list[float] = []

    layers = deformable_layers(model)

    def measure(name: str, offset: Tensor) -> None:
        if isinstance(layers[name], D3D):  # motion, which others follow, is not learned
            reaches.append(offset.unflatten(1, (27, 2)).norm(dim=2).mean().item())

    with watched_offsets(model, measure):
        model.forward_sequence(lr)
    return max(reaches, key=lambda reach: (reach != reach, reach), default=0.0)  # NaN is largest
