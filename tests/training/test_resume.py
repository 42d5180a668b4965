"""Interrupted at any moment and resumed, a training ends with the same bits."""

import itertools
import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from d3dnet import files
from d3dnet.training import state, train
from d3dnet.training.state import load_state, random_states, seed_all, set_random_states
from tests.training.conftest import same


def result(config):
    """The last state without what names the run's own folder."""
    last = load_state(Path(config.run) / "last.pt")
    last["config"].pop("run")
    return last


def log_of(config):
    lines = [json.loads(line) for line in open(f"{config.run}/log.jsonl")]
    return [{k: v for k, v in line.items() if k != "patches_per_second"} for line in lines]


def test_a_training_killed_at_any_moment_and_resumed_gives_identical_bits(tiny, start, tmp_path):
    """SIGKILL amid the epoch, several loader workers, augmentation, average, release of offsets."""
    options = {"steps": 30, "rigid_steps": 5, "workers": 2, "save_every": 4, "validate_every": 10}
    options |= {"pan_share": 0.5, "single_frames": 2}
    straight, killed = (tiny(run=run, **options) for run in ("straight", "killed"))
    (tmp_path / "killed.toml").write_text(killed.toml())
    process = start("-m", "d3dnet", "train", tmp_path / "killed.toml")
    log = Path(killed.run) / "log.jsonl"
    while not log.exists() or len(log.read_text().splitlines()) < 11:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 8 <= result(killed)["step"] < 30
    train(straight)
    train(killed)
    same(result(killed), result(straight))
    assert log_of(killed) == log_of(straight)
    best = [torch.load(f"{c.run}/best.pt", weights_only=True) for c in (killed, straight)]
    same(best[0]["average"], best[1]["average"])


class HalfAFile:
    """Stands in for an open file: it dies in the middle of a write."""

    def __init__(self, path, mode):
        self.file = open(path, mode, buffering=0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        die()


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("where", "name", "instead"),
    [(files, "open", die), (files, "open", HalfAFile), (os, "fsync", die), (os, "replace", die)],
)
def test_a_kill_during_a_save_leaves_the_state_before_it(tmp_path, where, name, instead):
    path = tmp_path / "last.pt"
    state.save_state(path, {"step": 1, "weights": [0.5] * 1000})
    child = os.fork()
    if child == 0:
        try:
            setattr(where, name, instead)
            state.save_state(path, {"step": 2})
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert state.load_state(path)["step"] == 1
    state.save_state(path, {"step": 2})
    assert state.load_state(path)["step"] == 2


def test_resuming_continues_every_random_generator(tiny, tmp_path):
    def draw():
        return [random.random(), np.random.rand(), np.random.randn(), torch.rand(3).tolist()]

    seed_all(3)
    draw()
    torch.save(random_states(), tmp_path / "random.pt")
    expected = draw()
    draw()
    set_random_states(load_state(tmp_path / "random.pt"))
    assert draw() == expected


def test_a_resumed_training_takes_its_random_generators_from_the_state(tiny):
    train(tiny(steps=3))
    random.seed(99)
    torch.manual_seed(99)
    train(tiny(steps=6))
    resumed = result(tiny())
    train(tiny(run="straight"))
    same(resumed["random"], result(tiny(run="straight"))["random"])


def test_a_resumed_training_with_a_loss_scale_and_muon_gives_identical_bits(tiny):
    options = {"precision": "float16", "optimizer": "muon", "rigid_steps": 1}
    train(tiny(steps=6, **options), max_seconds=0)
    assert result(tiny())["step"] == 1
    train(tiny(**options))
    train(tiny(run="straight", **options))
    same(result(tiny()), result(tiny(run="straight")))
    assert result(tiny())["scaler"]["scale"] > 1


def test_settings_of_the_new_call_count(tiny):
    train(tiny(steps=3, schedule="step", halve_every=100))
    train(tiny(steps=4, schedule="step", halve_every=100, learning_rate=1e-7))
    rates = [line["learning_rate"] for line in log_of(tiny())]
    assert rates[2] == 4e-4
    assert rates[3] == 1e-7


def test_the_log_is_taken_up_after_the_saved_step(tiny):
    train(tiny(steps=3))
    with open(f"{tiny().run}/log.jsonl", "a") as log:
        log.write('{"step": 4, "loss": 1e9}\n{"step": 5, "lo')  # as a kill leaves it
    train(tiny(steps=6))
    log = log_of(tiny())
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert all(b["loss"] < 1 for _, b in itertools.pairwise(log))
