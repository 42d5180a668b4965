"""Measure deform_conv3d on a GPU, and the whole network.

Prints markdown tables: medians over interleaved runs, timed with CUDA events, of
- ours;
- the column-matrix method in torch operators: gather all columns, then one matrix product;
- cuDNN's plain conv3d, channels last: the limit of what a convolution reaches;
- torchvision's deform_conv2d, once per temporal tap (in float32), where it is installed;
- the same forward in a few lines of Triton (scripts/triton_yardstick.py, in bfloat16), likewise;
- the floor: what the arithmetic and the fewest bytes (each tensor once) would take at the matrix
  rate and bandwidth that this GPU was measured to have.
64 -> 64 channels, 3x3x3, padding 1, dims "HW", offsets drawn from a normal distribution of one
pixel. Memory is the peak above what was held before. A method that runs out of memory has none.

    python scripts/benchmark_cuda.py --repeats 21

--kernels takes ours from there (compiled, nvrtc) or fails. Ours is compared with all others first;
a difference beyond rounding is an error.
"""

import argparse
import contextlib
import os
import statistics
from collections.abc import Callable
from importlib.util import find_spec
from math import nan
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from d3dnet.network.model import D3Dnet
from d3dnet.ops import by_torchvision, cuda, deform_conv3d

SHAPES = ((1, 64, 7, 180, 320), (8, 64, 7, 64, 64))
MODES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
TASKS = ("forward", "forward+backward")
LAST = torch.channels_last_3d
ONE = (1, 1, 1)
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 3e-2}  # relative norm; tf32 is float32 too
Step = Callable[[], object]


def columns_method(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """Deformable convolution by its column matrix, in torch operators, differentiable."""
    batch, channels, frames, height, width = x.shape
    device = x.device
    tap = torch.arange(27, device=device).view(27, 1, 1, 1)
    # (B, K, T, H, W) positions of the samples
    shift = offset.view(batch, 27, 2, frames, height, width)
    t = torch.arange(frames, device=device).view(-1, 1, 1) + tap // 9 - 1
    y = torch.arange(height, device=device).view(-1, 1) + tap // 3 % 3 - 1 + shift[:, :, 0]
    z = torch.arange(width, device=device) + tap % 3 - 1 + shift[:, :, 1]
    rows = x.permute(0, 2, 3, 4, 1).reshape(-1, channels)
    clip = torch.arange(batch, device=device).view(-1, 1, 1, 1, 1)
    low_y, low_z = y.detach().floor(), z.detach().floor()
    columns = x.new_zeros(())
    for up_y in (0, 1):
        for up_z in (0, 1):
            row, column = low_y.long() + up_y, low_z.long() + up_z
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            inside = inside & (t >= 0) & (t < frames)
            index = ((clip * frames + t) * height + row) * width + column
            side = (y - low_y if up_y else 1 - y + low_y) * (z - low_z if up_z else 1 - z + low_z)
            factor = torch.where(inside, side, 0).to(x.dtype)
            values = rows.index_select(0, torch.where(inside, index, 0).flatten())
            columns = columns + factor.flatten().unsqueeze(1) * values
    columns = columns.view(batch, 27, -1, channels).permute(0, 2, 1, 3).flatten(0, 1).flatten(1)
    matrix = weight.permute(2, 3, 4, 1, 0).reshape(27 * channels, -1)
    output = (columns @ matrix).view(batch, frames, height, width, -1)
    return output.permute(0, 4, 1, 2, 3)


def make_step(method: str, task: str, tensors: dict[str, Tensor]) -> Step:
    """One run of a method doing a task."""
    backward = task == "forward+backward"
    x, offset, weight = (
        tensors[name].detach().requires_grad_(backward) for name in ("input", "offset", "weight")
    )
    leaves = (x, weight) if method == "conv3d" else (x, offset, weight)

    def step() -> object:
        if method == "ours":
            y = deform_conv3d(x, offset, weight, padding=1, dims="HW")
        elif method == "torchvision":
            wide, matrix = x.float(), weight.float()
            y = by_torchvision.convolve(wide, offset, matrix, None, None, ONE, ONE, ONE)
            y = y.to(x.dtype)
        elif method == "triton":
            from triton_yardstick import forward  # beside this script

            y = forward(x, offset, weight)
        elif method == "columns":
            y = columns_method(x, offset, weight)
        else:
            y = F.conv3d(x, weight, padding=1)
        return torch.autograd.grad(y, leaves, tensors["grad"]) if backward else y

    return step


def other_methods(mode: str, task: str) -> list[str]:
    """What ours is compared with, of what is installed here."""
    methods = ["columns", "conv3d"]
    with contextlib.suppress(OSError):
        by_torchvision.load(0)
        methods.append("torchvision")
    if find_spec("triton") and mode == "bfloat16" and task == "forward":
        methods.append("triton")
    return methods


def check_same(ours: object, other: object, name: str) -> None:
    """Raise `ValueError` where another method's results are not ours."""
    pairs = zip(*((r if isinstance(r, tuple) else (r,)) for r in (ours, other)), strict=True)
    for n, (found, wanted) in enumerate(pairs):
        error = ((found.float() - wanted.float()).norm() / wanted.float().norm()).item()
        if not error <= TOLERANCE[wanted.dtype]:
            raise ValueError(f"result {n}: ours and {name} differ by {error:.2g}")


def milliseconds(step: Step) -> float:
    """Time of one run on the GPU."""
    event: Any = torch.cuda.Event  # has no types
    start, end = (event(enable_timing=True) for _ in range(2))
    start.record()
    step()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def medians(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Median time of each step in milliseconds, the steps taking turns; NaN: out of memory."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    failed = set()
    for n in range(repeats + 3):
        for name, step in steps.items():
            if name in failed:
                continue
            try:
                times[name].append(milliseconds(step))
            except torch.OutOfMemoryError:
                failed.add(name)
        if n == 2:
            times = {name: [] for name in steps}  # those were to warm up
    return {
        name: float("nan") if name in failed else statistics.median(values)
        for name, values in times.items()
    }


def extra_memory(step: Step) -> float:
    """Peak memory of a step above what was held before it, in MiB; NaN: out of memory."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    try:
        step()
    except torch.OutOfMemoryError:
        return float("nan")
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def use_tf32(allowed: bool) -> None:
    """Whether products of float32, in convolutions and in matrices, may be tf32."""
    settings: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    for setting in settings:
        setting.allow_tf32 = allowed


def ceilings(dtype: torch.dtype) -> tuple[float, float]:
    """Measured bandwidth in bytes/s, read and written, and matrix rate in operations/s."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    copy = min(milliseconds(lambda: target.copy_(source)) for _ in range(9))
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
    product = min(milliseconds(lambda: a @ b) for _ in range(9))
    return 2 * source.numel() / copy * 1e3, 2 * 8192**3 / product * 1e3


def operator_rows(shape: tuple[int, ...], mode: str, repeats: int) -> None:
    """Print the rows of one shape and mode."""
    dtype = MODES[mode]
    use_tf32(mode == "tf32")
    bandwidth, rate = ceilings(dtype)
    torch.manual_seed(0)
    batch, _, *size = shape
    tensors = {
        "input": torch.randn(shape, device="cuda").to(dtype).contiguous(memory_format=LAST),
        "offset": torch.randn(batch, 54, *size, device="cuda"),
        "weight": torch.randn(64, 64, 3, 3, 3, device="cuda").div(40).to(dtype),
        "grad": torch.randn(shape, device="cuda").to(dtype).contiguous(memory_format=LAST),
    }
    operations = 2 * tensors["input"].numel() * 27 * 64
    features, offsets = (tensors[n].nbytes for n in ("input", "offset"))
    for task in TASKS:
        others = other_methods(mode, task)
        steps = {name: make_step(name, task, tensors) for name in ("ours", *others)}
        for name in others:
            if name != "conv3d":
                try:
                    check_same(steps["ours"](), steps[name](), name)
                except torch.OutOfMemoryError:
                    print(f"{name}: not enough memory for {tuple(shape)}, {mode}, {task}")
        times = medians(steps, repeats)
        memory = {name: extra_memory(step) for name, step in steps.items()}
        rounds = 3 if task == "forward+backward" else 1
        moved = (2 * features + offsets) if rounds == 1 else (5 * features + 3 * offsets)
        floor = max(rounds * operations / rate, moved / bandwidth) * 1e3
        print(
            f"| {tuple(shape)} | {mode} | {task} | {times['ours']:.3f} | {times['columns']:.3f} | "
            f"{times['conv3d']:.3f} | {times.get('torchvision', nan):.3f} | "
            f"{times.get('triton', nan):.3f} | {floor:.3f} | "
            f"{times['conv3d'] / times['ours']:.2f} | "
            f"{times['columns'] / times['ours']:.1f} | "
            f"{times.get('torchvision', nan) / times['ours']:.1f} | {memory['ours']:.0f} | "
            f"{memory['columns']:.0f} | {memory['ours'] / memory['columns']:.1%} |",
            flush=True,
        )


def network_rows(repeats: int) -> None:
    """Print milliseconds per frame of the whole network, 320x180 -> 1280x720."""
    for mode, dtype in MODES.items():
        use_tf32(mode == "tf32")
        model = D3Dnet().eval().to("cuda", dtype)
        window = torch.rand(1, 1, 7, 180, 320, device="cuda", dtype=dtype)
        clip = torch.rand(1, 1, 28, 180, 320, device="cuda", dtype=dtype)
        steps = {"window": lambda: model(window), "sequence": lambda: model.forward_sequence(clip)}  # noqa: B023
        with torch.no_grad():
            times = medians(steps, repeats)
            memory = {name: extra_memory(step) for name, step in steps.items()}
        print(
            f"| {mode} | {times['window']:.2f} | {times['sequence'] / clip.size(2):.2f} | "
            f"{memory['window']:.0f} | {memory['sequence']:.0f} |",
            flush=True,
        )


def print_table_head(columns: list[str]) -> None:
    """The first two lines of a markdown table."""
    print(f"\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)


def print_tables(repeats: int) -> None:
    """Measure and print; every step is timed `repeats` times."""
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a CUDA GPU; benchmark_op.py measures the CPU")
    torch.backends.cudnn.benchmark = True  # conv3d is to be as fast as it can be
    use_tf32(True)
    bandwidth, rate = ceilings(torch.bfloat16)
    kernels = cuda.kernels(torch.cuda.current_device()).name
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}, "
        f"kernels: {kernels}. Measured: {bandwidth / 1e12:.2f} TB/s, "
        f"{rate / 1e12:.0f} TFLOP/s in bfloat16."
    )
    columns = ["shape", "mode", "task", "ours ms", "columns ms", "conv3d ms"]
    columns += ["torchvision ms", "triton ms", "floor ms"]
    columns += [
        "conv3d / ours",
        "columns / ours",
        "torchvision / ours",
        "ours MiB",
        "columns MiB",
        "memory",
    ]
    print_table_head(columns)
    for shape in SHAPES:
        for mode in MODES:
            operator_rows(shape, mode, repeats)
    columns = ["network", "window ms/frame", "sequence ms/frame", "window MiB", "sequence MiB"]
    print_table_head(columns)
    network_rows(max(repeats // 2, 3))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=21, help="timed runs of each (default 21)")
    parser.add_argument("--kernels", choices=("compiled", "nvrtc"), help="these or an error")
    options = parser.parse_args()
    if options.kernels:
        os.environ[cuda.KERNELS_VARIABLE] = options.kernels
    print_tables(options.repeats)


if __name__ == "__main__":
    main()
