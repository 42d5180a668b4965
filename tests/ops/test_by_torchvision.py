"""The operator by three two-dimensional ones: torchvision's where it is, else a stand-in's."""

import sys
from types import ModuleType

import cases
import pytest
import torch
from torch import Tensor

from d3dnet.ops import by_torchvision, cuda, reference


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    mask: Tensor | None,
) -> Tensor:
    """What torchvision documents, by our reference on clips of one frame, differentiable."""

    def three(values: tuple[int, int], first: int) -> tuple[int, int, int]:
        return (first, *values)

    output = torch.ops.d3dnet.deform_conv3d(
        input.unsqueeze(2), offset.unsqueeze(2), weight.unsqueeze(2), bias,
        None if mask is None else mask.unsqueeze(2),
        three(stride, 1), three(padding, 0), three(dilation, 1), "HW", 1.0,
    )  # fmt: skip
    return output.squeeze(2)


@pytest.fixture(autouse=True)
def torchvision(monkeypatch) -> None:
    try:
        by_torchvision.load(0)
    except OSError:
        stand_in, ops, extension = (ModuleType(n) for n in ("torchvision", "ops", "extension"))
        ops.deform_conv2d, extension._assert_has_ops = deform_conv2d, lambda: None
        stand_in.ops, stand_in.extension = ops, extension
        monkeypatch.setitem(sys.modules, "torchvision", stand_in)
        monkeypatch.setitem(sys.modules, "torchvision.ops", ops)


@pytest.mark.parametrize(
    "name",
    ["defaults of D3Dnet", "mask", "stride", "groups across offset groups", "dilation in time",
     "LeakyReLU", "all dimensions", "batch of none", "more padding than clip"],
)  # fmt: skip
def test_values_and_gradients_match_the_oracle(name):
    case, operators = cases.CASES[name], by_torchvision.load(0)
    t = cases.make(case)
    output = operators.deform_conv3d(
        t.input, t.offset, t.weight, t.bias, t.mask, *case.settings, False
    )
    needs = (True, True, True, t.mask is not None, t.bias is not None)
    gradients = operators.deform_conv3d_backward(
        cases.before_activation(case, t.grad, output),
        *(t.input, t.offset, t.weight, t.mask, *case.geometry, *needs, False),
    )
    names = ("grad_input", "grad_offset", "grad_weight", "grad_mask", "grad_bias")
    found = {"output": output, **dict(zip(names, gradients, strict=True))}
    for name, wanted in cases.expected(case).items():
        assert cases.relative_error(found[name], wanted) <= 1e-10, name


def test_results_are_in_the_type_and_layout_of_what_they_belong_to():
    case, operators = cases.CASES["mask"], by_torchvision.load(0)
    t = cases.make(case).to(torch.bfloat16, torch.float32)
    last = t.input.contiguous(memory_format=torch.channels_last_3d)
    output = operators.deform_conv3d(
        last, t.offset, t.weight, t.bias, t.mask, *case.settings, False
    )
    wanted = reference.forward(last, t.offset, t.weight, t.bias, t.mask, *case.settings)
    assert output.dtype == torch.bfloat16 and output.stride() == wanted.stride()
    assert cases.relative_error(output, wanted) < 1e-2
    gradients = operators.deform_conv3d_backward(
        t.grad, last, t.offset, t.weight, t.mask, *case.geometry, *(True,) * 5, False
    )
    dtypes = [gradient.dtype for gradient in gradients]
    assert dtypes == [torch.bfloat16, torch.float32, *[torch.bfloat16] * 3]


def test_it_runs_where_it_is_asked_for(monkeypatch):
    monkeypatch.setenv(cuda.KERNELS_VARIABLE, "torchvision")
    cuda.kernels.cache_clear()
    found = cuda.kernels(0)
    cuda.kernels.cache_clear()
    assert found.name == "torchvision"
