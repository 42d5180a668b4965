"""Samples for each step: which numbers a process draws, and the data sets behind them."""

import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from d3dnet.datasets.clip_motion import ClipsInMotion, add_motion
from d3dnet.datasets.clips import Clip, Clips, load_clips, source_of
from d3dnet.datasets.luma_store import LumaStore
from d3dnet.datasets.pans import Mixed, Pans, WithSingleFrames
from d3dnet.datasets.patches import ClipPatches, EpochPatches, Samples
from d3dnet.datasets.scenes import Scenes
from d3dnet.datasets.vimeo90k import TEST_LIST, TRAIN_LIST, open_septuplets
from d3dnet.training.config import TrainingConfig
from d3dnet.training.processes import Processes

# How patches are drawn, of which clips, and those held out.
Opened = tuple[Callable[..., Samples], Clips, Clips]

SECONDS_TO_SAVE = 60  # that loader processes live on after SIGTERM


def open_samples(config: TrainingConfig, processes: Processes) -> tuple[Samples, list[Clip]]:
    """The training set, and the held-out clips.

    The training set maps a sample's number (0, 1, ... without end) to lr (1, T, h, w) and
    hr (1, T, 4h, 4w), float32 luma in [0, 1]; for a guided network lr is of guided frames
    (7, T, h, w; `d3dnet.network.motion`); with ``config.single_frames``, as
    `d3dnet.datasets.pans.WithSingleFrames` does.

    Raises:
        FileNotFoundError: when a folder is not there.
        ValueError: when there are no clips, or none but held-out ones.
    """
    with processes.first_on_its_machine_first():
        opened = _open_vimeo90k(config) if config.data == "vimeo90k" else _open_clips(config)
    patches, clips, held_out = opened
    drawing = (config.frames, config.patch, config.seed, config.candidates)
    samples: Samples = patches(clips, *drawing)
    if config.pan_share:
        samples = Mixed(samples, Pans(clips, *drawing, config.degradation), config.pan_share)
    if config.scene_share:
        in_motion = config.is_guided and config.frames > 1
        scenes = Scenes(clips, *drawing, config.degradation, guided=in_motion)
        samples = Mixed(samples, scenes, config.scene_share)
    if config.single_frames:
        drawing = (1, config.patch, config.seed + 1, config.candidates)  # not those of the pans
        singles = Pans(clips, *drawing, config.degradation)
        samples = WithSingleFrames(samples, singles, config.single_frames)
    # Evenly spread over what is there.
    count = min(config.validation_clips, len(held_out))
    return samples, [held_out[i * len(held_out) // count] for i in range(count)]


def _open_vimeo90k(config: TrainingConfig) -> Opened:
    """Septuplets, packed or as downloaded; those of the test list are for validation."""
    clips: Clips = open_septuplets(config.root, TRAIN_LIST, config.degradation)
    if config.is_guided:
        clips = ClipsInMotion(clips)
    if not config.validation_clips:
        return EpochPatches, clips, []
    if LumaStore.is_at(config.root) and not config.validation_root:
        raise ValueError(
            "validation_root: not set; beside a packed training list, name the folder of Vimeo-90k "
            f"or a packed {TEST_LIST}, or set validation_clips=0"
        )
    root = config.validation_root or config.root
    return EpochPatches, clips, open_septuplets(root, TEST_LIST, config.degradation)


def _open_clips(config: TrainingConfig) -> Opened:
    """Videos, folders of frames and stills; `held_out` sources and `validation_root` are apart."""

    cache = Path(config.run).parent / "clips"

    def load(root: str, size: float = 1.0) -> list[Clip]:
        return load_clips(Path(root), cache, config.still_frames, config.degradation, size)

    clips, least = load(config.root), (config.frames, config.patch, config.patch)
    training = [
        clip
        for clip in clips + (load(config.root, config.reduced) if config.reduced else [])
        if source_of(clip.name) not in config.held_out
        and all(have >= wanted for have, wanted in zip(clip.lr.shape, least, strict=True))
    ]
    if not training:
        raise ValueError(
            f"{config.root}: no training clips of {config.frames} frames and {config.patch} "
            f"low-resolution pixels besides those held out ({', '.join(config.held_out) or 'none'})"
        )
    if config.is_guided and config.frames > 1:
        training = add_motion(training, cache)
    held_out = [clip for clip in clips if source_of(clip.name) in config.held_out]
    if config.validation_root:
        held_out += load(config.validation_root)
    one_of_each = {source_of(clip.name): clip for clip in held_out}
    return ClipPatches, training, list(one_of_each.values())


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
    samples: Samples, config: TrainingConfig, first_step: int, processes: Processes
) -> Generator[list[Tensor], None, None]:
    """The batches of one process, from ``first_step`` on, on the CPU: samples, stacked."""
    loader = DataLoader(
        cast("Dataset[tuple[Tensor, ...]]", samples),  # torch asks for a base class of its own
        batch_sampler=StepBatches(first_step, config.batch, processes),
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        pin_memory=processes.device.type == "cuda",
        worker_init_fn=_outlive_signals,
        generator=torch.Generator(),  # each start draws a number: not from the training's own
    )
    yield from loader


def _outlive_signals(worker: int) -> None:
    # A signal to the whole process group must not take the workers away before the state is saved.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: signal.alarm(SECONDS_TO_SAVE))
