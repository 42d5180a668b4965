"""Runs in processes of their own that can be killed; their networks write down what they see."""

import multiprocessing
import resource
import signal
import time
from pathlib import Path

import torch

import d3dnet.video
from d3dnet.model import D3Dnet
from d3dnet.upscale import upscale_video
from tests.test_model import with_offsets

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.resumable"])  # torch is imported once


class Counting(D3Dnet):
    """A tiny network that adds a byte to the file `seen` for every frame it is given."""

    def __init__(self, seen: Path, seconds: float = 0) -> None:
        torch.manual_seed(0)
        super().__init__(channels=4, res_blocks=1)
        with_offsets(self)
        self.eval().requires_grad_(False)
        self.seen = seen
        self.seconds = seconds

    def stream(self, frames, chunk=8):
        def counted():
            for frame in frames:
                with open(self.seen, "ab") as file:
                    file.write(b".")
                time.sleep(self.seconds)
                yield frame

        return super().stream(counted(), chunk)


def upscale(source: Path, output: Path, seen: Path, seconds: float = 0, **options) -> None:
    torch.set_num_threads(1)
    upscale_video(source, output, model=Counting(seen, seconds), codec="ffv1", **options)


def _upscale(output: Path, disk: int | None, *arguments, **options) -> None:
    if disk is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        upscale(*arguments, **options)
    except d3dnet.video.VideoError as error:
        output.with_name("error").write_text(str(error))
        raise SystemExit(error.exit_code) from None


def start(source: Path, output: Path, *arguments, disk: int | None = None, **options):
    """A process that runs `upscale`, where files have `disk` bytes at most."""
    arguments = (output, disk, source, output, *arguments)
    process = _SERVER.Process(target=_upscale, args=arguments, kwargs=options)
    process.start()
    return process
