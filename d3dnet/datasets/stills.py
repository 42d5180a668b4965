"""Clips made of still images: a window that pans, zooms and turns along a smooth random path.

Each frame is sampled once from the still, at positions that are not rounded, by cubic splines. The
window only ever magnifies, so that sampling cannot alias; where the still is reduced, `imresize`
does it, which is antialiased. The window stays inside the still: no border is ever seen.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from d3dnet.datasets.imresize import imresize

SPEED = 4.0  # at most, in pixels a frame: sub-pixel at low resolution
TURN = math.radians(0.3)  # a frame at most
ZOOM = 0.004  # a frame at most
PERIODS = (12, 60)  # frames in which a path swings to and fro
MAX_SHARE = 0.25  # of the still's size that the window moves over
REDUCED_FROM = 320  # stills of at least so many pixels each way are reduced, down to ...
REDUCED_TO = 0.7


@dataclass(frozen=True)
class WindowPath:
    """Where the window is, frame by frame, each (frames,) float64.

    Attributes:
        x, y: pixels from the middle of the still.
        angle: radians.
        zoom: pixels of the clip per pixel of the still, at least 1.
    """

    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray
    zoom: np.ndarray


def smooth_path(frames: int, speed: float, rng: np.random.Generator) -> np.ndarray:
    """A random smooth function of time: drift and three slow swings, around 0.

    Args:
        frames: how many.
        speed: bound of the change from one frame to the next.
        rng: the only source of randomness.

    Returns:
        (frames,) float64.
    """
    t = np.arange(frames) - (frames - 1) / 2
    shares = rng.dirichlet(np.ones(4)) * speed
    path: np.ndarray = rng.choice([-1, 1]) * shares[0] * t
    for share in shares[1:]:
        frequency = 2 * math.pi / rng.uniform(*PERIODS)
        path += share / frequency * np.sin(frequency * t + rng.uniform(0, 2 * math.pi))
    path -= (path.max() + path.min()) / 2
    return path


def random_path(frames: int, height: int, width: int, rng: np.random.Generator) -> WindowPath:
    """A path of a window over a still of ``height`` x ``width``, not too far for its size."""
    x, y = (smooth_path(frames, SPEED, rng) for _ in range(2))
    x *= min(1, MAX_SHARE / 2 * width / max(x.max(), 1e-9))
    y *= min(1, MAX_SHARE / 2 * height / max(y.max(), 1e-9))
    angle = smooth_path(frames, TURN, rng)
    zoom = smooth_path(frames, ZOOM, rng)
    return WindowPath(x, y, angle, np.exp(zoom - zoom.min()))


def window_size(height: int, width: int, path: WindowPath) -> tuple[int, int]:
    """Height and width of the largest window that stays inside the still all along."""
    free_width = width - 1 - 2 * np.abs(path.x).max()
    free_height = height - 1 - 2 * np.abs(path.y).max()
    slant = math.sin(np.abs(path.angle).max())
    return 1 + int(free_height - slant * free_width), 1 + int(free_width - slant * free_height)


def follow(still: np.ndarray, path: WindowPath) -> Iterator[np.ndarray]:
    """The frames of a window that follows a path.

    Args:
        still: (H, W, 3), values in [0, 255].
        path: of the window.

    Yields:
        (h, w, 3) uint8 of the size that `window_size` says.
    """
    from scipy import ndimage  # training on videos does without

    height, width = still.shape[:2]
    size = window_size(height, width, path)
    channels = [
        ndimage.spline_filter(still[..., channel].astype(np.float64), mode="mirror")
        for channel in range(3)
    ]
    middle, window_middle = (np.array(shape) / 2 - 0.5 for shape in ((height, width), size))
    for x, y, angle, zoom in zip(path.x, path.y, path.angle, path.zoom, strict=True):
        cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
        matrix = np.array([[cos, sin], [-sin, cos]])  # of (row, column)
        offset = middle + np.array([y, x]) - matrix @ window_middle
        frame = [
            ndimage.affine_transform(
                channel, matrix, offset, output_shape=size, mode="mirror", prefilter=False
            )
            for channel in channels
        ]
        yield np.clip(np.floor(np.stack(frame, -1) + 0.5), 0, 255).astype(np.uint8)


def clip_of_still(still: np.ndarray, frames: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Turn an (H, W, 3) uint8 still into ``frames`` uint8 frames, somewhat smaller ones."""
    reduced = still.astype(np.float64)
    if min(still.shape[:2]) >= REDUCED_FROM:
        reduced = imresize(reduced, rng.uniform(REDUCED_TO, 1))
    height, width = reduced.shape[:2]
    yield from follow(reduced, random_path(frames, height, width, rng))
