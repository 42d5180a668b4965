"""What may change from picture to picture, and a result says once for all."""

from collections.abc import Iterator
from fractions import Fraction

import av


class Changes:
    """What the pictures of a video have said so far."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._told: set[str] = set()

    def in_(self, frame: av.VideoFrame, aspect: Fraction | None) -> Iterator[str]:
        """What this picture says otherwise than the first, each once, as text.

        Args:
            aspect: width of a pixel over its height, as its decoder has it.
        """
        tags = (frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc)
        said = {"colour tags": " ".join(str(int(tag)) for tag in tags)}
        if aspect:
            said["pixel aspect"] = f"{aspect.numerator}:{aspect.denominator}"
        for what, value in said.items():
            first = self._first.setdefault(what, value)
            if value != first and what not in self._told:
                self._told.add(what)
                yield f"its {what}, of which a result has one, changes from {first} to {value}"
