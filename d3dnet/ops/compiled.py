"""Find and load the compiled CPU kernel, and choose its instruction set.

The library only adds a CPU implementation to an operator that `registration.py` has declared;
without it the operator runs in plain PyTorch, which is warned about once, at first use.
"""

import ctypes
import os
import re
import warnings
from pathlib import Path

import torch

INSTRUCTION_SETS = ("generic", "avx2", "avx512", "amx")  # ascending
INSTRUCTION_SET_VARIABLE = "D3DNET_INSTRUCTION_SET"
CPU_LIBRARY = Path(__file__).parent.parent / "_C_cpu.so"
# In cuda_ops/cpu/instruction_set.cpp; another one for other arguments.
OPERATOR = b"d3dnet operator 2"

_library: ctypes.CDLL | None = None
_problem = f"{CPU_LIBRARY} does not exist"
_warned = False


def load_cpu_library() -> None:
    """Load the compiled CPU kernel if it was built; remember why not for `warn_of_fallback`.

    Raises `ValueError` if the environment asks for an instruction set that is not known, or that
    this machine or build does not have.
    """
    global _library, _problem
    wanted = os.environ.get(INSTRUCTION_SET_VARIABLE, "")
    if wanted and wanted not in INSTRUCTION_SETS:
        raise ValueError(
            f"{INSTRUCTION_SET_VARIABLE} is {wanted!r}; accepted: {', '.join(INSTRUCTION_SETS)}, "
            "or unset for the best one present"
        )
    if not CPU_LIBRARY.exists():
        return
    try:
        # Before it is loaded, which puts its kernels under operators that they may not fit.
        if OPERATOR not in CPU_LIBRARY.read_bytes():
            raise OSError("it was built from another version of d3dnet")
        torch.ops.load_library(str(CPU_LIBRARY))
        library = ctypes.CDLL(str(CPU_LIBRARY))
        library.d3dnet_instruction_set.restype = ctypes.c_char_p
        library.d3dnet_instruction_sets.restype = ctypes.c_char_p
        library.d3dnet_set_instruction_set.argtypes = [ctypes.c_char_p]
    except (OSError, AttributeError) as error:
        _problem = f"{CPU_LIBRARY} cannot be loaded ({error})"
        return
    _library = library
    if wanted:
        set_instruction_set(wanted)


def instruction_set() -> str | None:
    """Name of the instruction set the CPU kernel uses, or None where it runs in plain PyTorch.

    >>> instruction_set() is None or instruction_set() in instruction_sets()
    True
    """
    return None if _library is None else _library.d3dnet_instruction_set().decode()


def instruction_sets() -> tuple[str, ...]:
    """Names of the instruction sets that this machine and build have; empty without the library.

    >>> set(instruction_sets()) <= set(INSTRUCTION_SETS)
    True
    """
    if _library is None:
        return ()
    return tuple(re.findall(r"\w+", _library.d3dnet_instruction_sets().decode()))


def set_instruction_set(name: str) -> None:
    """Make the CPU kernel use an instruction set; `ValueError` if it is not present."""
    if _library is None or name not in instruction_sets():
        present = ", ".join(instruction_sets()) or "none, the compiled kernel is not loaded"
        raise ValueError(f"instruction set {name!r} is not available here; accepted: {present}")
    _library.d3dnet_set_instruction_set(name.encode())


def fallback_problem() -> str | None:
    """Why the compiled CPU kernel is not used, or None where it is.

    >>> (fallback_problem() is None) == (instruction_set() is not None)
    True
    """
    return _problem if _library is None else None


def warn_of_fallback() -> None:
    """Say once that the compiled CPU kernel is missing, why, and what to do."""
    global _warned
    if _warned or _library is not None:
        return
    _warned = True
    warnings.warn(
        f"deform_conv3d runs in plain PyTorch, several times slower than the compiled kernel: "
        f"{_problem}. Install d3dnet where a C++ compiler is found to build it "
        "(pip install --no-build-isolation .).",
        RuntimeWarning,
        stacklevel=2,
    )
