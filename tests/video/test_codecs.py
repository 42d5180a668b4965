"""Encoders and their settings, end to end, with every ffmpeg program."""

import av
import pytest

from d3dnet.errors import EncoderError, OutputError
from d3dnet.job.upscale import upscale_video
from tests.video.clips import PROGRAM_IDS, PROGRAMS, make_clip, video_times


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("codecs") / "in.mkv"
    words = ("-c:v", "ffv1", "-pix_fmt", "yuv420p")
    return make_clip(path, *words, size="32x24", filters="boxblur=1", frames=3)


@pytest.mark.parametrize("program", PROGRAMS, ids=PROGRAM_IDS)
@pytest.mark.parametrize(
    ("codec", "name", "options", "found"),
    [
        ("libx264", "out.mp4", {"crf": 10, "preset": "ultrafast"}, ("h264", "yuv420p")),
        ("libx264", "out.mkv", {"pix_fmt": "yuv444p"}, ("h264", "yuv444p")),
        ("libx265", "out.mp4", {"crf": 12, "preset": "ultrafast"}, ("hevc", "yuv420p")),
        ("libx265", "out.mkv", {"pix_fmt": "yuv420p10le"}, ("hevc", "yuv420p10le")),
        ("libsvtav1", "out.mkv", {"crf": 20, "preset": "10", "scale": 3}, ("av1", "yuv420p")),
        ("prores_ks", "out.mov", {}, ("prores", "yuv422p10le")),
        ("ffv1", "out.mkv", {}, ("ffv1", "yuv420p")),
        ("mpeg4", "out.avi", {}, ("mpeg4", "yuv420p")),
    ],
)
def test_the_encoder_asked_for_makes_the_result(
    tmp_path, clip, program, codec, name, options, found
):
    output = upscale_video(
        *(clip, tmp_path / name),
        model="bicubic",
        codec=codec,
        ffmpeg=program.path,
        ffmpeg_args=["-metadata", "comment=as told"],
        **options,
    )
    with av.open(str(output)) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        name = stream.codec_context.codec.canonical_name
        assert (name, frame.format.name) == found
        tags = {key.lower(): value for key, value in container.metadata.items()}
        assert tags["comment"] == "as told"
    assert len(video_times(output)) == 3


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"preset": "warp"}, EncoderError, "warp|preset|stopped"),
        ({"pix_fmt": "yuv9"}, OutputError, r"got 'yuv9'; libx264 takes yuv420p"),
        ({"codec": "ffv1", "preset": "fast"}, OutputError, "ffv1 has no such setting"),
        ({"ffmpeg_args": ["-nonsense", "1"]}, EncoderError, "stopped"),
    ],
)
def test_settings_that_there_are_not_are_refused_before_any_work(
    tmp_path, clip, options, error, complaint
):
    with pytest.raises(error, match=complaint) as caught:
        upscale_video(clip, tmp_path / "out.mkv", model="bicubic", **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
