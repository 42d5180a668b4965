"""Networks with the interface of D3Dnet, without weights: their results are known."""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BilinearNetwork(nn.Module):
    """Four times larger by bilinear interpolation; `stream` runs `delay` frames behind."""

    scale = 4
    window = 7
    temporal_radius = 0
    smallest = 8

    def __init__(self, delay: int = 3) -> None:
        super().__init__()
        self.delay = delay
        self.metadata: dict[str, str] = {}

    def forward(self, x: Tensor) -> Tensor:
        return enlarge(x[:, :, self.window // 2])

    def forward_sequence(self, x: Tensor) -> Tensor:
        return torch.stack([enlarge(frame) for frame in x.unbind(2)], 2)

    def stream(self, frames: Iterable[Tensor], chunk: int = 8) -> Iterator[Tensor]:
        held: list[Tensor] = []
        for frame in frames:
            held.append(frame)
            if len(held) > self.delay:
                yield enlarge(held.pop(0)[None])[0]
        for frame in held:
            yield enlarge(frame[None])[0]


class MeanNetwork(BilinearNetwork):
    """The mean of the window's frames, weighted 1 to 7, so that the order of frames shows."""

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.arange(1.0, 8.0) / 28
        return enlarge(torch.einsum("bcthw,t->bchw", x, weight))


def enlarge(luma: Tensor) -> Tensor:
    return F.interpolate(luma, scale_factor=4, mode="bilinear", align_corners=False)
