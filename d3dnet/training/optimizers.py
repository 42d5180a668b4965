"""Optimisers and their learning rate: Adam, and Muon for the inner convolutions."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from d3dnet.training.config import TrainingConfig

# First and last layers, which have one channel on one side, stay with Adam.
_OUTER = (
    *("input.0.weight", "upscale.2.weight", "upscale.3.weight"),
    *("input.weight", "upscale.weight"),  # of a guided network
)


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum (Jordan et al., "Muon", 2024), for convolution weights.

    A weight is taken as a matrix (outputs, inputs · taps). Its Nesterov momentum is replaced by the
    nearest matrix with singular values of about 1, times 0.2 sqrt(the larger side), so that an
    element's step is of the size of Adam's (Liu et al., "Muon is scalable", 2025).
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float = 1e-3, momentum: float = 0.95
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # takes no closure
        """Take a step, of all weights of a shape at once."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault(weight.shape, []).append(weight)
            for weights in by_shape.values():
                self._step_together(weights, group)

    def _step_together(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Step weights of one shape by operations on all of them."""
        momenta, gradients = [], []
        for weight in weights:
            assert weight.grad is not None  # that of others rests
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            momenta.append(state["momentum"])
            gradients.append(weight.grad)
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, momenta, group["momentum"])
        matrices = torch.stack([matrix.flatten(1) for matrix in nesterov])
        updates = [
            update.view_as(weight)
            for update, weight in zip(orthogonalize(matrices), weights, strict=True)
        ]
        scale = 0.2 * math.sqrt(max(matrices.shape[1:]))
        torch._foreach_add_(weights, updates, alpha=-group["lr"] * scale)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """The singular values of matrices brought near 1 (0.7 to 1.2), by Newton-Schulz steps.

    ``matrices`` is (N, rows, columns), or one (rows, columns). The quintic's coefficients are
    Jordan's: quickest from small singular values, at the price of not converging to 1 exactly.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-12)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
    return x.mT if tall else x


def make_optimizers(model: nn.Module, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """Adam, and Muon where asked for; each with two groups: other weights, and those of offsets."""
    inner: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    rest: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim >= 4 and name not in _OUTER
        groups = inner if config.optimizer == "muon" and matrix else rest
        groups["conv_offset" in name].append(parameter)
    adam = torch.optim.Adam([{"params": group} for group in rest])
    if config.optimizer == "muon":
        return [adam, Muon([{"params": group} for group in inner])]
    return [adam]


def set_learning_rates(
    optimizers: Iterable[torch.optim.Optimizer], step: int, config: TrainingConfig
) -> float:
    """Give every group its learning rate at a step, and return Adam's."""
    adam = learning_rate_at(step, config)
    for optimizer in optimizers:
        rate = adam
        if isinstance(optimizer, Muon):
            rate *= config.muon_learning_rate / config.learning_rate
        for group, factor in zip(
            optimizer.param_groups, (1, config.offset_learning_rate_factor), strict=True
        ):
            group["lr"] = rate * factor
    return adam


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then half a cosine down to `final_learning_rate`, or halving."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "step":
        return config.learning_rate * 0.5 ** (step // config.halve_every)
    progress = min(1.0, (step - config.warmup_steps) / (config.steps - config.warmup_steps))
    span = config.learning_rate - config.final_learning_rate
    return config.final_learning_rate + span * (1 + math.cos(math.pi * progress)) / 2
