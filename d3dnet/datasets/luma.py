"""Luma: of 8-bit RGB as the published data sets define it, and as training clips store it."""

import numpy as np

from d3dnet.video.colour import RGB_TO_YCBCR

LUMA_STEPS = 256  # of stored luma in a code value
# BT.601 in whole thousandths: luma that is a whole code value comes out as one, and the
# truncation of the d3dnet protocol does not fall one short of it.
_THOUSANDTHS = np.rint(RGB_TO_YCBCR[0] * 1000)


def luma(rgb: np.ndarray) -> np.ndarray:
    """Luma of 8-bit RGB as MATLAB's ``rgb2ycbcr`` defines it, but not rounded.

    Y = (65.481 R + 128.553 G + 24.966 B) / 255 + 16.

    Args:
        rgb: (..., 3) uint8.

    Returns:
        (...) float64 code values in [16, 235].

    Raises:
        ValueError: for another shape or dtype.

    >>> luma(np.array([[0, 0, 0], [255, 255, 255]], np.uint8))
    array([ 16., 235.])
    """
    if rgb.dtype != np.uint8 or rgb.shape[-1:] != (3,):
        raise ValueError(f"rgb: got {rgb.dtype} {rgb.shape}; accepted is uint8 of shape (..., 3)")
    code: np.ndarray = (rgb.astype(np.float64) @ _THOUSANDTHS) / 255_000 + 16
    return code


def store_luma(rgb: np.ndarray) -> np.ndarray:
    """Luma of (..., 3) uint8 RGB as it is stored: (...) uint16 in 1/256 of a code value.

    >>> store_luma(np.array([[0, 255, 0]], np.uint8))
    array([37006], dtype=uint16)
    """
    return np.round(LUMA_STEPS * luma(rgb)).astype(np.uint16)


def unit_luma(stored: np.ndarray) -> np.ndarray:
    """Stored luma as the network takes it: float32 in [0, 1].

    >>> unit_luma(np.array([255 * LUMA_STEPS], np.uint16))
    array([1.], dtype=float32)
    """
    unit: np.ndarray = stored.astype(np.float32) / np.float32(255 * LUMA_STEPS)
    return unit
