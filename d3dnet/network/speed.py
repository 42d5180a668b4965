"""How fast a network runs on this machine: a short measurement, for estimates."""

import time

import torch

from d3dnet.network.interface import Network

SIDE = {"cpu": 48, "mps": 64, "cuda": 192}  # of the frames that are measured with


@torch.inference_mode()
def pixels_per_second(network: Network, seconds: float = 5) -> float:
    """Input pixels that are super-resolved in a second, in sequence mode.

    Small frames are timed, seven at once, for about so many seconds (once at least, after one that
    is not timed); the best counts, as other programs can only slow it down.
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    side = SIDE[device.type]
    clip = torch.rand(1, 1, 7, side, side, device=device)

    def once() -> float:
        _wait_for(device)
        start = time.perf_counter()
        network.forward_sequence(clip)
        _wait_for(device)
        return time.perf_counter() - start

    end = time.perf_counter() + seconds
    once()
    times = [once()]
    while time.perf_counter() < end:
        times.append(once())
    return clip.numel() / min(times)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
