"""`GuidedD3Dnet.stream`: guided frames one by one through all layers, in constant memory.

A layer that looks at neighbouring frames waits for the one after, and keeps the one before: nothing
is computed twice. So each such layer is one frame behind the layer before it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from d3dnet.network.align import Way
from d3dnet.network.guided import Bottleneck, GuidedD3D, GuidedD3Dnet, GuidedResD3D, Ways
from d3dnet.network.model import leaky_relu
from d3dnet.network.motion import AFTER, BEFORE


@dataclass(frozen=True)
class Frame:
    """A frame in the layers; each tensor is (1, channels, h, w).

    Attributes:
        luma: as it came.
        ways: to the frame before, and to the one after.
        features: what the last layer made of it.
        skip: what a residual block adds in its end.
    """

    luma: Tensor
    ways: Ways
    features: Tensor
    skip: Tensor | None = None


Compute = Callable[[Frame | None, Frame, Frame | None], Frame]


class _Neighbours:
    """A layer that is given each frame with those beside it: one frame behind."""

    def __init__(self, compute: Compute) -> None:
        self.compute = compute
        self.before: Frame | None = None
        self.now: Frame | None = None

    def feed(self, after: Frame | None) -> Iterator[Frame]:
        """The next frame (None: the clip has ended) -> the frame before it, if there is one."""
        if self.now is not None:
            yield self.compute(self.before, self.now, after)
        self.before, self.now = self.now, after


class _Joined:
    """The bottleneck: each frame with so many frames on either side."""

    def __init__(self, bottleneck: Bottleneck) -> None:
        self.bottleneck = bottleneck
        self.radius = bottleneck.radius
        self.frames: list[Frame | None] = [None] * self.radius  # before the one that is next

    def feed(self, frame: Frame | None) -> Iterator[Frame]:
        """The next frame, or None after the last one, as often as there are frames to come."""
        self.frames.append(frame)
        if len(self.frames) <= 2 * self.radius:
            return
        if (middle := self.frames[self.radius]) is not None:
            sides = [self._side(middle, after) for after in (0, 1)]
            yield replace(middle, features=self.bottleneck(middle.features, sides))
        self.frames.pop(0)

    def _side(self, middle: Frame, after: int) -> list[tuple[Tensor, Way] | None]:
        way = middle.ways[after]
        found: list[tuple[Tensor, Way] | None] = []
        for distance in range(1, self.radius + 1):
            other = self.frames[self.radius + (2 * after - 1) * distance]
            if other is None:
                found.append(None)
                continue
            found.append((other.features, way))
            way = way.then(other.ways[after].motion)
        return found


class GuidedStream:
    """The sequence form, fed piece by piece.

    Args:
        network: the network.
        skip: so many frames at the beginning are not put out (nor reconstructed), as their past
            is not the clip's.
    """

    def __init__(self, network: GuidedD3Dnet, skip: int = 0) -> None:
        self.network = network
        self.radius = network.temporal_radius
        self._skip = skip
        self._stages: list[_Neighbours | _Joined] = [_Neighbours(_first(network.input))]
        for block in network.blocks:
            self._stages += map(_Neighbours, _of_block(block))
        if network.TA is not None:
            self._stages.append(_Joined(network.TA))

    @torch.no_grad()
    def feed(self, x: Tensor) -> Iterator[Tensor]:
        """(1, 7, n, h, w), the next n guided frames -> the (1, s h, s w) frames now complete."""
        for guided in x.to(self.network.input.weight.device, torch.float32).unbind(2):
            ways = (Way(guided[:, BEFORE]), Way(guided[:, AFTER]))
            luma = guided[:, :1]
            frame = Frame(luma, ways, luma.to(self.network.dtype))
            yield from self._through(0, frame)

    @torch.no_grad()
    def finish(self) -> Iterator[Tensor]:
        """The frames still to come; nothing may be fed afterwards."""
        for index, stage in enumerate(self._stages):
            for _ in range(stage.radius if isinstance(stage, _Joined) else 1):
                for frame in stage.feed(None):
                    yield from self._through(index + 1, frame)

    def _through(self, index: int, frame: Frame) -> Iterator[Tensor]:
        """A frame through the stages from `index` on."""
        if index < len(self._stages):
            for result in self._stages[index].feed(frame):
                yield from self._through(index + 1, result)
        elif self._skip:
            self._skip -= 1
        else:
            yield self.network.reconstruct_frames(frame.features, frame.luma)[0]


class GuidedWindows:
    """Every frame from a window alone; at the ends of a shot, from what there is of it.

    `skip` as for `GuidedStream`, with half a window for the radius.
    """

    def __init__(self, network: GuidedD3Dnet, skip: int = 0) -> None:
        self.network = network
        self.radius = network.window // 2
        self._skip = skip
        self._frames: list[Tensor] = []  # (1, 7, h, w), of the window of the next frame
        self._next = 0  # its index in them

    @torch.no_grad()
    def feed(self, x: Tensor) -> Iterator[Tensor]:
        """(1, 7, n, h, w), the next n guided frames -> the (1, s h, s w) frames now complete."""
        for guided in x.to(self.network.input.weight.device, torch.float32).unbind(2):
            self._frames.append(guided)
            if len(self._frames) > self._next + self.radius:
                yield from self._complete()

    @torch.no_grad()
    def finish(self) -> Iterator[Tensor]:
        """The frames still to come; nothing may be fed afterwards."""
        while self._next < len(self._frames):
            yield from self._complete()

    def _complete(self) -> Iterator[Tensor]:
        if self._skip:
            self._skip -= 1
        else:
            window = torch.stack(self._frames[: self._next + self.radius + 1], 2)
            wanted = slice(self._next, self._next + 1)
            yield self.network.super_resolve(window, wanted)[0, :, 0]
        if self._next == self.radius:
            self._frames.pop(0)
        else:
            self._next += 1


def _convolve(layer: GuidedD3D, before: Frame | None, now: Frame, after: Frame | None) -> Tensor:
    near = [None if frame is None else frame.features for frame in (before, after)]
    features: Tensor = layer(now.features, *near, now.ways)
    return features


def _first(layer: GuidedD3D) -> Compute:
    def compute(before: Frame | None, now: Frame, after: Frame | None) -> Frame:
        return replace(now, features=leaky_relu(_convolve(layer, before, now, after)))

    return compute


def _of_block(block: GuidedResD3D) -> list[Compute]:
    """A residual block as one stage, or two where both of its layers look at neighbours."""
    second = block.dcn1

    def begin(before: Frame | None, now: Frame, after: Frame | None) -> Frame:
        hidden = leaky_relu(_convolve(block.dcn0, before, now, after))
        return replace(now, features=hidden, skip=now.features)

    def end(before: Frame | None, now: Frame, after: Frame | None) -> Frame:
        assert isinstance(second, GuidedD3D) and now.skip is not None
        return replace(now, features=_convolve(second, before, now, after) + now.skip, skip=None)

    def alone(before: Frame | None, now: Frame, after: Frame | None) -> Frame:
        hidden = begin(before, now, after).features
        return replace(now, features=second(hidden) + now.features)

    return [begin, end] if isinstance(second, GuidedD3D) else [alone]
