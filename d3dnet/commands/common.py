"""What commands share: options of the network, and how a person is told things."""

import argparse
import sys
from typing import TypeAlias

from d3dnet.errors import D3dnetError
from d3dnet.network import PRECISIONS

# Nothing that imports torch is imported by a command's module: `d3dnet --help` must be quick.
# What commands are added to.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
NETWORKS = "d3dnet, d3dnet-lite (less work, follows motion)"


def add_network_options(
    parser: argparse.ArgumentParser,
    models: str = f"{NETWORKS}, bicubic, or a .safetensors or .pth.tar file",
    devices: str = "",
) -> None:
    parser.add_argument("--model", default="d3dnet", help=f"{models} (default: %(default)s)")
    parser.add_argument(
        "--device",
        default="auto",
        help=f"auto, cpu, cuda, cuda:N or mps{devices} (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", *PRECISIONS),
        default="auto",
        help="arithmetic (default: %(default)s)",
    )


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tile",
        type=_tile,
        metavar="PIXELS",
        help="tiles of so many input pixels; 0: whole frames (default: as memory allows)",
    )
    parser.add_argument(
        "--max-memory",
        type=_memory,
        metavar="SIZE",
        help="such as 6G: of the GPU, or of this process and its encoder (default: 80%% of what "
        "is free)",
    )


def _tile(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"got {text!r}; accepted is a number from 0 up")
    return int(text)


def _memory(text: str) -> int:
    from d3dnet.wording import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    known = isinstance(error, (D3dnetError, ValueError, OSError))
    return text if known else f"{type(error).__name__}: {text}"


def complain(message: str) -> None:
    print(f"d3dnet: {message}", file=sys.stderr)
