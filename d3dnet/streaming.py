"""`D3Dnet.stream`: a clip of any length, chunk by chunk, in constant memory.

Every layer with a temporal kernel keeps the last frames of its own input, so that the next chunk
continues where the last one ended: nothing is computed twice, and time is zero-padded only at the
two ends of the clip, as in `D3Dnet.forward_sequence`.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor

from d3dnet.model import D3Dnet, ResD3D, leaky_relu


class _Stage:
    """A layer with a temporal kernel of 2 radius + 1 frames, fed chunk by chunk.

    `layer` maps (1, C, n, h, w) to (1, C', n - 2 radius, h, w): no padding in time.
    """

    def __init__(self, layer: Callable[[Tensor], Tensor], radius: int) -> None:
        self.layer = layer
        self.radius = radius
        self.kept: Tensor | None = None

    def __call__(self, x: Tensor | None, last: bool) -> Tensor | None:
        """Feed frames (None: no new ones); return the frames now complete (None: none yet)."""
        parts = [part for part in (self.kept, x) if part is not None]
        if not parts:
            return None
        frame = parts[0][:, :, :1]
        before = [torch.zeros_like(frame)] * self.radius if self.kept is None else []
        after = [torch.zeros_like(frame)] * self.radius if last else []
        x = torch.cat([*before, *parts, *after], 2)
        # A copy, so that the whole chunk is not kept alive by its last frames.
        self.kept = x[:, :, -2 * self.radius :].clone()
        return self.layer(x) if x.shape[2] > 2 * self.radius else None


class _Delay:
    """Frames that wait for the slower branch of a skip connection."""

    def __init__(self) -> None:
        self.waiting: Tensor | None = None

    def __call__(self, x: Tensor | None, frames: int) -> Tensor | None:
        """Feed frames (None: no new ones); take out the oldest ``frames``."""
        parts = [part for part in (self.waiting, x) if part is not None]
        if not parts:
            return None
        x = torch.cat(parts, 2)
        self.waiting = x[:, :, frames:].clone()
        return x[:, :, :frames]


class _ResD3DStage:
    """`ResD3D`, its skip delayed by the two frames that its two layers look ahead."""

    def __init__(self, block: ResD3D) -> None:
        self.first = _Stage(lambda x: block.dcn0(x, pad_t=0), 1)
        self.second = _Stage(lambda x: block.dcn1(x, pad_t=0), 1)
        self.skip = _Delay()

    def __call__(self, x: Tensor | None, last: bool) -> Tensor | None:
        y = self.first(x, last)
        y = self.second(None if y is None else leaky_relu(y), last)
        skipped = self.skip(x, 0 if y is None else y.shape[2])
        return None if y is None else y + skipped


@torch.no_grad()
def stream(model: D3Dnet, frames: Iterable[Tensor], chunk: int = 8) -> Iterator[Tensor]:
    """See `D3Dnet.stream`."""
    if chunk < 1:
        raise ValueError(f"chunk: got {chunk}; accepted is a number of frames from 1 up")
    stages = [
        _Stage(lambda x: model.shallow_features(x, pad_t=0), 1),
        *(_ResD3DStage(block) for block in model.residual_layer),
        _Stage(model.bottleneck, model.window // 2),
    ]
    luma_delay = _Delay()
    device = model.TA.weight.device

    def feed(x: Tensor | None, last: bool) -> Iterator[Tensor]:
        y = x
        for stage in stages:
            y = stage(y, last)
        luma = luma_delay(x, 0 if y is None else y.shape[2])
        for t in range(0 if y is None else y.shape[2]):
            yield model.reconstruct_frames(y[:, :, t], luma[:, :, t])[0]

    shape = None
    frames = iter(frames)
    while group := list(islice(frames, chunk)):
        for frame in group:
            shape = shape or frame.shape
            if frame.dim() != 3 or len(frame) != 1 or frame.shape != shape:
                raise ValueError(
                    f"frames: got a frame of shape {tuple(frame.shape)}; accepted are luma frames "
                    f"(1, h, w), all of the size of the first one {tuple(shape)}"
                )
        yield from feed(torch.stack(group, 1)[None].to(device, torch.float32), last=False)
    if shape is not None:
        yield from feed(None, last=True)
