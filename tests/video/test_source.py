import gc
import re
import weakref
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from d3dnet.errors import InputError
from d3dnet.video import hdr
from d3dnet.video.picture import layout_of, planar_format, planes
from d3dnet.video.reading import Reading
from d3dnet.video.source import VideoSource
from d3dnet.video.times import increasing_times
from tests.video.clips import ffmpeg, make_clip, raw_planes, video_times

WIDTH, HEIGHT = 29, 21
ODD = f"format=yuv444p,crop={WIDTH}:{HEIGHT}:1:1"

# stored format, encoder, container; the planar format that holds it
FORMATS = [
    ("yuv420p", "ffv1", "mkv", "yuv420p"),
    ("yuv422p", "ffv1", "mkv", "yuv422p"),
    ("yuv444p", "ffv1", "mkv", "yuv444p"),
    ("yuv440p", "ffv1", "mkv", "yuv440p"),
    ("yuv411p", "ffv1", "mkv", "yuv411p"),
    ("yuv410p", "ffv1", "mkv", "yuv410p"),
    ("yuvj420p", "mjpeg", "avi", "yuvj420p"),
    ("yuva420p", "ffv1", "mkv", "yuva420p"),
    ("yuva444p10le", "ffv1", "mkv", "yuva444p10le"),
    ("yuva422p12le", "ffv1", "mkv", "yuva422p12le"),
    ("yuv420p10le", "ffv1", "mkv", "yuv420p10le"),
    ("yuv422p10le", "ffv1", "mkv", "yuv422p10le"),
    ("yuv444p12le", "ffv1", "mkv", "yuv444p12le"),
    ("nv12", "rawvideo", "nut", "yuv420p"),
    ("yuyv422", "rawvideo", "nut", "yuv422p"),
    ("uyvy422", "rawvideo", "nut", "yuv422p"),
    ("gray", "ffv1", "mkv", "gray"),
    ("gray10le", "ffv1", "mkv", "gray10le"),
    ("gray16le", "ffv1", "mkv", "gray16le"),
    ("rgb24", "rawvideo", "nut", "gbrp"),
    ("bgr24", "bmp", "avi", "gbrp"),
    ("bgra", "ffv1", "mkv", "gbrap"),
    ("rgb48le", "rawvideo", "nut", "gbrp16le"),
    ("gbrp", "ffv1", "mkv", "gbrp"),
    ("gbrp10le", "ffv1", "mkv", "gbrp10le"),
    ("bgra", "gif", "gif", "gbrap"),
    ("pal8", "png", "mkv", "gbrap"),
    ("rgba64be", "png", "mkv", "gbrap16le"),
    ("gbrap12le", "ffv1", "mkv", "gbrap12le"),
    ("ya16be", "png", "mkv", "gbrap16le"),
]


@pytest.mark.parametrize(
    ("stored", "codec", "container", "planar"), FORMATS, ids=[f"{f[0]}-{f[1]}" for f in FORMATS]
)
def test_planes_are_those_that_the_ffmpeg_program_decodes(
    tmp_path, stored, codec, container, planar
):
    pixel_format = [] if codec == "gif" else ["-pix_fmt", stored]
    path = make_clip(
        *(tmp_path / f"clip.{container}", *pixel_format, "-c:v", codec, "-strict", "-2"),
        frames=3,
        filters=ODD,
    )
    with VideoSource(path) as source:
        frames = list(source.frames())
        sizes = source.layout.plane_sizes(source.height, source.width)
        assert (source.height, source.width) == (HEIGHT, WIDTH)
        assert source.layout.pixel_format == planar.replace("yuvj", "yuv")
    expected = raw_planes(path, planar, sizes)
    assert len(frames) == len(expected) == 3
    for frame, stored in zip(frames, expected, strict=True):
        for ours, theirs in zip(frame.planes, stored, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", ["p010le", "p210le"])
def test_ten_bits_in_the_upper_part_of_sixteen_are_ten_bits(tmp_path, kind):
    planar = {"p010le": "yuv420p10le", "p210le": "yuv422p10le"}[kind]
    path = make_clip(tmp_path / "planar.mkv", "-pix_fmt", planar, "-c:v", "ffv1", frames=1)
    with VideoSource(path) as source:
        expected = next(source.frames())
    with av.open(str(path)) as container:
        packed = next(container.decode(video=0)).reformat(format=kind)
    assert planar_format(packed.format) == planar
    for ours, theirs in zip(planes(packed, planar), expected.planes, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "rate", "filters", "options", "times"),
    [
        ("cfr.mp4", "25", "null", [], [Fraction(n, 25) for n in range(6)]),
        ("ntsc.mp4", "30000/1001", "null", [], [Fraction(1001 * n, 30000) for n in range(6)]),
        ("bframes.mp4", "24", "null", ["-bf", 3], [Fraction(n, 24) for n in range(6)]),
        (
            "vfr.mp4",
            "25",
            "settb=1/1000,setpts=N*N*7+N*11",
            ["-enc_time_base", "1/1000"],
            [Fraction(n * n * 7 + n * 11, 1000) for n in range(6)],
        ),
        (
            "late.mp4",
            "25",
            "setpts=PTS+3/TB",
            ["-enc_time_base", "1/12800"],
            [3 + Fraction(n, 25) for n in range(6)],
        ),
        (
            "odd.nut",
            "30000/1001",
            "settb=1001/30000",
            ["-enc_time_base", "1001/30000", "-c:v", "ffv1"],
            [Fraction(1001 * n, 30000) for n in range(6)],
        ),
        ("cfr.avi", "25", "null", ["-c:v", "mpeg4", "-bf", 2], None),
        ("transport.ts", "25", "null", ["-bf", 2], None),
    ],
)
def test_times_are_exactly_those_of_the_file(tmp_path, name, rate, filters, options, times):
    path = make_clip(tmp_path / name, *options, rate=rate, filters=filters, frames=6)
    with VideoSource(path) as source:
        found = [frame.pts * source.time_base for frame in source.frames()]
    steps = {later - earlier for earlier, later in pairwise(found)}
    if times is None:  # the start is the container's affair
        assert (len(found), steps) == (6, {Fraction(1, 25)})
        times = video_times(path)
    assert found == times


@pytest.mark.parametrize("words", [("-bf", 0), ("-bf", 2), ("-c:v", "mpeg4", "-bf", 2)])
def test_times_in_avi_which_has_none_are_those_that_the_ffmpeg_program_finds(tmp_path, words):
    clip = make_clip(tmp_path / "in.avi", "-c:v", "libx264", *words, frames=9, sound=True)
    command = ("-copyts", "-i", clip, "-map", "0:v", "-fps_mode", "passthrough", "-f", "framecrc")
    lines = re.findall(r"^0, +\d+, +(\d+)", ffmpeg(*command, "-").decode(), re.MULTILINE)
    expected = list(map(int, lines))
    with VideoSource(clip) as source:
        assert [frame.pts for frame in source.frames()] == expected
    assert len(expected) == 9


def test_frames_without_an_increasing_time_get_one():
    given = [None, None, 100, 100, 90, 103, None]
    times = [pts for _, pts in increasing_times(((None, pts) for pts in given), step=40)]
    assert times == [0, 40, 100, 101, 102, 103, 143]


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", [(), ("hflip",), ("vflip",)])
def test_rotated_and_flipped_video_comes_out_as_the_ffmpeg_program_shows_it(
    tmp_path, degrees, flip
):
    plain = make_clip(
        *(tmp_path / "plain.mov", "-c:v", "libx264", "-qp", 0, "-pix_fmt", "yuv444p"),
        size="32x20",
        frames=2,
        filters="setsar=4/3",
    )
    path = tmp_path / "turned.mov"
    flips = [option for name in flip for option in (f"-display_{name}",)]
    ffmpeg("-display_rotation", degrees, *flips, "-i", plain, "-c", "copy", path)
    with VideoSource(path) as source:
        frames = list(source.frames())
        size = (source.height, source.width)
        assert size == ((32, 20) if degrees in (90, 270) else (20, 32))
        ratio = Fraction(3, 4) if degrees in (90, 270) else Fraction(4, 3)
        assert source.sample_aspect_ratio == ratio
    for frame, shown in zip(frames, raw_planes(path, "yuv444p", [size] * 3), strict=True):
        for ours, theirs in zip(frame.planes, shown, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_turning_a_picture_turns_where_its_chroma_lies(tmp_path):
    plain = make_clip(tmp_path / "plain.mp4", "-pix_fmt", "yuv420p", size="32x20", frames=1)
    for degrees, offset in [(0, (0.5, 0)), (90, (1, 0.5)), (180, (0.5, 1)), (270, (0, 0.5))]:
        path = tmp_path / f"{degrees}.mp4"
        ffmpeg("-display_rotation", degrees, "-i", plain, "-c", "copy", path)
        with VideoSource(path) as source:
            assert source.layout.chroma_offset == offset


@pytest.mark.parametrize("location", ["left", "center", "topleft"])
def test_tags_are_read(tmp_path, location):
    path = make_clip(
        *(tmp_path / "tagged.mp4", "-pix_fmt", "yuv420p", "-color_range", "pc"),
        *("-chroma_sample_location", location),
        filters="format=yuv420p,setparams=range=pc:colorspace=bt709:color_primaries=bt2020"
        ":color_trc=smpte2084",
        frames=1,
    )
    with VideoSource(path) as source:
        tags = source.colour
        assert (tags.range, tags.matrix, tags.primaries, tags.transfer) == (2, 1, 9, 16)
        assert tags.chroma_location == location
        assert source.layout.full_range
        assert (
            source.layout.chroma_offset
            == {
                "left": (0.5, 0),
                "center": (0.5, 0.5),
                "topleft": (0, 0),
            }[location]
        )


def test_what_is_not_tagged_is_limited_range_and_stays_unspecified(tmp_path):
    path = make_clip(tmp_path / "plain.mp4", "-pix_fmt", "yuv420p", frames=1)
    with VideoSource(path) as source:
        tags = source.colour
        assert (tags.range, tags.matrix, tags.primaries, tags.transfer) == (0, 2, 2, 2)
        assert not source.layout.full_range


def test_grey_that_is_not_tagged_is_full_range_and_says_so_from_then_on(tmp_path):
    path = make_clip(tmp_path / "grey.nut", "-c:v", "rawvideo", "-pix_fmt", "gray", frames=1)
    with VideoSource(path) as source:
        assert source.layout.full_range
        assert source.colour.range == 2


def test_mpeg1_has_its_chroma_in_the_middle(tmp_path):
    path = make_clip(tmp_path / "old.mpg", "-c:v", "mpeg1video", "-pix_fmt", "yuv420p", frames=2)
    with VideoSource(path) as source:
        assert source.layout.chroma_offset == (0.5, 0.5)


def test_cover_art_is_not_taken_for_the_video(tmp_path):
    cover = make_clip(tmp_path / "cover.png", size="64x64", frames=1)
    sound = make_clip(tmp_path / "sound.mp4", frames=3, sound=True)
    ffmpeg(
        *("-i", cover, "-i", sound, "-map", 0, "-map", 1, "-c", "copy"),
        *("-disposition:v:0", "attached_pic", tmp_path / "both.mp4"),
    )
    with VideoSource(tmp_path / "both.mp4") as source:
        assert (source.width, source.height) == (32, 24)
    ffmpeg(
        *("-i", cover, "-i", sound, "-map", 0, "-map", "1:a", "-c", "copy"),
        *("-disposition:v:0", "attached_pic", tmp_path / "song.m4a"),
    )
    with pytest.raises(InputError, match="no video stream"):
        VideoSource(tmp_path / "song.m4a")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"This is not a video.\n" * 50, "not a readable video"),
        (bytes(range(256)) * 64, "not a readable video"),
    ],
)
def test_what_is_no_video_is_refused_in_one_line(tmp_path, content, complaint):
    path = tmp_path / "input.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=complaint) as caught:
        VideoSource(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no images there"):
        VideoSource(tmp_path)


def test_sound_alone_is_refused(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "sound.m4a")
    with pytest.raises(InputError, match="no video stream, only: audio"):
        VideoSource(tmp_path / "sound.m4a")


@pytest.mark.parametrize("size", ["1x1", "2x1", "3x5", "8x8"])
def test_any_size_is_read(tmp_path, size):
    path = make_clip(
        *(tmp_path / "small.mkv", "-c:v", "ffv1", "-pix_fmt", "yuv444p"),
        size="16x16",
        filters=f"format=yuv444p,crop={size.replace('x', ':')}:0:0:exact=1",
        frames=1,
    )
    with VideoSource(path) as source:
        assert f"{source.width}x{source.height}" == size
        assert len(list(source.frames())) == 1


def test_a_file_cut_off_in_its_index_is_refused(tmp_path):
    path = make_clip(tmp_path / "cut.mp4", frames=20)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="not a readable video"):
        VideoSource(path)


def test_a_change_of_size_within_the_stream_is_an_error_that_says_so(tmp_path):
    parts = [
        make_clip(tmp_path / f"{size}.ts", "-bf", 0, size=size, frames=3)
        for size in ("32x24", "48x32")
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with VideoSource(joined) as source, pytest.raises(InputError, match="the picture changes"):
        list(source.frames())


def test_interlaced_video_is_refused_or_made_whole(tmp_path):
    path = make_clip(
        *(tmp_path / "tv.mp4", "-c:v", "libx264", "-flags", "+ilme+ildct", "-pix_fmt", "yuv420p"),
        size="32x32",
        filters="setfield=tff",
        frames=6,
    )
    with pytest.raises(InputError, match=r"interlaced.*--deinterlace"):
        VideoSource(path)
    with VideoSource(path, Reading(deinterlace=True)) as source:
        frames = list(source.frames())
        assert [frame.pts * source.time_base for frame in frames] == video_times(path)
    # The program's own filter, on the same pictures.
    raw = ffmpeg(
        *("-i", path, "-vf", "bwdif=mode=send_frame", "-fps_mode", "passthrough"),
        *("-f", "rawvideo", "-pix_fmt", "yuv420p", "-"),
    )
    expected = np.frombuffer(raw, np.uint8).reshape(6, -1)
    found = [np.concatenate([p.ravel() for p in frame.planes]) for frame in frames]
    assert np.abs(np.array(found).astype(int) - expected).mean() < 0.5


def test_fields_that_no_flag_tells_of_are_made_whole_when_asked(tmp_path):
    path = make_clip(
        *(tmp_path / "tv.mkv", "-c:v", "ffv1", "-pix_fmt", "yuv420p"),
        size="32x32",
        rate="50",
        filters="tinterlace=interleave_top,setfield=prog",
        frames=6,
    )
    with VideoSource(path) as source:
        combed = [frame.planes[0] for frame in source.frames()]
    with VideoSource(path, Reading(deinterlace=True)) as source:
        found = [frame.planes[0] for frame in source.frames()]
    raw = ffmpeg(
        *("-i", path, "-vf", "bwdif=mode=send_frame:parity=tff", "-fps_mode", "passthrough"),
        *("-f", "rawvideo", "-pix_fmt", "yuv420p", "-"),
    )
    expected = np.frombuffer(raw, np.uint8).reshape(6, 48, 32)[:, :32].astype(int)
    assert np.abs(found - expected).mean() < 0.5
    assert np.abs(combed - expected).mean() > 1


def test_names_are_never_read_as_options_protocols_or_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = make_clip(tmp_path / "clip.mp4", frames=1)
    for name in ["-i.mp4", "a:b.mp4", "50%d $HOME; 'x' \"y\".mp4", "ünï côdé.mp4"]:
        (tmp_path / name).write_bytes(clip.read_bytes())
        with VideoSource(name) as source:
            assert len(list(source.frames())) == 1


@pytest.mark.parametrize("name", ["nv12", "yuv420p10be", "ya16le", "rgb24", "pal8", "monow"])
def test_only_planar_formats_have_a_layout(name):
    with pytest.raises(ValueError, match="not planar"):
        layout_of(name)


def test_a_change_of_size_is_an_error_where_fields_are_made_whole_too(tmp_path):
    for size in ("48x32", "64x32"):
        make_clip(tmp_path / f"{size}.m2v", "-c:v", "mpeg2video", "-flags", "ildct", size=size)
    path = tmp_path / "in.m2v"
    path.write_bytes(b"".join((tmp_path / f"{s}.m2v").read_bytes() for s in ("48x32", "64x32")))
    with VideoSource(path, Reading(deinterlace=True)) as source:
        found = []
        with pytest.raises(InputError, match="the picture changes from"):
            for frame in source.frames():
                found.append(frame.planes[0].shape)
        assert found == [(32, 48)] * 4  # FFmpeg's decoder drops the last one


def test_captions_that_are_lost_are_told():
    side_data = {"A53_CC": b"cc", "STEREO3D": b"\0\0\0\0"}
    assert hdr.lost_metadata(side_data) == ["closed captions"]
    side_data["STEREO3D"] = b"\1\0\0\0"
    assert hdr.lost_metadata(side_data) == ["closed captions", "its mark as stereo 3-D"]


@pytest.mark.parametrize("deinterlace", [False, True])
def test_a_source_is_freed_at_once(tmp_path, deinterlace):
    """Not by the garbage collector, which has crashed in PyAV's objects."""
    source = VideoSource(make_clip(tmp_path / "in.mp4"), Reading(deinterlace=deinterlace))
    next(source.frames())
    source.close()
    gone = weakref.ref(source)
    gc.disable()
    try:
        del source
        assert gone() is None
    finally:
        gc.enable()
