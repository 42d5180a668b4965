"""The half hour on a GPU, in pieces of under ten minutes: is it right, how fast is it, train on it.

    python scripts/gpu_day.py check --output A
    python scripts/gpu_day.py train --output B --state A --clips CLIPS
    python scripts/gpu_day.py train --output C --state B --clips CLIPS --last
    python scripts/gpu_day.py pack CLIPS --list data/gpu-clips-large.txt --to FOLDER

`check` builds the kernels for this GPU, tries them, runs tests/gpu and scripts/benchmark_cuda.py.
`train` runs small cases under compute-sanitizer, measures patches a second, tries learning rates,
and trains with the best kernels that passed (compiled, NVRTC's, torchvision's, or rigid, which
needs none); with the `--state` of a training it goes on with that. The number of steps follows
from the rate, so that the cosine ends when the time does: of this piece and `--more-minutes`, or
with `--last` of this one alone, which also exports the weights. `pack` copies listed clips.

Uses the interpreter it runs under, installs nothing, and needs no git. Every step has a limit; one
that fails keeps no other from running. OUTPUT gets gpu-day.md (rewritten after every step, a table
last), log.txt (as it comes), passed.json, and, in files of at most 15 MiB, the training's state.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "d3dnet" / "_C_cuda.so"
STEPS = ROOT / "scripts" / "gpu_steps.py"
RUN = ROOT / "runs" / "gpu-day"
PART_BYTES = 15 << 20
PATIENCE = 10  # seconds that a step has to save what it made
KERNELS = ("compiled", "nvrtc", "torchvision")  # best first; then rigid
BATCH = 32
SETTINGS = {
    "batch": BATCH, "frames": 7, "patch": 48, "precision": "bfloat16", "workers": 8,
    "rigid_steps": 0, "log_every": 10, "validate_every": 200, "save_every": 200,
}  # fmt: skip
FACTORS = (1.0, 2.0, 4.0)  # of the learning rates that are for batch 1
SANITIZED = (  # with a kernel's name: four small cases, of a layer of D3Dnet and of none
    "test_values_and_gradients and (bfloat16 or tf32) and ((LeakyReLU and channels) or large)"
)


@dataclass
class Day:
    """A piece of the day: what is left of it, and what has happened."""

    output: Path
    ends: float  # as time.monotonic() has it
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)
    passed: dict[str, Any] = field(default_factory=dict)

    def left(self) -> float:
        return self.ends - time.monotonic()

    def run(self, name: str, command: list[str], seconds: float, **environment: str) -> str | None:
        """Run a step for at most so many seconds; its output, or None where it failed."""
        seconds = min(seconds, self.left())
        if seconds < 1:
            self.note(name, "no time left", "")
            return None
        started = time.monotonic()
        code, output = run(command, seconds, self.output / "log.txt", environment)
        taken = f"{time.monotonic() - started:.0f} s"
        self.note(name, {0: "passed", 124: f"stopped after {taken}"}.get(code, "failed"), taken)
        text = output.strip() if "\n|" in output else f"```\n{last_lines(output, 30)}\n```"
        self.sections.append(f"## {name}\n\nexit code {code}, {taken}\n\n{text}")
        self.write()
        return output if code == 0 else None

    def note(self, name: str, result: str, taken: str) -> None:
        self.rows.append((name, result, taken))
        print(f"{name}: {result} {taken}", flush=True)
        self.write()

    def table(self) -> str:
        lines = [f"| {' | '.join(row)} |" for row in (("step", "result", "time"), *self.rows)]
        return "\n".join([lines[0], "| --- | --- | --- |", *lines[1:]])

    def write(self) -> None:
        text = "\n\n".join(["# A day on a GPU", *self.sections, self.table()]) + "\n"
        (self.output / "gpu-day.md").write_text(text)
        (self.output / "passed.json").write_text(json.dumps(self.passed, indent=2))


def run(
    command: list[str], seconds: float, log: Path, environment: dict[str, str]
) -> tuple[int, str]:
    """Exit code (124: stopped) and output, which goes to the log as it comes."""
    with open(log, "ab") as file:
        file.write(f"\n$ {' '.join(command)}\n".encode())
        file.flush()
        begin = file.tell()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = 124
            stop(process)
    return code, log.read_bytes()[begin:].decode(errors="replace")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a step and what it has started: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)


def last_lines(text: str, count: int) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


def own(part: str, *arguments: str) -> list[str]:
    return [sys.executable, str(STEPS), part, *arguments]


def pytest(*arguments: str) -> list[str]:
    """Tests on the GPU, in worker processes where pytest-xdist is there."""
    workers = ["-n", "4"] if importlib.util.find_spec("xdist") else []
    fixed = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu"]
    return [*fixed, *workers, *arguments]


def check(day: Day) -> None:
    """Build, try, test and measure."""
    day.run("machine", own("machine"), 40)
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    day.run("build", build, 170, D3DNET_BUILD_CUDA="1", TORCH_CUDA_ARCH_LIST=architecture())
    if LIBRARY.exists() and LIBRARY.stat().st_size < PART_BYTES:
        shutil.copyfile(LIBRARY, day.output / LIBRARY.name)
    tried = [name for name in KERNELS if smoke(day, name)]
    for name in [name for name in tried if name != "torchvision"][:1]:
        test(day, name)
        script = str(ROOT / "scripts" / "benchmark_cuda.py")
        day.run("benchmark", [sys.executable, script, "--repeats", "9", "--kernels", name], 120)
    if "nvrtc" in tried and "nvrtc" not in day.passed:
        test(day, "nvrtc")
    if "torchvision" in tried:
        day.passed["torchvision"] = True
    day.write()


def architecture() -> str:
    done = subprocess.run(own("architecture"), capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() or "9.0"


def smoke(day: Day, name: str) -> bool:
    return day.run(f"smoke, {name}", own("smoke"), 45, D3DNET_CUDA_KERNELS=name) is not None


def test(day: Day, name: str) -> None:
    passed = day.run(f"tests, {name}", pytest(), 130, D3DNET_CUDA_KERNELS=name) is not None
    day.passed[name] = passed


def train(day: Day, options: argparse.Namespace) -> None:
    """Sanitizer, rate and learning rates where a training begins; training; export."""
    state = options.state
    if (state / "passed.json").exists():
        day.passed = json.loads((state / "passed.json").read_text())
    if (state / LIBRARY.name).exists() and not LIBRARY.exists():
        shutil.copyfile(state / LIBRARY.name, LIBRARY)
    if LIBRARY.exists() and LIBRARY.stat().st_size < PART_BYTES:
        shutil.copyfile(LIBRARY, day.output / LIBRARY.name)
    kernels = choose_kernels(day)
    environment = {} if kernels == "rigid" else {"D3DNET_CUDA_KERNELS": kernels}
    plan = day.passed.setdefault("training", {})
    begins = not join_state(state, RUN / "last.pt")
    if begins:
        for folder in RUN.parent.glob("gpu-day*"):
            shutil.rmtree(folder)  # of another day
        if kernels in ("compiled", "nvrtc"):
            for tool in ("memcheck", "racecheck"):
                sanitize(day, tool, kernels)
        rate = probe(day, environment, kernels == "rigid")
        plan.update(kernels=kernels, steps_a_second=rate)
        plan["factor"] = best_factor(day, options, environment, kernels == "rigid")
        plan["initial"] = options.initial
    done = step_of(RUN / "last.pt")
    rest = max(day.left() - 40, 10.0)  # to start, save, split and export
    coming = 0.0 if options.last else 60 * options.more_minutes
    steps = done + max(1, int(0.97 * plan["steps_a_second"] * (rest + coming)))
    settings = {**training_settings(options, plan["factor"], kernels == "rigid"), "steps": steps}
    settings |= {"run": str(RUN), "initial": plan["initial"]}
    day.run("training", train_command(settings, rest - 15), rest, **environment)
    made = step_of(RUN / "last.pt")
    day.note("steps", f"{made} of {steps}", "")
    if made > done:
        plan["steps_a_second"] = measured_rate(RUN / "log.jsonl") or plan["steps_a_second"]
    split_state(RUN / "last.pt", day.output)
    if (RUN / "log.jsonl").exists():
        shutil.copyfile(RUN / "log.jsonl", day.output / "log.jsonl")
    if options.last:
        weights = str(day.output / "weights.safetensors")
        day.run("export", own("export", str(RUN / "last.pt"), weights), 30)
    day.write()


def choose_kernels(day: Day) -> str:
    """The best that passed their tests; without tests, that pass a try."""
    for name in KERNELS:
        if day.passed.get(name, name not in day.passed) and smoke(day, name):
            return name
    return "rigid"


def sanitize(day: Day, tool: str, kernels: str) -> None:
    """Four small cases under a tool of compute-sanitizer."""
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(program).exists():
        day.note(tool, "compute-sanitizer was not found", "")
        return
    command = [program, f"--tool={tool}", "--error-exitcode=77", "--kernel-regex", "kns=d3dnet"]
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tests += ["tests/gpu/test_operator_on_cuda.py", "-k", f"{kernels} and {SANITIZED}"]
    day.run(tool, [*command, *tests], 50, D3DNET_CUDA_KERNELS=kernels,
            PYTORCH_NO_CUDA_MEMORY_CACHING="1")  # fmt: skip


def probe(day: Day, environment: dict[str, str], rigid: bool) -> float:
    """Training steps a second."""
    output = day.run("probe", own("probe", *(["--rigid"] if rigid else [])), 60, **environment)
    for line in reversed((output or "").splitlines()):
        if line.startswith("steps a second: "):
            return float(line.split()[-1])
    return 1.0


def best_factor(
    day: Day, options: argparse.Namespace, environment: dict[str, str], rigid: bool
) -> float:
    """Of the learning rates' factors, the one after which the loss is least."""
    losses: dict[float, float] = {}
    for factor in FACTORS:
        run_folder = RUN.parent / f"gpu-day-{factor:g}"
        settings = training_settings(options, factor, rigid) | {
            "run": str(run_folder), "initial": options.initial, "validation_clips": 0,
            "steps": 100000, "warmup_steps": 10,
        }  # fmt: skip
        # The first one also decodes the clips, for all.
        limit = options.sweep_seconds + (60 if not losses else 0)
        day.run(f"learning rates × {factor:g}", train_command(settings, options.sweep_seconds),
                limit + 30, **environment)  # fmt: skip
        loss = last_loss(run_folder / "log.jsonl")
        if loss is not None:
            losses[factor] = loss
    day.note("losses", ", ".join(f"× {f:g}: {v:.4g}" for f, v in losses.items()), "")
    return min(losses, key=losses.__getitem__) if losses else 1.0


def training_settings(options: argparse.Namespace, factor: float, rigid: bool) -> dict[str, Any]:
    settings = {**SETTINGS, "root": str(options.clips.resolve())}
    settings |= {"learning_rate": 5e-4 * factor, "muon_learning_rate": 1e-3 * factor}
    if rigid:
        settings["rigid_steps"] = 10**9
    for setting in options.settings:
        name, _, value = setting.partition("=")
        settings[name] = value
    return settings


def train_command(settings: dict[str, Any], seconds: float) -> list[str]:
    pairs = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "d3dnet", "train", "clips", "--max-seconds", f"{seconds:.0f}"]
    return [*command, "--set", *pairs]


def entries(log: Path) -> list[dict[str, Any]]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [json.loads(line) for line in lines]


def last_loss(log: Path) -> float | None:
    """Mean loss of the last quarter of a training's entries."""
    losses = [entry["loss"] for entry in entries(log) if "loss" in entry]
    end = losses[-max(1, len(losses) // 4) :]
    return sum(end) / len(end) if end else None


def measured_rate(log: Path) -> float | None:
    rates = sorted(e["patches_per_second"] for e in entries(log) if "patches_per_second" in e)
    return rates[len(rates) // 2] / BATCH if rates else None


def step_of(state: Path) -> int:
    if not state.exists():
        return 0
    import torch

    return int(torch.load(state, map_location="cpu", weights_only=True)["step"])


def split_state(state: Path, folder: Path) -> list[Path]:
    """Write a state in parts that may be fetched."""
    parts = []
    data = state.read_bytes() if state.exists() else b""
    for n, begin in enumerate(range(0, len(data), PART_BYTES)):
        parts.append(folder / f"state.part{n}")
        parts[-1].write_bytes(data[begin : begin + PART_BYTES])
    return parts


def join_state(folder: Path, state: Path) -> bool:
    """Put the parts together again; whether there are any."""
    parts = list(_parts(folder))
    if parts:
        state.parent.mkdir(parents=True, exist_ok=True)
        state.write_bytes(b"".join(part.read_bytes() for part in parts))
        if (folder / "log.jsonl").exists():
            shutil.copyfile(folder / "log.jsonl", state.with_name("log.jsonl"))
    return bool(parts)


def _parts(folder: Path) -> Iterator[Path]:
    n = 0
    while (folder / f"state.part{n}").exists():
        yield folder / f"state.part{n}"
        n += 1


def pack(root: Path, names: Path, to: Path) -> None:
    """Copy the listed clips."""
    for line in names.read_text().split():
        (to / line).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / line, to / line)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parts = parser.add_subparsers(dest="part", required=True)
    for name in ("check", "train"):
        part = parts.add_parser(name)
        part.add_argument("--output", type=Path, required=True, metavar="FOLDER")
        part.add_argument("--minutes", type=float, default=9.3, help="of this piece (9.3)")
    part.add_argument("--clips", type=Path, required=True, metavar="FOLDER")
    part.add_argument("--state", type=Path, default=Path("nowhere"), metavar="FOLDER")
    part.add_argument("--last", action="store_true", help="end the schedule here, and export")
    part.add_argument("--more-minutes", type=float, default=8.5, help="of later pieces (8.5)")
    part.add_argument("--initial", default="d3dnet", help="weights to begin with (d3dnet)")
    part.add_argument("--sweep-seconds", type=float, default=20, help="of each rate (20)")
    part.add_argument("--set", dest="settings", nargs="+", default=[], metavar="KEY=VALUE")
    part = parts.add_parser("pack")
    part.add_argument("clips", type=Path)
    part.add_argument("--list", type=Path, required=True)
    part.add_argument("--to", type=Path, required=True)
    options = parser.parse_args()
    if options.part in ("check", "train"):
        options.output.mkdir(parents=True, exist_ok=True)
        day = Day(options.output.resolve(), time.monotonic() + 60 * options.minutes)
        try:
            check(day) if options.part == "check" else train(day, options)
        finally:
            day.write()
            print(day.table())
        sys.exit(any(result == "failed" for _, result, _ in day.rows))
    else:
        pack(options.clips, options.list, options.to)


if __name__ == "__main__":
    main()
