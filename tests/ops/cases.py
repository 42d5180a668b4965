"""The grid of configurations that every implementation of the operator is checked on."""

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
import oracle
import torch
from torch import Tensor

from d3dnet.ops import deform_conv3d, reference

NAMES = ("output", "grad_input", "grad_offset", "grad_weight", "grad_bias", "grad_mask")

# Relative norms against float64.
TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 2e-5,
    torch.bfloat16: 3e-2,
    torch.float16: 3e-2,
}


@dataclass(frozen=True)
class Case:
    """One configuration; `spread` is the standard deviation of the offsets in pixels."""

    size: tuple[int, int, int] = (3, 5, 4)
    batch: int = 1
    channels: int = 4
    outputs: int = 3
    kernel: tuple[int, int, int] = (3, 3, 3)
    stride: tuple[int, int, int] = (1, 1, 1)
    padding: tuple[int, int, int] = (1, 1, 1)
    dilation: tuple[int, int, int] = (1, 1, 1)
    groups: int = 1
    offset_groups: int = 1
    dims: str = "HW"
    bias: bool = True
    mask: bool = False
    spread: float = 1.5
    negative_slope: float = 1.0

    @property
    def geometry(self) -> tuple:
        """What the backward operator takes besides tensors."""
        return self.stride, self.padding, self.dilation, self.dims

    @property
    def settings(self) -> tuple:
        """What the operator takes besides tensors."""
        return *self.geometry, self.negative_slope

    @property
    def out_size(self) -> tuple[int, ...]:
        conv = torch.nn.Conv3d(1, 1, self.kernel, self.stride, self.padding, self.dilation)
        return tuple(conv(torch.zeros(1, 1, *self.size)).shape[2:])


@dataclass(frozen=True)
class Tensors:
    input: Tensor
    offset: Tensor
    weight: Tensor
    bias: Tensor | None
    mask: Tensor | None
    grad: Tensor

    def map(self, function) -> "Tensors":
        values = (getattr(self, name) for name in self.__dataclass_fields__)
        return Tensors(*(None if value is None else function(value) for value in values))

    def to(self, dtype: torch.dtype, offset_dtype: torch.dtype | None = None) -> "Tensors":
        moved = self.map(lambda tensor: tensor.to(dtype))
        offset = self.offset.to(offset_dtype or dtype)
        return Tensors(moved.input, offset, *list(vars(moved).values())[2:])


CASES = {
    "defaults of D3Dnet": Case(),
    "all dimensions": Case(dims="THW"),
    "time only": Case(dims="T"),
    "rows only": Case(dims="H"),
    "columns only": Case(dims="W"),
    "time and rows": Case(dims="TH"),
    "time and columns": Case(dims="TW", mask=True),
    "mask": Case(mask=True),
    "no bias": Case(bias=False, mask=True, dims="THW"),
    "batch of three": Case(size=(2, 4, 3), batch=3, mask=True),
    "batch of none": Case(batch=0, mask=True),
    "one tap": Case(kernel=(1, 1, 1), padding=(0, 0, 0)),
    "flat kernel": Case(kernel=(1, 3, 3), padding=(0, 1, 1)),
    "asymmetric kernel": Case(kernel=(2, 1, 4), padding=(1, 0, 2), dims="THW"),
    "stride": Case(size=(4, 7, 6), stride=(2, 3, 2)),
    "asymmetric geometry": Case(
        size=(5, 7, 8), stride=(1, 2, 3), padding=(2, 0, 1), dilation=(2, 1, 3), dims="THW"
    ),
    "dilation in time": Case(size=(6, 4, 4), padding=(3, 1, 1), dilation=(3, 1, 1)),
    "groups": Case(channels=6, outputs=4, groups=2, mask=True),
    "offset groups": Case(channels=6, offset_groups=3, mask=True, dims="THW"),
    "groups across offset groups": Case(
        size=(2, 3, 4), channels=12, outputs=6, groups=2, offset_groups=3, mask=True, batch=2
    ),
    "depthwise": Case(size=(2, 3, 4), channels=5, outputs=5, groups=5, offset_groups=5),
    "single channel": Case(channels=1, outputs=1),
    "one pixel": Case(size=(1, 1, 1)),
    "mostly outside": Case(size=(2, 3, 3), spread=8.0, dims="THW", mask=True),
    "more padding than clip": Case(size=(1, 2, 2), padding=(3, 3, 3), spread=3.0),
    "16 channels": Case(channels=16, outputs=16, mask=True),
    "17 channels, 33 outputs": Case(channels=17, outputs=33),
    "32 channels": Case(channels=32, outputs=32, size=(3, 4, 5)),
    "64 channels in groups": Case(
        channels=64, outputs=64, groups=2, offset_groups=2, size=(2, 3, 3)
    ),
    "48 channels to 80": Case(channels=48, outputs=80, size=(2, 3, 5), mask=True),
    "64 channels": Case(channels=64, outputs=64, size=(2, 4, 5), batch=2),
    "64 channels, all dimensions": Case(channels=64, outputs=64, size=(3, 3, 4), dims="THW"),
    "LeakyReLU": Case(negative_slope=0.1, mask=True, batch=2),
    "steep LeakyReLU, groups": Case(
        channels=6, outputs=4, groups=2, dims="THW", bias=False, negative_slope=2.5
    ),
    "LeakyReLU, 64 channels": Case(channels=64, outputs=64, size=(2, 4, 5), negative_slope=0.1),
    "64 channels, large frame": Case(
        channels=64, outputs=64, size=(2, 17, 19), kernel=(1, 1, 2), padding=(0, 0, 1)
    ),
}


@functools.cache
def make(case: Case, coarse: bool = False, coarse_offset: bool = False) -> Tensors:
    """Make the float64 tensors of a case; the coarse ones are exact in every dtype accepted.

    The others are exact in float32. One offset in ten is a whole number: an integer position. The
    gradient is 0 where a LeakyReLU is so near to its kink that 16 bits may see its other side.
    """
    random = np.random.default_rng(20)
    taps = case.kernel[0] * case.kernel[1] * case.kernel[2]
    rows = case.offset_groups * taps
    out = (case.batch, case.outputs, *case.out_size)

    def normal(*shape: int, coarse: bool = coarse, spread: float = 1.0) -> Tensor:
        values = random.standard_normal(shape) * spread
        if coarse:  # at most 8 significant bits
            step = 2.0 ** np.ceil(np.log2(max(spread, 1.0)) - 5)
            values = np.clip(np.round(values / step), -255, 255) * step
        return torch.from_numpy(values.astype(np.float32).astype(np.float64))

    offset = normal(
        case.batch, rows * len(case.dims), *case.out_size, coarse=coarse_offset, spread=case.spread
    )
    whole = torch.from_numpy(random.random(offset.shape) < 0.1)
    made = Tensors(
        input=normal(case.batch, case.channels, *case.size),
        offset=torch.where(whole, offset.round(), offset),
        weight=normal(case.outputs, case.channels // case.groups, *case.kernel),
        bias=normal(case.outputs) if case.bias else None,
        mask=normal(case.batch, rows, *case.out_size) if case.mask else None,
        grad=normal(*out),
    )
    if case.negative_slope == 1:
        return made
    t = made.map(Tensor.numpy)
    linear = oracle.deform_conv3d(t.input, t.offset, t.weight, t.bias, t.mask, *case.geometry)
    sums = torch.from_numpy(linear.output)
    grad = torch.where(sums.abs() > 0.05 * sums.std(), made.grad, 0.0)
    return dataclasses.replace(made, grad=grad)


@functools.cache
def expected(case: Case, coarse: bool = False, coarse_offset: bool = False) -> dict[str, Tensor]:
    """What the oracle says about a case, by the names of `NAMES`."""
    tensors = make(case, coarse, coarse_offset).map(Tensor.numpy)
    result = oracle.deform_conv3d(
        tensors.input,
        tensors.offset,
        tensors.weight,
        tensors.bias,
        tensors.mask,
        *case.geometry,
        grad=tensors.grad,
        negative_slope=case.negative_slope,
    )
    found = {name: torch.from_numpy(getattr(result, name)) for name in NAMES}
    absent = {"grad_bias": not case.bias, "grad_mask": not case.mask}
    return {name: value for name, value in found.items() if not absent.get(name)}


def compute(implementation: str, case: Case, tensors: Tensors) -> dict[str, Tensor]:
    """Output and gradients of the PyTorch reference, or of the operator through autograd."""
    if implementation == "reference":
        return _compute_reference(case, tensors)
    t = tensors.map(lambda tensor: tensor.detach().requires_grad_())
    stride, padding, dilation, dims = case.geometry
    output = deform_conv3d(
        t.input,
        t.offset,
        t.weight,
        t.bias,
        stride,
        padding,
        dilation,
        t.mask,
        dims,
        negative_slope=case.negative_slope,
    )
    found = {"output": output.detach()}
    output.backward(tensors.grad)
    for name in NAMES[1:]:
        leaf = getattr(t, name.removeprefix("grad_"))
        if leaf is not None:
            found[name] = leaf.grad
    return found


def _compute_reference(case: Case, t: Tensors) -> dict[str, Tensor]:
    output = reference.forward(t.input, t.offset, t.weight, t.bias, t.mask, *case.settings)
    needs = (True, True, True, t.mask is not None, t.bias is not None)
    gradients = reference.backward(
        before_activation(case, t.grad, output),
        *(t.input, t.offset, t.weight, t.mask, *case.geometry, *needs),
    )
    names = ("grad_input", "grad_offset", "grad_weight", "grad_mask", "grad_bias")
    found = {n: g for n, g, needed in zip(names, gradients, needs, strict=True) if needed}
    return {"output": output, **found}


def before_activation(case: Case, grad: Tensor, output: Tensor) -> Tensor:
    """The gradient that the backward operator is given: of the sums that became `output`."""
    return torch.where(output > 0, grad, case.negative_slope * grad)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of what is wanted, in float64."""
    if wanted.numel() == 0:
        return 0.0
    difference = (found.double() - wanted.double()).norm()
    return (difference / wanted.double().norm().clamp_min(1e-30)).item()
