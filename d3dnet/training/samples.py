"""Samples for each step: which numbers a process draws, and the data sets behind them."""

import signal
from collections.abc import Generator, Iterator
from pathlib import Path

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from d3dnet.datasets.clips import Clip, load_clips, source_of
from d3dnet.datasets.patches import ClipPatches
from d3dnet.training.config import TrainingConfig
from d3dnet.training.processes import Processes

SECONDS_TO_SAVE = 60  # that loader processes live on after SIGTERM


def open_samples(config: TrainingConfig, processes: Processes) -> tuple[Dataset, list[Clip]]:
    """The training set, and the held-out clips (one of each source).

    The training set maps a sample's number (0, 1, ... without end) to lr (1, T, h, w) and
    hr (1, T, 4h, 4w), float32 luma in [0, 1].

    Raises:
        ValueError: when there are no clips, or none but held-out ones.
    """
    with processes.first_on_its_machine_first():
        clips = load_clips(Path(config.root), cache=Path(config.run).parent / "clips")
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
        raise ValueError(
            f"{config.root}: no training clips of {config.frames} frames and {config.patch} "
            f"low-resolution pixels besides those held out ({', '.join(config.held_out) or 'none'})"
        )
    size = (config.frames, config.patch)
    return ClipPatches(training, *size, config.seed, config.candidates), validation


class StepBatches:
    """The sample numbers of one process, from a step on: a batch sampler without end.

    Step s of a global batch B takes the samples s·B ... s·B + B - 1, of which each process gets an
    equal run: the same samples whatever the number of processes or workers, and wherever a training
    was interrupted.
    """

    def __init__(self, first_step: int, batch: int, processes: Processes) -> None:
        if batch % processes.count:
            raise ValueError(
                f"batch: got {batch}; accepted is a multiple of the {processes.count} processes"
            )
        self.first_step, self.batch = first_step, batch
        self.share = batch // processes.count
        self.offset = processes.rank * self.share

    def __iter__(self) -> Iterator[list[int]]:
        start = self.first_step * self.batch + self.offset
        while True:
            yield list(range(start, start + self.share))
            start += self.batch


def load_batches(
    samples: Dataset, config: TrainingConfig, first_step: int, processes: Processes
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """The batches (lr, hr) of one process, from ``first_step`` on, on the CPU."""
    loader = DataLoader(
        samples,
        batch_sampler=StepBatches(first_step, config.batch, processes),
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        pin_memory=processes.device.type == "cuda",
        worker_init_fn=_outlive_signals,
    )
    yield from loader


def _outlive_signals(worker: int) -> None:
    # A signal to the whole process group must not take the workers away before the state is saved.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: signal.alarm(SECONDS_TO_SAVE))
