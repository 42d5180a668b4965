"""Measure drawing Vimeo-90k patches from a packed store against decoding the images.

Prints a markdown table: samples per second of CPU time, medians of interleaved runs, and the ratio
to the images as downloaded with ``LR_x4/`` (14 PNGs a sample). A sample is 7 frames of 32x32 at low
resolution, 128x128 at high. The septuplets (448x256) are made of a photograph that moves; what the
system has cached is not read from a disk again, so that decoding is measured, and not the disk.

    python scripts/benchmark_loading.py --repeats 7
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import skimage

from d3dnet.datasets.clips import Clips
from d3dnet.datasets.imresize import degrade
from d3dnet.datasets.luma_store import LumaStore, pack
from d3dnet.datasets.patches import EpochPatches
from d3dnet.datasets.stills import follow, random_path
from d3dnet.datasets.vimeo90k import TRAIN_LIST, Vimeo90k

HEIGHT, WIDTH, FRAMES = 256, 448, 7


def make_septuplets(root: Path, count: int) -> None:
    """``count`` septuplets with their low-resolution frames, as downloaded ones are."""
    still: np.ndarray = skimage.data.astronaut()
    height, width = still.shape[:2]
    for number in range(1, count + 1):
        path = random_path(FRAMES, height, width, np.random.default_rng(number))
        for side in ("sequences", "LR_x4"):
            (root / side / "00001" / f"{number:04}").mkdir(parents=True)
        for place, frame in enumerate(follow(still, path), 1):
            hr = np.ascontiguousarray(frame[:HEIGHT, :WIDTH, ::-1])
            for side, image in (("sequences", hr), ("LR_x4", degrade(hr, "double"))):
                cv2.imwrite(str(root / side / "00001" / f"{number:04}" / f"im{place}.png"), image)
    names = [f"00001/{number:04}" for number in range(1, count + 1)]
    (root / TRAIN_LIST).write_text("\n".join(names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--septuplets", type=int, default=16)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_septuplets(root, args.septuplets)
        read, made = Vimeo90k(root), Vimeo90k(root, make_lr=True)
        pack(read, root / "store", {})
        sources: dict[str, tuple[Clips, int]] = {
            "images with `LR_x4/`": (read, args.septuplets),
            "images, low resolution made on the fly": (made, args.septuplets),
            "packed store": (LumaStore(root / "store"), 40 * args.septuplets),
        }
        seconds: dict[str, list[float]] = {name: [] for name in sources}
        for repeat in range(args.repeats + 1):
            for name, (source, samples) in sources.items():
                patches = EpochPatches(source, FRAMES, 32, seed=repeat)
                started = time.process_time()
                for index in range(samples):
                    patches[index]
                seconds[name].append((time.process_time() - started) / samples)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    baseline = next(iter(medians.values()))
    print("| drawn from | samples per CPU second | ratio |\n| --- | --- | --- |")
    for name, median in medians.items():
        print(f"| {name} | {1 / median:.0f} | {baseline / median:.1f} |")


if __name__ == "__main__":
    main()
