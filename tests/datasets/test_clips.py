"""Training clips: pairs that fit each other, read once, drawn at random but repeatably."""

import sys

import cv2
import numpy as np
import pytest

from d3dnet.datasets import clips
from d3dnet.datasets.clips import (
    load_clip,
    load_clips,
    source_of,
)
from d3dnet.datasets.frames import read_clip
from d3dnet.datasets.imresize import blur_decimate, imresize
from d3dnet.datasets.luma import luma, unit_luma
from tests.video.clips import ffmpeg


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


@pytest.mark.parametrize("name", ["scene.ts", "scene.webm", "scene.y4m", "scene.mov", "scene.gif"])
def test_a_video_is_read_whatever_its_container(tmp_path, name):
    path = tmp_path / "below" / name
    path.parent.mkdir()
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=25:duration=0.2,format=yuv420p", path)
    (clip,) = load_clips(tmp_path)
    assert clip.name == "scene"
    assert clip.hr.shape == (5, 48, 64) and clip.lr.shape == (5, 12, 16)
    expected = read_clip(path)
    np.testing.assert_allclose(unit_luma(clip.hr) * 255, luma(expected), atol=1 / 500)


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p", "gray"])
def test_without_pyav_opencv_reads_the_same_pixels(tmp_path, monkeypatch, pixels):
    path = tmp_path / "clip.mkv"
    codec = "ffv1" if pixels == "gray" else "libx264"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=5:d=1", "-pix_fmt", pixels,
               "-c:v", codec, path)  # fmt: skip
    by_pyav = read_clip(path)
    monkeypatch.setitem(sys.modules, "av", None)
    by_opencv = read_clip(path)
    np.testing.assert_array_equal(by_opencv, by_pyav)


def test_without_pyav_a_video_that_cannot_be_read_is_named_too(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"broken\.mp4: cannot be decoded as a video"):
        read_clip(tmp_path / "broken.mp4")


def test_a_folder_of_numbered_frames_is_a_clip(tmp_path):
    frames = [smooth_noise(16, 20, seed) for seed in range(11)]
    for number, frame in enumerate(frames):
        path = tmp_path / "train" / "walk_1" / f"im{number}.png"  # im10 after im9
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), frame[..., ::-1])
    (clip,) = load_clips(tmp_path, tmp_path / "cache")
    assert clip.name == "walk_1"
    np.testing.assert_allclose(unit_luma(clip.hr) * 255, luma(np.stack(frames)), atol=1 / 500)


def test_ground_truth_beside_low_resolution_is_one_clip_named_by_its_folder(tmp_path):
    for side, size in (("hr", 32), ("lr_x4", 8)):
        (tmp_path / "walk" / side).mkdir(parents=True)
        for number in range(2):
            cv2.imwrite(
                str(tmp_path / "walk" / side / f"{side}_{number}.png"), smooth_noise(size, size)
            )
    (clip,) = load_clips(tmp_path)
    assert clip.name == "walk" and clip.hr.shape == (2, 32, 32)


def test_images_in_the_folder_or_in_one_called_stills_are_stills(tmp_path):
    (tmp_path / "stills" / "kodak").mkdir(parents=True)
    for name in ("a_1.png", "stills/a_2.png", "stills/kodak/a_3.png"):
        cv2.imwrite(str(tmp_path / name), smooth_noise(48, 48))
    found = load_clips(tmp_path, still_frames=4)
    assert [clip.name for clip in found] == ["a_1", "a_2", "a_3"]
    assert all(len(clip.hr) == len(clip.lr) == 4 for clip in found)


def test_grey_frames_are_their_own_luma_in_rgb(tmp_path):
    grey = smooth_noise(16, 16)[..., 0]
    (tmp_path / "clip").mkdir()
    for number in range(2):
        cv2.imwrite(str(tmp_path / "clip" / f"{number}.png"), grey)
    (clip,) = load_clips(tmp_path)
    expected = luma(np.repeat(grey[..., None], 3, -1))
    np.testing.assert_allclose(unit_luma(clip.hr[0]) * 255, expected, atol=1 / 500)


def test_the_low_resolution_side_can_be_made_by_bd(folder):
    clip = load_clip(folder / "scene_3.mkv", degradation="bd")
    rgb = read_clip(folder / "scene_3.mkv")[2, :48, :64]
    expected = luma(blur_decimate(rgb))
    np.testing.assert_allclose(unit_luma(clip.lr[2]) * 255, expected, atol=1 / 500)


def test_both_sides_of_a_resized_clip_are_made_of_resized_frames(folder):
    clip = load_clip(folder / "scene_3.mkv", size=0.5)
    rgb = imresize(read_clip(folder / "scene_3.mkv")[2], 0.5)[:24, :32]  # of 25x33
    assert clip.hr.shape == (5, 24, 32)
    np.testing.assert_allclose(unit_luma(clip.hr[2]) * 255, luma(rgb), atol=1 / 500)
    np.testing.assert_allclose(
        unit_luma(clip.lr[2]) * 255, luma(imresize(rgb, 1 / 4)), atol=1 / 500
    )


def test_a_still_moves_the_same_way_every_time(folder):
    first, again = (load_clip(folder / "photo.png") for _ in range(2))
    assert len(first.hr) == 9
    np.testing.assert_array_equal(first.hr, again.hr)
    assert (first.hr[1:] != first.hr[:-1]).any(axis=(1, 2)).all()


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


def test_many_sources_are_decoded_in_processes_and_are_the_same(folder, tmp_path, monkeypatch):
    read = load_clips(folder)
    monkeypatch.setattr(clips, "SOURCES_PER_PROCESS", 1)
    monkeypatch.setattr(clips.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(clips, "load_clip", None)  # this process decodes none
    for clip, decoded in zip(read, load_clips(folder, tmp_path / "cache"), strict=True):
        assert decoded.name == clip.name
        np.testing.assert_array_equal(clip.hr, decoded.hr)
        np.testing.assert_array_equal(clip.lr, decoded.lr)


def test_the_cache_is_not_asked_for_a_file_that_changed_or_for_other_settings(folder, tmp_path):
    cache = tmp_path / "cache"
    before = load_clips(folder, cache)[0]
    assert load_clips(folder, cache, still_frames=5)[0].hr.shape[0] == 5
    assert load_clips(folder, cache, size=0.6)[0].hr.shape == (9, 16, 24)
    cv2.imwrite(str(folder / "photo.png"), smooth_noise(40, 48, 10))
    assert not np.array_equal(before.hr, load_clips(folder, cache)[0].hr)


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match="no clips found"):
        load_clips(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        load_clips(tmp_path / "nowhere")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.jpg: cannot be read as an image"):
        load_clips(tmp_path, tmp_path / "cache")
    broken.rename(tmp_path / "broken.mp4")
    with pytest.raises(ValueError, match=r"broken\.mp4: cannot be decoded"):
        load_clips(tmp_path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_frames_of_two_sizes_are_named_with_what_to_do(tmp_path):
    (tmp_path / "photos").mkdir()
    for number, size in enumerate((16, 20)):
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), smooth_noise(size, size))
    with pytest.raises(ValueError, match=r"1\.png: .*\(20, 20\).*folder stills"):
        load_clips(tmp_path)


def test_windows_of_one_source_share_its_name():
    assert source_of("davis_cows_2") == source_of("davis_cows_0") == "davis_cows"
    assert source_of("kodak_01") == "kodak_01"
