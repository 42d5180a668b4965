"""The pipeline: a video, or frames in memory, four times larger.

file → frames with times → luma → network → luma → planes → file. Every stage is a generator, so
memory does not grow with the length of the video.
"""

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d3dnet.checkpoints import load_model
from d3dnet.model import D3Dnet
from d3dnet.plan import Plan
from d3dnet.streaming import Windows, stream
from d3dnet.tiling import run_tiled
from d3dnet.video import colour
from d3dnet.video.audit import Audit, audit
from d3dnet.video.decode import Reading, VideoSource
from d3dnet.video.encode import VideoSink
from d3dnet.video.ffmpeg import find_program
from d3dnet.video.hdr import warn_of_hdr
from d3dnet.video.images import ENCODERS, is_pattern
from d3dnet.video.picture import Frame
from d3dnet.video.scenes import parse_time, read_cuts, shots
from d3dnet.video.streams import keep
from d3dnet.video.target import (
    DEFAULT_CODEC,
    Encoding,
    Size,
    Target,
    check_output_path,
    target_of,
    warn_of_alpha,
)

MODES = ("sequence", "window")
SCALE = colour.SCALE
MIN_SIZE = 8  # rows and columns that the network needs
WHOLE_FRAMES = Plan()


def upscale_video(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | nn.Module = "d3dnet",
    device: str | torch.device = "auto",
    precision: str = "auto",
    mode: str = "sequence",
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
    progress: Callable[[int, int | None], None] | None = None,
    report: Callable[[Audit], None] | None = None,
) -> Path:
    """Make a video file larger, four times in both directions unless asked otherwise.

    Every frame keeps its time; sound, subtitles, attachments, chapters and metadata are copied as
    far as the container can hold them, and a warning names what it cannot; colours are tagged as
    they were. The network works on luma; chroma is interpolated. The result is compared with the
    source; `output` appears only when it is complete and faithful.

    Args:
        input: a file that FFmpeg reads; its first video stream is used. Or images: a folder, a glob
            or a printf pattern (as "%06d.png").
        output: the result; its extension chooses the container. Or a printf pattern of images.
        model: "bicubic", name or path for `d3dnet.load_model`, or a loaded network.
        device, precision: as for `d3dnet.load_model`; unused if `model` is a loaded network.
        mode: "sequence" (each frame sees the whole shot within reach, features are computed once)
            or "window" (7 frames for each; beyond the ends the first or last is repeated).
        cuts: where shots begin, which the network sees each by itself: "auto" detects them, "off"
            takes all as one, otherwise a file of times (`d3dnet.video.scenes.read_cuts`).
        scale, height, width: of the result, at most four times larger, by shrinking what the
            network makes; a side not given follows. Rounded to the even numbers that 4:2:0 needs.
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
        progress: called after each frame with the number done and the number expected, if known.
        report: called with the comparison of source and result.

    Returns:
        The absolute path of the result.

    Raises:
        InputError: `input` is missing, no video, damaged, or interlaced.
        OutputError: `output` cannot be written there, or so; EncoderError if ffmpeg says so;
            AuditError if the result is not faithful.
        ProgramError: no usable ffmpeg program, or it has no such codec.
        CheckpointError: a wrong weights file.
        ValueError: an unknown mode, device or precision.
    """
    _check_mode(mode)
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
    if is_pattern(Path(output)) and codec == DEFAULT_CODEC:
        codec = ENCODERS[Path(output).suffix.lower()]
    encoding = Encoding(codec, crf, preset, pix_fmt, tuple(ffmpeg_args))
    with VideoSource(input, reading) as source:
        path = check_output_path(output, source.path, overwrite=overwrite)
        target = target_of(source, size, program, encoding, path.suffix)

        def inspect(part: Path) -> None:
            found = audit(part, source, target, sink.kept)
            if report is not None:
                report(found)
            found.check(path)

        sink = VideoSink(
            path, target, source, program, keep(source.streams, path, sound=sound), inspect
        )
        sink.check()
        first_transparent = source.transparent
        _warn(path, source, target)
        network = _network(model, device, precision)
        with sink:
            peak = 2**source.layout.depth - 1
            clips = shots(source.frames(), peak, starts, source.time_base)
            results = chain.from_iterable(
                upscaled(shot, network, mode, source.layout, target) for shot in clips
            )
            for done, frame in enumerate(results, start=1):
                sink.write(frame.planes, frame.pts)
                if progress is not None:
                    progress(done, source.frames_estimate)
        if source.transparent and not (first_transparent or target.layout.alpha):
            warn_of_alpha(path, target)
        if source.damage:
            warnings.warn(f"{source.path}: {'; '.join(source.damage)}", stacklevel=2)
    return path


def _warn(path: Path, source: VideoSource, target: Target) -> None:
    """Warn of what the result will lack, before the work begins."""
    warn_of_hdr(path, source.colour.transfer, source.mastering, target.encoding.codec)
    if source.dynamic_metadata:
        warnings.warn(f"{path}: without {', '.join(source.dynamic_metadata)}", stacklevel=3)
    if source.transparent and not target.layout.alpha:
        warn_of_alpha(path, target)


def upscale_frames(
    frames: np.ndarray | Tensor,
    *,
    model: str | os.PathLike[str] | nn.Module = "d3dnet",
    device: str | torch.device = "auto",
    precision: str = "auto",
    mode: str = "sequence",
) -> np.ndarray | Tensor:
    """Make the frames of one shot four times larger in both directions.

    Args:
        frames: (T, H, W) luma or (T, H, W, 3) RGB; uint8, uint16, or floating point in [0, 1].
            Integers are divided by the largest of their type. Luma is BT.601 of limited range, as
            video stores it and as the network was trained: black 16/255, white 235/255. RGB is of
            full range; its luma goes through the network, its chroma is interpolated (bicubic).
        model, device, precision, mode: as for `upscale_video`.

    Returns:
        (T, 4H, 4W) or (T, 4H, 4W, 3), of the type given: numpy array or tensor, same dtype (and
        device). Values are rounded and clipped to the range of the type.

    Raises:
        ValueError: another shape or dtype, no frame, no pixel, or an unknown mode,
            device or precision. CheckpointError for a wrong weights file.
    """
    _check_mode(mode)
    if isinstance(frames, Tensor):
        arrays = frames.detach().cpu()
        # numpy has no bfloat16
        arrays = (arrays.float() if frames.is_floating_point() else arrays).numpy()
        result = upscale_frames(arrays, model=model, device=device, precision=precision, mode=mode)
        return torch.from_numpy(result).to(frames.device, frames.dtype)
    _check_frames(frames)
    network = _network(model, device, precision)
    top = np.iinfo(frames.dtype).max if frames.dtype.kind == "u" else 1
    luma_only = frames.ndim == 3
    layout = colour.Layout("luma" if luma_only else "rgb", "grey" if luma_only else "rgb", 16)
    chroma: deque[list[np.ndarray]] = deque()

    def luma_frames() -> Iterator[Tensor]:
        for frame in frames:
            unit = frame.astype(np.float32) / np.float32(top)
            if not luma_only:
                unit, *planes = colour.rgb_to_ycbcr(unit[..., 0], unit[..., 1], unit[..., 2])
                unit = unit / np.float32(255)
                chroma.append(planes)
            yield torch.from_numpy(unit)[None]

    count, height, width = frames.shape[:3]
    size = (SCALE * height, SCALE * width)
    result = np.empty((count, *size, *frames.shape[3:]), frames.dtype)
    for index, luma in enumerate(run_network(network, luma_frames(), mode)):
        values = luma[0].float().cpu().numpy()
        if not luma_only:
            planes = [colour.enlarge_chroma(p, size, layout, layout) for p in chroma.popleft()]
            values = np.stack(colour.ycbcr_to_rgb(values * np.float32(255), *planes), axis=-1)
        values = np.clip(values, 0, 1) * np.float32(top)
        result[index] = np.rint(values) if frames.dtype.kind == "u" else values
    return result


def upscaled(
    frames: Iterable[Frame], network: nn.Module, mode: str, source: colour.Layout, target: Target
) -> Iterator[Frame]:
    """One shot through the network: planes of layout `source` to those of `target`, times kept."""
    waiting: deque[tuple[int, tuple[np.ndarray, ...]]] = deque()  # time and chroma, in the network

    def luma_frames() -> Iterator[Tensor]:
        for frame in frames:
            luma, chroma = colour.to_network(frame.planes, source)
            waiting.append((frame.pts, chroma))
            yield torch.from_numpy(luma)[None]

    size = (target.height, target.width)
    for luma in run_network(network, luma_frames(), mode):
        pts, chroma = waiting.popleft()
        array = luma[0].float().cpu().numpy()
        yield Frame(colour.from_network(array, chroma, source, target.layout, size), pts)


def run_network(
    network: nn.Module,
    luma: Iterable[Tensor],
    mode: str,
    plan: Plan = WHOLE_FRAMES,
    on_plan: Callable[[Plan], None] | None = None,
) -> Iterator[Tensor]:
    """(1, h, w) float32 luma frames in [0, 1] to as many (1, 4h, 4w), one by one, in order.

    Frames of less than 8 rows or columns are padded with the last one, and cut again.
    `plan` and `on_plan`: of D3Dnet, see `d3dnet.tiling.run_tiled`.
    """
    size: list[int] = []

    def padded() -> Iterator[Tensor]:
        for frame in luma:
            size[:] = [SCALE * length for length in frame.shape[1:]]
            rows, columns = (max(0, MIN_SIZE - length) for length in frame.shape[1:])
            yield F.pad(frame[None], (0, columns, 0, rows), mode="replicate")[0]

    if isinstance(network, D3Dnet):
        results = run_tiled(network, padded(), plan, mode, on_plan)
    elif mode == "sequence":
        results = network.stream(padded())
    else:
        results = stream(Windows(network), padded(), chunk=1)
    while True:
        with torch.inference_mode():  # not around a yield, where it would leak to the caller
            result = next(results, None)
        if result is None:
            return
        yield result[:, : size[0], : size[1]]


def _network(
    model: str | os.PathLike[str] | nn.Module, device: str | torch.device, precision: str
) -> nn.Module:
    if isinstance(model, nn.Module):
        return model
    return load_model(model, device=device, precision=precision)


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"mode: got {mode!r}; accepted are {', '.join(MODES)}")


def _check_frames(frames: np.ndarray) -> None:
    if not isinstance(frames, np.ndarray):
        raise ValueError(
            f"frames: got {type(frames).__name__}; accepted are a numpy array or a tensor"
        )
    if frames.ndim not in (3, 4) or (frames.ndim == 4 and frames.shape[3] != 3):
        raise ValueError(
            f"frames: got shape {frames.shape}; accepted are (T, H, W) luma and (T, H, W, 3) RGB"
        )
    if frames.dtype not in (np.uint8, np.uint16) and frames.dtype.kind != "f":
        raise ValueError(
            f"frames: got dtype {frames.dtype}; accepted are uint8, uint16 and floating point"
        )
    if 0 in frames.shape:
        raise ValueError(f"frames: got shape {frames.shape}; accepted is one pixel or more")
