"""The operator by `torchvision.ops.deform_conv2d`, a temporal tap at a time, where it is installed.

Many times slower than the kernels of cuda_ops/, but other people's: what they are compared with,
and what a training falls back on (`D3DNET_CUDA_KERNELS=torchvision`). Its dims are "HW"; other ones
run on the PyTorch reference. Features and sums are float32 or better.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from d3dnet.ops import reference
from d3dnet.ops.contract import Triple, empty_in_layout_of


def load(device: int) -> "TorchvisionOperators":
    """The operators; `OSError` where torchvision is missing or was built for another torch."""
    try:
        import torchvision

        torchvision.extension._assert_has_ops()
    except (ImportError, RuntimeError) as error:
        raise OSError(f"torchvision cannot be used: {error}") from error
    return TorchvisionOperators()


def convolve(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: Triple,
    padding: Triple,
    dilation: Triple,
) -> Tensor:
    """Deformable convolution with dims "HW", differentiable; shapes as of `deform_conv3d`."""
    from torchvision.ops import deform_conv2d

    batch, _, frames = input.shape[:3]
    out_frames = offset.size(2)
    taps, plane = weight.size(2), weight.size(3) * weight.size(4)

    def per_frame(tensor: Tensor, tap: int, values: int) -> Tensor:
        """(B, G·K·values, To, Ho, Wo) → (B·To, G·plane·values, Ho, Wo), of one temporal tap."""
        own = torch.unflatten(tensor, 1, (-1, taps, plane * values))[:, :, tap].flatten(1, 2)
        return own.transpose(1, 2).flatten(0, 1)

    total = None
    for tap in range(taps):
        read = torch.arange(out_frames, device=input.device) * stride[0]
        read = read - padding[0] + tap * dilation[0]
        inside = (read >= 0) & (read < frames)
        frame = input.index_select(2, read.clamp(0, frames - 1))
        frame = frame * inside.to(frame.dtype).view(-1, 1, 1)
        product = deform_conv2d(
            frame.transpose(1, 2).flatten(0, 1).contiguous(),
            per_frame(offset, tap, 2).contiguous(),
            weight[:, :, tap].contiguous(),
            None,
            stride[1:],
            padding[1:],
            dilation[1:],
            None if mask is None else per_frame(mask, tap, 1).contiguous(),
        )
        total = product if total is None else total + product
    assert total is not None  # a kernel has taps
    output: Tensor = torch.unflatten(total, 0, (batch, out_frames)).transpose(1, 2)
    return output if bias is None else output + bias.view(-1, 1, 1, 1)


class TorchvisionOperators:
    """The operators of `d3dnet.ops.cuda.Operators`."""

    def deform_conv3d(
        self,
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
        allow_tf32: bool,
    ) -> Tensor:
        """Compute `d3dnet::deform_conv3d`."""
        geometry = (stride, padding, dilation)
        if dims != "HW" or input.size(0) == 0:
            tensors = (input, offset, weight, bias, mask)
            return reference.forward(*tensors, *geometry, dims, negative_slope)
        with torch.autocast(input.device.type, enabled=False):
            x, shift, matrix, constant, factor = _wide(input, offset, weight, bias, mask)
            found = convolve(x, shift, matrix, constant, factor, *geometry)
            found = F.leaky_relu(found, negative_slope)
        return empty_in_layout_of(input, found.shape).copy_(found)

    def deform_conv3d_backward(
        self,
        grad: Tensor,
        input: Tensor,
        offset: Tensor,
        weight: Tensor,
        mask: Tensor | None,
        stride: Triple,
        padding: Triple,
        dilation: Triple,
        dims: str,
        *needs: Any,
    ) -> tuple[Tensor, ...]:
        """Compute `d3dnet::deform_conv3d_backward`; ``needs`` ends with ``allow_tf32``."""
        geometry = (stride, padding, dilation)
        if dims != "HW" or input.size(0) == 0:
            tensors = (grad, input, offset, weight, mask)
            return reference.backward(*tensors, *geometry, dims, *needs[:5])
        bias = weight.new_zeros(weight.size(0))
        own = (input, offset, weight, mask, bias)
        wanted = [t is not None and need for t, need in zip(own, needs[:5], strict=True)]
        with torch.enable_grad(), torch.autocast(input.device.type, enabled=False):
            wide: list[Any] = [
                None if t is None else t.detach().requires_grad_(need)
                for t, need in zip(_wide(*own), wanted, strict=True)
            ]
            x, shift, matrix, factor, constant = wide
            output = convolve(x, shift, matrix, constant, factor, *geometry)
            leaves = [t for t, need in zip(wide, wanted, strict=True) if t is not None and need]
            found = iter(torch.autograd.grad(output, leaves, grad.to(output.dtype)))
        return tuple(
            empty_in_layout_of(t, t.shape).copy_(next(found))
            if t is not None and need
            else input.new_empty(0)
            for t, need in zip(own, wanted, strict=True)
        )


def _wide(*tensors: Tensor | None) -> list[Any]:
    """In one dtype, which torchvision asks for, and not in bfloat16, which it does not know."""
    first = next(t for t in tensors if t is not None)
    dtype = torch.promote_types(first.dtype, torch.float32)
    return [None if t is None else t.to(dtype) for t in tensors]
