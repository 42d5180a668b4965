"""Mutated bytes of small files: an error of ours or a result, never a hang, never a part of one.

As many as fit into a few seconds; the seeds are the same in every run.
"""

import itertools
import os
import time
import warnings

import numpy as np
import pytest

from d3dnet.upscale import upscale_video
from d3dnet.video import InputError, VideoError
from d3dnet.video.decode import ON_ERROR, Reading, VideoSource
from tests.video.clips import BUNDLED, make_clip

SECONDS, MOST, WHOLE_RUNS = 8, 300, 6
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_file_is_read_or_refused_in_one_line(tmp_path, kind):
    data = make_clip(
        tmp_path / f"in.{kind}", *KINDS[kind], frames=6, sound=kind != "gif"
    ).read_bytes()
    path = tmp_path / f"mutated.{kind}"
    end, tried, outcomes = time.monotonic() + SECONDS / len(KINDS), 0, set()
    for seed in range(MOST // len(KINDS)):
        random = np.random.default_rng(seed)
        path.write_bytes(mutated(data, random))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with VideoSource(path, Reading(on_error=ON_ERROR[seed % 3])) as source:
                    times = [frame.pts for frame in itertools.islice(source.frames(), 1000)]
                assert all(a < b for a, b in itertools.pairwise(times))
                assert len(times) < 1000
                outcomes.add("read")
            except InputError as error:
                assert "\n" not in str(error)
                outcomes.add("refused")
        tried += 1
        if tried >= 5 and time.monotonic() > end and outcomes == {"read", "refused"}:
            break
    assert outcomes == {"read", "refused"}


def test_whatever_becomes_of_a_mutated_file_no_part_of_a_result_is_left(tmp_path):
    data = make_clip(tmp_path / "in.mkv", "-c:v", "ffv1", frames=4, sound=True).read_bytes()
    path, output = tmp_path / "mutated.mkv", tmp_path / "out.mkv"
    for seed in range(WHOLE_RUNS):
        path.write_bytes(mutated(data, np.random.default_rng(seed)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                upscale_video(path, output, model="bicubic", codec="ffv1", ffmpeg=BUNDLED.path)
                with VideoSource(output) as written:
                    assert len(list(written.frames())) > 0
                output.unlink()
            except VideoError as error:
                assert "\n" not in str(error)
        assert sorted(os.listdir(tmp_path)) == ["in.mkv", "mutated.mkv"]
