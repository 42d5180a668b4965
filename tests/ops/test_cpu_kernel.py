"""What is particular to the compiled CPU kernel: instruction sets, threads, repeatability, memory.

The general grid of cases runs on every instruction set in test_values.py; here are the channel
counts that have a path of their own, and sizes that end within a tile, strip or panel.
"""

import ctypes
import os
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from host_library import ROOT, build_library

from d3dnet.ops import compiled, fallback_problem, instruction_set, instruction_sets, reference

pytestmark = pytest.mark.skipif(
    fallback_problem() is not None, reason=f"no compiled CPU kernel: {fallback_problem()}"
)
SETS = ("generic", "avx2", "avx512", "amx")
TOLERANCE = {
    torch.float32: 2e-5,
    torch.float64: 1e-10,
    torch.bfloat16: 3e-2,
    torch.float16: 3e-2,
}
ONE = [1, 1, 1]


class Call(NamedTuple):
    """Arguments of the operator and the gradient of its output."""

    grad: torch.Tensor
    input: torch.Tensor
    offset: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    mask: torch.Tensor
    dims: str
    negative_slope: float = 0.1

    def to(self, dtype: torch.dtype) -> "Call":
        return Call(*(t.to(dtype) if isinstance(t, torch.Tensor) else t for t in self))


def make_call(channels=64, out_channels=64, dims="HW", size=(3, 11, 13), batch=1, groups=1) -> Call:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    last = torch.channels_last_3d
    return Call(
        normal(batch, out_channels, *size).contiguous(memory_format=last),
        normal(batch, channels, *size).contiguous(memory_format=last),
        normal(batch, 27 * len(dims), *size) * 2,
        normal(out_channels, channels // groups, 3, 3, 3) * 0.1,
        normal(out_channels),
        normal(batch, 27, *size),
        dims,
    )


def compute(call: Call, forward, backward) -> dict[str, torch.Tensor]:
    grad, input, offset, weight, bias, mask, dims, _ = call
    geometry = (ONE, ONE, ONE, dims)
    names = ("input", "offset", "weight", "mask", "bias")
    needs = (True,) * 5
    gradients = backward(grad, input, offset, weight, mask, *geometry, *needs)
    return {
        "output": forward(input, offset, weight, bias, mask, *geometry, call.negative_slope),
        **dict(zip(names, gradients, strict=True)),
    }


def compiled_results(call: Call, operators=torch.ops.d3dnet) -> dict[str, torch.Tensor]:
    return compute(call, operators.deform_conv3d, operators.deform_conv3d_backward)


def library() -> ctypes.CDLL:
    return ctypes.CDLL(str(compiled.CPU_LIBRARY))


@pytest.fixture(params=SETS)
def each_set(request):
    """The name of an instruction set that the operators run on."""
    if request.param not in instruction_sets():
        pytest.skip(f"this machine or build has no {request.param}")
    before = instruction_set()
    assert library().d3dnet_set_instruction_set(request.param.encode()) == 0
    yield request.param
    assert library().d3dnet_set_instruction_set(before.encode()) == 0


@pytest.fixture(scope="module")
def emulated_amx():
    """The operators on the kernel for AMX, its instructions emulated."""
    sources = [
        ROOT / "tests/ops/amx_emulation/kernel_amx.cpp",
        *(ROOT / "cuda_ops/cpu" / name for name in ("deform_conv3d.cpp", "kernel_generic.cpp")),
    ]
    name = "d3dnet_amx_emulated"
    operators = torch.library.Library(name, "DEF")
    for operator in ("deform_conv3d", "deform_conv3d_backward"):
        schema = str(getattr(torch.ops.d3dnet, operator).default._schema)
        operators.define(schema.removeprefix("d3dnet::"))
    torch.ops.load_library(build_library("amx-emulation", sources, [f"-DD3DNET_OPERATORS={name}"]))
    yield torch.ops.d3dnet_amx_emulated
    operators._destroy()


SHAPES = {
    "64": {},
    "32": {"channels": 32, "out_channels": 32},
    "odd": {"channels": 33, "out_channels": 37, "batch": 2, "size": (2, 9, 11)},
    "groups": {"channels": 12, "out_channels": 18, "groups": 3},
    "THW": {"channels": 12, "out_channels": 5, "dims": "THW"},
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_instruction_set_agrees_with_the_float64_reference(each_set, dtype, shape):
    check(dtype, shape)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_for_amx_agrees_with_it_with_amx_emulated(emulated_amx, dtype, shape):
    check(dtype, shape, emulated_amx)


def check(dtype: torch.dtype, shape: str, *operators) -> None:
    call = make_call(**SHAPES[shape]).to(dtype)
    found = compiled_results(call, *operators)
    wanted = compute(call.to(torch.float64), reference.forward, reference.backward)
    for name, value in found.items():
        assert value.dtype == dtype
        error = (value.double() - wanted[name]).norm() / wanted[name].norm()
        assert error <= TOLERANCE[dtype], name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dims", ["HW", "THW"])
def test_results_do_not_depend_on_the_number_of_threads_nor_on_the_run(each_set, dtype, dims):
    check_repeatable(dtype, dims)


@pytest.mark.parametrize("dims", ["HW", "THW"])
def test_nor_do_those_of_the_kernel_for_amx(emulated_amx, dims):
    check_repeatable(torch.bfloat16, dims, emulated_amx)


def check_repeatable(dtype: torch.dtype, dims: str, *operators) -> None:
    call = make_call(channels=32, out_channels=32, dims=dims, batch=2).to(dtype)
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            runs.append(compiled_results(call, *operators))
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(runs[0][name], other[name]) for name in other)


def test_an_unknown_instruction_set_is_refused_and_leaves_the_one_in_force():
    before = instruction_set()
    assert library().d3dnet_set_instruction_set(b"sse9") == 1
    assert instruction_set() == before


def run_python(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    return done.stdout.strip()


def test_the_environment_forces_a_lower_instruction_set():
    program = "import d3dnet.ops as ops; print(ops.instruction_set())"
    assert run_python(program, D3DNET_INSTRUCTION_SET="generic") == "generic"


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs /proc")
def test_extra_memory_stays_far_below_the_column_matrix():
    program = """
import torch
from d3dnet.ops import deform_conv3d

def held(kind):
    status = open("/proc/self/status").read()
    return int(status.split(kind + ":")[1].split()[0]) / 1024

def step(height, width):
    x = torch.randn(1, 32, 5, height, width).contiguous(memory_format=torch.channels_last_3d)
    offset = torch.randn(1, 54, 5, height, width)
    tensors = [t.requires_grad_() for t in (x, offset, torch.randn(32, 32, 3, 3, 3))]
    y = deform_conv3d(*tensors, padding=1, dims="HW")
    open("/proc/self/clear_refs", "w").write("5")  # what is held now becomes the peak
    before = held("VmRSS")
    y.backward(torch.ones_like(y))
    results = sum(t.grad.numel() * 4 for t in tensors) / 2**20
    return held("VmHWM") - before - results

step(8, 8)
print(step(96, 128))
"""
    # 27 * 32 * 5 * 96 * 128 float32 columns would take 203 MiB.
    assert float(run_python(program)) < 40
