"""Any network over the frames of a shot; and the network that is asked for."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d3dnet.errors import CheckpointError
from d3dnet.network import SCALE, Mode
from d3dnet.network.checkpoints import load_model
from d3dnet.network.interface import Network, Plannable
from d3dnet.network.plan import Plan
from d3dnet.network.streaming import Windows, same_size, stream
from d3dnet.network.tiling import run_tiled

T = TypeVar("T")
WHOLE_FRAMES = Plan()


def run_network(
    network: Network,
    luma: Iterable[Tensor],
    mode: Mode = "sequence",
    plan: Plan = WHOLE_FRAMES,
    on_plan: Callable[[Plan], None] | None = None,
) -> Iterator[Tensor]:
    """(1, h, w) float32 luma frames in [0, 1] to as many (1, s h, s w), one by one, in order.

    Frames that are smaller than the network needs are padded with their last row and column, and
    cut again.

    Args:
        network: in eval mode, on its device.
        plan, on_plan: of a network that can be planned, see `d3dnet.network.tiling.run_tiled`.

    Raises:
        ValueError: frames of several sizes; or "window" of a network that has no windows.

    >>> import torch
    >>> from d3dnet import load_model
    >>> clip = torch.rand(5, 1, 9, 16)
    >>> [tuple(frame.shape) for frame in run_network(load_model("bicubic"), clip)][:2]
    [(1, 36, 64), (1, 36, 64)]
    """
    if mode == "window" and network.window is None:
        raise ValueError("mode: got 'window', which this network has none of; accepted is sequence")
    size: list[int] = []

    def padded() -> Iterator[Tensor]:
        for frame in luma:
            size[:] = [network.scale * length for length in frame.shape[1:]]
            rows, columns = (max(0, network.smallest - length) for length in frame.shape[1:])
            yield F.pad(frame[None], (0, columns, 0, rows), mode="replicate")[0]

    if isinstance(network, Plannable):
        results = run_tiled(network, padded(), plan, mode, on_plan)
    elif mode == "sequence":
        results = network.stream(padded())
    else:
        results = stream(Windows(network), same_size(padded()), chunk=1)
    while True:
        with torch.inference_mode():  # not around a yield, where it would leak to the caller
            result = next(results, None)
        if result is None:
            return
        yield result[:, : size[0], : size[1]]


def run_paired(
    network: Network,
    frames: Iterable[tuple[Tensor, T]],
    mode: Mode = "sequence",
    plan: Plan = WHOLE_FRAMES,
    on_plan: Callable[[Plan], None] | None = None,
) -> Iterator[tuple[Tensor, T]]:
    """As `run_network`, of frames with something that belongs to each, and comes out beside it.

    Raises:
        RuntimeError: the network made more or fewer frames than it was given.

    >>> import torch
    >>> from d3dnet import load_model
    >>> frames = [(torch.zeros(1, 9, 16), "first"), (torch.zeros(1, 9, 16), "second")]
    >>> [name for _, name in run_paired(load_model("bicubic"), frames)]
    ['first', 'second']
    """
    inside: deque[T] = deque()  # what belongs to the frames in the network

    def luma() -> Iterator[Tensor]:
        for frame, companion in frames:
            inside.append(companion)
            yield frame

    for result in run_network(network, luma(), mode, plan, on_plan):
        if not inside:
            raise RuntimeError("the network made more frames than it was given")
        yield result, inside.popleft()
    if inside:
        raise RuntimeError(f"the network made {len(inside)} frames fewer than it was given")


def load_network(
    model: str | os.PathLike[str] | nn.Module | Network,
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> Network:
    """The network that is asked for, to make pictures four times larger.

    Args:
        model: what `load_model` takes, with `device` and `precision`; or a loaded network, which
            is taken as it is.

    Raises:
        CheckpointError: a wrong weights file, or a network of another scale.
        ValueError: an unknown device or precision, or a module that is no `Network`.
    """
    network: object = model
    if isinstance(model, str | os.PathLike):
        network = load_model(model, device=device, precision=precision)
    if not isinstance(network, Network):
        raise ValueError(
            f"model: got {type(network).__name__}; accepted are names, weights files, and modules "
            "with all that d3dnet.network.interface.Network names"
        )
    if network.scale != SCALE:
        name = str(model) if isinstance(model, str | os.PathLike) else type(model).__name__
        raise CheckpointError(
            f"model: {name} makes pictures {network.scale} times larger; accepted are weights "
            f"that make them {SCALE} times larger, of which any smaller size is made (--scale)"
        )
    return network
