"""Build the CUDA kernels, test and measure them on this machine's GPU; write docs/gpu-results.md.

Uses the interpreter it runs under and installs nothing: `make gpu-check PYTHON=python3`. In turn:
builds for this GPU in place, runs tests/gpu, runs scripts/benchmark_cuda.py, runs a few cases under
compute-sanitizer (memcheck and racecheck, where it works). A step runs whatever became of those
before, and the results are written after each; the exit code is 1 if the build, a test or the
benchmark failed. --steps picks some where time is short, --output writes them to another file.
"""

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "gpu-results.md"
STEP_SECONDS = 540
SANITIZED = [
    "tests/gpu/test_operator_on_cuda.py",
    "-k",
    "test_values_and_gradients and compiled and (bfloat16 or tf32) and "
    "(defaults or mask or LeakyReLU or across or 17 or 48)",
]


def run(command: list[str], **environment: str) -> tuple[int, str]:
    """Exit code and output of a step, which is shown as well."""
    print("$", *command, flush=True)
    started = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=STEP_SECONDS,
        )
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        code, output = 124, f"{output}\nstopped after {STEP_SECONDS} s"
    print(output[-6000:], f"exit code {code}, {time.monotonic() - started:.0f} s", flush=True)
    return code, output


def build() -> tuple[int, str]:
    """Build the kernels for this GPU into the package's folder."""
    major, minor = torch.cuda.get_device_capability()
    return run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        D3DNET_BUILD_CUDA="1",
        TORCH_CUDA_ARCH_LIST=f"{major}.{minor}",
    )


def sanitize(tool: str) -> tuple[int, str]:
    """Run small cases under one tool of compute-sanitizer."""
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(program).exists():
        return 0, "compute-sanitizer was not found"
    command = [program, f"--tool={tool}", "--error-exitcode=77", "--kernel-regex", "kns=d3dnet"]
    python = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *SANITIZED]
    return run([*command, *python], PYTORCH_NO_CUDA_MEMORY_CACHING="1")


def test() -> tuple[int, str]:
    """Run tests/gpu."""
    return run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu"])


def measure() -> tuple[int, str]:
    """Run the benchmark."""
    return run([sys.executable, "scripts/benchmark_cuda.py"])


STEPS = {
    "build": ("Build", build),
    "test": ("Tests", test),
    "benchmark": ("Speed and memory", measure),
    "memcheck": ("compute-sanitizer, memcheck", lambda: sanitize("memcheck")),
    "racecheck": ("compute-sanitizer, racecheck", lambda: sanitize("racecheck")),
}
REQUIRED = ("build", "test", "benchmark")


def last_lines(text: str, count: int) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


def main() -> None:
    """Run the steps and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FILE.md")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("gpu_check.py: needs a CUDA GPU and a torch with CUDA")
    device = torch.cuda.get_device_properties(0)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    sections = [
        "# Results on a GPU\n\nWritten by `make gpu-check`; see docs/cuda.md.",
        f"- date: {datetime.date.today()}, commit: {commit or 'unknown'}\n"
        f"- device: {device.name}, compute capability {device.major}.{device.minor}, "
        f"{device.multi_processor_count} multiprocessors, {device.total_memory / 2**30:.0f} GiB\n"
        f"- Python {sys.version.split()[0]}, torch {torch.__version__}, CUDA {torch.version.cuda}, "
        f"cuDNN {torch.backends.cudnn.version()}",
    ]
    failed = False
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name, (title, step) in STEPS.items():
        if name not in options.steps:
            continue
        code, output = step()
        failed |= code != 0 and name in REQUIRED
        # Tables stay tables.
        text = output.strip() if "\n|" in output else f"```\n{last_lines(output, 40)}\n```"
        sections.append(f"## {title}\n\nexit code {code}\n\n{text}")
        # Now, for the machine may be gone before the next step has ended.
        options.output.write_text("\n\n".join(sections) + "\n")
    print(f"wrote {options.output}")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
