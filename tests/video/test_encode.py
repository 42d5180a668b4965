import os
import signal
import time
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from d3dnet.errors import EncoderError, OutputError
from d3dnet.video.command import first_complaint, segment_command, sorted_arguments
from d3dnet.video.encode import SegmentSink, signals_wait
from d3dnet.video.join import join
from d3dnet.video.picture import ColourTags, layout_of
from d3dnet.video.rehearsal import rehearse
from d3dnet.video.source import VideoSource
from d3dnet.video.streams import Kept
from d3dnet.video.target import Encoding, Target
from tests.video.clips import (
    BUNDLED,
    PROGRAM_IDS,
    PROGRAMS,
    audio_packets,
    make_clip,
    raw_planes,
    video_times,
)

HEIGHT, WIDTH = 36, 52


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    with VideoSource(make_clip(folder / "source.mp4", frames=25, sound=True)) as source:
        yield source


@pytest.fixture(scope="module")
def silent_source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("silent")
    with VideoSource(make_clip(folder / "source.mp4", frames=1)) as source:
        yield source


@pytest.fixture(params=PROGRAMS, ids=PROGRAM_IDS)
def program(request):
    return request.param


def target(pixel_format="yuv420p", codec="ffv1", **changes):
    made = Target(
        height=HEIGHT,
        width=WIDTH,
        layout=layout_of(pixel_format),
        colour=ColourTags(),
        time_base=Fraction(1, 12800),
        frame_rate=Fraction(25),
        encoding=Encoding(codec),
    )
    return replace(made, **changes)


def pictures(layout, count=4):
    random = np.random.default_rng(1)
    return [
        [
            random.integers(0, 2**layout.depth, size).astype(layout.dtype)
            for size in layout.plane_sizes(HEIGHT, WIDTH)
        ]
        for _ in range(count)
    ]


def sound_of(source):
    return Kept(sound={number: "copy" for number in range(len(source.streams.sound))})


def write(path, what, source, program, times, frames=None):
    """In two segments, if there are two frames or more, joined."""
    frames = frames or pictures(what.layout, len(times))
    offset = max(0, -times[0])
    half = (len(times) + 1) // 2
    segments = []
    for part in (slice(half), slice(half, None)):
        if times[part]:
            segments.append(path.with_name(f"{len(segments)}"))
            with SegmentSink(segments[-1], what, program, result=path, offset=offset) as sink:
                for planes, pts in zip(frames[part], times[part], strict=True):
                    sink.write(planes, pts)
    if times[0] < 0:
        source = SimpleNamespace(
            **{
                **vars(source),
                "images": None,
                "end": None,
                "first_pts": times[0],
                "last_shown": None,
            }
        )
    join(segments, path, what, source, program, sound_of(source))
    for segment in segments:
        segment.unlink()
    return frames


@pytest.mark.parametrize(
    ("pixel_format", "full_range"),
    [
        *((name, False) for name in "yuv420p yuv422p yuv444p yuv420p10le yuv422p12le".split()),
        *((name, True) for name in "yuv420p yuv444p16le gray gray10le gray16le".split()),
        *((name, True) for name in "gbrp gbrp10le gbrp16le".split()),
    ],
)
def test_lossless_planes_arrive_untouched(tmp_path, program, source, pixel_format, full_range):
    layout = replace(layout_of(pixel_format), full_range=full_range)
    tags = ColourTags(range=2 if full_range else 1, matrix=0 if "gbr" in pixel_format else 1)
    what = target(layout=layout, colour=tags)
    path = tmp_path / "out.mkv"
    frames = write(path, what, source, program, [0, 512, 1024])
    sizes = layout.plane_sizes(HEIGHT, WIDTH)
    for found, planes in zip(raw_planes(path, pixel_format, sizes), frames, strict=True):
        for theirs, ours in zip(found, planes, strict=True):
            np.testing.assert_array_equal(theirs, ours)


# Time base, times in units of it.
CLOCKS = {
    "constant": (Fraction(1, 12800), [n * 512 for n in range(8)]),
    "variable": (Fraction(1, 12800), [0, 512, 700, 2000, 2001, 9000, 9001, 12799]),
    "late": (Fraction(1, 12800), [40000 + n * 512 for n in range(8)]),
    "ntsc": (Fraction(1001, 30000), list(range(8))),
    "film in transport": (Fraction(1, 90000), [126000 + 3003 * n + n % 2 for n in range(8)]),
    "gaps": (Fraction(1, 100), [0, 1, 2, 10, 11, 50, 51, 52]),
    "millisecond": (Fraction(1, 1000), [0, 33, 67, 100, 133, 167, 200, 233]),
    "microsecond": (Fraction(1, 1000000), [n * 33367 for n in range(8)]),
}


@pytest.mark.parametrize(
    ("clock", "name"),
    [
        *product(CLOCKS, ["out.mp4", "out.mkv"]),
        *product(["variable", "film in transport", "ntsc"], ["out.ts"]),
        *product(["variable", "late"], ["out.mov", "out.nut"]),
    ],
)
def test_times_are_exact_to_one_tick_of_the_container(
    tmp_path, program, silent_source, clock, name
):
    time_base, times = CLOCKS[clock]
    if name in ("out.ts", "out.nut"):  # no room before zero for the decoding times of B-frames
        times = [pts + time_base.denominator for pts in times]
    path = tmp_path / name
    write(path, target(codec="libx264", time_base=time_base), silent_source, program, times)
    found = video_times(path)
    with av.open(str(path)) as container:
        tick = container.streams.video[0].time_base
    assert len(found) == len(times)
    worst = max(abs(a - b * time_base) for a, b in zip(found, times, strict=True))
    assert worst <= (0 if (time_base / tick).denominator == 1 else tick)


@pytest.mark.parametrize(
    ("codec", "pixel_format", "name"),
    [
        ("prores_ks", "yuv422p10le", "out.mov"),
        ("mpeg4", "yuv420p", "out.ts"),
        ("mpeg4", "yuv420p", "out.mp4"),
        ("libx265", "yuv420p", "out.ts"),
        ("libsvtav1", "yuv420p10le", "out.mp4"),
        ("libvpx-vp9", "yuv420p", "out.webm"),
        ("ffv1", "yuv444p", "out.mkv"),
    ],
)
@pytest.mark.parametrize("start", [0, 40000])
def test_segments_of_every_codec_join(
    tmp_path, program, silent_source, codec, pixel_format, name, start
):
    what = target(pixel_format, codec=codec, height=64, width=64)
    times = [start + n * 512 for n in range(12)]
    frames = [
        [np.full(size, 40 + 10 * n, what.layout.dtype) for size in what.layout.plane_sizes(64, 64)]
        for n in range(12)
    ]
    write(tmp_path / name, what, silent_source, program, times, frames)
    found = video_times(tmp_path / name)
    moved = found[0] - Fraction(start, 12800)  # no room before zero for reordering
    assert abs(moved) <= (Fraction(1, 10) if name == "out.ts" else Fraction(1, 1000))
    expected = [Fraction(pts, 12800) + moved for pts in times]
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= Fraction(1, 1000)
    with av.open(str(tmp_path / name)) as container:
        decoding = [packet.dts for packet in container.demux(video=0) if packet.dts is not None]
    assert all(a < b for a, b in pairwise(decoding))


def test_frames_closer_than_a_tick_of_the_container_are_moved_and_never_dropped(
    tmp_path, program, silent_source
):
    path, what = tmp_path / "out.avi", target()  # whose clock has 25 ticks per second
    times = [0, 1, 2, 3, 512, 513, 1024, 1025]
    frames = write(path, what, silent_source, program, times)
    found = raw_planes(path, "yuv420p", what.layout.plane_sizes(HEIGHT, WIDTH))
    assert len(found) == len(times)
    for theirs, ours in zip(found, frames, strict=True):
        np.testing.assert_array_equal(theirs[0], ours[0])
    assert video_times(path) == [Fraction(n, 25) for n in range(8)]


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_pictures_before_zero_begin_at_zero_and_the_sound_moves_with_them(
    tmp_path, program, source, name
):
    times = [-20000, -19000, -512, 0, 700]
    write(tmp_path / name, target(codec="libx264"), source, program, times)
    found = video_times(tmp_path / name)
    assert len(found) == len(times)
    for shown, pts in zip(found, times, strict=True):
        assert abs(shown - Fraction(pts - times[0], 12800)) <= Fraction(1, 1000)
    before, after = audio_packets(source.path), audio_packets(tmp_path / name)
    assert abs(after[0][0] - before[0][0] - 20000 / 12800) < 2e-3


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize(
    "tags",
    [
        ColourTags(),
        ColourTags(range=1, matrix=1, primaries=1, transfer=1, chroma_location="left"),
        ColourTags(range=2, matrix=5, primaries=5, transfer=6, chroma_location="center"),
        ColourTags(range=1, matrix=9, primaries=9, transfer=16, chroma_location="topleft"),
    ],
    ids=["none", "bt709", "jpeg", "hdr"],
)
def test_tags_arrive_as_given_and_flat_colours_are_not_converted(
    tmp_path, program, source, codec, pixel_format, tags
):
    layout = layout_of(pixel_format, full_range=tags.range == 2)
    step = 2 ** (layout.depth - 8)
    frame = [
        np.full(size, value * step, layout.dtype)
        for size, value in zip(layout.plane_sizes(HEIGHT, WIDTH), (200, 90, 170), strict=True)
    ]
    what = target(layout=layout, codec=codec, colour=tags)
    path = tmp_path / "out.mp4"
    write(path, what, source, program, [0, 512], [frame, frame])
    with VideoSource(path) as written:
        found = written.colour
        assert (found.matrix, found.primaries, found.transfer) == (
            tags.matrix,
            tags.primaries,
            tags.transfer,
        )
        # Untagged range may come back as limited, which is what it means.
        assert found.range in ((0, 1) if tags.range == 0 else (tags.range,))
        if tags.chroma_location != "unspecified":
            assert found.chroma_location == tags.chroma_location
        assert written.layout.depth == layout.depth
        for planes in (frame.planes for frame in written.frames()):
            for plane, value in zip(planes, (200, 90, 170), strict=True):
                assert np.abs(plane.astype(int) - value * step).max() <= step


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.ts"])
@pytest.mark.parametrize("start", [0, 40000])
def test_sound_is_copied_packet_by_packet_at_its_distance_to_the_picture(
    tmp_path, program, source, name, start
):
    # The sound begins before zero. What cannot say so moves sound and picture alike.
    path = tmp_path / name
    times = [start + n * 512 for n in range(25)]
    write(path, target(codec="libx264"), source, program, times)
    before, after = audio_packets(source.path), audio_packets(path)
    if name != "out.ts":  # which wraps each packet
        assert [data for _, data in before] == [data for _, data in after]
    assert len(before) == len(after)
    moved = {float(a) - b / 12800 for a, b in zip(video_times(path), times, strict=True)}
    moved |= {b - a for (a, _), (b, _) in zip(before, after, strict=True)}
    assert max(moved) - min(moved) < 2e-3
    if name != "out.ts":
        assert max(map(abs, moved)) <= (1e-3 if name == "out.mkv" else 1e-4)


def test_pixel_aspect_ratio_is_kept(tmp_path, program, source):
    what = target(codec="libx264", sample_aspect_ratio=Fraction(12, 11))
    write(tmp_path / "out.mp4", what, source, program, [0, 512])
    with VideoSource(tmp_path / "out.mp4") as written:
        assert written.sample_aspect_ratio == Fraction(12, 11)


def test_a_segment_appears_only_when_finished_and_nothing_else_stays(tmp_path, program):
    what = target(codec="libx264")
    path = tmp_path / "0.nut"
    sink = SegmentSink(path, what, program, result=Path("out.mp4"))
    sink.write(pictures(what.layout, 1)[0], 0)
    assert not path.exists()
    sink.finish()
    assert os.listdir(tmp_path) == ["0.nut"]
    assert len(video_times(path)) == 1


def test_images_of_a_segment_replace_those_of_one_that_was_not_entered(tmp_path, program):
    what, images = target("gbrp", "png"), set()
    for planes in pictures(what.layout, 2):
        with SegmentSink(tmp_path / "0", what, program, result=Path("%03d.png")) as sink:
            sink.write(planes, 0)
        assert os.listdir(tmp_path) == ["0"]
        assert os.listdir(tmp_path / "0") == ["001.png"]
        images.add((tmp_path / "0" / "001.png").read_bytes())
    assert len(images) == 2


def test_an_exception_leaves_nothing_behind(tmp_path, program):
    what = target(codec="libx264")
    with (
        pytest.raises(KeyboardInterrupt),
        SegmentSink(tmp_path / "0.nut", what, program, result=Path("out.mp4")) as sink,
    ):
        sink.write(pictures(what.layout, 1)[0], 0)
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_an_encoder_that_dies_is_noticed_and_leaves_nothing_behind(tmp_path, program):
    what = target(codec="libx264")
    frames = pictures(what.layout, 1)
    with pytest.raises(EncoderError, match="stopped"):
        with SegmentSink(tmp_path / "0.nut", what, program, result=Path("out.mp4")) as sink:
            sink.write(frames[0], 0)
            sink._feed._process.kill()
            for n in range(1, 10000):  # a pipe holds some frames before it breaks
                sink.write(frames[0], n)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "codec", "complaint"),
    [
        ("out.webm", "libx264", r"\(Only VP8 .*\); choose .*--codec, such as libvpx-vp9, or"),
        ("out.mp4", "prores_ks", r"\(.*codec.*\); choose another --codec, such as libx264, or"),
        ("out.wav", "libx264", r"\); choose another --codec or another container, such as .mkv"),
        ("out.ts", "ffv1", "nothing could read it again"),
    ],
)
def test_a_codec_that_the_container_cannot_hold_is_refused_before_any_work(
    tmp_path, program, source, name, codec, complaint
):
    what, suffix = target("yuv422p10le", codec=codec), Path(name).suffix
    with pytest.raises(OutputError, match=complaint) as caught:
        rehearse(tmp_path / name, tmp_path, what, source, program, sound_of(source))
    assert f"{name}: {suffix} cannot hold what {codec} makes (" in str(caught.value)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_arguments_that_ffmpeg_refuses_are_not_blamed_on_the_container(tmp_path, program, source):
    what = replace(
        target(codec="libx264"), encoding=Encoding("libx264", arguments=("-movflags", "nonsense"))
    )
    with pytest.raises(EncoderError, match=r"stopped.*nonsense"):
        rehearse(tmp_path / "out.mp4", tmp_path, what, source, program, sound_of(source))
    assert os.listdir(tmp_path) == []


def test_a_check_that_succeeds_leaves_nothing_behind(tmp_path, program, source):
    kept = sound_of(source)
    what = target(codec="libx264")
    assert rehearse(tmp_path / "out.mp4", tmp_path, what, source, program, kept) == kept
    assert os.listdir(tmp_path) == []


def test_names_are_never_read_as_options_patterns_or_shell(tmp_path, program, source):
    names = ["-y.mp4", "a b.mp4", "$HOME;x|y&.mp4", "'q' \"r\".mp4", "50%d%%.mp4", "ünï.mp4"]
    for name in [*names, "x" * 200 + ".mp4"]:
        write(tmp_path / name, target(codec="libx264"), source, program, [0])
        assert os.listdir(tmp_path) == [name]
        (tmp_path / name).unlink()


def test_packed_rgb_is_made_of_the_planes_without_loss(tmp_path, program, source):
    what = target("gbrp", codec="ffv1", colour=ColourTags(range=2, matrix=0), encoder_format="bgr0")
    path = tmp_path / "out.mkv"
    frames = write(path, what, source, program, [0, 512])
    found = raw_planes(path, "gbrp", what.layout.plane_sizes(HEIGHT, WIDTH))
    np.testing.assert_array_equal(found, frames)


def test_both_sides_of_the_command_carry_the_same_tags(tmp_path):
    tags = ColourTags(range=1, matrix=9, primaries=9, transfer=16, chroma_location="topleft")
    what = target(colour=tags, codec="libx264")
    command = segment_command(tmp_path / "0.nut", what, BUNDLED, ".mp4")
    middle = command.index("-i")

    def tags_in(words):
        names = ("-color_range", "-colorspace", "-color_primaries", "-color_trc")
        pairs = dict(pairwise(words))
        return {name: pairs.get(name) for name in (*names, "-chroma_sample_location")}

    assert tags_in(command[:middle]) == tags_in(command[middle:])
    assert None not in tags_in(command[:middle]).values()


def test_the_first_complaint_is_told_without_addresses():
    text = (
        "\n[mp4 @ 0x55d0] [x @ 0x1] Could not find tag for codec pcm\n[out#0] Conversion failed!\n"
    )
    assert first_complaint(text) == "Could not find tag for codec pcm"
    assert first_complaint("") == ""


def test_words_for_the_encoder_are_told_from_those_for_the_container_and_the_sound():
    words = "-tune film -movflags +faststart -b:a 96k -vf hue=s=0 -metadata title=-x -g 25".split()
    encoder, container = sorted_arguments(words, ".mp4", BUNDLED)
    assert encoder == "-tune film -vf hue=s=0 -g 25".split()
    assert container == "-movflags +faststart -b:a 96k -metadata title=-x".split()


def test_an_interruption_waits_until_what_is_written_is_whole():
    done = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, none
    try:
        with pytest.raises(KeyboardInterrupt), signals_wait():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            done.append("written")
        assert done == ["written"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
