"""Offsets of the deformable layers, watched while a network runs: the one way to observe them."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from d3dnet.network.guided import Follower
from d3dnet.network.interface import Network
from d3dnet.network.model import D3D

FAR = 1_000_000  # pixels
# Pixels, to begin with: a sample between two pixels reads both. And what moves, moves on.
REACH_OF_A_LAYER, REACH_OF_MOTION = 1, 4


def deformable_layers(network: Network) -> dict[str, D3D | Follower]:
    """The layers of a network whose taps move, by their names, in its order.

    >>> from d3dnet import D3Dnet
    >>> list(deformable_layers(D3Dnet(channels=4, resd3d_blocks=1)))
    ['residual_layer.0.dcn0', 'residual_layer.0.dcn1']
    """
    modules = network.named_modules()
    return {name: layer for name, layer in modules if isinstance(layer, D3D | Follower)}


@contextmanager
def watched_offsets(network: Network, watch: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Within it, `watch` is called with every offset tensor, and the name of its layer.

    Offsets are in input pixels. Of D3D layers (B, 54, T, h, w): row and column of each of the 27
    taps; there are none while they are held rigid. Of guided layers (N, 2, h, w), for each way to
    a neighbouring frame: row and column of the motion that all taps there follow.
    """
    layers = deformable_layers(network)
    try:
        for name, layer in layers.items():
            layer.on_offset = partial(watch, name)
        yield
    finally:
        for layer in layers.values():
            layer.on_offset = None


@contextmanager
def measured_reach(network: Network) -> Iterator[Callable[[], int]]:
    """Within it, offsets are watched; the result gives what they have reached so far.

    That is the sum, over the D3D layers, of the largest offset of each in pixels, rounded up, as
    a sample between two pixels reads both.
    """
    largest: dict[str, Tensor] = {}

    def watch(name: str, offset: Tensor) -> None:
        now = torch.stack(torch.aminmax(offset)).abs().amax()
        largest[name] = torch.maximum(largest[name], now) if name in largest else now

    def reach() -> int:
        values = map(float, largest.values())
        # Not a number is further than anything.
        return sum(math.ceil(value) if value < FAR else FAR for value in values)

    with watched_offsets(network, watch):
        yield reach


def expected_reach(network: Network) -> int:
    """What offsets may reach, before any was seen: nothing where they are zero whatever is seen."""
    reach = 0
    for layer in deformable_layers(network).values():
        if isinstance(layer, Follower):
            reach += REACH_OF_MOTION
        elif any(parameter.any() for parameter in layer.conv_offset.parameters()):
            reach += REACH_OF_A_LAYER
    return reach
