"""Inputs of every kind through the whole path: upscaled faithfully, or refused with a reason.

Frames, times, streams, tags and the picture itself are checked by decoding the result with PyAV and
the ffmpeg program, apart from the audit that the tool makes of itself.
"""

import contextlib
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from d3dnet.errors import VideoError
from d3dnet.job.upscale import upscale_video
from tests.video.clips import PROGRAMS, ffmpeg

MIN_PSNR = 28


@dataclass(frozen=True)
class Case:
    """An input, and what must come of it.

    Attributes:
        name: of the file, with its extension.
        words: for ffmpeg, before the name.
        output: name of the result.
        options: for `upscale_video`.
        make: makes the file otherwise than with `words`.
        refused: what the error says; None where the result must be faithful.
        warns: what a warning says.
        streams: kinds of the streams of the result.
        count: frames of the result where the source is damaged; only the first five are compared.
    """

    name: str
    words: tuple[object, ...] = ()
    size: str = "64x48"
    rate: str = "25"
    filters: str = "null"
    frames: int = 5
    sound: tuple[object, ...] = ()
    output: str = "out.mkv"
    options: dict = field(default_factory=dict)
    make: Callable[[Path], None] | None = None
    refused: str | None = None
    warns: str | None = None
    streams: tuple[str, ...] = ("video",)
    count: int | None = None


LOSSLESS = ("-c:v", "ffv1", "-pix_fmt")
H264 = ("-c:v", "libx264", "-qp", 4, "-pix_fmt")
X264 = {"crf": 6}
FAST = ("-g", 5, "-bf", 0, "-movflags", "faststart")
STOPPED = 15  # frames that are whole in the first 70 % of the bytes
# No times before zero: a sound encoder's delay, or reordering, moves all (the audit measures it).
MOVING = (".avi", ".ts", ".webm")


def write(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data)


def cut(share: float, *words: object) -> Callable[[Path], None]:
    """A clip of which only the first part is there."""

    def make(path: Path) -> None:
        ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25", "-frames:v", 25, *words, path)
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])

    return make


def hole(path: Path) -> None:
    """A clip of twenty PNG pictures of which number 10 is overwritten in its middle."""
    words = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25,boxblur=1", "-frames:v", 20)
    ffmpeg(*words, "-c:v", "png", "-f", "matroska", path)
    with av.open(str(path)) as container:
        picture = bytes(list(container.demux(video=0))[10])
    data = path.read_bytes()
    damaged = picture[: len(picture) // 2] + bytes(len(picture) - len(picture) // 2)
    path.write_bytes(data.replace(picture, damaged))


def sound_only(path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", path)


def two_videos(path: Path) -> None:
    looks = ("-f", "lavfi", "-i", "testsrc2=s=64x48:d=0.2,boxblur=1", "-f", "lavfi")
    ffmpeg(
        *looks, "-i", "color=red:s=32x32:d=0.2", "-map", 0, "-map", 1, *LOSSLESS, "yuv420p", path
    )


def cover(path: Path) -> None:
    picture = path.with_name("cover.png")
    ffmpeg("-f", "lavfi", "-i", "color=blue:s=20x20", "-frames:v", 1, picture)
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=64x48:d=0.2,boxblur=1", "-i", picture),
        *("-map", 1, "-map", 0, "-c:v:0", "copy", "-disposition:v:0", "attached_pic"),
        *("-c:v:1", "libx264", "-qp", 4, "-pix_fmt:v:1", "yuv420p", path),
    )
    picture.unlink()


def subtitled(path: Path) -> None:
    text = path.with_name("text.srt")
    text.write_text("1\n00:00:00,000 --> 00:00:00,100\nHello\n\n")
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=64x48:d=0.2,boxblur=1", "-f", "lavfi", "-i"),
        *("sine=d=0.2", "-i", text, "-map", 0, "-map", 1, "-map", 2, *LOSSLESS, "yuv420p"),
        *("-metadata:s:v", "title=Main", path),
    )
    text.unlink()


def with_data(path: Path) -> None:
    data = path.with_name("data.bin")
    data.write_bytes(bytes(200))
    look = ("-f", "lavfi", "-i", "testsrc2=s=64x48:d=0.2,boxblur=1", "-f", "data", "-i", data)
    ffmpeg(*look, "-map", 0, "-map", 1, *H264, "yuv420p", path)
    data.unlink()


def with_chapters(path: Path) -> None:
    """Which a MOV file has as a stream of text, and its timecode as another one."""
    text = path.with_name("chapters.txt")
    text.write_text(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=100\ntitle=One\n")
    look = ("-f", "lavfi", "-i", "testsrc2=s=64x48:d=0.2,boxblur=1", "-i", text)
    ffmpeg(*look, "-map_chapters", 1, "-timecode", "01:00:00:00", *H264, "yuv420p", path)
    text.unlink()
    with av.open(str(path)) as container:
        assert len(container.streams.data) == 2


def rotated(path: Path) -> None:
    plain = path.with_name("plain.mp4")
    look = ("-f", "lavfi", "-i", "testsrc2=s=64x48:d=0.2,boxblur=1")
    ffmpeg(*look, *H264, "yuv420p", plain)
    ffmpeg("-display_rotation", 90, "-i", plain, "-c", "copy", path)
    plain.unlink()


def edited(path: Path) -> None:
    """An edit list hides the beginning: nine frames are in the file, six are to be seen."""
    plain = path.with_name("plain.mp4")
    look = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25,boxblur=1", "-f", "lavfi", "-i", "sine")
    ffmpeg(*look, "-frames:v", 15, "-t", 0.6, *H264, "yuv420p", "-g", 6, "-bf", 2, plain)
    ffmpeg("-ss", 0.36, "-i", plain, "-c", "copy", path)
    plain.unlink()
    with av.open(str(path)) as container:
        kept = container.streams.video[0].frames
        assert kept > len(list(container.decode(video=0))) > 3


def later_fields(path: Path) -> None:
    """Whole frames first, then fields."""
    look = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25", "-frames:v", 5, "-c:v", "mpeg2video")
    parts = [path.with_name(name) for name in ("one.ts", "two.ts")]
    ffmpeg(*look, parts[0])
    ffmpeg(*look, "-vf", "setfield=tff", "-flags", "+ilme+ildct", parts[1])
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()


def lying(frames: int) -> Callable[[Path], None]:
    """Five frames in a file whose header counts another number of them."""

    def make(path: Path) -> None:
        look = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25,boxblur=1", "-frames:v", 5)
        ffmpeg(*look, "-c:v", "mjpeg", "-q:v", 1, "-pix_fmt", "yuvj420p", path)
        data = bytearray(path.read_bytes())
        for at in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
            assert data[at : at + 4] == (5).to_bytes(4, "little")
            data[at : at + 4] = frames.to_bytes(4, "little")
        path.write_bytes(data)

    return make


HDR = (
    "-c:v",
    "libx265",
    "-pix_fmt",
    "yuv420p10le",
    "-x265-params",
    "log-level=error:qp=4:master-display=G(13250,34500)B(7500,3000)R(34000,16000)"
    "WP(15635,16450)L(10000000,1):max-cll=1000,400",
)
PQ = "setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc:range=tv"
HLG = "setparams=color_primaries=bt2020:color_trc=arib-std-b67:colorspace=bt2020nc:range=tv"
TS = ("-bf", 2, *H264, "yuv420p")

CASES = [
    # containers, times
    Case("one frame.mp4", (*H264, "yuv420p"), frames=1, options=X264, output="out.mp4"),
    Case("two frames.mp4", (*H264, "yuv420p"), frames=2, options=X264, output="out.mov"),
    Case("b frames.mp4", ("-bf", 3, *H264, "yuv420p"), frames=9, options=X264, output="out.mp4"),
    Case("ntsc.mkv", (*LOSSLESS, "yuv420p"), rate="30000/1001", output="out.mp4", options=X264),
    Case("film.mov", ("-c:v", "prores_ks", "-profile:v", 3), rate="24000/1001", options=X264),
    Case("prores 4444.mov", ("-c:v", "prores_ks", "-pix_fmt", "yuv444p10le"), options=X264),
    Case("stream.ts", TS, frames=12, options=X264, output="out.mp4"),
    Case("stream to stream.ts", TS, frames=12, options=X264, output="out.ts"),
    Case(
        "with sound.ts",
        TS,
        frames=25,
        sound=("-c:a", "mp2"),
        options=X264,
        streams=("video", "audio"),
    ),
    Case(
        "variable.mp4",
        ("-enc_time_base", "1/1000", *H264, "yuv420p"),
        filters="settb=1/1000,setpts=N*N*7+N*11",
        frames=9,
        options=X264,
        output="out.mp4",
    ),
    Case(
        "late.mp4",
        ("-enc_time_base", "1/12800", *H264, "yuv420p"),
        filters="setpts=PTS+3/TB",
        options=X264,
        output="out.mp4",
    ),
    Case("edit list.mp4", make=edited, options=X264, streams=("video", "audio")),
    Case(
        "edit list kept.mp4",
        make=edited,
        options=X264,
        output="out.mp4",
        streams=("video", "audio"),
    ),
    Case("animation.gif", filters="format=rgb24", options={"codec": "ffv1"}),
    Case("web.webm", ("-c:v", "libvpx-vp9", "-crf", 4, "-pix_fmt", "yuv420p"), options=X264),
    Case("old.avi", ("-c:v", "mpeg4", "-q:v", 1), options=X264),
    Case("old to old.avi", ("-c:v", "mpeg4", "-q:v", 1), options=X264, output="out.avi"),
    Case("counts two.avi", make=lying(2), options=X264),
    Case("counts ninety.avi", make=lying(90), options=X264, warns="ends early, after 0.200 s"),
    Case("broadcast.mpg", ("-c:v", "mpeg2video", "-q:v", 1), frames=9, options=X264),
    Case("flash.flv", ("-c:v", "flv", "-q:v", 1), options=X264, output="out.mp4"),
    Case("raw.y4m", ("-pix_fmt", "yuv420p"), options=X264),
    Case("bare.h264", (*H264, "yuv420p"), options=X264),
    Case("wrong extension.mp4", (*LOSSLESS, "yuv420p", "-f", "matroska"), options=X264),
    Case(
        "to webm.mkv",
        (*LOSSLESS, "yuv420p"),
        options={"codec": "libvpx-vp9", "crf": 4},
        output="out.webm",
    ),
    # pixels
    Case("422.mkv", (*LOSSLESS, "yuv422p"), options=X264),
    Case("444.mkv", (*LOSSLESS, "yuv444p"), options=X264),
    Case("411.mkv", (*LOSSLESS, "yuv411p"), options=X264),
    Case("full range.avi", ("-c:v", "mjpeg", "-q:v", 1, "-pix_fmt", "yuvj420p"), options=X264),
    Case("ten bits.mkv", (*LOSSLESS, "yuv420p10le"), options=X264),
    Case("twelve bits.mkv", (*LOSSLESS, "yuv422p12le"), options={"codec": "ffv1"}),
    Case("grey.mkv", (*LOSSLESS, "gray"), options=X264),
    Case("grey ten.mkv", (*LOSSLESS, "gray10le"), options={"codec": "ffv1"}),
    Case("rgb.mkv", (*LOSSLESS, "gbrp"), options={"codec": "ffv1"}),
    Case("rgb to 444.mkv", (*LOSSLESS, "bgr0"), options=X264),
    Case(
        "alpha.mkv",
        (*LOSSLESS, "yuva420p"),
        filters="format=yuva420p,colorchannelmixer=aa=0.5",
        options=X264,
        warns="transparency",
    ),
    Case("wide pixels.mkv", (*LOSSLESS, "yuv420p"), filters="setsar=16/15", options=X264),
    Case(
        "pq.mkv",
        HDR,
        filters=PQ,
        options={"codec": "libx265", "crf": 6},
        warns="PQ.*trained on SDR",
    ),
    Case("pq lost.mkv", HDR, filters=PQ, options={"codec": "ffv1"}, warns="mastering metadata"),
    Case("hlg.mkv", (*LOSSLESS, "yuv420p10le"), filters=HLG, options=X264, warns="HLG"),
    Case("turned.mp4", make=rotated, options=X264, output="out.mp4"),
    Case(
        "fields.mp4",
        ("-flags", "+ilme+ildct", *H264, "yuv420p"),
        filters="setfield=tff",
        refused="interlaced.*--deinterlace",
    ),
    Case("fields later.ts", make=later_fields, refused="interlaced from .* use --deinterlace"),
    Case(
        "fields made whole.mp4",
        ("-flags", "+ilme+ildct", *H264, "yuv420p"),
        filters="setfield=tff",
        options={"deinterlace": True, **X264},
    ),
    # sizes
    Case("1x1.mkv", (*LOSSLESS, "yuv444p"), size="1x1", options={"codec": "ffv1"}),
    Case("2x2.mkv", (*LOSSLESS, "yuv420p"), size="2x2", options={"codec": "ffv1"}),
    Case("8x8.mkv", (*LOSSLESS, "yuv420p"), size="8x8", options=X264),
    Case("63x47.mkv", (*LOSSLESS, "yuv420p"), size="63x47", options=X264),
    Case("twice.mkv", (*LOSSLESS, "yuv420p"), size="63x47", options={"scale": 2, **X264}),
    Case("half as large again.mkv", (*LOSSLESS, "yuv420p"), options={"scale": 1.5, **X264}),
    Case("to a height.mkv", (*LOSSLESS, "yuv422p"), options={"height": 100, **X264}),
    Case(
        "too large.mkv", (*LOSSLESS, "yuv420p"), options={"width": 257}, refused="256×192 at most"
    ),
    # streams
    Case("two videos.mkv", make=two_videos, options=X264, warns="left out.*: 1 further video"),
    Case("data.ts", make=with_data, options=X264, warns="left out.*: 1 data stream$"),
    Case("chapters.mov", make=with_chapters, options=X264),
    Case("cover.mp4", make=cover, options=X264, output="out.mp4", streams=("video", "video")),
    Case("cover to mkv.mp4", make=cover, options=X264, streams=("video", "video")),
    Case(
        "subtitles.mkv",
        make=subtitled,
        options=X264,
        output="out.mp4",
        warns="without the tags title of the picture, for which .mp4 has no room; .mkv has",
        streams=("video", "audio", "subtitle"),
    ),
    Case(
        "subtitles to ts.mkv",
        make=subtitled,
        options=X264,
        output="out.ts",
        warns="cannot hold subtitles 0",
        streams=("video", "audio"),
    ),
    Case(
        "sound to webm.mkv",
        (*LOSSLESS, "yuv420p"),
        sound=("-c:a", "aac", "-ar", 48000),
        output="out.webm",
        options={"codec": "libvpx-vp9", "crf": 4},
        warns="aac as libopus",
        streams=("video", "audio"),
    ),
    # names
    Case("ünï côdé 'q' \"r\" $HOME;x|y 50%d.mkv", (*LOSSLESS, "yuv420p"), options=X264),
    Case("-i -y.mkv", (*LOSSLESS, "yuv420p"), options=X264, output="-o.mkv"),
    # damage
    Case("empty.mp4", make=write(b""), refused="empty"),
    Case("text.mp4", make=write(b"no video at all\n" * 50), refused="not a readable video"),
    Case("zeros.mkv", make=write(bytes(5000)), refused="not a readable video|no video|no frame"),
    Case("missing.mp4", make=lambda path: None, refused="no such file"),
    Case("folder.mp4", make=lambda path: path.mkdir(), refused="no images there"),
    Case("sound.m4a", make=sound_only, refused="no video stream, only: audio"),
    Case("no index.mp4", make=cut(0.9), refused="not a readable video"),
    Case("no picture.mkv", make=cut(0.05), refused="not a readable video|no frame"),
    Case("cut.ts", make=cut(0.7, "-g", 5, "-bf", 0), refused="cut off.*--on-error"),
    Case("cut.mkv", make=cut(0.7, "-g", 5), refused="cut off.*--on-error"),
    Case("cut.mp4", make=cut(0.7, *FAST), refused="cut off.*--on-error"),
    Case(
        "cut stopped.mp4",
        make=cut(0.7, *FAST),
        options={"on_error": "stop", **X264},
        warns="ends early|it ends there",
        count=STOPPED,
    ),
    Case("hole.mkv", make=hole, refused="damaged after .*--on-error"),
    Case(
        "hole concealed.mkv",
        make=hole,
        count=20,
        options={"on_error": "conceal", **X264},
        warns="lost at .* concealed",
    ),
    Case(
        "hole stopped.mkv",
        make=hole,
        count=9,
        options={"on_error": "stop", **X264},
        warns="it ends there",
    ),
    Case(
        "no place.mkv", (*LOSSLESS, "yuv420p"), output="nowhere/out.mkv", refused="does not exist"
    ),
    Case(
        "no container.mkv", (*LOSSLESS, "yuv420p"), output="out.xyz", refused="no video container"
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_upscaled_faithfully_or_refused_with_the_reason(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    if case.make is not None:
        case.make(tmp_path / case.name)
    else:
        made(case)
    before = sorted(os.listdir())
    options = {"model": "bicubic", "ffmpeg": PROGRAMS[-1].path, **case.options}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if case.refused is not None:
            with pytest.raises(VideoError, match=case.refused) as error:
                upscale_video(case.name, case.output, **options)
            assert "\n" not in str(error.value)
            assert sorted(os.listdir()) == before
            return
        upscale_video(case.name, case.output, **options)
    found = [str(warning.message) for warning in caught]
    assert bool(found) == (case.warns is not None), found
    lost = [text for text in found if re.search("cannot hold (?!the sound)|left out", text)]
    assert len(lost) <= 1, lost
    assert case.warns is None or any(re.search(case.warns, text) for text in found), found
    assert sorted(os.listdir()) == sorted([*before, case.output])
    assert_faithful(case)


def made(case):
    width, height = map(int, case.size.split("x"))
    look = f"testsrc2=s=80x64:r={case.rate}:d=60,boxblur=2,format=yuv444p"
    look += f",crop={width}:{height}:0:0:exact=1,{case.filters}"
    inputs = ["-copyts", "-f", "lavfi", "-i", look]
    if case.sound:
        inputs += ["-f", "lavfi", "-i", f"sine=d={case.frames / float(Fraction(case.rate))}"]
    ffmpeg(
        *(*inputs, *case.sound, "-frames:v", case.frames, "-fps_mode", "passthrough"),
        *(*case.words, f"file:{case.name}"),
    )


def decoded(path):
    """Number of the picture's stream, its frames' times, its tags, and the kinds of all streams."""
    with av.open(f"file:{path}") as container:
        videos = container.streams.video
        number = next(
            n for n, s in enumerate(videos) if not s.disposition & Disposition.attached_pic
        )
        stream, times, frame = videos[number], [], None
        with contextlib.suppress(av.InvalidDataError):
            for frame in container.decode(stream):
                times.append(None if frame.pts is None else frame.pts * frame.time_base)
        tags = (frame.colorspace, frame.color_primaries, frame.color_trc)
        aspect = stream.sample_aspect_ratio or 1
        kinds = tuple(stream.type for stream in container.streams)
        return number, times, tags, aspect, kinds, stream.time_base, frame.rotation


def ends(path):
    """Times of the first and the last packet of the first sound stream."""
    with av.open(f"file:{path}") as container:
        sound = container.streams.audio[0]
        times = [p.pts * sound.time_base for p in container.demux(sound) if p.pts is not None]
    return min(times), max(times)


def scaled(path, number, size, depth):
    """Every frame as 4:4:4 of `size`, as the ffmpeg program decodes, turns and shrinks it."""
    kind, dtype = ("yuv444p", np.uint8) if depth == 8 else ("yuv444p16le", np.uint16)
    raw = ffmpeg(
        *("-i", f"file:{path}", "-map", f"0:v:{number}", "-fps_mode", "passthrough"),
        *("-vf", f"scale={size}:flags=area+accurate_rnd", "-f", "rawvideo", "-pix_fmt", kind, "-"),
    )
    width, height = map(int, size.split(":"))
    samples = np.frombuffer(raw, dtype).reshape(-1, 3, height, width)
    return samples.astype(float) / np.iinfo(dtype).max


def assert_faithful(case):
    number, times, tags, aspect, _, _, rotation = decoded(case.name)
    made, found, written, kept, kinds, tick, turned = decoded(case.output)
    assert made == 0 or kinds[0] == "video"
    assert kinds == case.streams
    assert (kept, turned) == (aspect, 0)
    if case.count is None:
        assert len(found) == len(times)
        for ours, theirs in zip(found, times, strict=True):
            if theirs is not None and not case.output.endswith(MOVING):
                assert abs(ours - theirs) <= tick
            elif theirs is not None:
                assert abs((ours - found[0]) - (theirs - times[0])) <= tick
    else:
        assert len(found) == case.count
        assert found == [Fraction(n, 25) for n in range(case.count)]
    if "audio" in kinds:
        # A sound encoder's delay comes on top, where it is encoded again.
        allowed = 0.03 if case.warns is None else 0.06
        distances = [
            [float(sound - pictures[0]) for sound in (ends(name)[0], ends(name)[1])]
            for name, pictures in ((case.name, times), (case.output, found))
        ]
        assert np.abs(np.diff(distances, axis=0)).max() <= allowed
    if case.output.endswith((".mp4", ".mkv")) and 0 not in (tags[0], written[0]):
        assert written == tags
    width, height = case.size.split("x")
    size = f"{height}:{width}" if rotation else f"{width}:{height}"
    depth = 16 if "ten" in case.name or "twelve" in case.name else 8
    before, after = (
        scaled(*file, size, depth) for file in ((case.name, number), (case.output, made))
    )
    if case.count is None:
        assert len(before) == len(after)
    for one, two in zip(before[:5], after[:5], strict=False):
        for plane, other in zip(one, two, strict=True):
            error = ((plane - other) ** 2).mean()
            assert -10 * np.log10(max(error, 1e-9)) >= MIN_PSNR
