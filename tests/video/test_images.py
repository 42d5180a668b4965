import os
import struct
import warnings

import av
import numpy as np
import pytest

from d3dnet.cli import main
from d3dnet.errors import InputError, OutputError
from d3dnet.job.upscale import upscale_video
from d3dnet.video.images import image_files, is_pattern
from d3dnet.video.reading import Reading
from d3dnet.video.source import VideoSource
from tests.video.clips import PROGRAM_IDS, PROGRAMS, ffmpeg, make_clip, video_times

LOOK = ("-f", "lavfi", "-i", "testsrc2=s=32x24:r=25,boxblur=1", "-frames:v", 12)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "50% of $it"
    folder.mkdir()
    ffmpeg(*LOOK, "-start_number", 1, tmp_path / "%d.png")
    for file in tmp_path.glob("*.png"):
        file.rename(folder / f"frame {file.name}")
    return folder


def rgb(path):
    with av.open(f"file:{path}") as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24").astype(float)


@pytest.mark.parametrize("name", ["", "frame *.png", "frame %d.png"])
@pytest.mark.parametrize("program", PROGRAMS, ids=PROGRAM_IDS)
def test_a_folder_a_glob_and_a_pattern_become_a_video_in_the_order_of_numbers(
    folder, tmp_path, program, name
):
    output = upscale_video(
        folder / name,
        tmp_path / "out.mkv",
        model="bicubic",
        codec="ffv1",
        fps=24,
        ffmpeg=program.path,
    )
    times = video_times(output)
    assert np.abs(np.array(times, float) - np.arange(12) / 24).max() <= 0.001
    with av.open(str(output)) as container:
        for number, frame in enumerate(container.decode(video=0), start=1):
            small = frame.to_ndarray(format="rgb24").reshape(24, 4, 32, 4, 3).mean((1, 3))
            assert np.abs(small - rgb(folder / f"frame {number}.png")).mean() < 4


@pytest.mark.parametrize("program", PROGRAMS, ids=PROGRAM_IDS)
@pytest.mark.parametrize("stored", ["gbrp", "yuv420p", "yuv420p10le", "gray"])
def test_a_video_becomes_numbered_images(tmp_path, program, stored):
    source = make_clip(
        *(tmp_path / "in.mkv", "-c:v", "ffv1", "-pix_fmt", stored), filters="boxblur=1", frames=3
    )
    (tmp_path / "50%").mkdir()
    pattern = tmp_path / "50%" / "big-%03d.png"
    options = {"model": "bicubic", "ffmpeg": program.path}
    upscale_video(source, pattern, **options)
    names = sorted(file.name for file in pattern.parent.iterdir())
    assert names == ["big-001.png", "big-002.png", "big-003.png"]
    with av.open(str(source)) as container:
        for name, frame in zip(names, container.decode(video=0), strict=True):
            large = rgb(pattern.parent / name)
            assert large.shape == (96, 128, 3)
            known = frame.to_ndarray(format="rgb24").astype(float)
            assert np.abs(large.reshape(24, 4, 32, 4, 3).mean((1, 3)) - known).mean() < 6
    with pytest.raises(OutputError, match=r"big-001.png exists already.*--overwrite"):
        upscale_video(source, pattern, **options)
    upscale_video(source, pattern, overwrite=True, **options)


def test_patterns_that_mean_nothing_or_too_much_are_refused(folder, tmp_path):
    (tmp_path / "nothing").mkdir()
    for name in ("nothing", "%d.png", "*.png"):
        with pytest.raises(InputError, match="no images there"):
            image_files(tmp_path / name)
    (folder / "other.jpg").touch()
    with pytest.raises(InputError, match=r"several kinds \(.jpg .png\)"):
        image_files(folder)


def test_names_of_files_are_no_patterns(tmp_path):
    (tmp_path / "a [1] %d.png").touch()
    assert image_files(tmp_path / "a [1] %d.png") is None
    assert image_files(tmp_path / "missing.mp4") is None
    assert [is_pattern(tmp_path / name) for name in ("%06d.png", "a.png", "%d.mp4")] == [
        True,
        False,
        False,
    ]


def test_numbers_in_names_are_numbers(tmp_path):
    for name in ("a10.png", "a9.png", "a1.png"):
        (tmp_path / name).touch()
    assert [file.name for file in image_files(tmp_path)] == ["a1.png", "a9.png", "a10.png"]


def exif_jpeg(path, orientation):
    """A JPEG file that says in its EXIF data how it is to be turned."""
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=32x24,boxblur=1", "-frames:v", 1, "-q:v", 1, path)
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    exif = b"Exif\0\0" + tiff
    data = path.read_bytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    path.write_bytes(data[:2] + segment + data[2:])


def test_a_photo_is_turned_as_its_exif_data_says(tmp_path):
    exif_jpeg(tmp_path / "plain.jpg", 1)
    exif_jpeg(tmp_path / "turned.jpg", 6)
    with VideoSource(tmp_path / "plain.jpg") as one, VideoSource(tmp_path / "turned.jpg") as two:
        plain, turned = (next(source.frames()).planes[0] for source in (one, two))
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))  # clockwise


def test_images_into_a_folder_are_images_and_never_replace_the_input(folder, tmp_path, capsys):
    (tmp_path / "results").mkdir()
    words = ["--model", "bicubic", "--scale", "2"]
    assert main(["upscale", str(folder), str(tmp_path / "results"), *words]) == 0
    names = [f"{n:06d}.png" for n in range(1, 13)]
    assert sorted(os.listdir(tmp_path / "results")) == names
    clip = make_clip(tmp_path / "in.mp4", frames=1)
    assert main(["upscale", str(folder), str(clip), str(tmp_path / "results"), *words]) == 0
    found = sorted(set(os.listdir(tmp_path / "results")) - set(names))
    assert found == [*(f"50 of $it-{name}" for name in names), "in.mp4"]
    before = (folder / "frame 1.png").read_bytes()
    pattern = str(folder / "frame %d.png")
    assert main(["upscale", str(folder), pattern, *words, "--overwrite"]) == 1
    assert "the images of the input" in capsys.readouterr().err
    assert (folder / "frame 1.png").read_bytes() == before


@pytest.mark.parametrize("program", PROGRAMS, ids=PROGRAM_IDS)
@pytest.mark.parametrize("name", ["out-%d.png", "out.mov"])
@pytest.mark.parametrize(("matrix", "tag"), [("bt601", "smpte170m"), ("bt709", "bt709")])
def test_rgb_is_made_by_the_matrix_that_the_video_is_tagged_with(
    tmp_path, program, name, matrix, tag
):
    colour = f"color=0xE02040:s=16x16,format=gbrp,scale=out_color_matrix={matrix}:out_range=tv"
    source = tmp_path / "in.mkv"
    ffmpeg(
        *("-f", "lavfi", "-i", f"{colour},format=yuv444p,setparams=colorspace={tag}:range=tv"),
        *("-frames:v", 1, "-c:v", "ffv1", source),
    )
    output = upscale_video(
        source, tmp_path / name, model="bicubic", codec="png", ffmpeg=program.path
    )
    found = rgb(str(output).replace("%d", "1"))
    assert np.abs(found - [0xE0, 0x20, 0x40]).max() <= 2


def one_image(path, stored="rgb24"):
    look = ("-f", "lavfi", "-i", "testsrc2=s=32x24,boxblur=1", "-frames:v", 1)
    ffmpeg(*look, "-pix_fmt", stored, f"file:{path}")
    return path


def shrunk(path):
    return rgb(path).reshape(24, 4, 32, 4, 3).mean((1, 3))


@pytest.mark.parametrize("program", PROGRAMS, ids=PROGRAM_IDS)
@pytest.mark.parametrize(
    ("name", "stored", "result", "made"),
    [
        ("a.png", "rgb24", "50% of it.png", "rgb24"),
        ("a.png", "rgb48be", "b.tif", "rgb48le"),
        ("a.png", "rgba", "b.tif", "rgba"),
        ("a.png", "gray", "b.png", "gray"),
        ("a.jpg", "yuvj420p", "b.png", "rgb24"),
    ],
)
def test_an_image_becomes_an_image(tmp_path, program, name, stored, result, made):
    source = one_image(tmp_path / name, stored)
    output = upscale_video(source, tmp_path / result, model="bicubic", ffmpeg=program.path)
    assert sorted(os.listdir(tmp_path)) == sorted([name, result])
    assert np.abs(shrunk(output) - rgb(source)).mean() < 6
    with av.open(f"file:{output}") as container:
        assert [frame.format.name for frame in container.decode(video=0)] == [made]


def test_one_frame_of_a_video_becomes_an_image_and_more_are_refused(tmp_path, capsys):
    source = make_clip(tmp_path / "in.mp4", filters="boxblur=1", frames=5, sound=True)
    before = sorted(os.listdir(tmp_path))
    words = ["upscale", str(source), str(tmp_path / "b.png"), "--model", "bicubic"]
    assert main(words) == 1
    message = capsys.readouterr().err
    assert "one image, of a video of several frames" in message
    assert "--frames 1" in message and "b-%06d.png" in message
    assert sorted(os.listdir(tmp_path)) == before
    assert main([*words, "--start", "0.1", "--frames", "1"]) == 0
    with av.open(str(source)) as container:
        known = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][3]
    assert np.abs(shrunk(tmp_path / "b.png") - known).mean() < 6


def test_images_into_a_folder_keep_their_names(tmp_path, capsys):
    (tmp_path / "results").mkdir()
    names = [str(one_image(tmp_path / name)) for name in ("one 5%.png", "two.tif")]
    words = ["--model", "bicubic"]
    assert main(["upscale", *names, str(tmp_path / "results"), *words]) == 0
    assert sorted(os.listdir(tmp_path / "results")) == ["one 5.png", "two.png"]
    assert main(["upscale", names[0], names[0], *words, "--overwrite"]) == 1
    assert "the same file as the input" in capsys.readouterr().err


def test_what_images_cannot_hold_is_told_once_and_asked_for_silence_is_not(tmp_path):
    path = tmp_path / "in.mkv"
    sound = ("-f", "lavfi", "-i", "sine=d=0.2", "-f", "lavfi", "-i", "sine=d=0.2")
    look = ("-f", "lavfi", "-i", "testsrc2=s=16x16:r=10:d=0.2")
    ffmpeg(*look, *sound, "-map", 0, "-map", 1, "-map", 2, path)
    pattern, options = tmp_path / "out" / "%03d.png", {"model": "bicubic", "overwrite": True}
    pattern.parent.mkdir()
    with pytest.warns(
        UserWarning, match="images hold no more than pictures: left out 2 sound"
    ) as told:
        upscale_video(path, pattern, **options)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        upscale_video(path, pattern, sound=False, **options)
        upscale_video(path, tmp_path / "one.png", frames=1, **options)


def test_an_empty_image_is_refused_by_its_name(folder):
    (folder / "frame 5.png").write_bytes(b"")
    for on_error in ("fail", "conceal", "stop"):
        with pytest.raises(InputError, match=r"frame 5\.png: empty"):
            VideoSource(folder, Reading(on_error=on_error))


def test_hidden_files_are_no_images(folder):
    (folder / "._frame 1.png").write_bytes(b"Mac OS X")
    assert len(image_files(folder)) == 12


def test_images_of_the_input_are_not_replaced_through_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    for name in ("link/frame %d.png", "link/frame 1.png", f"{folder.name}/frame 1.png"):
        with pytest.raises(OutputError, match="the images of the input"):
            upscale_video(folder, tmp_path / name, model="bicubic", frames=1, overwrite=True)


def test_images_of_an_earlier_result_that_are_left_are_told(folder, tmp_path):
    result = tmp_path / "out" / "%06d.png"
    result.parent.mkdir()
    upscale_video(folder, result, model="bicubic", frames=3)
    first = sorted(result.parent.iterdir())
    with pytest.warns(UserWarning, match=rf"result, 1 image from {first[2].name} on"):
        upscale_video(folder, result, model="bicubic", frames=2, overwrite=True)
    assert sorted(result.parent.iterdir()) == first


def test_a_pattern_of_images_may_replace_a_video(folder, tmp_path):
    output = upscale_video(folder / "frame %d.png", tmp_path / "o.mkv", model="bicubic", frames=1)
    with pytest.raises(OutputError, match="exists already"):
        upscale_video(folder / "frame %d.png", output, model="bicubic", frames=2)
    upscale_video(folder / "frame %d.png", output, model="bicubic", frames=2, overwrite=True)
    assert len(video_times(output)) == 2


def test_a_folder_of_videos_and_images_is_refused(folder, tmp_path, capsys):
    make_clip(folder / "film.mp4", frames=1)
    (tmp_path / "out").mkdir()
    assert main(["upscale", str(folder), str(tmp_path), str(tmp_path / "out")]) == 2
    assert "holds videos (film.mp4 ...) and images (frame 1.png ...)" in capsys.readouterr().err
