"""Runs in processes of their own that can be killed; their networks write down what they see."""

import multiprocessing
import resource
import signal
import time
from pathlib import Path
from unittest import mock

import torch

import d3dnet.video
from d3dnet.events import SegmentDone
from d3dnet.model import D3Dnet
from d3dnet.pipeline import run_network
from d3dnet.upscale import upscale_video
from tests.test_model import with_offsets

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.resumable"])  # torch is imported once


class Tiny(D3Dnet):
    """A network of the published depth, with offsets."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(channels=4, res_blocks=1)
        with_offsets(self)
        self.eval().requires_grad_(False)


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
    with mock.patch("d3dnet.pipeline.run_network", run_and_count):
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
