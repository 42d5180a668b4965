"""Mutated bytes of small files: an error of ours or a result, never a hang, never a part of one.

Three hundred inputs are read, as long as time allows, and a few go all the way; the seeds are the
same in every run. All happen in a process of its own, so that one that hangs or crashes is found.
"""

import gc
import itertools
import os
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from d3dnet.errors import InputError, VideoError
from d3dnet.job.upscale import upscale_video
from d3dnet.video import ON_ERROR
from d3dnet.video.reading import Reading
from d3dnet.video.source import VideoSource
from tests.video.clips import BUNDLED, make_clip

SECONDS, EACH, WHOLE_RUNS = 4, 60, 6
HANG = 120  # seconds for one input of a few kilobytes
KINDS = {
    "mp4": ("-c:v", "libx264"),
    "mkv": ("-c:v", "ffv1"),
    "ts": ("-c:v", "mpeg2video"),
    "avi": ("-c:v", "mjpeg"),
    "gif": (),
}


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Some bytes changed, a piece taken out or doubled, or the end cut off."""
    changed = bytearray(data)
    kind = random.integers(4)
    start = int(random.integers(len(data)))
    piece = slice(start, start + int(random.integers(1, 400)))
    if kind == 0:
        for at in random.integers(0, len(data), int(random.integers(1, 40))):
            changed[at] = random.integers(256)
    elif kind == 1:
        del changed[piece]
    elif kind == 2:
        changed[start:start] = changed[piece]
    else:
        del changed[max(1, start) :]
    return bytes(changed)


def outcomes(attempt: Callable[[int], str], count: int, start: str) -> Iterator[str]:
    """What becomes of seeds 0, 1, 2 ...; to hang, to crash and to raise are failures."""
    context = get_context(start)
    ours, theirs = context.Pipe(duplex=False)
    worker = context.Process(target=work, args=(attempt, count, theirs), daemon=True)
    worker.start()
    theirs.close()
    try:
        for seed in range(count):
            if not ours.poll(HANG):
                pytest.fail(f"seed {seed}: nothing for {HANG} s")
            try:
                outcome = ours.recv()
            except EOFError:
                worker.join()
                pytest.fail(f"seed {seed}: the process ended ({worker.exitcode})")
            if "Traceback" in outcome:
                pytest.fail(f"seed {seed}: {outcome}")
            yield outcome
    finally:
        worker.kill()
        worker.join()


def work(attempt: Callable[[int], str], count: int, report: Connection) -> None:
    gc.freeze()  # decoders of the process that was forked have no threads here: not to be freed
    warnings.simplefilter("ignore")
    for seed in range(count):
        try:
            report.send(attempt(seed))
        except BaseException:
            report.send(traceback.format_exc())


def read(path: Path, data: bytes, seed: int) -> str:
    path.write_bytes(mutated(data, np.random.default_rng(seed)))
    try:
        with VideoSource(path, Reading(on_error=ON_ERROR[seed % 3])) as source:
            times = [frame.pts for frame in itertools.islice(source.frames(), 1000)]
    except InputError as error:
        assert "\n" not in str(error)
        return "refused"
    assert all(a < b for a, b in itertools.pairwise(times))
    assert len(times) < 1000
    return "read"


def upscale(folder: Path, data: bytes, seed: int) -> str:
    path, output = folder / "mutated.mkv", folder / "out.mkv"
    path.write_bytes(mutated(data, np.random.default_rng(seed)))
    options = {"on_error": ON_ERROR[seed % 3], "ffmpeg": BUNDLED.path}
    try:
        upscale_video(path, output, model="bicubic", codec="ffv1", **options)
    except VideoError as error:
        assert "\n" not in str(error)
    else:
        with VideoSource(output) as written:
            assert len(list(written.frames())) > 0
        output.unlink()
    assert sorted(os.listdir(folder)) == ["in.mkv", "mutated.mkv"]
    return "done"


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_file_is_read_or_refused_in_one_line(tmp_path, kind):
    path = make_clip(tmp_path / f"in.{kind}", *KINDS[kind], frames=6, sound=kind != "gif")
    attempt = partial(read, tmp_path / f"mutated.{kind}", path.read_bytes())
    end, found = time.monotonic() + SECONDS, set()
    for outcome in outcomes(attempt, EACH, "fork"):
        found.add(outcome)
        if time.monotonic() > end and found == {"read", "refused"}:
            break
    assert found == {"read", "refused"}


def test_whatever_becomes_of_a_mutated_file_no_part_of_a_result_is_left(tmp_path):
    path = make_clip(tmp_path / "in.mkv", "-c:v", "ffv1", frames=4, sound=True)
    attempt = partial(upscale, tmp_path, path.read_bytes())
    # Torch does not survive a fork.
    assert list(outcomes(attempt, WHOLE_RUNS, "spawn")) == ["done"] * WHOLE_RUNS
