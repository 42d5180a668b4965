"""Training: learns, resumes to the bit, never sees what is held out."""

import itertools
import json

import cv2
import numpy as np
import pytest
import torch

from d3dnet import training
from d3dnet.model import D3D, D3Dnet
from d3dnet.training import TrainingConfig, learning_rate_at, override, set_rigid, train

TINY = TrainingConfig(
    channels=8,
    resd3d_blocks=1,
    res_blocks=1,
    steps=6,
    rigid_steps=3,
    batch=1,
    frames=3,
    patch=8,
    warmup_steps=2,
    validate_every=3,
    save_every=3,
    held_out=("urban_2",),
)


@pytest.fixture(scope="module")
def clips_folder(tmp_path_factory):
    """Three stills of smooth noise: clips are made of them by panning."""
    folder = tmp_path_factory.mktemp("stills")
    rng = np.random.default_rng(0)
    for name in ("urban_1", "urban_2", "urban_3"):
        still = cv2.GaussianBlur(rng.integers(0, 256, (64, 80, 3), np.uint8), (0, 0), 1.5)
        cv2.imwrite(str(folder / f"{name}.png"), still)
    return folder


def state_of(path):
    return torch.load(path, weights_only=True)


def test_a_resumed_training_gives_bit_identical_weights(clips_folder, tmp_path, monkeypatch):
    straight = state_of(train(TINY, clips_folder, tmp_path / "a" / "run"))
    train(override(TINY, ["steps=6"]), clips_folder, tmp_path / "b" / "run", max_seconds=0)
    interrupted = tmp_path / "b" / "run" / "state.pt"
    assert state_of(interrupted)["step"] == 0

    class StopError(Exception):
        pass

    class PatchesThenDeath(training.ClipPatches):
        def __getitem__(self, index):
            if index == 4:  # after the save at step 3
                raise StopError
            return super().__getitem__(index)

    with monkeypatch.context() as patched, pytest.raises(StopError):
        patched.setattr(training, "ClipPatches", PatchesThenDeath)
        train(TINY, clips_folder, tmp_path / "b" / "run")
    assert state_of(interrupted)["step"] == 3
    resumed = state_of(train(TINY, clips_folder, tmp_path / "b" / "run"))
    assert resumed["step"] == straight["step"] == 6
    for part in ("model", "average"):
        for name, value in straight[part].items():
            assert torch.equal(value, resumed[part][name]), name


def test_training_lowers_the_loss_and_logs_validation(clips_folder, tmp_path):
    config = override(TINY, ["steps=60", "rigid_steps=60", "save_every=20", "validate_every=60"])
    train(config, clips_folder, tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [20, 40, 60]
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["validation_psnr"] > 20


def test_held_out_sources_are_never_drawn(clips_folder, tmp_path, monkeypatch):
    drawn = set()

    def spy(clips, *arguments):
        drawn.update(clip.name for clip in clips)
        return make(clips, *arguments)

    make = training.ClipPatches
    monkeypatch.setattr(training, "ClipPatches", spy)
    train(override(TINY, ["steps=1"]), clips_folder, tmp_path / "run")
    assert drawn == {"urban_1", "urban_3"}


def test_offset_convolutions_rest_while_rigid_and_learn_afterwards(clips_folder, tmp_path):
    def offsets(config):
        state = state_of(train(config, clips_folder, tmp_path / "run"))
        return [value for name, value in state["model"].items() if "conv_offset" in name]

    assert all(not value.any() for value in offsets(override(TINY, ["steps=3"])))
    assert all(value.any() for value in offsets(TINY))


def test_set_rigid_reaches_every_deformable_layer():
    model = D3Dnet(channels=4)
    set_rigid(model, True)
    assert all(layer.rigid for layer in model.modules() if isinstance(layer, D3D))
    set_rigid(model, False)
    assert not any(layer.rigid for layer in model.modules() if isinstance(layer, D3D))


def test_the_learning_rate_warms_up_and_ends_at_its_final_value():
    config = TrainingConfig(steps=1000, warmup_steps=100)
    rates = [learning_rate_at(step, config) for step in range(1001)]
    assert rates[0] == pytest.approx(config.learning_rate / 100)
    assert max(rates) == pytest.approx(config.learning_rate)
    assert rates[99] == pytest.approx(config.learning_rate)
    assert rates[1000] == pytest.approx(config.final_learning_rate)
    assert all(a >= b for a, b in itertools.pairwise(rates[100:]))


def test_a_loss_that_is_not_finite_stops_with_a_clear_message(clips_folder, tmp_path):
    config = override(TINY, ["learning_rate=1e30", "warmup_steps=0", "clip_norm=1e30"])
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        train(config, clips_folder, tmp_path / "run")


def test_unknown_settings_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="learning_speed: no such setting"):
        override(TINY, ["learning_speed=1"])
    with pytest.raises(ValueError, match="no clips found"):
        train(TINY, tmp_path, tmp_path / "run")
