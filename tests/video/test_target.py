import os
from fractions import Fraction

import pytest

from d3dnet.errors import OutputError
from d3dnet.video.ffmpeg import pixel_formats
from d3dnet.video.picture import ColourTags, layout_of
from d3dnet.video.target import (
    Encoding,
    Target,
    check_output_path,
    choose_layout,
    encoder_time_base,
    muxers_of,
)
from tests.video.clips import PROGRAM_IDS, PROGRAMS, make_clip


@pytest.fixture(params=PROGRAMS, ids=PROGRAM_IDS)
def program(request):
    return request.param


@pytest.mark.parametrize(
    ("stored", "codec", "chosen"),
    [
        ("yuv420p", "libx264", "yuv420p"),
        ("yuv444p", "libx264", "yuv444p"),
        ("yuv422p10le", "libx264", "yuv422p10le"),
        ("yuv420p12le", "libx264", "yuv420p10le"),
        ("yuv420p9le", "libx264", "yuv420p10le"),
        ("yuv440p", "libx264", "yuv444p"),
        ("yuv411p", "libx264", "yuv422p"),
        ("yuv410p", "libx264", "yuv420p"),
        ("gray", "libx264", "gray"),
        ("gray16le", "libx264", "gray10le"),
        ("gbrp", "libx264", "yuv444p"),
        ("gbrp16le", "libx264", "yuv444p10le"),
        ("gbrp", "libx265", "gbrp"),
        ("gbrp", "ffv1", "bgr0"),
        ("gbrp", "libx264rgb", "bgr0"),
        ("yuv420p", "prores_ks", "yuv422p10le"),
        ("yuva420p", "ffv1", "yuva420p"),
        ("yuva444p12le", "prores_ks", "yuva444p10le"),
        ("gbrap", "ffv1", "bgra"),
        ("gbrap", "libx264", "yuv444p"),
        ("ya8", "ffv1", "ya8"),
        ("yuv440p10le", "ffv1", "yuv444p10le"),
        ("gray", "mpeg4", "yuv420p"),
        ("yuv420p10le", "mpeg4", "yuv420p"),
    ],
)
def test_the_encoder_gets_the_format_that_keeps_the_most(program, stored, codec, chosen):
    formats = pixel_formats(program, codec)
    layout, name = choose_layout(layout_of(stored), formats, codec)
    assert name == chosen
    assert layout.pixel_format == {"bgr0": "gbrp", "bgra": "gbrap"}.get(chosen, chosen)


def test_an_encoder_without_a_planar_format_is_refused():
    with pytest.raises(OutputError, match="takes only bgr24 rgb565le"):
        choose_layout(layout_of("yuv420p"), ["bgr24", "rgb565le"], "some")


def test_an_encoder_of_full_range_only_gets_full_range():
    formats = ["yuvj420p", "yuvj422p", "yuvj444p"]
    layout, name = choose_layout(layout_of("yuv420p"), formats, "mjpeg")
    assert (layout.pixel_format, layout.full_range, name) == ("yuv420p", True, "yuvj420p")


@pytest.mark.parametrize(
    ("codec", "suffix", "time_base", "expected"),
    [
        ("libx264", ".mp4", Fraction(1, 12800), Fraction(1, 12800)),
        ("libx264", ".mp4", Fraction(1001, 30000), Fraction(1001, 30000)),
        ("libx264", ".mkv", Fraction(1, 10**9), Fraction(1, 90000)),
        ("mpeg4", ".mp4", Fraction(1, 90000), Fraction(1, 25)),
        ("mpeg2video", ".ts", Fraction(1, 90000), Fraction(1, 25)),
        ("libx264", ".avi", Fraction(1, 12800), Fraction(1, 25)),
    ],
)
def test_the_encoder_ticks_as_the_source_does_where_it_can(codec, suffix, time_base, expected):
    target = Target(
        height=8,
        width=8,
        layout=layout_of("yuv420p"),
        colour=ColourTags(),
        time_base=time_base,
        frame_rate=Fraction(25),
        encoding=Encoding(codec),
    )
    assert encoder_time_base(target, suffix) == expected


def test_outputs_that_cannot_be_are_refused(tmp_path):
    source = make_clip(tmp_path / "source.mp4", frames=1)
    (tmp_path / "there.mp4").write_bytes(b"old")
    (tmp_path / "link.mp4").symlink_to(source)
    (tmp_path / "file").write_bytes(b"")
    for name, complaint in [
        ("missing/out.mp4", "does not exist"),
        ("file/out.mp4", "does not exist"),
        (".", "a folder"),
        ("source.mp4", "same file as the input"),
        ("link.mp4", "same file as the input"),
        ("there.mp4", "exists already.*--overwrite"),
        ("out.xyz", "no video container"),
        ("out", "no extension is no video container"),
        ("out.bmp", "no video container"),
        ("out.wav", "no video container"),
        ("out.mp3", "no video container"),
    ]:
        with pytest.raises(OutputError, match=complaint):
            check_output_path(tmp_path / name, source, overwrite=False)
    assert check_output_path(tmp_path / "there.mp4", source, overwrite=True).name == "there.mp4"
    with pytest.raises(OutputError, match="same file"):
        check_output_path(tmp_path / "source.mp4", source, overwrite=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_refused(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    with pytest.raises(OutputError, match="not writable"):
        check_output_path(folder / "out.mp4", tmp_path / "in.mp4", overwrite=False)


def test_a_folder_that_is_said_not_to_be_writable_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(OutputError, match=r"the folder .* is not writable"):
        check_output_path(tmp_path / "out.mp4", tmp_path / "in.mp4", overwrite=False)


def test_extensions_mean_containers():
    assert "matroska" in muxers_of(".mkv")
    assert "mp4" in muxers_of(".MP4")
    assert muxers_of("") == muxers_of(".nothing") == []
