"""The command line: `d3dnet COMMAND ...`. It only reads arguments and says what happens.

Exit codes: 0 done; 1 the input, output or weights are at fault; 2 wrong usage; 3 the environment is
(ffmpeg, device, disk); 4 interrupted, and the same command goes on; 5 done with warnings, where
--strict was given; 130 interrupted, of commands that begin again.
"""

import argparse
import codecs
import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence

import d3dnet
from d3dnet.commands import doctor, evaluate, info, offsets, preview, train, upscale
from d3dnet.commands.common import one_line
from d3dnet.commands.console import Console
from d3dnet.errors import exit_code

SPELLINGS = {"×": "x", "−": "-", "–": "-", "’": "'", "…": "..."}  # where a terminal has ASCII alone


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    _see_that_all_can_be_told()
    options = build_parser().parse_args(arguments)
    options.console = console = Console(
        as_json=getattr(options, "json", False) is True,
        quiet=getattr(options, "quiet", False),
        verbose=getattr(options, "verbose", False),
    )
    warnings.showwarning = console.warn
    signal.signal(signal.SIGTERM, _interrupt)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        code: int = options.run(options)
        return code
    except KeyboardInterrupt:
        code = getattr(options, "interrupted", 130)
        console.complain("interrupted", code)
        return code
    except BrokenPipeError:
        # Whoever read our output has gone; keep Python from saying so again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("D3DNET_TRACEBACK"):
            raise
        code = exit_code(error)
        console.complain(one_line(error), code)
        return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run`, a function of its options."""
    parser = argparse.ArgumentParser(prog="d3dnet", description=d3dnet.__doc__)
    parser.add_argument("--version", action="version", version=f"d3dnet {d3dnet.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (upscale, info, preview, evaluate, train, offsets, doctor):
        command.add(commands)
    return parser


def _see_that_all_can_be_told() -> None:
    """Streams that are closed swallow what they are told; what they cannot encode is spelled."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            # Else the next file that is opened would get this number, and what others print.
            with contextlib.suppress(OSError):
                os.fstat(number)
                continue
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))
    codecs.register_error("d3dnet", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="d3dnet")


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    """What a terminal has no characters for; bytes of a name that is no UTF-8, as they are."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if 0xDC80 <= ord(character) <= 0xDCFF:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return SPELLINGS.get(character, character.encode("ascii", "backslashreplace").decode()), (
        error.start + 1
    )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
