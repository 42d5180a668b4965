"""The scripts that measure on a GPU, as far as they go without one: time on one is short."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

SCRIPTS = Path(__file__).parents[1] / "scripts"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestGpuCheck:
    @pytest.fixture
    def check(self, monkeypatch, tmp_path):
        """Runs the script with steps of the test's own; its exit code, and what it wrote."""
        script, file = load("gpu_check"), tmp_path / "results" / "gpu.md"
        gpu = SimpleNamespace(
            name="H100", major=9, minor=0, multi_processor_count=132, total_memory=80 * 2**30
        )
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)

        def run(steps: dict, *arguments: str) -> tuple[int, str]:
            monkeypatch.setattr(script, "STEPS", {n: (n.title(), f) for n, f in steps.items()})
            monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--output", str(file), *arguments])
            with pytest.raises(SystemExit) as done:
                script.main()
            return done.value.code, file.read_text()

        run.file = file
        return run

    def test_results_are_written_after_every_step_and_tables_stay_tables(self, check):
        def benchmark():
            assert "## Test\n\nexit code 0\n\n```\n5 passed\n```" in check.file.read_text()
            return 0, "H100\n\n| a |\n| --- |\n| 1 |"

        code, text = check({"test": lambda: (0, "5 passed"), "benchmark": benchmark})
        assert code == 0
        assert text.endswith("## Benchmark\n\nexit code 0\n\nH100\n\n| a |\n| --- |\n| 1 |\n")
        assert "device: H100, compute capability 9.0, 132 multiprocessors, 80 GiB" in text

    def test_a_step_that_fails_does_not_keep_the_next_one_from_running(self, check):
        steps = {"test": lambda: (1, "2 failed"), "memcheck": lambda: (0, "0 errors")}
        code, text = check(steps)
        assert code == 1 and "2 failed" in text and "0 errors" in text

    def test_steps_are_picked_by_name(self, check):
        steps = {"test": lambda: (1, "2 failed"), "memcheck": lambda: (7, "3 errors")}
        code, text = check(steps, "--steps", "memcheck")
        assert code == 0 and "failed" not in text and "exit code 7" in text


@pytest.mark.parametrize("task", ["forward", "forward+backward"])
def test_the_methods_that_ours_is_measured_against_compute_the_same(task):
    script = load("benchmark_cuda")
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors = {
        "input": normal(2, 3, 3, 5, 4).contiguous(memory_format=script.LAST),
        "offset": normal(2, 54, 3, 5, 4),
        "weight": normal(6, 3, 3, 3, 3),
        "grad": normal(2, 6, 3, 5, 4),
    }
    ours, columns = (script.make_step(name, task, tensors)() for name in ("ours", "columns"))
    for found, wanted in zip(columns, ours, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    tensors["offset"].zero_()
    plain, ours = (script.make_step(name, task, tensors)() for name in ("conv3d", "ours"))
    pairs = ((0, 0), (1, 2)) if task == "forward+backward" else ((0, 0), (1, 1))
    for n, same in pairs:
        torch.testing.assert_close(ours[same], plain[n], rtol=1e-9, atol=1e-9)
