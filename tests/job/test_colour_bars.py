"""Colour bars through the whole path: flat areas keep their colour, tags stay."""

from functools import cache

import numpy as np
import pytest

import d3dnet
from d3dnet.job.upscale import upscale_video
from d3dnet.network.checkpoints import bundled_models
from d3dnet.video.picture import ColourTags
from d3dnet.video.source import VideoSource
from tests.video.clips import ffmpeg

MATRICES = {
    "bt601": ("smpte170m", ColourTags(matrix=6, primaries=6, transfer=6)),
    "bt709": ("bt709", ColourTags(matrix=1, primaries=1, transfer=1)),
    "bt2020": ("bt2020", ColourTags(matrix=9, primaries=9, transfer=14)),
}


NETWORK_DEPTHS = (8, 10)


def bars(path, standard, full, depth):
    matrix, tags = MATRICES[standard]
    look = f"smptebars=s=112x24,format=gbrp,scale=out_color_matrix={matrix}"
    look += f":out_range={'pc' if full else 'tv'}"
    look += f",format={'yuv420p' if depth == 8 else 'yuv420p10le'},setparams="
    look += f"color_primaries={tags.primaries}:color_trc={tags.transfer}:colorspace={tags.matrix}"
    ffmpeg("-f", "lavfi", "-i", look, "-frames:v", 1, "-c:v", "libx264", "-qp", 0, path)
    return path


def worst_error(source, output, depth, full, standard):
    """Largest difference of the middle of a bar from its colour, in code values of `depth`."""
    with VideoSource(source) as before, VideoSource(output) as after:
        for video in (before, after):
            assert (video.layout.depth, video.layout.full_range) == (depth, full)
        assert after.colour == before.colour
        tags = MATRICES[standard][1]
        assert (after.colour.matrix, after.colour.primaries) == (tags.matrix, tags.primaries)
        small, large = (next(video.frames()).planes for video in (before, after))
    colours, worst = set(), 0
    for bar in range(7):
        for number, (plane, result) in enumerate(zip(small, large, strict=True)):
            step = plane.shape[1] // 7
            known = int(plane[4 if number == 0 else 2, bar * step + step // 2])
            column = 4 * (bar * step + step // 2)
            flat = result[8:20, column - 6 : column + 6]
            worst = max(worst, int(np.abs(flat.astype(int) - known).max()))
            colours.add((number, known))
    assert len(colours) > 12  # they are bars
    return worst


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("standard", MATRICES)
def test_bars_stay_within_one_code_value_with_bicubic(tmp_path, standard, full, depth):
    source = bars(tmp_path / "bars.mkv", standard, full, depth)
    output = upscale_video(source, tmp_path / "out.mp4", model="bicubic")
    assert worst_error(source, output, depth, full, standard) <= 1


@cache
def network(name):
    return d3dnet.load_model(name, device="cpu", precision="float32")


@pytest.mark.parametrize("depth", NETWORK_DEPTHS)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("standard", MATRICES)
@pytest.mark.parametrize("name", bundled_models())
def test_bars_stay_within_three_code_values_with_the_network(tmp_path, name, standard, full, depth):
    source = bars(tmp_path / "bars.mkv", standard, full, depth)
    output = upscale_video(source, tmp_path / "out.mp4", model=network(name))
    assert worst_error(source, output, depth, full, standard) <= 3
