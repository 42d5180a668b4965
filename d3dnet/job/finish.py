"""From finished segments to the result: joined, compared with the source, given its name."""

import errno
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from d3dnet.errors import DiskError
from d3dnet.files import remove, sync
from d3dnet.job.journal import Journal
from d3dnet.job.ledger import Job, Ledger
from d3dnet.video.audit import Audit, Row, audit
from d3dnet.video.images import is_pattern, written_images
from d3dnet.video.join import join
from d3dnet.video.source import VideoSource
from d3dnet.video.streams import Kept
from d3dnet.wording import counted

DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def joined(job: Job, source: VideoSource, kept: Kept, journal: Journal, ledger: Ledger) -> Audit:
    """Join all segments under a temporary name, compare that with the source and enter it.

    Raises:
        AuditError: it is not faithful.
    """
    part = _part(journal, job.output)
    if is_pattern(job.output):
        journal.append({"joining": True})  # from now on, images may be in either place
        part.parent.mkdir(exist_ok=True)
        for folder in ledger.paths():
            for image in folder.iterdir() if folder.is_dir() else ():
                shutil.move(image, part.parent / image.name)
        sync(part.parent)
    else:
        join(ledger.paths(), part, job.target, source, job.program, kept)
        sync(part)
    found = audit(part, source, job.target, kept)
    found.check(job.output, part)
    journal.append({"complete": [asdict(row) for row in found.rows]})
    return found


def audited(journal: Journal) -> Audit | None:
    """What an earlier run found, which was broken off when only the name was missing."""
    for record in journal.records:
        if "complete" in record:
            return Audit(tuple(Row(**row) for row in record["complete"]))
    return None


def give_name(journal: Journal, path: Path) -> None:
    """Have what was joined appear as `path`. May be done twice."""
    part = _part(journal, path)
    if not is_pattern(path):
        if part.exists():
            os.replace(part, path)
    elif part.parent.exists():
        made = {image.name for image in part.parent.iterdir()}
        for name in made:
            os.replace(part.parent / name, path.parent / name)
        remove(part.parent)
        if left := [image.name for image in written_images(path) if image.name not in made]:
            warnings.warn(
                f"{path}: there is more of an earlier result, {counted(len(left), 'image')} from "
                f"{left[0]} on; remove it",
                stacklevel=2,
            )
    sync(path.parent)


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Errors of a full disk, from wherever, as `DiskError`s that say what to do."""
    try:
        yield
    except DiskError as error:
        reason = str(error)
    except OSError as error:
        if error.errno not in DISK_FULL_ERRORS:
            raise
        reason = f"{error.filename or path.parent}: {error.strerror}"
    else:
        return
    raise DiskError(
        f"{reason}; make room and run the same command again, or keep the work on another disk "
        "with --work-dir"
    )


def _part(journal: Journal, path: Path) -> Path:
    if is_pattern(path):
        return journal.beside / "joined" / path.name
    return journal.beside / f"joined{path.suffix}"
