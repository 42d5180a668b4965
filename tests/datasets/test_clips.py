"""Training clips: pairs that fit each other, read once, drawn at random but repeatably."""

import cv2
import numpy as np
import pytest

from d3dnet.datasets import clips
from d3dnet.datasets.clips import (
    load_clip,
    load_clips,
    pan_still,
    source_of,
    unit_luma,
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
        # Not rounded to 8 bit, but to 1/256 of a code value.
        np.testing.assert_allclose(unit_luma(hr) * 255, luma(rgb), atol=1 / 500)
        np.testing.assert_allclose(unit_luma(lr) * 255, luma(imresize(rgb, 0.25)), atol=1 / 500)


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


def test_a_folder_is_read_in_order_of_names_and_from_its_cache_the_second_time(
    folder, tmp_path, monkeypatch
):
    cache = tmp_path / "cache"
    read = load_clips(folder)
    assert [clip.name for clip in read] == ["photo", "scene_3"]
    load_clips(folder, cache)
    monkeypatch.setattr(clips, "load_clip", None)  # only the cache can answer now
    for clip, cached in zip(read, load_clips(folder, cache), strict=True):
        assert cached.name == clip.name
        np.testing.assert_array_equal(clip.hr, cached.hr)
        np.testing.assert_array_equal(clip.lr, cached.lr)


def test_the_cache_is_not_asked_for_a_file_that_changed_or_for_other_settings(folder, tmp_path):
    cache = tmp_path / "cache"
    before = load_clips(folder, cache)[0]
    assert load_clips(folder, cache, still_frames=5)[0].hr.shape[0] == 5
    cv2.imwrite(str(folder / "photo.png"), smooth_noise(40, 48, 10))
    assert not np.array_equal(before.hr, load_clips(folder, cache)[0].hr)


def test_an_unreadable_still_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no clips found"):
        load_clips(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.jpg: cannot be read as an image"):
        load_clips(tmp_path)


def test_windows_of_one_source_share_its_name():
    assert source_of("davis_cows_2") == source_of("davis_cows_0") == "davis_cows"
    assert source_of("kodak_01") == "kodak_01"
