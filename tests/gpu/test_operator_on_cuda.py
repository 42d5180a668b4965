"""The operator on a GPU: the whole grid against the oracle in float64, and PyTorch's machinery."""

import dataclasses

import cases
import pytest
import torch

from d3dnet.ops import DeformConv3d, deform_conv3d

MODES = {
    "float64": (torch.float64, 1e-10),
    "float32": (torch.float32, 2e-5),
    "tf32": (torch.float32, 1e-3),
    "bfloat16": (torch.bfloat16, 3e-2),
    "float16": (torch.float16, 3e-2),
}
CASE = cases.CASES["64 channels"]
LAST = torch.channels_last_3d


def moved(tensors: cases.Tensors, gpu: torch.device) -> cases.Tensors:
    return tensors.map(lambda tensor: tensor.to(gpu))


def relative_errors(found: dict, wanted: dict) -> dict[str, float]:
    assert found.keys() == wanted.keys()
    return {name: cases.relative_error(found[name].cpu(), wanted[name]) for name in wanted}


@pytest.mark.parametrize("name", cases.CASES)
@pytest.mark.parametrize("mode", MODES)
def test_values_and_gradients_match_the_oracle(kernels, gpu, name, mode):
    case, (dtype, tolerance) = cases.CASES[name], MODES[mode]
    coarse = dtype.itemsize == 2
    if mode == "tf32":
        torch.backends.cudnn.allow_tf32 = True
    tensors = cases.make(case, coarse).to(dtype, torch.float32 if coarse else dtype)
    found = cases.compute("cuda", case, moved(tensors, gpu))
    errors = relative_errors(found, cases.expected(case, coarse))
    assert all(error <= tolerance for error in errors.values()), errors


@pytest.mark.parametrize("size", [(7, 40, 52), (3, 65, 33)])
@pytest.mark.parametrize("mode", ["float32", "tf32", "bfloat16", "float16"])
def test_many_blocks_match_the_reference_in_float64(kernels, gpu, size, mode):
    """Large enough that every multiprocessor works, and results are poisoned beforehand."""
    case = cases.Case(channels=64, outputs=64, size=size, mask=True, batch=2)
    dtype, tolerance = MODES[mode]
    if mode == "tf32":
        torch.backends.cudnn.allow_tf32 = True
    coarse = dtype.itemsize == 2
    tensors = cases.make(case, coarse).map(lambda x: x.to(gpu))
    poison = torch.full((2**28,), float("nan"), device=gpu)
    del poison  # the allocator hands this memory out again
    low = tensors.to(dtype, torch.float32)
    found = cases.compute("cuda", case, low)
    wanted = cases.compute("reference", case, tensors.to(torch.float64))
    errors = relative_errors(found, {name: value.cpu() for name, value in wanted.items()})
    assert all(error <= tolerance for error in errors.values()), errors


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_opcheck_passes(kernels, gpu, last):
    case = cases.CASES["LeakyReLU"]
    t = moved(cases.make(case).to(torch.float32), gpu)
    if last:
        t = t.map(lambda x: x.contiguous(memory_format=LAST) if x.dim() == 5 else x)
    t = t.map(lambda x: x.clone().requires_grad_())
    torch.library.opcheck(
        torch.ops.d3dnet.deform_conv3d.default,
        (t.input, t.offset, t.weight, t.bias, t.mask, *case.settings),
    )


@pytest.mark.parametrize("dims", ["HW", "THW", "T"])
def test_gradcheck_passes_in_float64(kernels, gpu, dims):
    case = cases.Case(size=(2, 2, 3), kernel=(2, 2, 1), dims=dims, mask=True)
    t = cases.make(case)
    kinks = t.offset == t.offset.round()
    t = dataclasses.replace(t, offset=torch.where(kinks, 0.3, t.offset))
    leaves = [getattr(t, name) for name in ("input", "offset", "weight", "bias", "mask")]
    leaves = [leaf.to(gpu).requires_grad_() for leaf in leaves]

    def function(input, offset, weight, bias, mask):
        return deform_conv3d(input, offset, weight, bias, padding=1, mask=mask, dims=dims)

    # The input's gradient is added up in an order that changes from run to run.
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True, nondet_tol=1e-12)


def layer(gpu: torch.device) -> tuple[torch.nn.Module, torch.nn.Module, torch.Tensor]:
    torch.manual_seed(3)
    module = DeformConv3d(64, 64, 3, padding=1, dims="HW").to(gpu)
    predict = torch.nn.Conv3d(64, 54, 3, padding=1).to(gpu)
    return module, predict, torch.randn(1, 64, 3, 20, 24, device=gpu)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_it_compiles_as_one_graph_with_the_same_values(kernels, gpu, backend):
    module, predict, x = layer(gpu)

    def network(x):
        return torch.relu(module(x, predict(x)) + x).square().mean()

    leaves = [x.requires_grad_(), module.weight, module.bias, predict.weight]
    wanted = torch.autograd.grad(network(x), leaves)
    torch._dynamo.reset()
    compiled = torch.compile(network, backend=backend, fullgraph=True)
    assert compiled(x).item() == pytest.approx(network(x).item(), rel=1e-4)
    for found, value in zip(torch.autograd.grad(compiled(x), leaves), wanted, strict=True):
        assert cases.relative_error(found, value) < 1e-3


def test_a_cuda_graph_replays_it_on_new_values(kernels, gpu):
    module, predict, x = layer(gpu)
    leaves = [module.weight, module.bias, predict.weight]

    def step() -> tuple[torch.Tensor, ...]:
        output = module(x, predict(x))
        return output, *torch.autograd.grad(output.square().sum(), leaves)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    x.copy_(torch.randn_like(x))
    graph.replay()
    for value, wanted in zip(found, step(), strict=True):
        assert cases.relative_error(value, wanted) < 1e-5


def test_it_runs_on_the_current_stream(kernels, gpu):
    module, predict, x = layer(gpu)
    wanted = module(x, predict(x))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        torch.cuda._sleep(50_000_000)
        late = x * 1.0  # not ready when the operator is launched
        found = module(late, predict(late))
    stream.synchronize()
    assert torch.equal(found, wanted)


def test_it_runs_on_a_device_that_is_not_the_current_one(kernels, gpu):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    module, predict, x = layer(torch.device("cuda", 1))
    found = module(x, predict(x))
    assert found.device.index == 1 and torch.cuda.current_device() == gpu.index
    module, predict, x = layer(torch.device("cuda", 0))
    assert cases.relative_error(found.cpu(), module(x, predict(x)).cpu()) < 1e-5


def test_autocast_lowers_features_and_keeps_a_float32_offset(kernels, gpu):
    t = moved(cases.make(CASE).to(torch.float32), gpu)
    offset = t.offset + 2.0**-12  # lost if lowered
    with torch.autocast("cuda", torch.bfloat16):
        found = deform_conv3d(t.input, offset, t.weight, t.bias, padding=1, dims="HW")
    low = t.to(torch.bfloat16)
    wanted = deform_conv3d(low.input, offset, low.weight, low.bias, padding=1, dims="HW")
    assert found.dtype == torch.bfloat16 and torch.equal(found, wanted)


class TestDeterminism:
    def gradients(self, gpu, names: tuple[str, ...]) -> list[torch.Tensor]:
        case = cases.Case(channels=64, outputs=64, size=(5, 30, 40), mask=True)
        t = moved(cases.make(case).to(torch.float32), gpu)
        leaves = [getattr(t, name).detach().requires_grad_() for name in names]
        t = dataclasses.replace(t, **dict(zip(names, leaves, strict=True)))
        output = deform_conv3d(
            t.input, t.offset, t.weight, t.bias, padding=1, mask=t.mask, dims="HW"
        )
        return [output.detach(), *torch.autograd.grad(output, leaves, t.grad)]

    def test_all_but_the_gradient_of_the_input_repeat_to_the_bit(self, kernels, gpu):
        names = ("offset", "weight", "bias", "mask")
        torch.use_deterministic_algorithms(True)
        try:
            first = self.gradients(gpu, names)
            for _ in range(3):
                again = self.gradients(gpu, names)
                assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        finally:
            torch.use_deterministic_algorithms(False)

    def test_the_gradient_of_the_input_raises_pytorchs_usual_error(self, kernels, gpu):
        torch.use_deterministic_algorithms(True)
        try:
            with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
                self.gradients(gpu, ("input",))
        finally:
            torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_pixel_that_no_sample_reads_reaches_no_result(kernels, gpu, bad):
    case = cases.Case(
        size=(2, 4, 4), channels=64, outputs=64, kernel=(1, 1, 1), padding=(0, 0, 0),
        stride=(1, 2, 2),
    )  # fmt: skip
    t = moved(cases.make(case).to(torch.bfloat16, torch.float32), gpu)
    t = dataclasses.replace(t, offset=torch.zeros_like(t.offset))
    clean = cases.compute("cuda", case, t)
    t.input[..., 1::2, :] = bad
    t.input[..., 1::2] = bad
    found = cases.compute("cuda", case, t)
    for name in ("output", "grad_weight"):
        assert torch.equal(found[name], clean[name]), name


def test_more_than_2_to_the_31_elements_are_indexed(kernels, gpu):
    if torch.cuda.get_device_properties(gpu).total_memory < 30 * 2**30:
        pytest.skip("needs a GPU of 30 GiB")
    frames, height, width = 5, 2100, 3200  # 64 channels: 2.15 G elements
    torch.manual_seed(4)
    shape = (1, 64, frames, height, width)
    input = torch.empty(shape, dtype=torch.bfloat16, device=gpu, memory_format=LAST).normal_()
    offset = torch.full((1, 2, frames, height, width), 0.5, device=gpu)
    weight = torch.randn(64, 64, 1, 1, 1, dtype=torch.bfloat16, device=gpu)
    found = deform_conv3d(input, offset, weight, dims="HW")[..., -1, -40:, -40:]
    end = input[:, :, -1:, -41:, -41:].contiguous()
    small = torch.full((1, 2, 1, 41, 41), 0.5, device=gpu)
    wanted = deform_conv3d(end, small, weight, dims="HW")[..., 0, 1:, 1:]
    assert torch.equal(found, wanted)
