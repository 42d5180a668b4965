"""The loop: it learns, never sees what is held out, and says what it does."""

import dataclasses
import json
import math
import multiprocessing
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from d3dnet.cli import main
from d3dnet.errors import ExplodedError
from d3dnet.network.checkpoints import load_model
from d3dnet.network.model import D3D, D3Dnet
from d3dnet.training import learner, loop, monitor, samples, train
from d3dnet.training.learner import set_rigid
from d3dnet.training.validation import offset_reach


def state_of(config):
    return torch.load(f"{config.run}/last.pt", weights_only=True)


def log_of(config):
    with open(f"{config.run}/log.jsonl") as lines:
        return [json.loads(line) for line in lines]


def test_training_lowers_the_loss_and_logs_validation(tiny):
    config = tiny(steps=30, rigid_steps=30, batch=1, log_every=10, validate_every=30, save_every=30)
    train(config)
    log = log_of(config)
    assert [entry["step"] for entry in log] == [10, 20, 30]
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["psnr"] == pytest.approx(-10 * math.log10(log[-1]["loss"]))
    assert log[-1]["validation_psnr"] > 20
    assert log[-1]["patches_per_second"] > 0


def test_the_run_folder_holds_best_and_last_state_settings_and_pictures(tiny):
    config = tiny()
    train(config)
    best = torch.load(f"{config.run}/best.pt", weights_only=True)
    psnrs = {e["step"]: e["validation_psnr"] for e in log_of(config) if "validation_psnr" in e}
    assert psnrs.keys() == {3, 6}
    assert best["best"] == psnrs[best["step"]] == max(psnrs.values())
    assert state_of(config)["step"] == 6
    assert state_of(config)["config"]["held_out"] == ("urban_2",)
    image = cv2.imread(f"{config.run}/pictures/step_0000006.png", cv2.IMREAD_GRAYSCALE)
    assert image.shape == (212, 4 * 192)
    assert not [name for name in os.listdir(config.run) if name.endswith(".part")]
    main(["train", f"{config.run}/config.toml"])  # has nothing left to do, and the same settings
    assert state_of(config)["config"] == dataclasses.asdict(config)


def test_pictures_show_lr_bicubic_ours_and_the_ground_truth_side_by_side():
    hr = np.full((1, 192, 192), 100 * 256, np.uint16)
    hr[:, :, 96:] = 200 * 256
    clip = loop.Clip("edge", hr, hr[:, 2::4, 2::4])
    panels = np.split(monitor.picture(clip, np.full((192, 192), 50 / 255), 0)[20:], 4, axis=1)
    for index in (0, 1, 3):
        assert set(panels[index][:, :88].ravel()) == {100}, index
        assert set(panels[index][:, -88:].ravel()) == {200}, index
    assert set(panels[2].ravel()) == {50}
    assert np.diff(panels[1][0].astype(int)).max() < 100  # bicubic is no step


def test_held_out_sources_are_never_drawn(tiny, monkeypatch):
    drawn = set()

    def spy(clips, *arguments):
        drawn.update(clip.name for clip in clips)
        return make(clips, *arguments)

    make = samples.ClipPatches
    monkeypatch.setattr(samples, "ClipPatches", spy)
    train(tiny(steps=1))
    assert drawn == {"urban_1", "urban_3"}


def test_offset_convolutions_rest_while_rigid_and_learn_afterwards(tiny):
    def offsets(config):
        train(config)
        return [value for name, value in state_of(config)["model"].items() if "conv_offset" in name]

    assert all(not value.any() for value in offsets(tiny(steps=3)))
    assert all(value.any() for value in offsets(tiny()))


def test_set_rigid_reaches_every_deformable_layer():
    model = D3Dnet(channels=4)
    set_rigid(model, True)
    assert all(layer.rigid for layer in model.modules() if isinstance(layer, D3D))
    set_rigid(model, False)
    assert not any(layer.rigid for layer in model.modules() if isinstance(layer, D3D))


@pytest.mark.parametrize("kind", ["mse", "charbonnier"])
def test_the_window_loss_is_that_of_the_centre_frame_and_the_sequence_loss_that_of_all(tiny, kind):
    torch.manual_seed(0)
    lr, hr = torch.rand(2, 1, 3, 8, 8), torch.rand(2, 1, 3, 32, 32)
    model = D3Dnet(channels=4, resd3d_blocks=1, res_blocks=1, window=3)
    of = {"mse": lambda d: d**2, "charbonnier": lambda d: (d**2 + 1e-6) ** 0.5}[kind]
    window = learner.Objective(model, tiny(mode="window", loss=kind))(lr, hr)
    difference = model(lr) - hr[:, :, 1]
    torch.testing.assert_close(window[0], of(difference).mean())
    torch.testing.assert_close(window[1], (difference**2).mean())
    sequence = learner.Objective(model, tiny(mode="sequence", loss=kind))(lr, hr)
    difference = model.forward_sequence(lr) - hr
    torch.testing.assert_close(sequence[0], of(difference).mean())
    torch.testing.assert_close(sequence[1], (difference**2).mean())
    single_lr, single_hr = torch.rand(2, 5, 1, 8, 8), torch.rand(2, 5, 1, 32, 32)
    loss, error = learner.Objective(model, tiny(loss=kind))(lr, hr, single_lr, single_hr)
    stills = [model.forward_still(single_lr[:, i]) - single_hr[:, i] for i in range(5)]
    difference = torch.cat([difference.transpose(1, 2).flatten(0, 1), *stills])
    torch.testing.assert_close(loss, of(difference).mean())
    torch.testing.assert_close(error, (difference**2).mean())


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "window", "loss": "charbonnier", "schedule": "step", "halve_every": 2},
        {"precision": "bfloat16", "frames": 7, "optimizer": "muon", "workers": 1},
        {"precision": "float16"},
        {"deterministic": True, "held_out": ()},
    ],
)
def test_every_option_trains(tiny, changes):
    config = tiny(steps=4, save_every=2, **changes)
    try:
        train(config)
    finally:
        torch.use_deterministic_algorithms(False)
    state = state_of(config)
    assert state["step"] == 4
    assert all(value.isfinite().all() for value in state["average"].values())
    assert [math.isfinite(entry["loss"]) for entry in log_of(config)] == [True] * 4


def test_compiled_training_gives_the_same_losses(tiny, monkeypatch):
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compiler(module, backend="eager"))
    losses = {}
    for compiled in (False, True):
        config = tiny(run=f"compiled_{compiled}", compile=compiled, steps=2)
        train(config)
        losses[compiled] = [entry["loss"] for entry in log_of(config)]
    assert losses[True] == pytest.approx(losses[False], rel=1e-6)


def test_a_compiler_that_fails_is_named_in_one_line_with_its_first_error(tiny, monkeypatch):
    said = (
        "C++ compile error\n\nOutput:\nIn file x.h\na.cpp:1:9: fatal error: omp.h: No such file\n"
    )
    compiler = torch.compile

    def failing(graph, inputs):
        raise RuntimeError(said)

    monkeypatch.setattr(torch, "compile", lambda module: compiler(module, backend=failing))
    with pytest.raises(ValueError) as caught:
        train(tiny(compile=True))
    message = str(caught.value)
    assert message.startswith("compile: torch.compile cannot compile the network here: a.cpp:1:9: ")
    assert "omp.h: No such file;" in message and "set compile=false" in message
    assert "\n" not in message


def test_without_a_moving_average_the_average_is_the_network(tiny):
    config = tiny(ema=0.0)
    train(config)
    state = state_of(config)
    assert all(torch.equal(value, state["average"][name]) for name, value in state["model"].items())


def test_a_training_starts_from_given_weights(tiny):
    first = tiny(run="first")
    train(first)
    config = tiny(run="second", initial=f"{first.run}/last.pt", steps=1, learning_rate=1e-30)
    train(config)
    for name, value in state_of(first)["average"].items():
        torch.testing.assert_close(state_of(config)["model"][name], value, rtol=0, atol=1e-20)


def test_a_loss_that_is_not_finite_stops_with_the_last_good_state(tiny, monkeypatch):
    config = tiny(steps=9)
    differentiate = learner.Learner.differentiate

    def explode(self, lr, hr):
        return differentiate(self, lr * (math.nan if self.step == 4 else 1), hr)

    monkeypatch.setattr(learner.Learner, "differentiate", explode)
    match = r"step 4: the loss is nan.*last\.pt, of step 3\. Lower"
    with pytest.raises(ExplodedError, match=match):
        train(config)
    state = state_of(config)
    assert state["step"] == 3
    assert all(value.isfinite().all() for value in state["model"].values())


def test_exploding_offsets_stop_with_the_last_good_state(tiny, capsys):
    config = tiny()
    train(config)
    worse = ["steps=9", "offset_limit=1e-9"]  # offsets have begun to learn: any is more
    assert main(["train", f"{config.run}/config.toml", "--set", *worse]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "d3dnet: step 9: offsets of" in error
    assert "last.pt, of step 6" in error
    assert state_of(config)["step"] == 6


def test_offset_reach_is_the_mean_length_of_offsets_in_the_worst_layer():
    model = D3Dnet(channels=4, resd3d_blocks=2)
    layers = [layer for layer in model.modules() if isinstance(layer, D3D)]
    with torch.no_grad():
        layers[1].conv_offset.bias.view(27, 2)[:] = torch.tensor([3.0, -4.0])
        layers[2].conv_offset.bias.fill_(1.0)
    assert offset_reach(model, torch.rand(1, 1, 3, 8, 8)) == pytest.approx(5)
    set_rigid(model, True)
    assert offset_reach(model, torch.rand(1, 1, 3, 8, 8)) == 0


def test_sigterm_saves_and_exits_with_zero(tiny, monkeypatch, capsys):
    config = tiny(steps=1000, save_every=1000, validate_every=1000, batch=1, workers=2)
    update = learner.Learner.update

    def update_and_terminate(self):
        if self.step == 6:  # a signal to the process group comes to the loader's processes first
            assert len(multiprocessing.active_children()) == 2
            for process in (*multiprocessing.active_children(), multiprocessing.current_process()):
                os.kill(process.pid, signal.SIGTERM)
            time.sleep(0.2)
        return update(self)

    monkeypatch.setattr(learner.Learner, "update", update_and_terminate)
    path = f"{config.run}.toml"
    with open(path, "w") as file:
        file.write(config.toml())
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["train", path]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().out.splitlines()[-1] == f"{config.run}/last.pt"
    assert not multiprocessing.active_children()
    assert not os.path.exists(f"{config.run}/best.pt")  # no time was spent on validation
    assert state_of(config)["step"] == 8  # the step that the signal came in, and the one after


def test_max_seconds_stops_with_the_state_saved(tiny):
    config = tiny()
    train(config, max_seconds=0)
    assert state_of(config)["step"] == 1


def test_folders_that_are_missing_or_hold_too_little_are_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="root: not set; name a folder with --set root=FOLDER"):
        train(tiny(root=""))
    with pytest.raises(ValueError, match="no clips found"):
        train(tiny(root=str(tmp_path)))
    with pytest.raises(ValueError, match="no training clips of 99 frames"):
        train(tiny(frames=99))


def test_a_state_of_another_network_is_refused_in_one_line(tiny, capsys):
    config = tiny(steps=1)
    train(config)
    assert main(["train", f"{config.run}/config.toml", "--set", "channels=4"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "last.pt: weights of another size" in error
    (open(f"{config.run}/last.pt", "wb")).write(b"these are no weights")
    assert main(["train", f"{config.run}/config.toml"]) == 1
    assert "not a readable state" in capsys.readouterr().err.splitlines()[-1]


def test_a_state_becomes_a_weights_file(tiny, tmp_path, monkeypatch):
    config = tiny(steps=3)
    train(config)
    script = Path(__file__).parents[2] / "scripts" / "export_weights.py"
    words = [f"{config.run}/best.pt", str(tmp_path / "w.safetensors"), "--training-data", "noise"]
    monkeypatch.setattr(sys, "argv", ["export_weights.py", *words])
    runpy.run_path(str(script), run_name="__main__")
    model = load_model(tmp_path / "w.safetensors", device="cpu", precision="float32")
    for name, value in state_of(config)["average"].items():
        assert torch.equal(model.state_dict()[name], value.half().float())
    settings = json.loads(model.metadata["settings"])
    assert settings["patch"] == 8
    assert (settings["run"], settings["root"]) == ("run", Path(config.root).name)


def test_tensorboard_gets_what_the_log_gets(tiny):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = tiny()
    train(config)
    events = accumulator.EventAccumulator(f"{config.run}/tensorboard")
    events.Reload()
    logged = [(e["step"], e["loss"]) for e in log_of(config)]
    seen = [(event.step, event.value) for event in events.Scalars("loss")]
    assert seen == [(step, pytest.approx(loss)) for step, loss in logged]
    assert len(events.Images("pictures")) == 2


def test_training_goes_without_tensorboard_and_says_so_in_one_line(tiny, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    config = tiny(steps=1)
    train(config)
    assert "pip install 'd3dnet[train]'" in capsys.readouterr().err
    assert not os.path.exists(f"{config.run}/tensorboard")
