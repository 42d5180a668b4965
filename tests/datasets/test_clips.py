"""Training clips: pairs that fit each other, read once, drawn at random but repeatably."""

import cv2
import numpy as np
import pytest
import torch

from d3dnet.datasets.clips import (
    Clip,
    load_clip,
    load_clips,
    pan_still,
    sample_batch,
    source_of,
)
from d3dnet.datasets.imresize import imresize
from d3dnet.metrics import luma


def smooth_noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 1.5)


@pytest.fixture
def folder(tmp_path):
    """A lossless video of 5 frames of 50x66, and a still of 40x48."""
    frames = [smooth_noise(50, 66, seed) for seed in range(5)]
    writer = cv2.VideoWriter(
        str(tmp_path / "scene_3.mkv"), cv2.VideoWriter_fourcc(*"FFV1"), 25, (66, 50)
    )
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()
    cv2.imwrite(str(tmp_path / "photo.png"), smooth_noise(40, 48, 9))
    return tmp_path


def test_a_video_becomes_luma_with_the_matlab_bicubic_of_its_rgb_as_low_resolution(folder):
    clip = load_clip(folder / "scene_3.mkv")
    assert clip.name == "scene_3"
    assert clip.hr.shape == (5, 48, 64)  # cut to multiples of 4
    assert clip.lr.shape == (5, 12, 16)
    capture = cv2.VideoCapture(str(folder / "scene_3.mkv"))
    for hr, lr in zip(clip.hr, clip.lr, strict=True):
        rgb = np.ascontiguousarray(capture.read()[1][:48, :64, ::-1])
        np.testing.assert_array_equal(hr, np.round(luma(rgb)))
        np.testing.assert_allclose(lr, luma(imresize(rgb, 0.25)), atol=1e-4)


def test_a_still_pans_smoothly_and_the_same_way_every_time(folder):
    first, again = (load_clip(folder / "photo.png") for _ in range(2))
    assert first.hr.shape == (9, 40, 48)
    np.testing.assert_array_equal(first.hr, again.hr)
    steps = np.abs(np.diff(first.hr.astype(int), axis=0)).mean(axis=(1, 2))
    assert (steps > 0).all()


def test_the_middle_frame_of_a_pan_is_the_still_itself():
    still = smooth_noise(40, 48)
    frames = list(pan_still(still, 9, np.random.default_rng(0)))
    assert np.abs(frames[4].astype(int) - still).max() <= 1
    assert np.abs(frames[0].astype(int) - still).max() > 10


def test_a_folder_is_read_in_order_of_names_and_from_its_cache_the_second_time(folder, tmp_path):
    cache = tmp_path / "cache"
    clips = load_clips(folder, cache)
    assert [clip.name for clip in clips] == ["photo", "scene_3"]
    for path in list(folder.glob("*.*")):
        path.write_bytes(b"")  # only the cache can answer now
    for clip, cached in zip(clips, load_clips(folder, cache), strict=True):
        np.testing.assert_array_equal(clip.hr, cached.hr)
        np.testing.assert_array_equal(clip.lr, cached.lr)


def test_an_unreadable_still_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no clips found"):
        load_clips(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.jpg: cannot be read as an image"):
        load_clips(tmp_path)


def test_windows_of_one_source_share_its_name():
    assert source_of("davis_cows_2") == source_of("davis_cows_0") == "davis_cows"
    assert source_of("kodak_01") == "kodak_01"


def position_clip() -> Clip:
    """Every LR sample is worth its own position; each HR block repeats its LR sample."""
    lr = np.arange(9 * 12 * 14, dtype=np.float32).reshape(9, 12, 14) % 251
    return Clip("positions", lr.astype(np.uint8).repeat(4, 1).repeat(4, 2), lr)


def test_low_and_high_resolution_are_cut_and_augmented_alike():
    rng = np.random.default_rng(0)
    for _ in range(20):
        lr, hr = sample_batch([position_clip()], 2, 3, 8, rng)
        assert lr.shape == (2, 1, 3, 8, 8) and hr.shape == (2, 1, 3, 32, 32)
        assert lr.dtype == hr.dtype == torch.float32
        torch.testing.assert_close(lr.repeat_interleave(4, 3).repeat_interleave(4, 4), hr)


def test_every_augmentation_happens():
    ramp = np.arange(3 * 4 * 4, dtype=np.float32).reshape(3, 4, 4)
    clip = Clip("ramp", ramp.astype(np.uint8).repeat(4, 1).repeat(4, 2), ramp)
    rng = np.random.default_rng(0)
    seen = {sample_batch([clip], 1, 3, 4, rng)[0].numpy().tobytes() for _ in range(300)}
    assert len(seen) == 16  # 2 flips, transposition, reversal


def test_the_same_generator_draws_the_same_batch():
    first, second = (
        sample_batch([position_clip()], 3, 3, 8, np.random.default_rng([1, 5])) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_candidates_prefer_detail():
    flat = Clip("flat", np.zeros((3, 32, 32), np.uint8), np.zeros((3, 8, 8), np.float32))
    noise = np.random.default_rng(0).integers(0, 255, (3, 8, 8)).astype(np.float32)
    busy = Clip("busy", np.zeros((3, 32, 32), np.uint8), noise)

    def detailed(candidates: int) -> int:
        rng = np.random.default_rng(0)
        lr, _ = sample_batch([flat, busy], 64, 3, 8, rng, candidates)
        return sum(bool(crop.any()) for crop in lr)

    assert detailed(8) > 60 > 45 > detailed(1) > 19
