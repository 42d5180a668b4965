"""Frames in memory, four times larger: `upscale_frames`."""

import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from d3dnet.network import SCALE, Mode, check_mode
from d3dnet.network.cubic import resample_luma
from d3dnet.network.run import load_network, run_paired
from d3dnet.video import colour


def upscale_frames(
    frames: np.ndarray | Tensor,
    *,
    model: str | os.PathLike[str] | nn.Module = "d3dnet",
    device: str | torch.device = "auto",
    precision: str = "auto",
    mode: Mode = "sequence",
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

    >>> frames = np.full((3, 8, 10), 128, np.uint8)
    >>> upscale_frames(frames, model="bicubic").shape
    (3, 32, 40)
    """
    check_mode(mode)
    if isinstance(frames, Tensor):
        on_cpu = frames.detach().cpu()
        # numpy has no bfloat16
        arrays = (on_cpu.float() if frames.is_floating_point() else on_cpu).numpy()
        result = upscale_frames(arrays, model=model, device=device, precision=precision, mode=mode)
        return torch.from_numpy(result).to(frames.device, frames.dtype)
    _check_frames(frames)
    network = load_network(model, device, precision)
    top = np.iinfo(frames.dtype).max if frames.dtype.kind == "u" else 1
    luma_only = frames.ndim == 3

    def luma_and_chroma() -> Iterator[tuple[Tensor, list[np.ndarray]]]:
        for frame in frames:
            unit, chroma = frame.astype(np.float32) / np.float32(top), []
            if not luma_only:
                unit, *chroma = colour.rgb_to_ycbcr(unit[..., 0], unit[..., 1], unit[..., 2])
                unit = unit / np.float32(255)
            yield torch.from_numpy(unit)[None], chroma

    count, height, width = frames.shape[:3]
    size = (SCALE * height, SCALE * width)
    result = np.empty((count, *size, *frames.shape[3:]), frames.dtype)
    results = run_paired(network, luma_and_chroma(), mode)
    for index, (luma, chroma) in enumerate(results):
        values = luma[0].float().cpu().numpy()
        if not luma_only:
            planes = [resample_luma(plane, size) for plane in chroma]
            values = np.stack(colour.ycbcr_to_rgb(values * np.float32(255), *planes), axis=-1)
        values = np.clip(values, 0, 1) * np.float32(top)
        result[index] = np.rint(values) if frames.dtype.kind == "u" else values
    return result


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
