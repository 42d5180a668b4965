"""Inputs made with the ffmpeg program, and what is in a file, read independently."""

import os
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from d3dnet.video.ffmpeg import Program, bundled_program, find_program

BUNDLED = bundled_program()


def available_programs() -> list[Program]:
    """The bundled ffmpeg, the one on the PATH and the one named by $FFMPEG, each once."""
    paths = [os.environ.get("FFMPEG"), shutil.which("ffmpeg")]
    programs = [BUNDLED, *(find_program(path) for path in paths if path)]
    return list({os.path.realpath(program.path): program for program in programs}.values())


PROGRAMS = available_programs()
PROGRAM_IDS = [f"ffmpeg-{program.version}" for program in PROGRAMS]


def ffmpeg(*arguments: object) -> bytes:
    """Run the bundled program and return what it wrote to its standard output."""
    command = [BUNDLED.path, "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def make_clip(
    path: Path,
    *output_options: object,
    size: str = "32x24",
    frames: int = 5,
    rate: str = "25",
    filters: str = "null",
    sound: bool = False,
) -> Path:
    """A test pattern as `path`; `filters` are applied to it, `output_options` go to the encoder."""
    inputs = ["-copyts", "-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d=6000,{filters}"]
    if sound:
        inputs += ["-f", "lavfi", "-i", f"sine=440:d={frames / float(Fraction(rate))}"]
    ffmpeg(*inputs, "-frames:v", frames, "-fps_mode", "passthrough", *output_options, path)
    return path


def raw_planes(path: Path, pixel_format: str, sizes: list[tuple[int, int]]) -> list[list]:
    """Planes of every frame as the ffmpeg program decodes them, [frame][plane] (rows, columns)."""
    dtype = np.dtype(np.uint8 if not pixel_format.endswith("le") else np.uint16)
    raw = ffmpeg(
        *("-i", path, "-map", "0:v:0", "-fps_mode", "passthrough"),
        *("-f", "rawvideo", "-pix_fmt", pixel_format, "-"),
    )
    samples = np.frombuffer(raw, dtype)
    per_frame = sum(rows * columns for rows, columns in sizes)
    ends = np.cumsum([rows * columns for rows, columns in sizes])[:-1]
    return [
        [plane.reshape(size) for plane, size in zip(np.split(picture, ends), sizes, strict=True)]
        for picture in samples.reshape(-1, per_frame)
    ]


def video_times(path: Path) -> list[Fraction]:
    """Presentation times of the first video stream's frames, in seconds, exact."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.pts * frame.time_base for frame in container.decode(stream)]


def audio_packets(path: Path) -> list[tuple[float, bytes]]:
    """Time in seconds and bytes of each packet of the first audio stream."""
    with av.open(str(path)) as container:
        return [
            (float(packet.pts * packet.time_base), bytes(packet))
            for packet in container.demux(audio=0)
            if packet.size
        ]
