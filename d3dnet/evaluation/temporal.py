"""How steady a clip is: MOVIE as it was published for D3Dnet, tOF, and the temporal error.

`movie` itself takes luma. Published figures were measured on luma prepared in a way of its own,
which lowers them (by 9 to 13 % in MOVIE): `range_compressed`. Never compare across it.
"""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch

from d3dnet.datasets.luma import luma
from d3dnet.evaluation.metrics import cut_size
from d3dnet.evaluation.movie_gabor import RADIUS
from d3dnet.evaluation.movie_index import MovieScore, evaluated_frames, movie
from d3dnet.evaluation.protocols import Protocol

PUBLISHED_CROP = 10
PUBLISHED_LENGTH = 2 * RADIUS + 1
JPEG_QUALITY = 100


def tof(sr: np.ndarray, hr: np.ndarray, border: int = 0) -> float:
    """tOF: how much the optical flow of a clip differs from that of its ground truth, in pixels.

    Chu et al., "Learning temporal coherence via self-supervision for GAN-based video generation"
    (TecoGAN), ACM TOG 39(4), 2020: mean length of the difference of Farneback's flows, from each
    frame to the next. Theirs is of OpenCV's grey, over a cut of the frame; this is of luma, over
    the frame inside ``border``.

    Args:
        sr: (T, H, W) uint8 luma, two frames or more.
        hr: the same of the ground truth.
        border: pixels left out on every side; flows are estimated on whole frames.

    Raises:
        ValueError: for other shapes or dtypes.

    >>> still = np.random.default_rng(0).integers(0, 256, (2, 32, 32), np.uint8)
    >>> tof(still, still)
    0.0
    """
    _check_clips(sr, hr)
    height, width = hr.shape[1:]
    inside = np.s_[border : height - border, border : width - border]
    lengths = [
        np.linalg.norm(_flow(*sr[t : t + 2])[inside] - _flow(*hr[t : t + 2])[inside], axis=-1)
        for t in range(len(hr) - 1)
    ]
    return float(np.mean(lengths))


def temporal_error(sr: np.ndarray, hr: np.ndarray) -> float:
    """How much a clip changes from frame to frame where its ground truth does not, or the reverse.

    Root mean square, over all pixels, of the error of the difference of neighbouring frames, in
    code values of 255. Errors that stay where they are cost nothing, flicker does.

    Args:
        sr: (T, H, W) uint8 luma, two frames or more.
        hr: the same of the ground truth.

    Raises:
        ValueError: for other shapes or dtypes.

    >>> still = np.full((3, 8, 8), 100, np.uint8)
    >>> temporal_error(still + np.uint8(7), still)
    0.0
    >>> temporal_error(still + np.array([0, 7, 0], np.uint8)[:, None, None], still)
    7.0
    """
    _check_clips(sr, hr)
    error = sr.astype(np.float32) - hr
    return float(np.sqrt(np.mean(np.diff(error, axis=0) ** 2, dtype=np.float64)))


def movie_of_result(
    sr: np.ndarray, hr: np.ndarray, protocol: Protocol, device: str = "auto"
) -> MovieScore:
    """MOVIE of a clip, prepared as the protocol says.

    Args:
        sr, hr: (T, H, W) uint8 luma; see `luma_8bit`.
        protocol: `Protocol.range_compressed` decides.
        device: of `movie`; "auto" is a GPU where there is one.

    Returns:
        The score; the frames have their indices in the clip before it was prepared.

    Raises:
        ValueError: as `movie`.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    evaluated = movie_frames(len(hr), protocol)
    if protocol.range_compressed:
        sr, hr = range_compressed(sr), range_compressed(hr)
    score = movie(sr, hr, device=device)
    frames = zip(score.frames, evaluated, strict=True)
    return replace(score, frames=tuple(replace(frame, index=index) for frame, index in frames))


def movie_frames(frames: int, protocol: Protocol) -> list[int]:
    """Indices, in a clip of so many frames, of those at which `movie_of_result` evaluates MOVIE.

    Raises:
        ValueError: when the clip is too short.
    """
    before = 1 if protocol.range_compressed and frames < PUBLISHED_LENGTH else 0
    return [index - before for index in evaluated_frames(frames + 2 * before)]


def check_length(frames: int, clip: str, protocol: Protocol) -> None:
    """Refuse a clip, by its name, that has too few frames for `movie_of_result`.

    Raises:
        ValueError: when it has.
    """
    try:
        movie_frames(frames, protocol)
    except ValueError as error:
        raise ValueError(f"clip {clip}: {error}") from None


def luma_8bit(frames: Sequence[np.ndarray] | np.ndarray, protocol: Protocol) -> np.ndarray:
    """8-bit luma of frames of any kind that evaluation has, cut as the protocol cuts them.

    Args:
        frames: of one kind: (H, W, 3) uint8 RGB, (H, W) uint8 luma, or (H, W) floating point luma
            in [0, 1] as a network makes it.
        protocol: `Protocol.size_multiple` counts.

    Returns:
        (T, H, W) uint8, rounded half up as MATLAB's ``rgb2ycbcr`` rounds.
    """
    height, width = cut_size(frames[0], protocol.size_multiple)

    def convert(frame: np.ndarray) -> np.ndarray:
        frame = frame[:height, :width]
        if frame.ndim == 3:
            return np.floor(luma(frame) + 0.5).astype(np.uint8)
        if frame.dtype == np.uint8:
            return frame
        code: np.ndarray = np.clip(frame, 0, 1) * frame.dtype.type(255)
        return np.floor(code + 0.5).astype(np.uint8)

    return np.stack([convert(frame) for frame in frames])


def range_compressed(clip: np.ndarray) -> np.ndarray:
    """Luma as the published MOVIE figures of D3Dnet were measured on.

    10 pixels are cut from every side. A clip too short for MOVIE has its first and its last frame
    repeated once. It is stored as Motion-JPEG of quality 100, and read as 4:2:0 of limited range:
    as JPEG is of full range, y becomes about 16 + 219 y / 255, a second time.

    Args:
        clip: (T, H, W) uint8 luma of limited range.

    Returns:
        (T or T + 2, H - 20, W - 20) uint8.
    """
    cut = slice(PUBLISHED_CROP, -PUBLISHED_CROP)
    clip = clip[:, cut, cut]
    if len(clip) < PUBLISHED_LENGTH:
        clip = np.concatenate([clip[:1], clip, clip[-1:]])
    return _through_motion_jpeg(clip)


def _through_motion_jpeg(clip: np.ndarray) -> np.ndarray:
    """Encode luma as grey colour JPEG, decode it, and convert it to limited range."""
    import av

    decoder = av.CodecContext.create("mjpeg", "r")
    result = []
    for frame in clip:
        colour = np.repeat(frame[..., None], 3, -1)  # written as video of three equal channels
        _, jpeg = cv2.imencode(".jpg", colour, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        (decoded,) = decoder.decode(av.Packet(jpeg.tobytes()))
        limited = decoded.reformat(format="yuv420p", src_color_range="JPEG", dst_color_range="MPEG")
        plane = limited.planes[0]
        rows = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)
        result.append(rows[: frame.shape[0], : frame.shape[1]].copy())
    return np.stack(result)


def _check_clips(sr: np.ndarray, hr: np.ndarray) -> None:
    for name, clip in (("sr", sr), ("hr", hr)):
        if clip.ndim != 3 or clip.dtype != np.uint8 or len(clip) < 2:
            raise ValueError(
                f"{name}: got {clip.dtype} {clip.shape}; accepted is uint8 luma (T, H, W) of two "
                "frames or more"
            )
    if sr.shape != hr.shape:
        raise ValueError(f"sr: got shape {sr.shape}; accepted is that of hr {hr.shape}")


def _flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(H, W, 2) flow between two frames, with TecoGAN's settings."""
    flow = np.zeros((*first.shape, 2), np.float32)  # written over
    return cv2.calcOpticalFlowFarneback(first, second, flow, 0.5, 3, 15, 3, 5, 1.2, 0)
