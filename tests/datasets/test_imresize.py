"""`imresize` against a written-out oracle in exact rational arithmetic."""

import math
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import scipy.ndimage

from d3dnet.datasets.imresize import blur_decimate, degrade, imresize

HALF = Fraction(1, 2)


@cache
def cubic(x: Fraction) -> Fraction:
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    if x < 2:
        return -HALF * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2
    return Fraction(0)


def resize_line(line: list, scale: Fraction) -> list:
    """One line of samples; the pixel of index i covers [i, i + 1)."""
    result = []
    stretch = min(scale, Fraction(1))
    for out in range(math.ceil(len(line) * scale)):
        centre = (out + HALF) / scale - HALF
        total = weights = Fraction(0)
        reach = math.ceil(2 / stretch) + 1
        for tap in range(math.floor(centre) - reach, math.ceil(centre) + reach + 1):
            weight = cubic(stretch * (centre - tap))
            source = tap % (2 * len(line))  # mirrored with the border sample repeated
            total += weight * line[min(source, 2 * len(line) - 1 - source)]
            weights += weight
        result.append(total / weights)
    return result


def resize_rows(image: list[list], scale: Fraction) -> list[list]:
    """The vertical pass: every column is a line."""
    columns = [resize_line(list(column), scale) for column in zip(*image, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def resize_columns(image: list[list], scale: Fraction) -> list[list]:
    return [resize_line(row, scale) for row in image]


def round_half_up(image: list[list]) -> list[list]:
    return [[min(255, max(0, math.floor(value + HALF))) for value in row] for row in image]


def as_lists(image: np.ndarray) -> list[list]:
    return [[Fraction(int(value)) for value in row] for row in image]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


SIZES = [(16, 12), (4, 4), (3, 5), (10, 13)]


@pytest.mark.parametrize("scale", [Fraction(1, 4), Fraction(4), Fraction(1, 2), Fraction(3, 2)])
@pytest.mark.parametrize("size", SIZES)
def test_floating_point_images_are_resized_as_keys_cubic_says(size, scale):
    image = noise(*size)
    expected = resize_columns(resize_rows(as_lists(image), scale), scale)
    result = imresize(image.astype(np.float64), float(scale))
    np.testing.assert_allclose(result, np.array(expected, float), rtol=0, atol=1e-10)


@pytest.mark.parametrize("scale", [Fraction(1, 4), Fraction(4)])
@pytest.mark.parametrize("size", SIZES)
def test_the_double_recipe_rounds_once_at_the_end(size, scale):
    image = noise(*size, seed=1)
    exact = resize_columns(resize_rows(as_lists(image), scale), scale)
    assert np.array_equal(imresize(image, float(scale), "double"), round_half_up(exact))


@pytest.mark.parametrize("scale", [Fraction(1, 4), Fraction(4)])
@pytest.mark.parametrize("size", SIZES)
def test_the_uint8_recipe_does_rows_first_and_rounds_after_each_pass(size, scale):
    image = noise(*size, seed=2)
    rows = round_half_up(resize_rows(as_lists(image), scale))
    expected = round_half_up(resize_columns([[Fraction(v) for v in row] for row in rows], scale))
    assert np.array_equal(imresize(image, float(scale), "uint8"), expected)


def test_the_order_of_the_passes_matters_to_the_uint8_recipe():
    image = noise(64, 64)
    columns_first = imresize(image.T, 0.25, "uint8").T
    assert not np.array_equal(imresize(image, 0.25, "uint8"), columns_first)
    assert np.array_equal(imresize(image, 0.25, "double"), imresize(image.T, 0.25, "double").T)


def test_the_recipes_differ_by_the_rounding_between_the_passes():
    image = noise(256, 256)
    double, uint8 = (imresize(image, 0.25, recipe).astype(int) for recipe in ("double", "uint8"))
    differing = np.mean(double != uint8)
    assert 0.05 < differing < 0.3
    assert np.abs(double - uint8).max() <= 5


def test_ties_are_rounded_up():
    line = noise(1, 400, seed=4)
    exact = resize_line([Fraction(int(value)) for value in line[0]], Fraction(4))
    ties = [i for i, value in enumerate(exact) if value % 1 == HALF and 0 < value < 255]
    assert ties  # weights are multiples of 1/1024, so that noise has some
    result = imresize(np.repeat(line, 2, axis=0), 4, "uint8")[0]
    assert [result[i] for i in ties] == [exact[i] + HALF for i in ties]


def test_shrinking_by_four_weighs_sixteen_samples():
    impulse = np.zeros((1, 64))
    impulse[0, 32] = 1.0
    reached = np.flatnonzero(imresize(np.repeat(impulse, 4, 0), 0.25)[0])
    # Output 8 covers inputs 32..35; its kernel, 16 wide, starts at input 26 (= 4·8 + 1.5 - 8).
    assert reached.tolist() == [6, 7, 8, 9]


def test_weights_at_a_quarter_are_the_cubic_at_odd_eighths():
    for source in range(24, 40):
        impulse = np.zeros((4, 64))
        impulse[:, source] = 1.0
        distance = Fraction(source) - (4 * 7 + Fraction(3, 2))
        expected = float(cubic(distance / 4) / 4)
        assert imresize(impulse, 0.25)[0, 7] == pytest.approx(expected, abs=1e-15)


def test_borders_are_mirrored_with_the_border_sample_repeated():
    image = noise(8, 16)
    mirrored = np.concatenate([image[:, ::-1], image, image[:, ::-1]], axis=1)
    expected = imresize(mirrored.astype(float), 0.25)[:, 4:8]
    np.testing.assert_allclose(imresize(image.astype(float), 0.25), expected, atol=1e-12)


def test_a_constant_image_stays_constant():
    for value in range(0, 256, 5):
        image = np.full((12, 20), value, np.uint8)
        for recipe in ("double", "uint8"):
            assert (imresize(image, 0.25, recipe) == value).all()
            assert (imresize(image, 4, recipe) == value).all()


def test_overshoot_is_clipped_for_8_bit_and_kept_for_floating_point():
    edge = np.zeros((4, 8), np.uint8)
    edge[:, 4:] = 255
    result = imresize(edge, 4)
    assert result.dtype == np.uint8 and result.min() == 0 and result.max() == 255
    floating = imresize(edge.astype(np.float32), 4)
    assert floating.dtype == np.float64 and floating.min() < 0 and floating.max() > 255


def test_channels_are_resized_one_by_one():
    image = np.random.default_rng(3).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    for recipe in ("double", "uint8"):
        result = imresize(image, 0.25, recipe)
        assert result.shape == (3, 4, 3)
        for channel in range(3):
            expected = imresize(np.ascontiguousarray(image[..., channel]), 0.25, recipe)
            assert np.array_equal(result[..., channel], expected)


def test_the_memory_layout_of_the_image_does_not_matter():
    image = noise(32, 48)
    assert np.array_equal(imresize(image[::2, ::2], 0.25), imresize(image[::2, ::2].copy(), 0.25))
    fortran = np.asfortranarray(image)
    assert np.array_equal(imresize(fortran, 0.25), imresize(image, 0.25))


def test_sizes_that_do_not_divide_are_rounded_up():
    assert imresize(noise(9, 14), 0.25).shape == (3, 4)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((np.zeros(4), 0.25), "image"),
        ((np.zeros((4, 4), np.int32), 0.25), "int32"),
        ((np.zeros((4, 4)), 0), "scale"),
        ((np.zeros((4, 4), np.uint8), 0.25, "matlab"), "recipe"),
    ],
)
def test_wrong_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        imresize(*arguments)


def test_bd_is_a_gaussian_of_sigma_1_6_of_which_every_fourth_pixel_is_kept():
    image = np.random.default_rng(5).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    # scipy cuts the kernel off at truncate * sigma + 0.5: 6 pixels; "reflect" repeats the border.
    blurred = scipy.ndimage.gaussian_filter(
        image.astype(float), (1.6, 1.6, 0), mode="reflect", truncate=3.75
    )
    expected = np.floor(blurred[::4, ::4] + 0.5)
    result = blur_decimate(image)
    assert result.dtype == np.uint8 and result.shape == (6, 9, 3)
    assert np.array_equal(result, expected)


def test_degraded_images_are_cut_to_sizes_that_divide():
    image = np.random.default_rng(6).integers(0, 256, (18, 27, 3), dtype=np.uint8)
    for degradation in ("double", "uint8"):
        expected = imresize(image[:16, :24], 0.25, degradation)
        assert np.array_equal(degrade(image, degradation), expected)
    assert np.array_equal(degrade(image, "bd"), blur_decimate(image[:16, :24]))
    with pytest.raises(ValueError, match="degradation: got 'bicubic'"):
        degrade(image, "bicubic")
