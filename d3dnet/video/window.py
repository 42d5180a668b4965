"""The window of frames around one, as luma: what `d3dnet offsets` looks at."""

import os
from itertools import islice

import torch
from torch import Tensor

from d3dnet.errors import InputError
from d3dnet.video.colour import to_network
from d3dnet.video.source import VideoSource


def luma_around(path: str | os.PathLike[str], index: int, radius: int) -> Tensor:
    """Frame `index` (from 0) with its neighbours, as the network sees them.

    Beyond the ends of the video its first and last frame are repeated.

    Returns:
        (2 radius + 1, h, w) float32 luma in [0, 1].

    Raises:
        InputError: no readable video, or it ends before that frame.
    """
    with VideoSource(path) as source:
        first = max(0, index - radius)
        frames = islice(source.frames(), first, index + radius + 1)
        luma = [torch.from_numpy(to_network(frame.planes, source.layout)[0]) for frame in frames]
    if index < 0 or len(luma) <= index - first:
        raise InputError(f"{path}: has no frame {index}; frames are counted from 0")
    around = range(index - radius, index + radius + 1)
    return torch.stack([luma[min(max(t - first, 0), len(luma) - 1)] for t in around])
