"""Motion of training clips, looked for once and kept beside them."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from d3dnet.datasets.clips import Clip, Clips
from d3dnet.datasets.luma import unit_luma
from d3dnet.files import written_whole
from d3dnet.network.motion import guided

_FORMAT = 1  # another one when motion of the same clip comes out otherwise


def add_motion(clips: Iterable[Clip], cache: Path) -> list[Clip]:
    """The clips with `Clip.motion`, which is read from ``cache`` where an earlier call left it.

    Motion is found again by the low-resolution frames it is of.
    """
    clips = list(clips)
    cache.mkdir(parents=True, exist_ok=True)

    def one(clip: Clip) -> Clip:
        luma = np.ascontiguousarray(clip.lr)
        digest = hashlib.blake2b(f"{_FORMAT} {luma.shape}".encode(), digest_size=12)
        digest.update(luma.tobytes())
        stored = cache / f"motion-{digest.hexdigest()}.npy"
        if not stored.exists():
            with written_whole(stored) as partial, open(partial, "wb") as file:
                np.save(file, clip_motion(luma))
        return replace(clip, motion=np.load(stored, mmap_mode="r"))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(tqdm(pool.map(one, clips), "motion", len(clips), unit="clip"))


class ClipsInMotion:
    """Clips that are read on demand, with the motion of each, looked for then.

    Args:
        clips: such as `d3dnet.datasets.vimeo90k.open_septuplets` gives.
    """

    def __init__(self, clips: Clips) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        clip = self.clips[index]
        return replace(clip, motion=clip_motion(clip.lr))


def clip_motion(lr: np.ndarray) -> np.ndarray:
    """Motion of stored luma (T, h, w): (6, T, h, w) float16, see `d3dnet.network.motion`."""
    frames = torch.from_numpy(unit_luma(lr))[:, None]
    found = torch.stack(list(guided(frames, workers=1)), 1)
    return found[1:].to(torch.float16).numpy()
