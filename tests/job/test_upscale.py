"""The whole path, from a file to a file, with networks whose results are known."""

import itertools
import os
import re
import warnings
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr

import d3dnet
from d3dnet.errors import InputError, OutputError
from d3dnet.job.events import Progress
from d3dnet.job.frames import upscale_frames
from d3dnet.job.pipeline import READ_AHEAD
from d3dnet.job.upscale import upscale_video
from d3dnet.network.checkpoints import bundled_models
from d3dnet.network.model import D3Dnet
from d3dnet.video.colour import from_network, to_network
from d3dnet.video.source import VideoSource
from tests.network.stand_in import BilinearNetwork, enlarge
from tests.video.clips import (
    PROGRAM_IDS,
    PROGRAMS,
    audio_packets,
    ffmpeg,
    make_clip,
    video_times,
)

SAMPLE = Path(__file__).parents[2] / "data" / "sample.mp4"


@pytest.fixture(params=PROGRAMS, ids=PROGRAM_IDS)
def program(request):
    return request.param


def upscale(source, output, program, **options):
    return upscale_video(
        source, output, **{"model": BilinearNetwork(), "ffmpeg": program.path, **options}
    )


def read(path):
    """Layout, tags, and every frame of a file."""
    with VideoSource(path) as source:
        return source.layout, source.colour, [frame.planes for frame in source.frames()]


def smaller(plane):
    return plane.reshape(plane.shape[0] // 4, 4, plane.shape[1] // 4, 4).mean((1, 3))


STORED = {
    "4:2:0": (["-pix_fmt", "yuv420p", "-c:v", "ffv1"], "mkv"),
    "4:2:2": (["-pix_fmt", "yuv422p", "-c:v", "ffv1"], "mkv"),
    "4:4:4": (["-pix_fmt", "yuv444p", "-c:v", "ffv1"], "mkv"),
    "full range": (["-pix_fmt", "yuvj420p", "-c:v", "mjpeg", "-qmin", 1, "-q:v", 1], "avi"),
    "ten bits": (["-pix_fmt", "yuv420p10le", "-c:v", "ffv1"], "mkv"),
    "ten bits 4:4:4": (["-pix_fmt", "yuv444p10le", "-c:v", "ffv1"], "mkv"),
    "grey": (["-pix_fmt", "gray", "-c:v", "ffv1"], "mkv"),
    "grey ten bits": (["-pix_fmt", "gray10le", "-c:v", "ffv1"], "mkv"),
    "rgb": (["-pix_fmt", "gbrp", "-c:v", "libx264rgb", "-qp", 0], "mkv"),
    "gif": ([], "gif"),
}


@pytest.mark.parametrize("kind", STORED)
def test_lossless_output_is_exactly_what_the_network_and_the_chroma_make(tmp_path, program, kind):
    options, container = STORED[kind]
    options = ["-pix_fmt", "bgr0", *options[2:]] if kind == "rgb" else options
    source = make_clip(tmp_path / f"in.{container}", *options, size="30x22")
    output = upscale(source, tmp_path / "out.mkv", program, codec="ffv1")
    layout, _, before = read(source)
    made, _, after = read(output)
    assert (made.depth, made.family, made.full_range) == (
        layout.depth,
        layout.family,
        layout.full_range,
    )
    assert made.chroma_step == layout.chroma_step
    assert len(after) == len(before)
    for small, large in zip(before, after, strict=True):
        luma, chroma = to_network(small, layout)
        expected = from_network(
            enlarge(torch.from_numpy(luma)[None, None])[0, 0].numpy(), chroma, layout, made
        )
        for ours, theirs in zip(large, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        # And, sharing no code with the conversion: the mean of 4×4 is near the source.
        for ours, stored in zip(large, small, strict=True):
            error = smaller(ours.astype(float)) - stored
            assert np.sqrt((error**2).mean()) < 0.1 * 2**layout.depth
            assert abs(error.mean()) < 0.01 * 2**layout.depth


@pytest.mark.parametrize("kind", ["4:2:0", "full range", "ten bits", "grey", "gif"])
def test_flat_colours_and_tags_survive_the_default_codec(tmp_path, program, kind):
    options, container = STORED[kind]
    source = make_clip(
        *(tmp_path / f"in.{container}", *options),
        filters=f"format={'rgb24' if kind == 'gif' else 'yuv420p'},drawbox=t=fill:color=red",
    )
    output = upscale(source, tmp_path / "out.mp4", program)
    layout, tags, before = read(source)
    made, written, after = read(output)
    assert made.depth == layout.depth
    if layout.family == "rgb":
        assert (written.range, written.matrix, made.pixel_format) == (1, 6, "yuv444p")
        colour = np.array([plane[0, 0] for plane in before[0]])[[2, 0, 1]]
        expected = np.rint(rgb2ycbcr(colour[None, None].astype(np.uint8)))[0, 0]
    else:
        assert (written.matrix, written.primaries) == (tags.matrix, tags.primaries)
        assert made.full_range == layout.full_range
        expected = [plane[0, 0] for plane in before[0]]
    if layout.family == "grey":  # H.264 has it, but is decoded with neutral chroma
        expected = [*expected, 128, 128]
    for plane, value in zip(after[-1], expected, strict=True):
        assert np.abs(plane.astype(float) - value).max() <= 2 ** (layout.depth - 8)


@pytest.mark.skipif(len(PROGRAMS) < 2, reason="only one ffmpeg program here")
@pytest.mark.parametrize("kind", STORED)
def test_every_ffmpeg_program_gives_the_same_planes_and_tags(tmp_path, kind):
    options, container = STORED[kind]
    options = ["-pix_fmt", "bgr0", *options[2:]] if kind == "rgb" else options
    source = make_clip(tmp_path / f"in.{container}", *options)
    results = [
        read(upscale(source, tmp_path / f"{n}.mkv", program, codec="ffv1"))
        for n, program in enumerate(PROGRAMS)
    ]
    layout, tags, frames = results[0]
    for other_layout, other_tags, other_frames in results[1:]:
        assert replace(other_layout) == layout
        assert other_tags == tags
        for ours, theirs in zip(frames, other_frames, strict=True):
            for plane, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(plane, other)


@pytest.mark.parametrize("location", ["left", "center", "topleft"])
@pytest.mark.parametrize("program", PROGRAMS[:1], ids=PROGRAM_IDS[:1])
def test_colours_stay_on_their_edges(tmp_path, program, location):
    # Cb rises with luma along x, Cr along y: after enlarging they must still do so. A chroma
    # location taken for another would shift them by half a luma sample, 3 code values.
    position = {"left": "0", "center": "128", "topleft": "0"}[location]
    vertical = {"left": "128", "center": "128", "topleft": "0"}[location]
    source = make_clip(
        *(tmp_path / "in.mp4", "-c:v", "libx264", "-qp", 0),
        *("-chroma_sample_location", location),
        size="32x24",
        filters="format=yuv444p,geq=lum='16+6*X':cb='16+6*X':cr='16+8*Y',"
        f"scale=out_h_chr_pos={position}:out_v_chr_pos={vertical}"
        f":flags=bilinear+accurate_rnd+full_chroma_int,format=yuv420p",
        frames=1,
    )
    output = upscale(source, tmp_path / "out.mkv", program, codec="ffv1")
    layout, _, _ = read(source)
    assert (
        layout.chroma_offset
        == {"left": (0.5, 0), "center": (0.5, 0.5), "topleft": (0, 0)}[location]
    )
    luma, cb, cr = (plane.astype(float) for plane in read(output)[2][0])
    row, column = layout.chroma_offset
    # Luma where the chroma samples lie: their own row and column, or the mean with the next.
    columns = (luma[:, 0::2] + luma[:, 1::2]) / 2 if column else luma[:, 0::2]
    inside = slice(16, -16)
    difference = (cb - (columns[0::2] + columns[1::2]) / 2)[inside, inside]
    assert np.abs(difference).max() < 1.2
    shown = 2 * np.arange(cr.shape[0]) + row
    expected = 16 + 8 * ((shown + 0.5) / 4 - 0.5)
    assert np.abs(cr - expected[:, None])[inside, inside].max() < 1.2


@pytest.mark.parametrize(
    ("rate", "filters", "options"),
    [
        ("25", "null", []),
        ("30000/1001", "null", []),
        ("25", "settb=1/1000,setpts=N*N*7+N*11", ["-enc_time_base", "1/1000"]),
        ("25", "setpts=PTS+3/TB", ["-enc_time_base", "1/12800"]),
    ],
    ids=["constant", "ntsc", "variable", "late"],
)
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_every_frame_keeps_its_time(tmp_path, program, rate, filters, options, name):
    source = make_clip(tmp_path / "in.mp4", *options, rate=rate, filters=filters, frames=12)
    output = upscale(source, tmp_path / name, program)
    before, after = video_times(source), video_times(output)
    assert len(after) == len(before) == 12
    tick = 0 if name == "out.mp4" else Fraction(1, 1000)
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) <= tick


def test_sound_of_a_transport_stream_stays_with_its_picture(tmp_path, program):
    source = make_clip(tmp_path / "in.ts", "-bf", 2, frames=25, sound=True)
    for name in ("out.mp4", "out.ts", "out.mkv"):
        output = upscale(source, tmp_path / name, program)
        moved = [a - b for a, b in zip(video_times(output), video_times(source), strict=True)]
        assert max(map(abs, moved)) <= Fraction(1, 1000)
        sound = zip(audio_packets(source), audio_packets(output), strict=True)
        assert max(abs(a[0] - b[0]) for a, b in sound) < 2e-3


def test_metadata_chapters_and_aspect_ratio_are_kept(tmp_path, program):
    plain = make_clip(tmp_path / "plain.mp4", filters="setsar=16/15", frames=25)
    (tmp_path / "chapters.txt").write_text(
        ";FFMETADATA1\ntitle=A title\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=400\ntitle=One\n"
    )
    source = tmp_path / "in.mp4"
    ffmpeg(
        *("-i", plain, "-i", tmp_path / "chapters.txt", "-map_metadata", 1), "-c", "copy", source
    )
    output = upscale(source, tmp_path / "out.mkv", program)
    with av.open(str(output)) as container:
        assert container.metadata["title"] == "A title"
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["One"]
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 15)


def test_all_sound_subtitles_and_attachments_are_kept_where_the_container_can(tmp_path, program):
    clip = make_clip(tmp_path / "clip.mp4", frames=25, sound=True)
    subtitles = tmp_path / "text.srt"
    subtitles.write_text("1\n00:00:00,100 --> 00:00:00,400\nHello\n\n")
    font = tmp_path / "font.ttf"
    font.write_bytes(b"not really a font")
    source = tmp_path / "in.mkv"
    ffmpeg(
        *("-i", clip, "-i", subtitles, "-map", "0:v", "-map", "0:a", "-map", "0:a", "-map", 1),
        *("-attach", font, "-metadata:s:t", "mimetype=font/ttf", "-c", "copy"),
        *("-metadata:s:v", "title=Main", "-metadata:s:v", "language=nld"),
        *("-metadata:s:a:0", "language=deu", "-metadata:s:a:1", "language=fra", source),
    )
    expected = {
        "out.mkv": ["video", "audio", "audio", "subtitle", "attachment"],
        "out.mp4": ["video", "audio", "audio", "subtitle"],
    }
    for name, kinds in expected.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            output = upscale(source, tmp_path / name, program)
        found = [str(warning.message) for warning in caught]
        if name == "out.mp4":
            attachment, title = found
            assert "cannot hold 1 attachment; .mkv can" in attachment
            assert "without the tags title of the picture" in title
        else:
            assert found == []
        with av.open(str(output)) as container:
            assert [stream.type for stream in container.streams] == kinds
            assert [stream.language for stream in container.streams][:3] == ["nld", "deu", "fra"]
            if name == "out.mkv":  # PyAV does not see a title in MP4
                assert container.streams.video[0].metadata["title"] == "Main"
            texts = [bytes(packet) for packet in container.demux(subtitles=0) if packet.size]
            assert any(b"Hello" in text for text in texts)


def test_a_turned_video_comes_out_upright_and_is_not_turned_again(tmp_path, program):
    plain = make_clip(tmp_path / "plain.mp4", "-qp", 0, size="32x20", frames=2)
    source = tmp_path / "in.mp4"
    ffmpeg("-display_rotation", 90, "-i", plain, "-c", "copy", source)
    upright = upscale(source, tmp_path / "out.mkv", program, codec="ffv1")
    _, _, lying = read(upscale(plain, tmp_path / "lying.mkv", program, codec="ffv1"))
    with VideoSource(upright) as written:
        assert (written.height, written.width) == (128, 80)
        with av.open(str(upright)) as container:
            assert next(container.decode(video=0)).rotation == 0
        for frame, planes in zip(written.frames(), lying, strict=True):
            np.testing.assert_allclose(frame.planes[0], np.rot90(planes[0]), atol=1)


@pytest.mark.parametrize("size", ["8x8", "63x47", "9x31"])
def test_any_size_from_eight_by_eight_up_works(tmp_path, size):
    width, height = map(int, size.split("x"))
    source = make_clip(
        *(tmp_path / "in.mkv", "-c:v", "ffv1", "-pix_fmt", "yuv420p"),
        size="80x64",
        filters=f"format=yuv444p,crop={width}:{height}:0:0:exact=1",
        frames=3,
    )
    for mode in ("sequence", "window"):
        output = upscale(source, tmp_path / f"{mode}.mp4", PROGRAMS[0], codec="libx264", mode=mode)
        _, _, frames = read(output)
        assert [plane.shape for plane in frames[2]] == [
            (4 * height, 4 * width),
            (2 * height, 2 * width),
            (2 * height, 2 * width),
        ]


@pytest.mark.parametrize(
    ("cuts", "mode"),
    [("auto", "sequence"), ("auto", "window"), ("file", "sequence"), ("off", "sequence")],
)
def test_joined_clips_give_the_frames_of_each_upscaled_alone(tmp_path, mode, cuts):
    torch.manual_seed(0)
    network = D3Dnet(channels=8, resd3d_blocks=1, res_blocks=1).eval()
    looks = ["testsrc2=s=24x16:r=25", "mandelbrot=s=24x16:r=25:start_scale=0.4"]
    parts = [tmp_path / f"{n}.mkv" for n in range(2)]
    for look, part in zip(looks, parts, strict=True):
        ffmpeg(
            *("-f", "lavfi", "-i", look, "-frames:v", 5, "-pix_fmt", "yuv420p"),
            "-c:v",
            "ffv1",
            part,
        )
    ffmpeg(
        *("-i", parts[0], "-i", parts[1], "-filter_complex", "[0:v][1:v]concat"),
        *("-c:v", "ffv1", tmp_path / "joined.mkv"),
    )
    (tmp_path / "file").write_text("0.2\n")
    options = {"model": network, "mode": mode, "codec": "ffv1"}
    alone = [
        frame
        for n, part in enumerate(parts)
        for frame in read(upscale(part, tmp_path / f"large{n}.mkv", PROGRAMS[0], **options))[2]
    ]
    option = str(tmp_path / "file") if cuts == "file" else cuts
    joined = read(
        upscale(tmp_path / "joined.mkv", tmp_path / "o.mkv", PROGRAMS[0], cuts=option, **options)
    )[2]
    assert len(joined) == len(alone) == 10
    same = all(
        np.array_equal(a, b)
        for ours, theirs in zip(joined, alone, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )
    assert same == (cuts != "off")


def test_frames_do_not_pile_up_in_the_pipeline(tmp_path, monkeypatch):
    # What is between the decoder and the encoder at any time: the network's delay and little more.
    decoded, most = 0, 0
    frames = VideoSource.frames

    def counted(self, *arguments):
        nonlocal decoded
        for frame in frames(self, *arguments):
            decoded += 1
            yield frame

    def watch(event):
        nonlocal most
        if isinstance(event, Progress):
            most = max(most, decoded - event.done)

    monkeypatch.setattr(VideoSource, "frames", counted)
    source = make_clip(tmp_path / "in.mp4", size="16x16", frames=120)
    upscale(source, tmp_path / "out.mp4", PROGRAMS[0], watch=watch)
    assert decoded == 3 * 120  # source and result again, to be compared
    assert most <= READ_AHEAD + 8


def test_progress_counts_every_frame(tmp_path):
    source = make_clip(tmp_path / "in.mp4", frames=7)
    seen = []
    upscale(source, tmp_path / "out.mp4", PROGRAMS[0], watch=seen.append)
    found = [event for event in seen if isinstance(event, Progress)]
    assert [(event.done, event.frames) for event in found] == [(n, 7) for n in range(1, 8)]


def test_the_result_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "in.mp4", frames=1)
    assert upscale("in.mp4", "out.mp4", PROGRAMS[0]) == tmp_path / "out.mp4"


def test_an_existing_result_is_replaced_only_when_asked(tmp_path):
    source = make_clip(tmp_path / "in.mp4", frames=1)
    output = tmp_path / "out.mp4"
    output.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        upscale(source, output, PROGRAMS[0])
    assert output.read_bytes() == b"precious"
    upscale(source, output, PROGRAMS[0], overwrite=True)
    assert len(video_times(output)) == 1


class Failing(BilinearNetwork):
    def stream(self, frames, chunk=8):
        yield from itertools.islice(super().stream(frames), 5)
        raise KeyboardInterrupt


def test_an_interruption_leaves_nothing_behind(tmp_path, program):
    source = make_clip(tmp_path / "in.mp4", frames=20)
    with pytest.raises(KeyboardInterrupt):
        upscale(source, tmp_path / "out.mp4", program, model=Failing())
    assert os.listdir(tmp_path) == ["in.mp4"]


@pytest.mark.parametrize(
    ("codec", "name", "encoded"),
    [("pcm_s24be", "out.avi", "flac"), ("flac", "out.ts", "aac"), ("aac", "out.webm", "libopus")],
)
def test_sound_that_the_container_cannot_hold_is_encoded_again_with_a_warning(
    tmp_path, program, codec, name, encoded
):
    source = make_clip(tmp_path / "in.mkv", "-c:a", codec, "-ar", 48000, frames=10, sound=True)
    with pytest.warns(UserWarning, match=f"{codec} as {encoded}; .mkv would keep it"):
        output = upscale(
            source,
            tmp_path / name,
            program,
            codec="libvpx-vp9" if name == "out.webm" else "libx264",
        )
    with av.open(str(output)) as container:
        assert container.streams.audio[0].codec_context.name == encoded.removeprefix("lib")
        sound = sum(frame.samples for frame in container.decode(audio=0))
    assert abs(sound - 0.4 * 48000) <= 2 * 1024


@pytest.mark.parametrize("codec", ["pcm_s16le", "libmp3lame", "aac", "libvorbis"])
@pytest.mark.filterwarnings("ignore:.*vorbis as ac3")
def test_sound_in_avi_stays_with_its_picture(tmp_path, program, codec):
    source = make_clip(
        *(tmp_path / "in.mkv", "-c:v", "ffv1", "-c:a", codec, "-ar", 48000),
        frames=10,
        sound=True,
    )
    output = upscale(source, tmp_path / "out.avi", program)
    lines = ffmpeg("-copyts", "-i", output, "-map", 0, "-c", "copy", "-f", "framecrc", "-").decode()
    ticks = dict(re.findall(r"#tb (\d): (\S+)", lines))
    times = {"0": [], "1": []}
    for stream, time in re.findall(r"^(\d), +-?\d+, +(-?\d+)", lines, re.MULTILINE):
        times[stream].append(int(time) * Fraction(ticks[stream]))
    assert times["0"] == [Fraction(n, 25) for n in range(10)]
    assert abs(times["1"][0]) < 0.03


def test_sound_is_left_out_when_asked(tmp_path, program):
    source = make_clip(tmp_path / "in.mkv", frames=3, sound=True)
    output = upscale(source, tmp_path / "out.mkv", program, sound=False)
    with av.open(str(output)) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_a_damaged_source_is_an_input_error_and_leaves_nothing_behind(tmp_path, program):
    source = make_clip(tmp_path / "in.mkv", "-c:v", "png", frames=20, size="64x64")
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    source.write_bytes(data)
    with pytest.raises(InputError, match="damaged after"):
        upscale(source, tmp_path / "out.mp4", program)
    assert os.listdir(tmp_path) == ["in.mkv"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"mode": "fast"}, "mode: got 'fast'; accepted are sequence, window"),
        ({"codec": "ffv1", "crf": 20}, "ffv1 has no such setting"),
        ({"codec": "nothing"}, "no video encoder 'nothing'"),
        ({"model": "nothing"}, "nothing"),
        ({"model": "d3dnet", "device": "abacus"}, "abacus|d3dnet"),
    ],
)
def test_wrong_options_are_refused_and_leave_nothing_behind(tmp_path, options, complaint):
    source = make_clip(tmp_path / "in.mp4", frames=1)
    with pytest.raises((ValueError, d3dnet.video.VideoError), match=complaint):
        upscale(source, tmp_path / "out.mkv", PROGRAMS[0], **options)
    assert os.listdir(tmp_path) == ["in.mp4"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "float16"])
@pytest.mark.parametrize("colour", [False, True])
def test_frames_keep_their_layout_and_dtype(dtype, colour):
    shape = (5, 12, 10, 3) if colour else (5, 12, 10)
    unit = np.random.default_rng(0).random(shape)
    top = np.iinfo(dtype).max if dtype.startswith("u") else 1
    frames = (unit * top).astype(dtype)
    found = upscale_frames(frames, model=BilinearNetwork())
    assert found.dtype == frames.dtype
    assert found.shape == (5, 48, 40, *shape[3:])
    if not colour:
        known = enlarge(torch.from_numpy(frames.astype(np.float32) / np.float32(top))[:, None])
        error = np.abs(found.astype(float) / top - known[:, 0].numpy()).max()
        assert error <= {"uint8": 0.51 / 255, "float16": 5e-4}.get(dtype, 1e-5)


def test_flat_rgb_frames_come_back_as_they_were():
    colours = np.random.default_rng(0).integers(0, 256, (20, 1, 1, 3), np.uint8)
    frames = np.broadcast_to(colours, (20, 8, 8, 3))
    found = upscale_frames(frames, model=BilinearNetwork())
    np.testing.assert_array_equal(found, np.broadcast_to(colours, (20, 32, 32, 3)))


def test_luma_of_rgb_frames_goes_through_the_network_in_limited_range():
    class Recorder(BilinearNetwork):
        def stream(self, frames, chunk=8):
            frames = list(frames)
            self.seen = torch.stack(frames)
            return super().stream(frames)

    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 9, 3), np.uint8)
    network = Recorder()
    upscale_frames(frames, model=network)
    np.testing.assert_allclose(network.seen[:, 0], rgb2ycbcr(frames)[..., 0] / 255, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_tensors_give_tensors(dtype):
    frames = (torch.rand(3, 8, 8) * (255 if dtype == torch.uint8 else 1)).to(dtype)
    found = upscale_frames(frames, model=BilinearNetwork())
    assert (found.shape, found.dtype) == ((3, 32, 32), dtype)


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        (np.zeros((8, 8), np.uint8), r"got shape \(8, 8\); accepted are"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"got shape \(2, 8, 8, 4\)"),
        (np.zeros((2, 8, 8), np.int64), "got dtype int64; accepted are"),
        (np.zeros((0, 8, 8), np.uint8), "one pixel or more"),
        (np.zeros((2, 0, 8), np.uint8), "one pixel or more"),
        ([[1]], "got list; accepted are"),
    ],
)
def test_wrong_frames_are_refused(frames, complaint):
    with pytest.raises(ValueError, match=complaint):
        upscale_frames(frames, model=BilinearNetwork())


@pytest.mark.parametrize("mode", ["sequence", "window"])
def test_a_real_network_without_training_runs_in_both_modes(tmp_path, mode):
    torch.manual_seed(0)
    network = D3Dnet(channels=8, resd3d_blocks=1, res_blocks=1).eval()
    source = make_clip(tmp_path / "in.mkv", "-c:v", "ffv1", "-pix_fmt", "yuv444p", frames=9)
    output = upscale(
        source, tmp_path / "o.mkv", PROGRAMS[0], model=network, mode=mode, codec="ffv1"
    )
    _, _, before = read(source)
    _, _, after = read(output)
    clip = torch.stack([torch.from_numpy(planes[0].copy()) for planes in before]) / 255
    with torch.no_grad():
        if mode == "sequence":
            luma = network.forward_sequence(clip[None, None])[0, 0]
        else:
            windows = [[min(max(t + n, 0), 8) for n in range(-3, 4)] for t in range(9)]
            luma = torch.stack([network(clip[window][None, None])[0, 0] for window in windows])
    expected = (luma * 255).clamp(0, 255).numpy()
    found = np.stack([planes[0] for planes in after])
    assert np.abs(found - expected).max() < 0.51


@pytest.mark.skipif(
    "d3dnet" not in bundled_models(), reason="no bundled weights named d3dnet in this checkout"
)
def test_the_bundled_network_keeps_the_picture_and_sharpens_it(tmp_path):
    # Its result, made smaller again, is the source; and it has more detail than bilinear gives.
    source = tmp_path / "in.mkv"
    ffmpeg(*("-i", SAMPLE, "-vf", "crop=64:48:48:20", "-frames:v", 5, "-c:v", "ffv1", source))
    output = upscale_video(source, tmp_path / "out.mkv", codec="ffv1", device="cpu")
    smooth = upscale(source, tmp_path / "smooth.mkv", PROGRAMS[0], codec="ffv1")
    _, _, before = read(source)
    _, _, after = read(output)
    _, _, blurred = read(smooth)
    assert len(after) == len(before) == 5
    for small, large in zip(before, after, strict=True):
        for plane, stored in zip(large, small, strict=True):
            error = ((smaller(plane.astype(float)) - stored) ** 2).mean()
            assert 10 * np.log10(255**2 / error) > 28
    detail = [np.abs(np.diff(planes[2][0].astype(float))).mean() for planes in (after, blurred)]
    assert detail[0] > 1.1 * detail[1]


@pytest.mark.parametrize("ratio", ["853/720", "186/157"])
def test_pixel_aspects_of_large_numbers_are_kept(tmp_path, program, ratio):
    filters = f"setsar={ratio}:max=1000"
    source = make_clip(tmp_path / "in.mkv", "-c:v", "ffv1", filters=filters, frames=2)
    for name in ("out.mkv", "out.mp4"):
        output = upscale(source, tmp_path / name, program)
        with av.open(str(output)) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(ratio)


def test_names_that_are_no_utf8_are_names(tmp_path, program):
    source = make_clip(tmp_path / "in.mp4", frames=2)
    source = source.rename(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    output = upscale(source, tmp_path / os.fsdecode(b"gro\xdf.mkv"), program)
    assert os.fsencode(output.name) == b"gro\xdf.mkv" and output.exists()
