"""Deformable 3-D convolution in plain PyTorch: the readable twin of the compiled kernels.

It runs on any device, is the fallback where nothing was compiled, and never holds the column matrix
of more than a slice of one output frame: `COLUMN_ELEMENTS` bounds it.

The sampled value of a tap is an interpolation between the corners of the cell that the sample falls
into. Pixels are kept as the rows of a table whose last row is zero; a corner outside the clip reads
that row, so that neither its value nor a NaN beside it is ever multiplied by a zero weight.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from d3dnet.ops.contract import Triple, empty_in_layout_of, output_size

COLUMN_ELEMENTS = 2**21  # columns held at once: 8 MiB in float32
FAR = 2.0**30  # pixels; offsets beyond it are outside of any clip and still fit an index


class Corner(NamedTuple):
    """One corner of the cell of every sample in a chunk; all tensors are (positions, taps, groups).

    row: of the pixel table, `zero_row` where the corner is outside the clip.
    weight: interpolation weight.
    slopes: derivative of `weight` with respect to the offset, one per deformable dimension.
    """

    row: Tensor
    weight: Tensor
    slopes: list[Tensor]


class End(NamedTuple):
    """One end of a cell along one axis, of every sample in a chunk.

    coordinate: of its pixels; weight: None along an axis that does not move; slope: of the weight.
    """

    coordinate: Tensor
    weight: Tensor | None
    slope: int


class Chunk(NamedTuple):
    """Consecutive output positions of one frame: `out[batch, :, frame].flatten(1)[:, span]`."""

    batch: int
    frame: int
    span: slice


@torch.no_grad()
def forward(
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
    """Compute `d3dnet::deform_conv3d`; the arguments are those of `d3dnet.ops.deform_conv3d`."""
    kernel, clip_size = _triple(weight.shape[2:]), _triple(input.shape[2:])
    size = output_size(clip_size, kernel, stride, padding, dilation)
    out = empty_in_layout_of(input, (input.size(0), weight.size(0), *size))
    compute = _compute_dtype(input)
    taps = kernel[0] * kernel[1] * kernel[2]
    groups = offset.size(1) // (taps * len(dims))
    matrix = _weight_matrix(weight, input.size(1)).to(compute)
    with torch.autocast(input.device.type, enabled=False):
        for batch, chunks in itertools.groupby(_chunks(out, taps * input.size(1)), lambda c: c[0]):
            table = _pixel_table(input[batch], groups, compute)
            for chunk in chunks:
                corners = _corners(
                    offset, chunk, clip_size, kernel, stride, padding, dilation, dims, compute
                )
                sampled = _sample(table, corners)
                if mask is not None:
                    sampled = sampled * _per_sample(mask, chunk, groups).to(compute).unsqueeze(-1)
                product = torch.bmm(_columns(sampled, matrix), matrix)
                product = product.transpose(1, 2).flatten(0, 1)
                if bias is not None:
                    product += bias.to(compute).unsqueeze(1)
                _frame(out, chunk)[:, chunk.span] = F.leaky_relu(product, negative_slope)
    return out


@torch.no_grad()
def backward(
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
    """Compute `d3dnet::deform_conv3d_backward`: gradients of input, offset, weight, mask and bias.

    The columns are sampled again, chunk by chunk. A gradient not needed is an empty tensor.
    """
    kernel, clip_size = _triple(weight.shape[2:]), _triple(input.shape[2:])
    compute = _compute_dtype(input)
    channels = input.size(1)
    taps = kernel[0] * kernel[1] * kernel[2]
    groups = offset.size(1) // (taps * len(dims))
    matrix = _weight_matrix(weight, channels).to(compute)
    grad_input = empty_in_layout_of(input, input.shape) if need_input else input.new_empty(0)
    grad_offset = empty_in_layout_of(offset, offset.shape) if need_offset else input.new_empty(0)
    grad_mask = input.new_empty(0)
    if mask is not None and need_mask:
        grad_mask = empty_in_layout_of(mask, mask.shape)
    need_mask = need_mask and mask is not None
    grad_matrix = torch.zeros_like(matrix)
    grad_bias = matrix.new_zeros(weight.size(0))

    with torch.autocast(input.device.type, enabled=False):
        for batch, chunks in itertools.groupby(_chunks(grad, taps * channels), lambda c: c[0]):
            table = _pixel_table(input[batch], groups, compute)
            grad_table = torch.zeros_like(table)
            for chunk in chunks:
                grad_product = _frame(grad, chunk)[:, chunk.span].to(compute)
                grad_bias += grad_product.sum(1)
                grad_product = torch.unflatten(
                    grad_product, 0, (matrix.size(0), -1)
                )  # (groups, O', n)
                corners = _corners(
                    offset, chunk, clip_size, kernel, stride, padding, dilation, dims, compute
                )
                factor = None if mask is None else _per_sample(mask, chunk, groups).to(compute)
                if need_weight or need_mask:
                    sampled = _sample(table, corners)
                    columns = _times(sampled, None if factor is None else factor.unsqueeze(-1))
                    if need_weight:
                        columns = _columns(columns, matrix)
                        grad_matrix += torch.bmm(columns.transpose(1, 2), grad_product.mT)
                if not (need_input or need_offset or need_mask):
                    continue
                # (groups, n, K·C') → (n, K, offset groups, channels of one)
                grad_columns = torch.bmm(grad_product.mT, matrix.mT)
                grad_columns = torch.unflatten(grad_columns, 2, (taps, -1)).permute(1, 2, 0, 3)
                grad_columns = grad_columns.reshape(-1, taps, groups, channels // groups)
                if need_mask:
                    _store_per_sample(grad_mask, chunk, [(sampled * grad_columns).sum(-1)])
                if need_offset:
                    grad_positions = _grad_positions(table, corners, grad_columns)
                    _store_per_sample(
                        grad_offset, chunk, [_times(g, factor) for g in grad_positions]
                    )
                if need_input:
                    _scatter(grad_table, corners, factor, grad_columns)
            if need_input:
                pixels = grad_table[:-1].view(*input.shape[2:], channels)
                grad_input[batch] = pixels.permute(3, 0, 1, 2)

    grad_weight = input.new_empty(0)
    if need_weight:
        grad_weight = empty_in_layout_of(weight, weight.shape)
        # (groups, K·C', O') → (O, C', kt, kh, kw)
        grad_matrix = torch.unflatten(grad_matrix, 1, (taps, -1)).permute(0, 3, 2, 1)
        grad_weight.copy_(grad_matrix.reshape(weight.shape))
    grad_bias = grad_bias.to(input.dtype) if need_bias else input.new_empty(0)
    return grad_input, grad_offset, grad_weight, grad_mask, grad_bias


def _triple(size: Sequence[int]) -> Triple:
    return size[0], size[1], size[2]


def _times(values: Tensor, factor: Tensor | None) -> Tensor:
    return values if factor is None else values * factor


def _compute_dtype(input: Tensor) -> torch.dtype:
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def _weight_matrix(weight: Tensor, channels: int) -> Tensor:
    """(O, C', kt, kh, kw) → (groups, K·C', O'), the tap varying slower than the channel."""
    groups = channels // weight.size(1)
    matrix = weight.reshape(groups, weight.size(0) // groups, weight.size(1), -1)
    return matrix.permute(0, 3, 2, 1).flatten(1, 2)


def _chunks(out: Tensor, columns_per_position: int) -> Iterator[Chunk]:
    batches, _, frames, height, width = out.shape
    step = max(1, COLUMN_ELEMENTS // columns_per_position)
    for batch, frame in itertools.product(range(batches), range(frames)):
        for start in range(0, height * width, step):
            yield Chunk(batch, frame, slice(start, min(start + step, height * width)))


def _frame(tensor: Tensor, chunk: Chunk) -> Tensor:
    """One frame of a (B, X, To, Ho, Wo) tensor as (X, Ho·Wo)."""
    return tensor[chunk.batch, :, chunk.frame].flatten(1)


def _per_sample(mask: Tensor, chunk: Chunk, groups: int) -> Tensor:
    """The chunk's part of the mask, (B, G·K, To, Ho, Wo) → (n, K, G)."""
    rows = _frame(mask, chunk)[:, chunk.span]
    return torch.unflatten(rows, 0, (groups, -1)).permute(2, 1, 0)


def _store_per_sample(grad: Tensor, chunk: Chunk, values: list[Tensor]) -> None:
    """Write one (n, K, G) tensor per deformable dimension into (B, G·K·D, To, Ho, Wo)."""
    stacked = torch.stack(values, -1)  # (n, K, G, D)
    _frame(grad, chunk)[:, chunk.span] = stacked.permute(2, 1, 3, 0).flatten(0, 2)


def _pixel_table(clip: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    """(C, T, H, W) → (T·H·W·G + 1, C/G), last row zero."""
    rows = clip.permute(1, 2, 3, 0).reshape(-1, clip.size(0) // groups)
    table = torch.zeros(rows.size(0) + 1, rows.size(1), dtype=dtype, device=clip.device)
    table[:-1] = rows
    return table


def _corners(
    offset: Tensor,
    chunk: Chunk,
    size: Triple,
    kernel: Triple,
    stride: Triple,
    padding: Triple,
    dilation: Triple,
    dims: str,
    dtype: torch.dtype,
) -> list[Corner]:
    """Find the 2^D corners around every sample of a chunk, and their weights.

    The integer and the fractional part of a position are kept apart, so that no precision is lost
    to large coordinates: the fraction is that of the offset alone.
    """
    device = offset.device
    taps = kernel[0] * kernel[1] * kernel[2]
    shifts = _frame(offset, chunk)[:, chunk.span].to(dtype)
    shifts = torch.unflatten(shifts, 0, (-1, taps, len(dims))).permute(2, 3, 1, 0)  # (D, n, K, G)
    groups = shifts.size(3)
    position = torch.arange(chunk.span.start, chunk.span.stop, device=device)
    out_width = output_size(size, kernel, stride, padding, dilation)[2]
    tap = torch.arange(taps, device=device)
    out_position = (chunk.frame, position // out_width, position % out_width)
    tap_position = (
        tap // (kernel[1] * kernel[2]),
        tap // kernel[2] % kernel[1],
        tap % kernel[2],
    )

    inside = torch.ones((), dtype=torch.bool, device=device)
    choices: list[list[End]] = []  # per axis: the ends of the cell
    for axis, name in enumerate("THW"):
        start = torch.as_tensor(out_position[axis], device=device) * stride[axis] - padding[axis]
        start = start.view(-1, 1, 1) + (tap_position[axis] * dilation[axis]).view(-1, 1)
        if name not in dims:
            inside = inside & (start >= 0) & (start < size[axis])
            choices.append([End(start, None, 0)])
            continue
        shift = shifts[dims.index(name)].nan_to_num(nan=FAR).clamp(-FAR, FAR)
        whole = shift.floor()
        fraction = shift - whole
        lower = start + whole.long()
        inside = inside & (lower < size[axis]) & ((lower >= 0) | ((lower == -1) & (fraction > 0)))
        choices.append([End(lower, 1 - fraction, -1), End(lower + 1, fraction, 1)])

    zero_row = size[0] * size[1] * size[2] * groups
    corners = []
    for ends in itertools.product(*choices):
        valid = inside
        pixel = torch.zeros((), dtype=torch.long, device=device)
        for end, extent in zip(ends, size, strict=True):
            valid = valid & (end.coordinate >= 0) & (end.coordinate < extent)
            pixel = pixel * extent + end.coordinate
        index = pixel * groups + torch.arange(groups, device=device)
        index = torch.where(valid, index, zero_row).expand(position.numel(), taps, groups)
        moving = [(end.weight, end.slope) for end in ends if end.weight is not None]
        weight = _product([w for w, _ in moving], like=shifts[0])
        slopes = []
        for dim, (_, sign) in enumerate(moving):
            others = [w for other, (w, _) in enumerate(moving) if other != dim]
            slopes.append(sign * _product(others, like=shifts[0]))
        corners.append(Corner(index, weight, slopes))
    return corners


def _product(factors: list[Tensor], like: Tensor) -> Tensor:
    product = torch.ones_like(like)
    for factor in factors:
        product = product * factor
    return product


def _reached(corner: Corner, table: Tensor) -> Tensor:
    """Rows of the corners that carry weight: one of weight 0 contributes nothing, not even NaN."""
    return torch.where(corner.weight == 0, table.size(0) - 1, corner.row)


def _sample(table: Tensor, corners: list[Corner]) -> Tensor:
    """Interpolate: the weighted sum of the corners' rows, (n, K, G, C/G)."""
    shape = corners[0].row.shape
    rows = torch.stack([_reached(corner, table) for corner in corners], -1).flatten(0, 2)
    weights = torch.stack([corner.weight for corner in corners], -1).flatten(0, 2)
    sampled = F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")
    return sampled.view(*shape, -1)


def _columns(sampled: Tensor, matrix: Tensor) -> Tensor:
    """(n, K, G, C/G) → (groups, n, K·C')."""
    groups = matrix.size(0)
    columns = torch.unflatten(sampled.flatten(2), 2, (groups, -1))  # (n, K, groups, C')
    return columns.permute(2, 0, 1, 3).flatten(2)


def _grad_positions(table: Tensor, corners: list[Corner], grad_columns: Tensor) -> list[Tensor]:
    """Gradient with respect to each coordinate of the samples, without the mask: (n, K, G) each."""
    totals = [torch.zeros_like(corners[0].weight) for _ in corners[0].slopes]
    for corner in corners:
        rows = table.index_select(0, corner.row.flatten()).view_as(grad_columns)
        grad_weight = (rows * grad_columns).sum(-1)
        for total, slope in zip(totals, corner.slopes, strict=True):
            total += slope * grad_weight
    return totals


def _scatter(
    grad_table: Tensor, corners: list[Corner], factor: Tensor | None, grad_columns: Tensor
) -> None:
    """Add every sample's gradient to the pixels it was read from."""
    channels = grad_table.size(1)
    for corner in corners:
        rows = _reached(corner, grad_table).reshape(-1, 1).expand(-1, channels)
        values = _times(corner.weight, factor).unsqueeze(-1) * grad_columns
        grad_table.scatter_add_(0, rows, values.reshape(-1, channels))
