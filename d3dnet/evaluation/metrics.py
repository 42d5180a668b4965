"""PSNR and SSIM, as the published protocols (`protocols.py`) define them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from d3dnet.datasets.luma import luma
from d3dnet.evaluation.protocols import Protocol, get_protocol

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5  # 11 x 11 Gaussian window


@dataclass(frozen=True)
class Score:
    """PSNR in dB (infinite for equal frames) and SSIM (1 for equal frames)."""

    psnr: float
    ssim: float


def psnr(sr: np.ndarray, hr: np.ndarray, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB over all samples of two arrays of one shape.

    Raises:
        ValueError: when the shapes differ.

    >>> round(psnr(np.zeros((4, 4)), np.ones((4, 4))), 2)
    48.13
    """
    _check_shapes(sr, hr)
    error = np.mean((np.asarray(sr, np.float64) - np.asarray(hr, np.float64)) ** 2)
    return float(10 * np.log10(peak**2 / error)) if error else float("inf")


def ssim(
    sr: np.ndarray, hr: np.ndarray, peak: float = 255.0, border: Literal["valid", "zero"] = "valid"
) -> float:
    """Structural similarity, mean of the map (Wang et al. 2004: Gaussian 11x11, sigma 1.5).

    C1 = (0.01 peak)^2 and C2 = (0.03 peak)^2; population covariance.

    Args:
        sr: (H, W) or (H, W, C); channels are averaged.
        hr: of the same shape.
        peak: range of the samples.
        border: "valid" averages windows inside the frame (scikit-image's); "zero" averages
            windows centred on every pixel, samples beyond the frame being zero.

    Raises:
        ValueError: when the shapes differ, or a frame is smaller than the window.

    >>> frame = np.random.default_rng(0).uniform(0, 255, (16, 16))
    >>> ssim(frame, frame), ssim(frame, 255 - frame) < 0
    (1.0, True)
    """
    _check_shapes(sr, hr)
    sr, hr = np.asarray(sr, np.float64), np.asarray(hr, np.float64)
    window = 2 * SSIM_RADIUS + 1
    if min(hr.shape[:2]) < window:
        raise ValueError(f"ssim: got frames of {hr.shape[:2]}; accepted are {window} and more")
    if border == "valid":
        from skimage.metrics import structural_similarity

        return float(
            structural_similarity(
                sr,
                hr,
                data_range=peak,
                channel_axis=-1 if hr.ndim == 3 else None,
                gaussian_weights=True,
                sigma=SSIM_SIGMA,
                use_sample_covariance=False,
            )
        )
    if border != "zero":
        raise ValueError(f"border: got {border!r}; accepted are 'valid' and 'zero'")
    return float(np.mean(_zero_padded_ssim_map(sr, hr, peak)))


def _zero_padded_ssim_map(sr: np.ndarray, hr: np.ndarray, peak: float) -> np.ndarray:
    from scipy.ndimage import correlate1d

    tap = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    window = np.exp(-(tap**2) / (2 * SSIM_SIGMA**2))
    window /= window.sum()

    def mean(image: np.ndarray) -> np.ndarray:
        rows = correlate1d(image, window, axis=0, mode="constant")
        return correlate1d(rows, window, axis=1, mode="constant")

    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_sr, mean_hr = mean(sr), mean(hr)
    variances = mean(sr * sr) - mean_sr**2 + mean(hr * hr) - mean_hr**2
    covariance = mean(sr * hr) - mean_sr * mean_hr
    similarity = (2 * mean_sr * mean_hr + c1) * (2 * covariance + c2)
    index: np.ndarray = similarity / ((mean_sr**2 + mean_hr**2 + c1) * (variances + c2))
    return index


def score_frame(sr: np.ndarray, hr: np.ndarray, protocol: str | Protocol) -> Score:
    """PSNR and SSIM of one frame under a protocol.

    Args:
        sr: the super-resolved frame: (H, W, 3) uint8 RGB, (H, W) uint8 luma, or (H, W) floating
            point luma in [0, 1] (limited range over 255), as a network makes it.
        hr: the ground truth, (H, W, 3) uint8 RGB. Either may still have the rows and columns
            that the protocol's size multiple takes away.
        protocol: a name or a `Protocol`.

    Raises:
        ValueError: when sizes do not fit, or luma is to be scored in RGB.

    >>> hr = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    >>> score_frame(hr, hr, "y-crop0")
    Score(psnr=inf, ssim=1.0)
    """
    protocol = get_protocol(protocol)
    height, width = cut_size(hr, protocol.size_multiple)
    accepted = {hr.shape[:2], (height, width)}
    if sr.shape[:2] not in accepted:
        raise ValueError(
            f"sr: got a frame of {sr.shape[1]}x{sr.shape[0]} for a ground truth of "
            f"{hr.shape[1]}x{hr.shape[0]}; under protocol {protocol.name} accepted are "
            + " and ".join(f"{w}x{h}" for h, w in sorted(accepted))
        )
    inside = (
        slice(protocol.crop, height - protocol.crop),
        slice(protocol.crop, width - protocol.crop),
    )
    if protocol.domain == "rgb":
        if sr.ndim != 3 or sr.dtype != np.uint8:
            kind = "luma" if sr.ndim == 2 else f"{sr.dtype} samples"
            raise ValueError(f"sr: got {kind}; protocol {protocol.name} accepts 8-bit RGB only")
        sr, hr = sr[inside], hr[inside]
    else:
        sr, hr = _luma_of_result(sr[inside], protocol), luma(hr[inside])
    border = protocol.ssim_border
    if protocol.psnr_samples == "truncated":
        return Score(psnr(np.floor(sr), np.floor(hr)), ssim(sr, hr, border=border))
    return Score(psnr(sr, hr), ssim(sr, hr, border=border))


def cut_size(frame: np.ndarray, multiple: int) -> tuple[int, int]:
    """Height and width of a frame, cut to multiples of ``multiple``."""
    height, width = frame.shape[:2]
    return height - height % multiple, width - width % multiple


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean of PSNR and of SSIM.

    >>> mean_score([Score(30, 0.8), Score(32, 0.9)])
    Score(psnr=31.0, ssim=0.8500000000000001)
    """
    return Score(
        float(np.mean([score.psnr for score in scores])),
        float(np.mean([score.ssim for score in scores])),
    )


def _luma_of_result(sr: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Luma in code values of a result, as the protocol scores it."""
    if sr.ndim == 3:
        return luma(sr)
    if sr.dtype == np.uint8:
        return sr.astype(np.float64)
    if not np.issubdtype(sr.dtype, np.floating):
        raise ValueError(f"sr: got {sr.dtype}; accepted are uint8 and floating point in [0, 1]")
    # In the result's own precision: k/255 comes back as k, so that truncation keeps it.
    code: np.ndarray = np.clip(sr, 0, 1) * sr.dtype.type(255)
    if protocol.network_luma == "rounded":
        code = np.floor(code + sr.dtype.type(0.5))
    return code.astype(np.float64)


def _check_shapes(sr: np.ndarray, hr: np.ndarray) -> None:
    if sr.shape != hr.shape:
        raise ValueError(
            f"sr: got shape {sr.shape}; accepted is that of the ground truth {hr.shape}"
        )
