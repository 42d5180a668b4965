"""Killed at any moment, the same command goes on, and gives the same frames."""

import json
import os
import random
import shutil
import signal
import time

import numpy as np
import pytest
import torch

from d3dnet.errors import BusyError, InputError, OtherWorkError
from d3dnet.job.events import SegmentDone
from d3dnet.job.journal import Journal
from d3dnet.job.segments import Segment, checksum, taken_up, warm_up
from d3dnet.job.upscale import upscale_video
from d3dnet.network.bicubic import Bicubic
from d3dnet.network.model import D3Dnet
from d3dnet.network.plan import Plan
from d3dnet.network.run import run_network
from d3dnet.video.source import VideoSource
from tests.job.resumable import Tiny, TinyGuided, frames_of, start, three_shots, upscale
from tests.video.clips import ffmpeg, make_clip

FRAMES = 150  # thirty seconds: four segments at least


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return three_shots(tmp_path_factory.mktemp("source") / "in.mp4")


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


@pytest.fixture(scope="module")
def unfinished(clip, tmp_path_factory):
    """An output of which two segments are finished. It is not to be changed."""
    folder = tmp_path_factory.mktemp("unfinished")

    def watch(event):
        if isinstance(event, SegmentDone) and event.segment == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale(clip, folder / "out.mkv", folder / "seen", watch=watch)
    assert finished(folder / "out.mkv") > 0
    return folder / "out.mkv"


@pytest.fixture
def broken_off(unfinished, tmp_path):
    """A copy of it."""
    shutil.copytree(unfinished.parent / "out.mkv.d3dnet", tmp_path / "out.mkv.d3dnet")
    return tmp_path / "out.mkv"


def test_a_network_that_follows_motion_goes_on_to_the_same_bits(clip, tmp_path):
    whole, output, seen = tmp_path / "whole.mkv", tmp_path / "out.mkv", tmp_path / "seen"
    upscale(clip, whole, seen, model=TinyGuided())
    runs = 0
    while not output.exists():
        before, runs = seen.stat().st_size, runs + 1
        process = start(clip, output, seen, model=TinyGuided())
        while process.is_alive() and seen.stat().st_size < before + 70:
            time.sleep(0.001)
        process.kill()
        process.join()
    assert runs > 1
    assert same(frames_of(output), frames_of(whole))


def test_segments_end_at_cuts_and_last_ten_seconds_at_most(clip, undisturbed, tmp_path):
    events = []
    upscale(clip, tmp_path / "out.mkv", tmp_path / "seen", watch=events.append)
    segments = [event for event in events if isinstance(event, SegmentDone)]
    # Nine seconds are 45 frames; cuts are at 60 and 85; five seconds are 25 frames.
    assert [event.first for event in segments] == [0, 45, 85, 130]
    assert [event.cuts for event in segments] == [(), (60,), (85,), ()]
    assert sum(event.frames for event in segments) == FRAMES


def test_after_a_break_only_the_rest_is_made_and_at_a_cut_nothing_is_seen_again(
    clip, undisturbed, broken_off
):
    events, seen = [], broken_off.with_name("seen")
    upscale(clip, broken_off, seen, watch=events.append)
    assert events[0].done == 85
    assert seen.stat().st_size == FRAMES - 85  # the third segment begins at a cut
    assert same(frames_of(broken_off), undisturbed)


@pytest.mark.parametrize(
    ("options", "words"),
    [(("-g", "40", "-bf", "2"), "mp4"), (("-c:v", "mpeg2video", "-g", "12", "-bf", "2"), "ts")],
)
def test_frames_are_taken_up_exactly_wherever_a_segment_begins(tmp_path, options, words):
    path = tmp_path / f"in.{words}"
    ffmpeg(*("-f", "lavfi", "-i", "testsrc2=s=32x32:r=25:d=3.2"), *options, path)
    with VideoSource(path) as source:
        whole = list(source.frames())
        for first in (1, 20, 39, 40, 41, 63, 79):
            enter = max(0, first - 5)
            seen = whole[enter : first + 1]
            segment = Segment(
                1, first, seen[-1].pts, enter, seen[0].pts, tuple(map(checksum, seen))
            )
            again = list(taken_up(source, segment))
            assert [frame.pts for frame in again] == [frame.pts for frame in whole[enter:]]
            for one, other in zip(again, whole[enter:], strict=True):
                np.testing.assert_array_equal(one.planes[0], other.planes[0])


def test_other_frames_than_before_are_refused(clip):
    with VideoSource(clip) as source:
        whole = list(source.frames())
        segment = Segment(1, 30, whole[30].pts, 30, whole[30].pts, (12345,))
        with pytest.raises(InputError, match="frames 30 to 30 are not what they were"):
            taken_up(source, segment)


@pytest.fixture
def threads():
    """Sets the number of threads, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


TILES = {"tile": 6, "reach": 20}


@pytest.mark.parametrize(
    ("mode", "plan"),
    [
        ("sequence", Plan(chunk=3)),
        ("sequence", Plan(chunk=8)),
        ("sequence", Plan(chunk=8, **TILES)),
        ("sequence", Plan(chunk=8, block=8, **TILES)),
        ("sequence", Plan(chunk=4, block=16, **TILES)),
        ("sequence", Plan(chunk=8, precision="bfloat16", threads=2)),
        ("window", Plan(chunk=1, precision="bfloat16", threads=2)),
        ("window", Plan(chunk=1, block=8, **TILES)),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [Tiny, TinyGuided])
def test_taken_up_in_the_middle_a_network_gives_the_same_bits(mode, plan, kind, threads):
    threads(plan.threads)
    network = kind().to(getattr(torch, plan.precision))
    clip = torch.rand(46 if mode == "sequence" else 18, 1, 12, 10)
    whole = list(run_network(network, clip, mode, plan))
    for first in (36, 39) if mode == "sequence" else (14,):
        enter = warm_up(network, mode, plan).start(first, 0)
        assert 0 < first - enter <= 28
        assert enter > 0
        again = list(run_network(network, clip[enter:], mode, plan))
        for one, other in zip(again[first - enter :], whole[first:], strict=True):
            assert torch.equal(one, other)


def test_a_window_needs_three_frames_and_bicubic_none():
    assert warm_up(D3Dnet(channels=4), "window", Plan()).start(40, 0) == 37
    assert warm_up(Bicubic(), "sequence", Plan()).start(40, 0) == 40
    assert warm_up(D3Dnet(channels=4), "sequence", Plan()).start(40, 30) == 30  # not before a cut


def test_a_torn_last_line_of_the_journal_counts_for_nothing(clip, undisturbed, broken_off):
    path = broken_off.with_name("out.mkv.d3dnet") / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    for torn in (lines[2][:-1], lines[2][:40], lines[2][:40] + b"\n", b"\0" * 50):
        path.write_bytes(b"".join(lines[:2]) + torn)
        with Journal(broken_off) as journal:
            assert len(journal.records) == 1
    seen = broken_off.with_name("seen")
    upscale(clip, broken_off, seen)
    # The second segment is made again; it begins within a shot, at frame 45.
    assert FRAMES - 45 < seen.stat().st_size <= FRAMES - 45 + 28
    assert same(frames_of(broken_off), undisturbed)


def test_a_finished_segment_that_was_cut_off_is_made_again(clip, undisturbed, broken_off):
    segment = broken_off.with_name("out.mkv.d3dnet") / "000000.nut"
    segment.write_bytes(segment.read_bytes()[:-100])
    seen = broken_off.with_name("seen")
    upscale(clip, broken_off, seen)
    assert same(frames_of(broken_off), undisturbed)
    # 45 frames, 14 or more after them that the network looks ahead, and the rest after 85.
    assert seen.stat().st_size <= 45 + 28 + FRAMES - 85


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"mode": "window"}, "mode: sequence there, window now"),
        ({"cuts": "off"}, "cuts: auto there, off now"),
        ({"height": 32}, "height: not given there, 32 now"),
        ({"precision": "float32"}, "precision: auto there, float32 now"),
        ({"device": "cpu"}, "device: auto there, cpu now"),
        ({"tile": 16}, "tile: not given there, 16 now"),
        ({"max_memory": 2**33}, "max_memory: not given there, 8589934592 now"),
    ],
)
def test_unfinished_work_on_something_else_is_refused_and_stays(
    clip, broken_off, options, difference
):
    folder = broken_off.with_name("out.mkv.d3dnet")
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(OtherWorkError, match=f"{difference}.*--restart"):
        upscale(clip, broken_off, broken_off.with_name("seen"), **options)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_unfinished_work_of_a_version_that_planned_otherwise_is_refused(clip, broken_off):
    path = broken_off.with_name("out.mkv.d3dnet") / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"chunk"', b'"chunks"', 1))
    with pytest.raises(OtherWorkError, match=r"of another version.*--restart"):
        upscale(clip, broken_off, broken_off.with_name("seen"))


def test_another_source_or_other_weights_are_refused_and_a_restart_begins_again(
    clip, broken_off, tmp_path
):
    other = make_clip(tmp_path / "other.mp4", size="24x16", rate="5", frames=30)
    with pytest.raises(OtherWorkError, match="source: "):
        upscale(other, broken_off, tmp_path / "seen")
    network = Tiny()
    next(network.parameters()).data.add_(1e-6)
    with pytest.raises(OtherWorkError, match="weights: "):
        upscale_video(clip, broken_off, model=network, codec="ffv1")
    upscale(other, broken_off, tmp_path / "seen", restart=True)
    assert (tmp_path / "seen").stat().st_size == 30
    assert len(frames_of(broken_off)) == 30


def test_a_second_process_is_refused_until_the_first_one_is_dead(clip, tmp_path):
    output, seen = tmp_path / "out.mkv", tmp_path / "seen"
    first = start(clip, output, seen, seconds=0.05)
    while not seen.exists():
        time.sleep(0.01)
    with pytest.raises(BusyError, match="another process works on it"):
        upscale(clip, output, tmp_path / "second")
    with pytest.raises(BusyError):
        upscale(clip, output, tmp_path / "second", work_dir=tmp_path / "elsewhere")
    assert first.is_alive()
    first.kill()
    first.join()
    with Journal(output):  # a lock dies with its process
        pass
    assert not (tmp_path / "second").exists()


def test_work_can_be_kept_elsewhere(clip, tmp_path):
    (tmp_path / "results").mkdir()
    output, elsewhere = tmp_path / "results" / "out.mkv", tmp_path / "scratch"
    kept = []

    def watch(event):
        if isinstance(event, SegmentDone):
            kept.append(sorted(path.name for path in elsewhere.glob("*/*")))

    upscale(clip, output, tmp_path / "seen", work_dir=elsewhere, watch=watch)
    assert kept[0] == ["000000.nut", "journal.jsonl", "lock"]
    assert os.listdir(tmp_path / "results") == ["out.mkv"]
    assert os.listdir(elsewhere) == []


def test_a_full_disk_keeps_what_is_finished_and_says_what_to_do(clip, undisturbed, tmp_path):
    output, seen = tmp_path / "out.mkv", tmp_path / "seen"
    process = start(clip, output, seen, full_disk=True)
    process.join()
    assert process.exitcode == 3
    assert 0 < finished(output) < FRAMES
    assert "--work-dir" in (tmp_path / "error").read_text()
    upscale(clip, output, seen)
    assert same(frames_of(output), undisturbed)


def test_a_source_that_cannot_be_read_keeps_what_is_finished(clip, undisturbed, tmp_path):
    output, seen = tmp_path / "out.mkv", tmp_path / "seen"

    def watch(event):
        if isinstance(event, SegmentDone) and event.segment == 0:
            clip.rename(clip.with_name("gone.mp4"))
            raise OSError("Input/output error")

    with pytest.raises(OSError):
        upscale(clip, output, seen, watch=watch)
    with pytest.raises(InputError, match="no such file"):
        upscale(clip, output, seen)
    clip.with_name("gone.mp4").rename(clip)
    assert finished(output) > 0
    upscale(clip, output, seen)
    assert same(frames_of(output), undisturbed)


def test_images_go_on_too(clip, tmp_path):
    pattern = tmp_path / "images" / "%04d.png"
    whole = tmp_path / "whole" / "%04d.png"
    for folder in (pattern.parent, whole.parent):
        folder.mkdir()

    def watch(event):
        if isinstance(event, SegmentDone) and event.segment == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_video(clip, pattern, model="bicubic", watch=watch)
    assert not list(pattern.parent.glob("*.png"))
    upscale_video(clip, pattern, model="bicubic")
    upscale_video(clip, whole, model="bicubic")
    names = sorted(os.listdir(whole.parent))
    assert sorted(os.listdir(pattern.parent)) == names
    assert len(names) == FRAMES
    for name in names:
        assert (pattern.parent / name).read_bytes() == (whole.parent / name).read_bytes()


def test_a_result_that_only_lacks_its_name_is_not_made_again(clip, undisturbed, tmp_path):
    output, seen = tmp_path / "out.mkv", tmp_path / "seen"

    def killed(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("d3dnet.job.upscale.give_name", killed)
        with pytest.raises(KeyboardInterrupt):
            upscale(clip, output, seen)
    assert not output.exists()
    seen.unlink()
    events = []
    upscale(clip, output, seen, watch=events.append)
    assert not seen.exists()
    assert events[-1].audit.faults == []
    assert same(frames_of(output), undisturbed)
