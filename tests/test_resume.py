"""Killed at any moment, the same command goes on, and gives the same frames."""

import json
import os
import random
import signal
import time

import numpy as np
import pytest

from d3dnet.video.decode import VideoSource
from tests.resumable import start, upscale
from tests.video.clips import ffmpeg

FRAMES, RATE = 150, 5  # thirty seconds: four segments at least


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three shots of 60, 25 and 65 frames, as H.264 with B-frames and few key frames."""
    path = tmp_path_factory.mktemp("source") / "in.mp4"
    looks = [f"testsrc2=s=24x16:r={RATE}:d=12", f"mandelbrot=s=24x16:r={RATE}:start_scale=0.4"]
    ffmpeg(
        *("-f", "lavfi", "-i", looks[0], "-f", "lavfi", "-i", looks[1]),
        *("-f", "lavfi", "-i", f"testsrc=s=24x16:r={RATE}:d=13"),
        *("-filter_complex", "[1:v]trim=end_frame=25[m];[0:v][m][2:v]concat=n=3"),
        *("-pix_fmt", "yuv420p", "-g", 40, "-bf", 2, path),
    )
    return path


def frames_of(path):
    with VideoSource(path) as video:
        return [(frame.pts * video.time_base, frame.planes) for frame in video.frames()]


def records(output):
    lines = (output.with_name(output.name + ".d3dnet") / "journal.jsonl").read_bytes().splitlines()
    return [json.loads(line) for line in lines]


def finished(output):
    try:
        return sum(record.get("frames", 0) for record in records(output))
    except (FileNotFoundError, ValueError):
        return 0


@pytest.fixture(scope="module")
def undisturbed(clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    upscale(clip, folder / "out.mkv", folder / "seen")
    assert (folder / "seen").stat().st_size == FRAMES
    assert sorted(os.listdir(folder)) == ["out.mkv", "seen"]
    return frames_of(folder / "out.mkv")


def same(ours, theirs):
    return len(ours) == len(theirs) and all(
        a[0] == b[0] and all(map(np.array_equal, a[1], b[1]))
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_the_frames_are_the_same_to_the_last_bit(
    clip, undisturbed, tmp_path, seed
):
    output, seen = tmp_path / "out.mkv", tmp_path / "seen"
    seen.touch()
    chance = random.Random(seed)
    kills = 0
    while True:
        before, done = seen.stat().st_size, finished(output)
        process = start(clip, output, seen)
        goal = before + chance.randrange(5, 160)  # frames that it may see
        while process.is_alive() and seen.stat().st_size < goal:
            time.sleep(0.001)
        process.kill()
        process.join()
        # Had it not been killed, it would have seen no more than this.
        assert seen.stat().st_size - before <= FRAMES - done + 28
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        assert not output.exists()
        kills += 1
    assert kills >= 3
    assert same(frames_of(output), undisturbed)
    assert sorted(os.listdir(tmp_path)) == ["out.mkv", "seen"]
