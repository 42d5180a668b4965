import sys

import pytest

from d3dnet.errors import ProgramError
from d3dnet.video.ffmpeg import bundled_program, find_program, has_option, pixel_formats
from tests.video.clips import BUNDLED


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def three_programs(tmp_path, monkeypatch):
    """Programs that call themselves by where they are named: argument, variable, path."""
    for where in ("argument", "variable", "path"):
        (tmp_path / where).mkdir()
        script(tmp_path / where / "ffmpeg", f"echo ffmpeg version {where}")
    monkeypatch.setenv("FFMPEG", str(tmp_path / "variable" / "ffmpeg"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/bin:/usr/bin")
    return tmp_path


def test_the_named_program_comes_before_the_variable_the_path_and_the_bundled_one(
    three_programs, monkeypatch
):
    assert find_program(three_programs / "argument" / "ffmpeg").version == "argument"
    assert find_program().version == "variable"
    monkeypatch.delenv("FFMPEG")
    assert find_program().version == "path"
    monkeypatch.setenv("PATH", str(three_programs / "nothing here"))
    assert find_program() == bundled_program()


def test_a_named_program_that_is_missing_is_an_error_and_not_replaced_by_another(three_programs):
    with pytest.raises(ProgramError, match=r"--ffmpeg .*nowhere.* does not run"):
        find_program(three_programs / "nowhere")


def test_a_variable_that_names_something_else_than_ffmpeg_is_an_error(monkeypatch):
    monkeypatch.setenv("FFMPEG", sys.executable)
    with pytest.raises(ProgramError, match=r"\$FFMPEG .* is not an ffmpeg program"):
        find_program()


def test_pixel_formats_of_x264_include_eight_and_ten_bits_and_grey():
    assert {"yuv420p", "yuv444p", "yuv420p10le", "gray"} <= set(pixel_formats(BUNDLED, "libx264"))


@pytest.mark.parametrize("codec", ["no_such_codec", "aac", "libx264 "])
def test_what_is_no_video_encoder_is_refused_by_name(codec):
    with pytest.raises(ProgramError, match=f"no video encoder {codec!r}"):
        pixel_formats(BUNDLED, codec)


def test_x264_has_a_crf_and_ffv1_has_not():
    assert has_option(BUNDLED, "encoder=libx264", "crf")
    assert not has_option(BUNDLED, "encoder=ffv1", "crf")
