"""The pipeline: a video, or frames in memory, four times larger.

file → frames with times → luma → network → luma → planes → file. Every stage is a generator, so
memory does not grow with the length of the video.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from d3dnet import bicubic
from d3dnet.checkpoints import load_model
from d3dnet.video import colour
from d3dnet.video.decode import Frame, VideoSource
from d3dnet.video.encode import VideoSink
from d3dnet.video.ffmpeg import find_program
from d3dnet.video.scenes import read_cuts, shots
from d3dnet.video.target import (
    DEFAULT_CODEC,
    Target,
    check_output_path,
    target_of,
    warn_of_loss,
)

MODES = ("sequence", "window")


def upscale_video(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | nn.Module = "d3dnet",
    device: str | torch.device = "auto",
    precision: str = "auto",
    mode: str = "sequence",
    cuts: str | os.PathLike[str] = "auto",
    codec: str = DEFAULT_CODEC,
    crf: float | None = None,
    overwrite: bool = False,
    ffmpeg: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Make a video file four times larger in both directions.

    Every frame keeps its time; sound, chapters, metadata, and the subtitles that the container can
    hold are copied; colours are tagged as they were. The network works
    on luma; chroma is interpolated. `output` appears only when it is complete.

    Args:
        input: a file that FFmpeg reads; its first video stream is used.
        output: the result; its extension chooses the container.
        model: "bicubic", name or path for `d3dnet.load_model`, or a loaded network.
        device, precision: as for `d3dnet.load_model`; unused if `model` is a loaded network.
        mode: "sequence" (each frame sees the whole clip within reach, features are computed once)
            or "window" (7 frames for each; beyond the ends the first or last is repeated).
        cuts: where shots begin, which the network sees each by itself: "auto" detects them, "off"
            takes all as one, otherwise a file of times (`d3dnet.video.scenes.read_cuts`).
        codec: encoder of the ffmpeg program.
        crf: constant quality of the encoder, lower is better; None for a good one (libx264: 18).
        overwrite: replace an existing `output`.
        ffmpeg: path of the program; None for $FFMPEG, else that on the PATH, else the bundled one.
        progress: called after each frame with the number done and the number expected, if known.

    Returns:
        The absolute path of the result.

    Raises:
        InputError: `input` is missing, no video, damaged, or smaller than 8×8.
        OutputError: `output` cannot be written there, or so; EncoderError if ffmpeg says so.
        ProgramError: no usable ffmpeg program, or it has no such codec.
        CheckpointError: a wrong weights file.
        ValueError: an unknown mode, device or precision.
    """
    _check_mode(mode)
    program = find_program(ffmpeg)
    starts = cuts if cuts in ("auto", "off") else read_cuts(cuts)
    with VideoSource(input) as source:
        path = check_output_path(output, source.path, overwrite=overwrite)
        target = target_of(source, colour.SCALE, program, codec, crf)
        sink = VideoSink(path, target, source, program)
        sink.check(source.first_pts)
        warn_of_loss(path, source)
        network = _network(model, device, precision)
        with sink:
            peak = 2**source.layout.depth - 1
            clips = shots(source.frames(), peak, starts, source.time_base)
            frames = chain.from_iterable(
                upscaled(shot, network, mode, source.layout, target) for shot in clips
            )
            for done, frame in enumerate(frames, start=1):
                sink.write(frame.planes, frame.pts)
                if progress is not None:
                    progress(done, source.frames_estimate)
    return path


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
        ValueError: another shape or dtype, no frame, a frame smaller than 8×8, or an unknown mode,
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
    size = (colour.SCALE * height, colour.SCALE * width)
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

    for luma in run_network(network, luma_frames(), mode):
        pts, chroma = waiting.popleft()
        array = luma[0].float().cpu().numpy()
        yield Frame(colour.from_network(array, chroma, source, target.layout), pts)


def run_network(network: nn.Module, luma: Iterable[Tensor], mode: str) -> Iterator[Tensor]:
    """(1, h, w) float32 luma frames in [0, 1] to as many (1, 4h, 4w), one by one, in order."""
    results = network.stream(luma) if mode == "sequence" else _windows(network, luma)
    while True:
        with torch.inference_mode():  # not around a yield, where it would leak to the caller
            result = next(results, None)
        if result is None:
            return
        yield result


def _windows(network: nn.Module, luma: Iterable[Tensor]) -> Iterator[Tensor]:
    """Each frame from the window centred on it; the first and last frame are repeated beyond."""
    radius = network.window // 2
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    window: deque[Tensor] = deque(maxlen=network.window)

    def centre() -> Tensor:
        return network(torch.stack(tuple(window), dim=1)[None])[0]

    count = 0
    for frame in luma:
        frame = frame.to(device)
        if not window:
            window.extend([frame] * radius)
        window.append(frame)
        count += 1
        if len(window) == network.window:
            yield centre()
    # The last frames, and all of a clip shorter than half a window.
    for _ in range(min(count, radius)):
        while len(window) < network.window - 1:
            window.append(window[-1])
        window.append(window[-1])
        yield centre()


def _network(
    model: str | os.PathLike[str] | nn.Module, device: str | torch.device, precision: str
) -> nn.Module:
    if isinstance(model, nn.Module):
        return model
    if model == bicubic.NAME:
        return bicubic.Bicubic()
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
    if len(frames) == 0 or min(frames.shape[1:3]) < 8:
        raise ValueError(
            f"frames: got shape {frames.shape}; accepted is one frame or more of at least 8×8"
        )
