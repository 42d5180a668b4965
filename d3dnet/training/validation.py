"""Held-out clips: PSNR, pictures, and how far offsets reach."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d3dnet.datasets.clips import Clip, unit_luma
from d3dnet.evaluation.metrics import psnr
from d3dnet.network.model import D3D, D3Dnet

BORDER = 8  # high-resolution pixels that are not scored


@torch.no_grad()
def super_resolve(
    model: D3Dnet, clip: Clip, mode: str = "sequence", device: str | torch.device = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The first frames of a clip, as many as the network's window has; "window": the middle one.

    Returns:
        sr and hr, (T, 4h, 4w) luma in [0, 1], not cropped.
    """
    lr = torch.from_numpy(unit_luma(clip.lr[None, None, : model.window])).to(device)
    hr = unit_luma(clip.hr[: model.window])
    if mode == "window":
        sr, hr = model(lr)[:, :, None], hr[model.window // 2][None]
    else:
        sr = model.forward_sequence(lr)
    return sr[0, 0].clamp(0, 1).cpu().numpy(), hr


def cropped_psnr(sr: np.ndarray, hr: np.ndarray) -> float:
    """PSNR in dB over all frames, `BORDER` pixels cut from every side."""
    inner = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    return psnr(sr[inner], hr[inner], peak=1)


def validate(
    model: D3Dnet,
    clips: Sequence[Clip],
    mode: str = "sequence",
    device: str | torch.device = "cpu",
) -> list[float]:
    """PSNR in dB of each clip."""
    return [cropped_psnr(*super_resolve(model, clip, mode, device)) for clip in clips]


@torch.no_grad()
def offset_reach(model: nn.Module, lr: Tensor) -> float:
    """The mean length of offsets in pixels, of the layer where it is largest; 0 while rigid.

    Args:
        lr: (B, 1, T, h, w) luma in [0, 1].
    """
    reaches = []

    def measure(layer: D3D, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not layer.rigid:
            conv = layer.conv_offset
            offset = F.conv3d(inputs[0], conv.weight, conv.bias, padding=1)
            reaches.append(offset.unflatten(1, (27, 2)).norm(dim=2).mean().item())

    hooks = [m.register_forward_hook(measure) for m in model.modules() if isinstance(m, D3D)]
    try:
        model.forward_sequence(lr)
    finally:
        for hook in hooks:
            hook.remove()
    return max(reaches, key=lambda reach: (reach != reach, reach), default=0.0)  # NaN is largest
