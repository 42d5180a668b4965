"""What `deform_conv3d` accepts and returns: shapes, dtypes, layouts. The one place that knows.

Offset layout: (B, G·K·D, To, Ho, Wo), offset group major, then tap in (t, h, w) order, then one
value per deformable dimension in the order of `dims`, in pixels. Mask: (B, G·K, To, Ho, Wo).
"""

import math
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

Triple = tuple[int, int, int]

DIMS = ("T", "H", "W", "TH", "TW", "HW", "THW")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def triple(name: str, value: int | Sequence[int], minimum: int) -> Triple:
    """Turn an int or (t, h, w) into a triple; `ValueError` names the argument."""
    values = tuple(value) if isinstance(value, Sequence | torch.Size) else (value,) * 3
    try:
        whole = tuple(operator.index(v) for v in values)
    except TypeError:
        whole = ()
    if len(whole) != 3 or min(whole) < minimum:
        raise ValueError(
            f"{name} is {value!r}; accepted: an int or three ints (t, h, w), each ≥ {minimum}"
        )
    return whole


def check_dims(dims: str) -> None:
    """Raise `ValueError` unless `dims` is a non-empty subset of T, H, W in that order."""
    if dims not in DIMS:
        raise ValueError(f"dims is {dims!r}; accepted: {', '.join(repr(d) for d in DIMS)}")


def check_negative_slope(slope: object) -> None:
    """Raise `ValueError` unless `slope` is a finite number above 0.

    Above 0 so that the sign of a result is that of the sum it was made from: it is all that the
    gradient needs, and the sum need not be kept.
    """
    if not isinstance(slope, int | float) or not 0 < slope < math.inf:
        raise ValueError(
            f"negative_slope is {slope!r}; accepted: a finite number above 0, 1 for no activation"
        )


def output_size(
    size: Sequence[int], kernel: Sequence[int], stride: Triple, padding: Triple, dilation: Triple
) -> Triple:
    """Size (To, Ho, Wo) of the output for an input of size (T, H, W), as of any convolution."""
    along = [
        (size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i in range(3)
    ]
    return along[0], along[1], along[2]


def empty_in_layout_of(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Make the empty result that belongs to `tensor`: the layout rule of every implementation.

    channels_last_3d where `tensor` is channels_last_3d-contiguous and not also contiguous, else
    contiguous. The output follows `input` by this rule, and every gradient follows the tensor that
    it is the gradient of. torch.compile relies on the fake kernels saying the same.
    """
    return torch.empty(
        shape, dtype=tensor.dtype, device=tensor.device, memory_format=layout_of(tensor)
    )


def layout_of(tensor: Tensor) -> torch.memory_format:
    """The layout of what belongs to `tensor`, by the rule of `empty_in_layout_of`."""
    channels_last = not tensor.is_contiguous() and tensor.is_contiguous(
        memory_format=torch.channels_last_3d
    )
    return torch.channels_last_3d if channels_last else torch.contiguous_format


def check_tensors(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: Triple,
    padding: Triple,
    dilation: Triple,
    dims: str,
) -> None:
    """Raise `ValueError` naming the argument, what was found and what is accepted."""
    given: dict[str, object] = {"input": input, "offset": offset, "weight": weight}
    given |= {n: t for n, t in (("bias", bias), ("mask", mask)) if t is not None}
    tensors = {}
    for name, tensor in given.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} is a {type(tensor).__name__}; accepted: a torch.Tensor")
        tensors[name] = tensor
    for name, tensor in tensors.items():
        if tensor.device != input.device:
            raise ValueError(
                f"{name} is on {tensor.device}; accepted: the device of input, {input.device}"
            )
    _check_dtypes(tensors)
    _check_shapes(input, offset, weight, bias, mask, stride, padding, dilation, dims)


def _check_dtypes(tensors: dict[str, Tensor]) -> None:
    input = tensors["input"]
    device = input.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            accepted = ", ".join(str(dtype) for dtype in DTYPES)
            raise ValueError(f"{name} is {tensor.dtype}; accepted: {accepted}")
        wide = tensor.dtype == torch.float64, input.dtype == torch.float64
        if name == "offset" and tensor.dtype == torch.float32:
            continue
        # Autocast makes dtypes agree, but leaves float64 alone: beside others it stays an error.
        if tensor.dtype != input.dtype and (not autocast or any(wide)):
            accepted = f"the dtype of input, {input.dtype}"
            if name == "offset" and input.dtype != torch.float32:
                accepted += ", or torch.float32"
            raise ValueError(f"{name} is {tensor.dtype}; accepted: {accepted}")


def _check_shapes(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: Triple,
    padding: Triple,
    dilation: Triple,
    dims: str,
) -> None:
    if input.dim() != 5 or min(input.shape[1:]) < 1:
        _reject("input", input, "(B, C, T, H, W), none of C, T, H, W being 0")
    if weight.dim() != 5 or min(weight.shape) < 1:
        _reject("weight", weight, "(O, C/groups, kt, kh, kw), none of them being 0")
    channels = input.size(1)
    if channels % weight.size(1) != 0:
        _reject("weight", weight, f"(O, C/groups, kt, kh, kw) with C = {channels} from input")
    groups = channels // weight.size(1)
    if weight.size(0) % groups != 0:
        _reject(
            "weight", weight, f"(O, C/groups, kt, kh, kw) with O a multiple of groups = {groups}"
        )
    if bias is not None and tuple(bias.shape) != (weight.size(0),):
        _reject("bias", bias, f"(O,) with O = {weight.size(0)} from weight")

    kernel = tuple(weight.shape[2:])
    size = output_size(input.shape[2:], kernel, stride, padding, dilation)
    if min(size) < 1:
        raise ValueError(
            f"input has (T, H, W) = {tuple(input.shape[2:])}, which makes the output {size} with a "
            f"{kernel} kernel, stride {stride}, padding {padding} and dilation {dilation}; "
            "accepted: sizes that leave at least one output position in every dimension"
        )
    taps = kernel[0] * kernel[1] * kernel[2]
    per_group = taps * len(dims)
    around = f"B = {input.size(0)}, (To, Ho, Wo) = {size}"
    if (
        offset.dim() != 5
        or (offset.size(0), *offset.shape[2:]) != (input.size(0), *size)
        or offset.size(1) < 1
        or offset.size(1) % per_group != 0
        or channels % (offset.size(1) // per_group) != 0
    ):
        _reject(
            "offset",
            offset,
            f"(B, G·K·D, To, Ho, Wo) with {around}, K = {taps} taps, D = {len(dims)} for dims "
            f"{dims!r} and G a divisor of C = {channels}",
        )
    offset_groups = offset.size(1) // per_group
    if mask is not None and tuple(mask.shape) != (input.size(0), offset_groups * taps, *size):
        _reject(
            "mask",
            mask,
            f"(B, G·K, To, Ho, Wo) with {around}, G = {offset_groups} offset groups and "
            f"K = {taps} taps",
        )


def _reject(name: str, tensor: Tensor, accepted: str) -> None:
    raise ValueError(f"{name} has shape {tuple(tensor.shape)}; accepted: {accepted}")
