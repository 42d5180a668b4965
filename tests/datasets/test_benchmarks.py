"""Test sets in the layouts people have."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from d3dnet.datasets.benchmarks import SPMC_11, canonical_name, find_clips, make_lr
from d3dnet.datasets.frames import read_clip
from d3dnet.datasets.imresize import blur_decimate, imresize
from tests.video.clips import ffmpeg


def noise(frames: int, height: int = 16, width: int = 24, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def write_frames(folder: Path, frames: np.ndarray, name: str = "im{}.png", first: int = 1) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, first):
        bgr = frame if frame.ndim == 2 else frame[..., ::-1]
        assert cv2.imwrite(str(folder / name.format(number)), bgr)


def write_lossless(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "gray" if frames.ndim == 3 else "bgr0"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, "gray" if frames.ndim == 3 else "rgb24")
            container.mux(stream.encode(picture.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())


def assert_clips(clips, expected: dict[str, tuple[np.ndarray, np.ndarray | None]]) -> None:
    assert [clip.name for clip in clips] == list(expected)
    for clip in clips:
        hr, lr = expected[clip.name]
        assert np.array_equal(clip.read_hr(), hr)
        if lr is None:
            assert clip.lr is None and clip.read_lr() is None
        else:
            assert np.array_equal(clip.read_lr(), lr)


HR = {name: noise(3, seed=seed) for seed, name in enumerate(("calendar", "city"))}
LR = {name: noise(3, 4, 6, seed=10 + seed) for seed, name in enumerate(("calendar", "city"))}
PAIRS = {name: (HR[name], LR[name]) for name in HR}
HR_ONLY = {name: (HR[name], None) for name in HR}


@pytest.mark.parametrize("inside", [True, False])
def test_lossless_videos_are_clips_with_or_without_the_sets_folder(tmp_path, inside):
    for name, frames in HR.items():
        write_lossless(tmp_path / "Vid4" / f"{name}.mkv", frames)
    (tmp_path / "Vid4" / "README.md").write_text("not a clip")
    root = tmp_path / "Vid4" if inside else tmp_path
    assert_clips(find_clips("Vid4", root), HR_ONLY)


@pytest.mark.parametrize("suffix", ["mp4", "webm", "ts", "nut"])
def test_a_folder_of_video_files_of_any_kind_is_a_test_set(tmp_path, suffix):
    (tmp_path / "mine").mkdir()
    for name in ("a", "b"):
        path = tmp_path / "mine" / f"{name}.{suffix}"
        ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=25:duration=0.2,format=yuv420p", path)
    found = find_clips("mine", tmp_path)
    assert [clip.name for clip in found] == ["a", "b"]
    assert all(clip.read_hr().shape == (5, 48, 64, 3) for clip in found)


def test_hr_beside_lr_x4_in_each_clip(tmp_path):
    for name in HR:
        write_frames(tmp_path / "Vid4" / name / "hr", HR[name], "hr_{:02}.png")
        write_frames(tmp_path / "Vid4" / name / "lr_x4", LR[name], "lr_{:02}.png")
    assert_clips(find_clips("Vid4", tmp_path), PAIRS)


def test_gt_beside_bix4_around_the_clips(tmp_path):
    for name in HR:
        write_frames(tmp_path / "vid4" / "GT" / name, HR[name], "{:08}.png", first=0)
        write_frames(tmp_path / "vid4" / "BIx4" / name, LR[name], "{:08}.png", first=0)
        write_frames(tmp_path / "vid4" / "BDx4" / name, LR[name][::-1], "{:08}.png", first=0)
    assert_clips(find_clips("Vid4", tmp_path), PAIRS)


def test_hr_beside_lr_of_both_degradations_in_each_clip(tmp_path):
    for name in HR:
        write_frames(tmp_path / "Vid4" / name / "hr", HR[name], "hr_{:02}.png")
        write_frames(tmp_path / "Vid4" / name / "lr_x4_BI", LR[name], "lr_{:02}.png")
        write_frames(tmp_path / "Vid4" / name / "lr_x4_BD", LR[name][::-1], "lr_{:02}.png")
    assert_clips(find_clips("Vid4", tmp_path), PAIRS)
    reverse = {name: (HR[name], LR[name][::-1]) for name in HR}
    assert_clips(find_clips("Vid4", tmp_path, "bd"), reverse)


def test_bicubic_frames_are_never_taken_for_bd(tmp_path):
    for name in HR:
        write_frames(tmp_path / "GT" / name, HR[name], "{:08}.png")
        write_frames(tmp_path / "BIx4" / name, LR[name], "{:08}.png")
    assert_clips(find_clips("Vid4", tmp_path, "bd"), HR_ONLY)


def test_lossless_videos_of_both_sides(tmp_path):
    for name in HR:
        write_lossless(tmp_path / "Vid4" / "GT" / f"{name}.avi", HR[name])
        write_lossless(tmp_path / "Vid4" / "BIx4" / f"{name}.avi", LR[name])
    assert_clips(find_clips("Vid4", tmp_path), PAIRS)


@pytest.mark.parametrize("sides", [("truth", "input4"), ("hr", "lr_x4")])
def test_the_eleven_of_spmc_are_taken_out_of_all_of_its_clips(tmp_path, sides):
    for name in (*SPMC_11.split(), "AMVTG_004", "hdclub_001_001"):
        for side, frames in zip(sides, (noise(2), noise(2, 4, 6)), strict=True):
            write_frames(tmp_path / "SPMCS" / name / side, frames, "{:04}.png", first=0)
    found = find_clips("SPMC-11", tmp_path)
    assert sorted(clip.name for clip in found) == sorted(SPMC_11.split())
    assert all(clip.read_hr().shape == (2, 16, 24, 3) for clip in found)
    assert all(clip.read_lr().shape == (2, 4, 6, 3) for clip in found)


def test_the_eleven_of_spmc_around_the_clips(tmp_path):
    for name in (*SPMC_11.split(), "AMVTG_004"):
        write_frames(tmp_path / "SPMCS" / "GT" / name, noise(2), "{:04}.png")
        write_frames(tmp_path / "SPMCS" / "BIx4" / name, noise(2, 4, 6), "{:04}.png")
    found = find_clips("SPMC-11", tmp_path)
    assert len(found) == 11
    assert all(np.array_equal(clip.read_lr(), noise(2, 4, 6)) for clip in found)


def test_truth_beside_input4_in_each_clip(tmp_path):
    for name in HR:
        write_frames(tmp_path / "SPMC" / name / "truth", HR[name], "{:04}.png")
        write_frames(tmp_path / "SPMC" / name / "input4", LR[name], "{:04}.png")
    assert_clips(find_clips("SPMC-11", tmp_path), PAIRS)


def test_vimeo_takes_the_septuplets_of_its_list(tmp_path):
    root = tmp_path / "vimeo_septuplet"
    for name in ("00001/0266", "00001/0267", "00002/0001"):
        write_frames(root / "sequences" / name, noise(7))
        write_frames(root / "LR_x4" / name, noise(7, 4, 6, seed=1))
    (root / "sep_testlist.txt").write_text("00001/0266\n00002/0001\n\n")
    expected = {name: (noise(7), noise(7, 4, 6, seed=1)) for name in ("00001/0266", "00002/0001")}
    assert_clips(find_clips("vimeo-90k", tmp_path), expected)


def test_vimeo_as_gt_beside_bix4_with_a_list_that_says_more_than_names(tmp_path):
    root = tmp_path / "vimeo90k"
    for name in ("00001/0001", "00001/0266"):
        write_frames(root / "GT" / name, noise(7))
        write_frames(root / "BIx4" / name, noise(7, 4, 6, seed=1))
    listing = "00001/0266 7 (256,448,3)\n"
    (root / "meta_info_Vimeo90K_test_GT.txt").write_text(listing)
    (root / "meta_info_Vimeo90K_train_GT.txt").write_text("00001/0001 7 (256,448,3)\n")
    expected = {"00001/0266": (noise(7), noise(7, 4, 6, seed=1))}
    assert_clips(find_clips("Vimeo-90k-T", tmp_path), expected)


def test_vimeo_names_the_septuplets_that_are_missing(tmp_path):
    write_frames(tmp_path / "sequences" / "00001" / "0001", noise(7))
    (tmp_path / "sep_testlist.txt").write_text("00001/0001\n00001/0002\n")
    with pytest.raises(ValueError, match=r"1 of the 2 clips .*00001/0002"):
        find_clips("Vimeo-90k", tmp_path)


def test_vimeo_names_the_septuplets_that_lack_frames(tmp_path):
    for name in ("0001", "0002"):
        write_frames(tmp_path / "sequences" / "00001" / name, noise(7))
    (tmp_path / "sequences" / "00001" / "0002" / "im1.png").unlink()
    (tmp_path / "sep_testlist.txt").write_text("00001/0001\n00001/0002\n")
    with pytest.raises(ValueError, match=r"1 of the 2 clips .* do not have 7 frames \(00001/0002"):
        find_clips("Vimeo-90k", tmp_path)


def test_plain_folders_of_frames_are_clips(tmp_path):
    for name, frames in HR.items():
        write_frames(tmp_path / "mine" / name, frames)
    assert_clips(find_clips("mine", tmp_path), HR_ONLY)


def test_a_clip_may_have_a_dot_in_its_name(tmp_path):
    write_frames(tmp_path / "GT" / "scene.v2", noise(2))
    write_frames(tmp_path / "BIx4" / "scene.v2", noise(2, 4, 6))
    assert_clips(find_clips("mine", tmp_path), {"scene.v2": (noise(2), noise(2, 4, 6))})


def test_frames_are_sorted_by_their_numbers(tmp_path):
    frames = noise(12)
    write_frames(tmp_path / "clip" / "hr", frames, "hr_{}.png")  # hr_10 after hr_9
    assert np.array_equal(find_clips("set", tmp_path)[0].read_hr(), frames)


def test_only_as_many_frames_as_wanted_are_read(tmp_path):
    write_frames(tmp_path / "clip", noise(5))
    (tmp_path / "clip" / "im4.png").write_bytes(b"damaged")
    write_lossless(tmp_path / "film.mkv", noise(5))
    clip, film = find_clips("set", tmp_path)
    assert np.array_equal(clip.read_hr(3), noise(5)[:3])
    assert np.array_equal(film.read_hr(3), noise(5)[:3])
    with pytest.raises(ValueError, match=r"im4\.png: cannot be read"):
        clip.read_hr()


def test_grey_frames_are_read_as_they_are_stored(tmp_path):
    grey = noise(3)[..., 0]
    write_frames(tmp_path / "frames", grey)
    write_lossless(tmp_path / "film.mkv", grey)
    for source in (tmp_path / "frames", tmp_path / "film.mkv"):
        assert np.array_equal(read_clip(source), grey)
    expected = np.repeat(grey[..., None], 3, -1)
    assert np.array_equal(find_clips("set", tmp_path)[0].read_hr(), expected)


def test_transparency_is_dropped(tmp_path):
    rgb = noise(1)[0]
    (tmp_path / "clip").mkdir()
    alpha = np.full((*rgb.shape[:2], 1), 77, np.uint8)
    cv2.imwrite(str(tmp_path / "clip" / "1.png"), np.concatenate([rgb[..., ::-1], alpha], -1))
    assert np.array_equal(read_clip(tmp_path / "clip"), rgb[None])


def test_two_series_in_a_folder_are_refused(tmp_path):
    write_frames(tmp_path / "clip", noise(2), "sr_y_{:02}.png")
    for path in sorted((tmp_path / "clip").iterdir()):
        path.with_name(path.name.replace("_y_", "_rgb_")).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="sr_rgb_, sr_y_"):
        read_clip(tmp_path / "clip")


def test_frames_of_different_sizes_are_refused(tmp_path):
    write_frames(tmp_path / "clip", noise(2))
    cv2.imwrite(str(tmp_path / "clip" / "im3.png"), noise(1, 20, 24)[0])
    with pytest.raises(ValueError, match=r"im3\.png: a frame of shape \(20, 24, 3\)"):
        read_clip(tmp_path / "clip")


def test_deep_images_are_refused(tmp_path):
    (tmp_path / "clip").mkdir()
    cv2.imwrite(str(tmp_path / "clip" / "1.png"), noise(1)[0].astype(np.uint16) * 257)
    with pytest.raises(ValueError, match="uint16"):
        read_clip(tmp_path / "clip")


def test_a_damaged_video_is_named(tmp_path):
    (tmp_path / "film.mkv").write_bytes(b"not a film")
    with pytest.raises(ValueError, match=r"film\.mkv: cannot be decoded"):
        read_clip(tmp_path / "film.mkv")


def test_a_missing_root_and_an_empty_one_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_clips("Vid4", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no clips of Vid4"):
        find_clips("Vid4", tmp_path)
    with pytest.raises(FileNotFoundError, match="no frames"):
        read_clip(tmp_path)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("vid4", "Vid4"), ("VID4", "Vid4"), ("spmc11", "SPMC-11"), ("SPMCS", "SPMC-11"),
        ("vimeo_90k", "Vimeo-90k"), ("Vimeo-90k-T", "Vimeo-90k"), ("REDS4", "REDS4"),
    ],
)  # fmt: skip
def test_sets_are_known_under_the_names_people_use(given, name):
    assert canonical_name(given) == name


@pytest.mark.parametrize("recipe", ["double", "uint8"])
def test_low_resolution_is_made_frame_by_frame_from_sizes_that_divide(recipe):
    hr = noise(2, 18, 27)
    lr = make_lr(hr, recipe)
    assert lr.shape == (2, 4, 6, 3) and lr.dtype == np.uint8
    for low, high in zip(lr, hr, strict=True):
        assert np.array_equal(low, imresize(high[:16, :24], 0.25, recipe))


def test_low_resolution_by_bd_is_blurred_and_decimated():
    hr = noise(2, 18, 27)
    for low, high in zip(make_lr(hr, "bd"), hr, strict=True):
        assert np.array_equal(low, blur_decimate(high[:16, :24]))
