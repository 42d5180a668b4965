"""Speed and memory of whole videos, for docs/benchmark-video.md.

Prints markdown tables:

1. frames a second for 320x180 -> 1280x720, float32 and bfloat16, sequence and window (the network
   alone, on a stream; medians of runs that take turns), and of `upscale_video` in sequence mode
   with the share of time that is not the network's;
2. peak memory of a process that streams 180p, 360p and 720p, each in a process of its own, beside
   what the plan expected (skipped where that is more than four fifths of what is free);
3. the time of a run in segments against one in a single segment (segments and journal), and of one
   that was broken off in the middle and continued.

    python scripts/benchmark_video.py [--tables speed memory segments] [--repeats 3] [--frames 8]

Run it on a quiet machine. The numbers of frames are small: on 2 CPU cores 320x180 takes seconds a
frame.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn

from d3dnet import upscale_video
from d3dnet.checkpoints import load_model
from d3dnet.events import Event, Progress
from d3dnet.memory import free_memory, show_size
from d3dnet.ops import instruction_set
from d3dnet.plan import cost, make_plan
from d3dnet.streaming import Stream, Windows
from d3dnet.tiling import run_tiled
from d3dnet.video.ffmpeg import find_program

SIZES = ((180, 320), (360, 640), (720, 1280))
TABLES = ("speed", "memory", "segments")


class Timed(nn.Module):
    """A network that adds up the time spent in it: in its stream, less that of its source."""

    scale, window = 4, 7

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seconds = 0.0

    def stream(self, frames, chunk=8):
        waited = 0.0

        def source():
            nonlocal waited
            frame = iter(frames)
            while True:
                start = time.perf_counter()
                one = next(frame, None)
                waited += time.perf_counter() - start
                if one is None:
                    return
                yield one

        results = self.network.stream(source(), chunk)
        while True:
            start, before = time.perf_counter(), waited
            result = next(results, None)
            self.seconds += time.perf_counter() - start - (waited - before)
            if result is None:
                return
            yield result


def steady(network: nn.Module, mode: str, frames: int) -> float:
    """Seconds a frame in the middle of a long shot: all layers have their neighbours."""
    feed = Stream(network) if mode == "sequence" else Windows(network)
    count = frames if mode == "sequence" else max(1, frames // 7)
    clip = torch.rand(1, 1, 1, 180, 320).expand(-1, -1, count, -1, -1)
    with torch.inference_mode():
        if mode == "window":
            list(feed.feed(clip[:, :, :1].expand(-1, -1, 6, -1, -1)))
        start = time.perf_counter()
        list(feed.feed(clip))
        if mode == "sequence":
            list(feed.finish())
        return (time.perf_counter() - start) / count


def in_turns(tasks: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Median of each task's result, the tasks taking turns."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            found[name].append(task())
    return {name: median(values) for name, values in found.items()}


def make_video(path: Path, frames: int, size: str = "320x180") -> Path:
    command = [find_program().path, "-v", "error", "-y", "-f", "lavfi"]
    command += ["-i", f"testsrc2=s={size}:r=25", "-frames:v", str(frames), str(path)]
    subprocess.run(command, check=True)
    return path


def speed(repeats: int, frames: int) -> None:
    tasks = {}
    for precision in ("float32", "bfloat16"):
        network = load_model(device="cpu", precision=precision)
        for mode in ("sequence", "window"):
            tasks[f"{precision} | {mode}"] = lambda n=network, m=mode: steady(n, m, frames)
    print("| precision | mode | frames a second |\n| --- | --- | --- |")
    for name, seconds in in_turns(tasks, repeats).items():
        print(f"| {name} | {1 / seconds:.3g} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        source = make_video(Path(folder) / "in.mp4", frames)
        shares, rates = [], []
        for run in range(repeats):
            network = Timed(load_model(device="cpu", precision="float32"))
            start = time.perf_counter()
            upscale_video(source, Path(folder) / f"out{run}.mp4", model=network)
            whole = time.perf_counter() - start
            shares.append(1 - network.seconds / whole)
            rates.append(frames / whole)
    print(f"\nupscale_video, {frames} frames: {median(rates):.3g} frames a second, ", end="")
    print(f"{median(shares):.1%} of the time outside the network\n")


def memory(frames: int) -> None:
    network = load_model(device="cpu", precision="float32")
    print("| input | plan | expected | peak of the process |\n| --- | --- | --- | --- |")
    for height, width in SIZES:
        plan = make_plan(network, height, width)
        needed = cost(network, plan, height, width)
        expected = needed.device + needed.host
        text = f"| {width}x{height} | chunk {plan.chunk}, tile {plan.tile}, block {plan.block} "
        text += f"| {show_size(expected)} | "
        if expected > 0.8 * free_memory(torch.device("cpu")):
            print(f"{text}skipped |")
            continue
        arguments = [sys.executable, __file__, "--stream", str(height), str(width), str(frames)]
        done = subprocess.run(arguments, check=True, capture_output=True, text=True)
        print(f"{text}{show_size(float(done.stdout))} |", flush=True)
    print()


def stream_and_print_peak(height: int, width: int, frames: int) -> None:
    """The measuring process: peak of all it holds, in bytes; states are full after 15 frames."""
    network = load_model(device="cpu", precision="float32")
    plan = make_plan(network, height, width)
    with torch.inference_mode():
        for _ in run_tiled(network, (torch.rand(1, height, width) for _ in range(frames)), plan):
            pass
    with open("/proc/self/status") as status:
        print(1024 * int(status.read().split("VmHWM:")[1].split()[0]))


def segments(repeats: int) -> None:
    """With bicubic in the network's place, so that what is not the network can be seen."""
    frames = 1500

    def run(source: Path, stop_at: int | None = None) -> float:
        def watch(event: Event) -> None:
            if isinstance(event, Progress) and event.done == stop_at:
                raise KeyboardInterrupt

        output = source.with_name("out.mp4")
        start = time.perf_counter()
        try:
            upscale_video(source, output, model="bicubic", cuts="off", overwrite=True, watch=watch)
        except KeyboardInterrupt:
            pass
        return time.perf_counter() - start

    def broken_off(source: Path) -> float:
        return run(source, frames // 2) + run(source)

    with tempfile.TemporaryDirectory() as folder:
        long, short = (
            make_video(Path(folder) / f"{count}.mp4", count, "160x90") for count in (frames, 200)
        )
        tasks = {
            "one segment (200 frames)": lambda: run(short) / 200,
            f"segments of 10 s ({frames} frames)": lambda: run(long) / frames,
            "the same, broken off in the middle and continued": lambda: broken_off(long) / frames,
        }
        found = in_turns(tasks, repeats)
    print("| run | ms a frame |\n| --- | --- |")
    for name, seconds in found.items():
        print(f"| {name} | {1000 * seconds:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--memory-frames", type=int, default=18)
    parser.add_argument("--stream", nargs=3, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stream:
        stream_and_print_peak(*args.stream)
        return
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads, {instruction_set()}\n")
    if "speed" in args.tables:
        speed(args.repeats, args.frames)
    if "memory" in args.tables:
        memory(args.memory_frames)
    if "segments" in args.tables:
        segments(args.repeats)


if __name__ == "__main__":
    main()
