"""tOF and the preparation of the published MOVIE figures."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from d3dnet.datasets.luma import luma
from d3dnet.evaluation.movie_index import movie
from d3dnet.evaluation.protocols import PROTOCOLS, get_protocol
from d3dnet.evaluation.temporal import (
    check_length,
    luma_8bit,
    movie_frames,
    movie_of_result,
    range_compressed,
    temporal_error,
    tof,
)


def drifting(frames: int, step: float, height: int = 96, width: int = 112) -> np.ndarray:
    """A textured clip that moves to the right by ``step`` pixels per frame."""
    noise = np.random.default_rng(0).integers(0, 256, (height + 40, width + 120)).astype(np.float32)
    picture = cv2.GaussianBlur(noise, (0, 0), 2.5)
    picture = 128 + (picture - picture.mean()) * 3
    moves = [np.float32([[1, 0, -80 + step * t], [0, 1, -20]]) for t in range(frames)]
    clip = [cv2.warpAffine(picture, move, (width, height)) for move in moves]
    return np.clip(np.rint(clip), 0, 255).astype(np.uint8)


class TestOpticalFlowDifference:
    def test_it_is_the_difference_of_the_speeds(self):
        still, moving = drifting(4, 0), drifting(4, 1.5)
        assert tof(still, moving, border=16) == pytest.approx(1.5, abs=0.15)
        assert tof(moving, drifting(4, 0.5), border=16) == pytest.approx(1.0, abs=0.15)

    def test_equal_clips_score_zero(self):
        clip = drifting(3, 1)
        assert tof(clip, clip) == 0

    def test_the_mean_is_over_lengths_of_vectors_and_over_pairs_of_frames(self):
        sr, hr = drifting(3, 0.7), drifting(3, 1.4)
        settings = (None, 0.5, 3, 15, 3, 5, 1.2, 0)
        expected = []
        for t in range(2):
            a, b = (
                cv2.calcOpticalFlowFarneback(clip[t], clip[t + 1], *settings) for clip in (sr, hr)
            )
            expected.append(np.sqrt(((a - b) ** 2).sum(-1)).mean())
        assert tof(sr, hr) == pytest.approx(np.mean(expected), rel=1e-5)

    def test_other_clips_are_refused(self):
        clip = drifting(3, 1)
        with pytest.raises(ValueError, match="sr: got float64"):
            tof(clip.astype(float), clip)
        with pytest.raises(ValueError, match=r"sr: got uint8 \(1, 96, 112\)"):
            tof(clip[:1], clip[:1])
        with pytest.raises(ValueError, match=r"accepted is that of hr \(3, 96, 112\)"):
            tof(clip[:2], clip)


class TestTemporalError:
    def test_it_is_the_error_of_the_differences_of_frames(self):
        sr, hr = drifting(3, 0.7), drifting(3, 1.4)
        squares = []
        for t in range(2):
            ours, true = (clip[t + 1].astype(int) - clip[t] for clip in (sr, hr))
            squares.append((ours - true) ** 2)
        assert temporal_error(sr, hr) == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-6)

    def test_errors_that_stay_where_they_are_cost_nothing(self):
        hr = drifting(3, 0)
        assert temporal_error(hr // 2, hr) == 0
        assert temporal_error(np.zeros_like(hr), hr) == 0

    def test_other_clips_are_refused(self):
        clip = drifting(3, 1)
        with pytest.raises(ValueError, match="two frames or more"):
            temporal_error(clip[:1], clip[:1])


class TestRangeCompressed:
    def test_only_the_published_protocol_has_it(self):
        assert [name for name, p in PROTOCOLS.items() if p.range_compressed] == ["d3dnet"]

    def test_luma_is_compressed_a_second_time_with_little_noise(self):
        clip = drifting(33, 1)
        found = range_compressed(clip)
        expected = 16 + clip[:, 10:-10, 10:-10] * (219 / 255)
        assert found.dtype == np.uint8 and found.shape == expected.shape
        error = found - expected
        assert np.abs(error).max() < 2 and abs(error.mean()) < 0.05
        # Rounding alone has a deviation of 0.29; the JPEG adds to it.
        assert 0.29 < error.std() < 0.55

    def test_flat_luma_is_converted_to_the_nearest_code_value(self):
        levels = np.arange(256, dtype=np.uint8)
        clip = np.ascontiguousarray(np.broadcast_to(levels[:, None, None], (256, 28, 36)))
        found = range_compressed(clip)
        np.testing.assert_array_equal(found[:, :1, :1] + 0 * found, found)
        error = found[:, 0, 0] - (16 + levels * (219 / 255))
        assert np.abs(error).max() <= 0.6

    def test_31_frames_become_33_by_repeating_the_first_and_the_last(self):
        clip = drifting(31, 1)
        found = range_compressed(clip)
        assert len(found) == 33
        assert np.array_equal(found[0], found[1]) and np.array_equal(found[-1], found[-2])
        assert np.array_equal(found[1:-1], range_compressed(np.concatenate([clip, clip]))[:31])

    def test_longer_clips_keep_their_frames(self):
        assert len(range_compressed(drifting(35, 1))) == 35

    def test_movie_is_lower_and_the_flag_decides(self):
        hr = drifting(33, 0.6)
        sr = np.stack([cv2.GaussianBlur(frame, (0, 0), 2.0) for frame in hr])
        protocol = get_protocol("d3dnet")
        compressed = movie_of_result(sr, hr, protocol)
        assert compressed == movie(range_compressed(sr), range_compressed(hr))
        assert [frame.index for frame in compressed.frames] == [16]
        cut = np.s_[:, 10:-10, 10:-10]
        plain = movie_of_result(sr[cut], hr[cut], replace(protocol, range_compressed=False))
        assert plain == movie(sr[cut], hr[cut])
        assert 0 < compressed.movie < plain.movie

    @pytest.mark.parametrize(
        ("frames", "name", "expected"),
        [(31, "d3dnet", [15]), (33, "d3dnet", [16]), (41, "d3dnet", [16, 24]),
         (41, "y-crop0", [16, 24])],
    )  # fmt: skip
    def test_evaluated_frames_are_told_by_their_index_in_the_clip(self, frames, name, expected):
        assert movie_frames(frames, get_protocol(name)) == expected
        if frames == 31:
            hr = drifting(frames, 0.6, 80, 84)
            score = movie_of_result(hr // 2, hr, get_protocol(name))
            assert [frame.index for frame in score.frames] == expected

    def test_clips_that_stay_too_short_are_refused(self):
        clip = drifting(30, 1)
        with pytest.raises(ValueError, match="got 32 frames; accepted are 33"):
            movie_of_result(clip, clip, get_protocol("d3dnet"))
        with pytest.raises(ValueError, match="clip walk: MOVIE: got 32 frames; accepted are 33"):
            check_length(32, "walk", get_protocol("y-crop0"))
        check_length(31, "walk", get_protocol("d3dnet"))


def test_luma_of_every_kind_of_frame_is_rounded_to_8_bit_and_cut():
    rgb = np.random.default_rng(0).integers(0, 256, (2, 35, 50, 3), dtype=np.uint8)
    protocol = get_protocol("d3dnet")
    y = luma(rgb)[:, :32, :48]
    assert np.array_equal(luma_8bit(rgb, protocol), np.floor(y + 0.5))
    code = np.floor(y + 0.5).astype(np.uint8)
    assert np.array_equal(luma_8bit(list(code), protocol), code)
    network = ((code + 0.4) / 255).astype(np.float32)
    assert np.array_equal(luma_8bit(network, protocol), code)
    assert luma_8bit(np.float32([[[1.2] * 16] * 16]), protocol).max() == 255
