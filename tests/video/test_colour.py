from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from skimage.color import rgb2ycbcr

from d3dnet.network.cubic import resample_chroma
from d3dnet.video.colour import (
    Layout,
    chroma_offset,
    from_network,
    grid_of,
    rgb_to_ycbcr,
    to_network,
    ycbcr_to_rgb,
)

LOCATIONS = ["left", "center", "topleft", "top", "bottomleft", "bottom"]
STEPS = {"420": (2, 2), "422": (1, 2), "444": (1, 1), "440": (2, 1), "411": (1, 4)}


def layout(family="yuv", depth=8, step=(1, 1), location="left", full_range=False):
    return Layout("", family, depth, step, chroma_offset(location, step), full_range)


def test_limited_range_luma_is_the_stored_value_over_255():
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    luma, _ = to_network([stored], layout("grey"))
    assert luma.dtype == np.float32
    np.testing.assert_array_equal(luma, stored.astype(np.float32) / np.float32(255))


def test_ten_bit_luma_is_a_quarter_of_the_stored_value_over_255():
    stored = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    luma, _ = to_network([stored], layout("grey", depth=10))
    np.testing.assert_allclose(luma, stored / (4 * 255), rtol=1e-6)


@pytest.mark.parametrize("depth", [8, 10, 12, 16])
def test_full_range_black_and_white_reach_the_network_as_limited_range_ones(depth):
    stored = np.array([[0, 2**depth - 1]], np.uint8 if depth == 8 else np.uint16)
    luma, _ = to_network([stored], layout("grey", depth=depth, full_range=True))
    np.testing.assert_allclose(luma, [[16 / 255, 235 / 255]], rtol=1e-6)


def test_grey_rgb_reaches_the_network_as_the_same_luma_as_full_range_grey():
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey, _ = to_network([stored], layout("grey", full_range=True))
    colour, chroma = to_network([stored] * 3, layout("rgb"))
    np.testing.assert_allclose(colour, grey, atol=1e-6)
    np.testing.assert_allclose(chroma, 128, atol=1e-4)


@pytest.mark.parametrize(("depth", "full_range"), list(product([8, 10, 12, 16], [False, True])))
def test_every_luma_and_flat_chroma_value_comes_back_as_it_was(depth, full_range):
    # A picture "enlarged" by a network that returns its input needs luma of the larger size.
    count = 2 ** min(depth, 12)
    values = np.linspace(0, 2**depth - 1, count).round()
    source = layout(depth=depth, full_range=full_range, step=(2, 2))
    stored = values.astype(source.dtype).reshape(16, -1)
    luma, _ = to_network([stored, stored, stored], source)
    back = from_network(luma, (), source, layout("grey", depth, full_range=full_range))
    np.testing.assert_array_equal(back[0], stored)
    for value in np.append(stored.ravel()[:: count // 61], stored[-1, -1]):
        flat = np.full((8, 8), value, source.dtype)
        small, chroma = to_network([flat, flat[:4, :4], flat[:4, :4]], source)
        planes = from_network(np.kron(small, np.ones((4, 4), np.float32)), chroma, source, source)
        assert [plane.shape for plane in planes] == [(32, 32), (16, 16), (16, 16)]
        assert all((plane == value).all() for plane in planes)


@pytest.mark.parametrize("depth", [8, 10])
def test_a_change_of_range_moves_black_white_and_full_colour_onto_each_other(depth):
    top, step = 2**depth - 1, 2 ** (depth - 8)
    limited, full = layout(depth=depth), layout(depth=depth, full_range=True)
    for luma, chroma, as_limited, as_full in [
        (16, 128, (16 * step, 128 * step), (0, 128 * step)),
        (235, 240, (235 * step, 240 * step), (top, top)),
    ]:
        small = [np.full((8, 8), chroma, np.float32)] * 2
        large = np.full((32, 32), luma / 255, np.float32)
        for source, target, expected in [(limited, full, as_full), (full, limited, as_limited)]:
            planes = from_network(large, small, source, target)
            assert [np.unique(plane).tolist() for plane in planes] == [
                [expected[0]],
                [expected[1]],
                [expected[1]],
            ]


@pytest.mark.parametrize(
    ("source_step", "target_step", "source_location", "target_location"),
    [
        *((kind, kind, place, place) for kind in ("420", "422") for place in LOCATIONS),
        ("444", "444", "left", "left"),
        ("440", "444", "left", "left"),
        ("411", "422", "left", "left"),
        ("411", "420", "left", "center"),
        ("420", "420", "top", "left"),
        ("420", "444", "topleft", "left"),
        ("444", "420", "left", "center"),
    ],
)
def test_chroma_stays_where_it_was_beside_luma(
    source_step, target_step, source_location, target_location
):
    # Bicubic interpolation keeps straight ramps: chroma that rises along luma rows and columns must
    # rise along those of the enlarged luma, whose sample X shows the point (X + 1/2) / 4 - 1/2.
    source = layout(step=STEPS[source_step], location=source_location)
    target = layout(step=STEPS[target_step], location=target_location)
    height, width = 32, 48

    def position(index, axis, shown):  # of chroma sample `index`, in luma samples
        place = {
            "left": (Fraction(1, 2), 0),
            "center": (Fraction(1, 2), Fraction(1, 2)),
            "topleft": (0, 0),
            "top": (0, Fraction(1, 2)),
            "bottomleft": (1, 0),
            "bottom": (1, Fraction(1, 2)),
        }[source_location if shown is source else target_location][axis]
        step = shown.chroma_step[axis]
        return index * step + place * (step - 1)

    def ramp(shape, shown, scale):
        rows, columns = (
            np.array(
                [
                    float((position(i, axis, shown) + Fraction(1, 2)) / scale - Fraction(1, 2))
                    for i in range(shape[axis])
                ]
            )
            for axis in (0, 1)
        )
        return 40 + 2.5 * rows[:, None] + 1.25 * columns

    small = ramp((height // source.chroma_step[0], width // source.chroma_step[1]), source, 1)
    size = (4 * height // target.chroma_step[0], 4 * width // target.chroma_step[1])
    grids = grid_of(source), grid_of(target)
    large = resample_chroma(small.astype(np.float32), size, (4, 4), *grids)
    inside = slice(24, -24)
    np.testing.assert_allclose(large[inside, inside], ramp(size, target, 4)[inside, inside], 1e-5)


def test_chroma_of_odd_sizes_has_the_size_of_the_enlarged_picture():
    source = layout(step=(2, 2))
    assert source.plane_sizes(47, 63) == [(47, 63), (24, 32), (24, 32)]
    planes = [np.full(size, 90, np.uint8) for size in source.plane_sizes(47, 63)]
    _, chroma = to_network(planes, source)
    large = from_network(np.full((188, 252), 0.5, np.float32), chroma, source, source)
    assert [plane.shape for plane in large] == source.plane_sizes(188, 252)


def test_grey_made_into_a_format_with_chroma_is_neutral():
    source, target = layout("grey"), layout(depth=10, step=(2, 2))
    luma, chroma = to_network([np.full((8, 8), 77, np.uint8)], source)
    planes = from_network(np.kron(luma, np.ones((4, 4), np.float32)), chroma, source, target)
    assert [np.unique(plane).tolist() for plane in planes] == [[4 * 77], [512], [512]]


def test_rgb_conversion_agrees_with_scikit_image():
    rgb = np.random.default_rng(0).random((9, 7, 3), np.float32)
    ours = np.stack(rgb_to_ycbcr(rgb[..., 0], rgb[..., 1], rgb[..., 2]), axis=-1)
    np.testing.assert_allclose(ours, rgb2ycbcr(rgb), atol=1e-3)
    np.testing.assert_allclose(
        np.stack(ycbcr_to_rgb(*np.moveaxis(ours, -1, 0)), -1), rgb, atol=1e-5
    )


@pytest.mark.parametrize("depth", [8, 10, 16])
def test_flat_rgb_colours_come_back_as_they_were(depth):
    colours = np.random.default_rng(depth).integers(0, 2**depth, (40, 3))
    rgb = layout("rgb", depth=depth)
    for colour in colours:
        planes = [np.full((8, 8), value, rgb.dtype) for value in colour]
        luma, chroma = to_network(planes, rgb)
        large = from_network(np.kron(luma, np.ones((4, 4), np.float32)), chroma, rgb, rgb)
        assert [np.unique(plane).tolist() for plane in large] == [[value] for value in colour]
