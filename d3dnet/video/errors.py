"""What can go wrong with a video. Every message is one line that says what to do."""


class VideoError(Exception):
    """Base of the errors below."""


class InputError(VideoError):
    """The source is missing, not a video, damaged, or of a kind that is not supported."""


class OutputError(VideoError):
    """The result cannot be written where, or as, it was asked for."""


class ProgramError(VideoError):
    """No usable ffmpeg program, or it lacks what was asked of it."""


class EncoderError(OutputError):
    """The ffmpeg program stopped before the result was complete."""


class DiskError(OutputError):
    """The disk is full."""
