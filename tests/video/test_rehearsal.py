"""What goes into a result, and what cannot, is known before the work."""

import re
import struct
import warnings
from fractions import Fraction

import av
import numpy as np
import pytest

from d3dnet.errors import OutputError
from d3dnet.job.events import Progress
from d3dnet.job.upscale import upscale_video
from d3dnet.video.source import VideoSource
from tests.video.clips import BUNDLED, PROGRAM_IDS, PROGRAMS, ffmpeg, make_clip, video_times

PICTURE = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25,boxblur=1")
TONE = ("-f", "lavfi", "-i", "sine=440:sample_rate=48000")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
both = pytest.mark.parametrize("program", PROGRAMS, ids=PROGRAM_IDS)


def upscaled(path, output, program=BUNDLED, **more):
    """What is warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        upscale_video(path, output, model="bicubic", ffmpeg=program.path, **more)
    return [str(each.message) for each in caught]


def refused(path, output, program=BUNDLED, **more):
    """Why nothing is made; no frame is, before that is known."""
    events = []
    with pytest.raises(OutputError) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        upscale_video(
            path, output, model="bicubic", ffmpeg=program.path, watch=events.append, **more
        )
    assert not any(isinstance(event, Progress) for event in events)
    assert not output.exists()
    return str(caught.value)


def lengths(path):
    """Seconds of the file, and of each of its streams that says so."""
    with av.open(str(path)) as container:
        streams = [
            float(stream.duration * stream.time_base)
            for stream in container.streams
            if stream.duration
        ]
        return container.duration / av.time_base, streams


def codecs(path):
    with av.open(str(path)) as container:
        return [stream.codec_context.name for stream in container.streams]


def without_packets(path, pid, share):
    """A transport stream without the packets of a PID in the first part of it."""
    data = path.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    path.write_bytes(
        b"".join(
            packet
            for number, packet in enumerate(packets)
            if (packet[1] & 31) << 8 | packet[2] != pid or number > share * len(packets)
        )
    )
    return path


@pytest.fixture(scope="module")
def two_tracks(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "in.ts"
    ffmpeg(*PICTURE, *TONE, *TONE, "-t", 0.6, "-map", 0, "-map", 1, "-map", 2, *H264, path)
    return path


@both
@pytest.mark.parametrize("output", ["out.mkv", "out.mp4", "out.ts"])
def test_a_track_that_is_announced_and_never_comes_is_left_out(
    two_tracks, tmp_path, program, output
):
    path = tmp_path / "in.ts"
    path.write_bytes(two_tracks.read_bytes())
    told = upscaled(without_packets(path, 0x102, 1), tmp_path / output, program)
    assert len(told) == 1
    assert re.search(r"left out sound 1 \(\w+\), which has no content", told[0])
    assert len(codecs(tmp_path / output)) == 2


def test_a_track_that_never_comes_may_be_the_only_one(tmp_path):
    path = tmp_path / "in.ts"
    ffmpeg(*PICTURE, *TONE, "-t", 0.4, *H264, path)
    told = upscaled(without_packets(path, 0x101, 1), tmp_path / "out.mkv")
    assert "left out sound 0" in told[0]
    assert codecs(tmp_path / "out.mkv") == ["h264"]


@both
def test_a_track_that_begins_after_the_probing_is_kept(tmp_path, program):
    path = tmp_path / "in.ts"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=16x16:r=5", *TONE, *TONE, "-t", 14),
        *("-map", 0, "-map", 1, "-map", 2, *H264, "-c:a", "aac", path),
    )
    without_packets(path, 0x102, 0.85)
    assert upscaled(path, tmp_path / "out.mkv", program) == []
    with av.open(str(tmp_path / "out.mkv")) as container:
        late = [p.pts * p.time_base for p in container.demux(audio=1) if p.size]
    assert 11 < min(late) < 13.5
    assert 14 < max(late) < 16


@both
def test_a_track_that_nobody_decodes_is_copied_or_left_out(tmp_path, program):
    path = make_clip(tmp_path / "in.mkv", *H264, "-c:a", "aac", sound=True)
    data = path.read_bytes().replace(b"A_AAC", b"A_XYZ")
    path.write_bytes(data)
    told = upscaled(path, tmp_path / "out.mp4", program)
    assert any("left out sound 0 (unknown)" in text for text in told)
    assert codecs(tmp_path / "out.mp4") == ["h264"]


def chirp(path, *words, seconds=1.6):
    """A video with a tone whose height tells the time: 500 Hz a second."""
    ffmpeg(
        *(*PICTURE, "-f", "lavfi", "-i", "aevalsrc=0.5*sin(2*PI*(400*t+250*t*t)):s=48000"),
        *("-t", seconds, *words, path),
    )
    return path


def heights(path):
    """Of the tone, in Hz, at each tenth of a second, by counting where it crosses zero."""
    raw = ffmpeg(
        "-i",
        path,
        "-map",
        "0:a",
        "-af",
        "aresample=48000:async=1:first_pts=0",
        "-ac",
        1,
        "-f",
        "f32le",
        "-",
    )
    samples = np.frombuffer(raw, np.float32)
    pieces = samples[: len(samples) // 4800 * 4800].reshape(-1, 4800)
    return [10 * int(((piece[:-1] < 0) & (piece[1:] >= 0)).sum()) for piece in pieces]


@both
@pytest.mark.parametrize(
    ("words", "output", "options"),
    [
        (("-c:v", "mjpeg", "-c:a", "pcm_u8"), "out.mp4", {}),
        ((*H264, "-c:a", "aac"), "out.webm", {"codec": "libvpx-vp9", "end": 1.4}),
        ((*H264, "-c:a", "pcm_s16le"), "out.ts", {}),
        (("-c:v", "ffv1", "-c:a", "libvorbis"), "out.avi", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_sound_of_a_part_is_that_of_this_part_where_it_is_encoded_again(
    tmp_path, program, words, output, options
):
    name = "in.avi" if "pcm_u8" in words else "in.mkv"
    path = chirp(tmp_path / name, *words)
    told = upscaled(path, tmp_path / output, program, start=0.6, **options)
    assert any("encoded again" in text for text in told)
    found = heights(tmp_path / output)[1:7]
    expected = [400 + 500 * (0.6 + tenth / 10 + 0.05) for tenth in range(1, 7)]
    np.testing.assert_allclose(found, expected, atol=35)  # 30 ms are 15 Hz


RATES = {"25": Fraction(25), "30000/1001": Fraction(30000, 1001), "24": Fraction(24)}


@both
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("output", ["out.mkv", "out.mp4", "out.mov", "out.webm"])
def test_a_result_is_as_long_as_its_source(tmp_path, program, output, rate):
    path = make_clip(tmp_path / "in.avi", "-c:v", "mjpeg", frames=8, rate=rate)
    codec = "libvpx-vp9" if output.endswith("webm") else "libx264"
    upscaled(path, tmp_path / output, program, codec=codec)
    whole, streams = lengths(tmp_path / output)
    for seconds in (whole, *streams):
        assert seconds == pytest.approx(float(8 / RATES[rate]), abs=0.002)


@both
@pytest.mark.parametrize("output", ["out.mkv", "out.mp4", "out.mov"])
def test_the_last_picture_is_shown_as_long_as_in_the_source(tmp_path, program, output):
    path = tmp_path / "hold.gif"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=32x24:r=5", "-frames:v", 4, "-final_delay", 500, path)
    assert upscaled(path, tmp_path / output, program) == []
    if output != "out.mkv":
        # In the header; what the samples add up to depends on the order in which they are coded.
        data = (tmp_path / output).read_bytes()
        ticks, length = struct.unpack_from(">II", data, data.index(b"mvhd") + 16)
        assert length / ticks == pytest.approx(5.6, abs=0.002)
    else:
        assert lengths(tmp_path / output)[0] == pytest.approx(5.6, abs=0.002)
    assert [float(time) for time in video_times(tmp_path / output)] == [0, 0.2, 0.4, 0.6]


@both
def test_the_last_picture_of_a_part_ends_with_it(tmp_path, program):
    path = make_clip(tmp_path / "in.mkv", *H264, frames=10)
    upscaled(path, tmp_path / "out.mp4", program, start=0.08, end=0.3)
    assert lengths(tmp_path / "out.mp4")[0] == pytest.approx(0.22, abs=0.021)


@both
@pytest.mark.parametrize(
    ("output", "codec", "reason"),
    [
        ("out.m2ts", "ffv1", "nothing could read it again"),
        ("out.mts", "ffv1", "nothing could read it again"),
        ("out.wmv", "libx264", "pictures change their times"),
        ("out.mp4", "wmv2", "codec"),
    ],
)
def test_pictures_that_a_container_cannot_hold_are_known_before_the_work(
    tmp_path, program, output, codec, reason
):
    path = make_clip(tmp_path / "in.mp4", *H264)
    text = refused(path, tmp_path / output, program, codec=codec)
    assert reason in text and "cannot hold what" in text and "\n" not in text


@both
def test_sound_of_whole_blocks_is_encoded_again_for_quicktime(tmp_path, program):
    path = tmp_path / "in.avi"
    ffmpeg(
        *(*PICTURE, "-f", "lavfi", "-i", "sine=sample_rate=22050", "-t", 1.2),
        *("-c:v", "msvideo1", "-c:a", "adpcm_ima_wav", path),
    )
    told = upscaled(path, tmp_path / "out.mov", program)
    assert len(told) == 1 and "adpcm_ima_wav as aac" in told[0]


@both
@pytest.mark.parametrize("layout", ["5.1(side)", "5.0(side)", "quad(side)", "4.0"])
def test_sound_of_every_layout_goes_into_webm(tmp_path, program, layout):
    path = tmp_path / "in.mkv"
    ffmpeg(
        *(*PICTURE, "-f", "lavfi", "-i", f"sine=440,aformat=channel_layouts={layout}"),
        *("-t", 0.2, *H264, "-c:a", "flac", path),
    )
    told = upscaled(path, tmp_path / "out.webm", program, codec="libvpx-vp9")
    assert len(told) == 1 and "flac as libopus" in told[0]


APPLE = {
    "com.apple.quicktime.location.ISO6709": "+10.0000+020.0000/",
    "com.apple.quicktime.make": "Apple",
    "title": "A day",
}


@both
@pytest.mark.parametrize("output", ["out.mov", "out.mp4", "out.mkv"])
def test_tags_of_phones_are_kept(tmp_path, program, output):
    tags = [word for key, value in APPLE.items() for word in ("-metadata", f"{key}={value}")]
    path = make_clip(tmp_path / "in.mov", *H264, "-movflags", "use_metadata_tags", *tags)
    assert upscaled(path, tmp_path / output, program) == []
    with av.open(str(tmp_path / output)) as container:
        found = {key.lower(): value for key, value in container.metadata.items()}
    assert {key: found.get(key.lower()) for key in APPLE} == APPLE


@both
def test_tags_that_a_container_has_no_room_for_are_named(tmp_path, program):
    path = make_clip(
        *(tmp_path / "in.mkv", *H264, "-metadata:s:v", "title=Left eye", "-metadata:s:a"),
        *("REPLAYGAIN_TRACK_GAIN=-3 dB", "-metadata", "ARTIST=Someone"),
        sound=True,
    )
    told = upscaled(path, tmp_path / "out.mp4", program)
    assert any("REPLAYGAIN_TRACK_GAIN of sound 0" in text for text in told)
    assert any("title of the picture" in text for text in told)
    assert not any("artist" in text.lower() for text in told)  # which it has room for


@both
def test_a_timecode_that_drops_frames_is_kept_or_named_where_they_vary(tmp_path, program):
    path = make_clip(
        *(tmp_path / "in.mov", *H264, "-timecode", "01:00:00;00"),
        rate="30000/1001",
        frames=18,
        filters="select='not(eq(n,7))'",
    )
    told = upscaled(path, tmp_path / "out.mov", program)
    with av.open(str(tmp_path / "out.mov")) as container:
        found = container.streams.video[0].metadata.get("timecode")
    assert found == "01:00:00;00" or any("the tags timecode" in text for text in told)


@both
@pytest.mark.parametrize("start", [50000, 95000])
def test_a_clock_that_begins_late_begins_at_zero_elsewhere(tmp_path, program, start):
    path = tmp_path / "in.ts"
    ffmpeg(*PICTURE, *TONE, "-t", 0.6, *H264, "-output_ts_offset", start, path)
    with av.open(str(path)) as container:
        begins = container.start_time / av.time_base
    told = upscaled(path, tmp_path / "out.mp4", program)
    assert len(told) == 1 and f"begins at {begins:.3f} s; the result begins at zero" in told[0]
    assert lengths(tmp_path / "out.mp4")[0] < 0.75
    assert upscaled(path, tmp_path / "out.ts", program) == []
    assert float(video_times(tmp_path / "out.ts")[0]) == pytest.approx(
        float(video_times(path)[0]), abs=0.03
    )


def test_no_warning_recommends_the_container_that_is_asked_for(tmp_path):
    for name in ("in.mkv", "in.ts"):
        path = make_clip(tmp_path / name, *H264, "-c:a", "aac", sound=True)
        for text in upscaled(path, tmp_path / "out.mkv", overwrite=True):
            assert ".mkv can" not in text and ".mkv would" not in text


def test_nothing_is_left_behind_by_a_rehearsal(tmp_path):
    path = make_clip(tmp_path / "in.mp4", *H264)
    refused(path, tmp_path / "out.m2ts", codec="ffv1")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
    with VideoSource(path) as source:
        assert source.last_shown.end - source.last_shown.time == Fraction(1, 25)
