"""`D3Dnet.stream`: a clip of any length, chunk by chunk, in constant memory.

Every layer with a temporal kernel keeps the last frames of its own input, so that the next chunk
continues where the last one ended: nothing is computed twice, and time is zero-padded only at the
two ends of the clip, as in `D3Dnet.forward_sequence`.

What is kept is 4 frames of features for each residual block and 6 for the bottleneck, and never
more: 26 · C values a pixel, 6.7 kB in float32 for the published network.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from d3dnet.network.interface import Feed, Network

if TYPE_CHECKING:  # model.py begins these at call
    from d3dnet.network.model import D3Dnet, ResD3D


class _Stage:
    """A layer with a temporal kernel of 2 radius + 1 frames, fed chunk by chunk.

    `layer` maps (1, C, n, h, w) to (1, C', n - 2 radius, h, w): no padding in time.
    """

    def __init__(self, layer: Callable[[Tensor], Tensor], radius: int) -> None:
        self.layer = layer
        self.radius = radius
        self.kept: Tensor | None = None

    def join(self, x: Tensor | None, last: bool) -> Tensor | None:
        """New frames behind those kept; zeros before the first frame and after the last."""
        parts = [part for part in (self.kept, x) if part is not None]
        if not parts:
            return None
        frame = parts[0][:, :, :1]
        before = [torch.zeros_like(frame)] * self.radius if self.kept is None else []
        after = [torch.zeros_like(frame)] * self.radius if last else []
        joined = torch.cat([*before, *parts, *after], 2)
        # A copy, so that the whole chunk is not kept alive by its last frames.
        self.kept = None if last else joined[:, :, -2 * self.radius :].clone()
        return joined

    def __call__(self, x: Tensor | None, last: bool) -> Tensor | None:
        """Feed frames (None: no new ones); return the frames now complete (None: none yet)."""
        return self.apply(self.join(x, last))

    def apply(self, joined: Tensor | None) -> Tensor | None:
        if joined is None or joined.shape[2] <= 2 * self.radius:
            return None
        return self.layer(joined)


class _ResD3DStage:
    """`ResD3D`. What its skip waits for are the frames that its first layer keeps anyway."""

    def __init__(self, block: "ResD3D") -> None:
        self.first = _Stage(lambda x: block.dcn0(x, pad_t=0), 1)
        self.second = _Stage(lambda x: block.dcn1(x, pad_t=0), 1)

    def __call__(self, x: Tensor | None, last: bool) -> Tensor | None:
        joined = self.first.join(x, last)
        y = self.second(self.first.apply(joined), last)
        if y is None or joined is None:
            return None
        # The result ends two frames before the input; at the end of the clip, with it.
        end = joined.shape[2] - (1 if last else 2)
        return y.add_(joined[:, :, end - y.shape[2] : end])


class Stream:
    """The sequence form, fed piece by piece.

    Args:
        model: the network.
        skip: so many frames at the beginning are not put out (nor reconstructed), as their past
            is not the clip's: `temporal_radius` where a clip is taken up in its middle.
    """

    def __init__(self, model: "D3Dnet", skip: int = 0) -> None:
        self.model = model
        self.radius = model.temporal_radius
        self._skip = skip
        self._stages: list[_Stage | _ResD3DStage] = [
            _Stage(lambda x: model.shallow_features(x, pad_t=0), 1),
            *(_ResD3DStage(block) for block in model.blocks),
            _Stage(model.bottleneck, model.window // 2),
        ]
        self._waiting: Tensor | None = None  # luma of the frames that are in the stages

    @torch.no_grad()
    def feed(self, x: Tensor) -> Iterator[Tensor]:
        x = x.to(self.model.TA.weight.device, torch.float32)
        self._waiting = x if self._waiting is None else torch.cat([self._waiting, x], 2)
        yield from self._reconstructed(self._through(self._stages, x))

    @torch.no_grad()
    def finish(self) -> Iterator[Tensor]:
        # Stage by stage: all at once, the last ones would be given 13 frames.
        for index, stage in enumerate(self._stages):
            rest = self._through(self._stages[index + 1 :], stage(None, last=True))
            yield from self._reconstructed(rest)

    def _through(self, stages: list[_Stage | _ResD3DStage], y: Tensor | None) -> Tensor | None:
        for stage in stages:
            y = stage(y, last=False)
        return y

    def _reconstructed(self, features: Tensor | None) -> Iterator[Tensor]:
        if features is None or self._waiting is None:
            return
        count = features.shape[2]
        luma, self._waiting = self._waiting[:, :, :count], self._waiting[:, :, count:].clone()
        for t in range(count):
            if self._skip:
                self._skip -= 1
            else:
                yield self.model.reconstruct_frames(features[:, :, t], luma[:, :, t])[0]


class Windows:
    """The published form: every frame from the window centred on it.

    Beyond the ends of the clip its first and last frame are repeated. `skip` as for `Stream`, with
    half a window for the radius.
    """

    def __init__(self, network: Network, skip: int = 0) -> None:
        if network.window is None:
            raise ValueError("window: this network has none; accepted is a network that has")
        self.network = network
        self._length = network.window
        self.radius = network.window // 2
        self._skip = skip
        self._window: list[Tensor] = []  # (1, 1, h, w)
        self._device = next((p.device for p in network.parameters()), torch.device("cpu"))

    @torch.no_grad()
    def feed(self, x: Tensor) -> Iterator[Tensor]:
        for frame in x.to(self._device, torch.float32).unbind(2):
            self._window = self._window or [frame] * self.radius
            yield from self._next(frame)

    @torch.no_grad()
    def finish(self) -> Iterator[Tensor]:
        for _ in range(self.radius if self._window else 0):
            yield from self._next(self._window[-1])

    def _next(self, frame: Tensor) -> Iterator[Tensor]:
        self._window = [*self._window, frame][-self._length :]
        if len(self._window) < self._length:
            return
        if self._skip:
            self._skip -= 1
        else:
            yield self.network(torch.stack(self._window, 2))[0]


def stream(feed: Feed, frames: Iterable[Tensor], chunk: int = 8) -> Iterator[Tensor]:
    """Send frames of one size through `feed`, `chunk` at a time. See `D3Dnet.stream`."""
    if chunk < 1:
        raise ValueError(f"chunk: got {chunk}; accepted is a number of frames from 1 up")
    frames = iter(frames)
    while group := list(islice(frames, chunk)):
        yield from feed.feed(torch.stack(group, 1)[None])
    yield from feed.finish()


def same_size(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """Luma frames as they come; `ValueError` for one that is not (1, h, w) as the first."""
    shape = None
    for frame in frames:
        shape = shape or frame.shape
        if frame.dim() != 3 or len(frame) != 1 or frame.shape != shape:
            raise ValueError(
                f"frames: got a frame of shape {tuple(frame.shape)}; accepted are luma frames "
                f"(1, h, w), all of the size of the first one {tuple(shape)}"
            )
        yield frame
