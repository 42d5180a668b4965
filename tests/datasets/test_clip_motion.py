"""Motion of clips: kept beside them, and moved along with what is done to a patch."""

import cv2
import numpy as np
import pytest
import torch

from d3dnet.datasets import clip_motion
from d3dnet.datasets.clip_motion import ClipsInMotion, add_motion
from d3dnet.datasets.clips import Clip
from d3dnet.datasets.luma import unit_luma
from d3dnet.datasets.patches import ClipPatches, flipped, reversed_in_time, transposed
from d3dnet.network.motion import with_motion


@pytest.fixture(scope="module")
def clip() -> Clip:
    """Frames of a texture that moves down by one pixel and to the right by two."""
    rng = np.random.default_rng(0)
    ground = cv2.GaussianBlur(rng.random((80, 90), np.float32), (0, 0), 1.2)
    ground = cv2.normalize(ground, None, 16, 235, cv2.NORM_MINMAX)
    frames = [ground[20 - t : 60 - t, 30 - 2 * t : 78 - 2 * t] for t in range(5)]
    lr = (np.stack(frames).round() * 256).astype(np.uint16)
    return Clip("moving", lr.repeat(4, 1).repeat(4, 2), lr)


def test_motion_is_found_and_read_again_from_where_it_was_kept(clip, tmp_path, monkeypatch):
    (found,) = add_motion([clip], tmp_path)
    wanted = with_motion(torch.from_numpy(unit_luma(clip.lr))[None, None])[0, 1:]
    assert np.array_equal(found.motion, wanted.half().numpy())
    monkeypatch.setattr(clip_motion, "clip_motion", lambda lr: pytest.fail("looked for again"))
    (again,) = add_motion([clip], tmp_path)
    assert np.array_equal(again.motion, found.motion)


def test_clips_read_on_demand_have_their_motion_too(clip, tmp_path):
    lazy = ClipsInMotion([clip])
    assert len(lazy) == 1
    assert np.array_equal(lazy[0].motion, add_motion([clip], tmp_path)[0].motion)


def test_a_patch_has_the_motion_of_its_place_and_none_beyond_its_ends(clip, tmp_path):
    (moving,) = add_motion([clip], tmp_path)
    lr, hr = ClipPatches([moving], 3, 16, augment=False)[0]
    assert lr.shape == (7, 3, 16, 16) and hr.shape == (1, 3, 64, 64)
    assert lr[1:4, 0].abs().max() == 0 and lr[4:7, -1].abs().max() == 0
    assert (lr[4:6, 0].flatten(1).median(1).values - torch.tensor([1.0, 2.0])).abs().max() < 0.15


@pytest.mark.parametrize(
    "change",
    [
        lambda lr: flipped(lr, 2),
        lambda lr: flipped(lr, 3),
        transposed,
        reversed_in_time,
        lambda lr: transposed(flipped(reversed_in_time(lr), 3)),
    ],
)
def test_motion_of_changed_frames_is_the_change_of_the_motion(clip, change):
    frames = with_motion(torch.from_numpy(unit_luma(clip.lr))[None, None])[0].numpy()
    changed = change(frames)
    luma = torch.from_numpy(np.ascontiguousarray(changed[:1]))
    wanted = with_motion(luma[None])[0].numpy()
    inside = (slice(None), slice(None), slice(6, -6), slice(6, -6))
    assert np.abs(changed[inside] - wanted[inside]).max() < 0.3  # the estimator is not symmetric
    assert np.median(np.abs(changed[inside] - wanted[inside])) < 0.05


def test_frames_of_luma_alone_are_changed_as_pictures_are():
    lr = np.random.default_rng(0).random((1, 3, 4, 5))
    assert np.array_equal(flipped(lr, 2), lr[:, :, ::-1])
    assert np.array_equal(transposed(lr), lr.swapaxes(2, 3))
    assert np.array_equal(reversed_in_time(lr), lr[:, ::-1])
