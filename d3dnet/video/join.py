"""Segments to a file, without encoding again; all else is copied from the source."""

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np

from d3dnet.errors import EncoderError, OutputError
from d3dnet.video.command import join_command
from d3dnet.video.encode import Feed, SegmentSink, packet_times, time_offset
from d3dnet.video.ffmpeg import Program
from d3dnet.video.images import is_pattern
from d3dnet.video.profiles import add_profile
from d3dnet.video.source import VideoSource
from d3dnet.video.streams import Kept, sound_encoders
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
    only_one_frame: bool = False,
) -> None:
    """Write the video of these segments as `path`, which is replaced.

    Pictures keep the times that they have in their segments; durations are not looked at.

    Args:
        segments: files of one encoder and settings, in the order of their times.
        path: a temporary name: it is not complete until this returns, and removed on errors.
        target, source, program, kept: as what is written, what it is made from, and by.
        only_one_frame: stop after one picture and one packet of sound.

    Raises:
        EncoderError: the program failed; the message is its first complaint. DiskError if it says
            that the disk is full.
    """
    covers: list[Path] = []
    path.unlink(missing_ok=True)  # an orphaned program may still be writing it
    try:
        if kept.covers and not only_one_frame and path.suffix.lower() == ".mkv":
            covers = _extracted_covers(source, kept, path)
        pipe = segment_format(target)
        command = join_command(
            path,
            target,
            source,
            program,
            kept,
            delay=time_offset(source) * target.time_base,
            cover_files=covers,
            only_one_frame=only_one_frame,
        )
        feed = Feed(command, program, path, pipe, QUICKTIME_PIPE if pipe == "mov" else {})
        try:
            feed.mux(_packets(segments, feed.pipe))
            feed.end()
            if target.profile:
                add_profile(path, target.profile)
        except BaseException:
            feed.kill()
            raise
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        for cover in covers:
            cover.unlink(missing_ok=True)


def check(
    path: Path,
    folder: Path,
    target: Target,
    source: VideoSource,
    program: Program,
    kept: Kept,
) -> Kept:
    """Try everything with one empty frame: encoder, container, sound.

    Sound that the container cannot hold will be encoded again, with a warning.

    Args:
        path: the result; `folder`: where to write.

    Returns:
        `kept`, with the encoders of sound that work.

    Raises:
        EncoderError: the result could not be written.
        OutputError: the container cannot hold what the encoder makes, or the sound in no way.
    """
    segment, joined = folder / "check", folder / f"check{path.suffix}"
    sizes = target.layout.plane_sizes(target.height, target.width)
    offset = time_offset(source)
    with SegmentSink(segment, target, program, result=path, offset=offset) as sink:
        sink.write([np.zeros(size, target.layout.dtype) for size in sizes], source.first_pts)
    if is_pattern(path):
        for image in segment.iterdir():
            image.unlink()
        segment.rmdir()
        return kept
    try:
        try:
            join([segment], joined, target, source, program, kept, only_one_frame=True)
        except EncoderError:
            _check_codec(segment, joined, path, target, source, program)
            if not kept.sound:
                raise
            found = sound_encoders(source.path, source.streams.sound, joined, program)
            encoders = dict(enumerate(found))
            if encoders == kept.sound:
                raise
            kept = replace(kept, sound=encoders)
            join([segment], joined, target, source, program, kept, only_one_frame=True)
        if joined.suffix.lower() == ".ts" and not _is_told(joined):
            raise OutputError(_misfit(path, target, "nothing could read it again"))
    finally:
        segment.unlink(missing_ok=True)
        joined.unlink(missing_ok=True)
    encoded = [
        f"{source.streams.sound[number]} as {encoder}"
        for number, encoder in kept.sound.items()
        if encoder != "copy"
    ]
    if encoded:
        warnings.warn(
            f"{path}: {path.suffix} cannot hold the sound as it is; encoded again: "
            f"{', '.join(encoded)}; .mkv would keep it",
            stacklevel=3,
        )
    return kept


def _check_codec(
    segment: Path, joined: Path, path: Path, target: Target, source: VideoSource, program: Program
) -> None:
    """Raise OutputError if the container cannot hold the picture, with nothing else asked of it."""
    plain = replace(target, encoding=replace(target.encoding, arguments=()))
    try:
        join([segment], joined, plain, source, program, Kept(), only_one_frame=True)
    except EncoderError as error:
        complaint = str(error).partition(" stopped: ")[2]
        raise OutputError(_misfit(path, target, complaint)) from None


def _misfit(path: Path, target: Target, reason: str) -> str:
    codec = "libvpx-vp9" if path.suffix.lower() == ".webm" else "libx264"
    other = f", such as {codec}," if codec != target.encoding.codec else ""
    return (
        f"{path}: {path.suffix} cannot hold what {target.encoding.codec} makes ({reason}); "
        f"choose another --codec{other} or another container, such as .mkv"
    )


def _is_told(path: Path) -> bool:
    """Whether a transport stream says what its picture is; it takes others as mere data."""
    with av.open(f"file:{path}", format="mpegts") as container:  # too short to be known as one
        return bool(container.streams.video) or not container.streams


def _packets(segments: Sequence[Path], pipe: av.container.OutputContainer) -> Iterator[av.Packet]:
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
