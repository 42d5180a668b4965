"""What images carry beside their samples: read without harm, and carried on."""

import gc
import random
import shutil
import struct
import subprocess
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from d3dnet.cli import main
from d3dnet.errors import InputError, VideoError
from d3dnet.job.upscale import upscale_video
from d3dnet.video.profiles import add_profile, profile_of
from d3dnet.video.source import VideoSource
from tests.video.clips import PROGRAMS, ffmpeg

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def image(path, mode="RGB", profile=SRGB, **more):
    rows = np.arange(24)[:, None, None] + np.arange(32)[:, None] + np.array([90, 60, 30])
    Image.fromarray((3 * rows % 256).astype(np.uint8)).convert(mode).save(
        path, icc_profile=profile, **more
    )
    return path


def upscaled(path, output, **more):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        upscale_video(path, output, model="bicubic", **more)
    return [str(each.message) for each in caught]


@pytest.mark.parametrize(
    ("program", "name", "output"),
    [
        *((program, "in.png", "out.tif") for program in PROGRAMS),
        *((PROGRAMS[0], name, "out.png") for name in ("in.jpg", "in.tif", "in.webp")),
    ],
    ids=str,
)
def test_the_profile_of_an_image_is_that_of_its_result(tmp_path, program, name, output):
    told = upscaled(image(tmp_path / name), tmp_path / output, ffmpeg=program.path)
    assert not [text for text in told if "profile" in text]
    with Image.open(tmp_path / output) as made:
        made.load()
        assert made.size == (128, 96)
        assert made.info["icc_profile"] == SRGB


def test_a_batch_of_images_with_profiles_is_made_to_its_end(tmp_path):
    (tmp_path / "out").mkdir()
    names = [str(image(tmp_path / f"{n}.png")) for n in range(3)]
    assert main(["upscale", *names, str(tmp_path / "out"), "--model", "bicubic", "-q"]) == 0
    gc.collect()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{n}.png" for n in range(3)
    ]


def test_numbered_images_keep_the_profile_that_all_have(tmp_path):
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    for n in range(3):
        image(tmp_path / f"in/{n}.png")
    assert upscaled(tmp_path / "in", tmp_path / "out/%d.png") == []
    assert {profile_of(path) for path in (tmp_path / "out").iterdir()} == {SRGB}


@pytest.mark.parametrize(
    ("output", "reason"),
    [("out.mkv", "which .mkv does not hold; .png and .tif do"), ("out/%d.bmp", "does not hold")],
)
def test_a_profile_that_the_result_cannot_hold_is_named(tmp_path, output, reason):
    (tmp_path / "out").mkdir()
    told = upscaled(
        image(tmp_path / "in.png"), tmp_path / output, codec="bmp" if "bmp" in output else "libx264"
    )
    assert any("without the ICC profile of in.png" in text and reason in text for text in told)


def test_profiles_that_differ_are_left_out_and_named(tmp_path):
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    image(tmp_path / "in/1.png")
    image(tmp_path / "in/2.png", profile=None)
    told = upscaled(tmp_path / "in", tmp_path / "out/%d.png")
    assert len(told) == 1 and "not the same in all of them" in told[0]
    assert {profile_of(path) for path in (tmp_path / "out").iterdir()} == {b""}


def test_a_profile_of_other_colours_is_left_out_and_named(tmp_path):
    told = upscaled(image(tmp_path / "in.png", profile=LAB), tmp_path / "out.png")
    assert len(told) == 1 and "of another kind of colours" in told[0]
    assert profile_of(tmp_path / "out.png") == b""


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_an_image_is_the_same_with_a_profile_but_for_it(tmp_path, name):
    path = tmp_path / name
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=33x21", "-frames:v", 1, path)
    before = np.asarray(Image.open(path))
    add_profile(path, SRGB)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), before)
    assert Image.open(path).info["icc_profile"] == SRGB


def chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


CHUNKS = {
    "a profile that is none": chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile")),
    "a profile that cannot be unpacked": chunk(b"iCCP", b"x\0\0garbage"),
    "a profile without a name": chunk(b"iCCP", b"\0\0" + zlib.compress(SRGB)),
    "a name without a profile": chunk(b"iCCP", b"name"),
    "an empty profile": chunk(b"iCCP", b""),
    "a profile that grows": chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 25), 9)),
    "two profiles": 2 * chunk(b"iCCP", b"x\0\0" + zlib.compress(SRGB)),
    "EXIF": chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    "broken EXIF": chunk(b"eXIf", b"II*\0\xff\xff\xff\x7f"),
    "texts": chunk(b"tEXt", b"Title\0one") + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"two")),
    "a text without an end": chunk(b"tEXt", b"no end") + chunk(b"iTXt", b"\0\1"),
    "a chunk of nobody": chunk(b"abCd", b"12345"),
    "an animation of no frames": chunk(b"acTL", bytes(8)),
    "a frame of no animation": chunk(b"fcTL", bytes(26)),
    "transparency of no palette": chunk(b"tRNS", b"\0\1\0\2\0\3"),
}


@pytest.mark.parametrize("kind", CHUNKS)
def test_chunks_of_every_kind_are_read_or_refused_and_kill_nothing(tmp_path, kind):
    data = image(tmp_path / "whole.png", profile=None).read_bytes()
    (tmp_path / "in.png").write_bytes(data[:33] + CHUNKS[kind] + data[33:])
    try:
        with VideoSource(tmp_path / "in.png") as source:
            frames = list(source.frames())
        turned = kind == "EXIF"
        assert [frame.planes[0].shape for frame in frames] == [(32, 24) if turned else (24, 32)]
        assert profile_of(tmp_path / "in.png") in (b"", SRGB)
    except VideoError as error:
        assert "\n" not in str(error)
    gc.collect()


@pytest.mark.parametrize("name", ["in.png", "in.jpg", "in.tif", "in.webp"])
def test_broken_files_have_a_profile_or_none_and_no_exception(tmp_path, name):
    data = bytearray(image(tmp_path / name).read_bytes())
    chance = random.Random(1)
    for _ in range(300):
        broken = bytearray(data[: chance.randrange(len(data))])
        for _ in range(chance.randrange(8)):
            if broken:
                broken[chance.randrange(len(broken))] = chance.randrange(256)
        (tmp_path / "broken").write_bytes(broken)
        profile_of(tmp_path / "broken")


def test_a_picture_of_tiles_is_refused_and_not_its_first_tile_made(tmp_path):
    made = shutil.which("avifenc")
    if made is None:
        pytest.skip("avifenc makes pictures of tiles, and is not here")
    path = image(tmp_path / "in.png").with_name("in.avif")
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=128x128", "-frames:v", 1, tmp_path / "big.png")
    for grid, words in ((False, []), (True, ["--grid", "2x2"])):
        subprocess.run([made, *words, "-s", "9", tmp_path / "big.png", path], check=True)
        if grid:
            with pytest.raises(InputError, match="a picture of 4 tiles"):
                VideoSource(path)
        else:
            with VideoSource(path) as source:
                assert (source.height, source.width) == (128, 128)
