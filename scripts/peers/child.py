"""What a peer's own process does: it scores the peer's frames, or takes samples of its speed."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil

from d3dnet.evaluation import temporal
from d3dnet.evaluation.evaluate import ClipFrames, evaluate
from d3dnet.evaluation.protocols import get_protocol
from peers.peer import Peer

WHOLE_CLIPS, PUBLISHED = "y-crop0", "d3dnet"  # protocols; steadiness is that of the first
WATCH_EVERY = 0.05  # seconds


def process() -> ProcessPoolExecutor:
    """A fresh process for one peer: a crash in it is an error here, and its memory its own."""
    return ProcessPoolExecutor(1, get_context("spawn"))


def score(peer: Peer, dataset: str, root: Path) -> dict[str, float]:
    """PSNR (dB) and SSIM by both protocols, temporal error (code values) and tOF (pixels)."""
    errors: list[float] = []

    def upscale(lr: np.ndarray) -> Iterator[np.ndarray]:
        return peer.upscale(map(peer.prepare, lr))

    def add_error(clip: ClipFrames) -> None:
        sr, hr = (temporal.luma_8bit(frames, protocol) for frames in (clip.sr, clip.hr))
        errors.append(temporal.temporal_error(sr, hr))

    protocol = get_protocol(WHOLE_CLIPS)
    peer.use_threads(os.cpu_count() or 1)
    whole = evaluate(upscale, dataset, root, protocol, tof=True, on_clip=add_error)
    published = evaluate(upscale, dataset, root, PUBLISHED)
    assert whole.tof is not None  # it was asked for
    return {
        "psnr": whole.psnr,
        "ssim": whole.ssim,
        "psnr_d3dnet": published.psnr,
        "ssim_d3dnet": published.ssim,
        "temporal_error": float(np.mean(errors)),
        "tof": whole.tof,
    }


@dataclass
class Bench:
    """The peer whose speed this process measures, and the endless clip that it is given."""

    peer: Peer
    frames: list[np.ndarray]
    endless: Iterator[np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        self.endless = self.peer.upscale(cycle(self.frames))

    def run(self, count: int) -> None:
        peer = self.peer
        results = self.endless if peer.stream else peer.upscale(islice(cycle(self.frames), count))
        for _ in islice(results, count):
            pass


_bench: list[Bench] = []  # of this process


def warm_up(peer: Peer, frames: np.ndarray, count: int) -> tuple[int, float]:
    """Load the peer and run it over `count` RGB frames: its peak memory in bytes, CPU seconds."""
    peer.use_threads(os.cpu_count() or 1)
    _bench[:] = [Bench(peer, [peer.prepare(frame) for frame in frames])]
    start = _cpu_seconds()
    peak = _peak_memory(lambda: _bench[0].run(count), peer.programs)
    return peak, _cpu_seconds() - start


def sample(count: int, threads: int) -> tuple[float, float]:
    """CPU and wall seconds a frame, over `count` frames, programs that the peer runs included."""
    _bench[0].peer.use_threads(threads)
    cpu, wall = _cpu_seconds(), time.perf_counter()
    _bench[0].run(count)
    return (_cpu_seconds() - cpu) / count, (time.perf_counter() - wall) / count


def _cpu_seconds() -> float:
    """Of this process and of the programs that it ran to their end."""
    return sum(os.times()[:4])


def _peak_memory(task: Callable[[], None], programs: bool) -> int:
    """Bytes that this process, or the programs that it runs, held at the most during a task."""
    own, ended = psutil.Process(), threading.Event()
    peak = 0

    def watch() -> None:
        nonlocal peak
        while not ended.wait(WATCH_EVERY):
            peak = max(peak, held())

    def held() -> int:
        if not programs:
            return int(own.memory_info().rss)
        found = 0
        for child in own.children():
            with contextlib.suppress(psutil.Error):  # it has ended
                if child.exe() != own.exe():  # not yet another program
                    found += child.memory_info().rss
        return found

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    task()
    ended.set()
    watcher.join()
    return max(peak, held())
