"""`d3dnet info`: what upscaling a video will mean."""

import argparse

from d3dnet.commands.common import Commands, add_network_options, add_plan_options
from d3dnet.network import MODES


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "info",
        help="say what upscaling a video will mean",
        description="Say what is in a video and what upscaling it will mean: streams, colour, "
        "cuts, size, memory, disk and time on this machine. Nothing is written.",
    )
    parser.add_argument("file", metavar="FILE", help="a video, or images")
    parser.add_argument("--mode", choices=MODES, default="sequence", help="(%(default)s)")
    parser.add_argument(
        "--cuts",
        choices=("auto", "off"),
        default="auto",
        help="off: do not read the whole file to find them",
    )
    for side in ("height", "width"):
        parser.add_argument(f"--{side}", type=int, metavar="PIXELS", help="of the result")
    parser.add_argument("--scale", type=float, metavar="S", help="of the result (4)")
    parser.add_argument("--seconds", type=float, default=5, help="of the speed test (5)")
    parser.add_argument("--ffmpeg", metavar="PROGRAM", help="ffmpeg program")
    add_network_options(parser)
    add_plan_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from d3dnet.inspection.info import describe
    from d3dnet.network.run import load_network
    from d3dnet.video.target import Size

    lines = describe(
        options.file,
        load_network(options.model, options.device, options.precision),
        size=Size(options.scale, options.height, options.width),
        mode=options.mode,
        cuts=options.cuts,
        tile=options.tile,
        max_memory=options.max_memory,
        seconds=options.seconds,
        ffmpeg=options.ffmpeg,
    )
    for name, text in lines:
        print(f"{name:<10} {text}", flush=True)
    return 0
