"""Transparency: kept wherever encoder and container can, a warning where not."""

import warnings

import av
import numpy as np
import pytest

from d3dnet.job.upscale import upscale_video
from tests.video.clips import PROGRAM_IDS, PROGRAMS, ffmpeg, make_clip

COLUMNS, ROWS = 32, 24
SLOPE = "format={},geq=lum='lum(X,Y)':cb='cb(X,Y)':cr='cr(X,Y)':a='{}*(8*X+4)'"
BLUR = "boxblur=1"


@pytest.fixture(params=PROGRAMS, ids=PROGRAM_IDS)
def program(request):
    return request.param


def slope(path, pixel_format, *words, depth=8, frames=3):
    """A clip whose alpha rises by 8/256 from column to column."""
    kind = "yuva444p" if depth == 8 else "yuva444p16le"
    rise = 1 if depth == 8 else 257
    return make_clip(
        *(path, *words, "-pix_fmt", pixel_format),
        size=f"{COLUMNS}x{ROWS}",
        frames=frames,
        filters=f"{BLUR},{SLOPE.format(kind, rise)}",
    )


def alphas(path):
    """Alpha of every frame in [0, 1], as the ffmpeg program reads it."""
    decoder = []
    if path.suffix == ".webm":
        with av.open(str(path)) as container:
            name = container.streams.video[0].codec_context.name
        decoder = ["-c:v", {"vp8": "libvpx", "vp9": "libvpx-vp9"}[name]]
    raw = ffmpeg(
        *(*decoder, "-i", path, "-vf", "format=yuva444p16le,alphaextract"),
        *("-f", "rawvideo", "-pix_fmt", "gray16le", "-fps_mode", "passthrough", "-"),
    )
    return np.frombuffer(raw, np.uint16)


FFV1, PNG = ("-c:v", "ffv1"), ("-c:v", "png")
KEPT = [
    # pixel format, words and name of the source; name, codec and pixel format of the result
    ("yuva420p", FFV1, "in.mkv", "out.mkv", "ffv1", "yuva420p"),
    ("yuva444p10le", ("-c:v", "prores_ks"), "in.mov", "out.mov", "prores_ks", "yuva444p"),
    ("yuva420p", FFV1, "in.mkv", "out.mov", "prores_ks", "yuva444p"),
    ("gbrap10le", FFV1, "in.mkv", "out.mkv", "ffv1", "gbrap10le"),
    ("rgba", PNG, "in.mkv", "out.mkv", "ffv1", "bgra"),
    ("rgba", PNG, "in.mov", "out.mov", "qtrle", "argb"),
    ("rgba", PNG, "in.mov", "out.mkv", "png", "rgba"),
    ("yuva420p", FFV1, "in.mkv", "out.mkv", "png", "rgba"),
    ("yuva420p", FFV1, "in.mkv", "out.mov", "qtrle", "argb"),
    ("rgba", PNG, "in.mov", "out.mov", "prores_ks", "yuva444p"),
    ("ya8", PNG, "in.mkv", "out.mkv", "ffv1", "ya8"),
    ("ya16be", PNG, "in.mkv", "out-%d.png", "png", "rgba64be"),
    ("yuva420p", FFV1, "in.mkv", "out-%d.png", "png", "rgba"),
    ("yuva444p10le", FFV1, "in.mkv", "out-%d.png", "png", "rgba64be"),
    ("rgba", PNG, "in.mkv", "out-%d.tiff", "tiff", "rgba"),
    ("yuva420p", FFV1, "in.mkv", "out.webm", "libvpx-vp9", "yuv420p"),
    ("yuva420p", FFV1, "in.mkv", "out.webm", "libvpx", "yuv420p"),
    ("yuva420p", ("-c:v", "libvpx-vp9", "-crf", 4), "in.webm", "out.mkv", "ffv1", "yuva420p"),
]


@pytest.mark.parametrize(
    ("stored", "words", "source", "result", "codec", "written"),
    KEPT,
    ids=[f"{case[0]}-{case[4]}-{case[3]}" for case in KEPT],
)
def test_alpha_is_enlarged_with_the_picture_and_written(
    tmp_path, program, stored, words, source, result, codec, written
):
    source = slope(tmp_path / source, stored, *words, depth=16 if "1" in stored else 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output = upscale_video(
            source, tmp_path / result, model="bicubic", codec=codec, ffmpeg=program.path
        )
    first = str(output).replace("%d", "1")
    with av.open(first) as container:
        assert container.streams.video[0].pix_fmt.startswith(written)
    found = alphas(output).reshape(3, 4 * ROWS, 4 * COLUMNS) / 65535
    # Column X of the result shows the point (X + 1/2) / 4 - 1/2 of the source.
    expected = (8 * ((np.arange(4 * COLUMNS) + 0.5) / 4 - 0.5) + 4) / 256
    error = np.abs(found - expected)[:, :, 8:-8]
    assert error.max() < (0.05 if "vpx" in codec or "webm" in source.name else 0.006)


def test_alpha_is_made_smaller_with_the_picture(tmp_path):
    source = slope(tmp_path / "in.mkv", "yuva420p", *FFV1)
    output = upscale_video(source, tmp_path / "o.mkv", model="bicubic", codec="ffv1", scale=1.5)
    found = alphas(output).reshape(3, 36, 48) / 65535
    expected = (8 * ((np.arange(48) + 0.5) / 1.5 - 0.5) + 4) / 256
    assert np.abs(found - expected)[:, :, 4:-4].max() < 0.006


@pytest.mark.parametrize(
    ("codec", "name"),
    [("libx264", "out.mkv"), ("libx265", "out.mp4"), ("libvpx-vp9", "out.mp4")],
)
def test_a_warning_says_where_alpha_cannot_be_kept(tmp_path, program, codec, name):
    source = slope(tmp_path / "in.mkv", "yuva420p", *FFV1)
    with pytest.warns(UserWarning, match=r"without the transparency.*ffv1"):
        upscale_video(source, tmp_path / name, model="bicubic", codec=codec, ffmpeg=program.path)


@pytest.mark.parametrize(("level", "warned"), [("255", False), ("if(eq(N,2),99,255)", True)])
def test_only_alpha_that_shows_is_missed_even_if_it_comes_late(tmp_path, level, warned):
    source = make_clip(
        *(tmp_path / "in.mkv", *FFV1, "-pix_fmt", "yuva420p"),
        frames=4,
        filters=f"{BLUR},format=yuva420p,geq=lum='lum(X,Y)':cb='cb(X,Y)':cr='cr(X,Y)':a='{level}'",
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        upscale_video(source, tmp_path / "out.mkv", model="bicubic")
    assert ["transparency" in str(w.message) for w in caught] == [True] * warned


def test_a_picture_without_alpha_becomes_opaque_in_a_format_that_has_it(tmp_path):
    source = make_clip(tmp_path / "in.mkv", *FFV1, "-pix_fmt", "yuv444p", filters=BLUR, frames=2)
    output = upscale_video(
        source, tmp_path / "out.mkv", model="bicubic", codec="ffv1", pix_fmt="yuva444p"
    )
    assert (alphas(output) == 65535).all()
