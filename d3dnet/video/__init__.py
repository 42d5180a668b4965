"""From a video file to frames with exact timestamps, and back.

Read in this order: `ffmpeg` (which program encodes), `source` (file → frames), `colour`
(planes ↔ network luma, chroma), `target` (what the result is), `encode` (frames → file).
"""

from d3dnet.errors import EncoderError, InputError, OutputError, ProgramError, VideoError

__all__ = ["EncoderError", "InputError", "OutputError", "ProgramError", "VideoError"]
