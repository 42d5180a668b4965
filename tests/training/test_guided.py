"""Trainings of the network that follows motion."""

import json
from pathlib import Path

import pytest
import torch

from d3dnet.network.checkpoints import load_model, save_weights
from d3dnet.network.guided import GuidedD3Dnet
from d3dnet.training import train
from d3dnet.training.processes import Processes
from d3dnet.training.samples import open_samples
from tests.training.conftest import same

GUIDED = {
    "network": "guided",
    "near": 4,
    "rigid_steps": 0,
    "scene_share": 0.5,
    "flat_weight": 1.0,
    "still_frames": 4,
}


def state_of(config):
    return torch.load(f"{config.run}/last.pt", weights_only=True)


def test_a_guided_network_learns_and_its_weights_load(tiny, tmp_path):
    config = tiny(steps=20, learning_rate=1e-3, **GUIDED)
    train(config)
    log = [json.loads(line) for line in Path(config.run, "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"]
    average = state_of(config)["average"]
    weight = average["residual_layer.0.dcn0.weight"]
    assert weight[:, 8:].any()  # what it takes of its neighbours began at zero
    save_weights(tmp_path / "w.safetensors", average, {})
    model = load_model(tmp_path / "w.safetensors", device="cpu", precision="float32")
    assert isinstance(model, GuidedD3Dnet)
    assert (model.channels, model.near, model.both, model.joined) == (8, 4, False, 1)


def test_a_training_that_was_broken_off_goes_on_to_the_same_bits(tiny):
    whole, parts = tiny(run="whole", **GUIDED), tiny(run="parts", steps=3, **GUIDED)
    train(whole)
    train(parts)
    train(tiny(run="parts", **GUIDED))
    for part in ("model", "average", "optimizer"):
        same(state_of(whole)[part], state_of(tiny(run="parts"))[part])


def test_single_frames_teach_what_a_frame_has_by_itself(tiny):
    config = tiny(**(GUIDED | {"frames": 1, "batch": 4, "flat_weight": 0.0}))
    train(config)
    weight = state_of(config)["model"]["residual_layer.0.dcn0.weight"]
    assert weight[:, :8].any() and not weight[:, 8:].any()


def test_samples_are_of_guided_frames_and_held_out_clips_are_not(tiny):
    samples, held_out = open_samples(tiny(**GUIDED), Processes(0, 1, torch.device("cpu")))
    assert {samples[index][0].shape for index in range(4)} == {(7, 3, 8, 8)}
    assert [clip.motion for clip in held_out] == [None]


@pytest.mark.parametrize("setting", [{"pan_share": 0.5}, {"single_frames": 2}, {"rigid_steps": 3}])
def test_settings_of_the_published_network_alone_are_refused(tiny, setting):
    with pytest.raises(ValueError, match="guided network"):
        tiny(**(GUIDED | setting))
