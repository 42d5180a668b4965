"""Draw docs/before-after.png: a crop of the sample clip, bicubic beside d3dnet.

    python scripts/make_readme_picture.py [--frame N] [--crop Y X SIZE]

Upscales data/sample.mp4 with the tool itself (lossless), decodes one frame of both files and prints
the path of the picture.
"""

import argparse
import tempfile
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from d3dnet import upscale_video
from d3dnet.datasets.frames import iterate_frames
from d3dnet.datasets.imresize import imresize

ROOT = Path(__file__).parents[1]


def frame_of(path: Path, index: int) -> np.ndarray:
    """Frame ``index`` of a video, (H, W, 3) uint8 RGB."""
    return next(islice(iterate_frames(path), index, None))[1]


def labelled(image: np.ndarray, text: str) -> np.ndarray:
    bar = np.full((28, image.shape[1], 3), 255, np.uint8)
    cv2.putText(bar, text, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([bar, image])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frame", type=int, default=30)
    parser.add_argument("--crop", type=int, nargs=3, default=(20, 40, 80), metavar=("Y", "X", "N"))
    args = parser.parse_args()
    sample = ROOT / "data" / "sample.mp4"
    with tempfile.TemporaryDirectory() as folder:
        result = upscale_video(sample, Path(folder) / "x4.mkv", codec="ffv1")
        ours = frame_of(result, args.frame)
    bicubic = imresize(frame_of(sample, args.frame), 4)
    y, x, size = (4 * value for value in args.crop)
    crops = [image[y : y + size, x : x + size] for image in (bicubic, ours)]
    gap = np.full((size + 28, 8, 3), 255, np.uint8)
    left, right = (labelled(*pair) for pair in zip(crops, ("bicubic", "d3dnet"), strict=True))
    picture = ROOT / "docs" / "before-after.png"
    cv2.imwrite(str(picture), np.hstack([left, gap, right])[..., ::-1])
    print(picture)


if __name__ == "__main__":
    main()
