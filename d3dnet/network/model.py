"""The D3Dnet network (Ying et al., "Deformable 3D Convolution for Video Super-Resolution", 2020).

Read from top to bottom: the deformable layer, the two residual blocks, the network. The network
exists in three forms with the same weights: ``model(x)`` (a window of 7 frames, as published),
``model.forward_sequence(x)`` (a whole clip at once) and ``model.stream(frames)`` (a clip of any
length in constant memory, see ``d3dnet/network/streaming.py``).

Parameter names and shapes are those of the published code, so that its checkpoints load.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d3dnet.network import Mode
from d3dnet.network.interface import Feed, Footprint
from d3dnet.ops import deform_conv3d

NEGATIVE_SLOPE = 0.1

# Memory of what is computed at once, for each pixel and in units of C values: for each frame, and
# besides. Measured, see plan.py.
WORK_PER_FRAME = 7.0
WORK = 4.0


def leaky_relu(x: Tensor) -> Tensor:
    """The network's only activation."""
    return F.leaky_relu(x, NEGATIVE_SLOPE)


class D3D(nn.Module):
    """Deformable 3-D convolution with its own offset convolution (Sec. III-A, Fig. 2).

    Offsets move a tap in height and width only ("HW"); the plain 3x3x3 convolution
    ``conv_offset`` predicts them from the same input, 2 values for each of the 27 taps.

    Args:
        channels: number of input and of output channels.
        negative_slope: of the LeakyReLU that follows, in the same pass; 1 for none.
    """

    def __init__(self, channels: int, negative_slope: float = 1.0) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3, 3))
        self.bias = nn.Parameter(torch.empty(channels))
        self.conv_offset = nn.Conv3d(channels, 2 * 27, 3, padding=1)
        self.rigid = False  # True: offsets are held at zero, which makes D3D a plain convolution
        self.on_offset: Callable[[Tensor], None] | None = None  # called with every offset tensor

    def forward(self, x: Tensor, pad_t: int = 1) -> Tensor:
        """(B, C, T, H, W) -> (B, C, T + 2 pad_t - 2, H, W); zero padding of 1 in space."""
        padding = (pad_t, 1, 1)
        if self.rigid:
            y = F.conv3d(x, self.weight, self.bias, padding=padding)
            return y if self.negative_slope == 1 else F.leaky_relu(y, self.negative_slope)
        offset_conv = self.conv_offset
        offset = F.conv3d(x, offset_conv.weight, offset_conv.bias, padding=padding)
        if self.on_offset is not None:
            self.on_offset(offset)
        return deform_conv3d(
            x,
            offset,
            self.weight,
            self.bias,
            padding=padding,
            dims="HW",
            negative_slope=self.negative_slope,
        )

    def forward_still(self, x: Tensor) -> Tensor:
        """A frame (B, C, H, W) of which all others are copies -> the same shape."""
        if not self.rigid:
            frames: Tensor = self(x.unsqueeze(2).expand(-1, -1, 3, -1, -1), pad_t=0)
            return frames.squeeze(2)
        # All temporal taps see the same: a third of the work.
        y = F.conv2d(x, self.weight.sum(2), self.bias, padding=1)
        return y if self.negative_slope == 1 else F.leaky_relu(y, self.negative_slope)


class ResD3D(nn.Module):
    """Residual block of two D3D layers: D3D, LeakyReLU, D3D, + input (Fig. 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dcn0 = D3D(channels, NEGATIVE_SLOPE)
        self.dcn1 = D3D(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the same shape."""
        y: Tensor = self.dcn1(self.dcn0(x))
        return y + x

    def forward_still(self, x: Tensor) -> Tensor:
        """(B, C, H, W), see `D3D.forward_still` -> the same shape."""
        return self.dcn1.forward_still(self.dcn0.forward_still(x)) + x


class ResBlock(nn.Module):
    """Residual block of two 2-D convolutions: conv, LeakyReLU, conv, + input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dcn0 = nn.Conv2d(channels, channels, 3, padding=1)
        self.dcn1 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        y: Tensor = self.dcn1(leaky_relu(self.dcn0(x)))
        return y + x


class D3Dnet(nn.Module):
    """Video super-resolution with deformable 3-D convolution.

    Args:
        scale: enlargement in height and width.
        channels: feature channels C of every layer.
        resd3d_blocks: number of residual D3D blocks.
        res_blocks: number of residual 2-D blocks after the bottleneck.
        window: frames that the bottleneck joins, odd; also the published input length.

    Attributes:
        metadata: of the file that its weights were read from.

    >>> network = D3Dnet(channels=4, resd3d_blocks=1, res_blocks=1)
    >>> network(torch.rand(1, 1, 7, 8, 10)).shape
    torch.Size([1, 1, 32, 40])
    >>> network.forward_sequence(torch.rand(1, 1, 3, 8, 10)).shape
    torch.Size([1, 1, 3, 32, 40])
    """

    smallest = 8  # rows and columns

    def __init__(
        self,
        scale: int = 4,
        channels: int = 64,
        resd3d_blocks: int = 5,
        res_blocks: int = 6,
        window: int = 7,
    ) -> None:
        super().__init__()
        if window < 1 or window % 2 == 0:
            raise ValueError(f"window: got {window}; accepted is an odd number of frames")
        self.scale = scale
        self.channels = channels
        self.window = window
        self.metadata: dict[str, str] = {}
        self.input = nn.Sequential(
            nn.Conv3d(1, channels, 3, padding=1, bias=False), nn.LeakyReLU(NEGATIVE_SLOPE)
        )
        self.residual_layer = nn.Sequential(*(ResD3D(channels) for _ in range(resd3d_blocks)))
        self.TA = nn.Conv2d(window * channels, channels, 1)
        self.reconstruct = nn.Sequential(*(ResBlock(channels) for _ in range(res_blocks)))
        self.upscale = nn.Sequential(
            nn.Conv2d(channels, channels * scale**2, 1, bias=False),
            nn.PixelShuffle(scale),
            nn.Conv2d(channels, 1, 3, padding=1, bias=False),
            nn.Conv2d(1, 1, 3, padding=1, bias=False),
        )
        # Where there is no memory, there is nothing to draw; torch takes two seconds to do that.
        if not self.TA.weight.is_meta:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as published, but with offset convolutions that start at zero."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.normal_(layer.weight, std=math.sqrt(2 / (27 * layer.out_channels)))
            elif isinstance(layer, D3D):
                bound = 1 / math.sqrt(layer.weight[0].numel())  # as PyTorch's convolutions
                nn.init.uniform_(layer.weight, -bound, bound)
                nn.init.uniform_(layer.bias, -bound, bound)
        for layer in self.modules():
            if isinstance(layer, D3D):
                for parameter in layer.conv_offset.parameters():
                    nn.init.zeros_(parameter)

    @property
    def blocks(self) -> list[ResD3D]:
        """The residual D3D blocks."""
        return [block for block in self.residual_layer if isinstance(block, ResD3D)]

    @property
    def temporal_radius(self) -> int:
        """Frames on either side that one output frame depends on (14 at the defaults)."""
        return 1 + 2 * len(self.residual_layer) + self.window // 2

    @property
    def spatial_radius(self) -> int:
        """Input pixels on every side that an output pixel depends on (24 at the defaults).

        Without offsets: they add what they reach, rounded up, in each of the D3D layers.
        """
        # Two convolutions in each block; the last two, of one output pixel each, reach into one
        # more input pixel, two if the scale is 1.
        convolutions = 1 + 2 * len(self.residual_layer) + 2 * len(self.reconstruct)
        return convolutions + math.ceil(2 / self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Super-resolve the centre frame of a window, as published.

        Args:
            x: (B, 1, window, h, w) luma in [0, 1].

        Returns:
            (B, 1, scale h, scale w) luma, float32, not clipped.
        """
        self._check_luma(x, frames=self.window)
        features = self.residual_layer(self.shallow_features(x))
        # The published bottleneck: a 1x1 convolution over frame-major channels.
        features = self.TA(features.transpose(1, 2).flatten(1, 2))
        return self.reconstruct_frames(features, x[:, :, self.window // 2])

    def forward_sequence(self, x: Tensor) -> Tensor:
        """Super-resolve every frame of a clip at once; features are computed only once.

        The bottleneck becomes a temporal convolution; time is zero-padded at both ends.

        Args:
            x: (B, 1, T, h, w) luma in [0, 1], any T >= 1.

        Returns:
            (B, 1, T, scale h, scale w) luma, float32, not clipped.
        """
        self._check_luma(x)
        features = self.residual_layer(self.shallow_features(x))
        features = self.bottleneck(features, self.window // 2)
        pairs = zip(features.unbind(2), x.unbind(2), strict=True)
        if torch.is_grad_enabled():
            batch = len(x)
            features, frames = (y.transpose(1, 2).flatten(0, 1) for y in (features, x))
            results: Tensor = self.reconstruct_frames(features, frames).unflatten(0, (batch, -1))
            return results.transpose(1, 2)
        # Frame by frame: the 2-D part works at 16 times the size, but needs no neighbours.
        return torch.stack([self.reconstruct_frames(*pair) for pair in pairs], 2)

    def forward_still(self, x: Tensor) -> Tensor:
        """Super-resolve a frame of a scene that stands still: any frame far from the clip's ends.

        What `forward_sequence` gives in the middle of a clip of copies of that frame, at the cost
        of a frame: less than half of it where offsets rest, as convolutions are then 2-D.

        Args:
            x: (B, 1, h, w) luma in [0, 1].

        Returns:
            (B, 1, scale h, scale w) luma, float32, not clipped.
        """
        self._check_luma(x.unsqueeze(2), frames=1)
        frames = x.unsqueeze(2).expand(-1, -1, 3, -1, -1)
        features = self.shallow_features(frames, pad_t=0).squeeze(2)
        for block in self.blocks:
            features = block.forward_still(features)
        weight = self.TA.weight.unflatten(1, (self.window, self.channels)).sum(1)
        features = F.conv2d(features, weight, self.TA.bias)
        return self.reconstruct_frames(features, x)

    def stream(self, frames: Iterable[Tensor], chunk: int = 8) -> Iterator[Tensor]:
        """Super-resolve a clip of any length in constant memory, as `forward_sequence` would.

        Args:
            frames: (1, h, w) luma frames in [0, 1], all of one size.
            chunk: frames computed together; the result does not depend on it.

        Yields:
            One (1, scale h, scale w) float32 frame for each input frame, at most
            ``temporal_radius + chunk`` frames behind the input.
        """
        from d3dnet.network.streaming import same_size, stream

        return stream(self.begin("sequence"), same_size(frames), chunk)

    def guide(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Frames as they are: it needs no more; see `d3dnet.network.interface.Plannable`."""
        return iter(frames)

    def begin(self, mode: Mode, skip: int = 0) -> Feed:
        """Begin a shot in either form; see `d3dnet.network.interface.Plannable`."""
        from d3dnet.network.streaming import Stream, Windows

        return Stream(self, skip) if mode == "sequence" else Windows(self, skip)

    def footprint(self, mode: Mode, chunk: int) -> Footprint:
        """What a shot takes, `chunk` frames at once; see `d3dnet.network.interface.Footprint`."""
        features = self.channels * self.TA.weight.element_size()
        if mode == "window":
            # The effort is nearly this: the part after the bottleneck is done once.
            work = features * (WORK + WORK_PER_FRAME * self.window)
            return Footprint(4 * self.window, work, self.window // 2, effort=self.window)
        frames = 4 * len(self.residual_layer) + self.window - 1
        state = features * frames + 4 * (self.temporal_radius + 2)
        return Footprint(state, features * (WORK + WORK_PER_FRAME * chunk), self.temporal_radius)

    # The parts that the three forms share.

    def shallow_features(self, x: Tensor, pad_t: int = 1) -> Tensor:
        """Luma (B, 1, T, h, w) -> features (B, C, T + 2 pad_t - 2, h, w)."""
        # In float32: 8-bit luma does not survive a rounding to bfloat16.
        conv = cast(nn.Conv3d, self.input[0])
        device = x.device.type
        lowers = torch.amp.is_autocast_available(device)  # "meta", which counts work, has none
        with torch.autocast(device, enabled=False) if lowers else nullcontext():
            features = F.conv3d(x.float(), conv.weight.float(), padding=(pad_t, 1, 1))
        features = features.to(conv.weight.dtype, memory_format=torch.channels_last_3d)
        return leaky_relu(features)

    def bottleneck(self, features: Tensor, pad_t: int = 0) -> Tensor:
        """Join ``window`` frames: (B, C, T, h, w) -> (B, C, T + 2 pad_t - window + 1, h, w)."""
        if torch.is_grad_enabled():
            weight = self.TA.weight.unflatten(1, (self.window, self.channels)).transpose(1, 2)
            weight = weight[..., 0].unsqueeze(-1)
            return F.conv3d(features, weight, self.TA.bias, padding=(pad_t, 0, 0))
        # The convolution above takes 20 kB of memory a pixel for 8 frames; this, a tenth of it.
        inner = features.permute(2, 0, 3, 4, 1)  # T x (B, h, w, C)
        zeros = [torch.zeros_like(inner[0])] * pad_t
        frames = [*zeros, *inner, *zeros]
        weight = self.TA.weight[..., 0, 0]
        joined = [
            F.linear(torch.cat(frames[t : t + self.window], -1), weight, self.TA.bias)
            for t in range(len(frames) - self.window + 1)
        ]
        return torch.stack(joined, 1).permute(0, 4, 1, 2, 3)

    def reconstruct_frames(self, features: Tensor, luma: Tensor) -> Tensor:
        """The 2-D part: features (B, C, h, w) and luma (B, 1, h, w) -> (B, 1, s h, s w)."""
        features = self.reconstruct(features.contiguous(memory_format=torch.channels_last))
        detail = F.conv2d(features, self._subpixel_kernel(), padding=1)
        detail = self.upscale[3](F.pixel_shuffle(detail, self.scale))
        smooth = F.interpolate(
            luma.float(), scale_factor=self.scale, mode="bilinear", align_corners=False
        )
        result: Tensor = smooth + detail.float()
        return result

    def _subpixel_kernel(self) -> Tensor:
        """upscale[0], the pixel shuffle and upscale[2] as one (s*s, C, 3, 3) kernel.

        The three are linear and without bias, so that their composition is one 3x3 convolution
        to s*s channels before the shuffle: exact, borders included, at an eighth of the work.
        """
        s = self.scale
        # What one input pixel writes before upscale[2]: s x s pixels of C channels.
        first, last = (cast(nn.Conv2d, self.upscale[index]) for index in (0, 2))
        blocks = first.weight.view(self.channels, s, s, self.channels).permute(3, 0, 1, 2)
        # ... and after it: it reaches one pixel further on each side; as a kernel, it is flipped.
        spread = F.conv2d(blocks, last.weight, padding=2)
        spread = F.pad(spread, (s - 1,) * 4).view(self.channels, 3, s, 3, s)
        return spread.flip(1, 3).permute(2, 4, 0, 1, 3).reshape(s * s, self.channels, 3, 3)

    def _check_luma(self, x: Tensor, frames: int | None = None) -> None:
        wanted = "T" if frames is None else frames
        if x.dim() != 5 or x.shape[1] != 1 or x.shape[2] != (frames or x.shape[2]) or not x.numel():
            raise ValueError(
                f"x: got shape {tuple(x.shape)}; accepted is luma of shape (B, 1, {wanted}, h, w)"
            )
