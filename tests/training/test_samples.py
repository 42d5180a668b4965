"""Which samples a training takes from which folders."""

import shutil

import cv2
import numpy as np
import pytest
import torch

from d3dnet.cli import main
from d3dnet.datasets.clips import load_clips
from d3dnet.datasets.luma_store import pack
from d3dnet.datasets.vimeo90k import TRAIN_LIST, Vimeo90k
from d3dnet.training.processes import Processes
from d3dnet.training.samples import open_samples

ONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def vimeo(tmp_path_factory):
    """Vimeo-90k as downloaded: three septuplets for training and two for testing, of 64x64."""
    root = tmp_path_factory.mktemp("vimeo_septuplet")
    rng = np.random.default_rng(0)
    lists = {"train": ("00001/0001", "00001/0002", "00002/0001"), "test": ("00003/0001", "00003/2")}
    for kind, names in lists.items():
        for name in names:
            folder = root / "sequences" / name
            folder.mkdir(parents=True)
            frame = cv2.GaussianBlur(rng.integers(0, 256, (64, 64, 3), np.uint8), (0, 0), 2)
            for number in range(1, 8):
                cv2.imwrite(str(folder / f"im{number}.png"), np.roll(frame, number, axis=1))
        (root / f"sep_{kind}list.txt").write_text("\n".join(names) + "\n")
    return root


def test_vimeo90k_trains_by_the_published_recipe_and_validates_on_the_test_list(vimeo, tmp_path):
    small = "channels=8 resd3d_blocks=1 res_blocks=1 patch=8 batch=2 workers=1 steps=2 log_every=1"
    folders = [f"root={vimeo}", f"run={tmp_path / 'run'}"]
    assert main(["train", "vimeo90k", "--set", *small.split(), *folders]) == 0
    state = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    assert state["config"]["mode"] == "window"
    assert 10 < state["best"] < 60
    assert all(torch.equal(v, state["average"][name]) for name, v in state["model"].items())


def test_packed_and_downloaded_vimeo90k_give_the_same_samples(vimeo, tmp_path, tiny):
    pack(Vimeo90k(vimeo), tmp_path / "packed", {"list": TRAIN_LIST, "degradation": "double"})
    downloaded = tiny(data="vimeo90k", root=str(vimeo), frames=7, batch=3)
    packed = tiny(
        data="vimeo90k",
        root=str(tmp_path / "packed"),
        validation_root=str(vimeo),
        frames=7,
        batch=3,
    )
    (first, held_out), (second, held_out_too) = (open_samples(c, ONE) for c in (downloaded, packed))
    for index in range(4):
        assert all(map(torch.equal, first[index], second[index]))
    assert [clip.name for clip in held_out] == ["00003/0001", "00003/2"]
    assert [clip.name for clip in held_out_too] == ["00003/0001", "00003/2"]
    with pytest.raises(ValueError, match="validation_root: not set; beside a packed training list"):
        open_samples(tiny(data="vimeo90k", root=str(tmp_path / "packed")), ONE)


def test_a_few_held_out_clips_are_spread_over_all(vimeo, tiny):
    for count, names in ((0, []), (1, ["00003/0001"]), (9, ["00003/0001", "00003/2"])):
        config = tiny(data="vimeo90k", root=str(vimeo), frames=7, validation_clips=count)
        assert [clip.name for clip in open_samples(config, ONE)[1]] == names


def test_clips_may_be_validated_on_a_folder_of_their_own(clips_folder, tiny, tmp_path):
    (tmp_path / "apart").mkdir()
    shutil.copy(clips_folder / "urban_1.png", tmp_path / "apart" / "apart.png")
    config = tiny(held_out=(), validation_root=str(tmp_path / "apart"))
    samples, held_out = open_samples(config, ONE)
    assert [clip.name for clip in samples.clips] == ["urban_1", "urban_2", "urban_3"]
    assert [clip.name for clip in held_out] == ["apart"]


def test_lr_of_samples_is_made_by_the_degradation_asked_for(tiny):
    (a, _), (b, _) = (
        open_samples(tiny(degradation=degradation), ONE) for degradation in ("double", "bd")
    )
    assert torch.equal(a[0][1], b[0][1])
    assert not torch.equal(a[0][0], b[0][0])


def test_a_share_of_a_training_s_samples_are_pans(vimeo, tiny):
    def samples(**settings):
        return open_samples(tiny(data="vimeo90k", root=str(vimeo), frames=7, **settings), ONE)[0]

    plain, mixed, pans = samples(), samples(pan_share=0.5), samples(pan_share=1.0)
    for index in range(4):
        source = (plain, pans)[index % 2]
        assert all(map(torch.equal, mixed[index], source[index]))
        assert not torch.equal(plain[index][1], pans[index][1])


def test_single_frames_are_other_places_than_the_pans_and_leave_the_samples_as_they_are(tiny):
    plain, _ = open_samples(tiny(pan_share=1.0), ONE)
    samples, _ = open_samples(tiny(pan_share=1.0, single_frames=3), ONE)
    for index in range(4):
        lr, hr, single_lr, single_hr = samples[index]
        assert torch.equal(lr, plain[index][0]) and torch.equal(hr, plain[index][1])
        assert (single_lr.shape, single_hr.shape) == ((3, 1, 8, 8), (3, 1, 32, 32))
        assert not any(torch.equal(high[0], hr[0, t]) for high in single_hr for t in range(3))
        torch.testing.assert_close(
            single_lr, torch.nn.functional.avg_pool2d(single_hr, 4), rtol=0, atol=0.1
        )


def test_training_clips_are_there_in_a_smaller_size_too_and_held_out_ones_are_not(
    clips_folder, tiny
):
    plain, _ = open_samples(tiny(), ONE)
    samples, held_out = open_samples(tiny(reduced=0.75), ONE)
    assert [clip.name for clip in plain.clips] == ["urban_1", "urban_3"]
    assert [clip.name for clip in samples.clips] == 2 * ["urban_1", "urban_3"]
    smaller = [clip for clip in load_clips(clips_folder, size=0.75) if clip.name != "urban_2"]
    for clip, expected in zip(samples.clips, [*plain.clips, *smaller], strict=True):
        assert np.array_equal(clip.hr, expected.hr) and np.array_equal(clip.lr, expected.lr)
    (clip,) = held_out
    assert np.array_equal(clip.hr, open_samples(tiny(), ONE)[1][0].hr)


def test_clips_too_small_for_a_patch_in_the_smaller_size_are_left_out(tiny):
    samples, _ = open_samples(tiny(reduced=0.2), ONE)
    assert [clip.name for clip in samples.clips] == ["urban_1", "urban_3"]


def test_a_larger_size_is_refused(tiny):
    with pytest.raises(ValueError, match=r"reduced: got 1\.5; accepted is a size below 1"):
        tiny(reduced=1.5)


def test_a_share_above_one_is_refused(tiny):
    with pytest.raises(ValueError, match=r"pan_share: got .*; accepted is a share from 0 to 1"):
        tiny(pan_share=1.5)
