"""Runs in processes of their own that can be killed; their networks write down what they see."""

import contextlib
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path
from unittest import mock

import torch

import d3dnet.video
from d3dnet.job.events import SegmentDone
from d3dnet.job.upscale import upscale_video
from d3dnet.network.guided import GuidedD3Dnet
from d3dnet.network.model import D3Dnet
from d3dnet.network.run import run_network
from d3dnet.video.source import VideoSource
from tests.network.test_model import with_offsets
from tests.video.clips import ffmpeg

RATE = 5  # frames per second
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.job.resumable"])  # torch is imported once


def three_shots(path: Path) -> Path:
    """A clip of 60, 25 and 65 frames, as H.264 with B-frames and few key frames."""
    looks = [f"testsrc2=s=24x16:r={RATE}:d=12", f"mandelbrot=s=24x16:r={RATE}:start_scale=0.4"]
    ffmpeg(
        *("-f", "lavfi", "-i", looks[0], "-f", "lavfi", "-i", looks[1]),
        *("-f", "lavfi", "-i", f"testsrc=s=24x16:r={RATE}:d=13"),
        *("-filter_complex", "[1:v]trim=end_frame=25[m];[0:v][m][2:v]concat=n=3"),
        *("-pix_fmt", "yuv420p", "-g", 40, "-bf", 2, path),
    )
    return path


def frames_of(path):
    with VideoSource(path) as video:
        return [(frame.pts * video.time_base, frame.planes) for frame in video.frames()]


class Tiny(D3Dnet):
    """A network of the published depth, with offsets."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(channels=4, res_blocks=1)
        with_offsets(self)
        self.eval().requires_grad_(False)


class TinyGuided(GuidedD3Dnet):
    """A network that follows motion, and needs it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(channels=4, near=2, resd3d_blocks=3, res_blocks=1, joined=3)
        for weight in self.parameters():
            weight.data += 0.1 * torch.randn_like(weight)
        self.eval().requires_grad_(False)


class Mortal(Tiny):
    """The same network; it kills its process at a frame, as often as there are lives in a folder.

    The folder also gets a file for each process that uses it; they wait for so many `together`.
    """

    def __init__(self, lives: Path, after: int = 10, together: int = 1) -> None:
        super().__init__()
        self.lives, self.after, self.together, self.count = lives, after, together, 0

    def reconstruct_frames(self, *arguments):
        (self.lives / f"{os.getpid()}.seen").touch()
        while len(list(self.lives.glob("*.seen"))) < self.together:
            time.sleep(0.01)
        self.count += 1
        if self.count == self.after:
            for life in self.lives.glob("*.life"):
                with contextlib.suppress(FileNotFoundError):
                    life.unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
        return super().reconstruct_frames(*arguments)


def upscale(source: Path, output: Path, seen: Path, seconds: float = 0, **options) -> None:
    """As `upscale_video`; adds a byte to the file `seen` for every frame the network is given."""

    def counted(frames):
        for frame in frames:
            with open(seen, "ab") as file:
                file.write(b".")
            time.sleep(seconds)
            yield frame

    def run_and_count(network, luma, *rest):
        return run_network(network, counted(luma), *rest)

    torch.set_num_threads(1)
    options = {"model": Tiny(), "codec": "ffv1", **options}
    with mock.patch("d3dnet.network.run.run_network", run_and_count):
        upscale_video(source, output, **options)


def _upscale(output: Path, full_disk: bool, *arguments, **options) -> None:
    def watch(event):
        # A limit on the size of files stands for the disk: programs are told so the same way.
        if full_disk and isinstance(event, SegmentDone):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    try:
        upscale(*arguments, watch=watch, **options)
    except d3dnet.video.VideoError as error:
        output.with_name("error").write_text(str(error))
        raise SystemExit(error.exit_code) from None


def start(source: Path, output: Path, *arguments, full_disk: bool = False, **options):
    """A process that runs `upscale`; after the first segment the disk may be full."""
    arguments = (output, full_disk, source, output, *arguments)
    process = _SERVER.Process(target=_upscale, args=arguments, kwargs=options)
    process.start()
    return process
