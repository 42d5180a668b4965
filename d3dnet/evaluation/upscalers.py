"""Clips of a test set made larger: by bicubic, by a network, or by any function."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from d3dnet.datasets.imresize import imresize
from d3dnet.datasets.luma import luma
from d3dnet.network import SCALE, Mode
from d3dnet.video.colour import RGB_TO_YCBCR, YCBCR_TO_RGB, YCBCR_ZERO

if TYPE_CHECKING:
    from d3dnet.network.interface import Network

# (T, h, w, 3) uint8 RGB of a clip to its frames as `score_frame` takes them.
Upscale = Callable[[np.ndarray], Iterable[np.ndarray]]


def super_resolve(
    model: "Literal['bicubic'] | Network | Upscale", lr: np.ndarray, mode: Mode
) -> Iterator[np.ndarray]:
    """Super-resolve a clip frame by frame.

    Args:
        model: "bicubic" (MATLAB's, on 8-bit RGB), a network, or a function of the whole clip.
        lr: (T, h, w, 3) uint8 RGB.
        mode: how a network is run.

    Yields:
        Bicubic: (4h, 4w, 3) uint8 RGB. A network: (4h, 4w) float32 luma, not clamped.

    >>> lr = np.zeros((2, 8, 9, 3), np.uint8)
    >>> [frame.shape for frame in super_resolve("bicubic", lr, "window")]
    [(32, 36, 3), (32, 36, 3)]
    """
    if model == "bicubic":
        yield from (imresize(frame, SCALE, "double") for frame in lr)
        return
    import torch

    from d3dnet.network.interface import Network
    from d3dnet.network.run import run_network

    if isinstance(model, Network):
        frames = (torch.from_numpy(luma(frame) / 255).float()[None] for frame in lr)
        results = run_network(model, frames, mode)
        yield from (sr[0].float().cpu().numpy() for sr in results)
    else:
        yield from model(lr)


def rgb_from_luma(sr: np.ndarray, lr: np.ndarray) -> np.ndarray:
    """RGB of a network's luma, with the chroma of bicubic, as published results are shown.

    Args:
        sr: (4h, 4w) float luma in [0, 1].
        lr: (h, w, 3) uint8 RGB.

    Returns:
        (4h, 4w, 3) uint8 RGB.

    >>> grey = np.full((4, 4, 3), 255, np.uint8)
    >>> rgb_from_luma(np.full((16, 16), 16 / 255), grey).max()
    np.uint8(0)
    """
    ycbcr = imresize(lr / 255.0, SCALE) @ RGB_TO_YCBCR.T + YCBCR_ZERO
    ycbcr[..., 0] = 255.0 * np.clip(sr, 0, 1)
    rgb = (ycbcr - YCBCR_ZERO) @ YCBCR_TO_RGB.T
    code: np.ndarray = 255 * np.clip(rgb, 0, 1)
    return np.floor(code + 0.5).astype(np.uint8)
