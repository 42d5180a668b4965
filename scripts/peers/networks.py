"""Our networks and our bicubic: luma in, luma out, in sequence mode, as `d3dnet upscale` runs them.

Their luma is not rounded before the protocol says so.
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch

import d3dnet
from d3dnet.datasets.luma import luma
from d3dnet.network.checkpoints import BUNDLED, load_model
from d3dnet.network.run import run_network
from peers.peer import Peer


class OurNetwork(Peer):
    """A bundled network, or "bicubic", by its name."""

    stream = True

    def version(self) -> str:
        weights = BUNDLED / f"{self.name}.safetensors"
        if not weights.exists():  # bicubic
            return f"d3dnet {d3dnet.__version__}"
        return f"weights {hashlib.sha256(weights.read_bytes()).hexdigest()[:12]}"

    def use_threads(self, count: int) -> None:
        super().use_threads(count)
        torch.set_num_threads(count)

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        return (luma(rgb) / 255).astype(np.float32)

    def upscale(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        network = load_model(self.name, "cpu")
        for sr in run_network(network, (torch.from_numpy(f)[None] for f in frames), "sequence"):
            yield sr[0].numpy()
