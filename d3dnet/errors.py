"""What can go wrong. Every message is one line: what, what was found, what is accepted, what to do.

`exit_code` is what the command line exits with: 1 if the input, the output or the weights are at
fault, 2 if the request is, 3 if the environment is (a program, a device, memory, disk, workers).
"""

from collections.abc import Sequence
from pathlib import Path


class D3dnetError(Exception):
    """Any error that d3dnet raises by a class of its own."""

    exit_code = 1


# Videos.


class VideoError(D3dnetError):
    """Something is wrong with a video that is read or made."""


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
    """The disk is full, or cannot do what is needed."""

    exit_code = 3


class AuditError(OutputError):
    """The result is not faithful to its source."""


# Jobs: unfinished work, shares, workers.


class BusyError(OutputError):
    """Another process works on the same output."""


class OtherWorkError(OutputError):
    """The work folder holds unfinished work on something else."""


class SharesMissingError(OutputError):
    """Not all shares are complete that are to be joined."""


class WorkerError(OutputError):
    """Workers died again and again, or what they write is not seen here."""

    exit_code = 3


class ClusterError(VideoError):
    """No Ray, no such cluster, or none of its machines can run a task."""

    exit_code = 3


# Networks.


class CheckpointError(D3dnetError, ValueError):
    """A weights file that is missing, damaged, or not of a D3Dnet."""


class DeviceError(D3dnetError, ValueError):
    """A device that this machine, or this torch, does not have."""

    exit_code = 3


class NotEnoughMemoryError(D3dnetError, ValueError):
    """What is asked for does not fit into memory."""

    exit_code = 3


# Data sets and training.


class BadClipError(D3dnetError, ValueError):
    """A clip that cannot be used: its name, and what is wrong with which file."""

    exit_code = 2

    def __init__(self, name: str, files: Sequence[tuple[Path, str]]) -> None:
        self.name = name
        self.files = [(str(path), reason) for path, reason in files]
        more = f" (and {len(files) - 1} more files)" if len(files) > 1 else ""
        super().__init__(f"{name}: {files[0][0]}: {files[0][1]}{more}")


class ExplodedError(D3dnetError, ArithmeticError):
    """The loss is not finite, or offsets have left all bounds."""


def exit_code(error: BaseException) -> int:
    """What the command line exits with after an error, of d3dnet or of others.

    >>> exit_code(DiskError("full")), exit_code(ValueError("mode")), exit_code(OSError("gone"))
    (3, 2, 1)
    """
    if isinstance(error, D3dnetError):
        return error.exit_code
    # torch's is not imported for its name alone: that takes seconds.
    if type(error).__name__ in ("OutOfMemoryError", "MemoryError"):
        return 3
    return 2 if isinstance(error, ValueError) else 1
