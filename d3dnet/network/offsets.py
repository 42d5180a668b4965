"""Offsets of the deformable layers, watched while a network runs: the one way to observe them."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from d3dnet.network.interface import Network
from d3dnet.network.model import D3D

FAR = 1_000_000  # pixels
REACH_OF_A_LAYER = 1  # pixels, to begin with: a sample between two pixels reads both


def deformable_layers(network: Network) -> dict[str, D3D]:
    """The D3D layers of a network by their names, in its order.

    >>> from d3dnet import D3Dnet
    >>> list(deformable_layers(D3Dnet(channels=4, resd3d_blocks=1)))
    ['residual_layer.0.dcn0', 'residual_layer.0.dcn1']
    """
    modules = network.named_modules()
    return {name: layer for name, layer in modules if isinstance(layer, D3D)}


@contextmanager
def watched_offsets(network: Network, watch: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Within it, `watch` is called with every offset tensor, and the name of its layer.

    Offsets are (B, 54, T, h, w) in input pixels: row and column of each of the 27 taps. There are
    none of layers that are held rigid.
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
    layers = deformable_layers(network).values()
    moving = [layer for layer in layers if any(p.any() for p in layer.conv_offset.parameters())]
    return REACH_OF_A_LAYER * len(moving)
