"""Pans: windows over one frame, at whole pixels, each degraded where it is."""

import cv2
import numpy as np
import pytest
import torch

from d3dnet.datasets.clips import Clip
from d3dnet.datasets.imresize import blur_decimate, imresize
from d3dnet.datasets.pans import Mixed, Pans, WithSingleFrames, pan


def textured(height: int, width: int, frames: int = 2) -> Clip:
    """Luma of whole codes, smooth enough to be found again, another in every frame."""
    rng = np.random.default_rng(height)
    noise = rng.integers(0, 256, (height, width, frames), np.uint8)
    hr = cv2.GaussianBlur(noise, (0, 0), 1).transpose(2, 0, 1).astype(np.uint16) * 256
    return Clip("textured", hr, hr[:, ::4, ::4])


def places(hr: torch.Tensor, clip: Clip) -> tuple[int, list[tuple[int, int]]]:
    """The frame of a clip, and where in it each window is, found by looking for it."""
    windows = np.round(hr[0].numpy() * 255).astype(np.float32)
    for number, frame in enumerate((clip.hr // 256).astype(np.float32)):
        found = [cv2.minMaxLoc(cv2.matchTemplate(frame, w, cv2.TM_SQDIFF))[2] for w in windows]
        cut = [
            frame[y:, x:][: w.shape[0], : w.shape[1]]
            for (x, y), w in zip(found, windows, strict=True)
        ]
        if np.array_equal(cut, windows):
            return number, [(y, x) for x, y in found]
    raise AssertionError("not windows of any frame")


@pytest.fixture
def plain(monkeypatch):
    """Without flips and transposition, by which windows would not be found."""
    monkeypatch.setattr("d3dnet.datasets.pans.flip_and_transpose", lambda pair, rng: pair)


@pytest.mark.parametrize("degradation", ["double", "bd"])
def test_every_frame_is_a_window_over_one_frame_degraded_where_it_is(plain, degradation):
    clip = textured(160, 160)
    pans = Pans([clip], 5, 16, degradation=degradation)
    for index in range(8):
        lr, hr = pans[index]
        assert lr.shape == (1, 5, 16, 16) and hr.shape == (1, 5, 64, 64)
        assert lr.dtype == hr.dtype == torch.float32
        number, found = places(hr, clip)
        for t, (y, x) in enumerate(found):
            # The whole frame is degraded, so cut that the window's samples are among the result's.
            codes = (clip.hr[number] // 256).astype(np.uint8)[y % 4 :, x % 4 :]
            codes = codes[: len(codes) // 4 * 4, : codes.shape[1] // 4 * 4]
            whole = blur_decimate(codes) if degradation == "bd" else imresize(codes, 0.25)
            expected = whole[y // 4 : y // 4 + 16, x // 4 : x // 4 + 16]
            free = min(y, x, clip.hr.shape[1] - 64 - y, clip.hr.shape[2] - 64 - x) >= 12
            inner = slice(None) if free else slice(2, -2)  # borders are continued in another way
            found_codes = np.round(lr[0, t].numpy() * 255)
            np.testing.assert_array_equal(found_codes[inner, inner], expected[inner, inner])


def test_windows_move_but_by_little_more_than_a_low_resolution_pixel(plain):
    clip = textured(200, 200)
    pans = Pans([clip], 5, 16)
    steps = [np.diff(places(pans[index][1], clip)[1], axis=0) for index in range(12)]
    lengths = np.hypot(*np.concatenate(steps).T)
    assert all(np.any(step) for step in steps)
    assert 1 < lengths.mean() < 4
    assert lengths.max() < 9  # of one that is fast, accelerated and shaky


@pytest.mark.parametrize("room", [(0, 0), (3, 0), (400, 900)])
def test_a_pan_stays_inside_its_room(room):
    rng = np.random.default_rng(0)
    paths = np.stack([pan(9, np.array(room), rng) for _ in range(300)])
    assert paths.min() == 0 or room[0] > 100
    assert (paths >= 0).all() and (paths <= room).all()
    directions = np.sign(paths[:, -1] - paths[:, 0]) * (np.array(room) > 0)
    assert {tuple(d) for d in directions} >= {(a, b) for a in (-1, 1) for b in (-1, 1) if all(room)}


def test_a_sample_depends_on_its_number_and_the_seed_alone():
    clip = textured(100, 100)
    again = Pans([clip], 3, 16)
    for number in (5, 0, 5):
        for one, two in zip(Pans([clip], 3, 16)[number], again[number], strict=True):
            assert torch.equal(one, two)
    assert not torch.equal(again[0][1], again[1][1])
    assert not torch.equal(again[0][1], Pans([clip], 3, 16, seed=1)[0][1])


def test_of_several_candidates_the_most_detailed_is_taken():
    flat = Clip("flat", np.full((1, 80, 80), 99 * 256, np.uint16), np.zeros((1, 20, 20), np.uint16))
    pans = Pans([flat, textured(80, 80)], 3, 16, candidates=8)
    assert all(pans[index][1].std() > 0.01 for index in range(10))
    alone = Pans([flat, textured(80, 80)], 3, 16)
    assert any(alone[index][1].std() < 1e-4 for index in range(10))


def test_single_frames_go_with_each_sample_and_none_twice():
    singles = Pans([textured(80, 80)], 1, 8)
    with_singles = WithSingleFrames(Pans([textured(100, 100)], 3, 16), singles, 2)
    for index in (0, 3):
        lr, hr, single_lr, single_hr = with_singles[index]
        assert (lr.shape, hr.shape) == ((1, 3, 16, 16), (1, 3, 64, 64))
        assert (single_lr.shape, single_hr.shape) == ((2, 1, 8, 8), (2, 1, 32, 32))
        for i in range(2):
            for side, expected in zip((single_lr, single_hr), singles[2 * index + i], strict=True):
                assert torch.equal(side[i], expected[:, 0])


def test_a_clip_smaller_than_a_sample_is_told():
    with pytest.raises(ValueError, match=r"clip textured: got \(80, 60\); accepted is 64 or more"):
        Pans([textured(80, 60)], 3, 16)[0]


@pytest.mark.parametrize("share, pans", [(0, []), (0.5, [1, 3, 5, 7]), (0.75, [1, 2, 3, 5, 6, 7])])
def test_a_share_of_the_samples_are_pans_evenly_spread(share, pans):
    mixed = Mixed(range(0, 8), range(100, 108), share)
    assert [index for index in range(8) if mixed[index] >= 100] == pans
    assert [mixed[index] % 100 for index in range(8)] == list(range(8))
