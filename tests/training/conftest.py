import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from d3dnet.training import TrainingConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="package")
def clips_folder(tmp_path_factory):
    """Three stills of smooth noise: clips are made of them by panning."""
    folder = tmp_path_factory.mktemp("stills")
    rng = np.random.default_rng(0)
    for name in ("urban_1", "urban_2", "urban_3"):
        still = cv2.GaussianBlur(rng.integers(0, 256, (64, 80, 3), np.uint8), (0, 0), 1.5)
        cv2.imwrite(str(folder / f"{name}.png"), still)
    return folder


@pytest.fixture
def tiny(clips_folder, tmp_path):
    """Settings of a training of a tiny network; ``tiny(run="a", steps=9)`` changes some."""

    def settings(run="run", **changes):
        values = {
            "root": str(clips_folder),
            "held_out": ("urban_2",),
            "channels": 8,
            "resd3d_blocks": 1,
            "res_blocks": 1,
            "steps": 6,
            "rigid_steps": 3,
            "frames": 3,
            "patch": 8,
            "batch": 2,
            "warmup_steps": 2,
            "ema": 0.9,
            "clip_norm": 0.01,
            "log_every": 1,
            "validate_every": 3,
            "save_every": 3,
            "pictures": 1,
            "device": "cpu",
        }
        return TrainingConfig(run=str(tmp_path / run), **(values | changes))

    return settings


@pytest.fixture
def start(tmp_path):
    """Start `python ARGUMENTS` in a process of its own, with as many threads as this one."""
    started = []

    def start_process(*arguments, **more):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        }
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )
        started.append(process)
        return process

    yield start_process
    for process in started:
        process.kill()
        process.communicate()


def same(a, b, where="state"):
    """Assert that two states are equal, tensors to the bit."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, pair in enumerate(zip(a, b, strict=True)):
            same(*pair, f"{where}.{index}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where
