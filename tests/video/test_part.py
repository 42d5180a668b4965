"""A part of a video: --start, --end and --frames on the file's own times."""

from fractions import Fraction

import av
import numpy as np
import pytest

from d3dnet.errors import InputError
from d3dnet.job.upscale import upscale_video
from d3dnet.video.reading import Reading
from d3dnet.video.source import VideoSource
from tests.video.clips import PROGRAM_IDS, PROGRAMS, audio_packets, make_clip, video_times


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("part")
    return make_clip(
        *(folder / "in.mkv", "-c:v", "libx264", "-g", 10, "-bf", 2, "-c:a", "pcm_s16le"),
        frames=50,
        sound=True,
    )


@pytest.mark.parametrize(
    ("part", "indexes"),
    [
        ({"start": Fraction(1)}, range(25, 50)),
        ({"start": Fraction("1.001")}, range(26, 50)),
        ({"end": Fraction(1)}, range(25)),
        ({"start": Fraction("0.52"), "end": Fraction("0.6")}, range(13, 15)),
        ({"start": Fraction("0.52"), "frames": 4}, range(13, 17)),
        ({"frames": 3}, range(3)),
        ({"frames": 300}, range(50)),
        ({"start": Fraction(-5)}, range(50)),
    ],
    ids=lambda value: str(value) if isinstance(value, range) else "",
)
def test_exactly_the_frames_of_these_times_are_read(clip, part, indexes):
    with VideoSource(clip) as source:
        everything = list(source.frames())
    with VideoSource(clip, Reading(**part)) as source:
        found = list(source.frames())
    assert [frame.pts for frame in found] == [everything[n].pts for n in indexes]
    for frame, n in zip(found, indexes, strict=True):
        np.testing.assert_array_equal(frame.planes[0], everything[n].planes[0])


@pytest.mark.parametrize("program", PROGRAMS, ids=PROGRAM_IDS)
@pytest.mark.parametrize("name", ["out.mkv", "out.mov"])
@pytest.mark.parametrize("end", [{"frames": 10}, {"end": "0:01.2"}])
def test_a_part_begins_at_zero_with_its_own_sound(clip, tmp_path, program, name, end):
    output = upscale_video(
        clip, tmp_path / name, model="bicubic", start=0.8, ffmpeg=program.path, **end
    )
    assert video_times(output) == [Fraction(n, 25) for n in range(10)]

    def samples(path):
        with av.open(str(path)) as container:
            frames = list(container.decode(audio=0))
            return float(frames[0].pts * frames[0].time_base), np.concatenate(
                [frame.to_ndarray()[0] for frame in frames]
            )

    start, sound = samples(output)
    _, whole = samples(clip)
    assert abs(start) < 0.03
    assert abs(len(sound) / 44100 - 0.4) < 0.06
    at = round((0.8 + start) * 44100)
    offsets = range(-60, 61)
    nearest = min(
        offsets,
        key=lambda n: np.abs(sound[:4000].astype(int) - whole[at + n : at + n + 4000]).sum(),
    )
    assert np.abs(sound[:4000].astype(int) - whole[at + nearest :][:4000]).max() == 0
    assert audio_packets(output)


def test_a_part_without_frames_and_impossible_parts_are_refused(clip):
    with pytest.raises(InputError, match="in the part that was asked for"):
        VideoSource(clip, Reading(start=Fraction(60)))
    for wrong in ({"frames": 0}, {"start": Fraction(2), "end": Fraction(1)}, {"on_error": "hope"}):
        with pytest.raises(ValueError, match="accepted"):
            Reading(**wrong)
