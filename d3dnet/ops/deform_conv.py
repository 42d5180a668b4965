"""Deformable 3-D convolution (Ying et al., "Deformable 3D Convolution for Video Super-Resolution").

A convolution whose taps read the input at learned, fractional positions
p = out·stride - padding + tap·dilation + offset instead of on the regular grid.
"""

import math

import torch
from torch import Tensor, nn

from d3dnet.ops import registration  # noqa: F401  (declares torch.ops.d3dnet)
from d3dnet.ops.contract import check_dims, check_negative_slope, check_tensors, triple


def deform_conv3d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] = 0,
    dilation: int | tuple[int, int, int] = 1,
    mask: Tensor | None = None,
    dims: str = "THW",
    negative_slope: float = 1.0,
) -> Tensor:
    """Convolve with taps that are moved by `offset`, sampling (tri/bi)linearly.

    A sample at ≤ -1 or ≥ size in any dimension is 0; near a border the neighbours outside count as
    0. With zero offsets and no mask this is `torch.nn.functional.conv3d`. Differentiable once in
    every tensor; at integer positions the derivative is that of the cell [floor(p), floor(p) + 1).

    Args:
        input: (B, C, T, H, W), float32, float64, bfloat16 or float16; B may be 0.
        offset: (B, G·K·D, To, Ho, Wo) in pixels, of input's dtype or float32. K = kt·kh·kw taps,
            D = len(dims), G offset groups (inferred; channels are split evenly among them):
            group-major, then tap in (t, h, w) order, then dimension in the order of `dims`.
        weight: (O, C/groups, kt, kh, kw), of input's dtype; groups are inferred.
        bias: (O,), of input's dtype.
        stride, padding, dilation: an int or (t, h, w).
        mask: (B, G·K, To, Ho, Wo), of input's dtype; multiplies each sample, no activation inside.
        dims: the dimensions that move, a non-empty subset of T, H, W in that order. D3Dnet: "HW".
        negative_slope: above 0; of a LeakyReLU on the result, in the same pass and before it is
            rounded to 16 bits: values below 0 are multiplied by it. 1 is no activation.

    Returns:
        (B, O, To, Ho, Wo) of input's dtype, channels_last_3d where `input` is, else contiguous.
        Coordinates and sums are in float32 or better. Under autocast features, weights, bias and
        mask are lowered; a float32 offset is left alone.

    Raises:
        ValueError: a wrong shape, dtype, device or setting; it names the argument, what was found
            and what is accepted.

    >>> x, weight = torch.rand(1, 2, 3, 8, 8), torch.rand(4, 2, 3, 3, 3)
    >>> still = torch.zeros(1, 27 * 2, 3, 8, 8)  # two values, of height and width, for each tap
    >>> y = deform_conv3d(x, still, weight, padding=1, dims="HW")
    >>> torch.allclose(y, nn.functional.conv3d(x, weight, padding=1), atol=1e-5)
    True
    """
    check_dims(dims)
    check_negative_slope(negative_slope)
    stride = triple("stride", stride, minimum=1)
    padding = triple("padding", padding, minimum=0)
    dilation = triple("dilation", dilation, minimum=1)
    check_tensors(input, offset, weight, bias, mask, stride, padding, dilation, dims)
    output: Tensor = torch.ops.d3dnet.deform_conv3d(
        input, offset, weight, bias, mask, stride, padding, dilation, dims, negative_slope
    )
    return output


class DeformConv3d(nn.Module):
    """The parameters of a `deform_conv3d`, initialised as PyTorch's convolutions are.

    Offsets and mask are arguments of `forward`: what predicts them is the caller's. Parameters:
    `weight` (out_channels, in_channels/groups, kt, kh, kw) and `bias` (out_channels,) or None.

    >>> layer = DeformConv3d(2, 4, 3, padding=1, dims="HW")
    >>> layer(torch.rand(1, 2, 3, 8, 8), torch.rand(1, 54, 3, 8, 8)).shape
    torch.Size([1, 4, 3, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int],
        stride: int | tuple[int, int, int] = 1,
        padding: int | tuple[int, int, int] = 0,
        dilation: int | tuple[int, int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        dims: str = "THW",
        negative_slope: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_dims(dims)
        check_negative_slope(negative_slope)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if groups < 1 or channels < 1 or channels % groups != 0:
                raise ValueError(
                    f"{name} is {channels} and groups is {groups}; "
                    f"accepted: a positive {name} that is a multiple of groups"
                )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = triple("kernel_size", kernel_size, minimum=1)
        self.stride = triple("stride", stride, minimum=1)
        self.padding = triple("padding", padding, minimum=0)
        self.dilation = triple("dilation", dilation, minimum=1)
        self.groups = groups
        self.dims = dims
        self.negative_slope = negative_slope
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias uniformly from ±1/√(inputs per output), as `torch.nn.Conv3d`."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, C, T, H, W), (B, G·K·D, To, Ho, Wo)[, (B, G·K, To, Ho, Wo)] → (B, O, To, Ho, Wo)."""
        return deform_conv3d(
            input,
            offset,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            mask,
            self.dims,
            self.negative_slope,
        )

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, bias={self.bias is not None}, dims={self.dims!r}, "
            f"negative_slope={self.negative_slope}"
        )
