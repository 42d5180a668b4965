"""The operator on CUDA: which kernels run it, and what they are told.

The kernels of cuda_ops/cuda/ come from the library that setup.py built, else they are compiled
where they run (`d3dnet.ops.nvrtc`), else the PyTorch reference runs, which is warned about once.
That is found out at the first use of a CUDA tensor: nothing here touches a GPU at import.
"""

import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from d3dnet.ops import by_torchvision, nvrtc, reference

LIBRARY = Path(__file__).parent.parent / "_C_cuda.so"
KERNELS_VARIABLE = "D3DNET_CUDA_KERNELS"
Name = Literal["compiled", "nvrtc", "torchvision", "reference"]
KERNELS: tuple[Name, ...] = get_args(Name)


class Operators(Protocol):
    """The operators of `d3dnet.ops.registration` with one argument more, `allow_tf32`, the last."""

    def deform_conv3d(self, *arguments: Any) -> Tensor: ...

    def deform_conv3d_backward(self, *arguments: Any) -> tuple[Tensor, ...]: ...


class Kernels(NamedTuple):
    """name: one of `KERNELS`; operators: None for the reference; problem: why not a better one."""

    name: Name
    operators: Operators | None
    problem: str | None


@functools.cache
def kernels(device: int) -> Kernels:
    """The kernels in use on a CUDA device.

    The environment variable D3DNET_CUDA_KERNELS forces one of `KERNELS`; `ValueError` if it names
    another, `RuntimeError` if those that it names cannot be had.
    """
    wanted = os.environ.get(KERNELS_VARIABLE, "")
    if wanted and wanted not in KERNELS:
        raise ValueError(
            f"{KERNELS_VARIABLE} is {wanted!r}; accepted: {', '.join(KERNELS)}, or unset for the "
            "first of compiled, nvrtc and reference that can be had"
        )
    if wanted == "reference":
        return Kernels("reference", None, None)
    problems = []
    loaders: dict[Name, Callable[[int], Operators]]
    loaders = {"compiled": _load_library, "nvrtc": nvrtc.load}
    if wanted == "torchvision":  # by name only
        loaders = {"torchvision": by_torchvision.load}
    for name, load in loaders.items():
        if wanted not in ("", name):
            continue
        try:
            return Kernels(name, load(device), None)
        except (OSError, RuntimeError) as error:
            problems.append(str(error))
    problem = "; ".join(problems)
    if wanted:
        raise RuntimeError(f"{KERNELS_VARIABLE} asks for {wanted!r}: {problem}")
    return Kernels("reference", None, problem)


def library_problem() -> str | None:
    """Why there are no kernels compiled beforehand, or None where there are."""
    return None if LIBRARY.exists() else f"{LIBRARY} does not exist"


def _load_library(device: int) -> Operators:
    problem = library_problem()
    if problem is not None:
        raise OSError(problem)
    torch.ops.load_library(str(LIBRARY))
    operators: Operators = torch.ops.d3dnet_cuda
    # That it was built for another GPU, or with other arguments, shows here, not in the middle.
    one = torch.ones(1, 1, 1, 1, 1, device=f"cuda:{device}")
    geometry = ((1, 1, 1), (0, 0, 0), (1, 1, 1), "W")
    operators.deform_conv3d(one, torch.zeros_like(one), one, None, None, *geometry, 1.0, False)
    return operators


@functools.cache
def _warn_of_fallback(problem: str | None) -> None:
    if problem is not None:
        warnings.warn(
            f"deform_conv3d on CUDA runs in plain PyTorch, many times slower than the fused "
            f"kernels: {problem}. Install d3dnet where nvcc is found to build them "
            "(pip install --no-build-isolation .), or NVIDIA's run-time compiler "
            "(pip install nvidia-cuda-nvrtc of torch's CUDA version).",
            RuntimeWarning,
            stacklevel=3,
        )


def allow_tf32(input: Tensor) -> bool:
    """Whether float32 may be multiplied as tf32: PyTorch's setting for cuDNN's convolutions."""
    cudnn: Any = torch.backends.cudnn  # has no type for its settings
    return (
        input.dtype == torch.float32
        and cudnn.conv.fp32_precision == "tf32"
        and torch.cuda.get_device_capability(input.device) >= (8, 0)
    )


def forward(input: Tensor, *arguments: Any) -> Tensor:
    """Compute `d3dnet::deform_conv3d` on CUDA."""
    _, operators, problem = kernels(input.get_device())
    if operators is None:
        _warn_of_fallback(problem)
        return reference.forward(input, *arguments)
    return operators.deform_conv3d(input, *arguments, allow_tf32(input))


def backward(grad: Tensor, input: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Compute `d3dnet::deform_conv3d_backward` on CUDA.

    Every gradient is repeatable to the bit but that of `input`, which is added up atomically: it
    raises PyTorch's usual error under `torch.use_deterministic_algorithms(True)`.
    """
    _, operators, problem = kernels(input.get_device())
    if operators is None:
        _warn_of_fallback(problem)
        return reference.backward(grad, input, *arguments)
    need_input = arguments[-5]
    if need_input:
        alert_not_deterministic("deform_conv3d_backward_cuda")
    return operators.deform_conv3d_backward(grad, input, *arguments, allow_tf32(input))


def alert_not_deterministic(name: str) -> None:
    """Do what PyTorch's own operators do where deterministic algorithms are asked for."""
    if not torch.are_deterministic_algorithms_enabled():
        return
    message = f"{name} does not have a deterministic implementation, but you set "
    message += "'torch.use_deterministic_algorithms(True"
    if torch.is_deterministic_algorithms_warn_only_enabled():
        warnings.warn(f"{message}, warn_only=True)'.", UserWarning, stacklevel=2)
        return
    raise RuntimeError(
        f"{message})'. You can turn off determinism just for this operation, or you can use the "
        "'warn_only=True' option, if that's acceptable for your application."
    )
