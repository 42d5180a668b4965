"""Stores of packed clips: what is wrong with one is named (see test_vimeo90k.py for the rest)."""

import numpy as np
import pytest

from d3dnet.datasets.clips import clip_from_rgb
from d3dnet.datasets.luma_store import LumaStore, pack, verify


class GreyClips:
    names = ("dark", "light")

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return clip_from_rgb(self.names[index], np.full((3, 8, 8, 3), 100 * index, np.uint8))


@pytest.fixture
def store(tmp_path):
    pack(GreyClips(), tmp_path, {"degradation": "double"}, shard_clips=1)
    return tmp_path


def test_a_whole_store_has_nothing_wrong(store):
    assert verify(store) == []
    assert [clip.name for clip in LumaStore(store)] == ["dark", "light"]


def test_files_that_are_missing_short_or_changed_are_named(store):
    (store / "00000.lr.npy").unlink()
    (store / "00000.hr.npy").write_bytes(b"short")
    changed = bytearray((store / "00001.hr.npy").read_bytes())
    changed[-1] ^= 1
    (store / "00001.hr.npy").write_bytes(changed)
    short, missing, different = sorted(verify(store))
    assert "00000.hr.npy: 5 bytes instead of" in short
    assert missing.endswith("00000.lr.npy: missing")
    assert different.endswith("00001.hr.npy: its contents differ from its checksum")


def test_where_there_is_no_store_both_say_what_to_give(tmp_path):
    for open_or_verify in (LumaStore, verify):
        with pytest.raises(FileNotFoundError, match="give the folder of a packed set"):
            open_or_verify(tmp_path)
