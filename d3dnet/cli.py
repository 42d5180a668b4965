"""The command line: `d3dnet COMMAND ...`. It only reads arguments and says what happens.

Exit codes: 0 done, 1 the input, output or weights are at fault, 2 wrong usage, 130 interrupted.
"""

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence

import d3dnet
from d3dnet.commands import doctor, evaluate, info, offsets, preview, train, upscale
from d3dnet.commands.common import complain, one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = build_parser().parse_args(arguments)
    warnings.showwarning = _show_warning
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        complain("interrupted; nothing was written")
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; keep Python from saying so again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("D3DNET_TRACEBACK"):
            raise
        complain(one_line(error))
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run`, a function of its options."""
    parser = argparse.ArgumentParser(prog="d3dnet", description=d3dnet.__doc__)
    parser.add_argument("--version", action="version", version=f"d3dnet {d3dnet.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (upscale, info, preview, evaluate, train, offsets, doctor):
        command.add(commands)
    return parser


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    complain(f"warning: {' '.join(str(message).split())}")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
