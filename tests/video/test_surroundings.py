"""Pipes, closed streams, terminals, links and programs that do not work: as a user would expect."""

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from d3dnet.errors import EncoderError, InputError
from d3dnet.job.upscale import upscale_video
from d3dnet.video import ffmpeg as programs
from d3dnet.video.source import VideoSource
from tests.video.clips import BUNDLED, make_clip

ROOT = Path(__file__).parents[2]
MAKE = [sys.executable, "-m", "d3dnet", "upscale"]


def environment(**more):
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "in.mp4"
    return make_clip(path, "-c:v", "libx264", "-pix_fmt", "yuv420p", frames=3)


def test_a_named_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "p.ts")
    with pytest.raises(InputError, match=r"p\.ts: a pipe or a device.*write it to a file first"):
        VideoSource(tmp_path / "p.ts")


@pytest.mark.parametrize("name", ["/dev/null", "/dev/zero"])
def test_a_device_is_refused_at_once(name):
    with pytest.raises(InputError, match="a pipe or a device"):
        VideoSource(name)


def test_what_is_redirected_is_read_as_the_file_that_it_is(clip, tmp_path):
    command = [*MAKE, "/dev/stdin", str(tmp_path / "out.mkv"), "--model", "bicubic", "-q"]
    with open(clip, "rb") as file:
        done = subprocess.run(command, stdin=file, env=environment(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_stderr_and_an_ascii_terminal_are_no_fault(clip, tmp_path):
    for number, closed in enumerate(("2>&-", "")):
        output = tmp_path / f"out{number}.mkv"
        words = " ".join(map(str, [*MAKE, clip, output, "--model", "bicubic"]))
        done = subprocess.run(
            f"{words} {closed}",
            shell=True,
            env=environment(PYTHONIOENCODING="ascii"),
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        assert output.exists()
    assert b"128x96" in done.stdout


def test_names_that_are_no_utf_8_are_told_as_they_are(clip, tmp_path):
    output = os.fsencode(tmp_path) + b"/\xff\xe4.mkv"
    done = subprocess.run(
        [*map(os.fsencode, [*MAKE, str(clip)]), output, b"--model", b"bicubic", b"-q"],
        env=environment(PYTHONIOENCODING="ascii"),
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (0, output + b"\n")


def test_a_link_as_output_stays_a_link(clip, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "real.mkv", tmp_path / "link.mkv"
    link.symlink_to(target)
    for overwrite in (False, True):
        upscale_video(clip, link, model="bicubic", overwrite=overwrite, ffmpeg=BUNDLED.path)
        assert link.is_symlink() and target.is_file() and not target.is_symlink()
    assert [path.name for path in target.parent.iterdir()] == ["real.mkv"]


def test_a_terminal_that_goes_away_leaves_nothing_before_the_first_segment(tmp_path):
    path = make_clip(
        *(tmp_path / "in.mp4", "-c:v", "libx264", "-preset", "ultrafast"),
        size="320x240",
        frames=120,
    )
    output = tmp_path / "out.mkv"
    process = subprocess.Popen(
        [*MAKE, str(path), str(output), "--json", "--device", "cpu"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    for line in process.stdout:
        if b'"progress"' in line or b'"start"' in line:
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 4
    process.stdout.close()
    assert [each.name for each in tmp_path.iterdir()] == ["in.mp4"]


def test_a_broken_program_on_the_path_is_passed_over_with_a_warning(tmp_path, monkeypatch):
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho no libraries >&2\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("FFMPEG", raising=False)
    with pytest.warns(UserWarning, match=r"ffmpeg on the PATH .* is not .*; using "):
        assert programs.find_program() == BUNDLED


@pytest.mark.parametrize("words", [["-tune"], ["-foo", "bar"], ["-v", "quiet", "-foo", "x"]])
def test_bad_words_for_the_program_are_named(clip, tmp_path, words):
    with pytest.raises(EncoderError) as caught, warnings.catch_warnings():
        upscale_video(
            clip, tmp_path / "out.mp4", model="bicubic", ffmpeg=BUNDLED.path, ffmpeg_args=words
        )
    assert f"--ffmpeg-args={' '.join(words)!r}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
