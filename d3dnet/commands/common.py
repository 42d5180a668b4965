"""What commands share: options of the network, and how a person is told things."""

import argparse
import sys

# Nothing that imports torch is imported by a command's module: `d3dnet --help` must be quick.
MODES = ("sequence", "window")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def add_network_options(
    parser: argparse.ArgumentParser,
    models: str = "bicubic, name of bundled weights, or a .safetensors or .pth.tar file",
) -> None:
    parser.add_argument("--model", default="d3dnet", help=f"{models} (default: %(default)s)")
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="arithmetic (default: %(default)s)"
    )


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    known = type(error).__module__.startswith("d3dnet") or isinstance(error, (ValueError, OSError))
    return text if known else f"{type(error).__name__}: {text}"


def complain(message: str) -> None:
    print(f"d3dnet: {message}", file=sys.stderr)
