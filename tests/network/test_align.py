"""Features brought along their motion: by whole pixels copied, between pixels mixed."""

import pytest
import torch

from d3dnet.network.align import Way


def random_motion(count: int, height: int, width: int, reach: float = 4.0) -> torch.Tensor:
    motion = (2 * torch.rand(count, 3, height, width) - 1) * reach
    motion[:, 2] = torch.rand(count, height, width)
    return motion


def test_aligning_along_whole_pixels_copies_them():
    features = torch.randn(1, 2, 6, 8)
    motion = torch.zeros(1, 3, 6, 8)
    motion[:, 0], motion[:, 1], motion[:, 2] = 1, -2, 0.5
    found = Way(motion).align(features)
    assert torch.allclose(found[:, :, :-1, 2:], 0.5 * features[:, :, 1:, :-2], atol=1e-5)
    assert found[:, :, -1].abs().max() == 0
    assert found[:, :, :, :2].abs().max() == 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("part", [3, 8])
def test_a_cpu_gives_what_grid_sample_gives(layout, part):
    torch.manual_seed(0)
    features = torch.randn(3, 8, 9, 11).contiguous(memory_format=layout)[:, :part]
    motion = random_motion(3, 9, 11)
    found = Way(motion).align(features)
    learning = features.clone().requires_grad_()  # takes grid_sample
    wanted = Way(motion).align(learning)
    assert wanted.requires_grad and not found.requires_grad
    assert (found - wanted).abs().max() < 1e-5


def test_a_way_into_nowhere_shows_nothing():
    features = torch.ones(1, 1, 4, 4)
    motion = torch.full((1, 3, 4, 4), 1000.0)
    assert Way(motion).align(features).abs().max() == 0
    assert Way(-motion).align(features.requires_grad_()).abs().max() == 0


def test_what_is_not_finite_stays_where_it_is_seen():
    features = torch.zeros(1, 1, 4, 6)
    features[..., 5] = torch.nan
    motion = torch.zeros(1, 3, 4, 6)
    motion[:, 2] = 1
    found = Way(motion).align(features)
    assert found[..., 5].isnan().all() and not found[..., :4].isnan().any()


def test_a_way_of_two_steps_ends_where_the_second_step_ends():
    first = torch.tensor([1.0, 0.0, 0.5]).view(1, 3, 1, 1).expand(1, 3, 6, 8)
    second = torch.tensor([0.0, 2.0, 0.5]).view(1, 3, 1, 1).expand(1, 3, 6, 8)
    inside = Way(first).then(second).motion[..., :-1, :-2]
    assert torch.allclose(inside, torch.tensor([1.0, 2.0, 0.25]).view(1, 3, 1, 1), atol=1e-5)
