"""A self-contained HTML report of an evaluation: it opens offline, from one file.

The table, PSNR per frame as an inline drawing, and for each clip a crop (low resolution, bicubic,
result, ground truth) and temporal profiles: one row of the frame, over time. A profile that
flickers where that of the ground truth does not shows what a score per frame cannot.
"""

import base64
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

import d3dnet
from d3dnet.datasets.benchmarks import make_lr
from d3dnet.datasets.imresize import imresize
from d3dnet.datasets.luma import luma
from d3dnet.evaluation.evaluate import ClipFrames
from d3dnet.evaluation.results import ClipResult, EvaluationResult
from d3dnet.evaluation.upscalers import rgb_from_luma
from d3dnet.network import SCALE

CROP_HEIGHT, CROP_WIDTH = 96, 128  # of the ground truth
MAX_CLIPS = 12  # with pictures; the table and the drawing have all, or as many as can be told apart
PROFILE_MARGIN = 4  # low-resolution rows that bicubic needs to either side of one
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a3d9a", "#8c510a")


@dataclass(frozen=True)
class ClipPictures:
    """Pictures of a clip, each with its caption, uint8.

    Attributes:
        name: of the clip.
        frame: index of the frame that the crops are of.
        row: of the frame, that the profiles are of.
        crops: (h, w, 3) RGB; the one of low resolution is of a quarter of the size.
        profiles: (T, W) luma, time downwards.
    """

    name: str
    frame: int
    row: int
    crops: tuple[tuple[str, np.ndarray], ...]
    profiles: tuple[tuple[str, np.ndarray], ...]


def clip_pictures(frames: ClipFrames, label: str) -> ClipPictures:
    """Crops and profiles where bicubic is furthest from the ground truth, in the middle frame.

    Args:
        frames: as `evaluate` hands them over. Without low-resolution frames (ready frames were
            scored) those for the pictures are made by `imresize`, recipe "double".
        label: caption of the result.
    """
    middle = len(frames.indices) // 2
    height, width = (size - size % SCALE for size in frames.sr[0].shape[:2])
    hr = frames.hr[:, :height, :width]
    lr = make_lr(hr, "double") if frames.lr is None else frames.lr
    lr = lr[:, : height // SCALE, : width // SCALE]
    bicubic = imresize(lr[middle], SCALE)
    top, left = _hardest_window(bicubic, hr[middle])
    low = np.s_[
        top // SCALE : (top + CROP_HEIGHT) // SCALE, left // SCALE : (left + CROP_WIDTH) // SCALE
    ]
    at = np.s_[top : top + CROP_HEIGHT, left : left + CROP_WIDTH]
    result = _rgb(frames.sr[middle][:height, :width], lr[middle])
    row = min(top + CROP_HEIGHT // 2, height - 1)
    return ClipPictures(
        frames.name,
        frames.indices[middle],
        row,
        (
            ("low resolution", lr[middle][low]),
            ("bicubic", bicubic[at]),
            (label, result[at]),
            ("ground truth", hr[middle][at]),
        ),
        (
            ("bicubic", np.stack([_bicubic_row(frame, row) for frame in lr])),
            (label, np.stack([_luma_row(frame[row, :width]) for frame in frames.sr])),
            ("ground truth", np.stack([_luma_row(frame[row]) for frame in hr])),
        ),
    )


def html_report(result: EvaluationResult, pictures: Sequence[ClipPictures] = ()) -> str:
    """The report as one HTML document without references to anything outside it."""
    title = f"{result.dataset}, protocol {result.protocol}: {result.label}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="mean"><b>{result.psnr:.2f}</b> dB <b>{result.ssim:.4f}</b> SSIM</p>',
        _table(result),
        "<ul>" + "".join(f"<li>{_text(remark)}</li>" for remark in result.remarks()) + "</ul>"
        if result.remarks()
        else "",
        "<h2>PSNR per frame</h2>",
        psnr_drawing(result.clips),
        *(_pictures(clip) for clip in pictures),
        f"<footer>d3dnet {_text(d3dnet.__version__)}</footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def psnr_drawing(clips: Sequence[ClipResult]) -> str:
    """PSNR over the frames of each clip, as an SVG element. Infinite values are left out."""
    width, height, left, right, top, bottom = 960, 340, 56, 150, 14, 44
    shown = clips[: len(COLOURS)]
    lines = [
        [(frame.index, frame.psnr) for frame in clip.frames if math.isfinite(frame.psnr)]
        for clip in shown
    ]
    points = [point for line in lines for point in line]
    if not points:
        return "<p>Every frame equals the ground truth: there is no finite PSNR to draw.</p>"
    frames = _ticks(min(x for x, _ in points), max(x for x, _ in points), whole=True)
    levels = _ticks(min(y for _, y in points), max(y for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - frames[0]) / (frames[-1] - frames[0])
        up = (y - levels[0]) / (levels[-1] - levels[0])
        return left + across * (width - left - right), height - bottom - up * (
            height - top - bottom
        )

    parts = []
    for level in levels:
        _, y = place(frames[0], level)
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{level:g}</text>'
        )
    for frame in frames:
        x, _ = place(frame, levels[0])
        parts.append(
            f'<text x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle">{frame:g}</text>'
        )
    parts.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 6}" text-anchor="middle">frame</text>'
        f'<text x="14" y="{(top + height - bottom) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(top + height - bottom) / 2})">PSNR, dB</text>'
    )
    for number, (clip, line, colour) in enumerate(zip(shown, lines, COLOURS, strict=False)):
        places = [place(*point) for point in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" stroke="{colour}" class="line"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"><title>'
            f"{_text(clip.name)}, frame {index}: {psnr:.2f} dB</title></circle>"
            for (x, y), (index, psnr) in zip(places, line, strict=True)
        ]
        y = top + 14 + 20 * number
        parts.append(
            f'<rect x="{width - right + 16}" y="{y - 9}" width="12" height="12" fill="{colour}"/>'
            f'<text x="{width - right + 34}" y="{y + 1}">{_text(clip.name)}</text>'
        )
    drawing = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="PSNR per frame">'
    drawing += "".join(parts) + "</svg>"
    if len(clips) > len(shown):
        drawing += f"<p>The first {len(shown)} of {len(clips)} clips.</p>"
    return drawing


def _table(result: EvaluationResult) -> str:
    columns = result.columns()
    head = "".join(f"<th>{_text(column.title)}</th>" for column in columns)
    lines = [f"<tr><th></th>{head}</tr>"]
    for row in result.rows():
        kind, _, name = row.name.rpartition(": ")
        cells = "".join(f"<td>{_text(column.text(row))}</td>" for column in columns)
        label = f"<small>{_text(kind)}</small> {_text(name)}" if kind else _text(name)
        lines.append(f'<tr class="{_text(kind) or "clip"}"><th>{label}</th>{cells}</tr>')
    return '<div class="wide"><table>' + "".join(lines) + "</table></div>"


def _pictures(clip: ClipPictures) -> str:
    crops = "".join(
        f"<figure>{_image(image, f'{clip.name}, {caption}')}<figcaption>{_text(caption)}"
        "</figcaption></figure>"
        for caption, image in clip.crops
    )
    profiles = "".join(
        f"<figure>{_image(image, f'{clip.name}, profile of {caption}')}<figcaption>"
        f"{_text(caption)}</figcaption></figure>"
        for caption, image in clip.profiles
    )
    return (
        f"<h2>{_text(clip.name)}</h2>"
        f"<h3>Frame {clip.frame}, where bicubic is furthest from the ground truth</h3>"
        f'<div class="crops">{crops}</div>'
        f"<h3>Row {clip.row} over time (downwards)</h3>"
        f'<div class="profiles">{profiles}</div>'
    )


def _hardest_window(bicubic: np.ndarray, hr: np.ndarray) -> tuple[int, int]:
    """Top and left, multiples of 4, of the window with the largest error; small frames: (0, 0)."""
    error = ((bicubic.astype(np.float32) - hr) ** 2).mean(-1)
    sums = cv2.integral(error)[::SCALE, ::SCALE]
    rows, columns = (
        min(crop // SCALE, size - 1)
        for crop, size in zip((CROP_HEIGHT, CROP_WIDTH), sums.shape, strict=True)
    )
    inside = sums[rows:, columns:] - sums[:-rows, columns:]
    inside = inside - sums[rows:, :-columns] + sums[:-rows, :-columns]
    top, left = np.unravel_index(np.argmax(inside), inside.shape)
    return int(top) * SCALE, int(left) * SCALE


def _rgb(sr: np.ndarray, lr: np.ndarray) -> np.ndarray:
    """A result of any kind that evaluation has as RGB; luma gets the chroma of bicubic."""
    if sr.ndim == 3:
        return sr
    return rgb_from_luma(sr / 255 if sr.dtype == np.uint8 else sr, lr)


def _bicubic_row(lr: np.ndarray, row: int) -> np.ndarray:
    """Luma of one row of the enlarged frame, from the few low-resolution rows it depends on."""
    first = max(row // SCALE - PROFILE_MARGIN, 0)
    strip = imresize(lr[first : row // SCALE + PROFILE_MARGIN + 1], SCALE)
    return _luma_row(strip[row - first * SCALE])


def _luma_row(row: np.ndarray) -> np.ndarray:
    """A row of RGB, of 8-bit luma, or of a network's luma, as 8-bit luma."""
    if row.ndim == 2:
        row = luma(row)
    elif row.dtype != np.uint8:
        row = 255 * np.clip(row, 0, 1)
    return np.floor(row + 0.5).astype(np.uint8)


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Four to ten round numbers from below ``low`` to above ``high``."""
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(step * m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 8)
    if whole:
        step = max(1, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 10) for n in range(first, max(last, first + 1) + 1)]


def _image(image: np.ndarray, alternative: str) -> str:
    pixels = image[..., ::-1] if image.ndim == 3 else image
    _, png = cv2.imencode(".png", np.ascontiguousarray(pixels))
    data = base64.b64encode(png.tobytes()).decode()
    return f'<img alt="{_text(alternative)}" src="data:image/png;base64,{data}">'


def _text(text: str) -> str:
    return html.escape(text)


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2329; background: #fff;
  max-width: 1060px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #dde2e7; }
h3 { font-size: 0.95rem; font-weight: 600; color: #57606a; margin: 1rem 0 0.4rem; }
.mean { font-size: 1.1rem; margin: 0.3rem 0 1rem; } .mean b { margin-left: 0.3rem; }
.mean b:first-child { margin-left: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: 0.22rem 0.9rem; text-align: right; font-weight: normal; white-space: nowrap; }
tr:first-child th { color: #57606a; border-bottom: 1px solid #b8c0c8; }
th:first-child { text-align: left; padding-left: 0.3rem; }
tr.mean { background: #eef4fb; margin: 0; font-size: inherit; }
tr.mean td, tr.mean th { font-weight: 600; }
tr.published { color: #57606a; } small { color: #7a838c; font-weight: normal; }
ul { color: #57606a; padding-left: 1.2rem; font-size: 0.9rem; }
svg { width: 100%; height: auto; } svg text { font-size: 13px; fill: #57606a; }
.grid { stroke: #e3e7eb; } .line { fill: none; stroke-width: 1.6; }
img { display: block; width: 100%; image-rendering: pixelated; }
figure { margin: 0; } figcaption { font-size: 0.85rem; color: #57606a; }
.crops { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 0.8rem; }
.profiles { display: grid; gap: 0.6rem; } .profiles img { height: 96px; }
footer { margin: 2.5rem 0 1rem; color: #7a838c; font-size: 0.85rem; }
"""
