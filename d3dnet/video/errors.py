"""What can go wrong with a video. Every message is one line that says what to do."""


class VideoError(Exception):
    """Base of the errors below.

    `exit_code` is what the command line exits with: 1 for input and output, 3 for the environment.
    """

    exit_code = 1


class InputError(VideoError):
    """The source is missing, not a video, damaged, or of a kind that is not supported."""


class OutputError(VideoError):
    """The result cannot be written where, or as, it was asked for."""


class ProgramError(VideoError):
    """No usable ffmpeg program, or it lacks what was asked of it."""

    exit_code = 3


class EncoderError(OutputError):
    """The ffmpeg program stopped before the result was complete."""

    exit_code = 3


class DiskError(OutputError):
    """The disk is full."""

    exit_code = 3
