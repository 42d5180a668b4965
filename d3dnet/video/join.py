"""Segments to a file, without encoding again; all else is copied from the source."""

from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av

from d3dnet.errors import EncoderError
from d3dnet.video.command import Ending, join_command
from d3dnet.video.encode import EncoderFeed, packet_times, time_offset
from d3dnet.video.ffmpeg import Program
from d3dnet.video.profiles import add_profile
from d3dnet.video.source import VideoSource
from d3dnet.video.streams import Kept
from d3dnet.video.target import Target, segment_format

MAX_REORDER = 16  # pictures that one is coded before its turn at most, in any codec
QUICKTIME_PIPE = {"movflags": "frag_keyframe+empty_moov+default_base_moof+frag_discont"}


def join(
    segments: Sequence[Path],
    path: Path,
    target: Target,
    source: VideoSource,
    program: Program,
    kept: Kept,
    *,
    until: Fraction | None = None,
    seconds: float | None = None,
) -> bool:
    """Write the video of these segments as `path`, which is replaced.

    Pictures keep the times that they have in their segments; durations are not looked at.

    Args:
        segments: files of one encoder and settings, in the order of their times.
        path: a temporary name: it is not complete until this returns, and removed on errors.
        target, source, program, kept: as what is written, what it is made from, and by.
        until: time in the result after which nothing is copied; the last picture is then shown as
            long as any.
        seconds: of waiting for the program when it has the pictures; None for as long as it takes.

    Returns:
        Whether it is complete.

    Raises:
        EncoderError: the program failed; the message is its first complaint. DiskError if it says
            that the disk is full.
    """
    covers: list[Path] = []
    path.unlink(missing_ok=True)  # an orphaned program may still be writing it
    try:
        if kept.covers and path.suffix.lower() == ".mkv":
            covers = _extracted_covers(source, kept, path)
        pipe = segment_format(target)
        command = join_command(
            path,
            target,
            source,
            program,
            kept,
            delay=time_offset(source, path) * target.time_base,
            cover_files=covers,
            ending=None if until is not None else _ending(segments, source, path),
            until=until,
        )
        feed = EncoderFeed(command, program, path, pipe, QUICKTIME_PIPE if pipe == "mov" else {})
        try:
            feed.mux(_packets(segments, feed.pipe))
            complete = feed.end(seconds)
        except BaseException:
            feed.kill()
            raise
        if target.profile:
            add_profile(path, target.profile)
        return complete
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        for cover in covers:
            cover.unlink(missing_ok=True)


def _ending(segments: Sequence[Path], source: VideoSource, path: Path) -> Ending | None:
    """Where the last picture of a result ends: it is shown as long as in the source."""
    last = source.last_shown
    coded = [coded_times(segment) for segment in segments]
    if last is None or not all(coded):
        return None
    offset = time_offset(source, path) * source.time_base
    final, length = coded[-1], last.end - last.time
    if abs(max(final) - (last.time + offset)) >= length:
        return None  # it is not this one: frames were lost, or repeated
    before = sum(map(len, coded[:-1]))
    shown_last = before + final.index(max(final))
    return Ending(length, shown_last=shown_last, coded_last=before + len(final) - 1)


def coded_times(path: Path) -> list[Fraction]:
    """When the pictures of a segment are shown, in seconds, as they are coded."""
    with av.open(f"file:{path}") as container:
        video = container.streams.video[0]
        base = video.time_base or Fraction(0)
        return [p.pts * base for p in container.demux(video) if p.size and p.pts is not None]


def _packets(
    segments: Sequence[Path], pipe: av.container.OutputContainer
) -> Iterator["av.Packet[av.VideoStream]"]:
    """Coded pictures of all segments, for one stream of `pipe`; their decoding times increase."""
    stream = header = None
    shown: deque[int] = deque()
    for path in segments:
        with av.open(f"file:{path}") as container:
            video = container.streams.video[0]
            if stream is None:
                header = video.codec_context.extradata
                stream = pipe.add_stream_from_template(video, opaque=True)
                stream.time_base = video.time_base
                stream.metadata.update(video.metadata)
            if video.codec_context.extradata != header:
                raise EncoderError(
                    f"{path}: the encoder began it otherwise than the segments before it, so that "
                    "they do not join; choose another --codec"
                )
            times = packet_times(path)
            if not shown and pipe.format.name == "nut":  # what is in others is not reordered
                shown.extend(range(times[0] - MAX_REORDER, times[0]))
            packets = (packet for packet in container.demux(video) if packet.size)
            for packet, time in zip(packets, times, strict=True):
                # As long before it is shown as any codec may need; ffmpeg makes it less.
                shown.append(time)
                packet.dts = shown.popleft()
                packet.stream = stream
                yield packet


def _extracted_covers(source: VideoSource, kept: Kept, path: Path) -> list[Path]:
    """Cover pictures of the source as files beside `path`."""
    files = []
    with av.open(f"file:{source.path}", metadata_errors="replace") as container:
        for index, codec in kept.covers:
            suffix = ".png" if codec == "png" else ".jpg"
            cover = path.with_name(f"{path.stem}.cover{index}{suffix}")
            files.append(cover)
            stream = container.streams.video[index]
            packets = (bytes(packet) for packet in container.demux(stream) if packet.size)
            cover.write_bytes(next(packets, b""))
            container.seek(0)
    return files
