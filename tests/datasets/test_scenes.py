"""Scenes made of stills: sharp truth, known to move, the same for each number."""

import cv2
import numpy as np
import pytest
import torch

from d3dnet.datasets import scenes
from d3dnet.datasets.clips import Clip
from d3dnet.datasets.imresize import degrade
from d3dnet.datasets.luma import LUMA_STEPS
from d3dnet.datasets.scenes import Scenes, blob, walk


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    rng = np.random.default_rng(0)
    made = []
    for name in "ab":
        noise = cv2.GaussianBlur(rng.random((1, 300, 320), np.float32)[0], (0, 0), 2)
        codes = cv2.normalize(noise, None, 16, 235, cv2.NORM_MINMAX).round()
        hr = (codes * LUMA_STEPS).astype(np.uint16)[None]
        made.append(Clip(name, hr, hr[:, ::4, ::4]))
    return made


def test_a_sample_is_the_same_whenever_it_is_drawn_and_no_other_is(clips):
    first, again = (Scenes(clips, 3, 16, seed=1)[5] for _ in range(2))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(Scenes(clips, 3, 16, seed=1)[6][1], first[1])
    assert not torch.equal(Scenes(clips, 3, 16, seed=2)[5][1], first[1])


@pytest.mark.parametrize(("guided", "channels"), [(False, 1), (True, 7)])
def test_samples_have_the_shapes_of_patches(clips, guided, channels):
    lr, hr = Scenes(clips, 5, 16, guided=guided)[0]
    assert lr.shape == (channels, 5, 16, 16) and hr.shape == (1, 5, 64, 64)
    assert lr.dtype == hr.dtype == torch.float32
    assert 0 < hr.min() < hr.max() < 1


def test_the_low_resolution_side_is_made_of_the_high_resolution_side(clips, monkeypatch):
    monkeypatch.setattr(scenes, "augmented", lambda pair, rng: pair)
    for index in range(3):
        lr, hr = Scenes(clips, 3, 24)[index]
        codes = (hr[0, 1].numpy() * 255).round().astype(np.uint8)
        inside = slice(4, -4)  # beyond it, the patch's surroundings count
        wanted = degrade(codes, "double")[inside, inside]
        found = lr[0, 1].numpy()[inside, inside] * 255
        assert np.abs(found - wanted).max() < 1.01  # rounding of the one side, once


def test_a_ground_of_whole_pixels_is_a_copy_of_the_still(clips, monkeypatch):
    monkeypatch.setattr(scenes, "PIECES", (1.0, 0.0, 0.0))
    monkeypatch.setattr(scenes, "COPIED", 1.0)
    still = clips[0].hr[0]
    drawn = Scenes(clips[:1], 3, 8)._draw(np.random.default_rng(3))
    for frame in drawn:
        part = frame[60:100, 60:100]  # inside, whatever was mirrored
        like = cv2.matchTemplate(still.astype(np.float32), part.astype(np.float32), cv2.TM_SQDIFF)
        x, y = cv2.minMaxLoc(like)[2]
        assert np.array_equal(still[y : y + 40, x : x + 40], part)


def test_motion_of_a_sample_is_that_of_its_ground(clips, monkeypatch):
    monkeypatch.setattr(scenes, "PIECES", (1.0, 0.0, 0.0))
    monkeypatch.setattr(scenes, "COPIED", 1.0)
    monkeypatch.setattr(scenes, "SHAKY", 0.0)
    steady = np.arange(3)[:, None] * np.array([4, 8])
    monkeypatch.setattr(scenes, "walk", lambda frames, speed, rng: steady)
    monkeypatch.setattr(scenes, "augmented", lambda pair, rng: pair)
    lr, _ = Scenes(clips, 3, 24, guided=True)[0]
    after = lr[4:6, 1].flatten(1).median(1).values
    before = lr[1:3, 1].flatten(1).median(1).values
    assert (after - torch.tensor([-1.0, -2.0])).abs().max() < 0.15
    assert (before - torch.tensor([1.0, 2.0])).abs().max() < 0.15


def test_a_piece_covers_a_part_of_the_ground_and_leaves_the_rest(clips, monkeypatch):
    monkeypatch.setattr(scenes, "PIECES", (0.0, 1.0, 0.0))
    drawn = Scenes(clips, 1, 16)
    ground, with_piece = [], []
    for pieces, into in (((1.0, 0.0, 0.0), ground), ((0.0, 1.0, 0.0), with_piece)):
        monkeypatch.setattr(scenes, "PIECES", pieces)
        into += [drawn._draw(np.random.default_rng(seed)).astype(int) for seed in range(8)]
    changed = np.mean([a != b for a, b in zip(ground, with_piece, strict=True)])
    assert 0.01 < changed < 0.6


def test_paths_are_no_faster_than_asked_and_centred_in_time():
    for seed in range(20):
        path = walk(7, 8.0, np.random.default_rng(seed))
        steps = np.hypot(*np.diff(path, axis=0).T)
        assert steps.mean() < 8.0 + 3
        assert path.shape == (7, 2)


def test_shapes_are_whole_inside_nothing_outside_and_soft_between():
    shape = blob(120, 90, np.random.default_rng(0))
    assert shape.min() == 0 and shape.max() == pytest.approx(1)
    assert 0.1 < shape.mean() < 0.9
    assert ((shape > 0.05) & (shape < 0.95)).any()


def test_stills_that_are_all_too_small_are_refused(clips):
    with pytest.raises(ValueError, match=r"clip [ab]: got \(300, 320\); accepted is 2000"):
        Scenes(clips, 3, 500)[0]
