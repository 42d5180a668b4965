"""ICC profiles: read from images, and put into those that the ffmpeg program has written.

FFmpeg reads them, but no raw picture takes one to an encoder; so they go beside it.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path

Bytes = bytes | mmap

PNG = b"\x89PNG\r\n\x1a\n"
TIFF_TAG = 34675
SPACES = {"grey": b"GRAY", "rgb": b"RGB "}  # of a profile, for pictures of this family
LONGEST = 1 << 24  # bytes; a profile has some thousands


def profile_of(path: Path) -> bytes:
    """The ICC profile in a PNG, JPEG, TIFF or WebP; b"" if there is none that can be read."""
    try:
        with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            return _profile_in(data)
    except (OSError, ValueError, IndexError, struct.error, zlib.error):
        return b""


def _profile_in(data: Bytes) -> bytes:
    if data[:8] == PNG:
        profile = _in_png(data)
    elif data[:2] == b"\xff\xd8":
        profile = _in_jpeg(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        profile = _in_webp(data)
    elif data[:4] in (b"II*\0", b"MM\0*"):
        profile = _in_tiff(data)
    else:
        profile = b""
    return profile if profile[36:40] == b"acsp" else b""


def common_profile(paths: Iterable[Path]) -> bytes | None:
    """The profile that all of these images have, b"" if none has one; None where they differ."""
    found = {profile_of(path) for path in paths}
    return found.pop() if len(found) == 1 else None


def is_of(profile: bytes, family: str) -> bool:
    """Whether a profile is one of pictures of this family, "grey" or "rgb"."""
    return profile[16:20] == SPACES.get(family)


def add_profile(path: Path, profile: bytes) -> None:
    """Put a profile into a PNG or TIFF of the ffmpeg program."""
    data = path.read_bytes()
    if data.startswith(PNG):
        path.write_bytes(_png_with(data, profile))
    elif data.startswith(b"II*\0"):
        path.write_bytes(_tiff_with(data, profile))


def _png_chunks(data: Bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(PNG)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length


def _in_png(data: Bytes) -> bytes:
    for kind, content in _png_chunks(data):
        if kind == b"iCCP":
            packed = content.partition(b"\0")[2][1:]
            return zlib.decompressobj().decompress(packed, LONGEST)
        if kind == b"IDAT":
            break
    return b""


def _in_jpeg(data: Bytes) -> bytes:
    parts: dict[int, bytes] = {}
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        content = data[at + 4 : at + 2 + length]
        if data[at + 1] == 0xE2 and content.startswith(b"ICC_PROFILE\0"):
            parts[content[12]] = content[14:]
        at += 2 + max(2, length)
    return b"".join(parts[number] for number in sorted(parts))


def _in_webp(data: Bytes) -> bytes:
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"ICCP":
            return data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return b""


def _in_tiff(data: Bytes) -> bytes:
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, at)
    for entry in range(count):
        tag, _, length, offset = struct.unpack_from(f"{order}HHII", data, at + 2 + 12 * entry)
        if tag == TIFF_TAG:
            return data[offset : offset + length]
    return b""


def _png_with(data: bytes, profile: bytes) -> bytes:
    """An iCCP chunk after the header; without what would contradict it."""
    made = [PNG]
    for kind, content in _png_chunks(data):
        if kind not in (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP"):
            made.append(_png_chunk(kind, content))
        if kind == b"IHDR":
            made.append(_png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
    return b"".join(made)


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def _tiff_with(data: bytes, profile: bytes) -> bytes:
    """Its directory again at the end, with one entry more."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    entries = [data[at + 2 + 12 * n : at + 14 + 12 * n] for n in range(count)]
    data += bytes(len(data) % 2)
    entries.append(struct.pack("<HHII", TIFF_TAG, 7, len(profile), len(data)))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
    data += profile + bytes(len(profile) % 2)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory
