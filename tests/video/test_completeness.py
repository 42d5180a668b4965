"""What is missing of a file is told from what lies after its end."""

import struct
import subprocess

import numpy as np
import pytest
from PIL import Image

from d3dnet.errors import InputError
from d3dnet.job.upscale import upscale_video
from d3dnet.video.completeness import missing_bytes, trailing_bytes
from d3dnet.video.reading import Reading
from d3dnet.video.source import VideoSource
from tests.video.clips import BUNDLED, PROGRAM_IDS, PROGRAMS, ffmpeg, make_clip

H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
TRAILERS = {
    "letters": b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=\n",
    "zeros": bytes(1000),
    "few": b"\0\0\0",
    "a phone's": struct.pack(">I4s", 40, b"SEFT") + bytes(32) + b"SEFT",
    "another file": b"\x89PNG\r\n\x1a\n" + bytes(300),
}


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi", "ts"])
@pytest.mark.parametrize("trailer", TRAILERS)
def test_bytes_after_the_end_are_no_damage(tmp_path, suffix, trailer):
    path = make_clip(tmp_path / f"in.{suffix}", *H264, frames=6)
    assert (missing_bytes(path), trailing_bytes(path)) == (0, 0)
    path.write_bytes(path.read_bytes() + TRAILERS[trailer])
    assert missing_bytes(path) == 0
    with VideoSource(path) as source:
        assert len(list(source.frames())) == 6
        assert source.damage == []
        if suffix in ("mp4", "mov") and trailer == "letters":
            assert source.notes == ["37 bytes after its end are not looked at"]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_fragmented_file_that_ends_within_a_box_lacks_the_rest(tmp_path, share):
    path = make_clip(
        *(tmp_path / "in.mp4", *H264, "-g", 2, "-movflags", "frag_keyframe+empty_moov"), frames=12
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert missing_bytes(path) > 0
    with pytest.raises(InputError, match=r"missing|damaged after 0 frames"):
        VideoSource(path)


def test_an_avi_whose_length_counts_its_head_is_whole(tmp_path):
    path = make_clip(tmp_path / "in.avi", "-c:v", "mjpeg", frames=6)
    data = bytearray(path.read_bytes())
    data[4:8] = len(data).to_bytes(4, "little")
    path.write_bytes(data)
    with VideoSource(path) as source:
        assert len(list(source.frames())) == 6
        assert source.damage == []


@pytest.mark.parametrize("program", PROGRAMS, ids=PROGRAM_IDS)
def test_repeated_frames_of_theora_are_frames(tmp_path, program):
    path = tmp_path / "in.ogv"
    theora = [program for program in PROGRAMS if "Theora" in _encoders(program)]
    if not theora:
        pytest.skip("no ffmpeg program here makes Theora")
    _run(
        theora[0],
        "-f",
        "lavfi",
        "-i",
        "color=black:size=64x48:rate=25",
        "-t",
        1,
        "-c:v",
        "libtheora",
        "-q:v",
        8,
        path,
    )
    for on_error in ("fail", "conceal", "stop"):
        with VideoSource(path, Reading(on_error=on_error)) as source:
            times = [frame.pts for frame in source.frames()]
            assert times == list(range(25))
            assert source.damage == []
    upscale_video(path, tmp_path / "out.mkv", model="bicubic", ffmpeg=program.path)


def _run(program, *words):
    subprocess.run([program.path, "-v", "error", "-y", *map(str, words)], check=True)


def _encoders(program):
    done = subprocess.run([program.path, "-encoders"], capture_output=True, check=True)
    return "Theora" if b"libtheora" in done.stdout else ""


@pytest.mark.parametrize("suffix", ["ts", "mpg"])
@pytest.mark.parametrize("order", [("4:3", "16:9"), ("16:9", "4:3")])
def test_a_pixel_aspect_that_changes_is_told_once(tmp_path, suffix, order):
    parts = []
    for number, aspect in enumerate(order):
        part = tmp_path / f"{number}.{suffix}"
        ffmpeg(
            "-f",
            "lavfi",
            "-i",
            "testsrc2=s=64x48:r=25",
            "-t",
            0.4,
            "-c:v",
            "mpeg2video",
            "-aspect",
            aspect,
            "-output_ts_offset",
            0.4 * number,
            part,
        )
        parts.append(part.read_bytes())
    path = tmp_path / f"in.{suffix}"
    path.write_bytes(b"".join(parts))
    with VideoSource(path) as source:
        assert source.damage == []
        list(source.frames())
        ratios = {"4:3": "1:1", "16:9": "4:3"}
        assert len(source.damage) == 1
        assert (
            f"pixel aspect, of which a result has one, changes from {ratios[order[0]]} to "
            f"{ratios[order[1]]} at " in source.damage[0]
        )


def test_colour_tags_that_change_are_told(tmp_path):
    parts = []
    for number, matrix in enumerate(("bt709", "smpte170m")):
        part = tmp_path / f"{number}.ts"
        ffmpeg(
            "-f",
            "lavfi",
            "-i",
            "testsrc2=s=64x48:r=25",
            "-t",
            0.2,
            *H264,
            "-colorspace",
            matrix,
            "-output_ts_offset",
            0.28 * number,
            part,
        )
        parts.append(part.read_bytes())
    (tmp_path / "in.ts").write_bytes(b"".join(parts))
    with pytest.warns(UserWarning, match=r"its colour tags.* changes? from \d 1 2 2 to \d 6 2 2"):
        upscale_video(
            tmp_path / "in.ts", tmp_path / "out.mkv", model="bicubic", ffmpeg=BUNDLED.path
        )


@pytest.mark.parametrize(
    ("pages", "told"), [(3, "2 further pages"), (2, "1 further page"), (1, "")]
)
def test_further_pages_of_a_tiff_are_told(tmp_path, pages, told):
    images = [Image.fromarray(np.full((12, 16, 3), 60 * n, np.uint8)) for n in range(pages)]
    path = tmp_path / "in.tif"
    images[0].save(path, save_all=True, append_images=images[1:])
    with VideoSource(path) as source:
        assert source.notes == ([f"{told} of it left out"] if told else [])
