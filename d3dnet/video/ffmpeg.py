"""The ffmpeg program: which one is used, and what it can do."""

import io
import os
import re
import shutil
import subprocess
import warnings
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import av
import imageio_ffmpeg

from d3dnet.errors import ProgramError


@dataclass(frozen=True)
class Program:
    """An ffmpeg program that has been run once: its `path` and its `version` as it prints it."""

    path: str
    version: str


def find_program(path: str | os.PathLike[str] | None = None) -> Program:
    """The ffmpeg program to use: `path`, else $FFMPEG, else `ffmpeg` on the PATH, else the bundled.

    One on the PATH that does not run is told, and passed over.

    Raises:
        ProgramError: `path` or $FFMPEG does not run; or there is none.
    """
    if path is not None:
        return _probe(os.fspath(path), "--ffmpeg")
    if os.environ.get("FFMPEG"):
        return _probe(os.environ["FFMPEG"], "$FFMPEG")
    on_path = shutil.which("ffmpeg")
    if on_path is None:
        return bundled_program()
    try:
        return _probe(on_path, "ffmpeg on the PATH")
    except ProgramError as error:
        program = bundled_program()
        warnings.warn(f"{error}; using {program.path}", stacklevel=2)
        return program


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
def filters_see_container_ticks(program: Program) -> bool:
    """Whether times in bitstream filters are in ticks of the container that is written.

    They are in old versions (5.1), of which `TB` tells something else. Found by trying.
    """
    source = io.BytesIO()
    with av.open(source, "w", format="nut") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode(None))
    words = "-v error -f nut -i pipe:0 -c copy -bsf:v setts=duration=1000 -f mp4"
    words += " -video_track_timescale 1000 -movflags frag_keyframe+empty_moov pipe:1"
    done = subprocess.run(
        [program.path, *words.split()],
        input=source.getvalue(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    try:
        with av.open(io.BytesIO(done.stdout), "r") as made:
            packet = next(made.demux(video=0))
            return (packet.duration or 0) * (packet.time_base or 0) > Fraction(1, 2)
    except (av.FFmpegError, OSError, StopIteration):
        return False


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
