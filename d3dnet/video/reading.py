"""Which frames of a video are read, and how."""

from dataclasses import dataclass
from fractions import Fraction

from d3dnet.video import ON_ERROR, OnError


@dataclass(frozen=True)
class Reading:
    """Which frames of a video are read, and how.

    Attributes:
        start, end: times in seconds, as the file has them: the first frame is the first not before
            `start`, the last the last before `end`; None for all.
        frames: at most so many.
        deinterlace: make whole frames of an interlaced video, one of each two fields.
        image_rate: frames per second of numbered images.
        on_error: what to do with damage: "fail", "conceal" (repeat the last good frame at the times
            of those that are lost), or "stop" (the frames before it are all).
    """

    start: Fraction | None = None
    end: Fraction | None = None
    frames: int | None = None
    deinterlace: bool = False
    on_error: OnError = "fail"
    image_rate: Fraction = Fraction(25)

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise ValueError(f"on_error: got {self.on_error!r}; accepted are {', '.join(ON_ERROR)}")
        if self.image_rate <= 0:
            raise ValueError(f"fps: got {self.image_rate}; accepted is a number above 0")
        if self.frames is not None and self.frames < 1:
            raise ValueError(f"frames: got {self.frames}; accepted is a number from 1 up")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"end: got {float(self.end)}; accepted is a time after the start")

    @property
    def is_part(self) -> bool:
        """Whether a part of the video may be asked for."""
        return (self.start, self.end, self.frames) != (None, None, None)


WHOLE = Reading()
