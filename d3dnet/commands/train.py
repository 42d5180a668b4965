"""`d3dnet train`: train a network, or go on with a training."""

import argparse
import math
import os

from d3dnet.commands.common import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a network; the same command goes on with it",
        description="Train a network as a TOML file says. The same command goes on with a training "
        "that was interrupted, exactly where it was. Under torchrun, on several GPUs or machines.",
    )
    parser.add_argument(
        "config",
        metavar="CONFIG",
        help="a .toml file, or the name of a bundled one: "
        "vimeo90k (the published recipe), clips (a folder of clips)",
    )
    parser.add_argument(
        "--set",
        dest="settings",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="settings that replace those of CONFIG, such as root=CLIPS run=runs/mine steps=1000",
    )
    parser.add_argument(
        "--max-seconds",
        type=float,
        default=math.inf,
        metavar="S",
        help="save and stop after so many seconds",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from d3dnet.training import load_config, train
    from d3dnet.training.heap import keep_freed_memory

    keep_freed_memory()
    path = train(load_config(options.config, options.settings), options.max_seconds)
    if os.environ.get("RANK", "0") == "0":
        print(path)
    return 0
