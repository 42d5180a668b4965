"""The network, and the whole path from file to file, on a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from d3dnet.network.model import D3Dnet

SAMPLE = Path(__file__).parents[2] / "data" / "sample.mp4"


def network() -> D3Dnet:
    """With offsets that are not zero."""
    torch.manual_seed(5)
    model = D3Dnet().eval()
    for name, parameter in model.named_parameters():
        if "conv_offset" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.mark.parametrize("sequence", [False, True], ids=["window", "sequence"])
def test_frames_are_those_of_the_cpu(kernels, gpu, sequence):
    model = network()
    x = torch.rand(1, 1, 7, 24, 40)

    def run(model: D3Dnet, x: torch.Tensor) -> torch.Tensor:
        return model.forward_sequence(x) if sequence else model(x)

    with torch.no_grad():
        wanted = run(model, x)
        found = run(model.to(gpu), x.to(gpu)).cpu()
    assert (found - wanted).abs().max() < 1e-3


def test_frames_in_bfloat16_are_near_those_in_float32(kernels, gpu):
    model = network().to(gpu)
    x = torch.rand(1, 1, 7, 24, 40, device=gpu)
    with torch.no_grad():
        wanted = model(x)
        found = model.to(torch.bfloat16)(x.to(torch.bfloat16)).float()
    assert (found - wanted).norm() / wanted.norm() < 3e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_window_of_640x360_fits_in_4_gb(kernels, gpu, dtype):
    model = network().to(gpu, dtype)
    x = torch.rand(1, 1, 7, 360, 640, device=gpu, dtype=dtype)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        output = model(x)
    torch.cuda.synchronize()
    assert output.shape == (1, 1, 1440, 2560)
    assert torch.isfinite(output).all()
    assert torch.cuda.max_memory_allocated() < 4e9


def test_the_command_line_upscales_on_cuda(gpu, tmp_path):
    pytest.importorskip("av", reason="needs PyAV to decode")
    pytest.importorskip("ffmpeg", reason="needs ffmpeg-python to encode")
    output = tmp_path / "big.mp4"
    command = [sys.executable, "-m", "d3dnet", "upscale", str(SAMPLE), str(output)]
    done = subprocess.run([*command, "--device", "cuda"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert output.stat().st_size > 0 and done.stdout.splitlines()[-1].endswith("big.mp4")
