"""What is beside the picture: which of it the container of the result can hold, and how.

Sound, subtitles, attachments and chapters are copied; what a container cannot hold as it is becomes
the nearest that it can. Nothing is lost without a warning.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from av import AudioCodecContext, AudioStream, CodecContext, VideoStream
from av.container import InputContainer
from av.stream import Disposition, Stream

from d3dnet.video.images import is_image, is_pattern
from d3dnet.wording import counted

MATROSKA = (".mkv", ".mka", ".webm")
QUICKTIME = (".mp4", ".m4v", ".mov")
TRANSPORT = (".ts", ".m2ts", ".mts")

# Subtitles as text, and what they become in a container that has its own kind of them.
TEXT_SUBTITLES = ("subrip", "srt", "ass", "ssa", "webvtt", "mov_text", "text")
SUBTITLE_ENCODERS = {".mp4": "mov_text", ".m4v": "mov_text", ".mov": "mov_text", ".webm": "webvtt"}
NOT_IN_MATROSKA = ("eia_608", "cc_dec", "dvb_teletext", "libzvbi_teletextdec", "unknown")

# Sound, where its own codec cannot stay: the first of these that program and container take.
LOSSLESS_SOUND = ("pcm_", "flac", "alac", "truehd", "mlp", "wavpack", "tta", "ape")
SOUND_ENCODERS = ("aac", "libopus", "libmp3lame", "ac3", "mp2", "pcm_s16le")

# Transport streams take anything, but only these can be read again.
TRANSPORT_SOUND = ("mp1", "mp2", "mp3", "aac", "aac_latm", "ac3", "eac3", "dts", "truehd", "opus")

UNTIMED_IN_AVI = ("vorbis", "opus")

# Tags about the encoded stream, untrue of another; all others are copied.
STALE_TAGS = (
    *("BPS", "DURATION", "NUMBER_OF_", "_STATISTICS", "ENCODER", "ROTATE", "VENDOR_ID"),
    *("MAJOR_BRAND", "MINOR_VERSION", "COMPATIBLE_BRANDS", "VARIANT_BITRATE"),
)

COVER_TYPES = {"png": "image/png", "mjpeg": "image/jpeg", "bmp": "image/bmp", "gif": "image/gif"}


@dataclass(frozen=True)
class Streams:
    """What a file holds beside its picture.

    Attributes:
        sound, subtitles: codec of each stream.
        covers: (number among the video streams, codec) of each picture that is a cover.
        videos: number of further video streams; `data` of those of neither kind, such as positions.
        attachments: number of attached files, such as fonts; `chapters` likewise.
        metadata: tags of the video stream; `disposition` its flags, by FFmpeg's names.
        tags: of the file; sound_tags: of each sound stream.
        silent: numbers of the sound streams of which nothing is known from the beginning of the
            file, not even a sample rate.
    """

    sound: tuple[str, ...] = ()
    subtitles: tuple[str, ...] = ()
    covers: tuple[tuple[int, str], ...] = ()
    videos: int = 0
    data: int = 0
    attachments: int = 0
    chapters: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    disposition: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    sound_tags: tuple[Mapping[str, str], ...] = ()
    silent: tuple[int, ...] = ()


@dataclass(frozen=True)
class Kept:
    """What goes into the result: FFmpeg's encoder, or "copy", of streams by their number.

    Attributes:
        any_tags: write tags into QuickTime's kind of container that it has no name for.
        probing: options of the source's input, so that all of its streams are known at once.
    """

    sound: Mapping[int, str] = field(default_factory=dict)
    subtitles: Mapping[int, str] = field(default_factory=dict)
    covers: tuple[tuple[int, str], ...] = ()
    attachments: bool = False
    any_tags: bool = False
    probing: Mapping[str, str] = field(default_factory=dict)


def streams_of(container: InputContainer, video: VideoStream) -> Streams:
    """The `Streams` of an open PyAV container whose picture is the stream `video`."""
    streams = container.streams
    covers = tuple(
        (number, _codec(stream))
        for number, stream in enumerate(streams.video)
        if stream.disposition & Disposition.attached_pic
    )
    return Streams(
        sound=tuple(map(_codec, streams.audio)),
        subtitles=tuple(map(_codec, streams.subtitles)),
        covers=covers,
        videos=len(streams.video) - len(covers) - 1,
        data=_data_streams(container),
        attachments=len(streams.attachments),
        chapters=len(container.chapters()),
        metadata=_own_tags(video.metadata),
        tags=_own_tags(container.metadata),
        sound_tags=tuple(_own_tags(stream.metadata) for stream in streams.audio),
        silent=tuple(number for number, stream in enumerate(streams.audio) if _is_unknown(stream)),
        disposition=tuple(
            flag.name
            for flag in Disposition
            if video.disposition & flag and flag.name in ("default", "forced", "original", "dub")
        ),
    )


def _own_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Tags that are true of another file with this content."""
    return {
        key: value
        for key, value in metadata.items()
        if not key.upper().startswith(STALE_TAGS) and (key, value) != ("language", "und")
    }


def _is_unknown(sound: AudioStream) -> bool:
    context: AudioCodecContext | None = sound.codec_context  # none, if nobody decodes it
    return context is not None and not (context.sample_rate and context.channels)


def _data_streams(container: InputContainer) -> int:
    """How many hold what is not read otherwise, as chapters and the timecode are."""
    data = [stream for stream in container.streams.data if "timecode" not in stream.metadata]
    listed = container.chapters() and container.format.name.startswith("mov,")
    return max(0, len(data) - bool(listed))


def keep(streams: Streams, path: Path, *, sound: bool = True) -> Kept:
    """What of `streams` the container of `path` can hold; one warning names all that is lost.

    Args:
        sound: False leaves all sound out.
    """
    if is_image(path):
        others = {
            "sound stream": len(streams.sound) if sound else 0,
            "subtitle stream": len(streams.subtitles),
            "further video stream": streams.videos,
            "data stream": streams.data,
            "attachment": streams.attachments,
            "chapter": streams.chapters,
        }
        if is_pattern(path) and any(others.values()):  # of a single frame nobody expects more
            told = ", ".join(counted(number, name) for name, number in others.items() if number)
            warnings.warn(
                f"{path}: images hold no more than pictures: left out {told}", stacklevel=3
            )
        return Kept()
    suffix = path.suffix.lower()
    subtitles = subtitle_encoders(streams.subtitles, suffix)
    attachments = suffix == ".mkv"
    covers = tuple(cover for cover in streams.covers if _fits(cover[1], suffix))
    in_matroska = subtitle_encoders(streams.subtitles, ".mkv")
    unfit = [  # for this container
        f"subtitles {number} ({codec})"
        for number, codec in enumerate(streams.subtitles)
        if number in in_matroska and number not in subtitles
    ]
    if streams.attachments and not attachments:
        unfit.append(counted(streams.attachments, "attachment"))
    if len(covers) < len(streams.covers):
        unfit.append("cover art")
    if streams.chapters and suffix not in (*MATROSKA, *QUICKTIME):
        unfit.append("chapters")
    lost = [  # in any
        f"subtitles {number} ({codec})"
        for number, codec in enumerate(streams.subtitles)
        if number not in in_matroska and number not in subtitles
    ]
    if streams.videos:
        lost.append(counted(streams.videos, "further video stream"))
    if streams.data:
        lost.append(counted(streams.data, "data stream"))
    if unfit or lost:
        texts = [f"{path.suffix} cannot hold {', '.join(unfit)}; .mkv can"] if unfit else []
        texts += [f"left out, whatever the container: {', '.join(lost)}"] if lost else []
        warnings.warn(f"{path}: {'; '.join(texts)}", stacklevel=3)
    encoders = {number: _sound_encoder(codec, suffix) for number, codec in enumerate(streams.sound)}
    return Kept(
        sound=encoders if sound else {},
        subtitles=subtitles,
        covers=covers,
        attachments=bool(streams.attachments) and attachments,
    )


def _fits(cover: str, suffix: str) -> bool:
    """Whether a container can hold a cover of this codec."""
    return suffix == ".mkv" or (suffix in (".mp4", ".m4v") and cover in ("png", "mjpeg", "bmp"))


def _sound_encoder(codec: str, suffix: str) -> str:
    """Of a container that takes sound which nothing reads again from it."""
    if suffix in TRANSPORT and codec not in TRANSPORT_SOUND:
        return "aac"
    if suffix == ".mov" and codec.startswith("adpcm_"):
        return "aac"  # it takes whole blocks alone, and the last may be a part of one
    return "ac3" if suffix == ".avi" and codec in UNTIMED_IN_AVI else "copy"


def subtitle_encoders(codecs: Sequence[str], suffix: str) -> dict[int, str]:
    """Which subtitle streams a container can hold, by number, and their encoder or "copy"."""
    suffix = suffix.lower()
    encoders = {}
    for index, codec in enumerate(codecs):
        if suffix == ".mkv" and codec not in NOT_IN_MATROSKA:
            encoders[index] = "srt" if codec == "mov_text" else "copy"
        elif codec in TEXT_SUBTITLES and suffix in SUBTITLE_ENCODERS:
            same = codec == SUBTITLE_ENCODERS[suffix]
            encoders[index] = "copy" if same else SUBTITLE_ENCODERS[suffix]
        elif codec.startswith(("dvbsub", "dvb_subtitle")) and suffix in TRANSPORT:
            encoders[index] = "copy"
    return encoders


def is_same_sound(one: str, two: str) -> bool:
    """Whether two names of codecs may mean one sound."""
    # Transport streams do not tell the layers of MPEG audio apart.
    return one == two or {one, two} <= {"mp1", "mp2", "mp3"}


def _codec(stream: Stream) -> str:
    context: CodecContext | None = stream.codec_context
    return "unknown" if context is None else str(context.codec.canonical_name)
