"""What a network costs: parameters, and multiply-accumulates per frame.

Deformable convolutions are counted as the convolutions they are (taps x channels; the bilinear
sampling, 1 part in 16 at 64 channels, is not). The published 408.8 G leave them out.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import d3dnet.ops  # noqa: F401  (declares torch.ops.d3dnet)
from d3dnet.network import Mode, check_mode
from d3dnet.network.interface import Network

REFERENCE_HEIGHT, REFERENCE_WIDTH = 720, 1280  # of the output, as tables have it


@dataclass(frozen=True)
class Complexity:
    """What one output frame costs.

    Attributes:
        parameters: number of learned values.
        macs: multiply-accumulates for one frame of the size below.
        height, width: of the output frame.
    """

    parameters: int
    macs: int
    height: int = REFERENCE_HEIGHT
    width: int = REFERENCE_WIDTH


def measure(model: Network, mode: Mode = "window") -> Complexity:
    """The complexity of a network for one 1280 x 720 frame.

    >>> from d3dnet.network.model import D3Dnet
    >>> cost = measure(D3Dnet())
    >>> cost.parameters, round(cost.macs / 1e9)
    (2579941, 851)
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Complexity(parameters, count_macs(model, mode=mode))


def count_macs(
    model: Network,
    height: int = REFERENCE_HEIGHT,
    width: int = REFERENCE_WIDTH,
    mode: Mode = "window",
) -> int:
    """Multiply-accumulates of convolutions, plain and deformable, for one output frame.

    Nothing is computed and no memory is taken: the network runs on shapes alone.

    Args:
        model: a network that runs on shapes alone, as all of PyTorch's layers do.
        height, width: of the output, multiples of the model's scale.
        mode: "window" counts the network's window of frames for each output frame; "sequence"
            what one more frame of a long clip costs, as features are computed once.

    Raises:
        ValueError: for a size that is no multiple of the scale, or an unknown mode.
    """
    check_mode(mode)
    if height % model.scale or width % model.scale:
        raise ValueError(
            f"size: got {width}x{height}; accepted are multiples of the scale {model.scale}"
        )
    shapes = cast(Network, copy.deepcopy(cast(nn.Module, model)).to("meta"))
    low = (height // model.scale, width // model.scale)

    def macs(frames: int, run: Callable[[Tensor], Tensor]) -> int:
        counter = FlopCounterMode(
            display=False, custom_mapping={torch.ops.d3dnet.deform_conv3d: _deform_conv3d_flops}
        )
        with counter, torch.no_grad():
            run(torch.empty(1, 1, frames, *low, device="meta"))
        return counter.get_total_flops() // 2

    if mode == "window":
        if model.window is None:
            raise ValueError("mode: got 'window', which this network has none of")
        return macs(model.window, shapes)
    length = 2 * (model.window or 1)
    return macs(length + 1, shapes.forward_sequence) - macs(length, shapes.forward_sequence)


def _deform_conv3d_flops(
    input_shape: torch.Size,
    offset_shape: torch.Size,
    weight_shape: torch.Size,
    *settings: object,
    out_shape: torch.Size,
    **named: object,
) -> int:
    """Twice the multiply-accumulates: each output takes one for every input channel and tap."""
    return 2 * math.prod(out_shape) * math.prod(weight_shape[1:])
