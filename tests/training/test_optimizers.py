"""Muon's steps, and who gets which learning rate."""

import itertools
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from d3dnet.network.model import D3Dnet
from d3dnet.training import TrainingConfig
from d3dnet.training.optimizers import Muon, make_optimizers, set_learning_rates


@pytest.mark.parametrize("shape", [(16, 16, 3, 3, 3), (16, 112, 1, 1), (256, 16, 1, 1)])
def test_muons_step_has_singular_values_near_one_times_its_scale(shape):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(shape))
    matrix = torch.randn(shape).flatten(1)
    weight.grad = (matrix / (1 + 9 * torch.arange(len(matrix))[:, None] / len(matrix))).view(shape)
    Muon([weight], lr=1e-2).step()
    scale = 1e-2 * 0.2 * math.sqrt(max(shape[0], math.prod(shape[1:])))
    values = torch.linalg.svdvals(weight.detach().flatten(1)) / scale
    assert 0.6 < values.min() and values.max() < 1.3
    # It goes downhill, and along the gradient's own directions.
    u, _, v = torch.linalg.svd(weight.grad.flatten(1), full_matrices=False)
    along = -torch.einsum("ij,ik,jk->k", weight.detach().flatten(1), u, v.T) / scale
    assert along.min() > 0.6


def test_muons_momentum_is_nesterovs():
    # Of diagonal gradients an orthogonalised step keeps the signs. With a momentum of 0.5 the
    # gradient -8, 0, 1 leaves a momentum of -0.5, but one further step ahead is 0.25; -16, 0, 1
    # leaves -0.25 ahead, against the last gradient.
    gradients = torch.tensor([[-8.0, -16.0, 16.0], [0, 0, 0], [1, 1, -1]])
    weight = torch.nn.Parameter(torch.zeros(3, 3))
    optimizer = Muon([weight], lr=1.0, momentum=0.5)
    for gradient in gradients:
        weight.grad = gradient.diag()
        before = weight.detach().clone()
        optimizer.step()
    update = (before - weight.detach()).diag() / (0.2 * math.sqrt(3))
    torch.testing.assert_close(update, torch.tensor([1.0, -1.0, 1.0]), rtol=0, atol=0.4)
    assert torch.equal(weight.grad, gradients[2].diag())  # the gradient is left alone


def test_muon_takes_the_inner_convolutions_and_adam_all_else():
    model = D3Dnet(channels=8, resd3d_blocks=1, res_blocks=1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    adam, muon = (
        [sorted(names[id(p)] for p in group["params"]) for group in optimizer.param_groups]
        for optimizer in make_optimizers(model, TrainingConfig(optimizer="muon"))
    )
    weights = {f"residual_layer.0.dcn{i}.weight" for i in (0, 1)}
    weights |= {f"reconstruct.0.dcn{i}.weight" for i in (0, 1)} | {"TA.weight", "upscale.0.weight"}
    offsets = {f"residual_layer.0.dcn{i}.conv_offset.weight" for i in (0, 1)}
    assert [set(group) for group in muon] == [weights, offsets]
    assert {"input.0.weight", "upscale.2.weight", "upscale.3.weight"} < set(adam[0])
    assert sorted(itertools.chain(*adam, *muon)) == sorted(names.values())
    assert len(make_optimizers(model, TrainingConfig())) == 1


def test_offsets_and_muon_have_learning_rates_of_their_own():
    config = TrainingConfig(
        optimizer="muon",
        learning_rate=4e-4,
        muon_learning_rate=2e-3,
        offset_learning_rate_factor=0.25,
        schedule="step",
        halve_every=10,
    )
    optimizers = make_optimizers(D3Dnet(channels=4), config)
    assert set_learning_rates(optimizers, 25, config) == 1e-4
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    assert rates == pytest.approx([1e-4, 2.5e-5, 5e-4, 1.25e-4])


def small_network() -> D3Dnet:
    torch.manual_seed(3)
    return D3Dnet(channels=16, resd3d_blocks=2, res_blocks=3)


def test_muon_steps_weights_of_one_shape_together_as_it_would_each_alone():
    together, alone = small_network(), small_network()
    _, muon = make_optimizers(together, TrainingConfig(optimizer="muon"))
    own = {weight: Muon([weight]) for weight in alone.parameters() if weight.ndim >= 4}
    taken = {id(weight) for group in muon.param_groups for weight in group["params"]}
    torch.manual_seed(4)
    for _ in range(3):
        for weight, other in zip(together.parameters(), alone.parameters(), strict=True):
            weight.grad = other.grad = torch.randn_like(weight)
            if id(weight) in taken:
                own[other].step()
        muon.step()
    for weight, other in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-5, atol=1e-7)


class Operations(TorchDispatchMode):
    """Counts those that would each be a launch on a GPU, or a few."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        views = ("view", "_unsafe_view", "t", "transpose", "unbind", "detach", "alias")
        self.count += function.overloadpacket.__name__ not in views
        return function(*arguments, **(options or {}))


def test_a_step_of_muon_is_operations_by_the_number_of_shapes_not_of_weights():
    counts = []
    for blocks in (2, 5):
        model = D3Dnet(channels=16, resd3d_blocks=blocks, res_blocks=2 * blocks)
        _, muon = make_optimizers(model, TrainingConfig(optimizer="muon"))
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight)
        muon.step()  # the first one also makes its state
        with Operations() as operations:
            muon.step()
        counts.append(operations.count)
    assert counts[0] == counts[1] < 450
