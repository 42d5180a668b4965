"""A wrong picture is told from a right one, whatever the picture is of."""

import numpy as np
import pytest
import torch

import d3dnet
from d3dnet.job.upscale import upscale_video
from d3dnet.network.cubic import resample_luma
from d3dnet.video.likeness import likeness
from tests.video.clips import BUNDLED, ffmpeg

H, W = 32, 48
Y, X = np.mgrid[:H, :W]


def noise(seed, share=0.5):
    return 219.0 * (np.random.default_rng(seed).random((H, W)) > share) + 16


PICTURES = {
    "checkers": 219.0 * ((X + Y) % 2) + 16,
    "columns": 219.0 * (X % 2) + 16,
    "wider checkers": 219.0 * ((X // 2 + Y // 2) % 2) + 16,
    "black and white noise": noise(1),
    "a few dots": noise(1, 0.9),
    "a few holes": noise(1, 0.1),
    "dither": 219.0 * (X / W > np.random.default_rng(1).random((H, W))) + 16,
    "rings": 109 * np.cos((X**2 + Y**2) / 60) + 125,
    "a grid": np.where((X % 5 == 0) | (Y % 7 == 0), 235.0, 16.0),
    "grey noise": np.random.default_rng(1).random((H, W)) * 219 + 16,
}


@pytest.mark.parametrize("model", ["bicubic", "d3dnet-lite", "d3dnet"])
def test_what_a_network_makes_of_hard_pictures_is_right(model):
    torch.set_num_threads(1)
    network = d3dnet.load_model(model)
    for name, picture in PICTURES.items():
        frames = picture.round().astype(np.uint8)[None]
        large = np.asarray(next(iter(d3dnet.upscale_frames(frames, model=network))), np.float32)
        small = resample_luma(large.reshape(4 * H, 4 * W), (H, W))
        assert likeness(picture, small).fits, name
        coarse = 8 * np.rint(small / 8)  # what a bad encoder leaves
        assert likeness(picture, coarse).fits, name


@pytest.mark.parametrize("name", ["black and white noise", "a few dots", "grey noise", "dither"])
def test_another_picture_of_the_same_kind_is_wrong(name):
    one = PICTURES[name]
    assert not likeness(one, np.roll(one, (9, 17), (0, 1))).fits
    assert not likeness(one, one[:, ::-1]).fits


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_another_kind_is_wrong(name):
    one = PICTURES[name]
    for other in (np.full((H, W), 16.0), np.full((H, W), 235.0), 235.0 * (X > W / 2)):
        assert not likeness(one, other).fits


def test_a_picture_that_has_become_brighter_is_wrong():
    smooth = 100 + 50 * np.sin(X / 9)
    assert likeness(smooth, smooth + 10).fits
    assert not likeness(smooth, smooth + 40).fits


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ("format=gray,scale=64:48:sws_dither=ed,format=monob", ("-pix_fmt", "gray")),
        ("geq=lum='219*mod(X+Y,2)+16':cb=128:cr=128", ("-pix_fmt", "yuv420p")),
        ("geq=random(1)*255:random(2)*255:random(3)*255", ("-pix_fmt", "yuv444p")),
    ],
    ids=["dither", "checkers", "noise"],
)
@pytest.mark.parametrize("options", [{}, {"crf": 51}], ids=["good", "bad"])
def test_such_videos_are_made_whatever_the_quality(tmp_path, filters, words, options):
    path = tmp_path / "in.mkv"
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=64x48:r=25",
        "-frames:v",
        3,
        "-vf",
        filters,
        "-c:v",
        "ffv1",
        *words,
        path,
    )
    upscale_video(path, tmp_path / "out.mkv", model="bicubic", ffmpeg=BUNDLED.path, **options)
