"""Training, top to bottom in the order in which things happen.

A step is: draw patches, super-resolve all their frames at once (`forward_sequence`), mean squared
error over every frame, clip the gradient, Adam, moving average. What a step draws depends only on
the seed and the step's number, so a resumed run goes on exactly where it was.
"""

import json
import math
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from d3dnet.datasets.clips import Clip, load_clips, source_of, unit_luma
from d3dnet.datasets.patches import ClipPatches
from d3dnet.metrics import psnr
from d3dnet.model import D3D, D3Dnet


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that a training depends on besides its clips.

    `rigid_steps`: for so many steps offsets are held at zero and their convolutions rest, which
    makes D3D a plain 3-D convolution at 0.6 of the cost; then deformation is learned.
    `held_out`: sources (clip names without their number) used for validation only.
    """

    channels: int = 64
    resd3d_blocks: int = 5
    res_blocks: int = 6
    steps: int = 4000
    rigid_steps: int = 2000
    batch: int = 2
    frames: int = 7
    patch: int = 32
    candidates: int = 3
    learning_rate: float = 3.5e-4
    final_learning_rate: float = 1e-6
    offset_learning_rate_factor: float = 0.25
    warmup_steps: int = 100
    clip_norm: float = 0.005
    ema: float = 0.998
    bfloat16: bool = False
    seed: int = 0
    validate_every: int = 250
    save_every: int = 100
    held_out: tuple[str, ...] = ("davis_libby", "cut3r_hall", "sam2_dog", "udacity_road")


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then half a cosine down to `final_learning_rate`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / (config.steps - config.warmup_steps))
    span = config.learning_rate - config.final_learning_rate
    return config.final_learning_rate + span * (1 + math.cos(math.pi * progress)) / 2


def set_rigid(model: nn.Module, rigid: bool) -> None:
    """Hold all offsets at zero, or release them."""
    for layer in model.modules():
        if isinstance(layer, D3D):
            layer.rigid = rigid


@torch.no_grad()
def validate(model: D3Dnet, clips: Sequence[Clip], frames: int = 7) -> float:
    """Mean PSNR in dB of the first frames of each clip, 8 pixels cut from every side."""
    inner = (slice(None), slice(8, -8), slice(8, -8))
    values = []
    for clip in clips:
        lr = torch.from_numpy(unit_luma(clip.lr[None, None, :frames]))
        sr = model.forward_sequence(lr)[0, 0].clamp(0, 1).numpy()
        values.append(psnr(sr[inner], unit_luma(clip.hr[:frames][inner]), peak=1))
    return sum(values) / len(values)


def _save(state: dict, path: Path) -> None:
    partial = path.with_suffix(".part")
    with open(partial, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def train(
    config: TrainingConfig, clips_root: Path, run: Path, max_seconds: float = math.inf
) -> Path:
    """Train, or go on with a training, and return the path of its state.

    Args:
        config: the settings; on resuming, those of the new call count (a longer schedule, say).
        clips_root: folder of videos and stills, see `d3dnet.datasets.clips.load_clips`.
        run: folder of this training: ``state.pt`` (everything needed to resume), ``log.jsonl``.
        max_seconds: stop after so many seconds, with the state saved.

    Raises:
        ValueError: when there are no clips, or none but held-out ones.
        FloatingPointError: when the loss is not finite; the last saved state is kept.
    """
    run.mkdir(parents=True, exist_ok=True)
    clips = load_clips(clips_root, cache=run.parent / "clips")
    held_out = [clip for clip in clips if source_of(clip.name) in config.held_out]
    validation = list({source_of(clip.name): clip for clip in held_out}.values())
    training = [
        clip
        for clip in clips
        if source_of(clip.name) not in config.held_out
        and clip.lr.shape[0] >= config.frames
        and min(clip.lr.shape[1:]) >= config.patch
    ]
    if not training:
        raise ValueError(f"{clips_root}: no training clips besides the held-out {config.held_out}")
    patches = ClipPatches(training, config.frames, config.patch, config.seed, config.candidates)

    torch.manual_seed(config.seed)
    model = D3Dnet(
        channels=config.channels, resd3d_blocks=config.resd3d_blocks, res_blocks=config.res_blocks
    )
    offsets = [p for name, p in model.named_parameters() if "conv_offset" in name]
    others = [p for name, p in model.named_parameters() if "conv_offset" not in name]
    optimizer = torch.optim.Adam([{"params": others}, {"params": offsets}])
    average = {name: value.clone() for name, value in model.state_dict().items()}
    step = 0
    path = run / "state.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, step = state["average"], state["step"]

    def save() -> None:
        _save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average,
                "step": step,
                "config": asdict(config),
            },
            path,
        )

    log = open(run / "log.jsonl", "a", buffering=1)
    started, losses = time.monotonic(), []
    bar = tqdm(total=config.steps, initial=step, desc="train", unit="step", mininterval=10)
    while step < config.steps and time.monotonic() - started < max_seconds:
        set_rigid(model, step < config.rigid_steps)
        rate = learning_rate_at(step, config)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.param_groups[1]["lr"] = rate * config.offset_learning_rate_factor
        samples = range(step * config.batch, (step + 1) * config.batch)
        lr, hr = (torch.stack(side) for side in zip(*(patches[i] for i in samples), strict=True))
        with torch.autocast("cpu", torch.bfloat16) if config.bfloat16 else nullcontext():
            sr = model.forward_sequence(lr)
        loss = F.mse_loss(sr, hr)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"step {step}: the loss is {loss.item()}; lower learning_rate")
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        step += 1
        with torch.no_grad():
            decay = min(config.ema, (1 + step) / (10 + step))
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - decay)

        losses.append(loss.item())
        bar.update()
        if step % config.save_every == 0 or step == config.steps:
            mean = sum(losses) / len(losses)
            entry = {"step": step, "loss": mean, "norm": norm.item(), "learning_rate": rate}
            entry["seconds"] = round(time.monotonic() - started, 1)
            losses.clear()
            if step % config.validate_every == 0 or step == config.steps:
                trained = {name: value.clone() for name, value in model.state_dict().items()}
                model.load_state_dict(average)
                entry["validation_psnr"] = validate(model, validation)
                model.load_state_dict(trained)
            log.write(json.dumps(entry) + "\n")
            bar.set_postfix(loss=f"{mean:.2e}", psnr=entry.get("validation_psnr"))
            save()
    save()
    return path


def override(config: TrainingConfig, settings: Sequence[str]) -> TrainingConfig:
    """Apply ``name=value`` settings, values in JSON; unknown names are a `ValueError`."""
    changes = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in asdict(config):
            raise ValueError(f"{name}: no such setting; accepted are {', '.join(asdict(config))}")
        changes[name] = json.loads(value)
    return replace(config, **changes)
