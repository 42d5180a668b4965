"""A file opened with PyAV, and the stream of it that is its picture."""

from pathlib import Path

import av
from av.stream import Disposition

from d3dnet.errors import InputError
from d3dnet.video.decoder import reason_of


def opened(path: Path, url: str, options: dict[str, str]) -> av.container.InputContainer:
    if not options and not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: empty")
    try:
        return av.open(
            url,
            format="image2" if options else None,
            options=options,
            metadata_errors="replace",
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable video ({reason_of(error)})") from error


def video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The first that is no cover.

    Raises:
        InputError: there is none, nobody decodes it, or the picture is made of several.
    """
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise InputError(f"{path}: no decoder for its video stream")
            if stream.disposition & Disposition.dependent:  # it means nothing by itself
                raise InputError(
                    f"{path}: a picture of {len(container.streams.video)} tiles or layers, which "
                    "are not put together here; make it a PNG first, such as with heif-convert, "
                    "avifdec or ffmpeg 8"
                )
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise InputError(f"{path}: no video stream, only: {', '.join(kinds) or 'nothing'}")
