"""MOVIE: the release's values and intermediates, and each step against a written-out oracle."""

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from d3dnet.datasets.frames import read_clip
from d3dnet.datasets.imresize import imresize
from d3dnet.evaluation import movie_flow, movie_gabor
from d3dnet.evaluation.movie_flow import add_constraints, combine_flows, scale_flow
from d3dnet.evaluation.movie_gabor import SCALES, responses
from d3dnet.evaluation.movie_index import (
    channel_sums,
    dc_error,
    dc_response,
    evaluated_frames,
    movie,
    movie_maps,
    peak_amplitude,
    smooth,
    tuned_energy,
)

SHARED = Path(os.environ.get("D3DNET_SHARED", Path(__file__).parents[3] / "shared"))
CITY = SHARED / "eval" / "Vid4" / "city.mkv"
needs_city = pytest.mark.skipif(
    not CITY.exists(), reason=f"no {CITY}; set D3DNET_SHARED to the folder that has eval/Vid4"
)
# W, sigma, length: the table of the specification.
TABLE = (
    (2.199114857512855, 2.6503513924406823, 17),
    (1.555009028355428, 3.74816288424403, 23),
    (1.0995574287564274, 5.3007027848813655, 33),
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Frames are small here: threads would wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def texture(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A smooth pattern of many directions, in code values."""
    rng = np.random.default_rng(5)
    waves = sum(
        rng.uniform(5, 12) * np.cos(fy * y + fx * x + phase)
        for fy, fx, phase in rng.uniform((-1.2, -1.2, 0), (1.2, 1.2, 6.28), (16, 3))
    )
    return 120 + waves


def moving(velocity: tuple[float, float], height: int = 60, width: int = 58) -> np.ndarray:
    """33 frames of the texture that moves by (rows, columns) per frame."""
    t, y, x = np.meshgrid(np.arange(33.0), np.arange(height), np.arange(width), indexing="ij")
    return texture(y - velocity[0] * t, x - velocity[1] * t)


def frequency_of(scale: int, number: int) -> tuple[float, float, float]:
    """(w_y, w_x, w_t) of a filter, counted through the list of speeds and angles."""
    listed = [(0.0, angle) for angle in range(0, 161, 20)]
    listed += [(1 / math.sqrt(3), angle) for angle in range(0, 353, 22)]
    listed += [(math.sqrt(3), angle) for angle in range(0, 321, 40)]
    assert len(listed) == 35
    speed, angle = listed[number]
    rho = TABLE[scale][0] / math.sqrt(1 + speed**2)
    angle = math.radians(angle)
    return rho * math.cos(angle), rho * math.sin(angle), rho * speed


class TestResponses:
    def test_scales_are_those_of_the_table(self):
        for number, (scale, (frequency, sigma, length)) in enumerate(
            zip(SCALES, TABLE, strict=True)
        ):
            assert scale.frequency == pytest.approx(frequency, rel=1e-15)
            assert scale.sigma == pytest.approx(sigma, rel=1e-15)
            assert 2 * scale.half + 1 == length
            expected = [frequency_of(number, n) for n in range(35)]
            np.testing.assert_allclose(scale.frequencies, expected, atol=1e-14)

    @pytest.mark.parametrize("number", range(3))
    def test_a_response_is_the_convolution_written_out(self, number):
        """Sum over l, m, k of I(y - l, x - m, f - k) h(l) h(m) h(k), and of its derivatives."""
        _, sigma, length = TABLE[number]
        half = length // 2
        frames = np.random.default_rng(number).uniform(0, 255, (33, length + 4, length + 2))
        found = list(responses(torch.from_numpy(frames), SCALES[number], derivatives=True))
        offsets = range(-half, half + 1)

        def kernel(omega: float, derivative: bool) -> np.ndarray:
            return np.array(
                [
                    (1j * omega - k / sigma**2 if derivative else 1)
                    * math.exp(-(k**2) / (2 * sigma**2))
                    / (math.sqrt(2 * math.pi) * sigma)
                    * complex(math.cos(omega * k), math.sin(omega * k))
                    for k in offsets
                ]
            )

        for y, x in ((half, half), (half + 4, half + 2)):
            block = np.array(
                [
                    [[frames[16 - k, y - row, x - column] for column in offsets] for row in offsets]
                    for k in offsets
                ]
            )
            g = kernel(0.0, False)
            gaussian = np.einsum("tyx,t,y,x", block, g, g, g)
            for n in (0, 13, 20, 34):
                omega_y, omega_x, omega_t = frequency_of(number, n)
                expected = [
                    np.einsum(
                        "tyx,t,y,x", block,
                        kernel(omega_t, axis == "t"),
                        kernel(omega_y, axis == "y"),
                        kernel(omega_x, axis == "x"),
                    )
                    for axis in ("none", "y", "x", "t")
                ]  # fmt: skip
                expected[0] -= 0.001 * gaussian
                np.testing.assert_allclose(
                    found[n][:, y - half, x - half], expected, rtol=1e-9, atol=1e-11
                )

    def test_without_derivatives_the_response_is_the_same(self):
        frames = torch.from_numpy(moving((0, 0), 40, 41))
        first_of = responses(frames, SCALES[0], derivatives=True)
        for alone, first in zip(responses(frames, SCALES[0]), first_of, strict=True):
            assert len(alone) == 1
            torch.testing.assert_close(alone[0], first[0], rtol=1e-12, atol=1e-12)

    def test_tiles_change_nothing(self, monkeypatch):
        hr = torch.from_numpy(moving((0.3, 0.5)))
        sr = hr + torch.from_numpy(np.random.default_rng(0).normal(0, 3, hr.shape))
        whole = movie_maps(sr, hr)
        monkeypatch.setattr(movie_gabor, "TILE", 24)
        for tiled, expected in zip(movie_maps(sr, hr), whole, strict=True):
            torch.testing.assert_close(tiled, expected, rtol=1e-9, atol=1e-13)


class TestFlow:
    @pytest.mark.parametrize("velocity", [(0.4, -0.3), (-0.25, 0.7), (1.0, 0.5)])
    def test_a_moving_texture_has_the_velocity_it_moves_with(self, velocity):
        frames = torch.from_numpy(moving(velocity))
        peak = peak_amplitude(frames)
        flows = [
            scale_flow(channel_sums(frames, frames, scale, peak).constraints, scale)
            for scale in SCALES
        ]
        found, residual = combine_flows(flows)
        defined = residual.isfinite()
        assert defined.float().mean() > 0.1
        for axis in (0, 1):
            assert (found[axis][~defined] == 0).all()
            error = (found[axis][defined] - velocity[axis]).abs()
            assert error.median() < 0.02 and error.quantile(0.9) < 0.1

    @pytest.mark.parametrize("number", [1, 2])
    def test_velocity_is_the_least_squares_solution_over_listed_constraints(self, number):
        scale = SCALES[number]
        clip = moving((0.4, -0.3), 50, 52)
        clip += np.random.default_rng(3).normal(0, 0.1, clip.shape)
        frames = torch.from_numpy(clip)
        found = [r.numpy() for r in responses(frames, scale, derivatives=True)]
        peak = max(np.abs(r[0]).max() for r in found)
        sums = torch.zeros(7, 50, 52, dtype=torch.float64)
        inner = np.s_[:, scale.half : -scale.half, scale.half : -scale.half]
        local = torch.zeros_like(sums[inner])
        for n, response in enumerate(found):
            add_constraints(
                local, torch.from_numpy(response), torch.from_numpy(np.abs(response[0]) ** 2),
                torch.from_numpy(scale.frequencies[n]), scale, peak,
            )  # fmt: skip
        sums[inner] = local
        velocity, residual = scale_flow(sums, scale)

        height, width = found[0].shape[1:]
        listed = [[self.constraints(found, number, peak, y, x) for x in range(width)]
                  for y in range(height)]  # fmt: skip
        accepted = 0
        for y in range(height):
            for x in range(width):
                expected = self.solve(listed, y, x)
                at = (y + scale.half, x + scale.half)
                if expected is None:
                    assert not residual[at].isfinite()
                    continue
                accepted += 1
                np.testing.assert_allclose(velocity[:, *at], expected[:2], rtol=1e-7, atol=1e-9)
                assert residual[at] == pytest.approx(expected[2], rel=1e-6, abs=1e-9)
        assert accepted > 20
        assert residual.isfinite().sum() == accepted

    @staticmethod
    def constraints(
        found: list[np.ndarray], number: int, peak: float, y: int, x: int
    ) -> list[tuple[float, float, float]]:
        """(n_y, n_x, m) of every filter that is kept at a pixel."""
        kept = []
        for n, response in enumerate(found):
            r, *gradient = response[:, y, x]
            if not abs(r) > 0.05 * peak:
                continue
            q = [r.conjugate() * g / abs(r) ** 2 for g in gradient]
            distance = sum(
                a.real**2 + (a.imag - w) ** 2
                for a, w in zip(q, frequency_of(number, n), strict=True)
            )
            if not distance < (1.25 / TABLE[number][1]) ** 2:
                continue
            phi_y, phi_x, phi_t = (a.imag for a in q)
            u = -phi_t * np.array([phi_y, phi_x]) / (phi_y**2 + phi_x**2)
            m = math.hypot(*u)
            if m > 1e-6:
                kept.append((u[0] / m, u[1] / m, m))
        return kept

    @staticmethod
    def solve(listed: list[list], y: int, x: int) -> tuple[float, float, float] | None:
        """Velocity and relative residual, or None where it is undefined."""
        rows, right = [], []
        for p in range(-2, 3):
            for q in range(-2, 3):
                if not (0 <= y + p < len(listed) and 0 <= x + q < len(listed[0])):
                    continue
                for n_y, n_x, m in listed[y + p][x + q]:
                    rows.append([n_y, n_y * p, n_y * q, n_x, n_x * p, n_x * q])
                    right.append(m)
        if len(rows) < 7:
            return None
        rows, right = np.array(rows), np.array(right)
        solution, *_ = np.linalg.lstsq(rows, right, rcond=None)
        singular = np.linalg.svd(rows, compute_uv=False)
        residual = np.linalg.norm(rows @ solution - right) / np.linalg.norm(right)
        if singular[0] / singular[-1] >= 10 or residual >= 0.5:
            return None
        return solution[0], solution[3], residual

    @pytest.mark.parametrize("angle", [0, 0.3, 1.1, 2.6])
    @pytest.mark.parametrize("count", [1, 35])
    def test_of_one_direction_alone_the_velocity_along_it_is_taken(self, angle, count):
        """Parallel normals: J has rank 3, and the minimum-norm solution is m n."""
        n_y, n_x, m = math.cos(angle), math.sin(angle), 0.7
        terms = [n_y * n_y, n_y * n_x, n_x * n_x, m * n_y, m * n_x, m * m, 1]
        sums = torch.tensor(terms, dtype=torch.float64).view(7, 1, 1).expand(7, 40, 40) * count
        velocity, residual = scale_flow(sums, SCALES[0])
        inside = np.s_[..., 10:-10, 10:-10]
        assert residual[inside].max() < 1e-6
        expected = torch.tensor([m * n_y, m * n_x], dtype=torch.float64).view(2, 1, 1)
        torch.testing.assert_close(velocity[inside], expected.expand(2, 20, 20))

    def test_the_smaller_residual_wins_and_nothing_is_filled_in(self):
        inf = math.inf
        flows = [
            (torch.full((2, 1, 3), 1.0), torch.tensor([[0.2, inf, inf]])),
            (torch.full((2, 1, 3), 2.0), torch.tensor([[0.1, 0.4, inf]])),
        ]
        flows[0][0][:, 0, 1:] = 0
        flows[1][0][:, 0, 2] = 0
        velocity, residual = combine_flows(flows)
        assert velocity[0].tolist() == [[2.0, 2.0, 0.0]]
        assert residual.isfinite().tolist() == [[True, True, False]]


class TestMaps:
    @pytest.mark.parametrize("velocity", [(0.0, 0.0), (0.7, -1.3), (-2.0, 0.4)])
    def test_weights_have_mean_0_and_maximum_1_and_cross_the_velocity(self, velocity):
        v_y, v_x = velocity
        power = np.random.default_rng(1).uniform(0, 5, (2, 35))
        for number, scale in enumerate(SCALES):
            frequencies = np.array([frequency_of(number, n) for n in range(35)])
            weights = []
            for w_y, w_x, w_t in frequencies:
                d = (v_x * w_y + v_y * w_x + w_t) / math.sqrt(v_y**2 + v_x**2 + 1)
                weights.append((TABLE[number][0] - d) / TABLE[number][0])
            weights = np.array(weights)
            weights = (weights - weights.mean()) / (weights.max() - weights.mean())
            factors = np.concatenate([np.ones((35, 1)), frequencies], 1)
            energy = torch.from_numpy(power @ factors)[..., None, None]
            found = tuned_energy(energy, torch.tensor(velocity).double().view(2, 1, 1), scale)
            np.testing.assert_allclose(found[:, 0, 0], power @ weights, rtol=1e-6, atol=1e-12)

    def test_the_dc_error_is_the_loop_over_the_window(self):
        dc = np.random.default_rng(2).uniform(0, 255, (2, 12, 11))
        tap = np.exp(-(np.arange(-3, 4) ** 2) / 8)
        window = np.outer(tap, tap) / tap.sum() ** 2
        means = smooth(torch.from_numpy(dc))
        found = dc_error(torch.from_numpy(dc), means)
        for y, x in ((3, 3), (6, 5), (8, 7)):
            a, b = (plane[y - 3 : y + 4, x - 3 : x + 4] for plane in dc)
            a, b = np.abs(a - (window * a).sum()), np.abs(b - (window * b).sum())
            mask = max(math.sqrt((window * a**2).sum()), math.sqrt((window * b**2).sum())) + 1
            expected = (window * (a - b) ** 2).sum() / (2 * mask**2)
            assert found[y, x].item() == pytest.approx(expected, rel=1e-12)

    def test_the_window_is_zero_padded(self):
        tap = np.exp(-(np.arange(-3, 4) ** 2) / 8)
        tap /= tap.sum()
        found = smooth(torch.ones(9, 9, dtype=torch.float64))
        assert found[4, 4].item() == pytest.approx(1)
        assert found[0, 4].item() == pytest.approx(tap[3:].sum())

    def test_sizes_of_the_maps_are_those_of_the_borders(self):
        hr = torch.from_numpy(moving((0.2, 0.1), 54, 60))
        spatial, temporal = movie_maps(hr + 1, hr)
        assert spatial.shape == (54 - 38, 60 - 38) and temporal.shape == (54 - 52, 60 - 52)


class TestIndex:
    def test_a_clip_compared_with_itself_scores_zero(self):
        clip = np.rint(moving((0.4, 0.2))).astype(np.uint8)
        score = movie(clip, clip)
        assert (score.movie, score.spatial, score.temporal) == (0.0, 0.0, 0.0)

    def test_the_score_pools_means_over_evaluated_frames(self):
        rng = np.random.default_rng(4)
        hr = np.concatenate([moving((0.4, 0.2)), moving((0.4, 0.2))[:2]])
        sr = hr + rng.normal(0, 4, hr.shape)
        score = movie(sr, hr, interval=2)
        assert [frame.index for frame in score.frames] == [16, 18]
        for index, frame in zip((16, 18), score.frames, strict=True):
            window = slice(index - 16, index + 17)
            maps = movie_maps(torch.from_numpy(sr[window]), torch.from_numpy(hr[window]))
            expected = [np.std(m.numpy(), ddof=1) / (1 - np.mean(m.numpy())) for m in maps]
            assert [frame.spatial, frame.temporal] == pytest.approx(expected, rel=1e-9)
        spatial = np.mean([frame.spatial for frame in score.frames])
        temporal = np.mean([frame.temporal for frame in score.frames])
        assert score.spatial == pytest.approx(spatial) and score.temporal == pytest.approx(temporal)
        assert score.movie == pytest.approx(spatial * math.sqrt(temporal))

    def test_stronger_noise_scores_worse(self):
        hr = moving((0.4, 0.2))
        noise = np.random.default_rng(0).normal(0, 1, hr.shape)
        weak, strong = (movie(hr + level * noise, hr) for level in (2, 6))
        assert 0 < weak.spatial < strong.spatial and 0 < weak.temporal < strong.temporal

    def test_transposing_both_clips_changes_the_spatial_index_little(self):
        """Orientations are not symmetric (22 degrees does not divide 360), but nearly so."""
        hr = moving((0.0, 0.0), 60, 60)
        sr = hr + np.random.default_rng(0).normal(0, 4, hr.shape)
        score, turned = movie(sr, hr), movie(sr.transpose(0, 2, 1), hr.transpose(0, 2, 1))
        assert turned.spatial == pytest.approx(score.spatial, rel=0.05)
        assert turned.spatial != score.spatial

    def test_8_bit_and_floating_point_luma_are_the_same(self):
        hr = np.rint(moving((0.1, 0.3))).astype(np.uint8)
        sr = 255 - hr
        assert movie(sr, hr) == movie(torch.from_numpy(sr.astype(np.float32)), hr.astype(float))

    @pytest.mark.parametrize(
        ("frames", "start", "interval", "expected"),
        [(33, 17, 8, [16]), (40, 17, 8, [16]), (41, 17, 8, [16, 24]), (34, 17, 1, [16, 17]),
         (49, 17, 8, [16, 24, 32]), (40, 20, 3, [19, 22])],
    )  # fmt: skip
    def test_the_schedule_begins_at_17_and_ends_16_before_the_end(
        self, frames, start, interval, expected
    ):
        assert list(evaluated_frames(frames, start, interval)) == expected

    def test_clips_that_are_too_short_are_refused(self):
        clip = moving((0, 0))[:32]
        with pytest.raises(ValueError, match="got 32 frames; accepted are 33 and more"):
            movie(clip, clip)

    def test_a_schedule_that_begins_too_early_is_refused(self):
        clip = moving((0, 0))
        with pytest.raises(ValueError, match="got 16 and 8; accepted are 17 and more"):
            movie(clip, clip, start=16)

    def test_frames_that_are_too_small_are_refused(self):
        clip = moving((0, 0))[:, :53]
        with pytest.raises(ValueError, match=r"\(33, 53, 58\); accepted .* at least 54"):
            movie(clip, clip)

    def test_clips_of_different_shapes_are_refused(self):
        hr = moving((0, 0))
        with pytest.raises(ValueError, match=r"sr: got shape \(33, 59, 58\); .*\(33, 60, 58\)"):
            movie(hr[:, :59], hr)

    def test_rgb_integers_and_what_is_not_finite_are_refused(self):
        hr = moving((0, 0))
        with pytest.raises(ValueError, match="accepted is \\(T, H, W\\)"):
            movie(hr[..., None], hr)
        with pytest.raises(ValueError, match="int64; accepted are uint8 and floating point"):
            movie(hr.astype(np.int64), hr)
        sr = hr.copy()
        sr[3, 4, 5] = np.nan
        with pytest.raises(ValueError, match="sr: holds values that are not finite"):
            movie(sr, hr)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_a_gpu_gives_the_same(self):
        hr = moving((0.4, 0.2))
        sr = hr + np.random.default_rng(0).normal(0, 4, hr.shape)
        cpu, gpu = movie(sr, hr), movie(sr, hr, device="cuda")
        assert (gpu.movie, gpu.spatial, gpu.temporal) == pytest.approx(
            (cpu.movie, cpu.spatial, cpu.temporal), rel=1e-9
        )


@pytest.fixture(scope="module")
def city() -> tuple[np.ndarray, np.ndarray]:
    """The reference case: (34, 128, 128) 8-bit luma, distorted and ground truth."""
    rgb = read_clip(CITY)[:, 224:352, 288:416].astype(np.float64)
    y = 16 + (65.481 * rgb[..., 0] + 128.553 * rgb[..., 1] + 24.966 * rgb[..., 2]) / 255
    hr = np.floor(y + 0.5)

    def resized(frame: np.ndarray, scale: float) -> np.ndarray:
        return np.clip(np.floor(imresize(frame, scale) + 0.5), 0, 255)

    sr = np.stack([resized(resized(frame, 0.25), 4.0) for frame in hr]).astype(np.uint8)
    hr = hr.astype(np.uint8)
    assert hashlib.md5(hr.tobytes()).hexdigest() == "86caf8d5a06af14c85bf09de2140aebc"
    assert hashlib.md5(sr.tobytes()).hexdigest() == "05bef70971dc3adcaeb596dbfb07a5b7"
    return sr, hr


@needs_city
class TestRelease:
    """Values that the authors' release gives."""

    def test_scores_of_two_frames_and_of_both_schedules(self, city):
        score = movie(*city, interval=1)
        first, second = score.frames
        assert (first.index, second.index) == (16, 17)
        assert (first.spatial, first.temporal) == pytest.approx(
            (0.0352227182, 0.0141909068), rel=1e-8
        )
        assert (second.spatial, second.temporal) == pytest.approx(
            (0.0350535493, 0.0119422177), rel=1e-8
        )
        assert (score.spatial, score.temporal, score.movie) == pytest.approx(
            (0.0351381, 0.0130666, 0.00401661), abs=5e-8
        )
        assert [frame.index for frame in movie(*city).frames] == [16]

    @pytest.fixture
    def windows(self, city) -> tuple[Tensor, Tensor]:
        sr, hr = (torch.from_numpy(clip[:33]).double() for clip in city)
        return sr, hr

    def test_responses_of_four_filters(self, windows):
        expected = {  # number: ground truth, distorted
            0: (-0.1558231105 - 0.1398022879j, -0.2168463774 - 0.0028642836j),
            20: (-0.5849018786 + 0.0810413526j, -0.1610764699 + 0.0105753601j),
            40: (-0.1754565552 + 0.0671025589j, -0.2430218468 - 0.0763822745j),
            104: (-0.2889134763 + 0.0246767524j, -0.2428535169 - 0.0244183110j),
        }
        sr, hr = windows
        for number, values in expected.items():
            scale = SCALES[number // 35]
            at = 64 - scale.half
            for clip, value in zip((hr, sr), values, strict=True):
                found = list(responses(clip, scale))[number % 35][0, at, at].item()
                assert found == pytest.approx(value, abs=1e-9)
        gradient = list(responses(hr, SCALES[1], derivatives=True))[5][1:, 64 - 11, 64 - 11]
        assert gradient.tolist() == pytest.approx(
            [-0.0210325418 - 0.0423727301j, -0.0631404273 - 0.0420330769j,
             -0.0514197875 - 0.0008975606j], abs=1e-9,
        )  # fmt: skip

    def test_intermediate_maps(self, windows):
        sr, hr = windows
        dc = torch.stack([dc_response(sr), dc_response(hr)])
        means = smooth(dc)
        assert dc[:, 64, 64].tolist() == pytest.approx([162.8824057463, 165.6940002007], abs=1e-9)
        assert means[:, 64, 64].tolist() == pytest.approx(
            [161.1528129328, 162.9967364500], abs=1e-9
        )
        assert dc_error(dc, means)[64, 64].item() == pytest.approx(0.1262178360, abs=1e-9)
        peak = peak_amplitude(hr)
        assert peak == pytest.approx(9.30194857, abs=1e-8)

        channels = [channel_sums(sr, hr, scale, peak) for scale in SCALES]
        assert [sums.error[64, 64].item() for sums in channels] == pytest.approx(
            [0.0847729627, 0.0981155293, 0.0855937604], abs=1e-9
        )
        flows = [
            scale_flow(sums.constraints, scale)
            for sums, scale in zip(channels, SCALES, strict=True)
        ]
        assert [residual.isfinite().sum().item() for _, residual in flows] == [1304, 2213, 1350]
        velocity, residual = combine_flows(flows)
        assert residual.isfinite().sum() == 3317
        assert not residual[64, 64].isfinite() and velocity[:, 64, 64].tolist() == [0, 0]
        assert velocity[:, 63, 64].tolist() == pytest.approx([0.77460323, 0.76199898], abs=1e-8)
        assert flows[1][0][:, 63, 64].tolist() == velocity[:, 63, 64].tolist()
        assert velocity[:, 26, 26].tolist() == pytest.approx([-0.00260622, 0.83559649], abs=1e-8)

        deviation = ((dc - means) ** 2)[:, 64, 64]
        numerator = deviation + sum(
            tuned_energy(sums.energy, velocity, scale)[:, 64, 64]
            for sums, scale in zip(channels, SCALES, strict=True)
        )
        denominator = deviation + sum(sums.energy[:, 0, 64, 64] for sums in channels)
        assert numerator.tolist() == pytest.approx([2.7150217768, 5.5825698986], abs=1e-9)
        assert denominator.tolist() == pytest.approx([9.3592472844, 39.9313649405], abs=1e-9)

    def test_final_maps(self, windows):
        spatial, temporal = movie_maps(*windows)
        assert temporal[64 - 26, 64 - 26].item() == pytest.approx(0.0114542655, abs=1e-9)
        found = (spatial.mean(), spatial.std(), temporal.mean(), temporal.std())
        assert [value.item() for value in found] == pytest.approx(
            [0.06295519, 0.03300527, 0.00997417, 0.01404936], abs=1e-8
        )
        inner = spatial[4:-4, 4:-4]  # without the ring that counts
        assert (inner.std() / (1 - inner.mean())).item() == pytest.approx(0.03151, abs=1e-5)


def test_constants_are_those_of_the_release():
    assert movie_gabor.DC_LEAKAGE == 0.001
    assert (movie_flow.MINIMUM_AMPLITUDE, movie_flow.FREQUENCY_TOLERANCE) == (0.05, 1.25)
