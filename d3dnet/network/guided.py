"""Motion-guided D3D: a deformable 3-D convolution whose taps follow what moves.

D3D (Ying et al., 2020) learns its offsets from nothing. Here the offset of a tap is the motion to
its frame (`motion.py`), found at the tap's own place, and its modulation the confidence in it (as
DCNv2 has one; Zhu et al., 2019). That is what first aligning each neighbouring frame, then
convolving plainly, computes: the same sum at a ninth of the sampling, and the convolution is the
library's.
Chan et al., "Understanding Deformable Alignment in Video Super-Resolution" (AAAI 2021) show why
offsets that begin with motion are the ones that can be learned.

`GuidedD3Dnet` is D3Dnet's body of such layers. Its frames are guided ones (`motion.py`).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d3dnet.network import Mode, motion
from d3dnet.network.align import Way
from d3dnet.network.interface import Feed, Footprint
from d3dnet.network.model import ResBlock, leaky_relu

Ways = tuple[Way, Way]  # to the frames before, and to those after


class Follower(nn.Module):
    """A layer that looks where motion leads; `on_offset` is told each motion (N, 2, h, w)."""

    on_offset: Callable[[Tensor], None] | None = None

    def follow(self, neighbours: Tensor, way: Way) -> Tensor:
        """Features (N, C, h, w) of neighbouring frames, aligned; channels last."""
        if self.on_offset is not None:
            self.on_offset(way.motion[:, :2])
        return way.align(neighbours).contiguous(memory_format=torch.channels_last)


class GuidedD3D(Follower):
    """Deformable 3x3x3 convolution whose taps follow the motion to the neighbouring frames.

    Args:
        channels: of the input and, unless ``outputs`` says otherwise, the output.
        near: channels that are taken of the neighbouring frames, the first ones.
        outputs: channels of the output.
    """

    def __init__(self, channels: int, near: int, outputs: int | None = None) -> None:
        super().__init__()
        outputs = outputs or channels
        self.near = near
        # Inputs: this frame's, then those of the frame before, then of the frame after.
        self.weight = nn.Parameter(torch.empty(outputs, channels + 2 * near, 3, 3))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(
        self, own: Tensor, before: Tensor | None, after: Tensor | None, ways: Ways
    ) -> Tensor:
        """Features of frames and of their neighbours -> features of the frames.

        Args:
            own: (N, C, h, w) of N frames.
            before, after: the same of their neighbours, in place, not aligned; None: zeros.
            ways: to the frames before, and to those after.
        """
        parts = [own]
        for neighbour, way in zip((before, after), ways, strict=True):
            if neighbour is None:
                parts.append(torch.zeros_like(own[:, : self.near]))
            else:
                parts.append(self.follow(neighbour[:, : self.near], way))
        return F.conv2d(torch.cat(parts, 1), self.weight, self.bias, padding=1)


class GuidedResD3D(nn.Module):
    """Residual block: guided D3D, LeakyReLU, a second layer, + input.

    The second layer is guided too (as published), or sees its own frame alone, for a third of the
    work.
    """

    def __init__(self, channels: int, near: int, both: bool) -> None:
        super().__init__()
        self.dcn0 = GuidedD3D(channels, near)
        second = GuidedD3D(channels, near) if both else nn.Conv2d(channels, channels, 3, padding=1)
        self.dcn1: GuidedD3D | nn.Conv2d = second


class Bottleneck(Follower):
    """1x1 convolution that joins the aligned features of the frames of a window."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.radius = frames // 2
        self.weight = nn.Parameter(torch.empty(channels, frames * channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, own: Tensor, sides: Sequence[Sequence[tuple[Tensor, Way] | None]]) -> Tensor:
        """Features (N, C, h, w) of frames, and of those before and after, the nearest first.

        Each of these comes with the way to it; None where there is no frame.
        """
        before, after = (
            [torch.zeros_like(own) if found is None else self.follow(*found) for found in side]
            for side in sides
        )
        return F.conv2d(torch.cat([*reversed(before), own, *after], 1), self.weight, self.bias)


class GuidedD3Dnet(nn.Module):
    """Video super-resolution with motion-guided deformable 3-D convolution.

    The body is D3Dnet's: a first layer, residual D3D blocks, a bottleneck that joins a window of
    frames, residual 2-D blocks, sub-pixel convolution. All that looks at neighbouring frames
    follows their motion.

    Args:
        scale: enlargement in height and width.
        channels: feature channels C of every layer.
        near: channels of neighbouring frames that a D3D layer takes, at most C.
        resd3d_blocks: number of residual D3D blocks.
        both: whether both layers of such a block are guided, or the first one alone.
        res_blocks: number of residual 2-D blocks.
        joined: frames that the bottleneck joins, odd; 1: no bottleneck.

    Attributes:
        window: frames of a window, where each frame is to be made of a window alone.
        metadata: of the file that its weights were read from.

    >>> network = GuidedD3Dnet(channels=8, near=4, resd3d_blocks=1, res_blocks=1)
    >>> network.forward_sequence(torch.rand(1, 1, 5, 12, 16)).shape
    torch.Size([1, 1, 5, 48, 64])
    """

    smallest = 8  # rows and columns
    window = 7

    def __init__(
        self,
        scale: int = 4,
        channels: int = 48,
        near: int = 24,
        resd3d_blocks: int = 5,
        both: bool = False,
        res_blocks: int = 2,
        joined: int = 1,
    ) -> None:
        super().__init__()
        if joined < 1 or joined % 2 == 0:
            raise ValueError(f"joined: got {joined}; accepted is an odd number of frames")
        if not 1 <= near <= channels:
            raise ValueError(f"near: got {near}; accepted are 1 to {channels} channels")
        self.scale, self.channels, self.near, self.both = scale, channels, near, both
        self.joined = joined
        self.input = GuidedD3D(1, 1, channels)
        self.residual_layer = nn.ModuleList(
            GuidedResD3D(channels, near, both) for _ in range(resd3d_blocks)
        )
        self.TA = Bottleneck(channels, joined) if joined > 1 else None
        self.reconstruct = nn.Sequential(*(ResBlock(channels) for _ in range(res_blocks)))
        self.upscale = nn.Conv2d(channels, scale**2, 3, padding=1)
        self.metadata: dict[str, str] = {}
        if not self.upscale.weight.is_meta:  # as in `D3Dnet`
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Begin with each frame by itself, and with what interpolation gives."""
        for layer in self.modules():
            if isinstance(layer, GuidedD3D):
                own = layer.weight.shape[1] - 2 * layer.near
                bound = 1 / math.sqrt(9 * own)  # as PyTorch's convolutions
                nn.init.zeros_(layer.weight)
                nn.init.uniform_(layer.weight[:, :own], -bound, bound)
                nn.init.uniform_(layer.bias, -bound, bound)
        if self.TA is not None:
            bound = 1 / math.sqrt(self.TA.weight.shape[1])
            nn.init.uniform_(self.TA.weight, -bound, bound)
            nn.init.zeros_(self.TA.bias)
        for block in [*self.residual_layer, *self.reconstruct]:
            nn.init.normal_(block.dcn1.weight, std=0.02)
        nn.init.normal_(self.upscale.weight, std=0.01)

    @property
    def blocks(self) -> list[GuidedResD3D]:
        """The residual D3D blocks."""
        return [block for block in self.residual_layer if isinstance(block, GuidedResD3D)]

    @property
    def temporal_radius(self) -> int:
        """Frames on either side that one output frame depends on."""
        layers = sum(isinstance(layer, GuidedD3D) for layer in self.modules())
        return layers + self.joined // 2

    @property
    def spatial_radius(self) -> int:
        """Input pixels on every side that an output pixel depends on, motion apart."""
        return 1 + 2 * len(self.residual_layer) + 2 * len(self.reconstruct) + 1

    def forward(self, x: Tensor) -> Tensor:
        """Super-resolve the middle frame of a window.

        Args:
            x: (B, 1, T, h, w) luma in [0, 1], T odd; or guided frames (B, 7, T, h, w).

        Returns:
            (B, 1, scale h, scale w) luma, float32, not clipped.
        """
        return self.super_resolve(x, slice(x.shape[2] // 2, x.shape[2] // 2 + 1))[:, :, 0]

    def forward_sequence(self, x: Tensor) -> Tensor:
        """Super-resolve every frame of a clip at once.

        Args:
            x: (B, 1, T, h, w) luma in [0, 1], any T >= 1, whose motion is looked for here; or
                guided frames (B, 7, T, h, w), see `d3dnet.network.motion`.

        Returns:
            (B, 1, T, scale h, scale w) luma, float32, not clipped.

        Raises:
            ValueError: another shape.
        """
        return self.super_resolve(x, slice(None))

    def super_resolve(self, x: Tensor, wanted: slice) -> Tensor:
        """`forward_sequence` of which only some frames are wanted."""
        guided = self._guided_frames(x)
        batch = len(guided)
        frames = guided.transpose(1, 2).flatten(0, 1)  # all frames of all clips: 2-D from here on
        luma, ways = frames[:, :1], (Way(frames[:, motion.BEFORE]), Way(frames[:, motion.AFTER]))

        def convolve(layer: GuidedD3D, y: Tensor) -> Tensor:
            near = y[:, : layer.near]
            result: Tensor = layer(y, shifted(near, batch, -1), shifted(near, batch, 1), ways)
            return result

        y = leaky_relu(convolve(self.input, luma.to(self.dtype)))
        for block in self.blocks:
            hidden = leaky_relu(convolve(block.dcn0, y))
            second = block.dcn1
            y = y + (convolve(second, hidden) if isinstance(second, GuidedD3D) else second(hidden))
        if self.TA is not None:
            sides = [_side(y, ways[after], batch, after, self.TA.radius) for after in (0, 1)]
            y = self.TA(y, sides)
        y, luma = (z.unflatten(0, (batch, -1))[:, wanted].flatten(0, 1) for z in (y, luma))
        results: Tensor = self.reconstruct_frames(y, luma).unflatten(0, (batch, -1))
        return results.transpose(1, 2)

    def stream(self, frames: Iterable[Tensor], chunk: int = 8) -> Iterator[Tensor]:
        """Super-resolve a clip of any length in constant memory, as `forward_sequence` would.

        Args:
            frames: (1, h, w) luma frames in [0, 1], all of one size.
            chunk: frames that are taken in together; the result does not depend on it.

        Yields:
            One (1, scale h, scale w) float32 frame for each input frame.
        """
        from d3dnet.network.streaming import same_size, stream

        return stream(self.begin("sequence"), self.guide(same_size(frames)), chunk)

    def guide(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Frames of a shot with their motion; see `d3dnet.network.interface.Plannable`."""
        return motion.guided(frames)

    def begin(self, mode: Mode, skip: int = 0) -> Feed:
        """Begin a shot in either form; see `d3dnet.network.interface.Plannable`."""
        from d3dnet.network.guided_streaming import GuidedStream, GuidedWindows

        return GuidedStream(self, skip) if mode == "sequence" else GuidedWindows(self, skip)

    def footprint(self, mode: Mode, chunk: int) -> Footprint:
        """What a shot takes; see `d3dnet.network.interface.Footprint`."""
        size = self.input.weight.element_size()
        followers = [layer for layer in self.modules() if isinstance(layer, Follower)]
        widest = max(cast(Tensor, layer.weight).shape[1] for layer in followers)
        frame = 4 * motion.CHANNELS  # bytes of a guided frame
        if mode == "window":
            work = self.window * (size * (3 * self.channels + 2 * widest) + 2 * frame)
            radius = self.window // 2
            return Footprint(self.window * frame, work, radius, effort=self.window)
        # A layer that looks at neighbours keeps two frames, the second of a block skips as well.
        layers = sum(isinstance(layer, GuidedD3D) for layer in self.modules())
        kept = 2 * (layers + self.both * len(self.residual_layer)) + self.joined
        state = size * self.channels * kept + 2 * frame * (layers + self.joined)
        work = size * (3 * self.channels + 2 * widest) + 2 * frame * (chunk + 1)
        return Footprint(state, work, self.temporal_radius)

    # The parts that the forms share.

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.input.weight.dtype

    def reconstruct_frames(self, features: Tensor, luma: Tensor) -> Tensor:
        """The 2-D part: features (N, C, h, w) and luma (N, 1, h, w) -> (N, 1, s h, s w)."""
        detail = F.pixel_shuffle(self.upscale(self.reconstruct(features)), self.scale)
        smooth = F.interpolate(
            luma.float(), scale_factor=self.scale, mode="bilinear", align_corners=False
        )
        return smooth + detail.float()

    def _guided_frames(self, x: Tensor) -> Tensor:
        if x.dim() != 5 or x.shape[1] not in (1, motion.CHANNELS) or not x.numel():
            raise ValueError(
                f"x: got shape {tuple(x.shape)}; accepted are luma (B, 1, T, h, w) and guided "
                f"frames (B, {motion.CHANNELS}, T, h, w)"
            )
        if x.shape[1] == 1:  # the luma as it came: it may have a gradient
            x = torch.cat([x, motion.with_motion(x)[:, 1:]], 1)
        return x.float()


def _side(
    y: Tensor, first: Way, clips: int, after: int, frames: int
) -> list[tuple[Tensor, Way] | None]:
    """So many frames before (after=0) or after (1) each frame, the nearest first, and the ways."""
    direction, way, found = 2 * after - 1, first, []
    for distance in range(1, frames + 1):
        if distance > 1:
            way = way.then(shifted(first.motion, clips, direction * (distance - 1)))
        found.append((shifted(y, clips, direction * distance), way))
    return list(found)


def shifted(y: Tensor, clips: int, distance: int) -> Tensor:
    """At each frame (clips * T, C, h, w) the one so far behind it; zeros beyond a clip's ends."""
    if distance == 0:
        return y
    frames = y.unflatten(0, (clips, -1))
    zeros = torch.zeros_like(frames[:, : abs(distance)])
    length = frames.shape[1]
    if distance < 0:
        frames = torch.cat([zeros, frames[:, :distance]], 1)
    else:
        frames = torch.cat([frames[:, distance:], zeros], 1)
    return frames[:, :length].flatten(0, 1)
