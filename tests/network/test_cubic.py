import warnings

import av
import numpy as np
import pytest

from d3dnet.datasets.imresize import imresize
from d3dnet.errors import OutputError
from d3dnet.job.upscale import upscale_video
from d3dnet.network.cubic import Grid, resample_chroma, resample_luma
from d3dnet.video.picture import layout_of
from d3dnet.video.target import Size
from tests.video.clips import make_clip


@pytest.mark.parametrize("scale", [0.25, 0.375, 0.5, 0.75])
def test_shrinking_is_matlabs_antialiased_bicubic(scale):
    plane = np.random.default_rng(0).random((64, 80)) * 255
    expected = imresize(plane, scale)
    inside = (slice(4, -4), slice(4, -4))  # MATLAB mirrors at the edges
    found = resample_luma(plane, expected.shape)
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-3)


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p", "yuv411p"])
@pytest.mark.parametrize("location", ["left", "topleft", "center"])
def test_four_times_larger_is_what_the_fast_path_makes(name, location):
    layout = layout_of(name, location=location)
    grid = Grid(layout.chroma_step, layout.chroma_offset)
    plane = np.random.default_rng(0).random((9, 7)).astype(np.float32)
    fast = resample_chroma(plane, (36, 28), (4, 4), grid, grid)
    larger = resample_chroma(plane, (37, 29), (4, 4), grid, grid)  # which the fast path cannot make
    np.testing.assert_allclose(fast, larger[:36, :28], atol=1e-5)


@pytest.mark.parametrize("scale", [0.3, 1.5, 2, 3])
def test_a_slope_stays_where_it_is(scale):
    # A plane that rises with position does so after scaling about the edges of the picture.
    plane = np.add.outer(3.0 * np.arange(40), 2.0 * np.arange(50))
    size = (round(40 * scale), round(50 * scale))
    rows, columns = (
        (np.arange(n) + 0.5) * old / n - 0.5 for n, old in zip(size, (40, 50), strict=True)
    )
    expected = np.add.outer(3 * rows, 2 * columns)
    margin = 3 if scale > 1 else 4
    cut = tuple(slice(int(margin * max(1, scale)), -int(margin * max(1, scale))) for _ in size)
    np.testing.assert_allclose(resample_luma(plane, size)[cut], expected[cut], atol=0.01)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (Size(), (188, 252)),
        (Size(scale=2), (94, 126)),
        (Size(scale=1.5), (70, 94)),
        (Size(height=100), (100, 134)),
        (Size(width=100), (74, 100)),
        (Size(height=61, width=99), (60, 100)),
        (Size(scale=0.001), (2, 2)),
    ],
)
def test_sizes_are_the_nearest_that_420_can_have(size, expected):
    found = size.of(47, 63, (2, 2))
    assert all(
        abs(a - b) <= (2 if size.scale is None else 0) for a, b in zip(found, expected, strict=True)
    )
    assert all(n % 2 == 0 for n in found)
    assert size.height is None or abs(found[0] - size.height) <= 1


def test_impossible_sizes_are_refused():
    with pytest.raises(OutputError, match="252×188 at most"):
        Size(height=189).of(47, 63)
    for wrong in ({"scale": 5}, {"scale": 0}, {"scale": 2, "height": 9}, {"width": 0}):
        with pytest.raises(ValueError, match="accepted"):
            Size(**wrong)


@pytest.mark.parametrize(
    ("asked", "pixel_format", "warning"),
    [
        ({"width": 77}, "yuv420p", "width 77 becomes 76: yuv420p needs multiples of 2"),
        ({"width": 77}, "yuv444p", None),
        ({"height": 51}, "yuv422p", None),  # its rows are free; the width was not asked for
        ({"height": 63, "width": 45}, "yuv420p", "height 63 becomes 64 and width 45 becomes 44: "),
        ({"scale": 1.5}, "yuv420p", "height 33 becomes 32 and width 51 becomes 52: "),
        ({"scale": 3}, "yuv420p", None),
        ({}, "yuv420p", None),
    ],
    ids=str,
)
def test_a_size_that_is_asked_for_and_rounded_is_told_in_one_warning(
    tmp_path, asked, pixel_format, warning
):
    source = make_clip(tmp_path / "in.mkv", "-c:v", "ffv1", size="34x22", frames=1)
    options = {"model": "bicubic", "codec": "ffv1", "pix_fmt": pixel_format}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = upscale_video(source, tmp_path / "out.mkv", **options, **asked)
    found = [str(each.message) for each in caught]
    assert len(found) == (warning is not None), found
    assert warning is None or f"out.mkv: {warning}" in found[0]
    with av.open(str(result)) as container:
        stream = container.streams.video[0]
        for side, length in asked.items():
            assert side == "scale" or abs(getattr(stream, side) - length) == bool(warning)
