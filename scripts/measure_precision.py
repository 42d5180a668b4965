"""What a precision costs and gives: held-out training clips, on this machine.

Prints a markdown table: for each precision the mean luma PSNR over the held-out clips (first 7
frames, 8 pixels cut, sequence mode), its difference to float32, and the frames a second at
320x180 that the speed test finds. On a CPU float16 is left out unless asked for: it took 20 times
as long as float32. The fastest that costs less than 0.02 dB is what `--precision
auto` should choose on such a machine.

    python scripts/measure_precision.py CLIPS [--frames 7] [--crop 96]
"""

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch

from d3dnet.datasets.clips import Clip, find_sources, load_clip
from d3dnet.network import PRECISIONS, SCALE
from d3dnet.network.checkpoints import load_model, resolve_device
from d3dnet.network.speed import pixels_per_second
from d3dnet.ops import instruction_set
from d3dnet.training.validation import validate

HELD_OUT = ("davis_libby", "cut3r_hall", "sam2_dog", "udacity_road")
MOST_LOSS = 0.02  # dB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clips", type=Path, help="folder of training clips")
    parser.add_argument("--model", default="d3dnet")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--frames", type=int, default=7)
    parser.add_argument("--crop", type=int, default=96, help="rows and columns, of the middle")
    parser.add_argument("--held-out", nargs="+", default=HELD_OUT)
    parser.add_argument("--seconds", type=float, default=5, help="of each speed test")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="besides float32")
    args = parser.parse_args()
    sources = [s for s in find_sources(args.clips) if s.stem.startswith(tuple(args.held_out))]
    clips = [_middle(load_clip(source), args.frames, args.crop) for source in sources]
    device = resolve_device(args.device)
    rows = []
    others = args.precisions or (["bfloat16"] if device.type == "cpu" else [*PRECISIONS][1:])
    for precision in ("float32", *others):
        network = load_model(args.model, device, precision)
        scores = validate(network, clips, device=device)
        rows.append((precision, mean(scores), pixels_per_second(network, args.seconds)))
    exact = rows[0][1]
    kernel = instruction_set() if device.type == "cpu" else torch.cuda.get_device_name(device)
    print(f"{len(clips)} clips, {args.model}, {device} ({kernel}), torch {torch.__version__}\n")
    print("| precision | PSNR, dB | against float32, dB | frames a second, 320x180 |")
    print("| --- | --- | --- | --- |")
    for precision, score, speed in rows:
        fps = speed / (320 * 180)
        print(f"| {precision} | {score:.4f} | {score - exact:+.4f} | {fps:.3g} |")
    good = [row for row in rows if row[1] > exact - MOST_LOSS]
    print(f"\nfastest that costs less than {MOST_LOSS} dB: {max(good, key=lambda row: row[2])[0]}")


def _middle(clip: Clip, frames: int, size: int) -> Clip:
    """The middle of the first frames of a clip."""
    height, width = clip.lr.shape[1:]
    y, x = max(0, (height - size) // 2), max(0, (width - size) // 2)
    lr = clip.lr[:frames, y : y + size, x : x + size]
    y, x, size = SCALE * y, SCALE * x, SCALE * size
    return replace(clip, lr=lr, hr=clip.hr[:frames, y : y + size, x : x + size])


if __name__ == "__main__":
    main()
