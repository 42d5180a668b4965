"""Builds C++ of cuda_ops/ and of the tests into a library for this machine, once."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
TORCH = Path(torch.__file__).parent


def build_library(name: str, sources: list[Path], flags: list[str]) -> Path:
    """The library, kept under build/ by a hash of what it is made from; skips without a compiler.

    What `sources` include is looked for in their folders.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler was found to compile the kernels for the host")
    folders = sorted({source.parent for source in sources})
    flags = [
        *("-std=c++17", "-O2", "-fPIC", "-DTORCH_TARGET_VERSION=0x020a000000000000", *flags),
        *(f"-I{folder}" for folder in (*folders, TORCH / "include")),
    ]
    made_from = hashlib.sha256(repr((compiler, flags, torch.__version__)).encode())
    for file in sorted(
        {f for folder in (*folders, ROOT / "cuda_ops") for f in folder.rglob("*.*")}
    ):
        made_from.update(file.read_bytes())
    library = ROOT / "build" / f"{name}-{made_from.hexdigest()[:16]}.so"
    if library.exists():
        return library
    library.parent.mkdir(exist_ok=True)
    objects = [library.with_suffix(f".{n}.o") for n in range(len(sources))]
    compiles = [
        subprocess.Popen([compiler, *flags, "-x", "c++", "-c", source, "-o", made])
        for source, made in zip(sources, objects, strict=True)
    ]
    assert not any([process.wait() for process in compiles])
    partial = library.with_suffix(".partial")
    link = [compiler, "-shared", "-o", partial, *objects, f"-L{TORCH / 'lib'}", "-ltorch_cpu"]
    subprocess.run(link, check=True)
    partial.replace(library)
    for made in objects:
        made.unlink()
    return library
