"""`scripts/measure_motion.py`: what motion is worth, where it is and where it is not."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from d3dnet.network.guided import GuidedD3Dnet
from tests.datasets.test_clip_motion import clip as moving  # noqa: F401  (a fixture)

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from measure_motion import motion_zero, of_clip, psnr, scores


@pytest.fixture(scope="module")
def network() -> GuidedD3Dnet:
    torch.manual_seed(0)
    model = GuidedD3Dnet(channels=4, near=4, resd3d_blocks=1, res_blocks=0)
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    return model.requires_grad_(False)


def test_motion_set_to_zero_keeps_the_frames_and_is_certain(moving):  # noqa: F811
    guided, _, _ = of_clip(moving, slice(1, 4))
    still = motion_zero(guided)
    assert torch.equal(still[:, 0], guided[:, 0])
    assert still[:, [1, 2, 4, 5]].abs().max() == 0
    assert still[:, 3, 1:].min() == still[:, 6, :-1].min() == 1
    assert still[:, 1:4, 0].abs().max() == still[:, 4:7, -1].abs().max() == 0


def test_a_clip_that_moves_is_another_without_its_motion_and_of_copies(network, moving):  # noqa: F811
    here, still, copies = scores(network, iter([of_clip(moving, slice(1, 4))]))
    assert len({round(value, 3) for value in (here, still, copies)}) == 3


def test_the_psnr_is_that_of_the_inside():
    hr = torch.rand(2, 20, 20)
    sr = hr.clone()
    sr[:, :8] = 0
    sr[:, 8:12, 8:12] = (hr[:, 8:12, 8:12] + 0.01).clamp(0, 1)
    error = (sr[:, 8:12, 8:12] - hr[:, 8:12, 8:12]).square().mean()
    assert psnr(sr, hr) == pytest.approx(-10 * np.log10(float(error)), abs=1e-3)
