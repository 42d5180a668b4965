"""Plans fit into the memory they are given, and are stored and read again."""

import json
import types

import psutil
import pytest
import torch

from d3dnet.errors import NotEnoughMemoryError
from d3dnet.network import memory, plan
from d3dnet.network.bicubic import Bicubic
from d3dnet.network.memory import free_memory
from d3dnet.network.model import D3D, D3Dnet
from d3dnet.network.plan import Plan, cost, make_plan

GIB = 2**30


@pytest.fixture(scope="module")
def network() -> D3Dnet:
    with torch.device("meta"):
        model = D3Dnet()
    # Nothing is computed: only sizes count, and that the offsets are not all zero.
    for layer in model.modules():
        if isinstance(layer, D3D):
            layer.conv_offset = torch.nn.Conv3d(1, 1, 1)
    return model


@pytest.fixture
def free(monkeypatch):
    """Set the memory that is found free."""

    def set_free(size: float) -> None:
        monkeypatch.setattr(plan, "free_memory", lambda device: int(size))

    return set_free


def test_with_much_memory_the_frame_is_whole_and_eight_frames_are_computed_at_once(network, free):
    free(64 * GIB)
    found = make_plan(network, 180, 320)
    assert (found.tile, found.chunk, found.block) == (0, 8, 0)
    assert (found.precision, found.threads) == ("float32", torch.get_num_threads())
    assert found.reach == 10  # a pixel for each D3D layer


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (64, (8, 0, 0)),
        (24, (4, 0, 0)),
        (16, (1, 0, 0)),
        (12, (2, 320, 64)),
        (8, (2, 214, 32)),
    ],
)
def test_less_memory_gives_a_plan_that_fits_at_more_work(network, free, size, expected):
    free(size * GIB)
    found = make_plan(network, 720, 1280)
    needed = cost(network, found, 720, 1280)
    assert needed.device + needed.host < 0.8 * size * GIB
    assert (found.chunk, found.tile, found.block) == expected


def test_a_limit_replaces_what_is_free(network, free):
    free(64 * GIB)
    assert make_plan(network, 720, 1280, max_memory=14 * GIB).chunk < 8
    with pytest.raises(NotEnoughMemoryError, match=r"needs .* at least for 1280×720 frames; "):
        make_plan(network, 720, 1280, max_memory=GIB // 2)
    with pytest.raises(ValueError, match="max_memory: got 0"):
        make_plan(network, 720, 1280, max_memory=0)


def test_a_tile_that_is_asked_for_is_taken_and_one_as_large_as_the_frame_is_the_frame(
    network, free
):
    free(64 * GIB)
    assert make_plan(network, 180, 320, tile=96).tile == 96
    assert make_plan(network, 180, 320, tile=320).tile == 0
    assert make_plan(network, 180, 320, tile=0).tile == 0
    with pytest.raises(ValueError, match="tile: got -1"):
        make_plan(network, 180, 320, tile=-1)


def test_zero_offsets_reach_nowhere():
    model = D3Dnet(channels=4, resd3d_blocks=1, res_blocks=0)
    assert make_plan(model, 16, 16).reach == 0


def test_window_mode_is_planned_frame_by_frame(network, free):
    free(64 * GIB)
    assert make_plan(network, 180, 320, mode="window").chunk == 1


def test_networks_that_are_not_d3dnet_need_no_plan():
    assert make_plan(Bicubic(), 2160, 3840) == Plan(threads=torch.get_num_threads(), chunk=1)


def test_a_plan_survives_a_journal():
    made = Plan("bfloat16", "cuda", threads=3, chunk=4, tile=96, reach=17, block=32)
    assert Plan.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    "change", [{"chunk": 0}, {"threads": "two"}, {"tile": -1}, {"new": 1}, {"block": None}]
)
def test_a_damaged_plan_is_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Plan.from_dict({**Plan().to_dict(), **change})


@pytest.mark.parametrize(
    ("cgroup", "folder", "files"),
    [
        ("0::/box/inner\n", "box", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:memory:/box\n3:cpuset:/other\n",
            "memory/box",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
    ids=["version 2, limit on a parent", "version 1"],
)
def test_a_container_has_what_its_limit_leaves_file_cache_not_counted(
    tmp_path, monkeypatch, cgroup, folder, files
):
    group = tmp_path / folder
    group.mkdir(parents=True)
    limit, used, cache = files
    (group / limit).write_text("1000\n")
    (group / used).write_text("600\n")
    (group / "memory.stat").write_text(f"anon 350\n{cache} 250\n")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "own")
    (tmp_path / "own").write_text(cgroup)
    assert free_memory(torch.device("cpu")) == 650


def test_without_limits_the_machines_available_memory_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "nothing")
    machine = types.SimpleNamespace(available=123)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    assert free_memory(torch.device("cpu")) == 123
