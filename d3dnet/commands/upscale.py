"""`d3dnet upscale`: videos and images four times larger; `d3dnet join`: of shares made apart."""

import argparse
import os
import shlex
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from d3dnet.commands.common import Commands, add_network_options, add_plan_options, one_line
from d3dnet.errors import exit_code
from d3dnet.network import MODES
from d3dnet.video import DEFAULT_CODEC, ON_ERROR
from d3dnet.video.names import is_hidden, looks_like_image, looks_like_video

if TYPE_CHECKING:
    from d3dnet.job.settings import Settings
    from d3dnet.job.workers import Workers

AT_ONCE = 8  # videos whose segments are handed out at the same time, at most


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "upscale",
        help="make videos four times larger",
        description="Make videos four times larger. The sound is copied, every frame keeps its "
        "time; what is compared of source and result is printed, then the path of the result.",
    )
    _add_settings(parser)
    spread = parser.add_argument_group("several machines or devices", "see docs/long-videos.md")
    spread.add_argument(
        "--segment", metavar="I/N", help="make only share I of N of the segments; then: d3dnet join"
    )
    spread.add_argument(
        "--ray", metavar="ADDRESS", help="make segments on a Ray cluster: auto, local or an address"
    )
    spread.add_argument("--cpus-per-task", type=_count, metavar="N", help="with --ray (up to 4)")
    spread.add_argument(
        "--gpus-per-task", type=_quality, metavar="X", help="with --ray (1, where there are any)"
    )

    joining = commands.add_parser(
        "join",
        help="make the result of segments that were made with upscale --segment",
        description="Join the shares that d3dnet upscale --segment has made, with the same "
        "arguments; prints what that prints.",
    )
    _add_settings(joining)
    joining.set_defaults(segment="join", ray=None)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="a video file, or several, or a folder of them; or a folder, a quoted glob or a "
        "printf pattern of images",
    )
    parser.add_argument(
        "output",
        metavar="OUTPUT",
        help="the result, such as big.mp4, big.mkv or images/%%06d.png; of one image or frame also "
        "big.png; or a folder, for results named as their sources, and for images of images",
    )
    add_network_options(parser, devices="; or several, as cuda:0,1")
    add_plan_options(parser)
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="sequence",
        help="sequence: computes features once, the fastest (default); "
        "window: 7 frames for each, as published",
    )
    parser.add_argument(
        "--cuts",
        default="auto",
        metavar="auto|off|FILE",
        help="where shots begin, which are kept apart: detected (default), nowhere, or a text file "
        "of times, one a line",
    )
    size = parser.add_argument_group("size", "at most four times larger (default)")
    size.add_argument("--scale", type=float, metavar="S", help="such as 2, 3 or 1.5")
    size.add_argument("--height", type=int, metavar="ROWS", help="such as 1080")
    size.add_argument("--width", type=int, metavar="COLUMNS", help="such as 1920")
    part = parser.add_argument_group("what is read")
    part.add_argument("--start", metavar="TIME", help="seconds or h:mm:ss.sss, as the file counts")
    part.add_argument("--end", metavar="TIME", help="the first frame that is left out")
    part.add_argument("--frames", type=int, metavar="N", help="at most so many")
    part.add_argument("--fps", default=25, metavar="RATE", help="of images as input (25)")
    part.add_argument("--no-audio", action="store_true", help="leave the sound out")
    part.add_argument("--deinterlace", action="store_true", help="make whole frames of fields")
    part.add_argument(
        "--on-error",
        choices=ON_ERROR,
        default="fail",
        help="where the file is damaged: fail (default), conceal (repeat the last good frame) or "
        "stop (keep what is before)",
    )
    encoder = parser.add_argument_group("encoder")
    encoder.add_argument(
        "--codec", default=DEFAULT_CODEC, help="video encoder of ffmpeg (default: %(default)s)"
    )
    encoder.add_argument(
        "--crf", type=_quality, help="quality of the encoder, lower is better (libx264: 18)"
    )
    encoder.add_argument("--preset", help="speed of the encoder, as it names them")
    encoder.add_argument("--pix-fmt", metavar="NAME", help="default: what keeps the most")
    encoder.add_argument(
        "--ffmpeg-args",
        type=shlex.split,
        default=(),
        metavar="WORDS",
        help="further words for ffmpeg, in one: --ffmpeg-args='-tune film'",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing OUTPUT")
    work = parser.add_argument_group("unfinished work", "the same command goes on with it")
    work.add_argument(
        "--work-dir", metavar="DIR", help="keep it in a folder in this one, not beside OUTPUT"
    )
    work.add_argument("--restart", action="store_true", help="forget it")
    told = parser.add_argument_group("what is told")
    told.add_argument("--json", action="store_true", help="events on stdout, a JSON object a line")
    told.add_argument("-q", "--quiet", action="store_true", help="only errors, and the result")
    told.add_argument("-v", "--verbose", action="store_true", help="also every segment")
    told.add_argument(
        "--strict", action="store_true", help="exit with 5 if all is done, but with warnings"
    )
    parser.add_argument(
        "--ffmpeg",
        metavar="PROGRAM",
        help="ffmpeg program (default: $FFMPEG, else the one on the PATH, else the bundled one)",
    )
    parser.set_defaults(run=_run, interrupted=4)


def _run(options: argparse.Namespace) -> int:
    code = _upscale_all(options)
    return 5 if options.strict and code == 0 and options.console.warnings else code


def _upscale_all(options: argparse.Namespace) -> int:
    from d3dnet.job import upscale as job

    settings, show = _settings(options), options.console.show
    output = Path(options.output)
    if len(options.inputs) == 1 and not output.is_dir():
        with _workers(options) as workers:
            segment = options.segment
            job.upscale(
                options.inputs[0], output, settings, segment=segment, workers=workers, watch=show
            )
        return 0
    if not output.is_dir():
        raise NotADirectoryError(f"{output}: of several inputs OUTPUT is a folder; create it first")
    names = [video for name in options.inputs for video in _videos(Path(name))]
    if len({name.stem for name in names}) < len(names):
        raise ValueError("several inputs have the same name; their results would overwrite another")
    alone = len(names) == 1

    def upscale(workers: "Workers | None", name: Path) -> int:
        watch = partial(show, video="" if alone or workers is None else str(name))
        result, segment = output / _result_name(name, alone), options.segment
        try:
            job.upscale(name, result, settings, segment=segment, workers=workers, watch=watch)
        except Exception as error:
            if alone or os.environ.get("D3DNET_TRACEBACK"):
                raise
            options.console.complain(one_line(error), exit_code(error))
            return exit_code(error)
        return 0

    with _workers(options) as workers:
        if workers is None:
            codes = [upscale(None, name) for name in names]
        else:  # their segments are one list of tasks
            codes = _at_once(partial(upscale, workers), names, workers)
    return next(filter(None, codes), 0)


def _at_once(upscale: Callable[[Path], int], names: list[Path], workers: "Workers") -> list[int]:
    with ThreadPoolExecutor(min(AT_ONCE, workers.count + 1)) as threads:
        codes = [threads.submit(upscale, name) for name in names]
        try:
            return [code.result() for code in codes]
        except BaseException:
            workers.stopped.set()
            threads.shutdown(cancel_futures=True)
            raise


def _workers(options: argparse.Namespace) -> "AbstractContextManager[Workers | None]":
    """Where the segments are made; None: here."""
    from d3dnet.job.local_workers import workers_of
    from d3dnet.job.ray_workers import Cluster

    if options.ray is None:
        return workers_of(options.device, None)
    if "," in options.device:
        raise ValueError("device: with --ray it is one, as auto or cuda; Ray chooses which")
    return Cluster(options.ray, options.device, options.cpus_per_task, options.gpus_per_task)


def _videos(name: Path) -> list[Path]:
    """The videos in a folder; or what it is itself: a file, or a folder of images."""
    files = sorted(name.iterdir()) if name.is_dir() else []
    files = [file for file in files if not is_hidden(file)]
    videos, images = (list(filter(kind, files)) for kind in (looks_like_video, looks_like_image))
    if videos and images:
        raise ValueError(
            f"{name}: holds videos ({videos[0].name} ...) and images ({images[0].name} ...); name "
            "what is meant, such as the videos themselves"
        )
    return videos or [name]


def _result_name(name: Path, alone: bool) -> str:
    """The name of a result in a folder: an image of an image, images of images, else a container.

    That of its source, where it can hold what the encoders make.
    """
    from d3dnet.video.images import DEFAULT_NAME

    if name.is_file() and looks_like_image(name):
        return f"{name.stem.replace('%', '')}.png"
    if name.is_dir() or looks_like_image(name):
        return DEFAULT_NAME if alone else f"{name.stem.replace('%', '')}-{DEFAULT_NAME}"
    kept = name.suffix.lower() in (".mp4", ".m4v", ".mov", ".mkv", ".ts")
    return name.stem + (name.suffix if kept else ".mkv")


def _settings(options: argparse.Namespace) -> "Settings":
    """All that is the same for every input."""
    from d3dnet.job.settings import Settings, cuts_of, reading_of, work_folder_of
    from d3dnet.video.target import Encoding, Size

    return Settings(
        model=options.model,
        device=options.device,
        precision=options.precision,
        mode=options.mode,
        tile=options.tile,
        max_memory=options.max_memory,
        cuts=cuts_of(options.cuts),
        size=Size(options.scale, options.height, options.width),
        reading=reading_of(
            options.start,
            options.end,
            options.frames,
            options.deinterlace,
            options.on_error,
            options.fps,
        ),
        encoding=Encoding(
            options.codec, options.crf, options.preset, options.pix_fmt, tuple(options.ffmpeg_args)
        ),
        sound=not options.no_audio,
        overwrite=options.overwrite,
        ffmpeg=options.ffmpeg,
        work_folder=work_folder_of(options.work_dir),
        restart=options.restart,
    )


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; accepted is a number from 1 up")
    return int(text)


def _quality(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"got {text!r}; a number from 0 to 100 is accepted")
    return value
