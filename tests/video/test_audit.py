"""What differs is noticed, whatever made it."""

import re
import subprocess
from fractions import Fraction

import pytest

from d3dnet.errors import AuditError, OutputError
from d3dnet.job.events import Progress, WorkKept
from d3dnet.job.upscale import upscale_video
from d3dnet.video.audit import audit
from d3dnet.video.ffmpeg import find_program
from d3dnet.video.source import VideoSource
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


def faults(source, codec, changes):
    """For each of some words for ffmpeg: faults of a result of `source` that they have changed."""
    program, changed = find_program(BUNDLED.path), source.with_name("changed.mkv")
    output = source.with_name("out.mkv")
    upscale_video(source, output, model="bicubic", codec=codec, ffmpeg=program.path)
    with VideoSource(source) as video:
        target = target_of(video, Size(), program, Encoding(codec))
        for words in changes:
            ffmpeg("-copyts", "-i", output, *words, changed)
            found = audit(changed, video, target, keep(video.streams, changed))
            yield {row.name for row in found.faults}


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """A result beside whose picture there is everything, and what it was made from."""
    folder = tmp_path_factory.mktemp("rich")
    (folder / "font.ttf").write_bytes(bytes(900))
    (folder / "text.srt").write_text("1\n00:00:00,000 --> 00:00:00,100\nHello\n\n")
    chapter = "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=100\ntitle=One\n"
    (folder / "chapters.txt").write_text(f";FFMETADATA1\n{chapter}")
    cover = make_clip(folder / "cover.png", size="20x16", frames=1)
    clip = make_clip(folder / "clip.mkv", "-c:v", "ffv1", filters="boxblur=2")
    source = folder / "in.mkv"
    ffmpeg(
        *("-i", clip, "-i", folder / "text.srt", "-i", folder / "chapters.txt", "-map", 0),
        *("-map", 1, "-map_chapters", 2, "-c:v", "copy"),
        *("-attach", folder / "font.ttf", "-metadata:s:t:0", "mimetype=font/ttf"),
        *("-attach", cover, "-metadata:s:t:1", "mimetype=image/png"),
        *("-metadata:s:t:1", "filename=cover.png", source),
    )
    return source, upscale_video(source, folder / "out.mkv", model="bicubic", ffmpeg=BUNDLED.path)


PICTURE, SUBTITLES, FONT = ("-map", "0:v:0", "-c", "copy"), ("-map", "0:s"), ("-map", "0:t")
COVER = ("-attach", "cover.png", "-metadata:s:t:1", "mimetype=image/png")
COVER += ("-metadata:s:t:1", "filename=cover.png")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((*PICTURE, *SUBTITLES, *FONT, *COVER), set()),
        ((*PICTURE, *FONT, *COVER), {"subtitles"}),
        ((*PICTURE, *SUBTITLES, *(word.replace("t:1", "t:0") for word in COVER)), {"attachments"}),
        ((*PICTURE, *SUBTITLES, *FONT), {"cover art"}),
        ((*PICTURE, *SUBTITLES, *FONT, *COVER, "-map_chapters", -1), {"chapters"}),
    ],
    ids=lambda value: "-".join(sorted(value)) or "none" if isinstance(value, set) else "",
)
def test_what_is_taken_away_beside_the_picture_is_a_fault_of_that_name(
    rich, tmp_path, monkeypatch, words, names
):
    source, result = rich
    monkeypatch.chdir(source.parent)
    changed = tmp_path / "changed.mkv"
    ffmpeg("-copyts", "-i", result, *words, changed)
    assert {row.name for row in compared(source, changed).faults} == names


def test_transparency_that_is_lost_afterwards_is_a_fault_of_that_name(tmp_path):
    clip = make_clip(
        *(tmp_path / "in.mkv", "-c:v", "ffv1", "-pix_fmt", "yuva420p"),
        filters="format=yuva420p,colorchannelmixer=aa=0.5,boxblur=2",
    )
    changes = [("-c:v", "ffv1", "-pix_fmt", name) for name in ("yuva420p", "yuv420p")]
    assert list(faults(clip, "ffv1", changes)) == [set(), {"transparency"}]


def mastering(most, light):
    """Words for libx265, in units of 1/50000, 1/10000 cd/m² and cd/m²."""
    display = f"G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L({most},50)"
    text = f"log-level=error:qp=4:master-display={display}:max-cll={light}"
    return ("-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", text)


PQ = "setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc:range=tv"


@pytest.mark.filterwarnings("ignore:.*trained on SDR")
def test_mastering_metadata_arrives_as_it_was_given_and_another_is_a_fault(tmp_path):
    clip = make_clip(
        *(tmp_path / "in.mkv", *mastering(10000000, "1000,400")), filters=f"boxblur=2,{PQ}"
    )
    others = [(10000000, "1000,400"), (6000000, "1000,400"), (10000000, "1000,300")]
    found = list(faults(clip, "libx265", [mastering(*other) for other in others]))
    assert found == [set(), {"mastering"}, {"mastering"}]
    # What the ffmpeg program says of the result, in its own words.
    shown = subprocess.run(
        [BUNDLED.path, "-i", tmp_path / "out.mkv", "-vf", "showinfo", "-f", "null", "-"],
        capture_output=True,
        check=True,
    ).stderr.decode()
    display = re.search(r"Mastering display metadata.*?(\[?has_primaries.*)", shown).group(1)
    numbers = [float(number) for number in re.findall(r"[\d.]+", display)]
    primaries = [0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329]  # of red, green, blue, white
    assert numbers == pytest.approx([1, 1, *primaries, 0.005, 1000], abs=2e-4)
    assert re.search(r"MaxCLL=1000, MaxFALL=400", shown)


def test_an_encoder_that_drops_frames_is_known_before_the_work(clip, tmp_path):
    with pytest.raises(OutputError, match=r"ffmpeg wrote 3 pictures of 5"):
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
    assert not any(isinstance(event, WorkKept) for event in events)  # going on is no way out
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
