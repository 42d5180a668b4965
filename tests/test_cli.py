import itertools
import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest

import d3dnet
import d3dnet.network
import d3dnet.network.checkpoints
import d3dnet.network.run
from d3dnet.cli import build_parser, main
from d3dnet.commands.console import Console
from d3dnet.job.events import Progress, Start
from d3dnet.job.settings import Settings
from d3dnet.video import ON_ERROR
from d3dnet.video.reading import Reading
from d3dnet.video.target import Encoding, Size
from tests.network.stand_in import BilinearNetwork
from tests.video.clips import make_clip, video_times

ROOT = Path(__file__).parent.parent


@pytest.fixture
def stand_in(monkeypatch):
    """The stand-in network in the place of every model; returns what it was asked for."""
    asked = []

    def load_model(name, device, precision):
        asked.append((name, device, precision))
        return BilinearNetwork()

    monkeypatch.setattr(d3dnet.network.run, "load_model", load_model)
    return asked


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "in.mp4", frames=5)


def run(*arguments, cwd=None):
    """In a process of its own, as a user does it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "d3dnet", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=False,
    )


def test_upscale_prints_the_path_last_and_shows_progress_on_stderr(clip, stand_in, capsys):
    output = clip.with_name("out.mp4")
    assert main(["upscale", str(clip), str(output)]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == str(output)
    assert "5/5" in printed.err
    assert "frames/s" in printed.err
    assert len(video_times(output)) == 5
    assert stand_in == [("d3dnet", "auto", "auto")]


def test_options_reach_the_pipeline(clip, monkeypatch, tmp_path):
    seen = {}

    def upscale(input, output, settings, *, watch, **options):
        seen.update(options, input=input, output=output, settings=settings)
        return Path(output)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("d3dnet.job.upscale.upscale", upscale)
    words = "upscale in.mp4 out.mkv --model m.pth.tar --device cuda:1 --precision bfloat16"
    words += " --mode window --cuts off --codec libx265 --crf 21.5 --overwrite --ffmpeg /opt/ffmpeg"
    words += (
        " --scale 1.5 --start 0:01 --end 70.5 --frames 9 --deinterlace --on-error conceal --fps 24"
    )
    words += " --segment 2/4 --work-dir scratch --restart --tile 96 --max-memory 2G"
    words += " --no-audio --preset slow --pix-fmt yuv444p --ffmpeg-args=-tune_film"
    assert main([word.replace("_", " ") for word in words.split()]) == 0
    assert seen == {
        "input": "in.mp4",
        "output": Path("out.mkv"),
        "segment": "2/4",
        "workers": None,
        "settings": Settings(
            size=Size(scale=1.5, height=None, width=None),
            reading=Reading(
                start=Fraction(1),
                end=Fraction("70.5"),
                frames=9,
                deinterlace=True,
                on_error="conceal",
                image_rate=Fraction(24),
            ),
            work_folder=tmp_path / "scratch",
            tile=96,
            max_memory=2 * 2**30,
            restart=True,
            sound=False,
            encoding=Encoding(
                codec="libx265",
                crf=21.5,
                preset="slow",
                pixel_format="yuv444p",
                arguments=("-tune", "film"),
            ),
            model="m.pth.tar",
            device="cuda:1",
            precision="bfloat16",
            mode="window",
            cuts="off",
            overwrite=True,
            ffmpeg="/opt/ffmpeg",
        ),
    }


def test_the_choices_of_the_command_line_are_those_of_the_library():
    upscale = build_parser()._subparsers._group_actions[0].choices["upscale"]
    choices = {action.dest: action.choices for action in upscale._actions}
    assert set(choices["mode"]) == set(d3dnet.network.MODES)
    assert choices["on_error"] == ON_ERROR
    assert set(choices["precision"]) == {"auto", *d3dnet.network.checkpoints.PRECISIONS}


@pytest.mark.parametrize(
    ("prepare", "arguments", "complaint"),
    [
        (lambda p: None, ["nothing.mp4", "o.mp4"], "nothing.mp4: no such file"),
        (lambda p: (p / "e.mp4").touch(), ["e.mp4", "o.mp4"], "e.mp4: empty"),
        (
            lambda p: (p / "t.mp4").write_text("text" * 100),
            ["t.mp4", "o.mp4"],
            "not a readable video",
        ),
        (lambda p: None, [".", "o.mp4"], "no images there"),
        (lambda p: None, ["in.mp4", "no/such/o.mp4"], "does not exist"),
        (lambda p: None, ["in.mp4", "o.xyz"], "no video container"),
        (lambda p: None, ["in.mp4", "in.mp4"], "same file"),
        (lambda p: (p / "o.mp4").write_text("x"), ["in.mp4", "o.mp4"], "--overwrite"),
        (lambda p: None, ["in.mp4", "o.mp4", "--codec", "x265"], "3 no video encoder 'x265'"),
        (lambda p: None, ["in.mp4", "o.mp4", "--ffmpeg", "nowhere"], "3 nowhere"),
        (lambda p: None, ["in.mp4", "o.mp4", "--scale", "5"], "2 scale: got 5.0; accepted is"),
        (
            lambda p: None,
            ["in.mp4", "o.webm"],
            "/o.webm: .webm cannot hold what libx264 makes (Only VP8 or VP9",
        ),
    ],
)
def test_what_is_at_fault_is_told_in_one_line_and_by_the_exit_code(
    clip, stand_in, capsys, monkeypatch, prepare, arguments, complaint
):
    # The code is 1 unless the complaint begins with another.
    code = int(complaint[0]) if complaint[0].isdigit() else 1
    complaint = complaint.removeprefix(f"{code} ")
    monkeypatch.chdir(clip.parent)
    prepare(clip.parent)
    before = sorted(os.listdir("."))
    assert main(["upscale", *arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("d3dnet: ")
    assert complaint in printed.err
    assert sorted(os.listdir(".")) == before


def test_wrong_weights_and_devices_are_told_in_one_line(clip, capsys):
    weights = clip.with_name("wrong.safetensors")
    weights.write_bytes(b"these are no weights")
    for code, option in (
        (1, ["--model", "nothing"]),
        (1, ["--model", str(weights)]),
        (2, ["--device", "abacus"]),
        (3, ["--device", "cuda:77"]),
    ):
        assert main(["upscale", str(clip), str(clip.with_name("o.mp4")), *option]) == code
        printed = capsys.readouterr()
        assert printed.err.count("\n") == 1
        assert "Traceback" not in printed.err


def test_several_inputs_go_into_a_folder_and_one_at_fault_does_not_stop_the_others(
    clip, stand_in, capsys, monkeypatch
):
    monkeypatch.chdir(clip.parent)
    make_clip(clip.with_name("other.gif"), frames=2)
    clip.with_name("empty.mov").touch()
    clip.with_name("results").mkdir()
    assert main(["upscale", "in.mp4", "empty.mov", "other.gif", "results"]) == 1
    printed = capsys.readouterr()
    assert sorted(os.listdir("results")) == ["in.mp4", "other.mkv"]
    assert "empty.mov: empty" in printed.err
    paths = [line for line in printed.out.splitlines() if line.startswith("/")]
    assert paths == [str(clip.with_name("results") / name) for name in ("in.mp4", "other.mkv")]
    assert main(["upscale", "in.mp4", "other.gif", "nowhere"]) == 1
    assert "OUTPUT is a folder" in capsys.readouterr().err
    assert main(["upscale", "in.mp4", "sub/in.mov", "results"]) == 2
    assert "same name" in capsys.readouterr().err


def test_a_fault_nobody_thought_of_is_still_one_line(clip, capsys, monkeypatch):
    def upscale(*_, **__):
        raise RuntimeError("the sky\nis falling")

    monkeypatch.setattr("d3dnet.job.upscale.upscale", upscale)
    assert main(["upscale", str(clip), "o.mp4"]) == 1
    assert capsys.readouterr().err == "d3dnet: RuntimeError: the sky is falling\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["upscale"],
        ["upscale", "in.mp4"],
        ["unknown"],
        ["upscale", "in.mp4", "out.mp4", "--mode", "fast"],
        ["upscale", "in.mp4", "out.mp4", "--precision", "double"],
        ["upscale", "in.mp4", "out.mp4", "--crf", "good"],
        ["upscale", "in.mp4", "out.mp4", "--crf", "-5"],
        ["upscale", "in.mp4", "out.mp4", "--nonsense"],
    ],
)
def test_wrong_usage_exits_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_warnings_are_one_line_on_stderr(tmp_path, stand_in, capsys):
    clip = make_clip(tmp_path / "hdr.mp4", filters="setparams=color_trc=smpte2084", frames=2)
    assert main(["upscale", str(clip), str(tmp_path / "out.mp4")]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("d3dnet: warning: ")
    assert "trained on SDR" in first


def test_an_interruption_exits_with_4_and_before_a_segment_is_done_nothing_stays(
    clip, monkeypatch, capsys
):
    class Interrupted(BilinearNetwork):
        def stream(self, frames, chunk=8):
            yield from itertools.islice(super().stream(frames), 2)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)  # the signal comes at once

    monkeypatch.setattr(d3dnet.network.run, "load_model", lambda *_, **__: Interrupted())
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["upscale", str(clip), str(clip.with_name("out.mp4"))]) == 4
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "interrupted" in capsys.readouterr().err
    assert os.listdir(clip.parent) == ["in.mp4"]


def test_help_and_version_do_not_import_torch():
    code = (
        "import sys\nfrom d3dnet.cli import main\n"
        "try: main(['upscale', '--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'av' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    assert b"INPUT" in done.stdout


def test_python_dash_m_works_and_an_error_there_has_no_traceback(tmp_path):
    assert run("--version").stdout == f"d3dnet {d3dnet.__version__}\n"
    (tmp_path / "-in.mp4").write_bytes(b"")
    done = run("upscale", "--", "-in.mp4", "out.mp4", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "-in.mp4: empty" in done.stderr


def test_events_as_json_say_what_happens_and_nothing_else_is_on_stdout(tmp_path, stand_in, capsys):
    clip = make_clip(
        tmp_path / "in.mkv", rate="1", filters="setparams=color_trc=smpte2084", frames=25
    )
    output = tmp_path / "out.mp4"
    assert main(["upscale", str(clip), str(output), "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    events = [json.loads(line) for line in printed.out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "warning"
    assert "trained on SDR" in events[0]["message"]
    assert kinds[1] == "start"
    assert (events[1]["width"], events[1]["height"], events[1]["done"]) == (128, 96, 0)
    assert events[1]["output"] == str(output)
    segments = [event for event in events if event["event"] == "segment"]
    assert [(event["segment"], event["first"]) for event in segments] == [(0, 0), (1, 9), (2, 18)]
    assert sum(event["frames"] for event in segments) == 25
    progress = [event for event in events if event["event"] == "progress"][-1]
    assert (progress["done"], progress["frames"], progress["segment"]) == (25, 25, 2)
    assert progress["fps"] > 0
    assert kinds[-1] == "done"
    rows = {row["name"]: row for row in events[-1]["audit"]["rows"]}
    assert (rows["frames"]["source"], rows["frames"]["fits"]) == ("25", True)


def test_an_error_is_an_event_too(tmp_path, capsys):
    assert main(["upscale", "nothing.mp4", str(tmp_path / "o.mp4"), "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["code"] == 1
    assert "no such file" in printed.err


def test_quiet_is_only_the_result_and_verbose_tells_of_every_segment(clip, stand_in, capsys):
    output = clip.with_name("out.mp4")
    assert main(["upscale", str(clip), str(output), "-q"]) == 0
    assert capsys.readouterr() == (f"{output}\n", "")
    assert main(["upscale", str(clip), str(output), "-v", "--overwrite"]) == 0
    assert "segment 0 is finished: frames 0 to 4" in capsys.readouterr().err


def test_strict_makes_warnings_count(tmp_path, stand_in, capsys):
    clip = make_clip(tmp_path / "hdr.mp4", filters="setparams=color_trc=smpte2084", frames=2)
    assert main(["upscale", str(clip), str(tmp_path / "a.mp4"), "--strict"]) == 5
    assert (tmp_path / "a.mp4").exists()
    plain = make_clip(tmp_path / "plain.mp4", frames=2)
    assert main(["upscale", str(plain), str(tmp_path / "b.mp4"), "--strict"]) == 0


def test_on_a_terminal_there_is_one_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    console = Console()
    console.show(Start(Path("a"), Path("b"), Path("w"), 8, 8, 40, 10, {}))
    for done in range(11, 41):
        console.show(Progress(done, 40, done // 20))
    console.close()
    shown = capsys.readouterr().err.split("\r")[-1]
    assert "40/40" in shown
    assert "segment 2" in shown
