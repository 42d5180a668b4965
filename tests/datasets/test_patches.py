"""Patches: both sides cut and augmented alike, each sample determined by seed and index alone."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from d3dnet.datasets.clips import Clip
from d3dnet.datasets.patches import ClipPatches, EpochPatches


def position_clip(frames: int = 9, height: int = 12, width: int = 14) -> Clip:
    """Every LR sample is worth its own position; each HR block repeats its LR sample."""
    lr = np.arange(frames * height * width, dtype=np.uint16).reshape(frames, height, width)
    return Clip("positions", lr.repeat(4, 1).repeat(4, 2), lr)


def positions(lr: torch.Tensor) -> np.ndarray:
    return np.round(lr.numpy() * 255 * 256).astype(int)


def test_a_sample_is_luma_of_both_sides_in_unit_range():
    grey = Clip("grey", np.full((3, 32, 32), 100 * 256, np.uint16), np.full((3, 8, 8), 25600))
    lr, hr = ClipPatches([grey], 3, 8)[0]
    assert lr.shape == (1, 3, 8, 8) and hr.shape == (1, 3, 32, 32)
    assert lr.dtype == hr.dtype == torch.float32
    assert lr.unique().item() == hr.unique().item() == pytest.approx(100 / 255)


def test_low_and_high_resolution_are_cut_and_augmented_alike():
    patches = ClipPatches([position_clip()], 3, 8, candidates=2)
    for index in range(40):
        lr, hr = patches[index]
        torch.testing.assert_close(lr.repeat_interleave(4, 2).repeat_interleave(4, 3), hr)


def test_without_augmentation_a_sample_is_a_piece_of_the_clip():
    clip = position_clip()
    for index in range(20):
        lr = positions(ClipPatches([clip], 3, 8, augment=False)[index][0])[0]
        t, y, x = np.unravel_index(lr[0, 0, 0], clip.lr.shape)
        assert np.array_equal(lr, clip.lr[t : t + 3, y : y + 8, x : x + 8])


def test_every_place_is_drawn():
    patches = ClipPatches([position_clip(4, 5, 4)], 3, 4, augment=False)
    starts = {int(positions(patches[index][0]).min()) for index in range(60)}
    assert starts == {0, 4, 20, 24}  # two in time, two in height, one in width


def test_every_augmentation_happens():
    patches = ClipPatches([position_clip(3, 4, 4)], 3, 4)
    seen = {patches[index][0].numpy().tobytes() for index in range(300)}
    assert len(seen) == 16  # 2 flips, transposition, reversal


def test_longer_and_larger_clips_are_drawn_more_often():
    small = Clip("small", np.zeros((3, 32, 32), np.uint16), np.zeros((3, 8, 8), np.uint16))
    large = Clip("large", np.ones((9, 32, 64), np.uint16), np.ones((9, 8, 16), np.uint16))
    patches = ClipPatches([small, large], 3, 8)
    from_large = sum(bool(patches[index][0].any()) for index in range(200))
    assert 200 * 6 / 7 - 25 < from_large < 200 * 6 / 7 + 20


def test_candidates_prefer_detail():
    flat = Clip("flat", np.zeros((3, 32, 32), np.uint16), np.zeros((3, 8, 8), np.uint16))
    noise = np.random.default_rng(0).integers(0, 60000, (3, 8, 8)).astype(np.uint16)
    busy = Clip("busy", np.zeros((3, 32, 32), np.uint16), noise)

    def detailed(candidates: int) -> int:
        patches = ClipPatches([flat, busy], 3, 8, candidates=candidates)
        return sum(bool(patches[index][0].any()) for index in range(64))

    assert detailed(8) > 60 > 45 > detailed(1) > 19


def test_a_sample_depends_on_seed_and_index_alone():
    patches = ClipPatches([position_clip()], 3, 8, seed=1, candidates=3)
    forwards = [patches[index][0] for index in range(20)]
    backwards = [patches[index][0] for index in reversed(range(20))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert len({lr.numpy().tobytes() for lr in forwards}) == 20
    other = ClipPatches([position_clip()], 3, 8, seed=2, candidates=3)
    assert not any(torch.equal(other[index][0], lr) for index, lr in enumerate(forwards))


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_loader_workers_gives_the_same_samples(workers):
    patches = ClipPatches([position_clip()], 3, 8)
    indices = range(100, 112)  # beyond an epoch: there is no end
    loader = DataLoader(patches, batch_size=2, sampler=indices, num_workers=workers)
    loaded = torch.cat([lr for lr, _ in loader])
    assert torch.equal(loaded, torch.stack([patches[index][0] for index in indices]))


def test_a_set_can_be_sent_to_another_process():
    patches = ClipPatches([position_clip()], 3, 8, seed=5)
    assert torch.equal(pickle.loads(pickle.dumps(patches))[7][1], patches[7][1])


def test_clips_that_are_too_short_or_too_small_are_named():
    with pytest.raises(ValueError, match=r"clip positions: got .*\(9, 12, 14\).* 10 frames"):
        ClipPatches([position_clip()], 10, 8)
    with pytest.raises(ValueError, match="13x13"):
        ClipPatches([position_clip()], 3, 13)
    with pytest.raises(ValueError, match="at least one"):
        ClipPatches([], 3, 8)


def numbered_clips(count: int) -> list[Clip]:
    return [
        Clip(
            str(k), np.full((7, 32, 32), 256 * k, np.uint16), np.full((7, 8, 8), 256 * k, np.uint16)
        )
        for k in range(count)
    ]


def clip_numbers(patches: EpochPatches, indices: range) -> list[int]:
    return [round(patches[index][0].max().item() * 255) for index in indices]


def test_an_epoch_visits_every_clip_once_in_an_order_of_its_own():
    patches = EpochPatches(numbered_clips(20), 7, 8, seed=3)
    epochs = [clip_numbers(patches, range(20 * e, 20 * e + 20)) for e in range(4)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert clip_numbers(EpochPatches(numbered_clips(20), 7, 8, seed=4), range(20)) != epochs[0]


def test_a_sample_of_an_epoch_depends_on_seed_and_index_alone():
    patches = EpochPatches([position_clip(), position_clip()], 3, 8, seed=1)
    forwards = [patches[index][0] for index in range(12)]
    backwards = [patches[index][0] for index in reversed(range(12))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert len({lr.numpy().tobytes() for lr in forwards}) == 12


def test_ranks_that_share_an_epoch_draw_every_clip_once_between_them():
    patches = EpochPatches(numbered_clips(12), 7, 8)
    ranks = [clip_numbers(patches, range(rank, 12, 3)) for rank in range(3)]
    assert sorted(itertools.chain(*ranks)) == list(range(12))


def test_a_clip_too_small_for_an_epoch_is_named_when_it_is_drawn():
    with pytest.raises(ValueError, match=r"clip 0: got .* 9x9"):
        EpochPatches(numbered_clips(1), 7, 9)[0]
    with pytest.raises(ValueError, match="at least one"):
        EpochPatches([], 7, 8)
