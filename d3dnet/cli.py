"""The command line: `d3dnet COMMAND ...`. It only reads arguments and says what happens.

Exit codes: 0 done, 1 the input, output or weights are at fault, 2 wrong usage, 130 interrupted.
"""

import argparse
import math
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import d3dnet
from d3dnet.metrics import PROTOCOLS

# Nothing that imports torch is imported here: `d3dnet --help` must be quick.
MODES = ("sequence", "window")
ON_ERROR = ("fail", "conceal", "stop")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = build_parser().parse_args(arguments)
    warnings.showwarning = _show_warning
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        _complain("interrupted; nothing was written")
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; keep Python from saying so again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("D3DNET_TRACEBACK"):
            raise
        _complain(_one_line(error))
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run`, a function of its options."""
    parser = argparse.ArgumentParser(prog="d3dnet", description=d3dnet.__doc__)
    parser.add_argument("--version", action="version", version=f"d3dnet {d3dnet.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_upscale(commands)
    _add_evaluate(commands)
    return parser


def _add_upscale(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "upscale",
        help="make videos four times larger",
        description="Make videos four times larger. The sound is copied, every frame keeps its "
        "time; what is compared of source and result is printed, then the path of the result.",
    )
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="a video file, or several; or a folder, a quoted glob or a printf pattern of images",
    )
    parser.add_argument(
        "output",
        metavar="OUTPUT",
        help="the result, such as big.mp4, big.mkv or images/%%06d.png; or a folder, for "
        "results named as their sources",
    )
    _add_network_options(parser)
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
        "--codec", default="libx264", help="video encoder of ffmpeg (default: %(default)s)"
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
    parser.add_argument(
        "--ffmpeg",
        metavar="PROGRAM",
        help="ffmpeg program (default: $FFMPEG, else the one on the PATH, else the bundled one)",
    )
    parser.set_defaults(run=_upscale)


def _add_network_options(
    parser: argparse.ArgumentParser,
    models: str = "bicubic, name of bundled weights, or a .safetensors or .pth.tar file",
) -> None:
    parser.add_argument("--model", default="d3dnet", help=f"{models} (default: %(default)s)")
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="arithmetic (default: %(default)s)"
    )


def _upscale(options: argparse.Namespace) -> int:
    output = Path(options.output)
    if len(options.inputs) == 1 and not output.is_dir():
        return _upscale_one(options, options.inputs[0], output)
    if not output.is_dir():
        raise NotADirectoryError(f"{output}: of several inputs OUTPUT is a folder; create it first")
    names = [Path(name) for name in options.inputs]
    if len({name.stem for name in names}) < len(names):
        raise ValueError("several inputs have the same name; their results would overwrite another")
    code = 0
    for name in names:
        try:
            _upscale_one(options, name, output / f"{name.stem}{_result_suffix(name)}")
        except Exception as error:
            if len(names) == 1 or os.environ.get("D3DNET_TRACEBACK"):
                raise
            _complain(_one_line(error))
            code = 1
    return code


def _result_suffix(name: Path) -> str:
    """The container of a result: that of its source where it can hold what the encoders make."""
    return name.suffix if name.suffix.lower() in (".mp4", ".m4v", ".mov", ".mkv", ".ts") else ".mkv"


def _upscale_one(options: argparse.Namespace, source: str | Path, output: Path) -> int:
    bar = None

    def progress(done: int, expected: int | None) -> None:
        nonlocal bar
        # The container's count is an estimate: never show more than all.
        total = max(done, expected) if expected else None
        if bar is None:
            from tqdm import tqdm

            bar = tqdm(desc="upscaling", unit=" frames", total=total, dynamic_ncols=True)
        bar.total = total
        bar.update(done - bar.n)

    def report(found: Any) -> None:
        if bar is not None:
            bar.close()
        print(found.table())

    try:
        path = d3dnet.upscale_video(
            source,
            output,
            model=options.model,
            device=options.device,
            precision=options.precision,
            mode=options.mode,
            cuts=options.cuts,
            scale=options.scale,
            height=options.height,
            width=options.width,
            start=options.start,
            end=options.end,
            frames=options.frames,
            deinterlace=options.deinterlace,
            on_error=options.on_error,
            fps=options.fps,
            sound=not options.no_audio,
            codec=options.codec,
            crf=options.crf,
            preset=options.preset,
            pix_fmt=options.pix_fmt,
            ffmpeg_args=options.ffmpeg_args,
            overwrite=options.overwrite,
            ffmpeg=options.ffmpeg,
            progress=progress,
            report=report,
        )
    finally:
        if bar is not None:
            bar.close()
    print(path)
    return 0


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="score a model, bicubic or ready frames on a test set",
        description="PSNR and SSIM on Vid4, SPMC-11 or Vimeo-90k, exactly as a protocol defines "
        "them, beside the published rows.",
    )
    parser.add_argument(
        "dataset", metavar="DATASET", help="Vid4, SPMC-11, Vimeo-90k, or a folder like them"
    )
    parser.add_argument(
        "--root", type=Path, required=True, help="folder that holds the data set's folder"
    )
    _add_network_options(parser, "bicubic, name of bundled weights, or a weights file")
    parser.add_argument(
        "--frames", type=Path, metavar="DIR", help="score ready frames, not a model"
    )
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default="d3dnet", help="how to score (%(default)s)"
    )
    parser.add_argument(
        "--mode", choices=MODES, default="sequence", help="how to run the network (%(default)s)"
    )
    parser.add_argument("--clips", nargs="+", metavar="NAME", help="only these clips")
    parser.add_argument(
        "--movie", action="store_true", help="also MOVIE and T-MOVIE (slow without a GPU)"
    )
    parser.add_argument(
        "--tof", action="store_true", help="also tOF, the difference of optical flows"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write everything as JSON")
    parser.add_argument("--csv", type=Path, metavar="PATH", help="also write a line per frame")
    parser.add_argument(
        "--report", type=Path, metavar="PATH", help="also write an HTML report with pictures"
    )
    parser.add_argument(
        "--expect", type=float, metavar="DB", help="exit with 1 unless the mean PSNR is this ..."
    )
    parser.add_argument(
        "--tolerance", type=float, default=0.05, metavar="DB", help="... within this (%(default)s)"
    )
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from d3dnet import report
    from d3dnet.evaluation import ClipFrames, evaluate, evaluate_frames

    for name in ("json", "csv", "report"):
        path = getattr(options, name)
        if path and not path.parent.is_dir():
            raise FileNotFoundError(f"--{name}: there is no folder {path.parent}; make it first")
    label = options.frames.name if options.frames else Path(options.model).name
    pictures = []

    def add_pictures(frames: ClipFrames) -> None:
        if options.report and len(pictures) < report.MAX_CLIPS:
            pictures.append(report.clip_pictures(frames, label))

    shared: dict[str, Any] = {
        "clips": options.clips,
        "movie": options.movie,
        "tof": options.tof,
        "on_clip": add_pictures,
        "progress": sys.stderr.isatty(),
    }
    if options.frames:
        result = evaluate_frames(
            options.frames, options.dataset, options.root, options.protocol, **shared
        )
    else:
        result = evaluate(
            options.model,
            options.dataset,
            options.root,
            options.protocol,
            options.mode,
            device=options.device,
            precision=options.precision,
            **shared,
        )
    print(result.table())
    if options.json:
        options.json.write_text(result.to_json() + "\n")
    if options.csv:
        options.csv.write_text(result.to_csv())
    if options.report:
        options.report.write_text(report.html_report(result, pictures), encoding="utf-8")
    if options.expect is None or math.isclose(
        result.psnr, options.expect, rel_tol=0, abs_tol=options.tolerance
    ):
        return 0
    _complain(f"expected {options.expect} dB within {options.tolerance}, got {result.psnr:.4f}")
    return 1


def _quality(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"got {text!r}; a number from 0 to 100 is accepted")
    return value


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    known = type(error).__module__.startswith("d3dnet") or isinstance(error, (ValueError, OSError))
    return text if known else f"{type(error).__name__}: {text}"


def _complain(message: str) -> None:
    print(f"d3dnet: {message}", file=sys.stderr)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _complain(f"warning: {' '.join(str(message).split())}")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
