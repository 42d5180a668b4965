"""What the network adds where a picture is flat: nothing, ideally.

Inside a flat area, convolutions see the same value in every pixel, so that one pixel stands for all
if kernels are summed over height and width; offsets change nothing there. Along the upper and lower
borders of a flat picture the same holds with kernels summed over width. Flat clips cost next to
nothing this way, so their error can be a part of the loss. Patches with detail do not teach it, and
in a flat area an eye sees a single code's difference.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d3dnet.network.guided import Bottleneck, GuidedD3D, GuidedD3Dnet, GuidedResD3D, shifted
from d3dnet.network.model import D3D, D3Dnet, ResBlock, ResD3D, leaky_relu

EVERY = 3  # steps: often enough, and 2 % of their cost


def flat_detail(model: D3Dnet | GuidedD3Dnet, luma: Tensor, frames: int, rows: int = 0) -> Tensor:
    """What the network adds to flat clips.

    Args:
        luma: (n,) values in [0, 1], one for each clip.
        frames: of each clip, its two ends included.
        rows: 0 for the inside of a flat area; otherwise the height of a clip with its upper and
            lower borders, far from its sides, where offsets are taken as zero.

    Returns:
        (n, frames, scale * max(1, rows), scale): all zero for an ideal network.
    """
    if isinstance(model, GuidedD3Dnet):
        return _guided_flat_detail(model, luma, frames, rows)
    summed = (-1,) if rows else (-2, -1)

    def convolve(x: Tensor, layer: nn.Module) -> Tensor:
        assert isinstance(layer, D3D | nn.Conv2d | nn.Conv3d)
        weight = layer.weight.unsqueeze(2) if layer.weight.dim() == 4 else layer.weight
        weight = weight.sum(summed, keepdim=True)
        return F.conv3d(x, weight, layer.bias, padding=[size // 2 for size in weight.shape[2:]])

    def residual(x: Tensor, blocks: nn.Sequential) -> Tensor:
        for block in blocks:
            assert isinstance(block, ResD3D | ResBlock)
            x = convolve(leaky_relu(convolve(x, block.dcn0)), block.dcn1) + x
        return x

    features = luma[:, None, None, None, None].expand(-1, 1, frames, max(1, rows), 1)
    features = residual(leaky_relu(convolve(features, model.input[0])), model.residual_layer)
    features = residual(model.bottleneck(features, model.window // 2), model.reconstruct)
    widen, shuffle, *layers = model.upscale
    pixels: Tensor = shuffle(convolve(features, widen).transpose(1, 2).flatten(0, 1))
    for layer in layers:
        assert isinstance(layer, nn.Conv2d)
        # Beside a pixel's columns, which are the scale's, the same ones repeat; so do its rows.
        pixels = F.pad(pixels, (1, 1, 0, 0), mode="circular")
        pixels = F.pad(pixels, (0, 0, 1, 1), mode="constant" if rows else "circular")
        pixels = F.conv2d(pixels, layer.weight)
    frames_apart: Tensor = pixels.unflatten(0, (-1, frames))
    return frames_apart[:, :, 0]


def _guided_flat_detail(model: GuidedD3Dnet, luma: Tensor, frames: int, rows: int) -> Tensor:
    """`flat_detail` of a guided network: nothing moves, and that is certain."""
    summed = (-1,) if rows else (-2, -1)
    clips = len(luma)

    def convolve(x: Tensor, layer: nn.Module) -> Tensor:
        assert isinstance(layer, GuidedD3D | Bottleneck | nn.Conv2d)
        if isinstance(layer, GuidedD3D):
            near = x[:, : layer.near]
            x = torch.cat([x, shifted(near, clips, -1), shifted(near, clips, 1)], 1)
        weight = layer.weight.sum(summed, keepdim=True)
        return F.conv2d(x, weight, layer.bias, padding=[size // 2 for size in weight.shape[2:]])

    def residual(x: Tensor, blocks: nn.Module) -> Tensor:
        for block in blocks.children():
            assert isinstance(block, GuidedResD3D | ResBlock)
            x = convolve(leaky_relu(convolve(x, block.dcn0)), block.dcn1) + x
        return x

    flat = luma[:, None, None, None, None].expand(-1, frames, 1, max(1, rows), 1).flatten(0, 1)
    features = residual(leaky_relu(convolve(flat, model.input)), model.residual_layer)
    if model.TA is not None:
        around = range(-(model.joined // 2), model.joined // 2 + 1)
        window = torch.cat([shifted(features, clips, distance) for distance in around], 1)
        features = convolve(window, model.TA)
    features = residual(features, model.reconstruct)
    pixels = F.pixel_shuffle(convolve(features, model.upscale), model.scale)
    frames_apart: Tensor = pixels.unflatten(0, (clips, frames))
    return frames_apart[:, :, 0]


def flatness_loss(model: D3Dnet | GuidedD3Dnet, seed: int) -> Tensor:
    """Mean square of what the network adds to flat clips of random luma, inside and at borders."""
    weight = next(model.parameters())
    luma = torch.rand(52, generator=torch.Generator().manual_seed(seed)).to(weight)
    inside = flat_detail(model, luma[:24], frames=9).square().mean()
    alone = flat_detail(model, luma[24:48], frames=1).square().mean()
    border = flat_detail(model, luma[48:], frames=4, rows=16).square().mean()
    return (2 * inside + alone + border) / 4
