"""What is asked for, whatever the input and the output."""

import os
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal

from torch import nn

from d3dnet.network import Mode, check_mode
from d3dnet.video import OnError
from d3dnet.video.reading import Reading
from d3dnet.video.scenes import read_cuts
from d3dnet.video.target import Encoding, Size
from d3dnet.wording import parse_time

Cuts = Literal["auto", "off"] | list[Fraction]
Time = str | float | Fraction


@dataclass(frozen=True)
class Settings:
    """How a video is upscaled.

    Attributes:
        model: a name or path for `d3dnet.load_model`, or a loaded network.
        device, precision: as for `d3dnet.load_model`; or several devices, "cuda:0,1".
        mode, tile, max_memory: as for `d3dnet.network.plan.make_plan`.
        cuts: as for `d3dnet.video.scenes.shots`.
        size, reading, encoding: of the result, the source and the encoder.
        sound: whether it is kept.
        overwrite: replace an existing result.
        ffmpeg: path of the program; None for the one that is found.
        work_folder: where the folder of unfinished work is; None for beside the result.
        restart: forget unfinished work that is there.
    """

    model: str | os.PathLike[str] | nn.Module = "d3dnet"
    device: str = "auto"
    precision: str = "auto"
    mode: Mode = "sequence"
    tile: int | None = None
    max_memory: int | None = None
    cuts: Cuts = "auto"
    size: Size = field(default_factory=Size)
    reading: Reading = field(default_factory=Reading)
    encoding: Encoding = field(default_factory=Encoding)
    sound: bool = True
    overwrite: bool = False
    ffmpeg: str | os.PathLike[str] | None = None
    work_folder: Path | None = None
    restart: bool = False

    def __post_init__(self) -> None:
        check_mode(self.mode)


def cuts_of(text: str | os.PathLike[str]) -> Cuts:
    """Where shots begin: "auto", "off", or the times in a file.

    Raises:
        InputError: no such file, or not a list of times.
    """
    if text == "auto":
        return "auto"
    return "off" if text == "off" else read_cuts(text)


def reading_of(
    start: Time | None = None,
    end: Time | None = None,
    frames: int | None = None,
    deinterlace: bool = False,
    on_error: OnError = "fail",
    fps: str | float | Fraction = 25,
) -> Reading:
    """What is read of a source, from words as people write them.

    >>> reading_of("0:01.5", fps="24").start
    Fraction(3, 2)

    Raises:
        ValueError: a time that is none, or a value out of its range.
    """
    return Reading(
        start=None if start is None else parse_time(str(start)),
        end=None if end is None else parse_time(str(end)),
        frames=frames,
        deinterlace=deinterlace,
        on_error=on_error,
        image_rate=Fraction(str(fps)),
    )


def work_folder_of(name: str | os.PathLike[str] | None) -> Path | None:
    """The absolute path of a folder for unfinished work."""
    return None if name is None else Path(os.path.abspath(name))
