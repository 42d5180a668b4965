"""PSNR and SSIM by protocol: hand-computed cases and direct loops."""

import math

import numpy as np
import pytest

from d3dnet.datasets.luma import luma
from d3dnet.evaluation.metrics import (
    Score,
    mean_score,
    psnr,
    score_frame,
    ssim,
)
from d3dnet.evaluation.protocols import PROTOCOLS, get_protocol

ONE_CODE_VALUE = 20 * math.log10(255)  # PSNR of images that differ by 1 everywhere
UNROUNDED_Y = ["y-crop0", "y-crop8", "vimeo-center"]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def grey(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def looped_ssim(x: np.ndarray, y: np.ndarray, peak: float, zero_padded: bool) -> float:
    """Wang et al. 2004, eq. 13, window by window."""
    tap = np.arange(11) - 5
    window = np.exp(-(tap[:, None] ** 2 + tap[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    if zero_padded:
        x, y = np.pad(x, 5), np.pad(y, 5)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = (image[top : top + 11, left : left + 11] for image in (x, y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a = (window * (a - mean_a) ** 2).sum()
            var_b = (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + c1)
                * (2 * covariance + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )
    return float(np.mean(values))


def test_the_protocols_are_those_of_the_literature():
    assert list(PROTOCOLS) == [
        "d3dnet", "y-crop0", "y-crop8", "rgb-crop0", "rgb-crop8", "vimeo-center",
    ]  # fmt: skip
    crops = {name: protocol.crop for name, protocol in PROTOCOLS.items()}
    assert crops == {
        "d3dnet": 8, "y-crop0": 0, "y-crop8": 8, "rgb-crop0": 0, "rgb-crop8": 8, "vimeo-center": 0,
    }  # fmt: skip
    recipes = {name: protocol.lr_recipe for name, protocol in PROTOCOLS.items()}
    assert recipes.pop("d3dnet") == "uint8"
    assert set(recipes.values()) == {"double"}


@pytest.mark.parametrize(
    ("protocol", "frames", "expected"),
    [
        ("d3dnet", 31, range(2, 29)),
        ("d3dnet", 7, range(2, 5)),
        ("vimeo-center", 7, range(3, 4)),
        ("y-crop0", 41, range(41)),
        ("rgb-crop8", 5, range(5)),
    ],
)
def test_the_protocol_says_which_frames_count(protocol, frames, expected):
    assert get_protocol(protocol).scored_frames(frames) == expected


def test_an_unknown_protocol_is_named():
    with pytest.raises(ValueError, match=r"'psnr-y'.*d3dnet, y-crop0"):
        get_protocol("psnr-y")


def test_luma_of_pure_colours_is_the_textbook_value():
    colours = np.array(
        [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8
    )
    np.testing.assert_allclose(luma(colours), [16, 235, 81.481, 144.553, 40.966], atol=1e-12)


def test_luma_that_is_a_whole_code_value_comes_out_whole():
    # Such colours decide whether truncation is off by one; in floating point
    # (65.481 R + 128.553 G + 24.966 B) / 255 + 16 falls short for some.
    r, g, b = np.ogrid[:256, :256, :256]
    thousandths = (65481 * r + 128553 * g + 24966 * b).astype(np.int32)
    whole = thousandths % 255000 == 0
    colours = np.argwhere(whole).astype(np.uint8)
    assert len(colours) == 206
    assert np.array_equal(luma(colours), thousandths[whole] // 255000 + 16)


def test_luma_accepts_8_bit_rgb_only():
    with pytest.raises(ValueError, match="float64"):
        luma(np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        luma(np.zeros((2, 2), np.uint8))


def test_psnr_of_a_hand_computed_case():
    hr = np.zeros((2, 2))
    sr = np.array([[1.0, 1.0], [1.0, 3.0]])  # mean squared error 3
    assert psnr(sr, hr) == pytest.approx(10 * math.log10(255**2 / 3), abs=1e-12)
    assert psnr(sr / 255, hr, peak=1) == pytest.approx(psnr(sr, hr), abs=1e-12)
    assert psnr(hr, hr) == math.inf


@pytest.mark.parametrize("border", ["valid", "zero"])
@pytest.mark.parametrize("size", [(11, 11), (14, 17)])
def test_ssim_is_the_mean_over_gaussian_windows(size, border):
    hr = noise(*size)[..., 0].astype(float)
    sr = np.clip(hr + np.random.default_rng(1).normal(0, 20, size), 0, 255)
    expected = looped_ssim(sr, hr, 255, zero_padded=border == "zero")
    assert ssim(sr, hr, border=border) == pytest.approx(expected, abs=1e-12)
    assert ssim(sr / 255, hr / 255, peak=1, border=border) == pytest.approx(expected, abs=1e-12)


def test_the_borders_of_ssim_differ():
    hr = noise(20, 20)[..., 0].astype(float)
    sr = np.clip(hr + 30, 0, 255)
    assert abs(ssim(sr, hr) - ssim(sr, hr, border="zero")) > 1e-3


def test_ssim_of_rgb_is_the_mean_of_its_channels():
    hr, sr = noise(14, 15).astype(float), noise(14, 15, seed=1).astype(float)
    channels = [looped_ssim(sr[..., c], hr[..., c], 255, zero_padded=False) for c in range(3)]
    assert ssim(sr, hr) == pytest.approx(np.mean(channels), abs=1e-12)


def test_ssim_refuses_frames_smaller_than_its_window():
    with pytest.raises(ValueError, match="11"):
        ssim(np.zeros((10, 20)), np.zeros((10, 20)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_perfect_frame_scores_infinity_and_one(protocol):
    hr = noise(32, 48)
    assert score_frame(hr, hr, protocol) == Score(math.inf, pytest.approx(1, abs=1e-12))


class TestD3dnetProtocol:
    def test_psnr_truncates_both_sides(self):
        hr = grey(32, 32, 128)  # Y = 125.93 -> 125
        sr = np.full((32, 32), 126.999 / 255)  # -> 126
        assert score_frame(sr, hr, "d3dnet").psnr == pytest.approx(ONE_CODE_VALUE)
        sr = np.full((32, 32), 125.001 / 255)
        assert score_frame(sr, hr, "d3dnet").psnr == math.inf

    def test_the_luma_of_an_rgb_result_is_truncated_too(self):
        hr, sr = grey(32, 32, 128), grey(32, 32, 127)  # 125.93 -> 125, 125.07 -> 125
        assert score_frame(sr, hr, "d3dnet").psnr == math.inf

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_every_stored_code_value_survives_truncation(self, dtype):
        hr = noise(32, 32)
        code = np.resize(np.arange(256, dtype=np.uint8), (32, 32))
        as_float = code.astype(dtype) / dtype(255)
        assert score_frame(as_float, hr, "d3dnet").psnr == score_frame(code, hr, "d3dnet").psnr

    def test_ssim_is_unquantised_and_zero_padded_over_the_cropped_frame(self):
        hr = noise(32, 48)
        sr = np.random.default_rng(1).random((32, 48))
        y = hr.astype(float) @ [65.481, 128.553, 24.966] / 255 + 16
        inside = np.s_[8:-8, 8:-8]
        expected = looped_ssim(sr[inside], y[inside] / 255, 1, zero_padded=True)
        assert score_frame(sr, hr, "d3dnet").ssim == pytest.approx(expected, abs=1e-9)

    def test_the_result_is_clamped(self):
        hr = noise(32, 32)
        sr = np.random.default_rng(1).normal(0.5, 1, (32, 32)).astype(np.float32)
        assert score_frame(sr, hr, "d3dnet") == score_frame(np.clip(sr, 0, 1), hr, "d3dnet")

    def test_sizes_are_cut_to_a_multiple_of_16_and_the_top_left_is_kept(self):
        hr = noise(47, 63)  # -> 32x48
        sr = noise(47, 63, seed=1)
        cut = score_frame(sr[:32, :48], hr[:32, :48], "d3dnet")
        assert score_frame(sr, hr, "d3dnet") == cut
        assert score_frame(sr[:32, :48], hr, "d3dnet") == cut


@pytest.mark.parametrize("protocol", ["d3dnet", "y-crop8", "rgb-crop8"])
def test_eight_pixels_of_border_do_not_count(protocol):
    hr, sr = noise(32, 48), noise(32, 48, seed=1)
    score = score_frame(sr, hr, protocol)
    for edge in (np.s_[:8], np.s_[-8:], np.s_[:, :8], np.s_[:, -8:]):
        changed = sr.copy()
        changed[edge] = 0
        assert score_frame(changed, hr, protocol) == score
    for pixel in ((8, 8), (8, -9), (-9, 8), (-9, -9)):
        changed = sr.copy()
        changed[pixel] = 255 - changed[pixel]
        assert score_frame(changed, hr, protocol) != score


@pytest.mark.parametrize("protocol", ["y-crop0", "rgb-crop0", "vimeo-center"])
def test_without_a_crop_every_pixel_counts(protocol):
    hr = noise(32, 48)
    sr = hr.copy()
    sr[0, 0] = 255 - sr[0, 0]
    assert math.isfinite(score_frame(sr, hr, protocol).psnr)


@pytest.mark.parametrize("protocol", UNROUNDED_Y)
def test_luma_of_rgb_frames_is_compared_unrounded(protocol):
    hr, sr = grey(32, 32, 128), grey(32, 32, 127)  # luma differs by 219/255
    expected = 20 * math.log10(255 * 255 / 219)
    assert score_frame(sr, hr, protocol).psnr == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("protocol", UNROUNDED_Y)
def test_luma_of_a_network_is_rounded_to_8_bit_first(protocol):
    hr = grey(32, 32, 128)
    y = 128 * 219 / 255 + 16  # 125.93
    for code, rounded in ((126.5, 127), (126.4999, 126), (-3.0, 0), (300.0, 255)):
        sr = np.full((32, 32), code / 255, np.float64)
        expected = 20 * math.log10(255 / abs(rounded - y))
        assert score_frame(sr, hr, protocol).psnr == pytest.approx(expected, abs=1e-6)


def test_ssim_of_the_standard_protocols_is_over_the_valid_region():
    hr, sr = noise(32, 36), noise(32, 36, seed=1)
    to_y = np.array([65.481, 128.553, 24.966]) / 255
    x, y = sr @ to_y + 16, hr @ to_y + 16
    expected = looped_ssim(x, y, 255, zero_padded=False)
    assert score_frame(sr, hr, "y-crop0").ssim == pytest.approx(expected, abs=1e-9)
    expected = looped_ssim(x[8:-8, 8:-8], y[8:-8, 8:-8], 255, zero_padded=False)
    assert score_frame(sr, hr, "y-crop8").ssim == pytest.approx(expected, abs=1e-9)


def test_rgb_psnr_is_over_the_samples_of_all_channels():
    hr = grey(32, 32, 100)
    sr = hr.copy()
    sr[..., 0] += 3  # mean squared error 9/3
    assert score_frame(sr, hr, "rgb-crop0").psnr == pytest.approx(10 * math.log10(255**2 / 3))


def test_luma_cannot_be_scored_in_rgb():
    with pytest.raises(ValueError, match="rgb-crop0 accepts 8-bit RGB only"):
        score_frame(np.zeros((32, 32)), noise(32, 32), "rgb-crop0")


def test_rgb_results_of_floating_point_are_refused():
    for protocol in ("d3dnet", "rgb-crop0"):
        with pytest.raises(ValueError, match="float64"):
            score_frame(np.zeros((32, 32, 3)), noise(32, 32), protocol)


def test_a_frame_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r"got a frame of 44x32 for a ground truth of 48x32"):
        score_frame(noise(32, 44), noise(32, 48), "y-crop0")


def test_integer_luma_of_more_than_8_bits_is_refused():
    with pytest.raises(ValueError, match="uint16"):
        score_frame(np.zeros((32, 32), np.uint16), noise(32, 32), "y-crop0")


def test_the_mean_score_averages_decibels_not_errors():
    assert mean_score([Score(20.0, 0.5), Score(40.0, 1.0)]) == Score(30.0, 0.75)
