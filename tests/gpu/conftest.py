"""Tests that need a CUDA GPU: everything in this folder is skipped without one.

An illegal access ends all use of the GPU in its process. Under pytest-xdist (-n 4) the worker that
meets one exits: the test is named as the one it crashed in, and another worker goes on.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))  # cases, oracle


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is in this folder, before any fixture runs, where there is no GPU."""
    if torch.cuda.is_available():
        return
    has = "no CUDA" if torch.version.cuda is None else "CUDA but finds no device"
    reason = f"needs a CUDA GPU: this torch ({torch.__version__}) has {has}"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def gpu() -> torch.device:
    """The GPU in use."""
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(autouse=True)
def exact_float32(gpu: torch.device) -> Iterator[None]:
    """tf32 only where a test asks for it."""
    settings = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [setting.allow_tf32 for setting in settings]
    for setting in settings:
        setting.allow_tf32 = False
    yield
    for setting, value in zip(settings, before, strict=True):
        setting.allow_tf32 = value


@pytest.fixture(autouse=True)
def usable_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    """Exit a worker whose GPU cannot be used any more."""
    yield
    if not torch.cuda.is_available() or "PYTEST_XDIST_WORKER" not in os.environ:
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        print(f"{request.node.nodeid}: {error}", file=sys.__stderr__, flush=True)
        os._exit(70)


@pytest.fixture(params=["compiled", "nvrtc"])
def kernels(request: pytest.FixtureRequest, gpu: torch.device, monkeypatch) -> str:
    """Where the kernels come from; the operator uses them while the test runs."""
    from d3dnet.ops import cuda

    name = request.param
    asked = os.environ.get(cuda.KERNELS_VARIABLE) or name
    if asked != name:
        pytest.skip(f"{cuda.KERNELS_VARIABLE} asks for other kernels")
    load = {"compiled": cuda._load_library, "nvrtc": cuda.nvrtc.load}[name]
    try:
        found = cuda.Kernels(name, load(torch.cuda.current_device()), None)
    except OSError as error:
        if cuda.KERNELS_VARIABLE in os.environ:
            pytest.fail(f"{cuda.KERNELS_VARIABLE} asks for the {name} kernels: {error}")
        pytest.skip(f"the {name} kernels cannot be had: {error}")
    monkeypatch.setattr(cuda, "kernels", lambda device: found)
    return name
