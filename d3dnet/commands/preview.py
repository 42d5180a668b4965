"""`d3dnet preview`: a few frames of a video, before and after."""

import argparse
from pathlib import Path

from d3dnet.commands.common import Commands, add_network_options


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "preview",
        help="show a few frames of a video, before and after",
        description="Upscale a few frames from across a video and draw each before and after, with "
        "a part enlarged; say how long all of it would take.",
    )
    parser.add_argument("file", metavar="FILE", help="a video")
    parser.add_argument("--frames", type=_count, default=4, metavar="N", help="how many (4)")
    parser.add_argument(
        "--crop", type=_crop, metavar="Y,X,ROWS", help="part of the result (default: most detail)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path(), metavar="DIR", help="folder of the PNGs (here)"
    )
    add_network_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from d3dnet.inspection.preview import preview
    from d3dnet.network.run import load_network
    from d3dnet.wording import show_duration

    if not options.output.is_dir():
        raise NotADirectoryError(f"--output: there is no folder {options.output}; make it first")
    made = preview(
        options.file,
        options.output,
        load_network(options.model, options.device, options.precision),
        count=options.frames,
        crop=options.crop,
        on_picture=lambda path: print(path, flush=True),
    )
    if made.seconds_per_frame <= 0:
        print("no slower than --model bicubic")
        return 0
    speed = f"{1 / made.seconds_per_frame:.3g} frames a second"
    if made.frames:
        total = show_duration(made.frames * made.seconds_per_frame)
        speed += f"; about {total} for all {made.frames} frames"
    print(f"{speed} (the network alone)")
    return 0


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; accepted is a number from 1 up")
    return int(text)


def _crop(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"got {text!r}; accepted are three numbers, as 80,160,120")
    row, column, rows = map(int, parts)
    return row, column, rows
