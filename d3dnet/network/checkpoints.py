"""Weights files: the bundled ones, ours (.safetensors) and published ones (.pth.tar).

The one place that knows the checkpoint keys. Hyperparameters are deduced from the tensors
themselves; code inside a pickle is never run.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from d3dnet.errors import CheckpointError, DeviceError
from d3dnet.files import written_whole
from d3dnet.network import PRECISIONS, bicubic
from d3dnet.network.bicubic import Bicubic
from d3dnet.network.guided import GuidedD3Dnet
from d3dnet.network.model import D3Dnet

BUNDLED = Path(__file__).parents[1] / "weights"
ARCHITECTURES: dict[str, type[D3Dnet | GuidedD3Dnet]] = {
    "D3Dnet": D3Dnet,
    "GuidedD3Dnet": GuidedD3Dnet,
}
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in PRECISIONS}


def load_model(
    name_or_path: str | os.PathLike[str] = "d3dnet",
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> D3Dnet | GuidedD3Dnet | Bicubic:
    """Load a network, ready to super-resolve.

    Args:
        name_or_path: a bundled name (see `bundled_models`), "bicubic" (the baseline with a
            network's interface, on the CPU whatever the device and precision), a
            ``.safetensors`` file written by `save_weights`, or a published ``.pth.tar``
            (``{"state_dict": ...}``).
        device: ``"auto"`` (a GPU where there is one) or what `torch.device` accepts.
        precision: ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``; auto is bfloat16
            where the device multiplies it natively, otherwise float32.

    Returns:
        The network in eval mode, without gradients. Luma goes in and comes out in float32,
        whatever the precision; ``model.metadata`` holds the file's metadata.

    Raises:
        CheckpointError: when the file is missing, damaged or not a D3Dnet.
        ValueError: for an unknown device or precision.

    >>> model = load_model("d3dnet-lite", device="cpu", precision="float32")
    >>> model(torch.full((1, 1, 7, 8, 10), 0.5)).shape
    torch.Size([1, 1, 32, 40])
    """
    if name_or_path == bicubic.NAME:
        resolve_precision(precision, resolve_device(device))  # wrong words are refused all the same
        return Bicubic()
    path = _find(name_or_path)
    tensors, metadata = _read_safetensors(path) if _is_safetensors(path) else _read_pickle(path)
    model = _build(tensors, path)
    device = resolve_device(device)
    model = model.to(device, resolve_precision(precision, device)).eval().requires_grad_(False)
    model.metadata = metadata
    return model


def bundled_models() -> list[str]:
    """Names of the weights inside the package.

    >>> "d3dnet" in bundled_models()
    True
    """
    return sorted(path.stem for path in BUNDLED.glob("*.safetensors"))


def save_weights(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write network tensors as safetensors, with metadata and their checksum.

    Args:
        path: the ``.safetensors`` file; it appears only when complete.
        tensors: a D3Dnet's state dict, in the precision to be stored.
        metadata: provenance (training data, step, measured results ...); values that are not
            strings are stored as JSON.

    >>> import tempfile
    >>> network = D3Dnet(channels=4, resd3d_blocks=1, res_blocks=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(f"{folder}/a.safetensors", network.state_dict(), {"step": 100})
    ...     load_model(f"{folder}/a.safetensors", device="cpu").metadata["step"]
    '100'
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    hyperparameters = _hyperparameters(tensors, Path(path))
    entries = {"architecture": _architecture(tensors), **hyperparameters, **metadata}
    entries["sha256"] = tensors_sha256(tensors)
    text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in entries.items()}
    with written_whole(Path(path)) as part:
        save_file(tensors, part, metadata=text)


def resolve_device(device: str | torch.device) -> torch.device:
    """`torch.device` of a name; ``"auto"`` is cuda where present, otherwise cpu.

    Never mps unless asked for: without a kernel of its own it is slower than the CPU's.

    Raises:
        ValueError: for an unknown device, or one that this machine or torch does not have.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    accepted = "accepted are auto, cpu, cuda, cuda:N and mps"
    try:
        device = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device: got {device!r}; {accepted}") from None
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if device.type not in present:
        raise ValueError(f"device: got {str(device)!r}; {accepted}")
    if not present[device.type]:
        raise DeviceError(
            f"device: got {str(device)!r}, which torch {torch.__version__} does not find on this "
            "machine; use --device cpu or install a torch built for it"
        )
    return device


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of a precision word on a device; see `load_model`."""
    if precision == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision: got {precision!r}; accepted are auto, {', '.join(PRECISIONS)}"
        )
    return DTYPES[precision]


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        from d3dnet.ops import instruction_set

        return instruction_set() == "amx"
    return False


def _find(name_or_path: str | os.PathLike[str]) -> Path:
    path = Path(name_or_path)
    if path.is_file():
        return path
    bundled = BUNDLED / f"{name_or_path}.safetensors"
    if len(path.parts) == 1 and bundled.is_file():
        return bundled
    found = "a folder" if path.is_dir() else "nothing"
    raise CheckpointError(
        f"model {str(name_or_path)!r}: found {found} there; accepted are a bundled name "
        f"({', '.join(bundled_models())}), bicubic, a .safetensors or a .pth.tar file"
    )


def _is_safetensors(path: Path) -> bool:
    # By content: 8 bytes of header length, then JSON.
    with open(path, "rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); it may be cut off: copy it again"
        ) from None
    if metadata.get("architecture", "D3Dnet") not in ARCHITECTURES:
        raise CheckpointError(
            f"{path}: weights of {metadata['architecture']!r}; accepted are those of "
            f"{' and '.join(ARCHITECTURES)}"
        )
    if metadata.get("sha256", tensors_sha256(tensors)) != tensors_sha256(tensors):
        raise CheckpointError(
            f"{path}: the tensors do not have the recorded sha256; it is damaged: copy it again"
        )
    return tensors, metadata


def _read_pickle(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    # Published checkpoints carry loss and PSNR as numpy scalars: plain data, allowed by name.
    scalar = np.float64(0).__reduce__()[0]
    plain: list[Any] = [np.dtype, type(np.dtype("f8")), type(np.dtype("f4")), scalar]
    plain += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    try:
        with torch.serialization.safe_globals(plain):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a different type for every kind of damage
        reason = str(error).strip().splitlines() or [type(error).__name__]
        refused = re.search(r"Unsupported (global|class|operand)|WeightsUnpickler", str(error))
        what = "holds more than tensors and numbers" if refused else "cannot be read"
        raise CheckpointError(
            f"{path}: {what} ({reason[0][:120]}); accepted are .safetensors files of d3dnet "
            "and published .pth.tar checkpoints"
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}; accepted is a dict with 'state_dict'"
        )
    tensors = content.get("state_dict", content)
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path}: 'state_dict' is a {type(tensors).__name__}, not a dict")
    tensors = {str(name).removeprefix("module."): value for name, value in tensors.items()}
    return tensors, {"source": path.name}


def _architecture(tensors: Mapping[str, Any]) -> str:
    """Which network the tensors are of: the first layer of the published one is in a sequence."""
    return "GuidedD3Dnet" if "input.weight" in tensors else "D3Dnet"


def _hyperparameters(tensors: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Constructor arguments of the network, read off its tensors."""

    def count(prefix: str) -> int:
        found = (re.match(rf"{prefix}\.(\d+)\.", name) for name in tensors)
        return 1 + max((int(match[1]) for match in found if match), default=-1)

    blocks = {"resd3d_blocks": count("residual_layer"), "res_blocks": count("reconstruct")}
    try:
        if _architecture(tensors) == "GuidedD3Dnet":
            return {**_of_guided(tensors), **blocks}
        channels = tensors["input.0.weight"].shape[0]
        window = tensors["TA.weight"].shape[1] // channels
        scale = math.isqrt(tensors["upscale.0.weight"].shape[0] // channels)
    except (KeyError, AttributeError, IndexError, ZeroDivisionError):
        names = ", ".join(list(tensors)[:3]) or "none"
        raise CheckpointError(
            f"{path}: not the weights of a D3Dnet (tensors found: {names} ...); accepted are files "
            "with input.0.weight, residual_layer.*, TA.*, reconstruct.*, upscale.*"
        ) from None
    return {"scale": scale, "channels": channels, **blocks, "window": window}


def _of_guided(tensors: Mapping[str, Any]) -> dict[str, int]:
    """Constructor arguments of `GuidedD3Dnet`, but for its numbers of blocks."""
    channels = tensors["input.weight"].shape[0]
    first, second = (tensors[f"residual_layer.0.dcn{layer}.weight"] for layer in (0, 1))
    joined = tensors["TA.weight"].shape[1] // channels if "TA.weight" in tensors else 1
    return {
        "scale": math.isqrt(tensors["upscale.weight"].shape[0]),
        "channels": channels,
        "near": (first.shape[1] - channels) // 2,
        "both": second.shape[1] > channels,
        "joined": joined,
    }


def _build(tensors: Mapping[str, Any], path: Path) -> D3Dnet | GuidedD3Dnet:
    with torch.device("meta"):
        try:
            network = ARCHITECTURES[_architecture(tensors)]
            model = network(**_hyperparameters(tensors, path))
        except CheckpointError:
            raise
        except (ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path}: not the weights of a D3Dnet: {error}") from None
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(getattr(value, "shape", ())) for name, value in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise CheckpointError(
                f"{path}: tensor {name}: got shape {found.get(name, 'no such tensor')}; "
                f"accepted is {wanted.get(name, 'no such tensor')}"
            )
        if not torch.isfinite(tensors[name]).all():
            raise CheckpointError(f"{path}: tensor {name} holds NaN or infinity; train it again")
    model.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    return model


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors on the CPU: names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
