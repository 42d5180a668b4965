"""A way to make video four times larger, ours or another's."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

SCALE = 4


class MissingPeerError(Exception):
    """A peer that this machine does not have; the message says how to get it."""


class Peer:
    """One row of the comparison. It goes to a process of its own before anything is loaded.

    Attributes:
        name: in the table.
        stream: its speed is measured in the middle of one endless clip, as neighbouring frames
            matter; otherwise every sample is a clip of its own.
        programs: other programs do the work, whose memory counts.
        threads: that `upscale` may use.
    """

    stream = False
    programs = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.threads = 1

    def version(self) -> str:
        """What is run, exactly: results of another version are not its results.

        Raises:
            MissingPeerError: when it is not installed.
        """
        raise NotImplementedError

    def use_threads(self, count: int) -> None:
        """Take effect with the next frame, or the next clip."""
        self.threads = count
        cv2.setNumThreads(count)

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """What `upscale` takes for an (h, w, 3) uint8 RGB frame: by default the frame itself."""
        return rgb

    def upscale(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Prepared frames of one shot to as many four times larger, as `score_frame` takes them."""
        raise NotImplementedError
