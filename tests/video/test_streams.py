"""What is beside the picture comes through as it was."""

import warnings
from pathlib import Path

import av
import pytest
from av.stream import Disposition

from d3dnet.job.upscale import upscale_video
from d3dnet.video.streams import Streams, keep, subtitle_encoders
from tests.video.clips import PROGRAM_IDS, PROGRAMS, ffmpeg, make_clip


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        (".mkv", {0: "copy", 1: "srt", 2: "copy"}),
        (".mp4", {0: "mov_text", 1: "copy"}),
        (".WEBM", {0: "webvtt", 1: "webvtt"}),
        (".ts", {}),
    ],
)
def test_subtitles_are_copied_or_become_what_the_container_holds(suffix, expected):
    assert subtitle_encoders(["subrip", "mov_text", "hdmv_pgs_subtitle"], suffix) == expected


@pytest.mark.parametrize(
    ("suffix", "warning"),
    [
        (".mkv", "left out, whatever the container: {always}"),
        (
            ".mp4",
            ".mp4 cannot hold subtitles 1 (hdmv_pgs_subtitle), 2 attachments; .mkv can; "
            "left out, whatever the container: {always}",
        ),
        (
            ".ts",
            ".ts cannot hold subtitles 0 (subrip), subtitles 1 (hdmv_pgs_subtitle), 2 attachments, "
            "cover art, chapters; .mkv can; left out, whatever the container: {always}",
        ),
    ],
)
def test_one_warning_names_everything_that_is_lost_and_the_container_that_keeps_it(suffix, warning):
    everything = Streams(
        sound=("aac",),
        subtitles=("subrip", "hdmv_pgs_subtitle", "dvb_teletext"),
        covers=((1, "png"),),
        videos=1,
        data=2,
        attachments=2,
        chapters=3,
    )
    with pytest.warns(UserWarning) as caught:
        keep(everything, Path("out" + suffix))
    always = "subtitles 2 (dvb_teletext), 1 further video stream, 2 data streams"
    assert [str(each.message) for each in caught] == [
        f"out{suffix}: {warning.format(always=always)}"
    ]


def test_what_a_container_can_hold_is_no_reason_for_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keep(Streams(sound=("aac",), subtitles=("subrip",), chapters=3), Path("out.mp4"))


FONT, WORDS = bytes(range(256)) * 9, "1\n00:00:00,100 --> 00:00:00,400\nHello\n\n"
CHAPTERS = """;FFMETADATA1
title=A title
artist=Somebody
[CHAPTER]
TIMEBASE=1/1000
START=0
END=400
title=One
[CHAPTER]
TIMEBASE=1/1000
START=400
END=1000
title=Two
"""


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """A file with everything in it, and its cover."""
    folder = tmp_path_factory.mktemp("rich")
    clip = make_clip(folder / "clip.mp4", "-pix_fmt", "yuv420p", frames=25, sound=True)
    for name, content in [("font.ttf", FONT), ("text.srt", WORDS.encode())]:
        (folder / name).write_bytes(content)
    (folder / "chapters.txt").write_text(CHAPTERS)
    cover = make_clip(folder / "cover.jpg", "-q:v", 2, size="20x16", frames=1)
    source = folder / "in.mkv"
    texts = folder / "text.srt"
    ffmpeg(
        *("-i", clip, "-i", texts, "-i", texts, "-i", folder / "chapters.txt"),
        *("-map", "0:v", "-map", "0:a", "-map", "0:a", "-map", 1, "-map", 2, "-c", "copy"),
        *("-map_metadata", 3, "-map_chapters", 3),
        *("-metadata:s:v", "title=Main", "-metadata:s:v", "language=nld"),
        *("-metadata:s:a:0", "language=deu", "-metadata:s:a:1", "language=fra"),
        *("-metadata:s:a:1", "title=Commentary", "-metadata:s:s:0", "language=eng"),
        *("-metadata:s:s:1", "language=ita", "-disposition:v", "default"),
        *("-disposition:a:0", "0", "-disposition:a:1", "default+comment"),
        *("-disposition:s:0", "forced", "-disposition:s:1", "hearing_impaired"),
        *("-attach", folder / "font.ttf", "-metadata:s:t:0", "mimetype=font/ttf"),
        *("-metadata:s:t:0", "filename=font.ttf"),
        *("-attach", cover, "-metadata:s:t:1", "mimetype=image/jpeg"),
        *("-metadata:s:t:1", "filename=cover.jpg", source),
    )
    return source, cover.read_bytes()


def contents(path):
    """All that is beside the picture of a file."""
    with av.open(str(path)) as container:
        streams = [s for s in container.streams if s.type in ("audio", "subtitle")]
        covers = [s for s in container.streams.video if s.disposition & Disposition.attached_pic]
        pictures = []
        for stream in covers:
            container.seek(0)
            pictures += [bytes(packet) for packet in container.demux(stream) if packet.size][:1]
        return {
            "global": {k.lower(): v for k, v in container.metadata.items()},
            "picture": container.streams.video[0].metadata,
            "streams": [
                (s.type, s.language, s.metadata.get("title"), s.disposition) for s in streams
            ],
            "chapters": [
                (
                    c["metadata"]["title"],
                    float(c["start"] * c["time_base"]),
                    float(c["end"] * c["time_base"]),
                )
                for c in container.chapters()
            ],
            "attachments": [
                (s.name, s.mimetype, bytes(s.data)) for s in container.streams.attachments
            ],
            "covers": pictures,
        }


@pytest.mark.parametrize("program", PROGRAMS, ids=PROGRAM_IDS)
def test_matroska_keeps_everything_beside_the_picture_to_the_byte(tmp_path, program, rich):
    source, cover = rich
    output = upscale_video(source, tmp_path / "out.mkv", model="bicubic", ffmpeg=program.path)
    before, after = contents(source), contents(output)
    assert before["covers"] == after["covers"] == [cover]
    assert [data for *_, data in before["attachments"]] == [FONT]
    assert len(before["streams"]) == 4
    for what in ("streams", "chapters", "attachments"):
        assert after[what] == before[what], what
    for tags in ("title", "artist"):
        assert after["global"][tags] == before["global"][tags]
    assert (after["picture"]["title"], after["picture"]["language"]) == ("Main", "nld")
    assert [chapter[0] for chapter in after["chapters"]] == ["One", "Two"]


@pytest.mark.parametrize("program", PROGRAMS, ids=PROGRAM_IDS)
@pytest.mark.filterwarnings("ignore:.*cannot hold 1 attachment")
def test_mp4_keeps_languages_flags_chapters_and_the_cover(tmp_path, program, rich):
    source, cover = rich
    output = upscale_video(source, tmp_path / "out.mp4", model="bicubic", ffmpeg=program.path)
    before, after = contents(source), contents(output)
    assert after["covers"] == [cover]
    assert after["chapters"] == before["chapters"]
    languages = [[stream[:2] for stream in file["streams"]] for file in (after, before)]
    assert languages[0] == languages[1]
    assert after["global"]["title"] == "A title"
    # MP4 has no mark of a comment; it has those of the default and of the hard of hearing.
    marks = [[bool(s[3] & Disposition.default) for s in f["streams"][:2]] for f in (after, before)]
    assert marks[0] == marks[1] == [False, True]


def test_mov_has_no_covers_and_a_part_in_mp4_has(tmp_path, rich):
    source, cover = rich
    with pytest.warns(UserWarning, match=r"\.mov cannot hold .*cover art"):
        output = upscale_video(source, tmp_path / "out.mov", model="bicubic", frames=3)
    assert contents(output)["covers"] == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output = upscale_video(source, tmp_path / "o.mp4", model="bicubic", start=0.5, frames=3)
    assert contents(output)["covers"] == [cover]


def test_a_cover_that_a_container_cannot_hold_is_told_before_any_work(tmp_path, rich):
    with warnings.catch_warnings(record=True) as told:
        kept = keep(Streams(covers=((1, "gif"), (2, "png"))), tmp_path / "out.mp4")
    assert kept.covers == ((2, "png"),)
    assert "cover art" in str(told[0].message)


def test_a_part_without_a_packet_of_the_sound_is_made_without_it(tmp_path):
    """At 100 frames a second there are two, or three, to a packet."""
    source = make_clip(tmp_path / "in.mkv", "-c:a", "aac", frames=25, rate="100", sound=True)
    with av.open(str(source)) as container:
        times = [float(p.pts * p.time_base) for p in container.demux(audio=0) if p.size]
    number = next(n for n in range(9, 25) if not any(n <= 100 * t < n + 1 for t in times))
    output = upscale_video(
        source, tmp_path / "out.mp4", model="bicubic", start=number / 100, frames=1
    )
    with av.open(str(output)) as container:
        assert not container.streams.audio
