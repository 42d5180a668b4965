"""Values and gradients of every implementation against the written-out oracle."""

import dataclasses

import cases
import pytest
import torch
import torch.nn.functional as F

CASES = [pytest.param(case, id=name) for name, case in cases.CASES.items()]
WITH_GRADIENTS = dataclasses.replace(cases.CASES["offset groups"], dims="HW", batch=2)
LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last_3d),
    "transposed": lambda x: x.transpose(0, 4).contiguous().transpose(0, 4),
    "every second": lambda x: x.repeat_interleave(2, dim=4)[..., ::2],
    "channels_last slice": lambda x: torch.cat([x, x], 1).contiguous(
        memory_format=torch.channels_last_3d
    )[:, : x.size(1)],
}


def check(implementation, case, dtype, offset_dtype, coarse, coarse_offset):
    tensors = cases.make(case, coarse, coarse_offset).to(dtype, offset_dtype)
    found = cases.compute(implementation, case, tensors)
    wanted = cases.expected(case, coarse, coarse_offset)
    assert found.keys() == wanted.keys()
    errors = {}
    for name, value in found.items():
        assert value.shape == wanted[name].shape, name
        assert value.dtype == (offset_dtype if name == "grad_offset" else dtype), name
        errors[name] = cases.relative_error(value, wanted[name])
    assert all(error <= cases.TOLERANCE[dtype] for error in errors.values()), errors


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_values_and_gradients_match_the_oracle(implementation, case, dtype):
    check(implementation, case, dtype, dtype, coarse=False, coarse_offset=False)


@pytest.mark.parametrize("case", CASES[::3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_offsets_in_16_bits_match_the_oracle_too(implementation, case, dtype):
    check(implementation, case, dtype, dtype, coarse=True, coarse_offset=True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_values_and_gradients_match_the_oracle_in_16_bits(implementation, case, dtype):
    check(implementation, case, dtype, torch.float32, coarse=True, coarse_offset=False)


def test_float64_features_take_float32_offsets(implementation):
    case = cases.CASES["all dimensions"]
    tensors = cases.make(case).to(torch.float64, torch.float32)
    found = cases.compute(implementation, case, tensors)
    for name, wanted in cases.expected(case).items():
        bound = 1e-6 if name == "grad_offset" else 1e-10
        assert cases.relative_error(found[name], wanted) < bound, name
    assert found["grad_offset"].dtype == torch.float32


def test_large_coordinates_lose_no_precision(implementation):
    """The fraction of a position is that of the offset, however far along the row it is."""
    width = 5000
    input = torch.arange(width, dtype=torch.float32).remainder(2).view(1, 1, 1, 1, width)
    offset = torch.full((1, 1, 1, 1, width), 0.3)
    weight = torch.ones(1, 1, 1, 1, 1)
    if implementation == "reference":
        geometry = ((1, 1, 1), (0, 0, 0), (1, 1, 1), "W")
        found = cases.reference.forward(input, offset, weight, None, None, *geometry, 1.0)
    else:
        found = cases.deform_conv3d(input, offset, weight, dims="W")
    wanted = torch.where(input == 0, 0.3, 0.7)[..., :-1]
    assert (found[..., :-1] - wanted).abs().max() < 2e-3


@pytest.mark.parametrize("name", ["defaults of D3Dnet", "asymmetric geometry", "groups"])
def test_with_zero_offsets_it_is_conv3d(implementation, name):
    case = dataclasses.replace(cases.CASES[name], mask=False)
    t = cases.make(case)
    found = cases.compute(
        implementation, case, dataclasses.replace(t, offset=torch.zeros_like(t.offset))
    )
    leaves = [tensor.detach().requires_grad_() for tensor in (t.input, t.weight, t.bias)]
    wanted = F.conv3d(*leaves, case.stride, case.padding, case.dilation, case.groups)
    wanted.backward(t.grad)
    assert cases.relative_error(found["output"], wanted.detach()) < 1e-12
    for key, leaf in zip(("grad_input", "grad_weight", "grad_bias"), leaves, strict=True):
        assert cases.relative_error(found[key], leaf.grad) < 1e-12, key


@pytest.mark.parametrize("input_layout", LAYOUTS)
@pytest.mark.parametrize("other_layout", LAYOUTS)
@pytest.mark.parametrize("channels", [6, 32])
def test_memory_layout_changes_no_value(implementation, input_layout, other_layout, channels):
    case = dataclasses.replace(
        WITH_GRADIENTS, channels=channels, outputs=channels, offset_groups=2, groups=1
    )
    wanted = cases.expected(case)
    tensors = (
        cases.make(case)
        .to(torch.float32)
        .map(lambda x: LAYOUTS[other_layout](x) if x.dim() == 5 else x.repeat_interleave(2)[::2])
    )
    tensors = dataclasses.replace(tensors, input=LAYOUTS[input_layout](tensors.input))
    for name, value in cases.compute(implementation, case, tensors).items():
        assert cases.relative_error(value, wanted[name]) < 2e-5, name


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "every second"])
def test_results_are_channels_last_where_what_they_belong_to_is(implementation, layout):
    case = dataclasses.replace(WITH_GRADIENTS, batch=2, outputs=4)
    tensors = cases.make(case).to(torch.float32)
    tensors = tensors.map(lambda x: LAYOUTS[layout](x) if x.dim() == 5 else x)
    format = torch.channels_last_3d if layout == "channels_last" else torch.contiguous_format
    t = tensors
    output = torch.ops.d3dnet.deform_conv3d(
        t.input, t.offset, t.weight, t.bias, t.mask, *case.settings
    )
    gradients = torch.ops.d3dnet.deform_conv3d_backward(
        t.grad, t.input, t.offset, t.weight, t.mask, *case.geometry, *[True] * 5
    )
    if implementation == "reference":
        output = cases.reference.forward(
            t.input, t.offset, t.weight, t.bias, t.mask, *case.settings
        )
        gradients = cases.reference.backward(
            t.grad, t.input, t.offset, t.weight, t.mask, *case.geometry, *[True] * 5
        )
    for result in (output, *gradients[:4]):
        assert result.stride() == torch.empty(result.shape, memory_format=format).stride()


@pytest.mark.parametrize("needed", range(5))
def test_a_gradient_that_is_not_needed_is_empty_and_the_others_are_unchanged(
    implementation, needed
):
    case = dataclasses.replace(cases.CASES["groups across offset groups"])
    t = cases.make(case).to(torch.float32)
    if implementation == "reference":
        backward = cases.reference.backward
    else:
        backward = torch.ops.d3dnet.deform_conv3d_backward
    arguments = (t.grad, t.input, t.offset, t.weight, t.mask, *case.geometry)
    everything = backward(*arguments, *[True] * 5)
    found = backward(*arguments, *[index == needed for index in range(5)])
    for index in range(5):
        if index == needed:
            assert cases.relative_error(found[index], everything[index]) < 1e-6
        else:
            assert found[index].shape == (0,)


def test_repeated_runs_give_the_same_bits(implementation):
    case = cases.CASES["64 channels"]
    tensors = cases.make(case).to(torch.float32)
    first, second = (cases.compute(implementation, case, tensors) for _ in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
