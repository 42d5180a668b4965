"""Clips of stills: smooth random paths, exact to a fraction of a pixel, without aliasing."""

import cv2
import numpy as np
import pytest

from d3dnet.datasets.stills import (
    SPEED,
    WindowPath,
    clip_of_still,
    follow,
    random_path,
    smooth_path,
    window_size,
)


def straight(frames: int, dx: float = 0, dy: float = 0, turn: float = 0, zoom: float = 1):
    t = np.arange(frames, dtype=float)
    return WindowPath(dx * t, dy * t, turn * t, zoom**t)


def colour_ramp(height: int, width: int) -> np.ndarray:
    """Red rises with x, green with y, blue is flat: a frame shows where it was taken."""
    y, x = np.mgrid[:height, :width].astype(float)
    return np.stack([x, y, np.full_like(x, 77)], -1)


def test_paths_are_smooth_and_no_faster_than_asked():
    for seed in range(20):
        path = smooth_path(60, 3.0, np.random.default_rng(seed))
        assert path.shape == (60,)
        assert np.abs(np.diff(path)).max() <= 3.0 + 1e-9
        # Smooth: the speed changes by no more than the fastest swing, of 12 frames, allows.
        assert np.abs(np.diff(path, 2)).max() <= 3.0 * 2 * np.pi / 12


def test_paths_are_not_straight_and_each_is_another():
    paths = [smooth_path(31, 3.0, np.random.default_rng(seed)) for seed in range(10)]
    assert all(np.abs(np.diff(path, 2)).max() > 0.01 for path in paths)
    assert len({path.tobytes() for path in paths}) == 10


def test_a_window_is_taken_from_where_its_path_says_to_a_fraction_of_a_pixel():
    path = straight(4, dx=0.3, dy=-0.7)
    frames = list(follow(16 * colour_ramp(15, 15), path))
    height, width = window_size(15, 15, path)
    assert frames[0].shape == (height, width, 3)
    for t, frame in enumerate(frames):
        # Middle of the window: middle of the still (7) and what the path adds.
        middle = frame[height // 2, width // 2].astype(float)
        odd = np.array([width % 2 == 0, height % 2 == 0]) * 0.5
        np.testing.assert_allclose(middle[:2] / 16 - odd, [7 + 0.3 * t, 7 - 0.7 * t], atol=1 / 16)
        assert middle[2] == 255  # 16 times 77, clipped


def test_turning_and_zooming_keep_the_middle_and_move_the_rest_as_geometry_says():
    path = straight(3, turn=0.05, zoom=1.04)
    frames = list(follow(6 * colour_ramp(41, 41), path))
    height, width = window_size(41, 41, path)
    for t, frame in enumerate(frames):
        angle, zoom = 0.05 * t, 1.04**t
        y, x = np.mgrid[:height, :width]
        u, v = x - (width - 1) / 2, y - (height - 1) / 2
        # Turned by the angle (either sense would do, but the same for x and y: no shear).
        source_x = 20 + (np.cos(angle) * u - np.sin(angle) * v) / zoom
        source_y = 20 + (np.sin(angle) * u + np.cos(angle) * v) / zoom
        np.testing.assert_allclose(frame[..., 0] / 6, source_x, atol=0.5 / 6 + 0.02)
        np.testing.assert_allclose(frame[..., 1] / 6, source_y, atol=0.5 / 6 + 0.02)


@pytest.mark.parametrize("size", [(40, 48), (96, 64), (31, 200)])
def test_the_window_never_leaves_the_still(size):
    height, width = size
    for seed in range(10):
        path = random_path(15, height, width, np.random.default_rng(seed))
        h, w = window_size(height, width, path)
        assert h > height / 3 and w > width / 3
        assert (path.zoom >= 1).all()  # it only magnifies: sampling cannot alias
        corners = np.array([(v, u) for v in (-1, 1) for u in (-1, 1)]) * ((h - 1) / 2, (w - 1) / 2)
        for x, y, angle in zip(path.x, path.y, path.angle, strict=True):
            turned_y = np.cos(angle) * corners[:, 0] + np.sin(angle) * corners[:, 1] + y
            turned_x = np.cos(angle) * corners[:, 1] - np.sin(angle) * corners[:, 0] + x
            assert np.abs(turned_y).max() <= (height - 1) / 2 + 1e-6
            assert np.abs(turned_x).max() <= (width - 1) / 2 + 1e-6


def test_a_window_at_rest_shows_the_still_itself():
    still = np.random.default_rng(0).integers(0, 256, (13, 17, 3)).astype(float)
    (frame,) = follow(still, straight(1))
    assert np.array_equal(frame, still)


def test_a_large_still_is_reduced_without_aliasing():
    # The finest pattern there is: reduced, it must become grey instead of a moiré.
    still = np.zeros((400, 400, 3), np.uint8)
    still[:, ::2] = 255
    rng = np.random.default_rng(3)  # a seed that reduces to about three quarters
    frames = np.stack(list(clip_of_still(still, 3, rng))).astype(float)
    assert frames.shape[1] < 320
    low = cv2.GaussianBlur(frames[1], (0, 0), 4)[20:-20, 20:-20]
    assert low.std() < 2 and abs(low.mean() - 127.5) < 2


def test_motion_is_below_two_low_resolution_pixels_a_frame():
    for seed in range(10):
        path = random_path(9, 480, 640, np.random.default_rng(seed))
        assert max(np.abs(np.diff(path.x)).max(), np.abs(np.diff(path.y)).max()) <= SPEED + 1e-9


def test_the_same_generator_gives_the_same_clip():
    still = np.random.default_rng(1).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    first, second, other = (
        np.stack(list(clip_of_still(still, 5, np.random.default_rng(seed)))) for seed in (4, 4, 5)
    )
    assert len(first) == 5 and np.array_equal(first, second)
    assert first.shape != other.shape or not np.array_equal(first, other)
