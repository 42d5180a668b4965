"""`d3dnet offsets`: where the network looks to make a pixel, as a picture."""

import argparse
from pathlib import Path

from d3dnet.commands.common import NETWORKS, Commands, add_network_options


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "offsets",
        help="show where the network looks to make a pixel",
        description="Draw, for one pixel of the output: its effective receptive field, the "
        "positions that each deformable layer samples in the 7 frames, and maps of the offsets.",
    )
    parser.add_argument("file", metavar="FILE", help="a video, or images")
    parser.add_argument("--frame", type=int, required=True, metavar="N", help="counted from 0")
    parser.add_argument(
        "--at", type=_pixel, metavar="Y,X", help="pixel of the output (default: the middle)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="PNG", help="the picture (default: beside FILE's name here)"
    )
    add_network_options(parser, f"{NETWORKS}, or a .safetensors or .pth.tar file")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from d3dnet.inspection import drawing
    from d3dnet.inspection.offsets import inspect, picture
    from d3dnet.network.checkpoints import load_model
    from d3dnet.network.offsets import deformable_layers
    from d3dnet.video.window import luma_around

    precision = "float32" if options.precision == "auto" else options.precision
    network = load_model(options.model, options.device, precision)
    if not deformable_layers(network):
        raise ValueError(f"--model: {options.model} has no offsets; accepted are weights of D3Dnet")
    path = options.output or Path(f"{Path(options.file).stem}-offsets-{options.frame}.png")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--output: there is no folder {path.parent}; make it first")
    window = luma_around(options.file, options.frame, network.window // 2)
    height, width = (network.scale * length for length in window.shape[1:])
    at = options.at or (height // 2, width // 2)
    found = inspect(network, window, at)
    title = (
        f"{Path(options.file).name}, frame {options.frame}, output row {at[0]}, column {at[1]} "
        f"of {width}x{height}: {Path(str(options.model)).name}"
    )
    print(f"nine tenths of the gradient within {found.radius:.1f} input pixels")
    print("layer    mean offset  largest, in input pixels")
    for layer in found.layers:
        print(f"{layer.name:<8} {layer.magnitude.mean():>11.3f} {layer.largest:>8.3f}")
    print(drawing.write_png(path, picture(found, title)))
    return 0


def _pixel(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"got {text!r}; accepted is a row and column, as 120,300")
    return int(parts[0]), int(parts[1])
