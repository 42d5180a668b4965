"""Vimeo-90k: read as downloaded, packed once, drawn from the store; resumable, checksummed."""

import importlib.util
import json
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from d3dnet.datasets.imresize import blur_decimate, imresize
from d3dnet.datasets.luma import luma, unit_luma
from d3dnet.datasets.luma_store import LumaStore
from d3dnet.datasets.patches import EpochPatches
from d3dnet.datasets.vimeo90k import Vimeo90k, open_septuplets
from d3dnet.errors import BadClipError

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_vimeo90k.py"
NAMES = ("00001/0001", "00001/0002", "00002/0007", "00003/0001", "00003/0010")
HEIGHT, WIDTH = 32, 48


def prepare(*arguments) -> int:
    """Run scripts/prepare_vimeo90k.py in this process and return its exit code."""
    spec = importlib.util.spec_from_file_location("prepare_vimeo90k", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(argument) for argument in arguments])


def frames_of(name: str, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    rng = np.random.default_rng([int(part) for part in name.split("/")])
    return rng.integers(0, 256, (7, *size, 3), dtype=np.uint8)


def write_septuplet(folder: Path, frames: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, 1):
        cv2.imwrite(str(folder / f"im{number}.png"), frame[..., ::-1])


@pytest.fixture
def root(tmp_path):
    """Five training septuplets and one for testing, without low-resolution frames."""
    root = tmp_path / "vimeo_septuplet"
    for name in (*NAMES, "00009/0001"):
        write_septuplet(root / "sequences" / name, frames_of(name))
    (root / "sep_trainlist.txt").write_text("\n".join(NAMES) + "\n")
    (root / "sep_testlist.txt").write_text("00009/0001\n\n")
    return root


def assert_luma(stored: np.ndarray, rgb: np.ndarray) -> None:
    """Luma as published, not rounded to 8 bit; stored in 1/256 of a code value."""
    assert stored.dtype == np.uint16
    np.testing.assert_allclose(unit_luma(stored) * 255, luma(rgb), rtol=0, atol=1 / 500)


def bicubic(frames: np.ndarray) -> np.ndarray:
    return np.stack([imresize(frame, 0.25, "double") for frame in frames])


class TestAsDownloaded:
    def test_septuplets_are_those_of_the_list_with_low_resolution_made_on_the_fly(self, root):
        septuplets = Vimeo90k(root)
        assert septuplets.names == list(NAMES)
        for clip, name in zip(septuplets, NAMES, strict=True):
            assert clip.name == name
            assert_luma(clip.hr, frames_of(name))
            assert_luma(clip.lr, bicubic(frames_of(name)))

    def test_the_test_list_is_another_split(self, root):
        (clip,) = Vimeo90k(root, "sep_testlist.txt")
        assert_luma(clip.hr, frames_of("00009/0001"))

    def test_low_resolution_frames_that_are_there_are_read(self, root):
        for name in NAMES:
            low = frames_of(name, (HEIGHT // 4, WIDTH // 4))
            write_septuplet(root / "LR_x4" / name, low)
        assert_luma(Vimeo90k(root)[2].lr, frames_of(NAMES[2], (HEIGHT // 4, WIDTH // 4)))
        assert_luma(Vimeo90k(root, make_lr=True)[2].lr, bicubic(frames_of(NAMES[2])))

    def test_bd_is_made_although_there_are_bicubic_frames(self, root):
        for name in NAMES:
            write_septuplet(root / "LR_x4" / name, frames_of(name, (8, 12)))
        expected = np.stack([blur_decimate(frame) for frame in frames_of(NAMES[0])])
        assert_luma(Vimeo90k(root, degradation="bd")[0].lr, expected)

    def test_every_bad_file_of_a_septuplet_is_named(self, root):
        folder = root / "sequences" / NAMES[1]
        (folder / "im3.png").unlink()
        (folder / "im5.png").write_bytes((folder / "im5.png").read_bytes()[:-40])
        with pytest.raises(BadClipError) as caught:
            Vimeo90k(root)[1]
        (third, missing), (fifth, damaged) = caught.value.files
        assert third.endswith("im3.png") and missing == "missing"
        assert fifth.endswith("im5.png") and "cannot be read" in damaged
        assert Vimeo90k(root)[0].name == NAMES[0]

    def test_low_resolution_frames_of_a_wrong_size_are_named(self, root):
        for name in NAMES:
            write_septuplet(root / "LR_x4" / name, frames_of(name, (HEIGHT // 2, WIDTH // 2)))
        with pytest.raises(BadClipError, match=r"LR_x4.*a quarter would be \(8, 12\)"):
            Vimeo90k(root)[0]

    def test_a_folder_that_is_not_vimeo_is_refused(self, root, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"sequences/ and the list sep_trainlist"):
            open_septuplets(tmp_path)
        with pytest.raises(FileNotFoundError, match="nowhere"):
            open_septuplets(tmp_path / "nowhere")
        (root / "sep_trainlist.txt").write_text("\n")
        with pytest.raises(ValueError, match="names no septuplets"):
            open_septuplets(root)


class TestPacked:
    def test_a_packed_set_holds_the_same_as_the_images(self, root, tmp_path, capsys):
        assert prepare(root, tmp_path / "store", "--shard", 2) == 0
        assert "5 septuplets packed" in capsys.readouterr().out
        store = open_septuplets(tmp_path / "store")
        assert store.names == list(NAMES)
        for packed, read in zip(store, Vimeo90k(root), strict=True):
            assert packed.name == read.name
            assert np.array_equal(packed.hr, read.hr) and np.array_equal(packed.lr, read.lr)

    def test_patches_of_the_store_are_those_of_the_images(self, root, tmp_path):
        prepare(root, tmp_path / "store", "--shard", 2)
        packed, read = (
            EpochPatches(open_septuplets(path), 7, 6, seed=9) for path in (tmp_path / "store", root)
        )
        for index in range(12):
            for one, other in zip(packed[index], read[index], strict=True):
                assert torch.equal(one, other)

    def test_loader_workers_open_the_store_for_themselves(self, root, tmp_path):
        prepare(root, tmp_path / "store", "--shard", 2)
        patches = EpochPatches(open_septuplets(tmp_path / "store"), 7, 6)
        here = torch.stack([patches[index][1] for index in range(10)])  # opens its maps
        loader = DataLoader(patches, batch_size=5, sampler=range(10), num_workers=2)
        assert torch.equal(torch.cat([hr for _, hr in loader]), here)
        sent = pickle.dumps(patches)
        assert len(sent) < 5000  # the index, and no septuplet
        assert torch.equal(pickle.loads(sent)[3][1], here[3])

    def test_only_what_a_patch_touches_is_read(self, root, tmp_path):
        prepare(root, tmp_path / "store")
        clip = open_septuplets(tmp_path / "store")[0]
        base = clip.hr
        while isinstance(base.base, np.ndarray):
            base = base.base
        assert isinstance(base, np.memmap)  # a view into the file, not a copy

    def test_bad_septuplets_are_counted_and_listed_and_mending_them_completes_the_store(
        self, root, tmp_path, capsys
    ):
        store = tmp_path / "store"
        bad = root / "sequences" / NAMES[2]
        kept = bad.with_name("kept")
        shutil.copytree(bad, kept)
        for number in (2, 6):
            (bad / f"im{number}.png").write_bytes(b"damaged")
        shutil.rmtree(root / "sequences" / NAMES[4])
        assert prepare(root, store, "--shard", 2) == 1
        error = capsys.readouterr().err
        assert "2 of 5 septuplets are bad (9 files" in error and "--skip-bad" in error
        listed = (store / "bad.txt").read_text().splitlines()
        assert len(listed) == 9 and sum("missing" in line for line in listed) == 7
        with pytest.raises(ValueError, match=r"1 of 3 shards .*run the command .* again"):
            open_septuplets(store)
        shutil.rmtree(bad)
        kept.rename(bad)
        write_septuplet(root / "sequences" / NAMES[4], frames_of(NAMES[4]))
        assert prepare(root, store, "--shard", 2) == 0
        assert open_septuplets(store).names == list(NAMES)
        assert not (store / "bad.txt").exists()

    def test_bad_septuplets_can_be_left_out(self, root, tmp_path, capsys):
        (root / "sequences" / NAMES[1] / "im7.png").unlink()
        write_septuplet(root / "sequences" / NAMES[3], frames_of(NAMES[3], (HEIGHT, WIDTH + 4)))
        assert prepare(root, tmp_path / "store", "--shard", 2, "--skip-bad") == 0
        printed = capsys.readouterr().out
        assert "3 septuplets packed" in printed and "2 of 5 septuplets are bad" in printed
        store = open_septuplets(tmp_path / "store")
        assert store.names == [NAMES[0], NAMES[2], NAMES[4]]
        assert_luma(store[1].hr, frames_of(NAMES[2]))
        assert prepare(root, tmp_path / "store", "--shard", 2, "--skip-bad") == 0  # remembers them
        assert "2 of 5 septuplets are bad" in capsys.readouterr().out

    def test_packing_that_was_killed_goes_on_to_the_same_store(self, root, tmp_path):
        straight, killed = tmp_path / "straight", tmp_path / "killed"
        prepare(root, straight, "--shard", 1)
        command = [sys.executable, SCRIPT, root, killed, "--shard", "1", "--workers", "1"]
        process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
        while not (killed / "index.json").exists() and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        (killed / "00004.hr.npy.part").write_bytes(b"half a shard")
        (killed / "00004.hr.npy").write_bytes(b"a shard that no index knows")
        written = {path: path.stat().st_mtime_ns for path in killed.glob("00000.*.npy")}
        assert prepare(root, killed, "--shard", 1) == 0
        assert all(path.stat().st_mtime_ns == time for path, time in written.items()) and written
        for path in straight.iterdir():
            assert path.read_bytes() == (killed / path.name).read_bytes(), path.name

    def test_files_that_were_cut_off_are_found_at_once_and_packed_again(self, root, tmp_path):
        store = tmp_path / "store"
        prepare(root, store, "--shard", 2)
        shard = store / "00001.lr.npy"
        whole = shard.read_bytes()
        shard.write_bytes(whole[:-1])
        with pytest.raises(ValueError, match="2 of 3 shards"):
            open_septuplets(store)
        assert prepare(root, store, "--shard", 2) == 0
        assert shard.read_bytes() == whole

    def test_verification_finds_a_changed_byte(self, root, tmp_path, capsys):
        store = tmp_path / "store"
        prepare(root, store, "--shard", 2)
        assert prepare("--verify", store) == 0
        assert "every checksum right" in capsys.readouterr().out
        shard = store / "00002.hr.npy"
        content = bytearray(shard.read_bytes())
        content[-9] ^= 1
        shard.write_bytes(content)
        assert prepare("--verify", store) == 1
        assert "00002.hr.npy: its contents differ" in capsys.readouterr().err

    def test_a_store_goes_on_only_with_its_own_settings(self, root, tmp_path, capsys):
        store = tmp_path / "store"
        prepare(root, store)
        assert prepare(root, store, "--degradation", "bd") == 1
        assert "other settings (degradation, low resolution)" in capsys.readouterr().err
        (root / "sep_trainlist.txt").write_text("\n".join(NAMES[:4]))
        assert prepare(root, store) == 1
        assert "other settings (clips, names_sha256)" in capsys.readouterr().err

    def test_a_store_of_another_degradation_or_list_is_not_trained_on(self, root, tmp_path):
        prepare(root, tmp_path / "bd", "--degradation", "bd")
        with pytest.raises(ValueError, match="packed with degradation 'bd', wanted is 'double'"):
            open_septuplets(tmp_path / "bd")
        assert len(open_septuplets(tmp_path / "bd", degradation="bd")) == 5
        prepare(root, tmp_path / "test", "--list", "sep_testlist.txt")
        with pytest.raises(ValueError, match="packed with list"):
            open_septuplets(tmp_path / "test")
        assert LumaStore(tmp_path / "test").names == ["00009/0001"]

    def test_an_index_of_something_else_is_refused(self, tmp_path):
        (tmp_path / "index.json").write_text(json.dumps({"format": "else"}))
        with pytest.raises(ValueError, match="not an index of format"):
            open_septuplets(tmp_path)

    def test_wrong_arguments_end_in_one_line(self, tmp_path, capsys):
        assert prepare(tmp_path / "nowhere", tmp_path / "store") == 1
        error = capsys.readouterr().err
        assert "nowhere" in error and "Traceback" not in error
        assert prepare("--verify", tmp_path / "store") == 1
        with pytest.raises(SystemExit):
            prepare(tmp_path / "store")
