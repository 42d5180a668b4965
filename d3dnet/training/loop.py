"""The training loop, top to bottom in the order in which things happen.

What a step draws depends only on the seed and the step's number, and the state holds everything
else, so that a resumed training goes on exactly where it was.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d3dnet.datasets.clips import Clip
from d3dnet.errors import ExplodedError
from d3dnet.files import write_whole
from d3dnet.training.config import TrainingConfig
from d3dnet.training.learner import Learner
from d3dnet.training.monitor import Monitor, picture
from d3dnet.training.processes import Processes, join_processes
from d3dnet.training.samples import load_batches, open_samples
from d3dnet.training.state import load_state, random_states, save_state, seed_all, set_random_states
from d3dnet.training.validation import offset_reach, super_resolve, validate


def train(config: TrainingConfig, max_seconds: float = math.inf) -> Path:
    """Train, or go on with a training, and return the path of its state.

    Under torchrun every process calls this. On resuming, the settings of the new call count (a
    longer schedule, say); another `batch` or `seed` gives other samples from there on. At SIGTERM
    or SIGINT the step is finished and the state saved, as after ``max_seconds``.

    Args:
        config: the settings.
        max_seconds: stop after so many seconds.

    Raises:
        ValueError: settings that are missing or contradict one another, or no clips.
        CheckpointError: when the state cannot be read, or is of a network of another size.
        ExplodedError: see there; the last good state is kept.

    >>> import cv2, tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     frame = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    ...     _ = cv2.imwrite(f"{root}/still.png", frame)
    ...     sizes = {"channels": 4, "resd3d_blocks": 1, "res_blocks": 1, "patch": 8, "frames": 3}
    ...     config = TrainingConfig(run=f"{root}/run", root=root, steps=1, **sizes)
    ...     state = load_state(train(config))
    >>> state["step"]
    1
    """
    for name in ("run", "root"):
        if not getattr(config, name):
            raise ValueError(f"{name}: not set; name a folder with --set {name}=FOLDER")
    with join_processes(config.device) as processes:
        return _train(config, processes, time.monotonic() + max_seconds)


def _train(config: TrainingConfig, processes: Processes, deadline: float) -> Path:
    run = Path(config.run)
    path = run / "last.pt"
    samples, held_out = open_samples(config, processes)
    _choose_algorithms(config, processes.device)
    seed_all(config.seed)
    learner, best, saved_step = Learner(config, processes), -math.inf, None
    state = processes.from_first(load_state(path) if processes.is_first and path.exists() else None)
    if state:
        learner.resume(state, str(path))
        best, saved_step = state["best"], state["step"]
        if processes.rank < len(state["random"]):
            set_random_states(state["random"][processes.rank])
    elif config.initial:
        learner.start_from(config.initial)
    monitor = None
    if processes.is_first:
        run.mkdir(parents=True, exist_ok=True)
        write_whole(run / "config.toml", config.toml().encode())
        monitor = Monitor(run, config, learner.step)

    def explosion(what: str) -> ExplodedError:
        kept = "none was saved" if saved_step is None else f"{path}, of step {saved_step}"
        return ExplodedError(
            f"step {learner.step}: {what}; stopped. The last good state: {kept}. Lower "
            "learning_rate or clip_norm (0 is no limit), then run the command again"
        )

    def save(lr: Tensor, names: Sequence[str]) -> None:
        """Every process takes part; rank 0 writes. What offsets do is looked at on ``lr``."""
        nonlocal saved_step
        (reach,) = processes.mean(offset_reach(learner.model, lr.to(processes.device)))
        if not reach <= config.offset_limit:
            raise explosion(f"offsets of {reach:.4g} pixels on average (see offset_limit)")
        state = learner.state() | {
            "best": best,
            "random": processes.gather(random_states()),
            "config": asdict(config),
        }
        for name in names if processes.is_first else ():
            save_state(run / name, state)
        saved_step = learner.step

    batches = load_batches(samples, config, learner.step, processes)
    shown = closing(monitor) if monitor else nullcontext()
    with shown, closing(batches), _stop_signals() as asked_to_stop:
        stop = False
        while learner.step < config.steps and not stop:
            batch = next(batches)
            loss, squared_error, norm = (value.item() for value in learner.differentiate(*batch))
            stop = asked_to_stop() or time.monotonic() > deadline
            # The flag is shared too: all processes stop at the same step.
            loss, squared_error, stopping = processes.mean(loss, squared_error, stop)
            stop = stopping > 0
            if not learner.is_finite(loss, norm):
                raise explosion(f"the loss is {loss:.4g}, the gradient's norm {norm:.4g}")
            rate = learner.update()

            step, last = learner.step, learner.step == config.steps
            # Not when asked to stop: whoever asked will not wait for long.
            validating = bool(held_out) and (step % config.validate_every == 0 or last)
            saving = step % config.save_every == 0 or validating or last or stop
            names = ["last.pt"] if saving else []
            measured = {"learning_rate": rate, "norm": norm}
            if validating:
                measured["validation_psnr"] = _validate(learner, held_out, processes)
                if measured["validation_psnr"] > best:
                    best = measured["validation_psnr"]
                    names.insert(0, "best.pt")
            if monitor:
                monitor.stepped(loss, squared_error)
                if validating:
                    monitor.add_pictures(step, _pictures(learner, held_out[: config.pictures]))
                if saving or step % config.log_every == 0:
                    monitor.record(step, **measured)
            if names:
                save(batch[0][:1], names)
    return path


def _validate(learner: Learner, held_out: Sequence[Clip], processes: Processes) -> float:
    """Mean PSNR of the moving average over the held-out clips, which processes share."""
    own = held_out[processes.rank :: processes.count]
    total = sum(validate(learner.average, own, learner.config.mode, processes.device))
    (mean,) = processes.mean(total)
    return mean * processes.count / len(held_out)


def _pictures(learner: Learner, clips: Sequence[Clip]) -> list[np.ndarray]:
    rows = []
    for clip in clips:
        sr, _ = super_resolve(learner.average, clip, learner.config.mode, learner.device)
        window = learner.config.mode == "window"
        index = learner.average.window // 2 if window else len(sr) // 2
        rows.append(picture(clip, sr[len(sr) // 2], index))
    return rows


def _choose_algorithms(config: TrainingConfig, device: torch.device) -> None:
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    elif device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # samples have one size: worth measuring once


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or SIGINT has come; a second one acts as it did before."""
    asked: list[int] = []
    before: dict[int, Any] = {}  # handlers, of many kinds

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, ask)
    try:
        yield lambda: bool(asked)
    finally:
        restore()
