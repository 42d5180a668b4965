"""The scripts that measure on a GPU, as far as they go without one: time on one is short."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from d3dnet.network.checkpoints import load_model
from d3dnet.network.model import D3Dnet

SCRIPTS = Path(__file__).parents[1] / "scripts"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


class Stub:
    """Stands in for the steps of a day: each takes its time and says what it is told to."""

    def __init__(self, day: ModuleType, monkeypatch, run: Path) -> None:
        self.day, self.commands, self.now, self.slow = day, [], 0.0, False
        self.fails: tuple[str, ...] = ()
        self.losses = {"1": 0.3, "2": 0.1, "4": 0.2}
        monkeypatch.setattr(day, "run", self.run)
        monkeypatch.setattr(day, "architecture", lambda: "9.0")
        monkeypatch.setattr(day, "RUN", run / "gpu-day")
        monkeypatch.setattr(day, "LIBRARY", run / "_C_cuda.so")
        monkeypatch.setattr(day.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(day.shutil, "which", lambda name: sys.executable)
        monkeypatch.setattr(day, "PART_BYTES", 1000)

    def run(self, command, seconds, log, environment):
        text = " ".join(command)
        kernels = environment.get("D3DNET_CUDA_KERNELS", "")
        self.commands.append((f"{kernels} {text}".strip(), seconds))
        self.now += seconds if self.slow else 1
        if any(part in f"{kernels} {text}" for part in self.fails):
            return 1, "it failed"
        if "d3dnet train" in text:
            settings = dict(pair.split("=") for pair in command[command.index("--set") + 1 :])
            folder = Path(settings["run"])
            folder.mkdir(parents=True, exist_ok=True)
            loss = self.losses.get(folder.name.rpartition("-")[2], 0.05)
            entry = {"step": 100, "loss": loss, "patches_per_second": 320.0}
            (folder / "log.jsonl").write_text(json.dumps(entry) + "\n")
            step = 100 + (self.day.step_of(folder / "last.pt"))
            torch.save({"step": step, "noise": torch.zeros(500)}, folder / "last.pt")
        return 0, "steps a second: 10.0" if " probe" in text else "| a |\n| --- |\n| 1 |"

    def asked(self, part: str) -> list[str]:
        return [command for command, _ in self.commands if part in command]

    def steps(self) -> int:
        last = self.asked("d3dnet train")[-1]
        return int(re.search(r" steps=(\d+)", last)[1])


@pytest.fixture
def stub(monkeypatch, tmp_path) -> Stub:
    return Stub(load("gpu_day"), monkeypatch, tmp_path / "runs")


def run_day(stub: Stub, monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu_day.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        stub.day.main()
    return int(done.value.code)


class TestCheck:
    def test_kernels_are_built_tried_tested_and_measured(self, stub, monkeypatch, tmp_path):
        assert run_day(stub, monkeypatch, "check", "--output", tmp_path / "a") == 0
        text = (tmp_path / "a" / "gpu-day.md").read_text()
        assert text.rstrip().splitlines()[-1].startswith("| tests, nvrtc | passed |")
        assert "## benchmark" in text and "| a |" in text
        passed = json.loads((tmp_path / "a" / "passed.json").read_text())
        assert passed == {"compiled": True, "nvrtc": True, "torchvision": True}
        assert len(stub.asked("benchmark_cuda.py --repeats 9 --kernels compiled")) == 1

    def test_what_fails_keeps_nothing_else_from_running(self, stub, monkeypatch, tmp_path):
        stub.fails = ("setup.py", "compiled ")
        assert run_day(stub, monkeypatch, "check", "--output", tmp_path / "a") == 1
        assert "it failed" in (tmp_path / "a" / "gpu-day.md").read_text()
        assert stub.asked("--kernels nvrtc") and not stub.asked("--kernels compiled")

    def test_it_ends_in_time_though_every_step_takes_all_that_it_may(
        self, stub, monkeypatch, tmp_path
    ):
        stub.slow = True
        run_day(stub, monkeypatch, "check", "--output", tmp_path / "a")
        assert stub.now <= 9.3 * 60
        assert stub.asked("benchmark_cuda.py")


class TestTrain:
    def begin(self, stub, monkeypatch, tmp_path, *more: str) -> int:
        state = tmp_path / "a"
        arguments = ("train", "--output", tmp_path / "b", "--state", state, "--clips", tmp_path)
        return run_day(stub, monkeypatch, *arguments, *more)

    def test_it_begins_with_the_learning_rate_of_least_loss_and_as_many_steps_as_there_is_time(
        self, stub, monkeypatch, tmp_path
    ):
        assert self.begin(stub, monkeypatch, tmp_path) == 0
        assert [c.split("--tool=")[1].split()[0] for c in stub.asked("--tool=")] == [
            "memcheck", "racecheck",
        ]  # fmt: skip
        training = stub.asked("d3dnet train")[-1]
        assert "learning_rate=0.001 muon_learning_rate=0.002" in training
        assert training.startswith("compiled ") and "initial=d3dnet" in training
        # 10 a second for what is left of 9.3 minutes, and for 8.5 minutes more.
        assert 0.97 * 10 * (450 + 510) < stub.steps() < 10 * (558 + 510)

    def test_the_next_piece_goes_on_and_ends_when_its_time_does(self, stub, monkeypatch, tmp_path):
        self.begin(stub, monkeypatch, tmp_path)
        assert len(list((tmp_path / "b").glob("state.part*"))) > 1
        assert all(part.stat().st_size <= 1000 for part in (tmp_path / "b").glob("state.part*"))
        assert len(list((tmp_path / "b").iterdir())) <= 8
        stub.commands.clear()
        shutil.rmtree(tmp_path / "runs")  # another machine
        code = run_day(
            stub, monkeypatch, "train", "--output", tmp_path / "c", "--state", tmp_path / "b",
            "--clips", tmp_path, "--last",
        )  # fmt: skip
        assert code == 0 and not stub.asked("--tool=") and not stub.asked("probe")
        assert 100 + 0.97 * 10 * 450 < stub.steps() < 100 + 10 * 558
        assert "learning_rate=0.001" in stub.asked("d3dnet train")[-1]
        assert len(stub.asked(" export ")) == 1
        assert "| steps | 200 of" in (tmp_path / "c" / "gpu-day.md").read_text()

    @pytest.mark.parametrize(
        ("fails", "kernels"),
        [
            (("compiled ",), "nvrtc"),
            (("compiled ", "nvrtc "), "torchvision"),
            (("compiled ", "nvrtc ", "torchvision "), "rigid"),
        ],
    )
    def test_it_takes_the_best_kernels_that_pass(self, stub, monkeypatch, tmp_path, fails, kernels):
        stub.fails = fails
        self.begin(stub, monkeypatch, tmp_path)
        training = stub.asked("d3dnet train")[-1]
        if kernels == "rigid":
            assert (
                "rigid_steps=1000000000" in training and "probe --rigid" in stub.asked("probe")[0]
            )
        else:
            assert training.startswith(f"{kernels} ") and "rigid_steps=0" in training

    def test_kernels_that_failed_their_tests_are_not_tried(self, stub, monkeypatch, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "passed.json").write_text('{"compiled": false, "nvrtc": true}')
        self.begin(stub, monkeypatch, tmp_path)
        assert not stub.asked("compiled ") and stub.asked("d3dnet train")[-1].startswith("nvrtc ")

    def test_it_ends_in_time_though_every_step_takes_all_that_it_may(
        self, stub, monkeypatch, tmp_path
    ):
        stub.slow = True
        self.begin(stub, monkeypatch, tmp_path)
        assert stub.now <= 9.3 * 60 and "--max-seconds" in stub.asked("d3dnet train")[-1]
        assert list((tmp_path / "b").glob("state.part*"))


@pytest.mark.parametrize("kernels", ["compiled", "nvrtc"])
def test_four_cases_are_sanitized(kernels):
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "tests/gpu"]
    selected = f"{kernels} and {load('gpu_day').SANITIZED}"
    done = subprocess.run(
        [*command, "-k", selected], capture_output=True, text=True, cwd=SCRIPTS.parent
    )
    names = re.findall(r"::test_values_and_gradients\S+\[(\w+)-(\w+)", done.stdout)
    assert sorted(names) == sorted([(kernels, "bfloat16"), (kernels, "tf32")] * 2)


class TestSteps:
    def test_output_is_logged_as_it_comes(self, tmp_path):
        log = tmp_path / "log.txt"
        program = f"import sys; print('hello', flush=True); print(open({str(log)!r}).read())"
        code, output = load("gpu_day").run([sys.executable, "-c", program], 30, log, {})
        assert code == 0 and output.count("hello") >= 2

    def test_a_step_beyond_its_limit_ends_with_all_that_it_started(self, tmp_path, monkeypatch):
        day = load("gpu_day")
        program = (
            "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True)"
        )
        program += "; time.sleep(60)"
        code, output = day.run([sys.executable, "-c", program], 5, tmp_path / "log.txt", {})
        assert code == 124
        with pytest.raises(ProcessLookupError):
            for _ in range(100):
                os.kill(int(output), 0)
                time.sleep(0.1)

    def test_the_kernels_are_tried_against_the_reference(self, steps, capsys):
        steps.try_kernels("cpu")
        assert "agrees with the reference" in capsys.readouterr().out

    def test_the_rate_is_that_of_training_steps(self, steps, monkeypatch, capsys):
        small = {"channels": 4, "resd3d_blocks": 1, "res_blocks": 1, "patch": 16, "batch": 1}
        monkeypatch.setattr(steps.gpu_day, "SETTINGS", small | {"device": "cpu"})
        steps.measure_steps(rigid=False)
        assert float(capsys.readouterr().out.split()[-1]) > 0

    @pytest.fixture
    def steps(self, monkeypatch):
        monkeypatch.syspath_prepend(str(SCRIPTS))
        return load("gpu_steps")

    def test_weights_are_exported_from_a_training_s_state(self, steps, tmp_path):
        model = D3Dnet(channels=4, resd3d_blocks=1, res_blocks=1)
        config = {"run": "/a/run", "root": "/b/clips", "validation_root": "", "initial": "d3dnet"}
        state = {"step": 7, "average": model.state_dict(), "config": config}
        torch.save(state, tmp_path / "last.pt")
        steps.export(tmp_path / "last.pt", tmp_path / "w.safetensors")
        loaded = load_model(str(tmp_path / "w.safetensors"), device="cpu")
        assert loaded.metadata["step"] == "7"
        assert json.loads(loaded.metadata["settings"])["root"] == "clips"

    def test_a_state_in_parts_is_joined_to_what_it_was(self, tmp_path, monkeypatch):
        day = load("gpu_day")
        monkeypatch.setattr(day, "PART_BYTES", 10)
        (tmp_path / "last.pt").write_bytes(bytes(range(25)))
        parts = day.split_state(tmp_path / "last.pt", tmp_path)
        assert [part.stat().st_size for part in parts] == [10, 10, 5]
        assert day.join_state(tmp_path, tmp_path / "run" / "last.pt")
        assert (tmp_path / "run" / "last.pt").read_bytes() == bytes(range(25))
        assert not day.join_state(tmp_path / "run", tmp_path / "none.pt")


def test_listed_clips_are_packed_and_the_lists_fit(tmp_path):
    day = load("gpu_day")
    (tmp_path / "all/clips").mkdir(parents=True)
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "all/clips" / name).write_text(name)
    (tmp_path / "list.txt").write_text("clips/b.mp4\n")
    day.pack(tmp_path / "all", tmp_path / "list.txt", tmp_path / "some")
    assert [f.name for f in (tmp_path / "some/clips").iterdir()] == ["b.mp4"]
    root = Path(os.environ.get("D3DNET_SHARED", SCRIPTS.parents[1] / "shared")) / "train"
    for name, most in (("large", 50), ("small", 16)):  # MiB of the 64 that travel
        names = (SCRIPTS.parent / "data" / f"gpu-clips-{name}.txt").read_text().split()
        assert names == sorted(set(names))
        if root.is_dir():
            assert sum((root / clip).stat().st_size for clip in names) < most << 20


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
