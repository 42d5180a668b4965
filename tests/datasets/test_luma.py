"""Luma: what is refused, and what is kept when it is stored."""

import numpy as np
import pytest

from d3dnet.datasets.luma import LUMA_STEPS, luma, store_luma, unit_luma


def test_luma_is_that_of_matlab():
    # rgb2ycbcr of uint8 pictures, whose result is rounded.
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]], np.uint8)
    assert np.rint(luma(colours)).tolist() == [81, 145, 41, 126]


@pytest.mark.parametrize("rgb", [np.zeros((4, 4, 3)), np.zeros((3, 4, 4), np.uint8)])
def test_other_arrays_than_8_bit_rgb_are_refused(rgb):
    with pytest.raises(ValueError, match="accepted is uint8 of shape"):
        luma(rgb)


def test_stored_luma_is_off_by_half_a_step_at_most():
    rgb = np.random.default_rng(0).integers(0, 256, (100, 3), np.uint8)
    stored = unit_luma(store_luma(rgb)) * 255
    assert np.abs(stored - luma(rgb)).max() <= 0.5 / LUMA_STEPS + 1e-4
