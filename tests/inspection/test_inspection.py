"""What `d3dnet offsets`, `preview`, `info` and `doctor` show is so."""

import argparse

import cv2
import numpy as np
import pytest
import torch

import d3dnet.network.checkpoints
import d3dnet.network.run
from d3dnet.cli import main
from d3dnet.commands import doctor
from d3dnet.errors import InputError
from d3dnet.inspection import drawing, preview
from d3dnet.inspection.offsets import inspect, picture, sampled
from d3dnet.network import plan
from d3dnet.network.bicubic import Bicubic
from d3dnet.network.guided import GuidedD3Dnet
from d3dnet.network.model import D3Dnet
from d3dnet.ops import cuda
from d3dnet.video.window import luma_around
from tests.network.stand_in import BilinearNetwork
from tests.video.clips import make_clip


@pytest.fixture
def network() -> D3Dnet:
    torch.manual_seed(0)
    return D3Dnet(channels=4, resd3d_blocks=1, res_blocks=1).eval()


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "in.mp4", size="40x32", frames=9, sound=True)


@pytest.fixture
def loaded(monkeypatch, network):
    """The small network in the place of every model."""
    for module in (d3dnet.network.checkpoints, d3dnet.network.run):
        monkeypatch.setattr(module, "load_model", lambda *_, **__: network)


def test_offsets_that_are_set_are_the_ones_that_are_shown(network):
    """Tap 5 of layer dcn0, which is (t, y, x) = (-1, 0, +1), is moved by 2 rows and -3 columns."""
    network.residual_layer[0].dcn0.conv_offset.bias.data[10:12] = torch.tensor([2.0, -3.0])
    found = inspect(network, torch.rand(7, 20, 24), (41, 47))
    first, second = found.layers
    assert (first.name, second.name) == ("0.dcn0", "0.dcn1")
    np.testing.assert_allclose(first.taps[3, 5], (2, -3))
    assert np.abs(np.delete(first.taps, 5, 1)).max() == 0
    np.testing.assert_allclose(first.magnitude, np.hypot(2, 3) / 27, rtol=1e-6)
    assert (first.largest, second.largest) == (3, 0)
    # The moved tap reads frame 2 for the result of frame 3, and frame 0 for that of frame 1.
    positions = {tuple(position) for result, position, _ in sampled(first, 2) if result == 1}
    assert (2.0, -2.0) in positions
    assert (0.0, 1.0) not in positions
    assert len(sampled(first, 3)) == 27
    assert len(sampled(first, 0)) == len(sampled(first, 6)) == 18


def test_motion_that_is_followed_is_the_one_that_is_shown():
    """What moves by 2 rows and -3 columns a frame is looked for there in the frame after."""
    model = GuidedD3Dnet(channels=4, near=2, resd3d_blocks=1, res_blocks=0)
    ground = cv2.GaussianBlur(np.random.default_rng(0).random((99, 99), np.float32), (0, 0), 1.5)
    ground = cv2.normalize(ground, None, 0, 1, cv2.NORM_MINMAX)
    frames = [ground[30 - 2 * t : 70 - 2 * t, 20 + 3 * t : 68 + 3 * t] for t in range(7)]
    found = inspect(model, torch.from_numpy(np.stack(frames)), (80, 96))
    assert [layer.name for layer in found.layers] == ["input", "0.dcn0"]
    for layer in found.layers:
        before, here, after = layer.taps[3].reshape(3, 9, 2)
        assert np.abs(after - (2, -3)).max() < 0.3 and np.abs(before - (-2, 3)).max() < 0.3
        assert np.abs(here).max() == 0
    assert picture(found, "moving").shape[2] == 3


def test_the_gradient_is_that_of_the_output_pixel_by_finite_differences(network):
    window = torch.rand(7, 12, 14)
    found = inspect(network, window, (21, 30))
    for place in ((3, 5, 7), (2, 5, 6), (0, 4, 7)):
        change = torch.zeros_like(window)
        change[place] = 0.01
        with torch.no_grad():
            up, down = (
                network(x[None, None])[0, 0, 21, 30] for x in (window + change, window - change)
            )
        assert found.gradient[place] == pytest.approx(abs(float(up - down)) / 0.02, abs=2e-4)
    assert found.share_of_frames.sum() == pytest.approx(1)
    assert found.place == (5, 7)


def test_the_surroundings_of_a_pixel_in_a_large_frame_are_cut_out(network):
    window = torch.rand(7, 40, 400)
    found = inspect(network, window, (20, 1200))
    assert found.frames.shape == (7, 40, 129)
    np.testing.assert_array_equal(found.frames, window[:, :, 236:365])
    assert found.place == (5, 64)
    assert picture(found, "title").shape[2] == 3


@pytest.mark.parametrize("at", [(160, 0), (0, 192)])
def test_a_pixel_outside_of_the_output_is_refused(network, at):
    with pytest.raises(ValueError, match=r"--at: .* a row below 160 and a column below 192"):
        inspect(network, torch.rand(7, 40, 48), at)


def test_frames_beyond_the_ends_are_the_first_and_the_last(clip):
    middle = luma_around(clip, 4, 3)
    first, last = luma_around(clip, 0, 3), luma_around(clip, 8, 3)
    assert middle.shape == (7, 32, 40)
    assert torch.equal(first[3], first[0])
    assert torch.equal(first[4], middle[0])
    assert torch.equal(last[3], last[6])
    with pytest.raises(InputError, match="has no frame 9"):
        luma_around(clip, 9, 3)


def test_the_offsets_command_draws_a_picture_and_prints_its_path_last(clip, loaded, capsys):
    output = clip.with_name("o.png")
    words = ["offsets", str(clip), "--frame", "4", "--at", "60,70", "--output", str(output)]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(output)
    assert "0.dcn1" in lines[-2]
    image = cv2.imread(str(output))
    assert min(image.shape[:2]) > 500
    assert image[0, 0].tolist() == [255, 255, 255]
    assert sorted(path.name for path in clip.parent.iterdir()) == ["in.mp4", "o.png"]


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["--frame", "99"], 1, "has no frame 99"),
        (["--frame", "1", "--at", "999,0"], 2, "--at: got 999,0"),
        (["--frame", "1", "--output", "no/where.png"], 1, "there is no folder no"),
    ],
)
def test_what_offsets_cannot_show_is_told_in_one_line(clip, loaded, capsys, words, code, complaint):
    assert main(["offsets", str(clip), *words]) == code
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert complaint in printed.err


@pytest.mark.filterwarnings("error")
def test_preview_shows_the_frames_of_the_video_before_and_after(clip, tmp_path):
    made = preview.preview(clip, tmp_path, BilinearNetwork(), count=2)
    assert [path.name for path in made.pictures] == ["in-preview-1.png", "in-preview-2.png"]
    assert made.frames == 9
    assert made.seconds_per_frame >= 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in-preview-1.png",
        "in-preview-2.png",
        "in.mp4",
    ]


def test_preview_upscales_the_frame_that_it_says(tmp_path):
    """Frame n of the clip is grey of value 20 n + 40."""
    source = make_clip(
        *(tmp_path / "grey.mkv", "-c:v", "ffv1", "-pix_fmt", "gray"),
        frames=9,
        filters="format=gray,geq=lum='20*N+40'",
    )
    image, count = preview._upscaled(
        source, preview.Fraction(1, 25), preview.Fraction(4, 25), 25, Bicubic()
    )
    assert count == 7
    assert abs(int(image[60, 60, 0]) - 120) <= 3


def test_the_marked_part_is_where_detail_is(tmp_path):
    image = np.full((120, 240, 3), 128, np.uint8)
    image[80:110, 150:200] = np.random.default_rng(0).integers(0, 255, (30, 50, 3))
    row, column, rows = preview.detailed_part(image)
    assert rows == 30
    assert abs(row - 80) <= 2
    assert 138 <= column <= 152
    sheet = preview.picture(image, image, "title")
    assert sheet.shape[1] == 2 * 480 + 8 + 2 * drawing.MARGIN


def test_info_says_what_upscaling_would_mean_and_writes_nothing(clip, loaded, capsys):
    assert main(["info", str(clip), "--seconds", "0", "--height", "64"]) == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines["picture"] == "40×32, 25 frames a second"
    assert lines["frames"] == "9, in 1 shot"
    assert lines["result"] == "80×64, yuv420p, libx264"
    assert "sound aac" in lines["beside"]
    assert "whole frames, 8 at once, float32 on cpu" in lines["memory"]
    assert "frames a second on this machine" in lines["time"]
    assert [path.name for path in clip.parent.iterdir()] == ["in.mp4"]


def test_info_says_that_420_has_no_odd_sides(clip, loaded, capsys):
    words = ["info", str(clip), "--seconds", "0", "--cuts", "off"]
    assert main([*words, "--width", "77"]) == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines["result"].startswith("76×62, yuv420p, libx264 (width 77 becomes 76: yuv420p needs")


def test_info_without_cuts_does_not_read_the_file_and_without_memory_says_so(
    clip, loaded, capsys, monkeypatch
):
    assert main(["info", str(clip), "--seconds", "0", "--cuts", "off", "--tile", "16"]) == 0
    printed = capsys.readouterr().out
    assert "9 as the file says" in printed
    assert "tiles of 16" in printed
    monkeypatch.setattr(plan, "free_memory", lambda device: 1000)
    assert main(["info", str(clip), "--seconds", "0"]) == 3
    assert "memory: the network needs" in capsys.readouterr().err
    assert main(["info", "nothing.mp4"]) == 1
    assert "nothing.mp4: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--tile", "-3"], ["--max-memory", "much"], ["--cuts", "x.txt"]])
def test_wrong_usage_of_info_exits_with_two(words):
    with pytest.raises(SystemExit) as caught:
        main(["info", "in.mp4", *words])
    assert caught.value.code == 2


def test_doctor_names_programs_versions_devices_kernel_and_speed(loaded, capsys):
    assert main(["doctor", "--seconds", "0"]) == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert torch.__version__ in lines["packages"]
    assert "ffmpeg" in lines["ffmpeg"]
    assert "threads" in lines["cpu"]
    assert lines["kernel"]
    if not torch.cuda.is_available():
        assert lines["cuda"].startswith(f"not used: this torch ({torch.__version__}) has ")


@pytest.mark.parametrize(
    ("kernels", "said"),
    [
        (cuda.Kernels("compiled", None, None), "compiled, by nvcc"),
        (cuda.Kernels("nvrtc", None, None), "by NVRTC"),
        (cuda.Kernels("reference", None, "NVRTC was not found"), "slower: NVRTC was not found"),
    ],
)
def test_doctor_says_which_cuda_kernels_would_run_and_why_not_better_ones(
    monkeypatch, tmp_path, kernels, said
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(cuda, "kernels", lambda device: kernels)
    monkeypatch.setattr(cuda, "LIBRARY", tmp_path / "_C_cuda.so")
    ((_, text),) = doctor._cuda_kernels(argparse.Namespace())
    assert text.startswith("on cuda:0: ") and said in text
    if kernels.name == "nvrtc":
        assert "_C_cuda.so does not exist" in text


def test_doctor_measures_the_network_it_is_asked_for(loaded, capsys):
    assert main(["doctor", "--seconds", "0"]) == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert "frames a second for 320×180 to 1280×720 (d3dnet, float32, cpu)" in lines["speed"]


def test_doctor_says_what_is_missing_goes_on_and_exits_with_one(loaded, capsys):
    assert main(["doctor", "--seconds", "0", "--ffmpeg", "nowhere"]) == 1
    printed = capsys.readouterr()
    assert "nowhere" in printed.err
    assert "speed" in printed.out
