"""Where one shot ends and the next begins, found on a stream or read from a list.

The detector sees luma only, as thumbnails of 32×18 block means. Two neighbouring frames are parts
of one shot if their thumbnails correlate after the best shift by up to a quarter of the picture
(pans and hand-held cameras), or differ little in brightness. What looks like a cut is none if one
of the next frames is again like the frame before it: a flash. Gains and offsets of brightness
(fades, explosions, exposure) do not change a correlation, and a dissolve has no frame that is
unlike the one before it; the network sees such transitions whole.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from d3dnet.errors import InputError
from d3dnet.video.picture import Frame
from d3dnet.wording import parse_time

ROWS, COLUMNS = 18, 32
MAX_SHIFT = (4, 8)  # rows, columns of the thumbnail
MIN_CORRELATION = 0.65  # of two frames of one shot; 0.73 is the least seen within clips
MIN_CHANGE = 0.02  # mean absolute difference of two shots, in units of black to white
NOISE = 0.008  # contrast below which a picture is flat, in the same units
FLASH = 3  # frames that a flash lasts at most


def shots(
    frames: Iterable[Frame],
    peak: int,
    cuts: "str | list[Fraction]",
    time_base: Fraction,
    known: int = 0,
) -> Iterator[tuple[int, Frame, bool]]:
    """Each frame with the number of its shot, and whether it can be taken up after it.

    That is: whether later shots are found the same if all is forgotten that is before this frame.
    It is not so within a flash.

    Args:
        frames: in the order of their times; plane 0 is luma, or green.
        peak: the largest sample value.
        cuts: "auto" (the detector), "off" (one shot), or times in seconds, increasing, where shots
            begin, as `read_cuts` gives them.
        time_base: seconds per unit of a frame's pts.
        known: so many frames at the beginning are of one shot.
    """
    if cuts == "off":
        return ((0, frame, True) for frame in frames)
    if isinstance(cuts, str):
        return _detected(frames, peak, known)
    return _listed(frames, cuts, time_base)


def read_cuts(path: str | os.PathLike[str]) -> list[Fraction]:
    """Times in seconds where shots begin, from a text file: one a line, increasing.

    A time is that of the shot's first frame as the file has it, as seconds (12.48) or as
    [hours:]minutes:seconds (0:12.48); what follows # is a remark.

    Raises:
        InputError: no such file, or a line that is no time or not later than the one before.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--cuts: {path}: not a readable list of times ({error})") from None
    times: list[Fraction] = []
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            time = parse_time(text)
        except ValueError as error:
            raise InputError(f"--cuts: {path}, line {number}: {error}") from None
        if times and time <= times[-1]:
            raise InputError(f"--cuts: {path}, line {number}: {text} is not later than the last")
        times.append(time)
    return times


def thumbnail(luma: np.ndarray, peak: int) -> np.ndarray:
    """Block means of (h, w) samples, at most 18×32, float32 in units of black to white."""
    for axis, most in ((0, ROWS), (1, COLUMNS)):
        length = luma.shape[axis]
        blocks = min(most, length)
        starts = np.arange(blocks) * length // blocks
        sizes = np.diff(np.append(starts, length)).astype(np.float32)
        sums = np.add.reduceat(luma, starts, axis=axis, dtype=np.float32)
        luma = sums / (sizes[:, None] if axis == 0 else sizes)
    return luma / np.float32(peak)


def same_shot(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two thumbnails look like frames of one shot."""
    if np.abs(one - other).mean() < MIN_CHANGE or _correlation(one, other) > MIN_CORRELATION:
        return True
    rows, columns = one.shape
    most = (min(MAX_SHIFT[0], rows // 4), min(MAX_SHIFT[1], columns // 4))
    return any(
        _correlation(
            one[max(0, y) : rows + min(0, y), max(0, x) : columns + min(0, x)],
            other[max(0, -y) : rows + min(0, -y), max(0, -x) : columns + min(0, -x)],
        )
        > MIN_CORRELATION
        for y in range(-most[0], most[0] + 1)
        for x in range(-most[1], most[1] + 1)
    )


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    spread = max(NOISE, float(np.sqrt((one**2).mean())))
    spread *= max(NOISE, float(np.sqrt((other**2).mean())))
    return float((one * other).mean()) / spread


def _detected(frames: Iterable[Frame], peak: int, known: int) -> Iterator[tuple[int, Frame, bool]]:
    """As `shots`. Reads ahead only where it suspects a cut."""
    frames = iter(frames)
    ahead: deque[tuple[Frame, np.ndarray]] = deque()
    shot, last = 0, None
    for frame in islice(frames, known):
        last = thumbnail(frame.planes[0], peak)
        yield shot, frame, True
    while True:
        if not ahead and not _read(frames, ahead, 1, peak):
            return
        frame, seen = ahead.popleft()
        if last is not None and not same_shot(last, seen):
            _read(frames, ahead, FLASH - len(ahead), peak)
            after_flash = next(
                (n for n, (_, later) in enumerate(ahead) if same_shot(last, later)), None
            )
            if after_flash is None:
                shot += 1
            else:
                yield shot, frame, False
                for _ in range(after_flash):
                    yield shot, ahead.popleft()[0], False
                frame, seen = ahead.popleft()
        last = seen
        yield shot, frame, True


def _read(
    frames: Iterator[Frame], ahead: deque[tuple[Frame, np.ndarray]], count: int, peak: int
) -> bool:
    for _ in range(count):
        frame = next(frames, None)
        if frame is None:
            return False
        ahead.append((frame, thumbnail(frame.planes[0], peak)))
    return True


def _listed(
    frames: Iterable[Frame], cuts: list[Fraction], time_base: Fraction
) -> Iterator[tuple[int, Frame, bool]]:
    shot = 0
    for frame in frames:
        # Lists are written with three decimals, or six.
        while shot < len(cuts) and cuts[shot] <= frame.pts * time_base + Fraction(1, 1000):
            shot += 1
        yield shot, frame, True
