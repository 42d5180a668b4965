"""Evaluation: what a network is fed, what is scored, and how it is averaged and told."""

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d3dnet.cli import main
from d3dnet.datasets.benchmarks import find_clips
from d3dnet.datasets.imresize import blur_decimate, imresize
from d3dnet.datasets.luma import luma
from d3dnet.evaluation.evaluate import (
    evaluate,
    evaluate_frames,
)
from d3dnet.evaluation.metrics import score_frame
from d3dnet.evaluation.protocols import get_protocol
from d3dnet.evaluation.temporal import movie_of_result, tof
from d3dnet.evaluation.upscalers import rgb_from_luma, super_resolve
from d3dnet.network.checkpoints import save_weights
from d3dnet.network.model import D3Dnet

HEIGHT, WIDTH = 32, 48
SHARED = Path(os.environ.get("D3DNET_SHARED", Path(__file__).parents[3] / "shared"))
needs_vid4 = pytest.mark.skipif(
    not (SHARED / "eval" / "Vid4").is_dir(),
    reason=f"no Vid4 in {SHARED / 'eval'}; set D3DNET_SHARED to the folder that has eval/Vid4",
)


def frames_of(count: int, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Smooth colour noise, so that bicubic makes some sense of it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, height // 8, width // 8, 3), dtype=np.uint8)
    return np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_CUBIC) for f in coarse])


def write_frames(folder: Path, frames: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, 1):
        bgr = frame if frame.ndim == 2 else frame[..., ::-1]
        assert cv2.imwrite(str(folder / f"im{number}.png"), bgr)


def bicubic(hr: np.ndarray, recipe: str) -> list[np.ndarray]:
    return [imresize(imresize(frame, 0.25, recipe), 4) for frame in hr]


class Nearest(nn.Module):
    """A network that repeats pixels, and remembers what it was given."""

    scale = 4
    window = 7
    temporal_radius = 0
    smallest = 8

    def __init__(self) -> None:
        super().__init__()
        self.metadata: dict[str, str] = {}
        self.weight = nn.Parameter(torch.ones(()))
        self.given: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32 and x.shape[:3] == (1, 1, 7)
        self.given.append(x)
        return F.interpolate(x[:, :, 3], scale_factor=4)

    def forward_sequence(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=(1, 4, 4))

    def stream(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        frames = list(frames)  # as late as can be
        for frame in frames:
            assert frame.dtype == torch.float32 and frame.shape[0] == 1
            self.given.append(frame)
            yield F.interpolate(frame[None], scale_factor=4)[0]


@pytest.mark.parametrize(("protocol", "recipe"), [("d3dnet", "uint8"), ("y-crop0", "double")])
def test_bicubic_is_scored_frame_by_frame_as_the_protocol_says(tmp_path, protocol, recipe):
    hr = frames_of(7)
    write_frames(tmp_path / "Vid4" / "walk", hr)
    result = evaluate("bicubic", "vid4", tmp_path, protocol)
    (clip,) = result.clips
    expected = [
        score_frame(sr, gt, protocol) for sr, gt in zip(bicubic(hr, recipe), hr, strict=True)
    ]
    indices = range(2, 5) if protocol == "d3dnet" else range(7)
    assert [frame.index for frame in clip.frames] == list(indices)
    assert [(f.psnr, f.ssim) for f in clip.frames] == [
        (expected[i].psnr, expected[i].ssim) for i in indices
    ]
    assert clip.psnr == pytest.approx(np.mean([expected[i].psnr for i in indices]))
    assert clip.ssim == pytest.approx(np.mean([expected[i].ssim for i in indices]))
    assert recipe in clip.lr
    assert (result.dataset, result.protocol, result.model, result.mode) == (
        "Vid4", protocol, "bicubic", None,
    )  # fmt: skip


def test_the_set_averages_clips_however_long_they_are(tmp_path):
    write_frames(tmp_path / "a", frames_of(2))
    write_frames(tmp_path / "b", frames_of(6, seed=1))
    result = evaluate("bicubic", "mine", tmp_path, "y-crop0")
    assert [clip.name for clip in result.clips] == ["a", "b"]
    for metric in ("psnr", "ssim"):
        of_clips = [
            np.mean([getattr(frame, metric) for frame in clip.frames]) for clip in result.clips
        ]
        assert getattr(result, metric) == pytest.approx(np.mean(of_clips))


def test_protocol_d3dnet_uses_the_first_31_frames_only(tmp_path):
    write_frames(tmp_path / "clip", frames_of(34))
    network = Nearest()
    result = evaluate(network, "mine", tmp_path, "d3dnet")
    assert len(network.given) == 31
    assert [frame.index for frame in result.clips[0].frames] == list(range(2, 29))


def test_protocol_d3dnet_cuts_to_a_multiple_of_16_after_making_low_resolution(tmp_path):
    hr = frames_of(5, height=40, width=56)
    write_frames(tmp_path / "clip", hr)
    network = Nearest()
    result = evaluate(network, "mine", tmp_path, "d3dnet")
    lr = [imresize(frame, 0.25, "uint8")[:8, :12] for frame in hr]
    for given, frame in zip(network.given, lr, strict=True):
        np.testing.assert_allclose(given[0], luma(frame) / 255, atol=1e-7)
    sr = np.kron((luma(lr[2]) / 255).astype(np.float32), np.ones((4, 4), np.float32))
    expected = score_frame(sr, hr[2, :32, :48], "d3dnet")
    assert result.psnr == pytest.approx(expected.psnr, abs=1e-9)
    assert result.ssim == pytest.approx(expected.ssim, abs=1e-9)


def test_window_mode_repeats_the_first_and_last_frame(tmp_path):
    hr = frames_of(5)
    write_frames(tmp_path / "clip", hr)
    network = Nearest()
    evaluate(network, "mine", tmp_path, "y-crop0", "window")
    lr = np.stack([luma(imresize(frame, 0.25)) / 255 for frame in hr])
    order = [
        [0, 0, 0, 0, 1, 2, 3], [0, 0, 0, 1, 2, 3, 4], [0, 0, 1, 2, 3, 4, 4],
        [0, 1, 2, 3, 4, 4, 4], [1, 2, 3, 4, 4, 4, 4],
    ]  # fmt: skip
    for given, window in zip(network.given, order, strict=True):
        np.testing.assert_allclose(given[0, 0], lr[window], atol=1e-7)


def test_both_modes_of_a_network_are_its_own():
    torch.manual_seed(0)
    network = D3Dnet(channels=8, resd3d_blocks=1, res_blocks=1).eval()
    lr = np.random.default_rng(0).integers(0, 256, (9, 8, 12, 3), dtype=np.uint8)
    x = torch.from_numpy((luma(lr) / 255).astype(np.float32))[None, None]
    with torch.no_grad():
        sequence = network.forward_sequence(x)[0, 0]
        centre = network(x[:, :, 1:8])[0, 0]
    streamed = np.stack(list(super_resolve(network, lr, "sequence")))
    assert streamed.shape == (9, 32, 48) and streamed.dtype == np.float32
    np.testing.assert_allclose(streamed, sequence, atol=1e-5)
    windows = list(super_resolve(network, lr, "window"))
    assert len(windows) == 9
    np.testing.assert_allclose(windows[4], centre, atol=1e-6)


def test_any_function_of_a_clip_can_be_scored(tmp_path):
    write_frames(tmp_path / "a", frames_of(4))
    found = evaluate(lambda lr: [imresize(frame, 4) for frame in lr], "mine", tmp_path, "y-crop0")
    expected = evaluate("bicubic", "mine", tmp_path, "y-crop0")
    assert found.psnr == expected.psnr and found.ssim == expected.ssim
    assert found.complexity is None


def test_a_network_may_be_given_as_a_weights_file(tmp_path):
    write_frames(tmp_path / "set" / "clip", frames_of(3))
    torch.manual_seed(0)
    network = D3Dnet(channels=8, resd3d_blocks=1, res_blocks=1).eval()
    save_weights(tmp_path / "small.safetensors", network.state_dict(), {})
    given = (tmp_path / "small.safetensors", "mine", tmp_path / "set", "y-crop0")
    named = evaluate(*given, device="cpu", precision="float32")
    held = evaluate(network, *given[1:])
    assert (named.psnr, named.ssim) == (held.psnr, held.ssim)
    assert named.model.endswith("small.safetensors") and held.model == "D3Dnet"
    assert named.clips[0].seconds_per_frame > 0


def test_vimeo_center_scores_the_fourth_of_seven_frames(tmp_path):
    hr = frames_of(7)
    write_frames(tmp_path / "sequences" / "00001" / "0001", hr)
    (tmp_path / "sep_testlist.txt").write_text("00001/0001\n")
    network = Nearest()
    result = evaluate(network, "Vimeo-90k", tmp_path, "vimeo-center")
    assert len(network.given) == 7
    assert [frame.index for frame in result.clips[0].frames] == [3]


def test_septuplets_have_the_double_recipe_under_protocol_d3dnet_too(tmp_path):
    hr = frames_of(7)
    write_frames(tmp_path / "sequences" / "00001" / "0001", hr)
    (tmp_path / "sep_testlist.txt").write_text("00001/0001\n")
    result = evaluate("bicubic", "vimeo", tmp_path, "d3dnet")
    expected = [score_frame(sr, hr[i], "d3dnet") for i, sr in enumerate(bicubic(hr, "double"))]
    assert result.psnr == pytest.approx(np.mean([score.psnr for score in expected[2:-2]]))


def test_low_resolution_frames_that_came_with_the_set_are_used(tmp_path):
    hr = frames_of(3)
    lr = np.stack([imresize(frame, 0.25) for frame in hr])
    write_frames(tmp_path / "clip" / "hr", hr)
    write_frames(tmp_path / "clip" / "lr_x4", 255 - lr)
    network = Nearest()
    result = evaluate(network, "mine", tmp_path, "y-crop0")
    np.testing.assert_allclose(network.given[1][0], luma(255 - lr[1]) / 255, atol=1e-7)
    assert result.clips[0].lr.endswith("lr_x4")
    assert any("lr_x4 differs from recipe double" in note for note in result.notes)


def test_low_resolution_frames_of_the_protocols_recipe_raise_no_note(tmp_path):
    hr = frames_of(3)
    write_frames(tmp_path / "GT" / "clip", hr)
    write_frames(tmp_path / "BIx4" / "clip", np.stack([imresize(frame, 0.25) for frame in hr]))
    given = evaluate("bicubic", "mine", tmp_path, "y-crop0")
    assert given.notes == ()
    made = [
        score_frame(sr, gt, "y-crop0") for sr, gt in zip(bicubic(hr, "double"), hr, strict=True)
    ]
    assert given.psnr == pytest.approx(np.mean([score.psnr for score in made]))


def test_bd_is_an_option_and_says_that_it_does_not_compare(tmp_path):
    hr = frames_of(7)
    write_frames(tmp_path / "Vid4" / "GT" / "walk", hr)
    write_frames(tmp_path / "Vid4" / "BIx4" / "walk", frames_of(7, 1, HEIGHT // 4, WIDTH // 4))
    result = evaluate("bicubic", "Vid4", tmp_path, "y-crop0", bd=True)
    sr = [imresize(blur_decimate(frame), 4) for frame in hr]
    expected = np.mean([score_frame(a, b, "y-crop0").psnr for a, b in zip(sr, hr, strict=True)])
    assert result.psnr == pytest.approx(expected)
    assert "BD degradation: not to be compared" in result.table()
    # Frames that are there by that degradation are used.
    write_frames(
        tmp_path / "Vid4" / "BDx4" / "walk", np.stack([blur_decimate(f) for f in hr])[::-1]
    )
    result = evaluate("bicubic", "Vid4", tmp_path, "y-crop0", bd=True)
    assert "differs from recipe bd in" in result.table()


def test_low_resolution_frames_of_another_count_or_size_are_refused(tmp_path):
    write_frames(tmp_path / "clip" / "hr", frames_of(3))
    write_frames(tmp_path / "clip" / "lr_x4", frames_of(2, height=8, width=16)[:, :, :12])
    with pytest.raises(ValueError, match=r"\(2, 8, 12, 3\); accepted is \(3, 8, 12, 3\)"):
        evaluate("bicubic", "mine", tmp_path, "y-crop0")


def test_a_networks_luma_is_scored_in_rgb_with_bicubic_chroma(tmp_path):
    hr = frames_of(3)
    write_frames(tmp_path / "clip", hr)
    result = evaluate(Nearest(), "mine", tmp_path, "rgb-crop0")
    # Independent: MATLAB's ycbcr2rgb written out, chroma of the enlarged low-resolution frame.
    for frame, gt in zip(result.clips[0].frames, hr, strict=True):
        lr = imresize(gt, 0.25)
        r, g, b = (imresize(lr[..., c] / 255, 4) for c in range(3))
        cb = -37.797 * r - 74.203 * g + 112 * b
        cr = 112 * r - 93.786 * g - 18.214 * b
        y = np.kron(luma(lr), np.ones((4, 4))) - 16
        rgb = [y / 219 + 1.402 / 224 * cr, None, y / 219 + 1.772 / 224 * cb]
        rgb[1] = (y / 219 - 0.299 * rgb[0] - 0.114 * rgb[2]) / 0.587
        expected = 255 * np.clip(np.stack(rgb, -1), 0, 1)
        mse = np.mean((expected - gt) ** 2)
        assert frame.psnr == pytest.approx(10 * math.log10(255**2 / mse), abs=0.01)


def test_rgb_of_bicubic_luma_is_bicubic_rgb():
    lr = imresize(frames_of(1)[0], 0.25)
    y = luma(lr) / 255
    sr = imresize(y, 4)
    difference = rgb_from_luma(sr, lr).astype(int) - imresize(lr, 4)
    assert np.abs(difference).max() <= 1


def test_only_the_clips_asked_for_are_taken(tmp_path):
    for name in ("calendar", "city", "walk"):
        write_frames(tmp_path / "Vid4" / name, frames_of(1))
    result = evaluate("bicubic", "Vid4", tmp_path, "y-crop0", clips=["walk", "city"])
    assert [clip.name for clip in result.clips] == ["city", "walk"]
    assert result.notes == ("calendar, foliage left out: the mean does not compare with tables",)
    with pytest.raises(ValueError, match=r"tree; present are calendar, city, walk"):
        evaluate("bicubic", "Vid4", tmp_path, "y-crop0", clips=["tree"])


def test_clips_too_short_for_the_protocol_are_refused(tmp_path):
    write_frames(tmp_path / "clip", frames_of(4))
    with pytest.raises(ValueError, match=r"clip clip: got 4 frames.*d3dnet.*\[2:-2\]"):
        evaluate("bicubic", "mine", tmp_path, "d3dnet")


def test_an_unknown_mode_is_named(tmp_path):
    with pytest.raises(ValueError, match="'sliding'; accepted are sequence, window"):
        evaluate("bicubic", "mine", tmp_path, mode="sliding")


class TestReadyFrames:
    @pytest.fixture
    def hr(self, tmp_path) -> np.ndarray:
        hr = frames_of(33)
        write_frames(tmp_path / "gt" / "Vid4" / "city", hr)
        return hr

    @pytest.mark.parametrize("which", ["all", "used", "scored"])
    def test_all_frames_or_those_used_or_those_scored_may_be_there(self, tmp_path, hr, which):
        sr = np.stack(bicubic(hr, "uint8"))
        part = {"all": slice(None), "used": slice(31), "scored": slice(2, 29)}[which]
        write_frames(tmp_path / "sr" / "city", sr[part])
        ready = evaluate_frames(tmp_path / "sr", "Vid4", tmp_path / "gt", "d3dnet")
        made = evaluate("bicubic", "Vid4", tmp_path / "gt", "d3dnet")
        assert ready.clips[0].frames == made.clips[0].frames
        assert (ready.psnr, ready.ssim) == (made.psnr, made.ssim)

    def test_grey_frames_are_luma(self, tmp_path, hr):
        sr = np.stack([np.floor(luma(frame)).astype(np.uint8) for frame in hr])
        write_frames(tmp_path / "sr" / "city", sr)
        result = evaluate_frames(tmp_path / "sr", "Vid4", tmp_path / "gt", "d3dnet")
        assert result.psnr == math.inf and 0.99 < result.ssim < 1

    def test_grey_frames_stored_as_rgb_are_remarked_on(self, tmp_path, hr):
        grey = np.repeat(hr[..., :1], 3, -1)
        write_frames(tmp_path / "sr" / "city", grey)
        result = evaluate_frames(tmp_path / "sr", "Vid4", tmp_path / "gt", "d3dnet")
        assert any("grey stored as RGB" in note for note in result.notes)

    def test_frames_cut_as_the_protocol_cuts_are_accepted(self, tmp_path):
        hr = frames_of(5, height=40, width=56)
        write_frames(tmp_path / "gt" / "clip", hr)
        write_frames(tmp_path / "sr" / "clip", 255 - hr)
        write_frames(tmp_path / "cut" / "clip", 255 - hr[:, :32, :48])
        whole, cut = (
            evaluate_frames(tmp_path / folder, "mine", tmp_path / "gt") for folder in ("sr", "cut")
        )
        assert whole.clips == cut.clips

    def test_the_frames_of_a_single_clip_may_lie_in_the_folder_itself(self, tmp_path, hr):
        write_frames(tmp_path / "gt" / "Vid4" / "walk", hr[:5])
        write_frames(tmp_path / "other", hr)
        root = tmp_path / "gt"
        named = evaluate_frames(tmp_path / "other", "Vid4", root, "y-crop0", clips=["city"])
        assert named.psnr == math.inf
        (tmp_path / "other").rename(tmp_path / "City")
        result = evaluate_frames(tmp_path / "City", "Vid4", root, "y-crop0")
        assert result == replace(named, model="City")

    def test_clips_without_frames_are_left_out_with_a_note(self, tmp_path, hr):
        write_frames(tmp_path / "gt" / "Vid4" / "walk", hr[:5])
        write_frames(tmp_path / "sr" / "city", hr)
        result = evaluate_frames(tmp_path / "sr", "Vid4", tmp_path / "gt", "y-crop0")
        assert [clip.name for clip in result.clips] == ["city"]
        assert result.notes == (
            "calendar, foliage, walk left out: the mean does not compare with tables",
        )

    def test_another_number_of_frames_is_refused(self, tmp_path, hr):
        write_frames(tmp_path / "sr" / "city", hr[:30])
        with pytest.raises(ValueError, match=r"got 30 frames; .* accepted are 33 or 31 or 27"):
            evaluate_frames(tmp_path / "sr", "Vid4", tmp_path / "gt", "d3dnet")

    def test_a_folder_without_frames_is_refused(self, tmp_path, hr):
        (tmp_path / "sr").mkdir()
        with pytest.raises(FileNotFoundError, match="no frames of city"):
            evaluate_frames(tmp_path / "sr", "Vid4", tmp_path / "gt")


def run(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments)])


class TestCommand:
    def test_bd_is_an_option_and_none_of_ready_frames(self, root, capsys):
        assert run("Vid4", "--root", root, "--model", "bicubic", "--bd") == 0
        assert "BD degradation" in capsys.readouterr().out
        assert run("Vid4", "--root", root, "--frames", root, "--bd") == 2
        assert "--bd: goes with a model" in capsys.readouterr().err

    @pytest.fixture
    def root(self, tmp_path) -> Path:
        for seed, name in enumerate(("calendar", "city", "foliage", "walk")):
            write_frames(tmp_path / "sets" / "Vid4" / name, frames_of(5, seed))
        return tmp_path / "sets"

    def test_it_prints_clips_mean_and_published_rows(self, root, capsys):
        assert run("Vid4", "--root", root, "--model", "bicubic") == 0
        result = evaluate("bicubic", "Vid4", root, "d3dnet")
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["Vid4,", "protocol", "d3dnet", "PSNR", "SSIM"]
        assert lines[1].split() == [
            "calendar", f"{result.clips[0].psnr:.3f}", f"{result.clips[0].ssim:.4f}",
        ]  # fmt: skip
        assert lines[5].split() == [
            "mean:", "bicubic", f"{result.psnr:.3f}", f"{result.ssim:.4f}",
        ]  # fmt: skip
        assert lines[-1].split() == ["published:", "D3Dnet", "26.520", "0.7990"]
        assert len(lines) == 14

    def test_rows_of_other_protocols_are_not_shown(self, root, capsys):
        assert run("Vid4", "--root", root, "--model", "bicubic", "--protocol", "rgb-crop0") == 0
        assert "published" not in capsys.readouterr().out

    def test_json_holds_every_number(self, root, tmp_path):
        path = tmp_path / "result.json"
        assert run("Vid4", "--root", root, "--model", "bicubic", "--json", path) == 0
        written = json.loads(path.read_text())
        result = evaluate("bicubic", "Vid4", root, "d3dnet")
        assert written["psnr"] == result.psnr and written["ssim"] == result.ssim
        assert (written["dataset"], written["protocol"], written["model"]) == (
            "Vid4", "d3dnet", "bicubic",
        )  # fmt: skip
        for clip, expected in zip(written["clips"], result.clips, strict=True):
            assert clip["name"] == expected.name
            assert [(f["index"], f["psnr"], f["ssim"]) for f in clip["frames"]] == [
                (f.index, f.psnr, f.ssim) for f in expected.frames
            ]

    def test_expectations_decide_the_exit_code(self, root, capsys):
        psnr = evaluate("bicubic", "Vid4", root, "d3dnet").psnr
        command = ("Vid4", "--root", root, "--model", "bicubic", "--tolerance", 0.01, "--expect")
        assert run(*command, psnr + 0.009) == 0
        assert run(*command, psnr + 0.011) == 1
        assert f"got {psnr:.4f}" in capsys.readouterr().err

    def test_ready_frames_are_scored_in_place_of_a_model(self, root, tmp_path, capsys):
        for clip in find_clips("Vid4", root):
            write_frames(tmp_path / "ready" / clip.name, 255 - clip.read_hr())
        assert run("Vid4", "--root", root, "--frames", tmp_path / "ready") == 0
        assert "mean: ready" in capsys.readouterr().out

    def test_csv_and_report_are_written_beside_the_json(self, root, tmp_path):
        csv, report = tmp_path / "frames.csv", tmp_path / "report.html"
        given = ("Vid4", "--root", root, "--model", "bicubic")
        assert run(*given, "--csv", csv, "--report", report, "--tof") == 0
        result = evaluate("bicubic", "Vid4", root, "d3dnet")
        rows = csv.read_text().splitlines()
        scored = [(clip.name, frame) for clip in result.clips for frame in clip.frames]
        assert rows[0] == "clip,frame,psnr,ssim"
        assert rows[1:] == [f"{name},{f.index},{f.psnr},{f.ssim}" for name, f in scored]
        page = report.read_text()
        assert page.startswith("<!DOCTYPE html>") and page.count("<figure>") == 7 * len(
            result.clips
        )
        assert "tOF" in page

    def test_movie_is_measured_when_asked_for(self, root, capsys):
        # The frames of this set are too small for it: that is said by name.
        assert run("Vid4", "--root", root, "--model", "bicubic", "--movie") == 2
        assert "MOVIE" in capsys.readouterr().err

    @pytest.mark.parametrize("option", ["--json", "--csv", "--report"])
    def test_a_missing_folder_for_a_result_is_noticed_before_the_work(
        self, root, tmp_path, capsys, option
    ):
        assert run("Vid4", "--root", root, option, tmp_path / "none" / "result") == 1
        assert f"{option}: there is no folder" in capsys.readouterr().err


@needs_vid4
def test_bicubic_on_vid4_gives_the_figure_of_the_literature():
    result = evaluate("bicubic", "Vid4", SHARED / "eval", "y-crop0")
    assert [len(clip.frames) for clip in result.clips] == [41, 34, 49, 47]
    assert (round(result.psnr, 3), round(result.ssim, 4)) == (23.784, 0.6347)


def published_y(rgb: np.ndarray) -> Tensor:
    rgb = rgb.astype(np.float32)
    return torch.from_numpy(((rgb @ [65.481, 128.553, 24.966] / 255 + 16) / 255).astype(np.float32))


def published_scores(sr: Tensor, hr: Tensor) -> tuple[float, float]:
    """Protocol d3dnet in the arithmetic of the published evaluation: torch, float32."""
    sr, hr = (image.clamp(0, 1)[None, None, 8:-8, 8:-8] for image in (sr, hr))
    truncated = [(image * 255).int().float() / 255 for image in (sr, hr)]
    psnr = 10 * torch.log10(1 / F.mse_loss(*truncated))
    tap = torch.arange(11.0) - 5
    window = torch.exp(-(tap**2) / (2 * 1.5**2))
    window = (window[:, None] * window / window.sum() ** 2)[None, None]
    moments = torch.cat([sr, hr, sr * sr, hr * hr, sr * hr])
    x, y, xx, yy, xy = F.conv2d(moments, window, padding=5).unbind(0)
    similarity = (2 * x * y + 0.01**2) * (2 * (xy - x * y) + 0.03**2)
    similarity /= (x**2 + y**2 + 0.01**2) * (xx - x**2 + yy - y**2 + 0.03**2)
    return psnr.item(), similarity.mean().item()


@needs_vid4
def test_protocol_d3dnet_on_vid4_agrees_with_the_published_arithmetic():
    for clip in find_clips("Vid4", SHARED / "eval"):
        (hr,) = clip.read_hr(1)
        sr = imresize(imresize(hr, 0.25, "uint8"), 4)
        score = score_frame(sr, hr, "d3dnet")
        psnr, ssim = published_scores(published_y(sr), published_y(hr))
        assert score.psnr == pytest.approx(psnr, abs=1e-4)
        assert score.ssim == pytest.approx(ssim, abs=2e-5)


class TestTemporalMetrics:
    @pytest.fixture
    def root(self, tmp_path) -> Path:
        for name, seed in (("city", 0), ("walk", 1)):
            write_frames(tmp_path / "Vid4" / name, frames_of(31, seed, height=80, width=96))
        return tmp_path

    def test_movie_and_tof_are_measured_per_clip_and_averaged_over_the_set(self, root):
        result = evaluate("bicubic", "Vid4", root, "d3dnet", movie=True, tof=True)
        protocol = get_protocol("d3dnet")
        for clip, found in zip(result.clips, find_clips("Vid4", root), strict=True):
            frames = found.read_hr()
            hr = np.floor(luma(frames) + 0.5).astype(np.uint8)
            sr = np.floor(luma(np.stack(bicubic(frames, "uint8"))) + 0.5).astype(np.uint8)
            assert clip.movie == movie_of_result(sr, hr, protocol)
            assert clip.tof == tof(sr, hr, border=8) > 0
            assert [frame.index for frame in clip.movie.frames] == [15]
        assert result.movie == pytest.approx(np.mean([c.movie.movie for c in result.clips]))
        assert result.t_movie == pytest.approx(np.mean([c.movie.temporal for c in result.clips]))
        assert result.tof == pytest.approx(np.mean([c.tof for c in result.clips]))
        assert result.range_compressed is True

    def test_ready_frames_give_the_same(self, root, tmp_path):
        made = evaluate("bicubic", "Vid4", root, "d3dnet", clips=["city"], movie=True, tof=True)
        hr = find_clips("Vid4", root)[0].read_hr()
        write_frames(tmp_path / "sr" / "city", np.stack(bicubic(hr, "uint8")))
        ready = evaluate_frames(tmp_path / "sr", "Vid4", root, "d3dnet", movie=True, tof=True)
        assert (ready.movie, ready.t_movie, ready.tof) == (made.movie, made.t_movie, made.tof)

    def test_clips_too_short_are_refused_before_the_work(self, root):
        network = Nearest()
        with pytest.raises(ValueError, match="clip city: MOVIE: got 31 frames; accepted are 33"):
            evaluate(network, "Vid4", root, "y-crop0", movie=True)
        assert network.given == []

    def test_they_are_off_by_default(self, root):
        result = evaluate("bicubic", "Vid4", root, "d3dnet", clips=["city"])
        assert (result.movie, result.tof, result.clips[0].movie) == (None, None, None)


def test_a_network_has_its_complexity_and_its_time_told(tmp_path):
    write_frames(tmp_path / "clip", frames_of(3))
    network = D3Dnet(channels=8, resd3d_blocks=1, res_blocks=1).eval()
    result = evaluate(network, "mine", tmp_path, "y-crop0")
    assert result.complexity.parameters == sum(p.numel() for p in network.parameters())
    assert result.complexity.macs > 0
    assert result.seconds_per_frame == result.clips[0].seconds_per_frame > 0
    assert "GMACs are for one 1280x720 frame, sequence mode" in result.table()


def test_the_frames_of_each_clip_are_handed_over_once_it_is_scored(tmp_path):
    hr = frames_of(7, height=40, width=56)
    write_frames(tmp_path / "clip", hr)
    given = []
    evaluate("bicubic", "mine", tmp_path, "d3dnet", on_clip=given.append)
    (frames,) = given
    assert frames.name == "clip" and list(frames.indices) == list(range(7))
    assert np.array_equal(frames.hr, hr) and frames.lr.shape == (7, 8, 12, 3)
    assert len(frames.sr) == 7 and frames.sr[0].shape == (32, 48, 3)
