"""Bicubic interpolation with the network's interface: the baseline, legal wherever a model is."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from d3dnet.network import SCALE
from d3dnet.network.cubic import resample_luma

NAME = "bicubic"


class Bicubic(nn.Module):
    """Luma four times larger by Keys' cubic (a = −½), on the pixel grid of the network.

    Each frame by itself; on the CPU. Evaluation has its own "bicubic": MATLAB's, of 8-bit RGB.
    """

    scale = SCALE
    window = 7
    temporal_radius = 0
    smallest = 1

    def __init__(self) -> None:
        super().__init__()
        self.metadata: dict[str, str] = {}

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T, h, w) windows of luma in [0, 1] to the (B, 1, 4h, 4w) of their middle frame."""
        return torch.stack([_enlarge(window[:, x.shape[2] // 2]) for window in x])

    def forward_sequence(self, x: Tensor) -> Tensor:
        """(B, 1, T, h, w) clips of luma to (B, 1, T, 4h, 4w)."""
        return torch.stack([torch.stack(list(map(_enlarge, c.unbind(1))), 1) for c in x])

    def stream(self, frames: Iterable[Tensor], chunk: int = 8) -> Iterator[Tensor]:
        """(1, h, w) luma frames to as many (1, 4h, 4w), one by one."""
        return map(_enlarge, frames)


def _enlarge(luma: Tensor) -> Tensor:
    plane = luma[0].float().cpu().numpy()
    size = (SCALE * plane.shape[0], SCALE * plane.shape[1])
    return torch.from_numpy(np.ascontiguousarray(resample_luma(plane, size)))[None]
