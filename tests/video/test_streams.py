import pytest

from d3dnet.video.streams import subtitle_encoders


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        (".mkv", {0: "copy", 1: "srt", 2: "copy"}),
        (".mp4", {0: "mov_text", 1: "copy"}),
        (".WEBM", {0: "webvtt", 1: "webvtt"}),
        (".ts", {}),
    ],
)
def test_subtitles_are_copied_or_become_what_the_container_holds(suffix, expected):
    assert subtitle_encoders(["subrip", "mov_text", "hdmv_pgs_subtitle"], suffix) == expected
