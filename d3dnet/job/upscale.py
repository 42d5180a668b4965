"""A video four times larger.

file → frames with times → luma → network → luma → planes → segments → file. What is finished is
kept, and a later run goes on behind it.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import nn

from d3dnet.errors import AuditError, OtherWorkError, OutputError
from d3dnet.job.events import Done, Event, Kept, Progress, ShareDone, Start
from d3dnet.job.finish import audited, full_disk_told, give_name, joined
from d3dnet.job.journal import is_complete, work_folder
from d3dnet.job.ledger import Job, Ledger, made_of
from d3dnet.job.local_workers import workers_of
from d3dnet.job.pipeline import make_segments
from d3dnet.job.segments import Place, Segment, find_segments, warm_up
from d3dnet.job.shares import JOIN, Part, Share, collected, opened
from d3dnet.job.workers import Workers, settle_plan, spread
from d3dnet.network import check_mode
from d3dnet.network.interface import Network
from d3dnet.network.plan import Plan, make_plan
from d3dnet.network.run import load_network
from d3dnet.video.encode import time_offset
from d3dnet.video.ffmpeg import find_program
from d3dnet.video.hdr import warn_of_hdr
from d3dnet.video.images import ENCODERS, is_image, is_pattern
from d3dnet.video.rehearsal import rehearse
from d3dnet.video.scenes import read_cuts
from d3dnet.video.source import Reading, VideoSource
from d3dnet.video.streams import keep
from d3dnet.video.target import (
    DEFAULT_CODEC,
    Encoding,
    Size,
    Target,
    check_output_path,
    rounded,
    target_of,
    warn_of_alpha,
    warn_of_profile,
)
from d3dnet.wording import parse_time


def upscale_video(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | nn.Module = "d3dnet",
    device: str | torch.device = "auto",
    precision: str = "auto",
    mode: str = "sequence",
    tile: int | None = None,
    max_memory: int | None = None,
    cuts: str | os.PathLike[str] = "auto",
    scale: float | None = None,
    height: int | None = None,
    width: int | None = None,
    start: str | float | Fraction | None = None,
    end: str | float | Fraction | None = None,
    frames: int | None = None,
    deinterlace: bool = False,
    on_error: str = "fail",
    fps: str | float | Fraction = 25,
    sound: bool = True,
    codec: str = DEFAULT_CODEC,
    crf: float | None = None,
    preset: str | None = None,
    pix_fmt: str | None = None,
    ffmpeg_args: Sequence[str] = (),
    overwrite: bool = False,
    ffmpeg: str | os.PathLike[str] | None = None,
    work_dir: str | os.PathLike[str] | None = None,
    restart: bool = False,
    segment: str | None = None,
    workers: Workers | None = None,
    watch: Callable[[Event], None] = lambda event: None,
) -> Path:
    """Make a video file larger, four times in both directions unless asked otherwise.

    Every frame keeps its time; sound, subtitles, attachments, chapters and metadata are copied as
    far as the container can hold them, and a warning names what it cannot; colours are tagged as
    they were. The network works on luma; chroma is interpolated. The result is compared with the
    source; `output` appears only when it is complete and faithful.

    Segments of a few seconds are finished one by one in a folder beside `output`. If the run ends
    before its time, however that comes, the same call goes on behind the last finished one, and
    gives the same frames.

    Args:
        input: a file that FFmpeg reads; its first video stream is used. Or images: a folder, a glob
            or a printf pattern (as "%06d.png").
        output: the result; its extension chooses the container. Or a printf pattern of images; or
            one image, of one frame.
        model: "bicubic", name or path for `d3dnet.load_model`, or a loaded network.
        device, precision: as for `d3dnet.load_model`; unused if `model` is a loaded network. Or
            several devices of this machine, "cuda:0,1", which share the segments.
        mode: "sequence" (each frame sees the whole shot within reach, features are computed once)
            or "window" (7 frames for each; beyond the ends the first or last is repeated).
        tile, max_memory: as for `d3dnet.network.plan.make_plan`.
        cuts: where shots begin, which the network sees each by itself: "auto" detects them, "off"
            takes all as one, otherwise a file of times (`d3dnet.video.scenes.read_cuts`).
        scale, height, width: of the result, at most four times larger, by shrinking what the
            network makes; a side not given follows. Rounded to the even numbers that 4:2:0 needs,
            with a warning.
        start, end, frames: the part of the video: its first frame is the first at or after `start`,
            its last the last before `end`; seconds or "h:mm:ss.sss", as the file counts them; at
            most so many frames. A part begins at zero in the result.
        deinterlace: make whole frames of an interlaced video, which is refused otherwise.
        on_error: where the file is damaged: "fail", "conceal" (repeat the last good frame) or
            "stop" (keep the frames before it); what was lost is named in a warning.
        fps: frames per second of images as input.
        sound: False leaves it out.
        codec, crf, preset, pix_fmt: of the encoder; None for what is good or keeps the most.
        ffmpeg_args: further words for the ffmpeg program, before the name of the result.
        overwrite: replace an existing `output`.
        ffmpeg: path of the program; None for $FFMPEG, else that on the PATH, else the bundled one.
        work_dir: keep unfinished work in a folder in this one, not beside `output`.
        restart: forget unfinished work that is there.
        segment: "I/N" makes only share I of N of the segments, and no result yet; "join" makes
            the result of all shares (`d3dnet.job.shares`).
        workers: where the segments are made, `d3dnet.job.local_workers.Devices` or
            `d3dnet.job.ray_workers.Cluster`; None for this process, unless there are several
            devices.
        watch: called with what happens (`d3dnet.job.events`): each frame, each segment, the result.

    Returns:
        The absolute path of the result.

    Raises:
        InputError: `input` is missing, no video, damaged, or interlaced.
        OutputError: `output` cannot be written there, or so; EncoderError if ffmpeg says so,
            DiskError if the disk is full; AuditError if the result is not faithful; BusyError if
            another process works on it; OtherWorkError if there is unfinished work with other
            settings; SharesMissingError if shares are not complete; WorkerError if workers die.
        ProgramError: no usable ffmpeg program, or it has no such codec.
        CheckpointError: a wrong weights file.
        NotEnoughMemoryError: the network does not fit.
        ValueError: an unknown mode, device, precision or share.

    >>> import cv2, numpy, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for number in (1, 2):
    ...         _ = cv2.imwrite(f"{folder}/{number}.png", numpy.full((16, 24, 3), 99, "uint8"))
    ...     _ = upscale_video(f"{folder}/%d.png", f"{folder}/large-%d.png", model="bicubic")
    ...     sorted(path.name for path in Path(folder).glob("large-*"))
    ['large-1.png', 'large-2.png']
    """
    check_mode(mode)
    program = find_program(ffmpeg)
    starts = cuts if cuts in ("auto", "off") else read_cuts(cuts)
    size = Size(scale, height, width)
    reading = Reading(
        *(None if t is None else parse_time(str(t)) for t in (start, end)),
        frames=frames,
        deinterlace=deinterlace,
        on_error=on_error,
        image_rate=Fraction(str(fps)),
    )
    if is_image(Path(output)) and codec == DEFAULT_CODEC:
        codec = ENCODERS[Path(output).suffix.lower()]
    encoding = Encoding(codec, crf, preset, pix_fmt, tuple(ffmpeg_args))
    share = None if segment in (None, JOIN) else Share.parse(segment)
    with workers_of(str(device), workers) as workers, VideoSource(input, reading) as source:
        parent = None if work_dir is None else Path(os.path.abspath(work_dir))
        work = work_folder(Path(os.path.abspath(output)), parent)
        was_complete = is_complete(work) and not restart
        path = check_output_path(output, source.path, overwrite=overwrite or was_complete)
        if is_image(path) and not is_pattern(path) and not source.is_one_frame:
            raise OutputError(
                f"{path}: one image, of a video of several frames; ask for one frame (--frames 1), "
                f"or name numbered images, such as {path.stem.replace('%', '')}-%06d{path.suffix}"
            )
        target = target_of(source, size, program, encoding, path.suffix)
        with full_disk_told(path), opened(path, parent, segment, restart) as (journal, shares):
            kept = keep(source.streams, path, sound=sound)
            kept = rehearse(path, journal.beside, target, source, program, kept)
            first_transparent = source.transparent
            _warn(path, source, target, size)
            if not isinstance(model, nn.Module):
                model = os.path.abspath(model) if os.path.isfile(model) else os.fspath(model)
            frame, limits = (source.height, source.width), {"tile": tile, "max_memory": max_memory}
            there = (shares or journal).plan
            if workers is not None and not there:
                there = settle_plan(workers, model, precision, *frame, {"mode": mode, **limits})
            if workers is not None or segment == JOIN:
                here: str | torch.device = "cpu"  # where the network is not run
            else:
                here = there.get("device", device)
                here = device if str(device).startswith(f"{here}:") else here
            network = load_network(model, here, there.get("precision", precision))
            plan = _begun(there, path, journal.folder)
            plan = plan or make_plan(network, *frame, mode=mode, **limits)
            job = Job(
                input=os.path.abspath(input),
                reading=reading,
                model=model,
                mode=mode,
                cuts=starts,
                plan=plan,
                target=target,
                program=program,
                offset=time_offset(source, path),
                output=path,
                folder=journal.folder,
            )
            kind = str(device).partition(":")[0]  # which one of a kind makes no difference
            asked = {"device": kind, "precision": precision, **limits, **vars(size)}
            made = made_of(job, source, network) | asked
            part = Part(Segment(0, 0, source.first_pts, 0, source.first_pts), None, None)
            if shares:
                needs = warm_up(network, mode, plan)
                shares.settle(
                    share and share.of,
                    made,
                    plan.to_dict(),
                    lambda: find_segments(source, starts, lambda: needs, part.begin),
                )
            if share:
                part = shares.parts[share.number - 1]
            journal.begin(made, plan.to_dict())
            ledger = Ledger(job, journal)
            try:
                found = audited(journal)
                if found is None and segment == JOIN:
                    with collected(shares, path, parent, job, ledger):
                        found = joined(job, source, kept, journal, ledger)
                elif found is None:
                    _make_all(job, source, network, ledger, part, workers, watch)
                    found = None if share else joined(job, source, kept, journal, ledger)
                if not share:
                    give_name(journal, path)
            except BaseException as error:
                if ledger.frames and not isinstance(error, AuditError):
                    watch(Kept(journal.folder, sum(ledger.frames.values())))
                raise
            journal.finished = not share
        if source.transparent and not (first_transparent or target.layout.alpha):
            warn_of_alpha(path, target)
        damage = dict.fromkeys([*ledger.damage, *source.damage])
        if damage:
            warnings.warn(f"{source.path}: {'; '.join(damage)}", stacklevel=2)
        frames = sum(ledger.frames.values())
        watch(ShareDone(share.number, share.of, frames, job.folder) if share else Done(path, found))
    return path


def _begun(there: dict[str, Any], path: Path, folder: Path) -> Plan | None:
    """The plan of unfinished work, if there is any."""
    try:
        return Plan.from_dict(there) if there else None
    except ValueError as error:
        raise OtherWorkError(
            f"{path}: {folder} holds unfinished work of another version of d3dnet "
            f"({error}); go on with that version, or use --restart"
        ) from None


def _warn(path: Path, source: VideoSource, target: Target, size: Size) -> None:
    """Warn of what the result will lack, before the work begins."""
    if other := rounded(size, source, target):
        warnings.warn(f"{path}: {other}", stacklevel=3)
    warn_of_hdr(path, source.colour.transfer, source.mastering, target.encoding.codec)
    if source.lost_metadata:
        warnings.warn(f"{path}: without {', '.join(source.lost_metadata)}", stacklevel=3)
    if source.transparent and not target.layout.alpha:
        warn_of_alpha(path, target)
    warn_of_profile(path, source, target)


def _make_all(
    job: Job,
    source: VideoSource,
    network: Network,
    ledger: Ledger,
    part: Part,
    workers: Workers | None,
    watch: Callable[[Event], None],
) -> None:
    """Make all segments of a part that are not finished."""
    done, frames = sum(ledger.frames.values()), part.frames
    frames = source.frames_estimate if frames is None else frames
    watch(
        Start(
            input=source.path,
            output=job.output,
            work=job.folder,
            width=job.target.width,
            height=job.target.height,
            frames=frames,
            done=done,
            plan=ledger.plan.to_dict(),
        )
    )
    while part.begin and (rest := ledger.unfinished(part.begin, part.last)) is not None:
        if workers is not None:
            rest = (rest[0], part.last, frames)
            with closing(spread(job, source, network, ledger, workers, *rest)) as events:
                for event in events:
                    watch(event)
            continue
        if ledger.plan.device == "cpu":  # on whose threads the last bits of results may depend
            torch.set_num_threads(ledger.plan.threads)
        with closing(make_segments(job, source, network, ledger, *rest)) as events:
            for event in events:
                if isinstance(event, Place):
                    done += 1
                    event = Progress(done, frames, event.segment.number)
                watch(event)
