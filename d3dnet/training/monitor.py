"""What a training shows of itself: progress bar, log.jsonl, TensorBoard, pictures."""

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from d3dnet.datasets.clips import Clip
from d3dnet.datasets.imresize import imresize
from d3dnet.datasets.luma import unit_luma
from d3dnet.files import write_whole
from d3dnet.training.config import TrainingConfig

PICTURE_SIZE = 192  # of each of the four, in high-resolution pixels


class Monitor:
    """The record of a run, kept by rank 0 alone; `means` are over the steps since the last entry.

    Args:
        run: the training's folder.
        config: its settings.
        step: where it begins; what the log holds of later steps was lost in an interruption and
            will be done again: it is removed.
    """

    def __init__(self, run: Path, config: TrainingConfig, step: int) -> None:
        self.run, self.batch = run, config.batch
        self.log = run / "log.jsonl"
        kept = [line for line in _entries(self.log) if line["step"] <= step]
        write_whole(self.log, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.file = open(self.log, "a", buffering=1, encoding="utf-8")
        self.bar = tqdm(
            desc="training",
            unit="step",
            total=config.steps,
            initial=step,
            mininterval=0.5 if sys.stderr.isatty() else 30,  # a file is not to fill up
            dynamic_ncols=True,
        )
        self.board = _tensorboard(run, step)
        self.shown: dict[str, str] = {}
        self._restart()

    def _restart(self) -> None:
        self.sums, self.steps, self.seconds = [0.0, 0.0], 0, 0.0
        self.since = time.monotonic()

    def stepped(self, loss: float, squared_error: float) -> None:
        """Count a step with the loss and the mean squared error of its batch."""
        self.sums = [self.sums[0] + loss, self.sums[1] + squared_error]
        self.steps += 1
        self.seconds = time.monotonic() - self.since
        self.shown |= {
            "loss": f"{loss:.2e}",
            "psnr": f"{decibels(squared_error):.2f}",
            "patches/s": f"{self.patches_per_second():.1f}",
        }
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update()

    def patches_per_second(self) -> float:
        """Since the last entry, without the validation that may have followed the last step."""
        return self.steps * self.batch / max(self.seconds, 1e-9)

    def record(self, step: int, **values: float) -> None:
        """Write an entry: means of loss and PSNR, patches/s, and ``values``."""
        entry: dict[str, Any] = {"step": step}
        if self.steps:
            loss, squared_error = (total / self.steps for total in self.sums)
            entry |= {
                "loss": loss,
                "psnr": decibels(squared_error),
                "patches_per_second": round(self.patches_per_second(), 2),
            }
        entry |= values
        self.file.write(json.dumps(entry) + "\n")
        if self.board:
            for name, value in entry.items():
                self.board.add_scalar(name, value, step)
        if "validation_psnr" in entry:
            self.shown["validation"] = f"{entry['validation_psnr']:.2f}"
        self._restart()

    def add_pictures(self, step: int, rows: Sequence[np.ndarray]) -> None:
        """Write the pictures of a validation, one below the other, as pictures/step_*.png."""
        if not rows:
            return
        image = np.concatenate(rows)
        folder = self.run / "pictures"
        folder.mkdir(exist_ok=True)
        write_whole(folder / f"step_{step:07d}.png", cv2.imencode(".png", image)[1].tobytes())
        if self.board:
            self.board.add_image("pictures", image[None], step)

    def close(self) -> None:
        """End the bar and the log; what was recorded is there already."""
        self.bar.close()
        self.file.close()
        if self.board:
            self.board.close()


def decibels(squared_error: float) -> float:
    """PSNR of a mean squared error of luma in [0, 1]."""
    return -10 * math.log10(max(squared_error, 1e-10))


def picture(clip: Clip, sr: np.ndarray, index: int) -> np.ndarray:
    """LR, bicubic, ours and ground truth of the middle of frame ``index``, side by side.

    Args:
        clip: the held-out clip.
        sr: (4h, 4w) luma in [0, 1].

    Returns:
        (`PICTURE_SIZE` + caption, 4 `PICTURE_SIZE`) uint8; a smaller frame is filled up with black.
    """
    lr, hr = (255.0 * unit_luma(plane[index]) for plane in (clip.lr, clip.hr))
    shown = {
        "LR": np.kron(lr, np.ones((4, 4))),
        "bicubic": imresize(lr, 4),
        "ours": sr * 255,
        "ground truth": hr,
    }
    panels = []
    for caption, plane in shown.items():
        top, left = (max(0, size - PICTURE_SIZE) // 2 for size in plane.shape)
        crop = plane[top : top + PICTURE_SIZE, left : left + PICTURE_SIZE]
        panel = np.zeros((PICTURE_SIZE + 20, PICTURE_SIZE), np.uint8)
        panel[20 : 20 + crop.shape[0], : crop.shape[1]] = np.clip(np.rint(crop), 0, 255)
        cv2.putText(panel, caption, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 255, 1, cv2.LINE_AA)
        panels.append(panel)
    return np.concatenate(panels, axis=1)


def _entries(log: Path) -> list[dict[str, Any]]:
    entries = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break  # cut off when the training was killed
    return entries


def _tensorboard(run: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        tqdm.write(
            "tensorboard is not installed; for its curves: pip install 'd3dnet[train]'", sys.stderr
        )
        return None
    return SummaryWriter(run / "tensorboard", purge_step=step + 1)
