from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from d3dnet.errors import InputError
from d3dnet.video.picture import Frame
from d3dnet.video.scenes import read_cuts, shots

CLIPS = Path(__file__).parents[2].parent / "shared" / "train" / "clips"
SIZE = (48, 64)


def texture(seed):
    """A picture with detail at every scale, twice as wide and high as a frame, in [30, 220]."""
    random = np.random.default_rng(seed)
    picture = sum(
        np.kron(random.standard_normal((96 // n, 128 // n)), np.ones((n, n))) for n in (2, 8, 16)
    )
    picture = (picture - picture.min()) / (picture.max() - picture.min())
    return 30 + 190 * picture


def view(picture, row=0, column=0):
    return picture[row : row + SIZE[0], column : column + SIZE[1]]


def starts(lumas, cuts="auto"):
    """Index of the first frame of each shot."""
    frames = (Frame((luma.astype(np.uint8),), n) for n, luma in enumerate(lumas))
    found = list(shots(frames, 255, cuts, Fraction(1, 25)))
    before = [None, *(shot for shot, _, _ in found)]
    return [
        frame.pts for last, (shot, frame, _) in zip(before, found, strict=False) if shot != last
    ]


ONE, TWO, THREE = texture(1), texture(2), texture(3)


def test_a_cut_is_found_where_it_is():
    lumas = [view(ONE, 0, n) for n in range(5)] + [view(TWO, n) for n in range(6)]
    assert starts(lumas) == [0, 5]


def test_shots_of_one_frame_are_found():
    assert starts([view(picture) for picture in (ONE, TWO, THREE, texture(4))]) == [0, 1, 2, 3]


def test_every_frame_comes_out_once_and_in_order():
    lumas = [view(p) for p in (ONE, ONE, TWO, TWO, TWO, THREE)]
    frames = (Frame((luma.astype(np.uint8),), n) for n, luma in enumerate(lumas))
    found = [(shot, f.pts) for shot, f, _ in shots(frames, 255, "auto", Fraction(1))]
    assert found == [(0, 0), (0, 1), (1, 2), (1, 3), (1, 4), (2, 5)]


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("colour", [255, 0])
def test_a_flash_is_no_cut(length, colour):
    lumas = [view(ONE, 0, n) for n in range(12)]
    for n in range(5, 5 + length):
        lumas[n] = np.full(SIZE, colour)
    assert starts(lumas) == [0]


def test_a_fast_pan_is_no_cut():
    assert starts([view(ONE, 0, 15 * n) for n in range(5)]) == [0]  # a quarter of the width


def test_fades_and_changes_of_exposure_are_no_cuts():
    down = [view(ONE) * (1 - n / 6) for n in range(7)]
    assert starts([*down, *reversed(down)]) == [0]
    assert starts([view(ONE), view(ONE), view(ONE) * 0.4, view(ONE) * 0.4]) == [0]


def test_a_dissolve_is_no_cut():
    mixed = [view(ONE) * (1 - n / 8) + view(TWO) * (n / 8) for n in range(9)]
    assert starts(mixed) == [0]


def test_flat_pictures_of_other_brightness_are_a_cut_and_noise_is_none():
    random = np.random.default_rng(0)
    grey = [np.full(SIZE, 60) + random.integers(0, 3, SIZE) for _ in range(4)]
    white = [np.full(SIZE, 200) + random.integers(0, 3, SIZE) for _ in range(4)]
    assert starts(grey + white) == [0, 4]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (17, 31)])
def test_tiny_pictures_are_no_trouble(size):
    random = np.random.default_rng(0)
    assert starts([random.integers(0, 255, size) for _ in range(6)])[0] == 0


def test_off_is_one_shot_and_a_list_is_followed():
    lumas = [view(p) for p in (ONE, TWO, ONE, TWO)]
    assert starts(lumas, "off") == [0]
    assert starts(lumas, [Fraction(1, 25), Fraction("0.1195")]) == [0, 1, 3]


def test_nothing_is_read_ahead_where_nothing_happens():
    read = []

    def frames():
        for n in range(10):
            read.append(n)
            yield Frame((view(ONE, 0, n).astype(np.uint8),), n)

    found = shots(frames(), 255, "auto", Fraction(1))
    for n in range(5):
        assert next(found)[1].pts == n
        assert len(read) == n + 1


def test_a_list_of_times_is_read_exactly(tmp_path):
    path = tmp_path / "cuts.txt"
    path.write_text("# shots\n0:01.5\n83.04 # the kiss\n\n1:00:00\n")
    assert read_cuts(path) == [Fraction(3, 2), Fraction("83.04"), Fraction(3600)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("3\n2\n", "line 2: 2 is not later"), ("soon\n", "line 1: got 'soon'"), (None, "readable")],
)
def test_a_wrong_list_is_refused(tmp_path, text, complaint):
    path = tmp_path / "cuts.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_cuts(path)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the training clips are not here")
def test_real_clips_have_no_cuts_and_joined_ones_have_one():
    names = sorted(CLIPS.glob("*.mp4"))[::12]
    clips = []
    for name in names:
        with av.open(str(name)) as container:
            clips.append([f.to_ndarray(format="gray") for f in container.decode(video=0)][:12])
    for clip in clips:
        assert starts(clip) == [0]
    found = [starts(a + b) == [0, len(a)] for a, b in pairwise(clips)]
    assert sum(found) >= len(found) - 1


@pytest.mark.parametrize("flashes", [[3], [3, 4], [3, 5, 7], [3, 4, 6, 9, 10]])
def test_taken_up_after_a_frame_that_says_so_the_same_shots_are_found(flashes):
    scene = [ONE] * 12 + [TWO] * 5 + [THREE] * 4
    lumas = [np.full_like(view(p), 250) if n in flashes else view(p) for n, p in enumerate(scene)]
    frames = [Frame((luma.astype(np.uint8),), n) for n, luma in enumerate(lumas)]
    whole = list(shots(frames, 255, "auto", Fraction(1)))
    cuts = [n for n in range(1, len(whole)) if whole[n][0] != whole[n - 1][0]]
    taken_up = 0
    for first in range(3, len(frames)):
        if not whole[first - 1][2]:
            continue
        begin = max(n for n in [0, *cuts] if n <= first)
        begin = max(begin, first - 2)
        found = list(shots(frames[begin:], 255, "auto", Fraction(1), known=first - begin))
        again = [begin + n for n in range(1, len(found)) if found[n][0] != found[n - 1][0]]
        assert again == [n for n in cuts if n >= max(first, begin + 1)]
        taken_up += 1
    assert 10 < taken_up < len(frames) - 3
