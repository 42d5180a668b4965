"""Every CUDA kernel compiles for every GPU that is served, and fits the registers it was given.

For one of them the launcher is compiled too, with the headers of the torch that is installed; and
both launchers with those of the oldest torch that pyproject.toml promises, where they are cached.
"""

import os
import re
import runpy
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import torch
from host_library import ROOT

from d3dnet.ops import cuda_launch

KERNELS = ROOT / "cuda_ops" / "cuda"
PROGRAM = '#include "kernels.cuh"\n'
LAUNCHER = KERNELS / "deform_conv3d.cu"  # the same kernels, and torch's headers
# GPUs (sm) by the virtual architecture whose code they are assembled from: a source is compiled
# once for several GPUs, which differ in the assembler only.
GPUS = {75: (75,), 80: (80, 86, 89), 90: (90, 100, 120)}
MEASURED = (80, 90)
WITH_LAUNCHER = (75,)  # once is enough
PRODUCTS = ("bfloat16", "float16", "tf32", "float32", "float64")
ELEMENTS = ("bfloat16", "float16", "float32", "float64")
# Registers of a thread, at most. With 128 two blocks of 256 threads share a multiprocessor.
BUDGET = {
    **{f"forward_{product}": 128 for product in PRODUCTS},
    **{f"data_gradients_{product}": 128 for product in PRODUCTS},
    **{f"weight_gradients_{product}": 128 for product in PRODUCTS},
    **{
        f"{kernel}_{element}": 64
        for kernel in ("pack_forward", "pack_backward", "add_segments")
        for element in ELEMENTS
    },
    **{
        f"{kernel}_{product}_{channels}": most
        for kernel, most in (("forward", 112), ("data_gradients", 96), ("weight_gradients", 104))
        for product in cuda_launch.LAYER_PRODUCTS
        for channels in cuda_launch.LAYER_CHANNELS
    },
    "forward_float64": 232,
    "data_gradients_float64": 192,
    "weight_gradients_float64": 160,
}


def compiler() -> str:
    home = os.environ.get("CUDA_HOME")
    found = shutil.which("nvcc", path=f"{home}/bin" if home else None)
    if found is None:
        pytest.skip("no nvcc was found to compile the CUDA kernels")
    return found


@pytest.fixture(scope="module", params=GPUS, ids=lambda virtual: f"compute_{virtual}")
def report(request: pytest.FixtureRequest, tmp_path_factory) -> tuple[int, str]:
    """A virtual architecture, and what the assembler says of every kernel on its GPUs."""
    virtual = request.param
    folder = tmp_path_factory.mktemp("cuda")
    source, flags = folder / "kernels.cu", ["-fatbin"]
    source.write_text(PROGRAM)
    if virtual in WITH_LAUNCHER:
        source, flags = LAUNCHER, ["-c", "-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
        flags += ["-isystem", Path(torch.__file__).parent / "include"]
    known = subprocess.run([compiler(), "--list-gpu-code"], capture_output=True, text=True).stdout
    gpus = [f"sm_{gpu}" for gpu in GPUS[virtual] if f"sm_{gpu}\n" in known]
    if not gpus:
        pytest.skip(f"this nvcc knows none of the GPUs {GPUS[virtual]}")
    command = [
        *(compiler(), "-std=c++17", *flags, "-Xptxas", "-v"),
        *(f"-gencode=arch=compute_{virtual},code=[{','.join(gpus)}]", f"-I{KERNELS}"),
        *("-o", folder / "kernels.out", source),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return virtual, done.stderr


def registers(report: str, gpu: int) -> dict[str, int]:
    """Registers of a thread by kernel, of the kernels compiled for a GPU."""
    blocks = re.split(r"Compiling entry function ", report)[1:]
    found = {}
    for block in blocks:
        name, target = re.match(r"'d3dnet_(\w+)' for 'sm_(\d+)'", block).groups()
        if int(target) == gpu:
            found[name] = int(re.search(r"Used (\d+) registers", block)[1])
            assert "0 bytes spill stores, 0 bytes spill loads" in block, f"{name} spills on {gpu}"
    return found


def test_every_kernel_compiles_without_warning_and_fits_its_registers(report):
    virtual, text = report
    assert "warning" not in text
    for gpu in GPUS[virtual]:
        found = registers(text, gpu) if gpu in MEASURED else {}
        if gpu in MEASURED:
            assert found.keys() == BUDGET.keys()
        over = {name: used for name, used in found.items() if used > BUDGET[name]}
        assert not over, f"sm_{gpu}: more registers than budgeted: {over}"


@pytest.fixture(scope="module")
def oldest_headers() -> Path:
    """The headers of the oldest torch that is promised."""
    script = runpy.run_path(str(ROOT / "scripts" / "fetch_torch_headers.py"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (promised,) = (d for d in project["project"]["dependencies"] if d.startswith("torch>="))
    assert script["VERSION"] == f"{promised.removeprefix('torch>=')}.0"
    if not script["HEADERS"].exists():
        pytest.skip("scripts/fetch_torch_headers.py has not fetched torch's headers (75 MiB)")
    return script["HEADERS"]


def checked(compiler: list[str], headers: Path, source: str) -> None:
    done = subprocess.run(
        [
            *(*compiler, "-std=c++17", "-DTORCH_TARGET_VERSION=0x020a000000000000"),
            *("-isystem", headers, ROOT / "cuda_ops" / source),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_launcher_builds_on_the_oldest_torch(oldest_headers):
    checked([compiler(), "-DUSE_CUDA", "--cuda", "-arch=sm_80", "-o", os.devnull], oldest_headers,
            "cuda/deform_conv3d.cu")  # fmt: skip


def test_the_launcher_of_the_cpu_builds_on_the_oldest_torch(oldest_headers):
    cpp = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if cpp is None:
        pytest.skip("no C++ compiler was found")
    checked([cpp, "-fsyntax-only"], oldest_headers, "cpu/deform_conv3d.cpp")
