"""What differs is noticed, whatever made it."""

from fractions import Fraction

import pytest

from d3dnet.events import Kept, Progress
from d3dnet.upscale import upscale_video
from d3dnet.video import OutputError
from d3dnet.video.audit import AuditError, audit
from d3dnet.video.decode import VideoSource
from d3dnet.video.ffmpeg import find_program
from d3dnet.video.streams import keep
from d3dnet.video.target import Encoding, Size, target_of
from tests.video.clips import BUNDLED, ffmpeg, make_clip, video_times


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    return make_clip(
        *(folder / "in.mkv", "-c:v", "libx264", "-qp", 0, "-pix_fmt", "yuv420p"),
        frames=25,
        sound=True,
        filters="boxblur=2,setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709,setsar=4/3",
    )


def compared(clip, result):
    with VideoSource(clip) as source:
        target = target_of(source, Size(), find_program(BUNDLED.path), Encoding())
        return audit(result, source, target, keep(source.streams, result))


@pytest.fixture(scope="module")
def result(clip):
    events = []
    path = upscale_video(
        clip, clip.with_name("out.mkv"), model="bicubic", ffmpeg=BUNDLED.path, watch=events.append
    )
    assert events[-1].audit.faults == []
    return path


def test_a_faithful_result_has_no_faults_and_the_table_says_what_was_compared(clip, result):
    found = compared(clip, result)
    assert found.faults == []
    table = found.table()
    for name in ("size", "frames", "first time", "times", "duration", "picture", "sound 0 moved"):
        assert f"\n{name} " in table
    assert "128×96" in table
    assert "MISMATCH" not in table


SAME = ("-c:a", "copy", "-c:v", "libx264", "-qp", 10, "-fps_mode", "passthrough")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("-vf", "trim=end_frame=24", *SAME), {"frames", "duration"}),
        (("-vf", "setpts=PTS*1.1", *SAME), {"times", "duration"}),
        (("-vf", "setpts=PTS+0.015/TB*mod(N\\,2)", "-enc_time_base", "1/1000", *SAME), {"times"}),
        (("-an", "-c:v", "copy"), {"sound"}),
        (("-vf", "setpts=PTS+0.1/TB", *SAME), {"first time", "sound 0 moved"}),
        (("-vf", "scale=64:48", *SAME), {"size"}),
        (("-vf", "setsar=1", *SAME), {"pixel aspect"}),
        (("-vf", "setparams=colorspace=smpte170m", *SAME), {"colour tags"}),
        (("-vf", "hflip", *SAME), {"picture"}),
        (("-vf", "swapuv", *SAME), {"picture"}),
        (("-vf", "eq=brightness=0.2", *SAME), {"picture"}),
    ],
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, set) else "",
)
def test_what_is_changed_afterwards_is_a_fault_of_that_name(clip, result, tmp_path, words, names):
    changed = tmp_path / "changed.mkv"
    ffmpeg("-copyts", "-i", result, *words, changed)
    assert {row.name for row in compared(clip, changed).faults} == names


def test_an_encoder_that_drops_frames_is_an_error_and_leaves_nothing_behind(clip, tmp_path):
    with pytest.raises(OutputError, match=r"ffmpeg wrote 7 pictures of 25"):
        upscale_video(
            *(clip, tmp_path / "out.mkv"),
            model="bicubic",
            ffmpeg=BUNDLED.path,
            ffmpeg_args=["-fps_mode:v:0", "cfr", "-r:v:0", "5", "-enc_time_base:v:0", "1/5"],
        )
    assert list(tmp_path.iterdir()) == []


def test_an_unfaithful_result_is_an_error_and_does_not_get_its_name(clip, tmp_path):
    output, events = tmp_path / "out.mkv", []
    options = {"model": "bicubic", "ffmpeg": BUNDLED.path, "watch": events.append}
    for _ in range(2):  # no frame is made again, and it is as wrong as before
        with pytest.raises(AuditError, match=r"differs.*picture: scaled down became") as error:
            upscale_video(clip, output, ffmpeg_args=["-filter:v", "negate"], **options)
        assert [path.name for path in tmp_path.iterdir()] == ["out.mkv.d3dnet"]
        made = tmp_path / "out.mkv.d3dnet" / "joined.mkv"
        assert f"to be looked at as {made}." in str(error.value)
        assert "--restart" in str(error.value)
        assert len(video_times(made)) == 25
    assert sum(isinstance(event, Progress) for event in events) == 25
    assert not any(isinstance(event, Kept) for event in events)  # going on is no way out
    upscale_video(clip, output, restart=True, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


def test_variable_times_survive_so_nothing_is_dropped_or_doubled(tmp_path):
    # Two frames within one nominal frame, and a gap of many: the encoder must pass them through.
    source = make_clip(
        *(tmp_path / "in.mkv", "-c:v", "ffv1"),
        *("-enc_time_base", "1/1000"),
        filters="settb=1/1000,setpts='if(lt(N,4),N*3,1000*N)'",
        frames=7,
    )
    output = upscale_video(
        source, tmp_path / "out.mkv", model="bicubic", codec="ffv1", ffmpeg=BUNDLED.path
    )
    with VideoSource(output) as written:
        times = [frame.pts * written.time_base for frame in written.frames()]
    assert times == [Fraction(n, 1000) for n in (0, 3, 6, 9, 4000, 5000, 6000)]
