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


def test_a_cache_that_cannot_be_written_only_costs_time(compiler, compiled, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert nvrtc.compiled("a", "sm_90") == nvrtc.compiled("a", "sm_90")
    assert compiled == ["a", "a"]
