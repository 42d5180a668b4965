"""Flat pictures, whose error a training can count, are those that the network would make."""

import pytest
import torch

from d3dnet.network.guided import GuidedD3Dnet
from d3dnet.network.model import D3Dnet
from d3dnet.training import train
from d3dnet.training.flatness import flat_detail, flatness_loss
from d3dnet.training.learner import set_rigid


@pytest.fixture
def published():
    torch.manual_seed(0)
    network = D3Dnet(channels=8, resd3d_blocks=1, res_blocks=1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # offsets too
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def guided() -> GuidedD3Dnet:
    torch.manual_seed(0)
    network = GuidedD3Dnet(channels=6, near=3, resd3d_blocks=1, both=True, res_blocks=1, joined=3)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.requires_grad_(False)


@pytest.fixture(params=["published", "guided"])
def model(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_inside_a_flat_area_it_is_what_the_whole_network_adds(model, frames):
    luma = torch.tensor([0.2, 0.9])
    size = 2 * (model.spatial_radius + 16) + 1  # no sample of a random offset reaches a border
    clip = luma[:, None, None, None, None].expand(-1, 1, frames, size, size)
    middle = slice(4 * (size // 2), 4 * (size // 2 + 1))
    wanted = model.forward_sequence(clip)[:, 0, :, middle, middle] - luma[:, None, None, None]
    found = flat_detail(model, luma, frames)
    assert found.shape == (2, frames, 4, 4) and wanted.abs().max() > 1e-3
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_along_a_border_it_is_what_the_whole_network_adds_without_offsets(model):
    set_rigid(model, True)  # a guided one finds no motion
    luma, width = torch.tensor([0.2, 0.9]), 2 * model.spatial_radius + 1
    clip = luma[:, None, None, None, None].expand(-1, 1, 3, 7, width)
    middle = slice(4 * (width // 2), 4 * (width // 2 + 1))
    wanted = model.forward_sequence(clip)[:, 0, ..., middle] - luma[:, None, None, None]
    found = flat_detail(model, luma, frames=3, rows=7)
    assert found.shape == (2, 3, 28, 4)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_a_training_that_counts_it_makes_flat_areas_flatter(tiny):
    def error(**changes):
        state = torch.load(train(tiny(steps=60, rigid_steps=60, **changes)), weights_only=True)
        model = D3Dnet(channels=8, resd3d_blocks=1, res_blocks=1)
        model.load_state_dict(state["model"])
        return flatness_loss(model, seed=1).item()

    more = {"learning_rate": 2e-3, "clip_norm": 0.0, "validate_every": 60}
    assert error(run="counts", flat_weight=10.0, **more) < error(run="does not", **more) / 2
