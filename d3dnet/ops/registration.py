"""The torch.library operator `d3dnet::deform_conv3d`, declared once.

It exists without a compiler: the PyTorch reference serves every device, and a compiled library only
adds an implementation for its own. What an implementation must do beyond the arithmetic:
results are laid out as `contract.empty_in_layout_of` says; a gradient has the dtype of what it is
the gradient of, and is an empty tensor of size 0 where it is not needed; a sample's derivative is
one-sided, value(floor + 1) - value(floor), also at integer positions; a sample at ≤ -1 or ≥ size,
or at NaN, is 0 and has no gradient; a corner of weight 0 is not read for the output.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from d3dnet.ops import cuda, reference
from d3dnet.ops.compiled import load_cpu_library, warn_of_fallback
from d3dnet.ops.contract import Triple, check_tensors, empty_in_layout_of, output_size

_GEOMETRY = "int[3] stride, int[3] padding, int[3] dilation, str dims"
# Inputs must reach the kernel in the layout that was traced: the output's layout follows from it.
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)

torch_library: Any = torch.library  # has no types
library = torch_library.Library("d3dnet", "DEF")
library.define(
    "deform_conv3d(Tensor input, Tensor offset, Tensor weight, Tensor? bias, Tensor? mask, "
    f"{_GEOMETRY}, float negative_slope) -> Tensor",
    tags=_TAGS,
)
library.define(
    "deform_conv3d_backward(Tensor grad, Tensor input, Tensor offset, Tensor weight, Tensor? mask, "
    f"{_GEOMETRY}, bool need_input, bool need_offset, bool need_weight, bool need_mask, "
    "bool need_bias) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=_TAGS,
)


def _reference_forward(input: Tensor, *arguments: Any) -> Tensor:
    if input.device.type == "cpu":
        warn_of_fallback()
    return reference.forward(input, *arguments)


library.impl("deform_conv3d", _reference_forward, "CompositeExplicitAutograd")
library.impl("deform_conv3d_backward", reference.backward, "CompositeExplicitAutograd")
library.impl("deform_conv3d", cuda.forward, "CUDA")
library.impl("deform_conv3d_backward", cuda.backward, "CUDA")


def _fake_forward(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: Triple,
    padding: Triple,
    dilation: Triple,
    dims: str,
    negative_slope: float,
) -> Tensor:
    check_tensors(input, offset, weight, bias, mask, stride, padding, dilation, dims)
    size = output_size(input.shape[2:], weight.shape[2:], stride, padding, dilation)
    return empty_in_layout_of(input, (input.size(0), weight.size(0), *size))


def _fake_backward(
    grad: Tensor,
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: Triple,
    padding: Triple,
    dilation: Triple,
    dims: str,
    need_input: bool,
    need_offset: bool,
    need_weight: bool,
    need_mask: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    def gradient(of: Tensor | None, needed: bool) -> Tensor:
        return empty_in_layout_of(of, of.shape) if needed and of is not None else input.new_empty(0)

    return (
        gradient(input, need_input),
        gradient(offset, need_offset),
        gradient(weight, need_weight),
        gradient(mask, need_mask),
        input.new_empty(weight.size(0) if need_bias else 0),
    )


torch_library.register_fake("d3dnet::deform_conv3d", _fake_forward, lib=library)
torch_library.register_fake("d3dnet::deform_conv3d_backward", _fake_backward, lib=library)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor | None) -> None:
    input, offset, weight, _, mask, *ctx.geometry, ctx.negative_slope = inputs
    output = None if ctx.negative_slope == 1 else output
    ctx.save_for_backward(input, offset, weight, mask, output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, offset, weight, mask, output = ctx.saved_tensors
    if output is not None:
        # The sign of the result is that of the sum before the LeakyReLU, which was not kept.
        grad = torch.ops.aten.leaky_relu_backward(grad, output, ctx.negative_slope, True)
    need_input, need_offset, need_weight, need_bias, need_mask = ctx.needs_input_grad[:5]
    needs = (need_input, need_offset, need_weight, need_mask, need_bias)
    gradients = torch.ops.d3dnet.deform_conv3d_backward(
        grad, input, offset, weight, mask, *ctx.geometry, *needs
    )
    of_input, of_offset, of_weight, of_mask, of_bias = (
        gradient if needed else None for gradient, needed in zip(gradients, needs, strict=True)
    )
    return of_input, of_offset, of_weight, of_bias, of_mask, None, None, None, None, None


def _second_derivative(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError(
        "deform_conv3d has no second derivative; differentiate it once, without create_graph=True"
    )


torch_library.register_autograd(
    "d3dnet::deform_conv3d", _backward, setup_context=_setup_context, lib=library
)
torch_library.register_autograd("d3dnet::deform_conv3d_backward", _second_derivative, lib=library)


def _autocast_for(device_type: str) -> Callable[..., Tensor]:
    """Lower features and weights as autocast does a convolution's; a float32 offset stays."""
    key = getattr(torch._C.DispatchKey, f"Autocast{device_type.upper()}")

    def autocast(
        input: Tensor,
        offset: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mask: Tensor | None,
        *settings: Any,
    ) -> Tensor:
        dtype = torch.get_autocast_dtype(device_type)

        def lowered(tensor: Tensor) -> Tensor:
            return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)

        def lowered_or_none(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else lowered(tensor)

        if offset.dtype not in (torch.float64, lowered(input).dtype):
            offset = offset.to(torch.float32)  # exact from either 16-bit dtype
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key)):
            output: Tensor = torch.ops.d3dnet.deform_conv3d(
                *(lowered(input), offset, lowered(weight)),
                *(lowered_or_none(bias), lowered_or_none(mask), *settings),
            )
            return output

    return autocast


library.impl("deform_conv3d", _autocast_for("cpu"), "AutocastCPU")
library.impl("deform_conv3d", _autocast_for("cuda"), "AutocastCUDA")

load_cpu_library()
