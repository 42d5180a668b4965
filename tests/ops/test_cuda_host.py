"""The CUDA kernels, run on the CPU by an emulation of a GPU, against the oracle.

What g++ compiles are the kernels and their launcher, unchanged: tests/ops/cuda_emulation stands in
for threads, barriers, shared memory, asynchronous copies and tensor cores.
"""

import ctypes
import dataclasses
from collections.abc import Iterator

import cases
import pytest
import torch
import torch.nn.functional as F
from host_library import ROOT, build_library

from d3dnet.ops import cuda_launch, nvrtc

SOURCES = [
    ROOT / "tests/ops/cuda_emulation/emulation.cpp",
    ROOT / "cuda_ops/cuda/deform_conv3d.cu",
]
# Also a plain access to 16 bytes that are not aligned stops the program.
TRAPS = ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
MODES = {
    "float64": (torch.float64, 1e-10),
    "float32": (torch.float32, 2e-5),
    "tf32": (torch.float32, 1e-3),
    "bfloat16": (torch.bfloat16, 3e-2),
    "float16": (torch.float16, 3e-2),
}


@pytest.fixture(scope="module")
def emulation() -> ctypes.CDLL:
    """The compiled kernels, loaded."""
    library = build_library("cuda-emulation", SOURCES, ["-DD3DNET_EMULATED", *TRAPS])
    torch.ops.load_library(library)
    return ctypes.CDLL(str(library))


ORDERS = {"last thread first": -1, "at random": 20, "at random again": 21}


@pytest.fixture(params=ORDERS)
def threads_take_turns(request: pytest.FixtureRequest, emulation: ctypes.CDLL) -> Iterator[None]:
    """A missing barrier shows in one order or the other."""
    emulation.d3dnet_emulation_order(ORDERS[request.param])
    yield
    emulation.d3dnet_emulation_order(1)


def compute(
    case: cases.Case,
    t: cases.Tensors,
    tf32: bool,
    needs: tuple[bool, ...] = (True,) * 5,
    operators=torch.ops.d3dnet_emulated,
) -> dict[str, torch.Tensor]:
    """Output and gradients, by the names of `cases.NAMES`."""
    output = operators.deform_conv3d(
        t.input, t.offset, t.weight, t.bias, t.mask, *case.settings, tf32
    )
    gradients = operators.deform_conv3d_backward(
        cases.before_activation(case, t.grad, output),
        *(t.input, t.offset, t.weight, t.mask, *case.geometry, *needs, tf32),
    )
    names = ("grad_input", "grad_offset", "grad_weight", "grad_mask", "grad_bias")
    absent = {"grad_bias": t.bias is None, "grad_mask": t.mask is None}
    found = {
        name: gradient
        for name, gradient, needed in zip(names, gradients, needs, strict=True)
        if needed and not absent.get(name)
    }
    return {"output": output, **found}


def check(case: cases.Case, mode: str, coarse_offset: bool = False, **operators) -> None:
    dtype, tolerance = MODES[mode]
    coarse = dtype.itemsize == 2
    offset_dtype = torch.float32 if coarse and not coarse_offset else dtype
    tensors = cases.make(case, coarse, coarse_offset).to(dtype, offset_dtype)
    found = compute(case, tensors, mode == "tf32", **operators)
    wanted = cases.expected(case, coarse, coarse_offset)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert value.shape == wanted[name].shape, name
        assert value.dtype == (offset_dtype if name == "grad_offset" else dtype), name
        assert cases.relative_error(value, wanted[name]) <= tolerance, name


@pytest.mark.parametrize("name", cases.CASES)
def test_every_configuration_matches_the_oracle(emulation, name):
    check(cases.CASES[name], "float32")


@pytest.mark.parametrize("name", [*list(cases.CASES)[::6], "64 channels"])
@pytest.mark.parametrize("mode", ["float64", "tf32", "bfloat16", "float16"])
def test_the_other_element_types_match_the_oracle(emulation, name, mode):
    check(cases.CASES[name], mode)


@pytest.mark.parametrize("mode", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", ["48 channels to 80", "asymmetric geometry", "64 channels"])
def test_the_order_of_threads_does_not_matter(threads_take_turns, name, mode):
    check(cases.CASES[name], mode)


@pytest.mark.parametrize("mode", ["tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["32 channels", "LeakyReLU, 64 channels"])
def test_layers_of_d3dnet_match_the_oracle(emulation, name, mode):
    """Kernels with all sizes known to the compiler."""
    check(cases.CASES[name], mode)


def test_offsets_in_16_bits_are_read_as_they_are(emulation):
    check(cases.CASES["mask"], "float16", coarse_offset=True)


@pytest.mark.parametrize("channels", [70, 80, 136])
def test_channels_beyond_one_chunk_are_added_up(emulation, channels):
    """One offset group over several tiles of channels, and outputs over several blocks."""
    case = cases.Case(
        channels=channels, outputs=channels, size=(1, 3, 3), kernel=(1, 2, 2), mask=True
    )
    check(case, "float32")
    check(case, "bfloat16")


def test_results_are_laid_out_like_what_they_belong_to(emulation):
    case = cases.CASES["mask"]
    last = torch.channels_last_3d
    plain = cases.make(case).to(torch.float32)
    tensors = plain.map(lambda x: x.contiguous(memory_format=last) if x.dim() == 5 else x)
    found = compute(case, tensors, tf32=False)
    for name, wanted in compute(case, plain, tf32=False).items():
        assert torch.equal(found[name], wanted), name
        if wanted.dim() == 5:
            assert found[name].is_contiguous(memory_format=last), name
            assert wanted.is_contiguous(), name


def test_rows_that_are_not_16_byte_aligned_are_read_element_by_element(emulation):
    case = cases.Case(channels=32, outputs=32, size=(1, 3, 3), kernel=(1, 1, 2))
    tensors = cases.make(case).to(torch.float32)
    shifted = torch.empty(tensors.input.numel() + 1)[1:].view(1, 1, 3, 3, 32).permute(0, 4, 1, 2, 3)
    assert shifted.is_contiguous(memory_format=torch.channels_last_3d)
    shifted.copy_(tensors.input)
    found = compute(case, dataclasses.replace(tensors, input=shifted), tf32=False)
    for name, wanted in cases.expected(case).items():
        assert cases.relative_error(found[name], wanted) <= 2e-5, name


@pytest.mark.parametrize("needed", range(5))
def test_a_gradient_alone_is_what_it_is_with_the_others(emulation, needed):
    case = cases.CASES["mask"]
    tensors = cases.make(case).to(torch.float32)
    name = ("grad_input", "grad_offset", "grad_weight", "grad_mask", "grad_bias")[needed]
    found = compute(case, tensors, False, tuple(n == needed for n in range(5)))
    assert set(found) == {"output", name}
    assert torch.equal(found[name], compute(case, tensors, False)[name])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_pixel_that_no_sample_reads_reaches_no_result(emulation, bad):
    """With stride 2, one tap and zero offsets only even pixels carry weight."""
    case = cases.Case(
        size=(2, 4, 4), channels=16, outputs=16, kernel=(1, 1, 1), padding=(0, 0, 0),
        stride=(1, 2, 2),
    )  # fmt: skip
    tensors = cases.make(case).to(torch.bfloat16, torch.float32)
    tensors = dataclasses.replace(tensors, offset=torch.zeros_like(tensors.offset))
    clean = compute(case, tensors, False)
    tensors.input[..., 1::2, :] = bad
    tensors.input[..., 1::2] = bad
    found = compute(case, tensors, False)
    for name in ("output", "grad_input", "grad_weight"):
        assert torch.equal(found[name], clean[name]), name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30, -3e9])
def test_a_sample_at_an_offset_that_is_nowhere_is_zero(emulation, value):
    case = cases.CASES["all dimensions"]
    tensors = cases.make(case).to(torch.float32)
    far = tensors.offset.clone()
    tensors.offset[:, ::2] = value
    far[:, ::2] = 1000.0
    found = compute(case, tensors, False)
    for name, wanted in compute(case, dataclasses.replace(tensors, offset=far), False).items():
        assert torch.equal(found[name], wanted), name


class TestLaunchesFromPython:
    """Where the kernels are compiled at run time, their launches are planned in Python."""

    @pytest.fixture
    def operators(self, emulation: ctypes.CDLL) -> cuda_launch.LaunchedOperators:
        def launch(what: cuda_launch.Launch, problem, on: torch.Tensor) -> None:
            assert on.device.type == "cpu"
            kernel = ctypes.cast(getattr(emulation, what.kernel), ctypes.c_void_p)
            emulation.d3dnet_emulate(
                kernel, *what.grid, what.threads, what.shared, ctypes.byref(problem)
            )

        return cuda_launch.LaunchedOperators(launch)

    @pytest.mark.parametrize(
        "name", ["mask", "batch of none", "17 channels, 33 outputs", "64 channels"]
    )
    @pytest.mark.parametrize("mode", MODES)
    def test_values_and_gradients_match_the_oracle(self, operators, name, mode):
        check(cases.CASES[name], mode, operators=operators)

    @pytest.mark.parametrize(
        ("name", "mode", "ending"),
        [
            ("64 channels", "bfloat16", "_bfloat16_64"),
            ("32 channels", "tf32", "_tf32_32"),
            ("64 channels", "float32", "_float32"),  # without tensor cores
            ("16 channels", "bfloat16", "_bfloat16"),
            ("64 channels, all dimensions", "bfloat16", "_bfloat16"),
            ("64 channels, large frame", "bfloat16", "_bfloat16"),  # another kernel size
        ],
    )
    def test_layers_of_d3dnet_have_kernels_of_their_own(self, name, mode, ending):
        names = []
        operators = cuda_launch.LaunchedOperators(lambda what, problem, on: names.append(what))
        case, (dtype, _) = cases.CASES[name], MODES[mode]
        compute(case, cases.make(case).to(dtype), mode == "tf32", operators=operators)
        main = [n.kernel for n in names if "pack" not in n.kernel and "add" not in n.kernel]
        assert len(main) == 3 and all(kernel.endswith(ending) for kernel in main), main

    @pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
    def test_offsets_and_masks_of_either_layout_are_read_where_they_are(self, last):
        found = []

        def launch(what: cuda_launch.Launch, p, on: torch.Tensor) -> None:
            found.append((p.offset, p.mask, p.offset_is_channels_last, p.mask_is_channels_last))

        layout = torch.channels_last_3d if last else torch.contiguous_format
        case = cases.CASES["mask"]
        tensors = cases.make(case).to(torch.float32)
        offset, mask = (x.contiguous(memory_format=layout) for x in (tensors.offset, tensors.mask))
        tensors = dataclasses.replace(tensors, offset=offset, mask=mask)
        compute(case, tensors, False, operators=cuda_launch.LaunchedOperators(launch))
        assert set(found) == {(offset.data_ptr(), mask.data_ptr(), last, last)}

    def test_results_are_those_of_the_compiled_launcher(self, operators):
        case = cases.CASES["groups across offset groups"]
        plain = cases.make(case).to(torch.float32)
        last = plain.map(
            lambda x: x.contiguous(memory_format=torch.channels_last_3d) if x.dim() == 5 else x
        )
        part = last.map(  # of a larger tensor: neither layout
            lambda x: (
                F.pad(x, (0, 1)).contiguous(memory_format=torch.channels_last_3d)[..., :-1]
                if x.dim() == 5
                else x
            )
        )
        for tensors in (plain, last, part):
            found = compute(case, tensors, False, operators=operators)
            for name, wanted in compute(case, tensors, False).items():
                assert torch.equal(found[name], wanted), name
                assert found[name].stride() == wanted.stride(), name

    def test_the_structures_are_those_of_the_kernels(self, emulation):
        assert ctypes.sizeof(cuda_launch.CudaProblem) == emulation.d3dnet_problem_bytes()
        for dtype in (torch.bfloat16, torch.float32, torch.float64):
            wanted = [emulation.d3dnet_shared_bytes(dtype.itemsize, kernel) for kernel in range(3)]
            assert list(cuda_launch.shared_bytes(dtype)) == wanted

    def test_every_kernel_has_a_program_that_holds_it(self, emulation):
        for element in ("bfloat16", "float16", "tf32", "float32", "float64"):
            program = nvrtc.source(f"d3dnet_forward_{element}")
            assert f"X({element}, " in program and "kernels.cuh" in program
        for product in cuda_launch.LAYER_PRODUCTS:
            for channels in cuda_launch.LAYER_CHANNELS:
                kernel = f"d3dnet_weight_gradients_{product}_{channels}"
                assert hasattr(emulation, kernel)
                program = nvrtc.source(kernel)
                assert f"X({product}, " in program and f", {channels})" in program
        assert nvrtc.SOURCES == ROOT / "cuda_ops" / "cuda"
