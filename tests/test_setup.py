"""What setup.py decides about the CUDA library: whether it is built, and for which GPUs."""

import runpy
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script(monkeypatch) -> dict:
    """The names of setup.py, nothing being set up."""
    for variable in ("D3DNET_BUILD_CUDA", "TORCH_CUDA_ARCH_LIST", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(setuptools, "setup", lambda **settings: None)
    return runpy.run_path(str(ROOT / "setup.py"))


def installed(folder: Path, cuda: str | None, monkeypatch) -> None:
    """A torch with that CUDA, or without, and a CUDA toolkit."""
    (folder / "torch").mkdir()
    (folder / "torch/version.py").write_text(f"__version__ = '2.13.0'\ncuda: str = {cuda!r}\n")
    (folder / "torch/__init__.py").touch()
    (folder / "bin").mkdir()
    (folder / "bin/nvcc").touch()
    monkeypatch.setenv("CUDA_HOME", str(folder))


@pytest.mark.parametrize(
    ("asked", "cuda", "wanted"),
    [("", "13.0", True), ("", None, False), ("1", None, True), ("0", "13.0", False)],
)
def test_the_cuda_library_is_built_where_torch_has_cuda_or_as_asked(
    script, tmp_path, monkeypatch, asked, cuda, wanted
):
    installed(tmp_path, cuda, monkeypatch)
    if asked:
        monkeypatch.setenv("D3DNET_BUILD_CUDA", asked)
    monkeypatch.setitem(
        script["wants_cuda"].__globals__, "torch_folder", lambda: tmp_path / "torch"
    )
    assert script["wants_cuda"]() is wanted


def test_the_compiler_is_that_of_cuda_home(script, tmp_path, monkeypatch):
    installed(tmp_path, "13.0", monkeypatch)
    assert script["nvcc"]() == str(tmp_path / "bin/nvcc")


def test_by_default_it_is_built_for_the_gpus_that_the_compiler_knows_and_as_ptx(script):
    flags = script["architecture_flags"](script["CUDA_ARCHITECTURES"], [75, 80, 86, 89, 90])
    assert flags == [
        *(f"-gencode=arch=compute_{n},code=sm_{n}" for n in (75, 80, 86, 89, 90)),
        "-gencode=arch=compute_90,code=compute_90",
    ]


def test_it_is_built_for_the_gpus_that_the_environment_names(script, monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0;9.0a 12.0+PTX")
    assert script["architecture_flags"]("8.0;9.0a 12.0+PTX", [75]) == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_120,code=sm_120",
        "-gencode=arch=compute_120,code=compute_120",
    ]


def test_a_name_that_is_no_gpu_is_refused(script):
    with pytest.raises(script["BuildError"], match="has 'Hopper'; accepted: versions such as"):
        script["architecture_flags"]("8.0 Hopper", [80])


def build(script: dict, folder: Path, monkeypatch) -> None:
    """Run build_ext where both libraries cannot be built."""

    def cannot(target: Path) -> None:
        raise script["BuildError"]("nvcc says no")

    builder = script["BuildLibraries"]
    monkeypatch.setattr(builder, "builders", dict.fromkeys(builder.builders, cannot))
    names = list(builder.builders)
    command = builder(setuptools.Distribution())
    command.extensions = [setuptools.Extension(name, []) for name in names]
    command.inplace, command.build_lib = False, str(folder)
    command.run()
    assert not command.extensions


def test_a_library_that_cannot_be_built_is_warned_of(script, tmp_path, monkeypatch, capsys):
    build(script, tmp_path, monkeypatch)
    warnings = capsys.readouterr().err
    assert "WARNING: d3dnet._C_cpu was not built" in warnings and "nvcc says no" in warnings
    assert "WARNING: d3dnet._C_cuda was not built" in warnings


def test_the_cuda_library_asked_for_by_name_is_an_error_if_it_cannot_be_built(
    script, tmp_path, monkeypatch
):
    monkeypatch.setenv("D3DNET_BUILD_CUDA", "1")
    with pytest.raises(SystemExit, match=r"_C_cuda was not built, which D3DNET_BUILD_CUDA asks"):
        build(script, tmp_path, monkeypatch)


def test_the_sources_of_the_kernels_go_into_the_package_for_the_compiler_at_run_time(
    script, tmp_path, monkeypatch
):
    build(script, tmp_path, monkeypatch)
    found = {file.name for file in (tmp_path / "d3dnet/cuda_ops/cuda").iterdir()}
    assert found == {file.name for file in (ROOT / "cuda_ops/cuda").glob("*.cuh")}
    assert "kernels.cuh" in found
