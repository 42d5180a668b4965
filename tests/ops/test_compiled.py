"""Where there is no compiled kernel the operator still works, and says so once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import d3dnet
from d3dnet.ops import compiled, instruction_set, instruction_sets

USE = """
import warnings
with warnings.catch_warnings(record=True) as at_import:
    warnings.simplefilter("always")
    import torch
    from d3dnet import ops
assert not [w for w in at_import if "d3dnet" in str(w.message)], "warned at import"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        x = torch.randn(1, 2, 1, 4, 4, requires_grad=True)
        weight = torch.ones(2, 2, 1, 1, 1)
        y = ops.deform_conv3d(x, torch.zeros(1, 2, 1, 4, 4), weight, dims="HW")
        y.sum().backward()
        assert torch.allclose(y, torch.nn.functional.conv3d(x, weight), atol=1e-6)
        assert torch.equal(x.grad, torch.full_like(x, 2.0))
print(len(caught))
for warning in caught:
    print(warning.category.__name__, warning.message)
print(ops.instruction_set())
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with a copy of the package in which nothing was compiled."""
    source = Path(d3dnet.__file__).parent
    ignored = shutil.ignore_patterns("*.so", "*.safetensors", "__pycache__")
    shutil.copytree(source, tmp_path / "d3dnet", ignore=ignored)
    return tmp_path


def run(folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess:
    settings = {**os.environ, "PYTHONPATH": str(folder), **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=settings, cwd=folder, capture_output=True, text=True
    )


def test_without_a_library_it_works_and_warns_once_at_first_use(copy):
    done = run(copy, USE)
    assert done.returncode == 0, done.stderr
    count, warning, name = done.stdout.splitlines()
    assert (count, name) == ("1", "None")
    assert warning.startswith("RuntimeWarning deform_conv3d runs in plain PyTorch")
    assert f"{copy / 'd3dnet' / '_C_cpu.so'} does not exist" in warning
    assert "pip install" in warning


def test_a_broken_library_is_named_in_the_one_warning(copy):
    broken = copy / "d3dnet" / "_C_cpu.so"
    broken.write_bytes(b"no library")
    done = run(copy, USE)
    assert done.returncode == 0, done.stderr
    count, warning, name = done.stdout.splitlines()
    assert (count, name) == ("1", "None")
    assert f"{broken} cannot be loaded (" in warning and "plain PyTorch" in warning


def test_a_library_built_for_other_arguments_is_not_loaded(copy):
    needs_library()
    other = copy / "d3dnet" / "_C_cpu.so"
    built = compiled.CPU_LIBRARY.read_bytes()
    other.write_bytes(built.replace(compiled.OPERATOR, compiled.OPERATOR[:-1] + b"1"))
    done = run(copy, USE)
    assert done.returncode == 0, done.stderr
    count, warning, name = done.stdout.splitlines()
    assert (count, name) == ("1", "None")
    assert f"{other} cannot be loaded (it was built from another version of d3dnet)" in warning


def test_an_unknown_instruction_set_in_the_environment_is_refused(copy):
    done = run(copy, "import d3dnet.ops", D3DNET_INSTRUCTION_SET="sse9")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == (
        "ValueError: D3DNET_INSTRUCTION_SET is 'sse9'; accepted: generic, avx2, avx512, amx, "
        "or unset for the best one present"
    )


def needs_library() -> None:
    if compiled.fallback_problem() is not None:
        pytest.skip(f"the compiled CPU kernel is not used: {compiled.fallback_problem()}")


def test_the_environment_forces_an_instruction_set():
    needs_library()
    folder = Path(d3dnet.__file__).parent.parent
    code = "from d3dnet import ops; print(ops.instruction_set())"
    done = run(folder, code, D3DNET_INSTRUCTION_SET="generic")
    assert done.stdout.strip() == "generic", done.stderr


def test_an_instruction_set_that_is_not_present_is_refused():
    needs_library()
    folder = Path(d3dnet.__file__).parent.parent
    for name in sorted(set(compiled.INSTRUCTION_SETS) - set(instruction_sets()))[:1]:
        done = run(folder, "import d3dnet.ops", D3DNET_INSTRUCTION_SET=name)
        assert f"instruction set '{name}' is not available here; accepted: generic" in done.stderr
    with pytest.raises(ValueError, match="'sse9' is not available here; accepted: generic"):
        compiled.set_instruction_set("sse9")


def test_the_instruction_set_in_use_is_one_of_those_present():
    needs_library()
    assert instruction_set() in instruction_sets()
    assert instruction_sets()[0] == "generic"
    assert set(instruction_sets()) <= set(compiled.INSTRUCTION_SETS)
