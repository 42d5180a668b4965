"""Runs in processes of their own that can be killed; their networks write down what they see."""

import multiprocessing
import time
from pathlib import Path

import torch

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


def start(*arguments, **options):
    """A process that runs `upscale`."""
    process = _SERVER.Process(target=upscale, args=arguments, kwargs=options)
    process.start()
    return process
