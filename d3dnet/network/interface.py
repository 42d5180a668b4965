"""What a network is to the stages around it, whatever is inside.

A network takes luma frames and gives larger ones. What else it needs, such as the motion between
frames, it finds by itself from the luma that it is fed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from d3dnet.network import Mode


@runtime_checkable
class Network(Protocol):
    """An `nn.Module` that makes the frames of a shot larger; in eval mode, on its device.

    Luma goes in and comes out in [0, 1], in float32 whatever the precision of the parameters.
    """

    @property
    def scale(self) -> int:
        """Enlargement in height and width."""

    @property
    def window(self) -> int | None:
        """Frames of a window, odd; None for a network that runs over sequences only."""

    @property
    def temporal_radius(self) -> int:
        """Frames on either side that a frame depends on, in a sequence."""

    @property
    def smallest(self) -> int:
        """Rows and columns that it needs; smaller frames are padded before, and cut after."""

    @property
    def metadata(self) -> dict[str, str]:
        """Where its weights come from; {} if that is not known."""

    def __call__(self, x: Tensor) -> Tensor:
        """(B, 1, window, h, w) -> the centre frames, (B, 1, scale h, scale w)."""

    def forward_sequence(self, x: Tensor) -> Tensor:
        """Clips (B, 1, T, h, w) -> (B, 1, T, scale h, scale w)."""

    def stream(self, frames: Iterable[Tensor], chunk: int = 8) -> Iterator[Tensor]:
        """(1, h, w) frames of a shot of any length -> as many (1, scale h, scale w), in order."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As of `nn.Module`."""

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """As of `nn.Module`."""

    def state_dict(self) -> dict[str, Any]:
        """As of `nn.Module`."""


class Feed(Protocol):
    """A shot on its way through a network, piece by piece."""

    @property
    def radius(self) -> int:
        """Frames that it looks ahead, and back."""

    def feed(self, x: Tensor) -> Iterator[Tensor]:
        """(1, channels, n, h, w), the next n frames -> the (1, s h, s w) frames now complete.

        The iterator must be used up before the next frames are fed.
        """

    def finish(self) -> Iterator[Tensor]:
        """The frames still to come; nothing may be fed afterwards."""


@dataclass(frozen=True)
class Footprint:
    """What a network takes for a shot, for each pixel of the input.

    Attributes:
        state: bytes that are held from one chunk to the next.
        work: bytes besides, while a chunk is computed.
        radius: frames on either side that a frame depends on.
        effort: time for a frame, in units of that with its neighbours' features at hand.
    """

    state: float
    work: float
    radius: int
    effort: float = 1.0


@runtime_checkable
class Plannable(Network, Protocol):
    """A network that `plan.py` fits into memory and `tiling.py` runs, over pieces of frames."""

    @property
    def spatial_radius(self) -> int:
        """Input pixels on every side that an output pixel depends on, without offsets."""

    def guide(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """The (1, h, w) frames of a shot as its feed takes them: (channels, h, w), luma first.

        Whole frames, before they are cut into tiles: what else it needs of them, such as the
        motion between frames, does not depend on tiles then.
        """

    def begin(self, mode: Mode, skip: int = 0) -> Feed:
        """Begin a shot.

        Args:
            skip: so many frames at the beginning are not put out, as their past is not the shot's.
        """

    def footprint(self, mode: Mode, chunk: int) -> Footprint:
        """What it takes for a shot, `chunk` frames at once."""
