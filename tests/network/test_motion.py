"""Motion between frames: where things are, how sure that is, and the same whatever the way."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from d3dnet.network import motion
from d3dnet.network.motion import AFTER, BEFORE, REACH, guided, pair_motion, with_motion


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width), np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def panned(frames: int, dy: int, dx: int, height: int = 48, width: int = 64) -> Tensor:
    """A window that moves over a texture: what is seen moves the other way. (T, 1, h, w)."""
    ground = texture(height + 8 * frames, width + 8 * frames)
    at = [(4 * frames + t * dy, 4 * frames + t * dx) for t in range(frames)]
    windows = np.stack([ground[y : y + height, x : x + width] for y, x in at])
    return torch.from_numpy(windows[:, None].astype(np.float32) / 255)


@pytest.mark.parametrize(("dy", "dx"), [(1, 0), (0, -2), (3, 2)])
def test_a_pan_moves_everything_by_its_speed(dy, dx):
    frames = list(guided(panned(3, dy, dx)))
    inside = (slice(None), slice(8, -8), slice(8, -8))
    after, before = frames[1][AFTER][inside], frames[1][BEFORE][inside]
    wanted = torch.tensor([-dy, -dx]).view(2, 1, 1)
    assert (after[:2] - wanted).abs().median() < 0.1
    assert (before[:2] + wanted).abs().median() < 0.1
    assert after[2].median() > 0.95


def test_what_is_hidden_by_a_moving_thing_is_not_trusted():
    ground, thing = texture(64, 96), texture(24, 24, seed=1)
    frames = [ground.copy(), ground.copy()]
    frames[0][20:44, 20:44] = thing
    frames[1][20:44, 28:52] = thing  # covers 8 columns more, and uncovers 8
    there, _ = pair_motion(*frames)
    covered, seen = there[2, 24:40, 45:51], there[2, 24:40, 66:90]
    assert covered.mean() < 0.6 < 0.9 < seen.mean()


def test_the_ends_of_a_clip_have_no_motion_beyond_them():
    first, *_, last = guided(panned(4, 1, 1))
    assert first[BEFORE].abs().max() == 0
    assert last[AFTER].abs().max() == 0
    (alone,) = guided(panned(1, 0, 0))
    assert alone[1:].abs().max() == 0


def test_luma_passes_unchanged():
    clip = panned(3, 1, 0)
    found = torch.stack(list(guided(clip)))
    assert torch.equal(found[:, :1], clip)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_motion_is_the_same_whatever_the_number_of_threads(workers):
    clip = panned(7, 2, -1)
    wanted = torch.stack(list(guided(clip, workers=1)))
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(workers)
        found = torch.stack(list(guided(clip, workers=workers)))
    finally:
        cv2.setNumThreads(threads)
    assert torch.equal(found, wanted)


def test_motion_is_the_same_in_whatever_piece_of_a_clip_a_pair_is():
    clip = panned(6, 1, 2)
    whole, part = list(guided(clip)), list(guided(clip[2:]))
    assert torch.equal(whole[2][AFTER], part[0][AFTER])
    assert torch.equal(whole[4], part[2])


def test_frames_are_taken_no_further_ahead_than_stated():
    taken = 0

    def counted():
        nonlocal taken
        for frame in panned(9, 1, 0):
            taken += 1
            yield frame

    next(guided(counted(), workers=3))
    assert taken == 3 + 2


def test_motion_stays_within_its_reach(monkeypatch):
    monkeypatch.setattr(motion, "REACH", 1.5)
    found = torch.stack(list(guided(panned(3, 3, 3))))
    assert found[:, [1, 2, 4, 5]].abs().max() == 1.5
    assert REACH >= 16


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 40), (8, 8), (9, 300)])
def test_frames_of_any_size_have_motion(height, width):
    found = with_motion(torch.rand(1, 1, 3, height, width))
    assert found.shape == (1, 7, 3, height, width)
    assert found.isfinite().all()


def test_flat_and_black_frames_have_finite_motion():
    assert with_motion(torch.zeros(1, 1, 3, 32, 32)).isfinite().all()
    assert with_motion(torch.full((1, 1, 3, 32, 32), 0.7)).isfinite().all()


def test_values_that_are_no_luma_do_not_stop_it():
    clip = panned(3, 1, 0)
    clip[1] = torch.nan
    assert torch.stack(list(guided(clip)))[:, 1:].isfinite().all()
