"""What a training keeps: its state, whole at every moment, and all it needs to go on exactly."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from d3dnet.errors import CheckpointError
from d3dnet.files import write_whole
from d3dnet.network.checkpoints import load_model


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state (tensors, numbers, text, and lists and dicts of these)."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(path, buffer.getbuffer())


def load_state(path: Path) -> dict[str, Any]:
    """Read a state, on the CPU; code inside the file is never run.

    Raises:
        CheckpointError: when it cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a different type for every kind of damage
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise CheckpointError(
            f"{path}: not a readable state of a training ({reason[0][:120]}); remove it to begin "
            "anew, or copy best.pt in its place"
        ) from None
    return state


def load_initial(name_or_path: str) -> dict[str, Tensor]:
    """Weights to start from: a training's moving average, or what `load_model` accepts."""
    if name_or_path.endswith(".pt"):
        average: dict[str, Tensor] = load_state(Path(name_or_path))["average"]
        return average
    return load_model(name_or_path, device="cpu", precision="float32").state_dict()


def fill(model: nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    """Load tensors into a network.

    Raises:
        CheckpointError: when they are of a network of another size.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(
            f"{origin}: weights of another size ({reason[:160]}); "
            "set channels, resd3d_blocks and res_blocks as they were"
        ) from None


def random_states() -> dict[str, Any]:
    """The state of every random generator of this process."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Take up where `random_states` was called."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def seed_all(seed: int) -> None:
    """Seed every random generator of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
