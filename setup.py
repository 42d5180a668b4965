"""Builds the compiled CPU kernel, d3dnet/_C_cpu.so; everything else is in pyproject.toml.

The kernel is a plain shared library on the LibTorch Stable ABI: no Python headers, no binding, one
build for many versions of torch. It is optional: where it cannot be built, one warning says why and
the package runs in plain PyTorch. Objects are kept under build/ by a hash of what they are made
from, so that building again compiles only what changed.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
SOURCES = ROOT / "cuda_ops"
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


class BuildError(Exception):
    """Why the compiled kernel cannot be built."""


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
    """Compile cuda_ops/*.cpp into `target`; `BuildError` says why not."""
    command = compiler()
    torch = torch_folder()
    common = [*FLAGS, f"-I{torch / 'include'}"]
    common += [flag for flag in NO_EFFECT_ANALYSIS if supports(command, [flag])]
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    made_from = hashlib.sha256((run([*command, "--version"]) + str(torch)).encode())
    made_from.update((torch / "version.py").read_bytes())
    for header in sorted(SOURCES.glob("*.h")):
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
        objects = [str(made) for made in pool.map(compile_file, sorted(SOURCES.glob("*.cpp")))]
    target.parent.mkdir(parents=True, exist_ok=True)
    # A running program keeps the library it has loaded: the new one takes its name at the end.
    partial = target.with_suffix(".partial")
    run([*command, "-shared", "-o", str(partial), *objects, f"-L{torch / 'lib'}", "-ltorch_cpu"])
    partial.replace(target)


class BuildLibraries(build_ext):
    """Builds each extension as a plain shared library; a CUDA one (nvcc) belongs beside it."""

    builders = {"d3dnet._C_cpu": build_cpu_library}  # noqa: RUF012

    def get_ext_filename(self, fullname: str) -> str:
        """d3dnet/_C_cpu.so: no Python version in it, for no Python is in it."""
        return os.path.join(*fullname.split(".")) + ".so"

    def run(self) -> None:
        """Build what can be built, and warn of what cannot."""
        for extension in list(self.extensions):
            target = Path(self.build_lib) / self.get_ext_filename(extension.name)
            try:
                self.builders[extension.name](target)
            except (BuildError, OSError) as error:
                self.extensions.remove(extension)
                print(
                    f"\nWARNING: {extension.name} was not built, so d3dnet will run in plain "
                    f"PyTorch, several times slower: {error}\n",
                    file=sys.stderr,
                )
        if self.inplace:
            self.copy_extensions_to_source()


setup(
    ext_modules=[Extension("d3dnet._C_cpu", sources=[], optional=True)],
    cmdclass={"build_ext": BuildLibraries},
)
