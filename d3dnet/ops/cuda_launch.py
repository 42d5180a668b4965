"""Plans the launches of the CUDA kernels: the Python twin of cuda_ops/cuda/deform_conv3d.cu.

Used where the kernels were compiled at run time. What a launch is, is the caller's: a GPU's, or in
the tests an emulation's.
"""

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from d3dnet.ops.contract import Triple, empty_in_layout_of, layout_of

WANTED_BLOCKS = 1024  # fill any GPU; depends on nothing, so that results repeat
TILE = 64  # channels and outputs that one block multiplies
SLICE_BYTES = 32
ROW_BYTES = 4 * SLICE_BYTES + 16


class Element(NamedTuple):
    """A dtype as the kernels name it; `type` is its name in C++."""

    name: str
    type: str


# Channels of D3Dnet's layers, for which there are kernels with all sizes known to the compiler, and
# the products that they are compiled for: D3DNET_LAYERS of cuda_ops/cuda/kernels.cuh.
LAYER_CHANNELS = (64, 32)
LAYER_PRODUCTS = ("bfloat16", "float16", "tf32")

ELEMENTS = {
    torch.bfloat16: Element("bfloat16", "d3dnet::bfloat16"),
    torch.float16: Element("float16", "d3dnet::float16"),
    torch.float32: Element("float32", "float"),
    torch.float64: Element("float64", "double"),
}


class Tiling(ctypes.Structure):
    """`Tiling` of cuda_ops/cuda/problem.cuh."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("log_width", "log_height", "across", "down")),
        ("count", ctypes.c_int),
        ("reserved", ctypes.c_int),
    )


def _fields() -> list[tuple[str, type]]:
    def ints(*names: str) -> list[tuple[str, type]]:
        return [(name, ctypes.c_int) for name in names]

    triples = ("in_size", "out_size", "kernel", "stride", "padding", "dilation", "moves")
    pointers = ("input", "offset", "mask", "weight", "bias", "grad", "packed_weight", "output")
    gradients = ("grad_input", "grad_offset", "grad_mask", "grad_weight", "partial_sums")
    return [
        ("batch", ctypes.c_longlong),
        *ints("channels", "out_channels", "groups", "offset_groups"),
        *((name, ctypes.c_int * 3) for name in triples),
        *ints("moving", "run", "offset_is_float", "round_weights", "output_is_channels_last"),
        *ints("whole_input", "whole_grad", "segments"),
        *ints("offset_is_channels_last", "mask_is_channels_last", "reserved"),
        ("negative_slope", ctypes.c_double),
        ("tiles", Tiling),
        *((name, ctypes.c_void_p) for name in (*pointers, *gradients)),
    ]


class CudaProblem(ctypes.Structure):
    """`CudaProblem` of cuda_ops/cuda/problem.cuh."""

    _fields_ = _fields()

    @property
    def taps(self) -> int:
        kernel: tuple[int, int, int] = tuple(self.kernel)
        return math.prod(kernel)

    @property
    def group_channels(self) -> int:
        return int(self.channels // self.groups)

    @property
    def group_outputs(self) -> int:
        return int(self.out_channels // self.groups)


class SharedBytes(NamedTuple):
    """Shared memory of a block of each kernel."""

    forward: int
    data_gradients: int
    weight_gradients: int


def shared_bytes(dtype: torch.dtype) -> SharedBytes:
    """Sizes of ForwardShared, DataGradientShared and WeightGradientShared."""
    size = dtype.itemsize
    sums = max(size, 4)
    sample, corners, frames = 16 + 4 * sums, 16 + 4 * sums, 8 + 2 * sums
    table = 2 * 128 * corners if sums == 4 else 128 * (corners + frames)
    pixels = _weight_pixels(dtype)
    return SharedBytes(
        2 * (128 + TILE) * ROW_BYTES + table,
        max(2 * TILE * ROW_BYTES, TILE * (TILE + 4) * sums)
        + TILE * (sample + corners + frames + 8 * sums),
        2 * pixels * (TILE * size + 16) + pixels * (corners + frames),
    )


def _weight_pixels(dtype: torch.dtype) -> int:
    return 64 if dtype.itemsize == 2 else 32


def tiling(problem: CudaProblem, pixels: int) -> Tiling:
    """Cut the output into rectangles of `pixels` (a power of 2): as few as possible, squarish."""
    log_pixels = pixels.bit_length() - 1

    def of_width(log_width: int) -> Tiling:
        log_height = log_pixels - log_width
        across = -(-problem.out_size[2] >> log_width)
        down = -(-problem.out_size[1] >> log_height)
        count = problem.batch * problem.out_size[0] * across * down
        return Tiling(log_width, log_height, across, down, min(count, 2**31 - 1), 0)

    squarest_first = sorted(range(log_pixels + 1), key=lambda n: abs(2 * n - log_pixels - 1))
    best = min(map(of_width, squarest_first), key=lambda tiling: tiling.count)
    if best.count == 2**31 - 1:
        raise RuntimeError("deform_conv3d: too many output pixels for one launch")
    return best


@dataclass(frozen=True)
class Launch:
    """A kernel by name, the blocks of its grid, threads and bytes of shared memory of each."""

    kernel: str
    grid: tuple[int, int, int]
    threads: int
    shared: int


Launcher = Callable[[Launch, CudaProblem, Tensor], None]  # with a tensor on the device


class LaunchedOperators:
    """The operators of `d3dnet.ops.cuda.Operators`, by launches of single kernels."""

    def __init__(self, launch: Launcher) -> None:
        self._launch = launch

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
        tensors = _Tensors(input, offset, weight, mask)
        p = tensors.problem(stride, padding, dilation, dims, allow_tf32)
        output = empty_in_layout_of(input, (input.size(0), weight.size(0), *offset.shape[2:]))
        if input.size(0) == 0:
            return output
        plain = output.is_contiguous()
        p.output_is_channels_last = not plain
        p.output = output.data_ptr()
        bias = None if bias is None else bias.contiguous()
        p.bias = _pointer(bias)
        p.negative_slope = negative_slope
        rows = p.taps * (p.channels // p.run) * p.group_outputs
        packed = self._pack("forward", tensors, p, rows, p.run)
        p.packed_weight = packed.data_ptr()
        p.tiles = tiling(p, 128)
        blocks = p.groups * -(-p.group_outputs // TILE)
        self._run("forward", tensors, p, (p.tiles.count, blocks, 1), allow_tf32)
        return output

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
        need_input: bool,
        need_offset: bool,
        need_weight: bool,
        need_mask: bool,
        need_bias: bool,
        allow_tf32: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Compute `d3dnet::deform_conv3d_backward`."""
        tensors = _Tensors(input, offset, weight, mask)
        p = tensors.problem(stride, padding, dilation, dims, allow_tf32)
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        p.grad = grad.data_ptr()
        p.whole_grad = _whole_rows(grad, p.group_outputs)
        sums = torch.promote_types(input.dtype, torch.float32)
        # Taps that reach outside the clip in time are skipped: their gradients stay zero.
        grad_input = grad_offset = grad_mask = grad_weight = None
        if need_input:
            grad_input = torch.empty_like(input, dtype=sums, memory_format=torch.channels_last_3d)
            grad_input.zero_()
        if need_offset:
            grad_offset = torch.zeros_like(tensors.offset, memory_format=torch.preserve_format)
        if need_mask and tensors.mask is not None:
            grad_mask = torch.zeros_like(tensors.mask, memory_format=torch.preserve_format)
        if need_weight:
            grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
        p.grad_input, p.grad_offset = _pointer(grad_input), _pointer(grad_offset)
        p.grad_mask, p.grad_weight = _pointer(grad_mask), _pointer(grad_weight)
        of_samples = (grad_input, grad_offset, grad_mask)
        if any(gradient is not None for gradient in of_samples) and p.batch > 0:
            packed = self._pack("backward", tensors, p, p.taps * p.channels, p.group_outputs)
            p.packed_weight = packed.data_ptr()
            p.tiles = tiling(p, 64)
            self._run("data_gradients", tensors, p, (p.tiles.count, 1, 1), allow_tf32)
        if need_weight:
            self._launch_weight_gradients(tensors, p, sums, allow_tf32)

        def result(gradient: Tensor | None, of: Tensor | None) -> Tensor:
            if gradient is None or of is None:
                return input.new_empty(0)
            wanted = torch.empty(of.shape, device="meta", memory_format=layout_of(of))
            if gradient.dtype == of.dtype and gradient.stride() == wanted.stride():
                return gradient
            return empty_in_layout_of(of, of.shape).copy_(gradient)

        grad_bias = grad.sum((0, 2, 3, 4)) if need_bias else input.new_empty(0)
        return (
            result(grad_input, input),
            result(grad_offset, offset),
            result(grad_weight, weight),
            result(grad_mask, mask),
            grad_bias,
        )

    def _launch_weight_gradients(
        self, tensors: "_Tensors", p: CudaProblem, sums: torch.dtype, allow_tf32: bool
    ) -> None:
        p.tiles = tiling(p, _weight_pixels(tensors.input.dtype))
        blocks = -(-p.group_outputs // TILE) * -(-p.run // TILE) * (p.channels // p.run)
        p.segments = max(1, min(p.tiles.count, WANTED_BLOCKS // (blocks * p.taps)))
        weights = tensors.weight.numel()
        partial = tensors.input.new_empty((p.segments, weights), dtype=sums)
        p.partial_sums = partial.data_ptr()
        self._run("weight_gradients", tensors, p, (p.segments, blocks, p.taps), allow_tf32)
        name = f"d3dnet_add_segments_{ELEMENTS[tensors.input.dtype].name}"
        self._launch(Launch(name, (_blocks_for(weights), 1, 1), 256, 0), p, tensors.input)

    def _pack(self, way: str, tensors: "_Tensors", p: CudaProblem, rows: int, row: int) -> Tensor:
        """The weights as the kernels read them: each row a whole number of slices."""
        elements = SLICE_BYTES // tensors.input.element_size()
        padded = -(-row // elements) * elements
        if rows * padded * tensors.input.element_size() >= 2**31:
            raise RuntimeError("deform_conv3d: weights of more than 2 GiB")
        packed = tensors.input.new_empty(rows * padded)
        p.packed_weight = packed.data_ptr()
        name = f"d3dnet_pack_{way}_{ELEMENTS[tensors.input.dtype].name}"
        grid = (_blocks_for(packed.numel()), 1, 1)
        self._launch(Launch(name, grid, 256, 0), p, tensors.input)
        return packed

    def _run(
        self,
        kernel: str,
        tensors: "_Tensors",
        p: CudaProblem,
        grid: tuple[int, int, int],
        allow_tf32: bool,
    ) -> None:
        dtype = tensors.input.dtype
        product = "tf32" if allow_tf32 else ELEMENTS[dtype].name
        if product in LAYER_PRODUCTS and is_layer(p):
            product += f"_{p.channels}"
        threads = 256 if kernel == "forward" else 128
        shared = getattr(shared_bytes(dtype), kernel)
        self._launch(Launch(f"d3dnet_{kernel}_{product}", grid, threads, shared), p, tensors.input)


class _Tensors:
    """The tensors that a CudaProblem points into, in the layouts it wants them."""

    def __init__(self, input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None) -> None:
        self.input = input.contiguous(memory_format=torch.channels_last_3d)
        self.offset = _in_either_layout(offset)
        self.weight = weight.contiguous()
        self.mask = None if mask is None else _in_either_layout(mask)

    def problem(
        self, stride: Triple, padding: Triple, dilation: Triple, dims: str, tf32: bool
    ) -> CudaProblem:
        triple = ctypes.c_int * 3
        p = CudaProblem()
        p.batch, p.channels = self.input.shape[:2]
        pixels = max(math.prod(tensor.shape[2:]) for tensor in (self.input, self.offset))
        if pixels >= 2**31 - 2**24:
            raise RuntimeError("deform_conv3d: a clip of more than 2^31 pixels is not supported")
        p.out_channels = self.weight.size(0)
        p.groups = p.channels // self.weight.size(1)
        p.in_size = triple(*self.input.shape[2:])
        p.out_size = triple(*self.offset.shape[2:])
        p.kernel = triple(*self.weight.shape[2:])
        p.stride, p.padding, p.dilation = triple(*stride), triple(*padding), triple(*dilation)
        p.moves = triple(*(name in dims for name in "THW"))
        p.moving = len(dims)
        p.offset_groups = self.offset.size(1) // (p.taps * p.moving)
        p.run = math.gcd(p.group_channels, p.channels // p.offset_groups)
        p.offset_is_float = self.offset.dtype != self.input.dtype
        p.round_weights = tf32
        p.offset_is_channels_last = not self.offset.is_contiguous()
        p.mask_is_channels_last = self.mask is not None and not self.mask.is_contiguous()
        p.whole_input = _whole_rows(self.input, p.run)
        p.input, p.offset = self.input.data_ptr(), self.offset.data_ptr()
        p.weight, p.mask = self.weight.data_ptr(), _pointer(self.mask)
        return p


def _in_either_layout(tensor: Tensor) -> Tensor:
    """Offsets and masks are read as they are where they are contiguous or channels last."""
    return tensor.contiguous(memory_format=layout_of(tensor))


def is_layer(p: CudaProblem) -> bool:
    """`is_layer` of cuda_ops/cuda/problem.cuh, with any of `LAYER_CHANNELS`."""
    return (
        p.channels == p.out_channels
        and p.channels in LAYER_CHANNELS
        and (p.groups, p.offset_groups) == (1, 1)
        and not p.mask
        and bool(p.whole_input and (p.whole_grad or not p.grad))
        and tuple(p.moves) == (0, 1, 1)
        and tuple(p.kernel) == (3, 3, 3)
        and all(tuple(n) == (1, 1, 1) for n in (p.stride, p.padding, p.dilation))
    )


def _whole_rows(rows: Tensor, part: int) -> bool:
    """Whether parts of `part` channels of channels-last `rows` can be read 16 bytes at a time."""
    size = rows.element_size()
    return not (rows.data_ptr() % 16 or rows.size(1) * size % 16 or part * size % 16)


def _blocks_for(threads: int) -> int:
    return min(WANTED_BLOCKS, threads // 256 + 1)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
