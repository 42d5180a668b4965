"""Pictures with captions, for `d3dnet preview` and `d3dnet offsets`: (H, W, 3) uint8 RGB."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from d3dnet.files import write_whole

Colour = tuple[int, int, int]
INK: Colour = (40, 40, 40)
FAINT: Colour = (125, 125, 125)
PAPER = 255
MARGIN = 16
LINE = 26  # height of a line of text


def sheet(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows below one another on white, with margins."""
    width = max(row.shape[1] for row in rows)
    padded = [pad(row, bottom=MARGIN // 2, right=width - row.shape[1]) for row in rows]
    return pad(np.vstack(padded), MARGIN, MARGIN, MARGIN, MARGIN)


def beside(images: Sequence[np.ndarray], gap: int = 8) -> np.ndarray:
    """Images next to one another, aligned at the top."""
    height = max(image.shape[0] for image in images)
    parts = [pad(image, bottom=height - image.shape[0], right=gap) for image in images]
    return np.hstack(parts)[:, :-gap] if gap else np.hstack(parts)


def pad(
    image: np.ndarray, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0
) -> np.ndarray:
    """An image with so much white around it."""
    sides = ((top, bottom), (left, right), (0, 0))
    return np.pad(image, sides, constant_values=PAPER)


def text_width(text: str, size: float = 0.5) -> int:
    """Columns that a text takes."""
    return cv2.getTextSize(_ascii(text), cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0]


def caption(text: str, width: int = 0, *, size: float = 0.5, colour: Colour = INK) -> np.ndarray:
    """A line of text, at least `width` wide."""
    bar = np.full((LINE, max(width, text_width(text, size) + 4), 3), PAPER, np.uint8)
    font, thin = cv2.FONT_HERSHEY_SIMPLEX, cv2.LINE_AA
    return cv2.putText(bar, _ascii(text), (1, 18), font, size, colour, 1, thin)


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    """An image below its caption, which is cut where it is longer than the image."""
    size = 0.45
    bar = caption(text, image.shape[1], size=size)[:, : image.shape[1]]
    return np.vstack([bar, image])


def grey(luma: np.ndarray) -> np.ndarray:
    """(h, w) in [0, 1] as a picture."""
    return np.repeat(np.rint(np.clip(luma, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)


def resized(image: np.ndarray, width: int) -> np.ndarray:
    """To a width: sharp pixels when enlarged, means when made smaller."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    way = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_NEAREST
    return cv2.resize(image, (width, height), interpolation=way)


def heat(values: np.ndarray) -> np.ndarray:
    """(h, w) in [0, 1] as colours from dark to bright."""
    codes = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    colours: np.ndarray = cv2.applyColorMap(codes, cv2.COLORMAP_INFERNO)
    return colours[..., ::-1]


def colour_bar(width: int, low: str, high: str) -> np.ndarray:
    """The colours of `heat` from left to right, with what they stand for."""
    bar = np.repeat(heat(np.linspace(0, 1, width)[None]), 12, axis=0)
    ends = caption(low, width, size=0.45)
    shift = width - text_width(high, 0.45) - 4
    ends[:, shift:] = np.minimum(ends[:, shift:], caption(high, width - shift, size=0.45))
    return np.vstack([bar, ends])


def frame_of(
    image: np.ndarray, top: int, left: int, bottom: int, right: int, colour: Colour
) -> None:
    """Draw the outline of a rectangle into a picture."""
    cv2.rectangle(image, (left, top), (right - 1, bottom - 1), colour, 2, cv2.LINE_AA)


def write_png(path: Path, image: np.ndarray) -> Path:
    """Write a picture; it appears under its name only when it is complete.

    Raises:
        OSError: it cannot be written there.
    """
    _, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    write_whole(path, data.tobytes())
    return path


def _ascii(text: str) -> str:
    # OpenCV's font has no others.
    return text.replace("×", "x").encode("ascii", "replace").decode()
