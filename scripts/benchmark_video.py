"""Speed and memory of whole videos, for docs/benchmark-video.md.

Prints markdown tables:

speed     frames a second for 320x180 -> 1280x720, of all bundled models, float32 and bfloat16,
          sequence and window: the network alone in the middle of a long shot, medians of runs
          that take turns;
outside   `upscale_video` against the network alone, over the same frames: what reading, colour,
          encoding and comparing cost (with what a run needs at its beginning and end);
memory    peak of a process that upscales so and so large frames, and of its encoder, beside what
          the plan expects of the network alone (skipped where that is more than four fifths of what
          is free), and what the process holds before it begins;
segments  with `--model bicubic`: a run in segments against one in a single segment of the same
          frames, and against one that was broken off in the middle and continued.

    python scripts/benchmark_video.py [--tables speed outside memory segments] [--repeats 3]
        [--heights 180 360]

Run it on a quiet machine. The numbers of frames are small: on 2 CPU cores 320x180 takes a second a
frame.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, cast
from unittest import mock

import psutil
import torch
from torch import nn

from d3dnet import upscale_video
from d3dnet.job.events import Event, Progress
from d3dnet.network import MODES, Mode
from d3dnet.network.checkpoints import bundled_models, load_model
from d3dnet.network.interface import Network, Plannable
from d3dnet.network.memory import free_memory
from d3dnet.network.plan import cost, make_plan
from d3dnet.network.speed import pixels_per_second
from d3dnet.network.tiling import run_tiled
from d3dnet.ops import instruction_set
from d3dnet.video.ffmpeg import find_program
from d3dnet.wording import show_size

WIDTHS = {180: 320, 360: 640, 720: 1280}
TABLES = ("speed", "outside", "memory", "segments")
CHUNK = 8


def in_turns(tasks: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Results of all tasks, which take turns."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            found[name].append(task())
    return found


def timed(task: Callable[[], object]) -> float:
    """Seconds that a task takes."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def make_video(path: Path, frames: int, size: str = "320x180") -> Path:
    command = [find_program().path, "-v", "error", "-y", "-f", "lavfi"]
    command += ["-i", f"testsrc2=s={size}:r=25", "-frames:v", str(frames), str(path)]
    subprocess.run(command, check=True)
    return path


def network_of(model: str, precision: str = "float32") -> Plannable:
    """A bundled network, on the CPU."""
    network = load_model(model, device="cpu", precision=precision)
    assert isinstance(network, Plannable), f"{model} is not run in tiles"
    return network


def steady(network: Plannable, mode: Mode, size: tuple[int, int]) -> Callable[[], float]:
    """What measures seconds a frame, in the middle of a shot: all layers have their neighbours."""
    feed = network.begin(mode)
    count = CHUNK if mode == "sequence" else 1
    # Three copies of a frame; of a network that follows motion, the one in the middle has all.
    _, piece, _ = network.guide(torch.rand(1, *size).expand(3, -1, -1, -1))
    piece = piece[None, :, None].expand(-1, -1, count, -1, -1)

    def once() -> float:
        with torch.inference_mode():
            return timed(lambda: list(feed.feed(piece))) / count

    # Until all stages are full; the last of these is the first to be like all that follow.
    for _ in range(2 + 14 // CHUNK if mode == "sequence" else 4):
        once()
    return once


def speed(repeats: int, size: tuple[int, int], models: list[str], precisions: list[str]) -> None:
    tasks = {}
    for model, precision in product(models, precisions):
        network = network_of(model, precision)
        for mode in MODES:
            tasks[f"{model} | {precision} | {mode}"] = steady(network, mode, size)
    print("| model | precision | mode | frames a second |\n| --- | --- | --- | --- |")
    for name, seconds in in_turns(tasks, repeats).items():
        print(f"| {name} | {1 / median(seconds):.3g} |", flush=True)
    print()


def outside(repeats: int, frames: int, size: tuple[int, int]) -> None:
    network = network_of("d3dnet")
    plan = make_plan(network, *size)
    clip = torch.rand(frames, 1, *size)

    def alone() -> None:
        with torch.inference_mode():
            for _ in run_tiled(network, iter(clip), plan):
                pass

    with tempfile.TemporaryDirectory() as folder:
        source = make_video(Path(folder) / "in.mp4", frames, f"{size[1]}x{size[0]}")
        output = source.with_name("out.mp4")
        options: dict[str, Any] = {"cuts": "off", "overwrite": True}
        tasks = {
            "network alone": lambda: timed(alone),
            "upscale_video": lambda: timed(
                lambda: upscale_video(source, output, model=cast("nn.Module", network), **options)
            ),
            "upscale_video, bicubic": lambda: timed(
                lambda: upscale_video(source, output, model="bicubic", **options)
            ),
        }
        found = in_turns(tasks, repeats)
    print(f"| {frames} frames | seconds |\n| --- | --- |")
    for name, seconds in found.items():
        print(f"| {name} | {median(seconds):.2f} |")
    shares = [
        1 - one / whole
        for one, whole in zip(found["network alone"], found["upscale_video"], strict=True)
    ]
    print(f"\noutside the network: {median(shares):.1%} of the time\n", flush=True)


def memory(heights: list[int], frames: int) -> None:
    network = network_of("d3dnet")
    print("| input | plan | expected | at rest | peak | its encoder |")
    print("| --- | --- | --- | --- | --- | --- |")
    for height in heights:
        width = WIDTHS.get(height, height * 16 // 9)
        plan = make_plan(network, height, width)
        needed = cost(network, plan, height, width)
        expected = needed.device + needed.host
        text = f"| {width}x{height} | chunk {plan.chunk}, tile {plan.tile}, block {plan.block} "
        text += f"| {show_size(expected)} | "
        if expected > 0.8 * free_memory(torch.device("cpu")):
            print(f"{text}skipped | | |")
            continue
        command = [sys.executable, __file__, "--upscale", f"{width}x{height}", str(frames)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(text + " | ".join(show_size(float(n)) for n in done.stdout.split()[-3:]) + " |")
    print(flush=True)


def upscale_and_print_peaks(size: str, frames: int) -> None:
    """The measuring process: bytes at rest, and peaks of itself and of its encoder."""
    process, ended = psutil.Process(), threading.Event()
    peaks = [0, 0]
    rest = process.memory_info().rss

    def watch() -> None:
        while not ended.wait(0.05):
            children = 0
            for child in process.children():
                with contextlib.suppress(psutil.Error):
                    if child.exe() != process.exe():  # not yet another program
                        children += child.memory_info().rss
            peaks[:] = max(peaks[0], process.memory_info().rss), max(peaks[1], children)

    threading.Thread(target=watch, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        source = make_video(Path(folder) / "in.mp4", frames, size)
        options: dict[str, Any] = {"precision": "float32", "device": "cpu", "cuts": "off"}
        upscale_video(source, source.with_name("out.mp4"), **options)
    ended.set()
    print(rest, *peaks)


def segments(repeats: int, frames: int, network: Network) -> None:
    """With bicubic in the network's place, so that what is not the network can be seen."""
    height, width = 90, 160
    again = 0

    def run(source: Path, longest: int = 9, stop_at: int | None = None) -> None:
        nonlocal again

        def watch(event: Event) -> None:
            nonlocal again
            if isinstance(event, Progress):
                again += 1
                if event.done == stop_at:
                    raise KeyboardInterrupt

        options: dict[str, Any] = {
            "model": "bicubic",
            "cuts": "off",
            "overwrite": True,
            "watch": watch,
        }
        try:
            with mock.patch("d3dnet.job.segments.LONGEST", Fraction(longest)):
                upscale_video(source, source.with_name("out.mp4"), **options)
        except KeyboardInterrupt:
            pass

    def broken_off(source: Path) -> None:
        run(source, stop_at=frames // 2)
        run(source)

    with tempfile.TemporaryDirectory() as folder:
        source = make_video(Path(folder) / "in.mp4", frames, f"{width}x{height}")
        tasks = {
            "one segment": lambda: timed(lambda: run(source, longest=10**6)),
            "segments of 9 s": lambda: timed(lambda: run(source)),
            "the same, broken off in the middle": lambda: timed(lambda: broken_off(source)),
        }
        found = in_turns(tasks, repeats)
    print(f"| {frames} frames, {width}x{height}, bicubic | seconds |\n| --- | --- |")
    for name, seconds in found.items():
        print(f"| {name} | {median(seconds):.2f} |")
    one, many, broken = found.values()
    more = median(b - a for a, b in zip(one, many, strict=True))
    whole = frames * height * width / pixels_per_second(network)
    print(f"\nsegments and journal: {more:+.2f} s, {more / median(one):+.1%} of this run, ", end="")
    print(f"{more / whole:+.2%} of the {whole:.0f} s that the network would take")
    restart = median(b - a for a, b in zip(many, broken, strict=True))
    frames_again = again // repeats - 3 * frames
    print(f"a restart: {restart:+.2f} s, {frames_again} frames made again among it", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--heights", nargs="+", type=int, default=[180, 360], help="for memory")
    parser.add_argument("--size", nargs=2, type=int, default=(180, 320), help="for speed, outside")
    parser.add_argument("--models", nargs="+", default=bundled_models(), help="for speed")
    precisions = ["float32", "bfloat16"]
    parser.add_argument("--precisions", nargs="+", default=precisions, help="for speed")
    parser.add_argument("--frames", type=int, default=24, help="for outside")
    parser.add_argument("--memory-frames", type=int, default=17)
    parser.add_argument("--segment-frames", type=int, default=1500)
    parser.add_argument("--upscale", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.upscale:
        upscale_and_print_peaks(args.upscale[0], int(args.upscale[1]))
        return
    size = tuple(args.size)
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads, {instruction_set()}\n")
    if "speed" in args.tables:
        speed(args.repeats, size, args.models, args.precisions)
    if "outside" in args.tables:
        outside(args.repeats, args.frames, size)
    if "memory" in args.tables:
        memory(args.heights, args.memory_frames)
    if "segments" in args.tables:
        network = network_of("d3dnet")
        segments(args.repeats, args.segment_frames, network)


if __name__ == "__main__":
    main()
