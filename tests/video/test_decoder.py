"""Files that end before their container says, or are damaged within: noticed, and told."""

import os
import threading
import time
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest

from d3dnet.errors import InputError
from d3dnet.job.upscale import upscale_video
from d3dnet.video import picture
from d3dnet.video.completeness import missing_bytes
from d3dnet.video.reading import Reading
from d3dnet.video.source import VideoSource
from tests.video.clips import BUNDLED, ffmpeg

LOOK = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25", "-f", "lavfi", "-i", "sine=d=2")
COUNT = 50
WORDS = {
    "mp4": ("-c:v", "libx264", "-g", 10, "-movflags", "faststart"),
    "mkv": ("-c:v", "libx264", "-g", 10),
    "webm": ("-c:v", "libvpx", "-deadline", "realtime", "-g", 10),
    "avi": ("-c:v", "mpeg4", "-bf", 0),
    "flv": ("-c:v", "flv"),
    "ts": ("-c:v", "mpeg2video", "-g", 10),
}
COUNTED = ("mp4", "mkv", "webm", "avi", "ts")  # these say how many bytes there should be
TIMED = ("mp4", "mkv", "webm", "avi")  # and these how long it should be


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Bytes of a file of two seconds in a container."""
    folder = tmp_path_factory.mktemp("whole")

    @cache
    def make(kind):
        path = folder / f"in.{kind}"
        ffmpeg(*LOOK, "-frames:v", COUNT, "-pix_fmt", "yuv420p", *WORDS[kind], path)
        return path.read_bytes()

    return make


def frames(path, on_error):
    with VideoSource(path, Reading(on_error=on_error)) as source:
        found = list(source.frames())
        times = [float(frame.pts * source.time_base) for frame in found]
        return found, times, source.damage


@pytest.mark.parametrize("kind", WORDS)
def test_a_whole_file_lacks_nothing(tmp_path, whole, kind):
    path = tmp_path / f"in.{kind}"
    path.write_bytes(whole(kind))
    assert missing_bytes(path) == 0
    for on_error in ("fail", "stop", "conceal"):
        found, _, damage = frames(path, on_error)
        assert (len(found), damage) == (COUNT, [])


@pytest.mark.parametrize(
    "words",
    [
        ("-movflags", "frag_keyframe+empty_moov", "-f", "mp4"),
        ("-live", 1, "-f", "matroska"),
        ("-f", "mpegts", "-mpegts_m2ts_mode", 1),
        ("-f", "mov"),
        ("-f", "mpeg"),
        ("-f", "nut"),
        ("-f", "asf"),
    ],
    ids=lambda words: f"{words[-1]} {words[0]}",
)
def test_nothing_is_missed_in_containers_that_promise_nothing(tmp_path, words):
    path = tmp_path / "in"
    codec = ("-c:v", "mpeg2video", "-c:a", "mp2", "-ar", 48000)
    with open(path, "wb") as file:
        file.write(ffmpeg(*LOOK, "-frames:v", COUNT, *codec, *words, "pipe:1")) if "-live" in (
            words
        ) else ffmpeg(*LOOK, "-frames:v", COUNT, *codec, *words, path)
    assert missing_bytes(path) == 0
    found, _, damage = frames(path, "fail")
    assert (len(found), damage) == (COUNT, [])


def test_a_headless_transport_stream_is_no_damage(tmp_path, whole):
    (tmp_path / "headless.ts").write_bytes(whole("ts")[188 * 60 :])
    found, _, damage = frames(tmp_path / "headless.ts", "fail")
    assert 10 < len(found) < COUNT
    assert damage == []


@pytest.mark.parametrize("on_error", ["fail", "conceal", "stop"])
def test_times_that_begin_again_are_refused_and_can_be_mended_as_told(tmp_path, whole, on_error):
    """Frames would have next to no time, and the sound is copied with its own."""
    path = tmp_path / "joined.ts"
    path.write_bytes(whole("ts") + whole("ts"))
    with pytest.raises(InputError, match=r"its times begin again after .* s") as caught:
        frames(path, on_error)
    words = str(caught.value).partition("ffmpeg ")[2].split()
    words[words.index("joined.ts")], words[-1] = path, tmp_path / words[-1]
    ffmpeg(*words)
    found, times, damage = frames(words[-1], on_error)
    assert (len(found), damage) == (2 * COUNT, [])
    assert np.diff(times).min() > 0.03


@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize("on_error", ["fail", "conceal", "stop"])
def test_a_damaged_image_among_others_is_noticed_wherever_it_is(tmp_path, place, on_error):
    """Decoded in parallel, it was lost without a word if good ones came out with it."""
    ffmpeg(*LOOK[:4], "-frames:v", 3, "-start_number", 0, tmp_path / "%d.png")
    image = tmp_path / f"{place}.png"
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    if on_error == "fail":
        with pytest.raises(InputError, match=f"damaged after {place} frames"):
            frames(tmp_path, on_error)
        return
    found, _, damage = frames(tmp_path, on_error)
    assert len(found) == (place if on_error == "stop" else 3)
    assert len(damage) == 1


@pytest.mark.parametrize("codec", ["prores_ks", "libx264", "png"])
def test_what_is_lost_near_the_end_is_noticed_however_many_threads_there_are(
    tmp_path, monkeypatch, codec
):
    path = tmp_path / "in.mov"
    ffmpeg(*LOOK[:4], "-frames:v", 12, "-c:v", codec, "-g", 1, path)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][6]
    data = bytearray(path.read_bytes())
    at = data.index(bytes(packet))
    data[at : at + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    opened = VideoSource._open

    def with_many_threads(source):
        opened(source)
        source._stream.codec_context.thread_count = 8

    monkeypatch.setattr(VideoSource, "_open", with_many_threads)
    with pytest.raises(InputError, match="damaged after 6 frames"):
        frames(path, "fail")


def test_a_container_that_cannot_be_read_on_is_told_where_frames_are_concealed(tmp_path):
    path = tmp_path / "in.y4m"
    ffmpeg(*LOOK[:4], "-frames:v", 20, "-pix_fmt", "yuv420p", path)
    data = path.read_bytes()
    pieces = data.split(b"FRAME\n")
    path.write_bytes(b"FRAME\n".join(pieces[:11]) + b"FLAME\n" + b"FRAME\n".join(pieces[11:]))
    found, _, damage = frames(path, "conceal")
    assert len(found) == 10
    assert len(damage) == 1 and damage[0].startswith("unreadable after 10 frames (")


def test_an_avi_written_to_a_pipe_lacks_nothing(tmp_path):
    path = tmp_path / "in.avi"
    path.write_bytes(ffmpeg(*LOOK[:4], "-frames:v", 5, "-c:v", "mjpeg", "-f", "avi", "pipe:1"))
    assert path.read_bytes()[4:8] == b"\xff" * 4
    found, _, damage = frames(path, "fail")
    assert (len(found), damage) == (5, [])


@pytest.mark.parametrize("share", [0.5, 0.72, 0.98])
@pytest.mark.parametrize("kind", COUNTED)
def test_a_file_that_ends_early_is_refused_with_a_hint(tmp_path, whole, kind, share):
    path = tmp_path / f"in.{kind}"
    data = whole(kind)
    path.write_bytes(data[: int(share * len(data))])
    if kind in ("mp4", "mkv", "webm", "avi"):
        assert missing_bytes(path) == len(data) - int(share * len(data))
    with pytest.raises(InputError, match=r"--on-error conceal, or stop") as caught:
        upscale_video(path, tmp_path / "out.mkv", model="bicubic", ffmpeg=BUNDLED.path)
    assert "\n" not in str(caught.value)
    assert "bytes are missing" in str(caught.value)  # before any work
    assert os.listdir(tmp_path) == [path.name]


def test_an_end_before_the_length_in_the_header_is_told(tmp_path, whole):
    path = tmp_path / "in.flv"
    path.write_bytes(whole("flv")[: len(whole("flv")) // 2])
    try:
        _, _, damage = frames(path, "fail")
        assert "ends early, after 1." in damage[0]
    except InputError as error:  # within a picture
        assert "damaged after" in str(error)


@pytest.mark.parametrize("kind", COUNTED)
def test_stop_keeps_the_frames_that_are_complete_and_says_so(tmp_path, whole, kind):
    path = tmp_path / f"in.{kind}"
    path.write_bytes(whole(kind))
    good, times, _ = frames(path, "fail")
    path.write_bytes(whole(kind)[: len(whole(kind)) * 6 // 10])
    with pytest.warns(UserWarning, match="ends early|it ends there"):
        output = upscale_video(
            *(path, tmp_path / "out.mkv"),
            model="bicubic",
            codec="ffv1",
            on_error="stop",
            ffmpeg=BUNDLED.path,
        )
    found, kept, damage = frames(path, "stop")
    assert COUNT // 4 < len(found) < COUNT * 3 // 4
    assert len(damage) >= 1
    nearest = [int(np.abs(np.array(times) - time).argmin()) for time in kept]
    for ours, n in zip(found, nearest, strict=True):
        np.testing.assert_array_equal(ours.planes[0], good[n].planes[0])
    with VideoSource(output) as written:
        assert len(list(written.frames())) == len(found)


@pytest.mark.parametrize("kind", TIMED)
def test_conceal_repeats_the_last_good_frame_up_to_the_promised_end(tmp_path, whole, kind):
    path = tmp_path / f"in.{kind}"
    data = whole(kind)
    path.write_bytes(data)
    good, times, _ = frames(path, "fail")
    path.write_bytes(data[: len(data) * 6 // 10])
    found, concealed, damage = frames(path, "conceal")
    # Of B frames, those before the last whole picture are not missed.
    assert COUNT - 2 <= len(found) <= COUNT + 1
    assert abs(concealed[-1] - times[-1]) <= 0.041
    assert any(f"to {concealed[-1]:.3f} s, concealed" in text for text in damage)
    assert len({frame.planes[0].tobytes() for frame in found[-12:]}) == 1
    for frame in found[: COUNT // 4]:
        assert any(np.array_equal(frame.planes[0], one.planes[0]) for one in good[: COUNT // 4])


def test_a_part_before_the_end_of_what_is_there_is_no_error(tmp_path, whole):
    path = tmp_path / "in.mp4"
    path.write_bytes(whole("mp4")[: len(whole("mp4")) * 7 // 10])
    with VideoSource(path, Reading(end=Fraction(1))) as source:
        assert len(list(source.frames())) == 25
    with VideoSource(path, Reading(start=Fraction(1))) as source:
        with pytest.raises(InputError, match=r"ends early|damaged after"):
            list(source.frames())


def test_a_length_that_cannot_be_true_is_not_filled(tmp_path, whole):
    path = tmp_path / "in.avi"
    data = bytearray(whole("avi"))
    at = data.index(b"strh") + 8 + 32
    data[at : at + 4] = (10**8).to_bytes(4, "little")  # frames of the stream
    path.write_bytes(data[: len(data) * 9 // 10])
    found, _, damage = frames(path, "conceal")
    assert len(found) <= COUNT
    assert damage


def noisy(path, at):
    """A clip of 30 frames in which the middle of the packet number `at` is noise."""
    look = ("-f", "lavfi", "-i", "testsrc2=s=320x240:r=25,noise=alls=20:allf=t")
    ffmpeg(*look, "-frames:v", 30, "-c:v", "libx264", "-g", 10, path)
    with av.open(str(path)) as container:
        packet = bytes(list(container.demux(video=0))[at])
    data = path.read_bytes()
    piece = slice(len(packet) // 2, len(packet) * 3 // 4)
    damaged = bytearray(packet)
    random = np.random.default_rng(at)
    damaged[piece] = bytes(random.integers(0, 256, len(damaged[piece]), np.uint8))
    assert data.count(packet) == 1
    path.write_bytes(data.replace(packet, bytes(damaged)))


@pytest.mark.parametrize("at", [10, 13])
def test_a_picture_that_the_decoder_has_patched_up_is_damage(tmp_path, at):
    # H.264 gives a picture all the same, and says that it is corrupt.
    path = tmp_path / "in.mkv"
    noisy(path, at)
    with pytest.raises(InputError, match=r"damaged after 1\d frames \(a corrupt picture\)"):
        frames(path, "fail")
    stopped, _, damage = frames(path, "stop")
    assert 10 <= len(stopped) <= 14
    assert "it ends there" in damage[0]
    found, times, damage = frames(path, "conceal")
    np.testing.assert_allclose(times, np.arange(30) / 25, atol=0.001)
    lost = round(25 * float(damage[0].split()[2]))
    assert 10 <= lost <= 14
    np.testing.assert_array_equal(found[lost].planes[0], found[lost - 1].planes[0])


def test_what_is_concealed_is_told(tmp_path, whole):
    path = tmp_path / "in.mkv"
    path.write_bytes(whole("mkv")[: len(whole("mkv")) * 8 // 10])
    with pytest.warns(UserWarning, match=r"in.mkv: ends early.*lost from 1\..*concealed"):
        upscale_video(path, tmp_path / "out.mkv", model="bicubic", on_error="conceal")


HEVC = ("-c:v", "libx265", "-x265-params", "log-level=error:keyint=10:open-gop=1")


@pytest.mark.parametrize("at", [10, 13, 29])
def test_a_picture_that_the_decoder_leaves_out_without_a_word_is_damage(tmp_path, at):
    path = tmp_path / "in.mkv"
    ffmpeg(*LOOK[:4], "-frames:v", 30, *HEVC, path)
    with av.open(str(path)) as container:
        packet = list(container.demux(video=0))[at]
        broken, lost = bytearray(packet), round(25 * packet.pts * packet.time_base)
    data = path.read_bytes()
    assert data.count(broken) == 1
    broken[6:10] = b"\xff" * 4  # of the slice's header
    path.write_bytes(data.replace(bytes(packet), broken))
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 29  # no error
    with pytest.raises(InputError, match=f"damaged after {lost} frames .a missing picture"):
        frames(path, "fail")
    assert len(frames(path, "stop")[0]) == lost
    found, times, damage = frames(path, "conceal")
    assert damage == [f"lost at {lost / 25:.3f} s, concealed"]
    np.testing.assert_allclose(times, np.arange(30) / 25, atol=0.001)
    np.testing.assert_array_equal(found[lost].planes[0], found[lost - 1].planes[0])


def test_no_picture_is_missed_in_whole_joined_cut_and_edited_streams(tmp_path):
    for name, codec in [("in.ts", HEVC), ("in.mp4", HEVC), ("av1.mkv", ("-c:v", "libsvtav1"))]:
        ffmpeg(*LOOK[:4], "-frames:v", 30, *codec, "-pix_fmt", "yuv420p", tmp_path / name)
    data = (tmp_path / "in.ts").read_bytes()
    twice = "|".join(2 * [str(tmp_path / "in.ts")])
    ffmpeg("-i", f"concat:{twice}", "-c", "copy", tmp_path / "joined.ts")
    ffmpeg("-ss", 0.6, "-i", tmp_path / "in.mp4", "-c", "copy", tmp_path / "edited.mp4")
    with av.open(str(tmp_path / "edited.mp4")) as container:
        edited = len(list(container.decode(video=0)))
    for name, count in [("in.ts", 30), ("joined.ts", 60), ("av1.mkv", 30), ("edited.mp4", edited)]:
        for on_error in ("fail", "conceal"):
            found, _, damage = frames(tmp_path / name, on_error)
            assert (len(found), damage) == (count, [])
    (tmp_path / "headless.ts").write_bytes(data[188 * (len(data) // 188 // 2) :])
    found, _, damage = frames(tmp_path / "headless.ts", "fail")
    assert 3 < len(found) < 30
    assert damage == []
    with VideoSource(tmp_path / "in.mp4", Reading(start=Fraction(1, 2))) as source:
        assert len(list(source.frames())) == 17


def decoder_threads():
    return {t.name for t in Path("/proc/self/task").iterdir() if "av:" in (t / "comm").read_text()}


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="threads are seen in Linux's /proc"
)
def test_no_decoder_has_threads_while_the_log_is_read(tmp_path, monkeypatch):
    # A thread that logs then waits for Python; closing its decoder, Python waits for the thread.
    path = tmp_path / "in.mkv"
    noisy(path, 2)
    before, during = decoder_threads(), []
    read_log = picture._shown_chroma_location

    def watched(frame):
        during.append(decoder_threads() - before)
        return read_log(frame)

    monkeypatch.setattr(picture, "_shown_chroma_location", watched)
    with VideoSource(path, parallel=True) as source:
        assert during == [set()]
        if os.cpu_count() > 1:
            assert decoder_threads() - before  # of the frames
        assert source.colour.chroma_location == "left"


def test_the_log_level_is_as_before_when_two_sources_are_opened_at_once(monkeypatch):
    # Were it left raised, decoders of the whole process would hang as above.
    set_level = av.logging.set_level

    def set_slowly(level):
        set_level(level)
        time.sleep(0.1 if level is not None else 0)

    monkeypatch.setattr(av.logging, "set_level", set_slowly)
    frame = av.VideoFrame(16, 16, "yuv420p")
    frame.time_base = Fraction(1, 25)
    readers = [
        threading.Thread(target=picture._shown_chroma_location, args=(frame,)) for _ in range(2)
    ]
    for reader in readers:
        reader.start()
        time.sleep(0.03)  # the second begins while the first has the level raised
    for reader in readers:
        reader.join()
    assert av.logging.get_level() is None
