"""`d3dnet doctor`: what d3dnet runs on here."""

import argparse
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version

import d3dnet
from d3dnet.commands.common import Commands, add_network_options, complain, one_line

PACKAGES = ("torch", "av", "numpy", "opencv-python-headless", "safetensors")


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "doctor",
        help="say what d3dnet runs on here, and how fast",
        description="Say which programs, versions, devices and kernels are used here, and measure "
        "the speed for five seconds. Exit code 1 if something is missing.",
    )
    parser.add_argument("--seconds", type=float, default=5, help="of the speed test (5)")
    parser.add_argument("--ffmpeg", metavar="PROGRAM", help="ffmpeg program")
    add_network_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    healthy = True
    for check in (_versions, _ffmpeg, _devices, _kernel, _cuda_kernels, _speed):
        try:
            for name, text in check(options):
                print(f"{name:<10} {text}", flush=True)
        except Exception as error:  # whatever it is, the others are to be seen too
            healthy = False
            complain(one_line(error))
    return 0 if healthy else 1


def _versions(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    yield "d3dnet", f"{d3dnet.__version__}, Python {sys.version.split()[0]}, {platform.platform()}"
    yield "packages", ", ".join(f"{name} {version(name)}" for name in PACKAGES)


def _ffmpeg(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    from d3dnet.video import DEFAULT_CODEC
    from d3dnet.video.ffmpeg import find_program, pixel_formats

    program = find_program(options.ffmpeg)
    yield "ffmpeg", f"{program.path}, version {program.version}"
    pixel_formats(program, DEFAULT_CODEC)  # complains where it has no such encoder


def _devices(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    import torch

    from d3dnet.network.memory import free_memory
    from d3dnet.wording import show_size

    cpu = torch.device("cpu")
    yield "cpu", f"{torch.get_num_threads()} threads, {show_size(free_memory(cpu))} of memory free"
    for index in range(torch.cuda.device_count()):
        free = show_size(free_memory(torch.device("cuda", index)))
        yield f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, {free} of memory free"
    if torch.backends.mps.is_available():
        yield "mps", "present; used only where asked for"


def _kernel(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    from d3dnet.ops import fallback_problem, instruction_set, instruction_sets

    problem = fallback_problem()
    if problem is None:
        others = ", ".join(instruction_sets())
        yield "kernel", f"compiled, {instruction_set()} (of {others})"
    else:
        yield "kernel", f"plain PyTorch, several times slower: {problem}"


def _cuda_kernels(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    import torch

    from d3dnet.ops import cuda

    for index in range(torch.cuda.device_count()):
        name, _, problem = cuda.kernels(index)
        shown = {
            "compiled": "compiled, by nvcc",
            "nvrtc": f"compiled where they run, by NVRTC ({cuda.library_problem()})",
            "torchvision": "torchvision's, as asked for",
            "reference": "plain PyTorch, many times slower",
        }[name]
        yield f"kernels {index}", f"on cuda:{index}: {shown}" + (f": {problem}" if problem else "")
    if not torch.cuda.device_count():
        has = "no CUDA" if torch.version.cuda is None else "CUDA but finds no device"
        built = cuda.library_problem() or "built"
        yield "cuda", f"not used: this torch ({torch.__version__}) has {has}; its library: {built}"


def _speed(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    from d3dnet.network.run import load_network
    from d3dnet.network.speed import pixels_per_second

    network = load_network(options.model, options.device, options.precision)
    tensor = next(network.parameters(), None)
    kind = "" if tensor is None else f", {tensor.dtype}, {tensor.device}".replace("torch.", "")
    rate = pixels_per_second(network, options.seconds) / (320 * 180)
    text = f"{rate:.3g} frames a second for 320×180 to 1280×720"
    yield "speed", f"{text} ({options.model}{kind})"
