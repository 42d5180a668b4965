"""Measure the deformable 3-D convolution against F.conv3d and against the PyTorch reference.

Prints a markdown table: medians of interleaved runs, forward and forward + backward, in float32 and
bfloat16, at (1, 64, 7, H, W), 64 -> 64 channels, 3x3x3, padding 1, dims "HW", offsets drawn from a
normal distribution of one pixel. `ratio` is conv3d's time over ours (1: as fast as a plain
convolution). The reference is timed once. The last two columns are the peak memory above what was
held before, results included, each measured in a process of its own.

    python scripts/benchmark_op.py --repeats 11

With --device cuda it is scripts/benchmark_cuda.py: other shapes, and other methods beside ours.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import benchmark_cuda
import torch
import torch.nn.functional as F

from d3dnet.ops import deform_conv3d, instruction_set, reference

SIZES = ((64, 64), (90, 160))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TASKS = ("forward", "forward+backward")


def make_tensors(dtype: torch.dtype, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Features and weights in `dtype`, channels last; offsets in float32."""
    torch.manual_seed(0)
    last = {"memory_format": torch.channels_last_3d}
    return {
        "input": torch.randn(1, 64, 7, *size).to(dtype).contiguous(**last),
        "weight": torch.randn(64, 64, 3, 3, 3).div(40).to(dtype).contiguous(**last),
        "offset": torch.randn(1, 54, 7, *size),
        "grad": torch.randn(1, 64, 7, *size).to(dtype).contiguous(**last),
    }


def make_step(name: str, task: str, tensors: dict[str, torch.Tensor]) -> Callable[[], object]:
    """One run of `name` ("ours", "conv3d" or "reference") doing `task`."""
    backward = task == "forward+backward"
    leaves = {k: t.detach().clone().requires_grad_(backward) for k, t in tensors.items()}
    x, weight, offset, grad = (leaves[k] for k in ("input", "weight", "offset", "grad"))
    geometry = ((1, 1, 1), (1, 1, 1), (1, 1, 1), "HW")

    def step() -> object:
        if name == "reference":
            y = reference.forward(x, offset, weight, None, None, *geometry, 1.0)
            needs = (True, True, True, False, False)
            if backward:
                reference.backward(grad, x, offset, weight, None, *geometry, *needs)
            return y
        for tensor in (x, weight, offset):
            tensor.grad = None
        if name == "ours":
            y = deform_conv3d(x, offset, weight, padding=1, dims="HW")
        else:
            y = F.conv3d(x, weight, padding=1)
        if backward:
            y.backward(grad.detach())
        return y

    return step


def medians(steps: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median time of each step in milliseconds, the steps taking turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def held_memory(kind: str) -> float:
    """Memory of this process in MiB: "VmRSS", what it holds now, or "VmHWM", the most so far."""
    with open("/proc/self/status") as status:
        return int(status.read().split(f"{kind}:")[1].split()[0]) / 1024


def forget_peak() -> None:
    """Make what is held now the peak (Linux)."""
    with open("/proc/self/clear_refs", "w") as references:
        references.write("5")


def extra_memory(name: str, task: str, dtype: str, size: tuple[int, int]) -> float:
    """Peak memory of one step above what was held before it, in MiB, in a fresh process."""
    arguments = ["--memory-of", name, task, dtype, str(size[0]), str(size[1])]
    # Freed memory goes back to the system at once: none that was held before is used again.
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return float(done.stdout)


def print_extra_memory(name: str, task: str, dtype: str, height: str, width: str) -> None:
    """The measuring process: a small step first, so that what is loaded once is not counted."""
    make_step(name, task, make_tensors(DTYPES[dtype], (8, 8)))()
    step = make_step(name, task, make_tensors(DTYPES[dtype], (int(height), int(width))))
    forget_peak()
    before = held_memory("VmRSS")
    step()
    print(held_memory("VmHWM") - before)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=11, help="timed runs of each (default 11)")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--memory-of", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        benchmark_cuda.print_tables(arguments.repeats)
        return
    if arguments.memory_of:
        print_extra_memory(*arguments.memory_of)
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {instruction_set()}\n")
    columns = ["dtype", "frames", "task", "ours ms", "conv3d ms", "ratio", "reference ms"]
    columns += ["ours MiB", "conv3d MiB"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for dtype in arguments.dtypes:
        for size in SIZES:
            for task in TASKS:
                tensors = make_tensors(DTYPES[dtype], size)
                steps = {name: make_step(name, task, tensors) for name in ("ours", "conv3d")}
                times = medians(steps, arguments.repeats)
                twin = {"reference": make_step("reference", task, tensors)}
                times |= medians(twin, 1)
                memory = [extra_memory(name, task, dtype, size) for name in steps]
                print(
                    f"| {dtype} | {size[0]}x{size[1]} | {task} | {times['ours']:.0f} | "
                    f"{times['conv3d']:.0f} | {times['conv3d'] / times['ours']:.2f} | "
                    f"{times['reference']:.0f} | {memory[0]:.0f} | {memory[1]:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
