"""Numbers as people write and read them: counts, sizes, durations, times."""

import re
from fractions import Fraction


def counted(number: int, name: str) -> str:
    """A number of things.

    >>> counted(1, "chapter"), counted(2, "chapter")
    ('1 chapter', '2 chapters')
    """
    return f"{number} {name}{'' if number == 1 else 's'}"


def parse_size(text: str) -> int:
    """Bytes of a size; of "K", "M", "G" and "T" each is 1024 times the one before.

    >>> parse_size("6G"), parse_size("1.5 MiB"), parse_size("1000000")
    (6442450944, 1572864, 1000000)

    Raises:
        ValueError: anything else.
    """
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    power = "KMGT".find(number[-1:]) + 1 if number else 0
    try:
        value = float(number[:-1] if power else number) * 1024**power
        if not 0 < value < float("inf"):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"got {text!r}; accepted are bytes, or a number with K, M, G or T, as 6G"
        ) from None
    return int(value)


def show_size(size: float) -> str:
    """Bytes as a person reads them.

    >>> show_size(92160), show_size(891289600), show_size(6.7e9)
    ('90 KiB', '850 MiB', '6.2 GiB')
    """
    mebibytes = size / 2**20
    if mebibytes < 10:
        return f"{size / 1024:.0f} KiB"
    if mebibytes < 1000:
        return f"{mebibytes:.0f} MiB"
    return f"{mebibytes / 1024:.1f} GiB"


def show_duration(seconds: float) -> str:
    """A duration, as exact as a person needs it.

    >>> show_duration(45), show_duration(700), show_duration(12000), show_duration(353000)
    ('45 s', '12 min', '3 h 20 min', '4 d 2 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def parse_time(text: str) -> Fraction:
    """Seconds of a time, exact.

    >>> parse_time("83.5"), parse_time("1:23.5"), parse_time("0:01:23.5")
    (Fraction(167, 2), Fraction(167, 2), Fraction(167, 2))

    Raises:
        ValueError: anything else.
    """
    if not re.fullmatch(r"-?(\d+:){0,2}\d+(\.\d+)?", text):
        raise ValueError(f"got {text!r}; a time is seconds or [hours:]minutes:seconds, as 1:23.5")
    seconds = Fraction(0)
    for part in text.lstrip("-").split(":"):
        seconds = seconds * 60 + Fraction(part)
    return -seconds if text.startswith("-") else seconds
