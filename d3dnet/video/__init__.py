"""From a video file to frames with exact timestamps, and back.

Read in this order: `ffmpeg` (which program encodes), `source` (file → frames), `colour`
(planes ↔ network luma, chroma), `target` (what the result is), `encode` (frames → file).

Here are the words by which all this is asked for; the command line names them without PyAV.
"""

from typing import Literal, get_args

from d3dnet.errors import EncoderError, InputError, OutputError, ProgramError, VideoError

# Where a file is damaged: an error; the last good frame again at the times of those that are lost;
# the frames before it are all.
OnError = Literal["fail", "conceal", "stop"]
ON_ERROR: tuple[OnError, ...] = get_args(OnError)
DEFAULT_CODEC = "libx264"

__all__ = [
    "DEFAULT_CODEC",
    "ON_ERROR",
    "EncoderError",
    "InputError",
    "OnError",
    "OutputError",
    "ProgramError",
    "VideoError",
]
