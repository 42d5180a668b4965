"""What learns: the network with its loss, optimisers, loss scale and moving average."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from d3dnet.network.checkpoints import DTYPES
from d3dnet.network.guided import GuidedD3Dnet
from d3dnet.network.model import D3D, D3Dnet
from d3dnet.training.config import TrainingConfig
from d3dnet.training.flatness import EVERY, flatness_loss
from d3dnet.training.optimizers import make_optimizers, set_learning_rates
from d3dnet.training.processes import Processes
from d3dnet.training.state import fill, load_initial

CHARBONNIER = 1e-3  # difference at which that loss turns from squared to absolute
SMALLEST_LOSS_SCALE = 2.0**-10


class Objective(nn.Module):
    """The network with its loss: what is compiled, and what processes share the gradient of."""

    def __init__(self, model: D3Dnet | GuidedD3Dnet, config: TrainingConfig) -> None:
        super().__init__()
        self.model: D3Dnet | GuidedD3Dnet = model
        self.mode, self.loss = config.mode, config.loss

    def forward(
        self,
        lr: Tensor,
        hr: Tensor,
        single_lr: Tensor | None = None,
        single_hr: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Loss, and mean squared error, over all frames that are super-resolved.

        Args:
            lr, hr: (B, 1, T, h, w), or guided frames (B, 7, T, h, w), and (B, 1, T, 4h, 4w).
            single_lr, single_hr: (B, n, 1, h, w) and (B, n, 1, 4h, 4w), scenes that stand still.
        """
        if self.mode == "window":
            sr, hr = self.model(lr), hr[:, :, hr.shape[2] // 2]
        else:
            sr = self.model.forward_sequence(lr)
        error = (sr - hr).flatten()
        if single_lr is not None and single_hr is not None:
            assert isinstance(self.model, D3Dnet)
            single_sr = self.model.forward_still(single_lr.flatten(0, 1))
            error = torch.cat([error, (single_sr - single_hr.flatten(0, 1)).flatten()])
        squared_error = error.square().mean()
        if self.loss == "mse":
            return squared_error, squared_error.detach()
        return error.square().add(CHARBONNIER**2).sqrt().mean(), squared_error.detach()


def set_rigid(model: nn.Module, rigid: bool) -> None:
    """Hold all offsets at zero, or release them."""
    for layer in model.modules():
        if isinstance(layer, D3D):
            layer.rigid = rigid


def _not_compiled(error: RuntimeError) -> str:
    lines = str(error).splitlines()
    cause = next((line for line in lines if "error:" in line), lines[0]).strip()
    return (
        f"compile: torch.compile cannot compile the network here: {cause}; on a CPU it takes a C++ "
        "compiler with OpenMP, on a GPU Triton; set compile=false to do without"
    )


def make_network(config: TrainingConfig) -> D3Dnet | GuidedD3Dnet:
    """The network that is to be trained, of random weights."""
    sizes = {
        "channels": config.channels,
        "resd3d_blocks": config.resd3d_blocks,
        "res_blocks": config.res_blocks,
    }
    if config.is_guided:
        return GuidedD3Dnet(**sizes, near=config.near, both=config.both, joined=config.joined)
    return D3Dnet(**sizes, window=config.frames if config.mode == "window" else 7)


class Learner:
    """The network and all that changes with it; `step` counts the steps taken."""

    def __init__(self, config: TrainingConfig, processes: Processes) -> None:
        self.config, self.device = config, processes.device
        self.model = make_network(config).to(self.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizers = make_optimizers(self.model, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.step = 0
        objective: nn.Module = Objective(self.model, config)
        if processes.count > 1:
            # While offsets rest, their convolutions have no gradient.
            objective = DistributedDataParallel(
                objective, find_unused_parameters=config.rigid_steps > 0
            )
        self.objective: Callable[..., tuple[Tensor, Tensor]] = (
            torch.compile(objective) if config.compile else objective
        )

    def differentiate(self, *batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of a batch (the mean over all processes), limited in norm.

        Args:
            batch: as `Objective` takes it.

        Returns:
            loss and mean squared error of this process's samples, and the norm before the limit.
        """
        config = self.config
        for model in (self.model, self.average):
            set_rigid(model, self.step < config.rigid_steps)
        batch = tuple(part.to(self.device, non_blocking=True) for part in batch)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        lowered = config.precision != "float32"
        try:
            with torch.autocast(self.device.type, DTYPES[config.precision], enabled=lowered):
                loss, squared_error = self.objective(*batch)
            if config.flat_weight and self.step % EVERY == 0:
                loss = loss + config.flat_weight * flatness_loss(self.model, self.step)
            self.scaler.scale(loss).backward()
        except RuntimeError as error:
            # At the first step, and once more where deformation is released.
            if config.compile and isinstance(error, torch._dynamo.exc.BackendCompilerFailed):
                raise ValueError(_not_compiled(error)) from error
            raise
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm or math.inf)
        return loss.detach(), squared_error, norm

    def is_finite(self, loss: float, norm: float) -> bool:
        """Whether a step may be taken; gradients of float16 overflow now and then."""
        if self.scaler.is_enabled():
            return math.isfinite(loss) and self.scaler.get_scale() >= SMALLEST_LOSS_SCALE
        return math.isfinite(loss) and math.isfinite(norm)

    def update(self) -> float:
        """Take the step that the gradients ask for, and return Adam's learning rate."""
        rate = set_learning_rates(self.optimizers, self.step, self.config)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.step += 1
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            averages: list[Tensor] = list(self.average.parameters())
            parameters: list[Tensor] = list(self.model.parameters())
            torch._foreach_lerp_(averages, parameters, 1 - decay)
        return rate

    def state(self) -> dict[str, Any]:
        """All of it; see `d3dnet.training.state`."""
        return {
            "model": self.model.state_dict(),
            "optimizer": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
        }

    def start_from(self, name_or_path: str) -> None:
        """Take weights to begin with, see `TrainingConfig.initial`."""
        tensors = load_initial(name_or_path)
        for model in (self.model, self.average):
            fill(model, tensors, name_or_path)

    def resume(self, state: dict[str, Any], origin: str) -> None:
        """Go on from a state; learning rates and the like stay those of the settings."""
        fill(self.model, state["model"], origin)
        fill(self.average, state["average"], origin)
        if len(state["optimizer"]) != len(self.optimizers):
            raise ValueError(f"{origin}: made with another optimizer than {self.config.optimizer}")
        for optimizer, saved in zip(self.optimizers, state["optimizer"], strict=True):
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
