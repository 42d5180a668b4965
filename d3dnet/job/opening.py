"""A job is opened: its source and output are looked at, its network loaded, its work locked.

What was decided for work that is there already holds: the same plan on the same kind of device.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from d3dnet.errors import OutputError
from d3dnet.job.finish import full_disk_told
from d3dnet.job.journal import Journal, is_complete, work_folder
from d3dnet.job.ledger import Job, Ledger, made_of
from d3dnet.job.segments import Segment, find_segments, warm_up
from d3dnet.job.settings import Settings
from d3dnet.job.shares import Shares
from d3dnet.job.workers import Workers, settle_plan
from d3dnet.network.interface import Network
from d3dnet.network.plan import Plan, make_plan
from d3dnet.network.run import load_network
from d3dnet.video import DEFAULT_CODEC
from d3dnet.video.encode import time_offset
from d3dnet.video.ffmpeg import Program, find_program
from d3dnet.video.hdr import warn_of_hdr
from d3dnet.video.images import ENCODERS, is_image, is_pattern
from d3dnet.video.rehearsal import rehearse
from d3dnet.video.source import VideoSource
from d3dnet.video.streams import Kept, keep
from d3dnet.video.target import (
    Encoding,
    Size,
    Target,
    check_output_path,
    result_path,
    rounded,
    target_of,
    warn_of_alpha,
)


@dataclass
class OpenJob:
    """A job, and all that is open for it.

    Attributes:
        job: what segments are made of.
        source, network: open, and loaded.
        streams: what is kept of the source beside its pictures.
        journal: locked; `ledger`: what of it is done, once `begin` was called.
        made_of: what decides on the frames, and what else must not change.
    """

    job: Job
    source: VideoSource
    network: Network
    streams: Kept
    journal: Journal
    made_of: dict[str, object]
    ledger: Ledger = field(init=False)

    def begin(self) -> None:
        """Go on with the work that is there, or begin.

        Raises:
            OtherWorkError: it is of something else.
        """
        self.journal.begin(self.made_of, self.job.plan)
        self.ledger = Ledger(self.job, self.journal)

    @property
    def first(self) -> Segment:
        """The first segment."""
        return Segment(0, 0, self.source.first_pts, 0, self.source.first_pts)

    def segments(self) -> Iterator[tuple[Segment, int]]:
        """All segments and the number of frames of each, found by reading the source."""
        needs = warm_up(self.network, self.job.mode, self.job.plan)
        return find_segments(self.source, self.job.cuts, lambda: needs, self.first)


@contextmanager
def opened_job(
    source_name: str | os.PathLike[str],
    output: str | os.PathLike[str],
    settings: Settings,
    journal: AbstractContextManager[Journal],
    *,
    shares: Shares | None = None,
    workers: Workers | None = None,
    runs_network: bool = True,
) -> Iterator[OpenJob]:
    """Within it a job is open; after it, what was found broken or lost on the way is warned of.

    Args:
        journal: of the result, or of the share of it that is made.
        shares: what all shares of the result have agreed upon.
        workers: who plan, if nothing was planned yet.
        runs_network: whether this process does; otherwise the network is on the CPU.
    """
    program = find_program(settings.ffmpeg)
    with VideoSource(source_name, settings.reading) as source:
        path = _output_path(output, source, settings)
        encoding = _encoding_for(path, settings.encoding)
        target = target_of(source, settings.size, program, encoding, path.suffix)
        transparent_from_the_first = source.transparent
        with full_disk_told(path), journal as locked:
            streams = keep(source.streams, path, sound=settings.sound)
            streams = rehearse(path, locked.beside, target, source, program, streams)
            _warn(path, source, target, settings.size)
            model = _model_for_anyone(settings.model)
            plan = (locked if shares is None else shares).plan
            if plan is None and workers is not None:
                size = (source.height, source.width)
                limits = {"tile": settings.tile, "max_memory": settings.max_memory}
                mode = {"mode": settings.mode}
                plan = settle_plan(workers, model, settings.precision, *size, mode | limits)
            network = _network(model, settings, plan, runs_network and workers is None)
            job = _job(source, path, target, program, settings, model, locked.folder, network, plan)
            opened = OpenJob(
                job=job,
                source=source,
                network=network,
                streams=streams,
                journal=locked,
                made_of=made_of(job, source, network) | _asked(settings),
            )
            yield opened
        if source.transparent and not (transparent_from_the_first or target.layout.alpha):
            warn_of_alpha(path, target)
        damage = dict.fromkeys([*opened.ledger.damage, *source.damage])
        if damage:
            warnings.warn(f"{source.path}: {'; '.join(damage)}", stacklevel=2)


def _output_path(output: str | os.PathLike[str], source: VideoSource, settings: Settings) -> Path:
    """The absolute path of the result, which may be written."""
    folder = work_folder(result_path(output), settings.work_folder)
    only_to_be_named = is_complete(folder) and not settings.restart
    overwrite = settings.overwrite or only_to_be_named
    path = check_output_path(result_path(output), source.path, overwrite=overwrite)
    if is_image(path) and not is_pattern(path) and not source.is_one_frame:
        raise OutputError(
            f"{path}: one image, of a video of several frames; ask for one frame (--frames 1), "
            f"or name numbered images, such as {path.stem.replace('%', '')}-%06d{path.suffix}"
        )
    return path


def _encoding_for(path: Path, encoding: Encoding) -> Encoding:
    """Images are encoded as what their name says, unless asked otherwise."""
    if is_image(path) and encoding.codec == DEFAULT_CODEC:
        return replace(encoding, codec=ENCODERS[path.suffix.lower()])
    return encoding


def _model_for_anyone(model: str | os.PathLike[str] | nn.Module) -> str | nn.Module:
    """The model by a name that other processes find it by."""
    if isinstance(model, nn.Module):
        return model
    return os.path.abspath(model) if os.path.isfile(model) else os.fspath(model)


def _network(
    model: str | nn.Module, settings: Settings, plan: Plan | None, runs_here: bool
) -> Network:
    """The network, where it was planned to run."""
    if not runs_here:
        device = "cpu"
    elif plan is None or settings.device.startswith(f"{plan.device}:"):  # one of that kind
        device = settings.device
    else:
        device = plan.device
    return load_network(model, device, settings.precision if plan is None else plan.precision)


def _job(
    source: VideoSource,
    path: Path,
    target: Target,
    program: Program,
    settings: Settings,
    model: str | nn.Module,
    folder: Path,
    network: Network,
    plan: Plan | None,
) -> Job:
    if plan is None:
        plan = make_plan(
            network,
            source.height,
            source.width,
            mode=settings.mode,
            tile=settings.tile,
            max_memory=settings.max_memory,
        )
    return Job(
        input=str(source.path),
        reading=settings.reading,
        model=model,
        mode=settings.mode,
        cuts=settings.cuts,
        plan=plan,
        target=target,
        program=program,
        offset=time_offset(source, path),
        output=path,
        folder=folder,
    )


def _asked(settings: Settings) -> dict[str, object]:
    """What must be asked for again to go on, though it need not decide on the frames."""
    return {
        "device": settings.device.partition(":")[0],  # which one of a kind makes no difference
        "precision": settings.precision,
        "tile": settings.tile,
        "max_memory": settings.max_memory,
        **vars(settings.size),
    }


def _warn(path: Path, source: VideoSource, target: Target, size: Size) -> None:
    """Warn of what the result will lack, before the work begins."""
    if other := rounded(size, source, target):
        warnings.warn(f"{path}: {other}", stacklevel=3)
    warn_of_hdr(path, source.colour.transfer, source.mastering, target.encoding.codec)
    if source.lost_metadata:
        warnings.warn(f"{path}: without {', '.join(source.lost_metadata)}", stacklevel=3)
    if source.transparent and not target.layout.alpha:
        warn_of_alpha(path, target)
