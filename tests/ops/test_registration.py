"""The operator as torch sees it: schema, fake kernels, autograd, compile, autocast."""

import dataclasses

import cases
import pytest
import torch

from d3dnet.ops import DeformConv3d, deform_conv3d

CASE = cases.Case(
    size=(2, 4, 3), batch=2, channels=4, outputs=2, groups=2, offset_groups=2, mask=True
)
LAST = torch.channels_last_3d


def arguments(case: cases.Case, dtype: torch.dtype, channels_last: bool = False) -> tuple:
    t = cases.make(case).to(dtype)
    if channels_last:
        t = t.map(lambda x: x.contiguous(memory_format=LAST) if x.dim() == 5 else x)
    return t.input, t.offset, t.weight, t.bias, t.mask, *case.settings


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "case",
    [CASE, cases.CASES["no bias"], cases.CASES["LeakyReLU"]],
    ids=["groups", "no bias", "LeakyReLU"],
)
def test_opcheck_passes(implementation, case, channels_last):
    del implementation  # the operator runs on the instruction set that the fixture chose
    inputs = [
        value.clone().requires_grad_() if isinstance(value, torch.Tensor) else value
        for value in arguments(case, torch.float32, channels_last)
    ]
    torch.library.opcheck(torch.ops.d3dnet.deform_conv3d.default, inputs)


@pytest.mark.parametrize("needs", [[True] * 5, [True, False, False, False, True]])
def test_opcheck_passes_for_the_backward_operator(needs):
    input, offset, weight, _, mask, *_ = arguments(CASE, torch.float32, channels_last=True)
    grad = cases.make(CASE).grad.float()
    torch.library.opcheck(
        torch.ops.d3dnet.deform_conv3d_backward.default,
        (grad, input, offset, weight, mask, *CASE.geometry, *needs),
    )


@pytest.mark.parametrize(
    ("dims", "mask", "slope"),
    [("HW", True, 1.0), ("THW", False, 1.0), ("T", True, 1.0), ("HW", True, 0.1)],
    ids=["HW", "THW", "T", "LeakyReLU"],
)
def test_gradcheck_passes_in_float64(implementation, dims, mask, slope):
    del implementation
    case = dataclasses.replace(CASE, size=(2, 2, 3), batch=1, kernel=(2, 2, 1), dims=dims)
    t = cases.make(dataclasses.replace(case, mask=mask))
    kinks = t.offset == t.offset.round()
    t = dataclasses.replace(t, offset=torch.where(kinks, 0.3, t.offset), grad=t.bias)
    t = t.map(lambda x: x.clone().requires_grad_())

    def function(input, offset, weight, bias, *mask):
        return deform_conv3d(
            *(input, offset, weight, bias),
            padding=1,
            mask=mask[0] if mask else None,
            dims=dims,
            negative_slope=slope,
        )

    leaves = [t.input, t.offset, t.weight, t.bias, *([t.mask] if mask else [])]
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize(
    ("backend", "channels_last"), [("aot_eager", False), ("aot_eager", True), ("inductor", True)]
)
def test_it_compiles_as_one_graph_with_the_same_values(backend, channels_last):
    torch.manual_seed(3)
    module = DeformConv3d(4, 4, 3, padding=1, groups=2, dims="HW", negative_slope=0.1)
    predict = torch.nn.Conv3d(4, 54, 3, padding=1)

    def network(x):
        return (module(x, predict(x)) + x).square().mean()

    x = torch.randn(1, 4, 2, 5, 4)
    if channels_last:
        x = x.contiguous(memory_format=LAST)
    leaves = [x.requires_grad_(), module.weight, module.bias, predict.weight]
    wanted = torch.autograd.grad(network(x), leaves)
    torch._dynamo.reset()
    compiled = torch.compile(network, backend=backend, fullgraph=True)
    assert compiled(x).item() == pytest.approx(network(x).item(), rel=1e-5)
    for found, value in zip(torch.autograd.grad(compiled(x), leaves), wanted, strict=True):
        assert cases.relative_error(found, value) < 1e-5


def test_a_compiled_function_accepts_changing_sizes():
    module = DeformConv3d(2, 2, 3, padding=1, dims="HW").requires_grad_(False)
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    for batch, size in ((2, (3, 4, 5)), (3, (4, 6, 7)), (4, (2, 9, 8))):
        x, offset = torch.randn(batch, 2, *size), torch.randn(batch, 54, *size)
        assert torch.equal(compiled(x, offset), module(x, offset))


def test_it_runs_on_the_meta_device():
    tensors = cases.make(CASE).to(torch.float32).map(lambda tensor: tensor.to("meta"))
    output = torch.ops.d3dnet.deform_conv3d(
        *(getattr(tensors, name) for name in ("input", "offset", "weight", "bias", "mask")),
        *CASE.settings,
    )
    assert output.shape == tensors.grad.shape and output.device.type == "meta"


def test_only_the_gradients_asked_for_are_computed(monkeypatch):
    asked = []
    backward = torch.ops.d3dnet.deform_conv3d_backward

    def record(*arguments):
        asked.append(arguments[-5:])
        return backward(*arguments)

    t = cases.make(CASE)
    offset = t.offset.clone().requires_grad_()
    bias = t.bias.clone().requires_grad_()
    output = deform_conv3d(t.input, offset, t.weight, bias, padding=1, mask=t.mask, dims="HW")
    monkeypatch.setattr(torch.ops.d3dnet, "deform_conv3d_backward", record)
    output.sum().backward()
    assert asked == [(False, True, False, False, True)]
    assert offset.grad is not None and bias.grad is not None


@pytest.mark.parametrize("slope", [1.0, 0.1])
def test_only_the_output_of_a_leaky_relu_is_kept_for_the_backward_pass(slope):
    """It is what the next layer keeps as its input anyway; the sums before it are gone."""
    t = cases.make(CASE).map(lambda tensor: tensor.clone().requires_grad_())
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        output = deform_conv3d(
            t.input, t.offset, t.weight, t.bias, padding=1, mask=t.mask, dims="HW",
            negative_slope=slope,
        )  # fmt: skip
    of_arguments = {x.data_ptr() for x in (t.input, t.offset, t.weight, t.mask)}
    others = [x.data_ptr() for x in kept if x.data_ptr() not in of_arguments]
    assert others == ([] if slope == 1 else [output.data_ptr()])


def test_a_second_derivative_is_refused():
    t = cases.make(CASE)
    input = t.input.clone().requires_grad_()
    output = deform_conv3d(input, t.offset, t.weight, padding=1, mask=t.mask, dims="HW")
    (grad,) = torch.autograd.grad(output.square().sum(), input, create_graph=True)
    with pytest.raises(RuntimeError, match="deform_conv3d has no second derivative"):
        grad.sum().backward()


class TestAutocast:
    """On the CPU, where bfloat16 is autocast's own choice."""

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_features_and_weights_are_lowered_and_a_float32_offset_is_not(self, dtype):
        t = cases.make(CASE).to(torch.float32)
        offset = t.offset + 2.0**-12  # lost if lowered
        with torch.autocast("cpu", dtype):
            found = deform_conv3d(
                t.input, offset, t.weight, t.bias, padding=1, mask=t.mask, dims="HW"
            )
        low = t.to(dtype)
        wanted = deform_conv3d(
            low.input, offset, low.weight, low.bias, padding=1, mask=low.mask, dims="HW"
        )
        assert found.dtype == dtype
        assert torch.equal(found, wanted)

    def test_features_already_lowered_meet_float32_weights(self):
        t = cases.make(CASE).to(torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            found = deform_conv3d(
                t.input.bfloat16(), t.offset.half(), t.weight, padding=1, mask=t.mask, dims="HW"
            )
        low = t.to(torch.bfloat16)
        wanted = deform_conv3d(
            low.input, t.offset.half().float(), low.weight, padding=1, mask=low.mask, dims="HW"
        )
        assert torch.equal(found, wanted)

    def test_gradients_have_the_dtypes_of_the_parameters(self):
        t = cases.make(CASE).to(torch.float32).map(lambda x: x.clone().requires_grad_())
        with torch.autocast("cpu", torch.bfloat16):
            output = deform_conv3d(
                t.input, t.offset, t.weight, t.bias, padding=1, mask=t.mask, dims="HW"
            )
            output.backward(t.grad.detach().bfloat16())  # inside, where autocast is still on
        wanted = cases.expected(CASE)
        for name in cases.NAMES[1:]:
            found = getattr(t, name.removeprefix("grad_")).grad
            assert found.dtype == torch.float32
            assert cases.relative_error(found, wanted[name]) < 3e-2, name

    def test_float64_is_left_alone(self):
        t = cases.make(CASE)
        with torch.autocast("cpu", torch.bfloat16):
            found = deform_conv3d(
                t.input, t.offset, t.weight, t.bias, padding=1, mask=t.mask, dims="HW"
            )
        assert cases.relative_error(found, cases.expected(CASE)["output"]) < 1e-10

    def test_the_reference_is_not_lowered_from_within(self):
        t = cases.make(CASE).to(torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            found = cases.compute("reference", CASE, t)
        for name, wanted in cases.expected(CASE).items():
            assert cases.relative_error(found[name], wanted) < 2e-5, name
