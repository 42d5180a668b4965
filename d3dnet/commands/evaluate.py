"""`d3dnet evaluate`: scores on a test set."""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from d3dnet.commands.common import Commands, add_network_options, complain
from d3dnet.evaluation.protocols import PROTOCOLS
from d3dnet.network import MODES


def add(commands: Commands) -> None:
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
    add_network_options(parser)
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
        "--bd",
        action="store_true",
        help="low-resolution frames by Gaussian blur and decimation, not bicubic",
    )
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
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from d3dnet.evaluation import report
    from d3dnet.evaluation.evaluate import ClipFrames, evaluate, evaluate_frames

    for name in ("json", "csv", "report"):
        path = getattr(options, name)
        if path and not path.parent.is_dir():
            raise FileNotFoundError(f"--{name}: there is no folder {path.parent}; make it first")
    label = options.frames.name if options.frames else Path(options.model).name
    pictures: list[report.ClipPictures] = []

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
    if options.frames and options.bd:
        raise ValueError("--bd: goes with a model; ready frames (--frames) are scored as they are")
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
            bd=options.bd,
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
    complain(f"expected {options.expect} dB within {options.tolerance}, got {result.psnr:.4f}")
    return 1
