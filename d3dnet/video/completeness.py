"""Whether a file is as long as its container says: MP4, Matroska, AVI and MPEG-TS say it."""

import struct
from pathlib import Path
from typing import BinaryIO

# The boxes at the top of an MP4 file; what is none of these and does not fit is no box.
BOXES = frozenset(
    b"ftyp moov mdat wide free skip moof mfra uuid meta pdin styp sidx ssix emsg prft pnot".split()
)
CONTENT = {b"mdat", b"moof"}
TRANSPORT_PACKETS = ((188, 0), (192, 4))  # length, and where in it the first byte is
SYNC = 0x47
UNKNOWN_LENGTH = 0xFFFFFFFF  # of an AVI that was written to a pipe
HEAD = 8  # bytes of the head of a part of it


def missing_bytes(path: Path) -> int:
    """How many bytes a file lacks of what its container counts."""
    return max(0, -_beyond(path))


def trailing_bytes(path: Path) -> int:
    """How many bytes there are after the end of what its container counts."""
    return max(0, _beyond(path))


def _beyond(path: Path) -> int:
    """Bytes after the end that the container counts; negative where they are missing."""
    if not path.is_file():
        return 0
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(600)
        if head[4:8] in BOXES:
            return size - _end_of_boxes(file, size)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return size - max(size, _end_of_segment(head, size))
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return size - _end_of_riffs(file, size)
        for length, first in TRANSPORT_PACKETS:
            if head[first : first + 3 * length : length] == bytes([SYNC] * 3):
                rest = size % length
                file.seek(size - rest)
                is_packet = file.read(length)[first : first + 1] in (b"", bytes([SYNC]))
                return rest and (rest - length if is_packet else rest)
    return 0


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Where the last box of an MP4 file ends."""
    at = 0
    found: set[bytes] = set()
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length, kind = struct.unpack_from(">I4s", head)
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:16], "big")
        if length == 0 and kind in BOXES:  # up to the end of the file
            return size
        is_box = length >= 8 and kind in BOXES
        if not is_box and (length < 8 or at + length > size):
            # After all that a file needs there may be anything; before that, this is damage.
            return at if b"moov" in found and CONTENT & found else size
        found.add(kind)
        at += length
    return at


def _end_of_riffs(file: BinaryIO, size: int) -> int:
    """Where the last part of an AVI ends."""
    at = 0
    while at + 12 <= size:
        file.seek(at)
        kind, length, form = struct.unpack("<4sI4s", file.read(12))
        if kind != b"RIFF" or form not in (b"AVI ", b"AVIX"):
            return at
        if length in (0, UNKNOWN_LENGTH):
            return size
        end = at + 8 + length
        if 0 < end - size <= HEAD and _has_all_pictures(file, at + 12, size):
            return size  # it counts its head, too
        at = end + length % 2 if end + length % 2 <= size else end
    return max(at, min(size, at + 12)) if at < size else at


def _has_all_pictures(file: BinaryIO, at: int, size: int) -> bool:
    while at + 12 <= size:
        file.seek(at)
        kind, length, form = struct.unpack("<4sI4s", file.read(12))
        if (kind, form) == (b"LIST", b"movi"):
            return bool(at + 8 + length <= size)
        at += 8 + length + length % 2
    return False


def _end_of_segment(head: bytes, size: int) -> int:
    """Where the segment of a Matroska file ends."""
    length, value = _ebml_number(head[4:])
    at = 4 + length + value
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return size
    length, value = _ebml_number(head[at + 4 :])
    unknown = value == (1 << 7 * length) - 1
    return size if unknown else at + 4 + length + value


def _ebml_number(data: bytes) -> tuple[int, int]:
    """(bytes, value) of a number whose leading zero bits count its bytes."""
    length = 9 - data[0].bit_length() if data else 1
    return length, int.from_bytes(data[:length], "big") & ((1 << 7 * length) - 1)
