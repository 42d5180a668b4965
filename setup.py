"""Builds the compiled kernels, d3dnet/_C_*.so; everything else is in pyproject.toml.

A kernel is a plain shared library on the LibTorch Stable ABI: no Python headers, no binding, one
build for many versions of torch. It is optional: where it cannot be built, one warning says why and
the package runs in plain PyTorch. Asked for by D3DNET_BUILD_CUDA=1, the CUDA kernels are an error.
Objects are kept under build/ by a hash of what they are made from, so that building again compiles
only what changed.
"""

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
CPU_SOURCES = ROOT / "cuda_ops" / "cpu"
CUDA_SOURCES = ROOT / "cuda_ops" / "cuda"
TENSORS = ROOT / "cuda_ops" / "tensors.h"  # what both libraries include
OBJECTS = ROOT / "build" / "objects"
FLAGS = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-DTORCH_TARGET_VERSION=0x020a000000000000",
]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
# GCC 12 otherwise takes some loops of vector stores (scatter in sampling.h) for functions without
# effect and drops the calls; the tests see it. Other compilers may not know the flags.
NO_EFFECT_ANALYSIS = ["-fno-ipa-modref", "-fno-ipa-pure-const"]
# Only these files may use more than the baseline of the processor family.
INSTRUCTION_SETS = {
    "kernel_avx2": AVX2,
    "kernel_avx512": [*AVX512, "-mprefer-vector-width=512"],
    "kernel_amx": [*AVX512, "-mprefer-vector-width=512", "-mamx-tile", "-mamx-bf16"],
}
BUILD_CUDA_VARIABLE = "D3DNET_BUILD_CUDA"  # 1: build the CUDA kernels, 0: do not
CPU = "d3dnet._C_cpu"
CUDA = "d3dnet._C_cuda"
CUDA_ARCHITECTURES = "7.5 8.0 8.6 8.9 9.0 10.0 12.0"


class BuildError(Exception):
    """Why a compiled kernel cannot be built."""


def run(command: list[str]) -> str:
    """Run a compiler; its output, or `BuildError` with it."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise BuildError(f"{shlex.join(command)}\n{done.stderr.strip()}")
    return done.stdout


def compiler() -> list[str]:
    """Command of the C++ compiler: $CXX, else the first of the usual names that is found."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if found is None:
        raise BuildError("no C++ compiler was found; install g++ or clang++, or set CXX")
    return [found]


def torch_folder() -> Path:
    """Folder of the installed torch, which is not imported: that would take seconds."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        raise BuildError(
            "torch is not installed where d3dnet is built; install it first and use "
            "pip install --no-build-isolation"
        )
    return Path(spec.origin).parent


def supports(command: list[str], flags: list[str]) -> bool:
    """Whether the compiler knows the flags."""
    try:
        run([*command, *flags, "-E", "-x", "c++", os.devnull])
    except BuildError:
        return False
    return True


def build_cpu_library(target: Path) -> None:
    """Compile cuda_ops/cpu/*.cpp into `target`; `BuildError` says why not."""
    command = compiler()
    torch = torch_folder()
    common = [*FLAGS, f"-I{torch / 'include'}"]
    common += [flag for flag in NO_EFFECT_ANALYSIS if supports(command, [flag])]
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    made_from = hashlib.sha256((run([*command, "--version"]) + str(torch)).encode())
    made_from.update((torch / "version.py").read_bytes())
    for header in (*sorted(CPU_SOURCES.glob("*.h")), TENSORS):
        made_from.update(header.read_bytes())

    def compile_file(source: Path) -> Path:
        flags = list(common)
        extra = INSTRUCTION_SETS.get(source.stem, [])
        # Without its flags such a file compiles to "not present".
        if extra and is_x86 and supports(command, extra):
            flags += extra
        key = made_from.copy()
        key.update(source.read_bytes() + shlex.join([*command, *flags]).encode())
        made = OBJECTS / f"{source.stem}-{key.hexdigest()[:16]}.o"
        if not made.exists():
            for stale in OBJECTS.glob(f"{source.stem}-*.o"):
                stale.unlink()
            partial = made.with_suffix(".partial")
            run([*command, *flags, "-c", str(source), "-o", str(partial)])
            partial.replace(made)
        return made

    OBJECTS.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [str(made) for made in pool.map(compile_file, sorted(CPU_SOURCES.glob("*.cpp")))]
    target.parent.mkdir(parents=True, exist_ok=True)
    # A running program keeps the library it has loaded: the new one takes its name at the end.
    partial = target.with_suffix(".partial")
    run([*command, "-shared", "-o", str(partial), *objects, f"-L{torch / 'lib'}", "-ltorch_cpu"])
    partial.replace(target)


def nvcc() -> str | None:
    """Path of the CUDA compiler: $CUDA_HOME's, else one on the PATH or where CUDA installs it."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    first = str(Path(home) / "bin" / "nvcc") if home else shutil.which("nvcc")
    places = filter(None, (first, "/usr/local/cuda/bin/nvcc"))
    return next((place for place in places if Path(place).exists()), None)


def asked_for_cuda() -> bool | None:
    """What the environment says of the CUDA kernels: to build them, not to, or nothing."""
    asked = os.environ.get(BUILD_CUDA_VARIABLE, "")
    return asked != "0" if asked else None


def wants_cuda() -> bool:
    """Whether to build the CUDA kernels: as the environment says, else if torch has CUDA."""
    asked = asked_for_cuda()
    if asked is not None:
        return asked
    try:
        version = (torch_folder() / "version.py").read_text()
    except BuildError:
        return False
    return nvcc() is not None and re.search(r"^cuda\b.*=\s*['\"]", version, re.M) is not None


def architecture_flags(wanted: str, known: list[int]) -> list[str]:
    """Flags of nvcc for an architecture list as torch writes it, "8.0 9.0+PTX"."""
    flags = []
    for name in re.split(r"[;,\s]+", wanted.strip()):
        match = re.fullmatch(r"(\d+)\.(\d+)([af]?)(\+PTX)?", name)
        if match is None:
            raise BuildError(
                f"TORCH_CUDA_ARCH_LIST has {name!r}; accepted: versions such as 8.0, 9.0 or "
                "12.0+PTX, separated by spaces or semicolons"
            )
        number = f"{match[1]}{match[2]}{match[3]}"
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if match[4]:
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    if os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return flags
    # Older compilers do not know the newest GPUs; the PTX serves those.
    flags = [flag for flag in flags if int(flag.rsplit("_", 1)[1]) in known]
    newest = flags[-1].rsplit("_", 1)[1]
    return [*flags, f"-gencode=arch=compute_{newest},code=compute_{newest}"]


def build_cuda_library(target: Path) -> None:
    """Compile cuda_ops/cuda/deform_conv3d.cu into `target`; `BuildError` says why not."""
    command = nvcc()
    if command is None:
        raise BuildError("no nvcc was found; install the CUDA toolkit, or set CUDA_HOME")
    torch = torch_folder()
    known = [int(number) for number in re.findall(r"_(\d+)\b", run([command, "--list-gpu-arch"]))]
    architectures = os.environ.get("TORCH_CUDA_ARCH_LIST") or CUDA_ARCHITECTURES
    flags = [
        *("-std=c++17", "-O3", "-shared", "-DTORCH_TARGET_VERSION=0x020a000000000000"),
        *("-DUSE_CUDA", "-Xcompiler", "-fPIC,-fvisibility=hidden", "--threads", "0"),
        *architecture_flags(architectures, known),
        f"-I{torch / 'include'}",
        *(f"-L{torch / 'lib'}", "-ltorch_cpu"),
    ]
    # Beside a torch without CUDA the library can be built, but not loaded.
    if (torch / "lib" / "libtorch_cuda.so").exists():
        flags.append("-ltorch_cuda")
    made_from = hashlib.sha256(shlex.join([command, *flags]).encode())
    made_from.update((torch / "version.py").read_bytes())
    for source in (*sorted(CUDA_SOURCES.glob("*.cu*")), TENSORS):
        made_from.update(source.read_bytes())
    OBJECTS.mkdir(parents=True, exist_ok=True)
    made = OBJECTS / f"cuda-{made_from.hexdigest()[:16]}.so"
    if not made.exists():
        for stale in OBJECTS.glob("cuda-*.so"):
            stale.unlink()
        partial = made.with_suffix(".partial")
        run([command, *flags, "-o", str(partial), str(CUDA_SOURCES / "deform_conv3d.cu")])
        partial.replace(made)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    shutil.copyfile(made, partial)
    partial.replace(target)


def copy_cuda_headers(package: Path) -> None:
    """Put the CUDA kernels' sources into the package: it can compile them where it runs."""
    folder = package / "cuda_ops" / "cuda"
    folder.mkdir(parents=True, exist_ok=True)
    for header in CUDA_SOURCES.glob("*.cuh"):
        shutil.copyfile(header, folder / header.name)


class BuildLibraries(build_ext):
    """Builds each extension as a plain shared library."""

    builders: ClassVar = {CPU: build_cpu_library, CUDA: build_cuda_library}

    def get_ext_filename(self, fullname: str) -> str:
        """d3dnet/_C_cpu.so: no Python version in it, for no Python is in it."""
        return os.path.join(*fullname.split(".")) + ".so"

    def run(self) -> None:
        """Build what can be built, warn of what cannot, and fail if that was asked for by name."""
        failure = None
        if not self.inplace:
            copy_cuda_headers(Path(self.build_lib) / "d3dnet")
        for extension in list(self.extensions):
            target = Path(self.build_lib) / self.get_ext_filename(extension.name)
            try:
                self.builders[extension.name](target)
            except (BuildError, OSError) as error:
                self.extensions.remove(extension)
                if extension.name == CUDA and asked_for_cuda():
                    failure = f"{CUDA} was not built, which {BUILD_CUDA_VARIABLE} asks for: {error}"
                    continue
                print(
                    f"\nWARNING: {extension.name} was not built, so d3dnet will run in plain "
                    f"PyTorch, several times slower: {error}\n",
                    file=sys.stderr,
                )
        if self.inplace:
            self.copy_extensions_to_source()
        if failure is not None:
            raise SystemExit(failure)


names = [CPU, *([CUDA] if wants_cuda() else [])]
setup(
    ext_modules=[Extension(name, sources=[], optional=True) for name in names],
    cmdclass={"build_ext": BuildLibraries},
)
