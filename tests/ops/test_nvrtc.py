"""What the run-time compiler has made is kept on disk; the compiler itself is stood in for."""

import pytest

from d3dnet.ops import nvrtc


class Compiler:
    """Has a version, and nothing else of NVRTC."""

    version = (13, 0)

    def nvrtcVersion(self, major, minor):  # noqa: N802
        major._obj[0], major._obj[1] = self.version


@pytest.fixture
def compiler(monkeypatch, tmp_path) -> Compiler:
    made = Compiler()
    monkeypatch.setattr(nvrtc, "_compiler", lambda: made)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return made


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """The programs that were compiled, in order."""
    programs = []

    def compile(program: str, options: list[str]) -> bytes:
        programs.append(program)
        return f"{program} {options[1]}".encode()

    monkeypatch.setattr(nvrtc, "_compile", compile)
    return programs


def test_a_program_is_compiled_once_for_a_gpu(compiler, compiled, tmp_path):
    first = nvrtc.compiled("a", "sm_90")
    assert first == nvrtc.compiled("a", "sm_90") == b"a --gpu-architecture=sm_90"
    assert compiled == ["a"]
    assert [file.read_bytes() for file in (tmp_path / "d3dnet").iterdir()] == [first]
    assert nvrtc.compiled("a", "sm_80") != first
    assert compiled == ["a", "a"]


def test_another_compiler_or_other_sources_compile_it_anew(
    compiler, compiled, tmp_path, monkeypatch
):
    nvrtc.compiled("a", "sm_90")
    compiler.version = (13, 1)
    nvrtc.compiled("a", "sm_90")
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/kernel.cuh").write_text("// changed")
    monkeypatch.setattr(nvrtc, "SOURCES", tmp_path / "sources")
    nvrtc.compiled("a", "sm_90")
    assert compiled == ["a", "a", "a"]


def test_without_a_home_it_only_costs_time(compiler, compiled, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(nvrtc.Path, "home", no_home)
    assert nvrtc.compiled("a", "sm_90") == nvrtc.compiled("a", "sm_90")
    assert compiled == ["a", "a"]


def test_the_home_of_another_user_only_costs_time(compiler, compiled, monkeypatch):
    def not_ours(path, *rest, **more):
        raise PermissionError(13, "Permission denied", str(path))

    for name in ("exists", "mkdir"):
        monkeypatch.setattr(nvrtc.Path, name, not_ours)
    assert nvrtc.compiled("a", "sm_90") == nvrtc.compiled("a", "sm_90")
    assert compiled == ["a", "a"]


@pytest.mark.parametrize("capability", [(6, 1), (7, 0), (9, 0)])
def test_a_gpu_is_new_enough_for_the_kernels_or_said_to_be_too_old(
    compiler, compiled, monkeypatch, capability
):
    monkeypatch.setattr(nvrtc, "_driver", lambda: None)
    monkeypatch.setattr(
        nvrtc.torch.cuda, "get_device_capability", {0: (9, 0), 1: capability}.__getitem__
    )
    if capability < nvrtc.OLDEST:
        with pytest.raises(RuntimeError, match=r"capability 7\.0 or later, this one has 6\.1"):
            nvrtc.load(1)
    else:
        nvrtc.load(1)
        assert compiled == ['extern "C" __global__ void nothing() {}\n']


def test_a_cache_that_cannot_be_written_only_costs_time(compiler, compiled, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert nvrtc.compiled("a", "sm_90") == nvrtc.compiled("a", "sm_90")
    assert compiled == ["a", "a"]
