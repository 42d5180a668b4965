"""scripts/compare_peers.py: what others make of the same frames, with stand-ins for the others."""

import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from d3dnet.datasets.imresize import imresize
from d3dnet.network.checkpoints import bundled_models, load_model

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import compare_peers
from peers import filters, ncnn_networks
from peers.child import score, warm_up
from peers.listing import all_peers
from peers.networks import OurNetwork
from peers.peer import MissingPeerError, Peer
from peers.results import Entry, Results


class Repeat(Peer):
    """Repeats pixels."""

    def version(self) -> str:
        return "1"

    def upscale(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        return (frame.repeat(4, 0).repeat(4, 1) for frame in frames)


class Missing(Repeat):
    def version(self) -> str:
        raise MissingPeerError("pip install it")


class Failing(Repeat):
    def upscale(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        raise RuntimeError("no such layer")


class Crashing(Repeat):
    def upscale(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        os._exit(3)


class Hungry(Repeat):
    def upscale(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        taken = np.ones(300 * 2**20, np.uint8)
        for frame in super().upscale(frames):
            yield frame * taken[0]


def clip_of(count: int, seed: int, height: int = 64, width: int = 80) -> np.ndarray:
    """Smooth colour noise, (T, H, W, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, height // 8, width // 8, 3))
    coarse = coarse.astype(np.uint8)
    return np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_CUBIC) for f in coarse])


@pytest.fixture
def clips(tmp_path: Path) -> dict[str, np.ndarray]:
    """The frames of a set of two clips that lies in `tmp_path`/mine."""
    found = {"a": clip_of(5, 0), "b": clip_of(6, 1)}
    for name, frames in found.items():
        folder = tmp_path / "mine" / name
        folder.mkdir(parents=True)
        for number, frame in enumerate(frames):
            assert cv2.imwrite(str(folder / f"{number}.png"), frame[..., ::-1])
    return found


def luma(rgb: np.ndarray) -> np.ndarray:
    return 16 + (rgb @ np.array([65.481, 128.553, 24.966])) / 255


def options(tmp_path: Path, **changed: object) -> Namespace:
    given = {
        "dataset": "mine",
        "root": tmp_path,
        "quality": True,
        "speed": False,
        "rounds": 1,
        "results": tmp_path / "results.json",
    }
    return Namespace(**(given | changed))


def test_scores_are_those_of_the_frames_by_either_protocol(tmp_path, clips):
    means = {"psnr": [], "ssim": [], "psnr_d3dnet": [], "temporal_error": []}
    for hr in clips.values():
        double = [imresize(frame, 0.25, "double") for frame in hr]
        ours = luma(np.stack(double).repeat(4, 1).repeat(4, 2))
        true = luma(hr)
        psnr = [
            10 * np.log10(255**2 / ((a - b) ** 2).mean()) for a, b in zip(ours, true, strict=True)
        ]
        means["psnr"].append(np.mean(psnr))
        settings = {"data_range": 255, "gaussian_weights": True, "use_sample_covariance": False}
        means["ssim"].append(
            np.mean(
                [structural_similarity(a, b, **settings) for a, b in zip(ours, true, strict=True)]
            )
        )
        rounded = [np.floor(y + 0.5) for y in (ours, true)]
        change = np.diff(rounded[0], axis=0) - np.diff(rounded[1], axis=0)
        means["temporal_error"].append(np.sqrt((change**2).mean()))
        published = np.stack([imresize(frame, 0.25, "uint8") for frame in hr])
        inside = np.s_[2:-2, 8:-8, 8:-8]
        cut = np.floor(luma(published.repeat(4, 1).repeat(4, 2))[inside] + 1e-9)
        error = (cut - np.floor(true[inside] + 1e-9)) ** 2
        means["psnr_d3dnet"].append(np.mean(10 * np.log10(255**2 / error.mean((1, 2)))))
    found = score(Repeat("repeat"), "mine", tmp_path)
    for name, values in means.items():
        assert found[name] == pytest.approx(np.mean(values), rel=1e-6), name
    assert 0 < found["ssim_d3dnet"] < 1 and found["tof"] > 0


class TestCompare:
    @pytest.fixture(autouse=True)
    def in_threads(self, monkeypatch):
        """Processes take seconds to start; `test_a_peer_that_dies` has real ones."""
        monkeypatch.setattr(compare_peers, "process", lambda: ThreadPoolExecutor(1))

    def test_those_missing_and_those_that_fail_are_told_and_the_others_have_rows(
        self, tmp_path, clips, capsys
    ):
        peers = [Missing("absent"), Failing("broken"), Repeat("repeat")]
        compare_peers.compare(peers, options(tmp_path, speed=True))
        out = capsys.readouterr().out
        rows = [
            [cell.strip() for cell in line.split("|")[1:-1]]
            for line in out.splitlines()
            if line.startswith("|")
        ]
        assert [row[0] for row in rows] == ["", "---", "broken", "repeat"]
        assert {len(row) for row in rows} == {9}
        assert not any(rows[2][1:])
        psnr, ssim = map(float, rows[3][1].split(" / "))
        assert 10 < psnr < 30 and 0 < ssim < 1
        assert all(float(cell) >= 0 for cell in rows[3][3:])
        assert "left out: absent: pip install it" in out
        assert "left out: broken: scoring failed: no such layer" in out
        assert "left out: broken: measuring its speed failed: no such layer" in out

    def test_scores_are_kept_for_the_same_frames_and_version(
        self, tmp_path, clips, capsys, monkeypatch
    ):
        compare_peers.compare([Repeat("repeat")], options(tmp_path))
        kept = Results.read(tmp_path / "results.json")
        ((frames, scores),) = kept.quality.items()
        scores["repeat"].numbers["psnr"] = 77.0
        kept.write(tmp_path / "results.json")
        capsys.readouterr()

        compare_peers.compare([Repeat("repeat")], options(tmp_path))
        assert "| 77.000 / " in capsys.readouterr().out
        monkeypatch.setattr(Repeat, "version", lambda self: "2")
        assert not Results.read(tmp_path / "results.json").scored(frames, "repeat", "2")
        compare_peers.compare([Repeat("repeat")], options(tmp_path))
        assert "| 77.000 / " not in capsys.readouterr().out

    def test_other_frames_under_the_same_name_are_other_results(self, tmp_path, clips):
        found = compare_peers.find_clips("mine", tmp_path)
        before = compare_peers.fingerprint(found)
        assert compare_peers.fingerprint(found) == before
        cv2.imwrite(str(tmp_path / "mine" / "a" / "0.png"), clips["a"][1])
        assert compare_peers.fingerprint(found) != before

    def test_an_unknown_name_is_refused_with_those_there_are(self, tmp_path, monkeypatch):
        command = ["compare_peers.py", "mine", "--root", str(tmp_path), "--peers", "SPAM"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit, match=r"got SPAM; there are bicubic, .*SPAN, .*d3dnet-lite"):
            compare_peers.main()


def test_the_table_leaves_out_what_is_not_known_or_of_another_version():
    quality = {"psnr": 25.0, "ssim": 0.7, "psnr_d3dnet": 24.0, "ssim_d3dnet": 0.6}
    quality |= {"temporal_error": 13.694, "tof": 0.5}
    speed = {"cpu_one": 0.68, "cpu_all": 0.7, "fps_all": 2.5, "memory": 100.4}
    results = Results({"set": {"x": Entry("1", quality)}}, {"x": Entry("1", speed)}, "a machine")
    lines = results.table("set", {"x": "1", "y": "1"}).splitlines()
    assert lines[2].startswith("| x | 25.000 / 0.7000 | 24.000 / 0.6000 | 13.69 | 0.500 | 0.680 |")
    assert lines[2].endswith("| 2.5 | 100 |")
    assert lines[3] == "| y |" + "  |" * 8
    assert results.table("set", {"x": "2"}).splitlines()[2] == "| x |" + "  |" * 8
    assert results.table("other", {"x": "1"}).splitlines()[2].startswith("| x |  |  |  |  | 0.680")


def test_a_peer_that_dies_stops_no_other():
    peers = [Crashing("dead"), Repeat("repeat")]
    found, failed = compare_peers.measure_speed(peers, clip_of(2, 0), rounds=1)
    assert list(found) == ["repeat"] and all(number >= 0 for number in found["repeat"].values())
    assert len(failed) == 1 and failed[0].startswith("dead: measuring its speed failed: ")


def test_memory_is_the_peak_of_the_process():
    frames = clip_of(2, 0)
    memory, seconds = warm_up(Hungry("hungry"), frames, 2)
    assert memory > 300 * 2**20 and seconds >= 0


def test_the_frames_of_the_speed_are_of_one_size_whatever_the_clip(tmp_path, clips):
    (small, _) = compare_peers.find_clips("mine", tmp_path)
    found = compare_peers.speed_frames(small)
    assert found.shape == (5, 180, 320, 3) and found.dtype == np.uint8
    lr = imresize(clips["a"][0], 0.25, "double")
    np.testing.assert_array_equal(found[0, :16, :20], lr)
    np.testing.assert_array_equal(found[0, 16:32, :20], lr[::-1])


class TestPeers:
    def test_every_bundled_network_is_one(self):
        names = [peer.name for peer in all_peers()]
        assert names[0] == "bicubic" and names[-len(bundled_models()) :] == bundled_models()

    def test_our_networks_give_what_they_give_anywhere(self):
        peer = OurNetwork("bicubic")
        frames = [peer.prepare(frame) for frame in clip_of(2, 0, 16, 24)]
        np.testing.assert_allclose(frames[0], luma(clip_of(2, 0, 16, 24)[0]) / 255, atol=1e-6)
        expected = load_model("bicubic").forward_sequence(
            torch.from_numpy(np.stack(frames))[None, None]
        )
        np.testing.assert_array_equal(np.stack(list(peer.upscale(frames))), expected[0, 0].numpy())

    def test_a_filter_gets_rounded_luma_and_gives_every_frame(self):
        peer = filters.FfmpegFilter("nearest", "scale=4*iw:4*ih:flags=neighbor")
        rgb = clip_of(3, 0)
        frames = [peer.prepare(frame) for frame in rgb]
        np.testing.assert_array_equal(frames, np.floor(luma(rgb) + 0.5))
        found = np.stack(list(peer.upscale(frames)))
        np.testing.assert_array_equal(found, np.stack(frames).repeat(4, 1).repeat(4, 2))

    def test_a_filter_that_fails_says_why(self):
        peer = filters.FfmpegFilter("wrong", "no_such_filter")
        with pytest.raises(RuntimeError, match="no_such_filter"):
            list(peer.upscale([np.zeros((8, 8), np.uint8)]))

    @pytest.mark.parametrize("peer", all_peers(), ids=lambda peer: peer.name)
    def test_a_package_that_is_not_there_is_named_with_the_way_to_get_it(self, peer, monkeypatch):
        def absent(name: str) -> None:
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(metadata, "distribution", absent)
        monkeypatch.setattr(metadata, "version", absent)
        if hasattr(peer, "package"):
            with pytest.raises(MissingPeerError, match=f"pip install .*{peer.package}"):
                peer.version()
        else:
            assert peer.version()

    def test_nnedi3_leaves_things_where_they_are(self):
        peer = filters.Nnedi3()
        try:
            peer.version()
        except MissingPeerError as error:
            pytest.skip(str(error))
        y, x = np.mgrid[:128, :160] - np.array([60.5, 83.5])[:, None, None]
        large = (200 * np.exp(-(x**2 + y**2) / 800)).astype(np.uint8)
        (found,) = peer.upscale([large.reshape(32, 4, 40, 4).mean((1, 3)).round().astype(np.uint8)])
        assert np.abs(found.astype(int) - large).max() <= 4

    def test_ncnn_gets_rgb_and_gives_it_rounded_and_clipped(self, monkeypatch):
        class Mat(SimpleNamespace):
            PixelType = SimpleNamespace(PIXEL_RGB="rgb")

            @classmethod
            def from_pixels(cls, pixels, kind, width, height):
                assert (kind, pixels.shape) == ("rgb", (height, width, 3))
                return cls(values=pixels.transpose(2, 0, 1).astype(np.float32))

            def substract_mean_normalize(self, mean, norm):
                self.values *= np.float32(norm)[:, None, None]

        class Net:
            def __init__(self):
                self.opt = SimpleNamespace(num_threads=None)
                self.load_param = self.load_model = lambda path: 0 if "net4x" in path else -1
                self.input_names, self.output_names = lambda: ["data"], lambda: ["output"]

            def create_extractor(self):
                def give(name, image):
                    self.values = image.values * 1.5 - 0.1  # beyond both ends

                def take(name):
                    return 0, self.values.repeat(4, 1).repeat(4, 2)

                return SimpleNamespace(input=give, extract=take)

        here = SimpleNamespace(locate_file=lambda name: Path("/somewhere") / name)
        monkeypatch.setattr(metadata, "distribution", lambda name: here)
        fake = SimpleNamespace(Mat=Mat, Net=Net)
        monkeypatch.setattr(ncnn_networks, "import_module", lambda name: fake)
        rgb = clip_of(1, 0)[0]
        (found,) = ncnn_networks.NcnnNetwork("net", "package", "net4x").upscale([rgb])
        expected = np.clip(np.rint(1.5 * rgb - 25.5), 0, 255).repeat(4, 0).repeat(4, 1)
        assert found.dtype == np.uint8
        assert np.abs(found - expected).max() <= 1 and (found != expected).mean() < 0.5
        with pytest.raises(RuntimeError, match=r"does not load other\.param of package"):
            list(ncnn_networks.NcnnNetwork("net", "package", "other").upscale([rgb]))
