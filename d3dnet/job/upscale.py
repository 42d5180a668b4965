"""A video four times larger.

file → frames with times → luma → network → luma → planes → segments → file. What is finished is
kept, and a later run goes on behind it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path

import torch
from torch import nn

from d3dnet.errors import AuditError
from d3dnet.job.events import Done, Event, Progress, ShareDone, Start, WorkKept
from d3dnet.job.finish import audited, give_name, joined
from d3dnet.job.local_workers import workers_of
from d3dnet.job.opening import OpenJob, opened_job
from d3dnet.job.pipeline import make_segments
from d3dnet.job.segments import Place
from d3dnet.job.settings import Settings, Time, cuts_of, reading_of, work_folder_of
from d3dnet.job.shares import (
    JOIN,
    Part,
    Share,
    Shares,
    collected,
    journal_of_join,
    journal_of_share,
    journal_of_whole,
)
from d3dnet.job.workers import Workers, spread
from d3dnet.network import Mode
from d3dnet.video import DEFAULT_CODEC, OnError
from d3dnet.video.audit import Audit
from d3dnet.video.target import Encoding, Size, result_path

Watch = Callable[[Event], None]


def unwatched(event: Event) -> None:
    """Nobody is told."""


def upscale_video(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | nn.Module = "d3dnet",
    device: str | torch.device = "auto",
    precision: str = "auto",
    mode: Mode = "sequence",
    tile: int | None = None,
    max_memory: int | None = None,
    cuts: str | os.PathLike[str] = "auto",
    scale: float | None = None,
    height: int | None = None,
    width: int | None = None,
    start: Time | None = None,
    end: Time | None = None,
    frames: int | None = None,
    deinterlace: bool = False,
    on_error: OnError = "fail",
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
    watch: Watch = unwatched,
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
    settings = Settings(
        model=model,
        device=str(device),
        precision=precision,
        mode=mode,
        tile=tile,
        max_memory=max_memory,
        cuts=cuts_of(cuts),
        size=Size(scale, height, width),
        reading=reading_of(start, end, frames, deinterlace, on_error, fps),
        encoding=Encoding(codec, crf, preset, pix_fmt, tuple(ffmpeg_args)),
        sound=sound,
        overwrite=overwrite,
        ffmpeg=ffmpeg,
        work_folder=work_folder_of(work_dir),
        restart=restart,
    )
    return upscale(input, output, settings, segment=segment, workers=workers, watch=watch)


def upscale(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    settings: Settings,
    *,
    segment: str | None = None,
    workers: Workers | None = None,
    watch: Watch = unwatched,
) -> Path:
    """Make a video file larger: `upscale_video`, with its settings in one piece."""
    path = result_path(output)
    if segment == JOIN:
        return _join(input, path, settings, watch)
    share = None if segment is None else Share.parse(segment)
    with workers_of(settings.device, workers) as workers:
        if share is None:
            return _upscale_whole(input, path, settings, workers, watch)
        return _upscale_share(input, path, settings, share, workers, watch)


def _upscale_whole(
    input: str | os.PathLike[str],
    output: Path,
    settings: Settings,
    workers: Workers | None,
    watch: Watch,
) -> Path:
    journal = journal_of_whole(output, settings.work_folder, settings.restart)
    with opened_job(input, output, settings, journal, workers=workers) as opened:
        opened.begin()
        with _kept_is_told(opened, watch):
            audit = audited(opened.journal)
            if audit is None:
                _make(opened, Part(opened.first, None, None), workers, watch)
                audit = _joined(opened)
            give_name(opened.journal, opened.job.output)
        opened.journal.finished = True
    watch(Done(opened.job.output, audit))
    return opened.job.output


def _upscale_share(
    input: str | os.PathLike[str],
    output: Path,
    settings: Settings,
    share: Share,
    workers: Workers | None,
    watch: Watch,
) -> Path:
    shares = Shares(output, settings.work_folder)
    journal = journal_of_share(shares, share, settings.restart)
    with opened_job(input, output, settings, journal, shares=shares, workers=workers) as opened:
        shares.settle(share.of, opened.made_of, opened.job.plan, opened.segments)
        opened.begin()
        with _kept_is_told(opened, watch):
            _make(opened, shares.parts[share.number - 1], workers, watch)
    watch(ShareDone(share.number, share.of, opened.ledger.done, opened.job.folder))
    return opened.job.output


def _join(input: str | os.PathLike[str], output: Path, settings: Settings, watch: Watch) -> Path:
    shares = Shares(output, settings.work_folder)
    journal = journal_of_join(shares)
    with opened_job(input, output, settings, journal, shares=shares, runs_network=False) as opened:
        shares.settle(None, opened.made_of, opened.job.plan, opened.segments)
        opened.begin()
        with _kept_is_told(opened, watch):
            audit = audited(opened.journal)
            if audit is None:
                with collected(shares, opened.job, opened.ledger):
                    audit = _joined(opened)
            give_name(opened.journal, opened.job.output)
        opened.journal.finished = True
    watch(Done(opened.job.output, audit))
    return opened.job.output


def _joined(opened: OpenJob) -> Audit:
    return joined(opened.job, opened.source, opened.streams, opened.journal, opened.ledger)


@contextmanager
def _kept_is_told(opened: OpenJob, watch: Watch) -> Iterator[None]:
    """Where the run ends before its time, it is told what is kept of it."""
    try:
        yield
    except BaseException as error:
        if opened.ledger.frames and not isinstance(error, AuditError):
            watch(WorkKept(opened.job.folder, opened.ledger.done))
        raise


def _make(opened: OpenJob, part: Part, workers: Workers | None, watch: Watch) -> None:
    """Make all segments of a part that are not finished, here or by workers."""
    job, source, network, ledger = opened.job, opened.source, opened.network, opened.ledger
    frames = source.frames_estimate if part.frames is None else part.frames
    watch(
        Start(
            input=source.path,
            output=job.output,
            work=job.folder,
            width=job.target.width,
            height=job.target.height,
            frames=frames,
            done=ledger.done,
            plan=ledger.plan.to_dict(),
        )
    )
    if part.begin is None:
        return
    done = ledger.done
    while (unfinished := ledger.unfinished(part.begin, part.last)) is not None:
        begin, last = unfinished
        if workers is not None:
            run = spread(job, source, network, ledger, workers, begin, part.last, frames)
            with closing(run) as events:
                for event in events:
                    watch(event)
            continue
        if ledger.plan.device == "cpu":  # on whose threads the last bits of results may depend
            torch.set_num_threads(ledger.plan.threads)
        with closing(make_segments(job, source, network, ledger, begin, last)) as happened:
            for what in happened:
                if isinstance(what, Place):
                    done += 1
                    watch(Progress(done, frames, what.segment.number))
                else:
                    watch(what)
