"""A training begins where little is installed: torch, numpy, OpenCV, safetensors and tqdm."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

WITHOUT = ("av", "ffmpeg", "imageio_ffmpeg", "psutil", "scipy", "skimage", "ray", "tensorboard")
PROGRAM = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None  # importing it is an error
from d3dnet.cli import main
sys.exit(main(sys.argv[2:]))
"""


def write_video(path: Path, frames: int, height: int, width: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (width, height))
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    for n in range(frames):
        frame = cv2.resize(np.roll(small, n, 1), (width, height), interpolation=cv2.INTER_CUBIC)
        writer.write(frame)
    writer.release()


def test_a_training_takes_a_step_and_validates_without_anything_else(tmp_path):
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips" / "one_0.mp4", 7, 96, 128)
    write_video(tmp_path / "clips" / "two_0.mp4", 7, 96, 128)
    settings = {
        "root": tmp_path / "clips", "run": tmp_path / "run", "steps": 1, "channels": 4,
        "resd3d_blocks": 1, "res_blocks": 1, "batch": 1, "patch": 16, "workers": 0,
        "held_out": '["two"]', "device": "cpu",
    }  # fmt: skip
    arguments = ["train", "clips", "--set", *(f"{name}={v}" for name, v in settings.items())]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, ",".join(WITHOUT), *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "best.pt").exists()
