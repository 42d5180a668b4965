"""Print what motion between two neighbouring frames costs, by size, beside DIS's other presets.

usage: benchmark_motion.py [ROUNDS]

The frames are the sample clip's, resized. Times are CPU milliseconds on one thread, medians over
interleaved rounds; a frame of a video needs one pair. `median error` is that of a known pan of 2.5
by 1.25 pixels, in pixels.
"""

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np

from d3dnet.network.motion import dense_flow, pair_motion

SIZES = ((180, 320), (270, 480), (360, 640), (540, 960), (720, 1280), (1080, 1920))
SAMPLE = Path(__file__).parents[1] / "data" / "sample.mp4"
PAN = (1.25, 2.5)  # rows, columns
Method = Callable[[np.ndarray, np.ndarray], object]


def sample_frames() -> list[np.ndarray]:
    """Luma of two neighbouring frames of the sample clip."""
    with av.open(str(SAMPLE)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    return frames[:2]


def preset(number: int) -> Method:
    """DIS at the frames' own size, both ways, without a confidence."""

    def run(first: np.ndarray, second: np.ndarray) -> object:
        return dense_flow(first, second, number), dense_flow(second, first, number)

    return run


METHODS: dict[str, Method] = {
    "d3dnet (medium, enlarged twice)": pair_motion,
    "medium": preset(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
    "fast": preset(cv2.DISOPTICAL_FLOW_PRESET_FAST),
    "ultrafast": preset(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST),
}


def median_error() -> dict[str, float]:
    """How far each method is from a known motion."""
    frame = cv2.resize(sample_frames()[0], (320, 180), interpolation=cv2.INTER_AREA)
    move = np.array([[1, 0, PAN[1]], [0, 1, PAN[0]]], np.float32)
    moved = cv2.warpAffine(frame, move, (320, 180), flags=cv2.INTER_CUBIC)
    errors = {}
    for name, method in METHODS.items():
        there = method(frame, moved)[0]  # type: ignore[index]  # a pair of arrays
        rows_first = there[:2] if there.shape[0] == 3 else there.transpose(2, 0, 1)[::-1]
        away = rows_first - np.array(PAN, np.float32)[:, None, None]
        errors[name] = float(np.median(np.hypot(*away[:, 16:-16, 16:-16])))
    return errors


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    cv2.setNumThreads(1)
    taken: dict[tuple[str, tuple[int, int]], list[float]] = defaultdict(list)
    frames = sample_frames()
    for _ in range(rounds):
        for size in SIZES:
            pair = [cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA) for frame in frames]
            for name, method in METHODS.items():
                start = time.process_time()
                method(*pair)
                taken[name, size].append(1000 * (time.process_time() - start))
    errors = median_error()
    sizes = " | ".join(f"{width}×{height}" for height, width in SIZES)
    print(f"| method | median error | {sizes} |\n| --- | --- {'| --- ' * len(SIZES)}|")
    for name in METHODS:
        cells = " | ".join(f"{statistics.median(taken[name, size]):.1f}" for size in SIZES)
        print(f"| {name} | {errors[name]:.3f} | {cells} |")


if __name__ == "__main__":
    main()
