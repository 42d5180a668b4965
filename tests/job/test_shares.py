"""A video's segments in shares that are made apart: joined, they are what one run makes."""

import os
import signal
import time

import numpy as np
import pytest

from d3dnet.cli import main
from d3dnet.errors import BusyError, OtherWorkError, SharesMissingError
from d3dnet.job.events import Done, ShareDone
from d3dnet.job.segments import Segment, find_segments, warm_up
from d3dnet.job.shares import Share, divided
from d3dnet.job.upscale import upscale_video
from d3dnet.network.plan import Plan
from d3dnet.video.source import VideoSource
from tests.job.resumable import Tiny, frames_of, start, three_shots, upscale
from tests.video.clips import make_clip

FRAMES = 150


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return three_shots(tmp_path_factory.mktemp("source") / "in.mp4")


@pytest.fixture(scope="module")
def undisturbed(clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    upscale(clip, folder / "out.mkv", folder / "seen")
    return frames_of(folder / "out.mkv")


def share(clip, output, number, of=2, **options):
    """Make a share; how many frames the network saw."""
    seen = output.with_name(f"seen-{number}")
    before = seen.stat().st_size if seen.exists() else 0
    seen.touch()
    upscale(clip, output, seen, segment=f"{number}/{of}", **options)
    return seen.stat().st_size - before


def joined(clip, output, **options):
    events = []
    options = {"model": Tiny(), "codec": "ffv1", "segment": "join", **options}
    upscale_video(clip, output, watch=events.append, **options)
    return events


def same(ours, theirs):
    return len(ours) == len(theirs) and all(
        a[0] == b[0] and all(map(np.array_equal, a[1], b[1]))
        for a, b in zip(ours, theirs, strict=True)
    )


def test_segments_are_found_without_making_them(clip):
    with VideoSource(clip) as source:
        first = Segment(0, 0, source.first_pts, 0, source.first_pts)
        needs = warm_up(Tiny(), "sequence", Plan())
        found = list(find_segments(source, "auto", lambda: needs, first))
        later = list(find_segments(source, "auto", lambda: needs, found[2][0]))
    # Nine seconds are 45 frames; cuts are at 60 and 85; five seconds are 25 frames.
    assert [(segment.first, frames) for segment, frames in found] == [
        (0, 45),
        (45, 40),
        (85, 45),
        (130, 20),
    ]
    assert later == found[2:]


def test_shares_are_runs_of_segments_with_about_as_many_frames():
    found = [(Segment(n, 10 * n, n, 10 * n, n), 10) for n in range(10)]
    parts = divided(found, 4)
    assert [part.begin.number for part in parts] == [0, 2, 5, 7]
    assert [part.last for part in parts] == [1, 4, 6, 9]
    assert [part.frames for part in parts] == [20, 30, 20, 30]
    few = divided(found[:2], 5)
    assert sum(part.frames for part in few) == 20
    assert sum(part.begin is None for part in few) == 3


def test_shares_made_apart_in_any_order_and_joined_give_the_frames_of_one_run(
    clip, undisturbed, tmp_path
):
    output = tmp_path / "out.mkv"
    events = []
    # The second one begins at a cut, so that nothing is seen twice but what the first looks ahead.
    assert share(clip, output, 2, watch=events.append) == 65
    assert isinstance(events[-1], ShareDone) and events[-1].frames == 65
    assert not output.exists()
    assert share(clip, output, 2) == 0
    assert share(clip, output, 1) < 85 + 28
    assert isinstance(joined(clip, output)[-1], Done)
    assert same(frames_of(output), undisturbed)
    assert sorted(os.listdir(tmp_path)) == ["out.mkv", "seen-1", "seen-2"]


def test_shares_are_made_at_the_same_time_and_one_that_is_killed_goes_on(
    clip, undisturbed, tmp_path
):
    output = tmp_path / "out.mkv"
    seen = [tmp_path / f"seen-{number}" for number in (1, 2, 3)]
    shares = [
        start(clip, output, file, 0.05, segment=f"{number}/3")
        for number, file in enumerate(seen, start=1)
    ]
    journal = tmp_path / "out.mkv.d3dnet" / "share-3-of-3" / "journal.jsonl"
    while not (journal.exists() and '"segment"' in journal.read_text()):  # one is finished
        assert shares[2].is_alive()
        time.sleep(0.001)
    shares[2].kill()
    with pytest.raises(SharesMissingError, match=r"complete: 3/3 \(1 of 2 segments\)"):
        for other in shares:
            other.join()
        joined(clip, output)
    assert [other.exitcode for other in shares] == [0, 0, -signal.SIGKILL]
    before = seen[2].stat().st_size
    upscale(clip, output, seen[2], segment="3/3")
    assert seen[2].stat().st_size - before <= 20 + 28
    joined(clip, output)
    assert same(frames_of(output), undisturbed)


def test_a_share_that_is_being_made_is_refused_to_others_and_to_the_join(clip, tmp_path):
    output = tmp_path / "out.mkv"
    first = start(clip, output, tmp_path / "seen", 0.05, segment="1/2")
    while not (tmp_path / "seen").exists():
        time.sleep(0.01)
    for segment in ("1/2", "join"):
        with pytest.raises(BusyError, match="share-1-of-2: another process"):
            upscale(clip, output, tmp_path / "none", segment=segment)
    with pytest.raises(BusyError):
        upscale(clip, output, tmp_path / "none", restart=True)
    first.kill()
    first.join()


@pytest.fixture
def half(clip, tmp_path):
    output = tmp_path / "half" / "out.mkv"
    output.parent.mkdir()
    share(clip, output, 1)
    return output


def test_other_settings_sources_or_numbers_of_shares_are_refused(clip, half, tmp_path):
    other = make_clip(tmp_path / "other.mp4", size="24x16", rate="5", frames=30)
    with pytest.raises(OtherWorkError, match=r"mode: sequence there, window now.*or remove it"):
        share(clip, half, 2, mode="window")
    with pytest.raises(OtherWorkError, match="source: "):
        share(other, half, 2)
    with pytest.raises(OtherWorkError, match="2 shares there, 3 now"):
        share(clip, half, 2, of=3)
    with pytest.raises(OtherWorkError, match="cuts: auto there, off now"):
        joined(clip, half, cuts="off")
    with pytest.raises(SharesMissingError, match=r"not complete: 2/2 \(2 of 2 segments\);"):
        joined(clip, half)
    assert (half.with_name("out.mkv.d3dnet") / "share-1-of-2" / "000001.nut").exists()


def test_shares_and_whole_runs_are_never_mixed(clip, undisturbed, half, tmp_path):
    with pytest.raises(OtherWorkError, match="holds shares"):
        upscale(clip, half, tmp_path / "seen")
    upscale(clip, half, tmp_path / "seen", restart=True)
    assert same(frames_of(half), undisturbed)
    output = tmp_path / "out.mkv"

    def watch(event):
        if type(event).__name__ == "SegmentDone":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale(clip, output, tmp_path / "seen", watch=watch)
    with pytest.raises(OtherWorkError, match="unfinished work without shares"):
        share(clip, output, 1)
    with pytest.raises(SharesMissingError, match="no shares in"):
        joined(clip, output)


def test_a_join_that_was_broken_off_is_taken_up(clip, half, tmp_path, monkeypatch):
    share(clip, half, 2)
    with monkeypatch.context() as patch:
        patch.setattr("d3dnet.job.upscale.give_name", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            joined(clip, half)
    assert not half.exists()
    assert joined(clip, half)[-1].audit.faults == []
    assert len(frames_of(half)) == FRAMES


def test_images_are_joined_of_shares_too(clip, tmp_path, monkeypatch):
    options = {"model": "bicubic", "frames": 60}
    for name in ("whole", "shares"):
        (tmp_path / name).mkdir()
    upscale_video(clip, tmp_path / "whole" / "%04d.png", **options)
    pattern = tmp_path / "shares" / "%04d.png"
    for number in (1, 2, 3):  # of which one is empty
        upscale_video(clip, pattern, segment=f"{number}/3", **options)
    with monkeypatch.context() as patch:
        patch.setattr("d3dnet.job.finish.audit", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            upscale_video(clip, pattern, segment="join", **options)
    upscale_video(clip, pattern, segment="join", **options)
    names = sorted(os.listdir(tmp_path / "whole"))
    assert sorted(os.listdir(tmp_path / "shares")) == names and len(names) == 60
    for name in names:
        one, other = (tmp_path / folder / name for folder in ("whole", "shares"))
        assert one.read_bytes() == other.read_bytes()


def test_work_that_is_kept_elsewhere_is_joined_from_there(clip, tmp_path):
    (tmp_path / "results").mkdir()
    output, elsewhere = tmp_path / "results" / "out.mkv", tmp_path / "scratch"
    options = {"model": "bicubic", "work_dir": elsewhere, "frames": 60}
    for segment in ("1/2", "2/2", "join"):
        upscale_video(clip, output, segment=segment, **options)
    assert os.listdir(tmp_path / "results") == ["out.mkv"]
    assert os.listdir(elsewhere) == []


def test_on_the_command_line(clip, tmp_path, capsys):
    output = tmp_path / "out.mkv"
    words = [str(clip), str(output), "--model", "bicubic", "--frames", "60"]
    assert main(["join", *words]) == 1
    assert main(["upscale", *words, "--segment", "2/2"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "share 2/2 is complete: 15 frames in" in err
    assert main(["join", *words]) == 1
    assert "shares are not complete: 1/2 (1 of 1 segments)" in capsys.readouterr().err
    assert main(["upscale", *words, "--segment", "1/2"]) == 0
    assert main(["join", *words]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(output)
    for wrong in ("0/2", "3/2", "2", "a/b"):
        assert main(["upscale", *words, "--overwrite", "--segment", wrong]) == 2


def test_a_share_is_a_number_of_so_many():
    assert Share.parse("2/4") == Share(2, 4)
    with pytest.raises(ValueError, match="accepted is I/N"):
        Share.parse("5/4")
