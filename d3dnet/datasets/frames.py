"""The frames of a clip: a video file in anything that ffmpeg reads, or numbered images."""

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from d3dnet.video.names import is_hidden, looks_like_image, looks_like_video, natural_order

_GREY = cv2.VideoWriter.fourcc(*"Y800")  # as OpenCV calls the pixels of such a video


def read_clip(source: str | os.PathLike[str], limit: int | None = None) -> np.ndarray:
    """Read a video file or a folder of numbered images.

    Args:
        source: the file or folder.
        limit: read only so many frames.

    Returns:
        (T, H, W, 3) uint8 RGB, or (T, H, W) uint8 where the frames are stored as grey.

    Raises:
        FileNotFoundError: when there is nothing to read.
        ValueError: when a frame is damaged, not of 8 bits, or unlike the others.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number in (10, 9):
    ...         _ = cv2.imwrite(f"{folder}/im{number}.png", np.full((4, 6), number, np.uint8))
    ...     clip = read_clip(folder)
    >>> clip.shape, clip[:, 0, 0].tolist()
    ((2, 4, 6), [9, 10])
    """
    source = Path(source)
    frames: list[np.ndarray] = []
    for name, frame in islice(iterate_frames(source), limit):
        if frames and frame.shape != frames[0].shape:
            raise ValueError(
                f"{name}: a frame of shape {frame.shape} among frames of {frames[0].shape}; "
                "accepted are frames of one size and kind"
            )
        frames.append(frame)
    if not frames:
        raise FileNotFoundError(f"{source}: no frames found; accepted are a video or images")
    return np.stack(frames)


def iterate_frames(source: Path) -> Iterator[tuple[Path, np.ndarray]]:
    """The frames of a video file or folder one by one, each with the file that it is from."""
    if source.is_dir():
        yield from ((path, read_image(path)) for path in frame_paths(source))
    elif source.exists():
        yield from ((source, frame) for frame in _read_video(source))


def frame_paths(folder: Path) -> list[Path]:
    """The images of a folder in the order of the numbers in their names.

    Raises:
        ValueError: when the folder mixes several numbered series ("sr_y_01.png", "sr_rgb_01.png").
    """
    paths = [path for path in folder.iterdir() if looks_like_image(path) and not is_hidden(path)]
    series = {re.sub(r"\d+$", "", path.stem) for path in paths}
    if len(paths) > 1 and 1 < len(series) < len(paths):
        raise ValueError(
            f"{folder}: holds several series of frames ({', '.join(sorted(series))}); "
            "accepted is one: move the others out"
        )
    return sorted(paths, key=natural_order)


def read_image(path: Path) -> np.ndarray:
    """An image of 8 bits: (H, W, 3) RGB, or (H, W) where it is stored as grey."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f"{path}: cannot be read as an image; copy it again")
    if image.dtype != np.uint8:
        raise ValueError(f"{path}: got samples of {image.dtype}; accepted are images of 8 bits")
    return image if image.ndim == 2 else np.ascontiguousarray(image[..., 2::-1])


def as_rgb(frames: np.ndarray) -> np.ndarray:
    """Frames (T, H, W, 3), or grey ones (T, H, W), or one of either, as RGB."""
    return frames if frames.shape[-1] == 3 else np.repeat(frames[..., None], 3, -1)


def is_clip(path: Path) -> bool:
    """Whether a path is a video file or a folder with images directly in it."""
    if path.is_dir():
        return any(map(looks_like_image, path.iterdir()))
    return looks_like_video(path) and not is_hidden(path)


def clip_name(path: Path) -> str:
    """The name of the clip at a path: a folder's name, or a file's without its suffix."""
    return path.name if path.is_dir() else path.stem


def _read_video(path: Path) -> Iterator[np.ndarray]:
    """By PyAV; where it is not installed, by OpenCV, whose pixels are the same."""
    try:
        import av
    except ImportError:
        yield from _read_video_by_opencv(path)
        return
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                stored_grey = frame.format.name == "gray"
                yield frame.to_ndarray(format="gray" if stored_grey else "rgb24")
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{path}: cannot be decoded as a video ({error}); copy it again") from None


def _read_video_by_opencv(path: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    try:
        stored_grey = capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT) == _GREY
        found, frame = capture.read()
        if not found:
            raise ValueError(f"{path}: cannot be decoded as a video; copy it again")
        while found:
            yield frame[..., 0].copy() if stored_grey else np.ascontiguousarray(frame[..., ::-1])
            found, frame = capture.read()
    finally:
        capture.release()
