"""Settings: read from TOML or by name, and refused where they are unknown."""

import itertools
import re
import tomllib

import pytest

from d3dnet.cli import main
from d3dnet.training import TrainingConfig, load_config, override
from d3dnet.training.config import CONFIGS
from d3dnet.training.optimizers import learning_rate_at


def test_bundled_settings_are_found_by_name_and_complete(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("vimeo90k", "clips"):
        values = tomllib.loads((CONFIGS / f"{name}.toml").read_text())
        config = load_config(name)
        for key, value in values.items():
            assert getattr(config, key) == (tuple(value) if isinstance(value, list) else value)


def test_vimeo90k_is_the_published_recipe():
    config = load_config("vimeo90k")
    assert (config.channels, config.resd3d_blocks, config.res_blocks) == (64, 5, 6)
    assert (config.mode, config.loss, config.frames) == ("window", "mse", 7)
    assert (config.batch, config.patch, config.rigid_steps, config.ema) == (32, 32, 0, 0)
    assert (config.optimizer, config.clip_norm, config.warmup_steps) == ("adam", 0, 0)
    epoch = 64612 / 32
    assert config.steps == int(35 * epoch)
    for number in range(35):  # halved every 6 epochs; looked at in the middle of each
        rate = learning_rate_at(int((number + 0.5) * epoch), config)
        assert rate == 4e-4 / 2 ** (number // 6)


def test_a_file_is_read_and_settings_replace_its_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('steps = 7\nlearning_rate = 1\nheld_out = ["a"]\ncompile = true\n')
    config = load_config(path, ["steps=8", "run=runs/a b", "root='1'", 'held_out=["c", "d"]'])
    assert config == TrainingConfig(
        steps=8, learning_rate=1.0, held_out=("c", "d"), compile=True, run="runs/a b", root="1"
    )


def test_settings_written_as_toml_read_back_as_they_were(tmp_path):
    config = TrainingConfig(run='a "b" \\c', held_out=("x", "y"), ema=1e-5, compile=True)
    (tmp_path / "c.toml").write_text(config.toml(), encoding="utf-8")
    assert load_config(tmp_path / "c.toml") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_speed = 1", "learning_speed: no such setting; accepted are run, data, root"),
        ("steps = 'many'", "steps: got 'many'; accepted is a whole number"),
        ("steps = 1.5", "steps: got 1.5; accepted is a whole number"),
        ("steps = true", "steps: got True; accepted is a whole number"),
        ("steps = 0", "steps: got 0; accepted is a number from 1 up"),
        ("ema = 1", "ema: got 1.0; accepted is a decay below 1"),
        ("clip_norm = inf", "clip_norm: got inf; accepted is a number from 0 up"),
        ("learning_rate = nan", "learning_rate: got nan"),
        ("learning_rate = 0", "learning_rate: got 0"),
        ("run = 3", "run: got 3; accepted is text"),
        ("held_out = 'a'", "held_out: got 'a'; accepted is a list"),
        ("compile = 1", "compile: got 1; accepted is true or false"),
        ("optimizer = 'sgd'", "optimizer: got 'sgd'; accepted are adam, muon"),
        ("mode = 'window'\nframes = 6", "frames: got 6; a window has an odd number"),
        ("precision = 'bfloat16'\nframes = 5", "frames: got 5; with bfloat16 accepted are 7"),
        ("steps: 3", "not a TOML file"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_what_is_accepted(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_unknown_settings_of_the_command_line_are_one_line(capsys):
    assert main(["train", "clips", "--set", "learning_speed=1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "learning_speed: no such setting; accepted are run, " in error
    assert main(["train", "clips", "--set", "steps"]) == 2
    assert "accepted is key=value" in capsys.readouterr().err
    assert main(["train", "nothing"]) == 2
    assert "nothing: no such file; accepted are a .toml file, or clips, " in capsys.readouterr().err


def test_set_may_be_given_several_times_and_with_several_settings(monkeypatch):
    seen = []
    monkeypatch.setattr("d3dnet.training.train", lambda *arguments: seen.append(arguments))
    words = "train clips --set steps=1 seed=2 --set batch=3 --max-seconds 4"
    assert main(words.split()) == 0
    assert seen == [(override(load_config("clips"), ["steps=1", "seed=2", "batch=3"]), 4.0)]


def test_the_cosine_warms_up_and_ends_at_its_final_value():
    config = TrainingConfig(steps=1000, warmup_steps=100, final_learning_rate=1e-6)
    rates = [learning_rate_at(step, config) for step in range(1001)]
    assert rates[0] == pytest.approx(config.learning_rate / 100)
    assert max(rates) == rates[99] == pytest.approx(config.learning_rate)
    assert rates[1000] == pytest.approx(config.final_learning_rate)
    assert all(a >= b for a, b in itertools.pairwise(rates[100:]))


def test_the_configs_are_part_of_the_package():
    listed = tomllib.loads((CONFIGS.parents[1] / "pyproject.toml").read_text())["tool"]
    assert "configs/*.toml" in listed["setuptools"]["package-data"]["d3dnet"]
    assert "d3dnet.training" in listed["setuptools"]["packages"]
