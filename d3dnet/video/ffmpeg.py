"""The ffmpeg program: which one is used, and what it can do."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

import imageio_ffmpeg

from d3dnet.errors import ProgramError


@dataclass(frozen=True)
class Program:
    """An ffmpeg program that has been run once: its `path` and its `version` as it prints it."""

    path: str
    version: str


def find_program(path: str | os.PathLike[str] | None = None) -> Program:
    """The ffmpeg program to use: `path`, else $FFMPEG, else `ffmpeg` on the PATH, else the bundled.

    Raises:
        ProgramError: the first of these that is set does not run.
    """
    if path is not None:
        return _probe(os.fspath(path), "--ffmpeg")
    if os.environ.get("FFMPEG"):
        return _probe(os.environ["FFMPEG"], "$FFMPEG")
    on_path = shutil.which("ffmpeg")
    if on_path is not None:
        return _probe(on_path, "ffmpeg on the PATH")
    return bundled_program()


def bundled_program() -> Program:
    """The program that comes with the imageio-ffmpeg package."""
    try:
        path = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise ProgramError(
            "no ffmpeg program: none on the PATH and none bundled with imageio-ffmpeg for this "
            "machine; install ffmpeg or name one with --ffmpeg or $FFMPEG"
        ) from error
    return _probe(path, "the bundled ffmpeg")


def pixel_formats(program: Program, codec: str) -> tuple[str, ...]:
    """Names of the pixel formats that `codec`, a video encoder of `program`, takes.

    Raises:
        ProgramError: `program` has no such video encoder.
    """
    text = _help(program.path, f"encoder={codec}")
    found = re.search(r"Supported pixel formats: *(.*)", text)
    if f"Encoder {codec} " not in text or found is None:
        raise ProgramError(
            f"{program.path} ({program.version}) has no video encoder {codec!r}; "
            f"it lists those it has with: ffmpeg -encoders"
        )
    return tuple(found.group(1).split())


def has_option(program: Program, part: str, option: str) -> bool:
    """Whether a part of `program`, as "encoder=libx264" or "muxer=mp4", has an option so named."""
    text = _help(program.path, part)
    return re.search(rf"^ +-{re.escape(option)} ", text, re.MULTILINE) is not None


@cache
def _probe(path: str, origin: str) -> Program:
    text = _run([path, "-version"], f"{origin} ({path})")
    found = re.match(r"ffmpeg version (\S+)", text)
    if found is None:
        raise ProgramError(f"{origin} ({path}) is not an ffmpeg program")
    return Program(path=path, version=found.group(1))


@cache
def _help(path: str, part: str) -> str:
    return _run([path, "-hide_banner", "-h", part], path)


def _run(command: list[str], what: str) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ProgramError(f"{what} does not run: {error}") from error
    return (done.stdout + done.stderr).decode(errors="replace")
