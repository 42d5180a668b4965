"""Several processes: the same samples, the same losses, one that writes."""

import itertools
import json
import socket

import pytest
import torch

from d3dnet.training import train
from d3dnet.training.processes import Processes
from d3dnet.training.samples import StepBatches, load_batches, open_samples

CPU = torch.device("cpu")


def test_processes_and_workers_share_samples_without_duplicates_or_gaps():
    def numbers(first_step, count):
        batches = [iter(StepBatches(first_step, 6, Processes(r, count, CPU))) for r in range(count)]
        return [[next(batch) for batch in batches] for _ in range(4)]

    for count in (1, 2, 3, 6):
        for step, shares in enumerate(numbers(5, count), start=5):
            assert {len(share) for share in shares} == {6 // count}
            assert sorted(itertools.chain(*shares)) == list(range(6 * step, 6 * step + 6))
    with pytest.raises(ValueError, match="batch: got 6; accepted is a multiple of the 4 processes"):
        StepBatches(0, 6, Processes(0, 4, CPU))


def test_loader_workers_give_the_samples_in_order(tiny):
    samples, _ = open_samples(tiny(), Processes(0, 1, CPU))
    alone, shared = (
        load_batches(samples, tiny(workers=workers), 7, Processes(0, 1, CPU)) for workers in (0, 2)
    )
    for step in range(7, 13):
        expected = [samples[2 * step], samples[2 * step + 1]]
        for lr, hr in (next(alone), next(shared)):
            assert torch.equal(lr, torch.stack([pair[0] for pair in expected]))
            assert torch.equal(hr, torch.stack([pair[1] for pair in expected]))
    shared.close()


def test_two_processes_give_the_losses_of_one(tiny, start, tmp_path):
    """torchrun over gloo at the same global batch; offsets are released on the way."""
    options = {"steps": 12, "rigid_steps": 4, "batch": 4, "validate_every": 6, "ema": 0.9}
    one, two = tiny(run="one", **options), tiny(run="two", workers=1, **options)
    (tmp_path / "two.toml").write_text(two.toml())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    process = start(*run, "-m", "d3dnet", "train", tmp_path / "two.toml")
    train(one)
    printed, complaints = process.communicate(timeout=300)
    assert process.returncode == 0, complaints
    assert printed.splitlines()[-1:] == [f"{two.run}/last.pt"]  # of rank 0 alone
    one_log, two_log = (
        [json.loads(line) for line in open(f"{config.run}/log.jsonl")] for config in (one, two)
    )
    assert [line["step"] for line in two_log] == list(range(1, 13))
    for a, b in zip(one_log, two_log, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"patches_per_second"}:
            assert a[name] == pytest.approx(b[name], rel=1e-5), (a["step"], name)
    state = torch.load(f"{two.run}/last.pt", weights_only=True)
    assert len(state["random"]) == 2
    resumed = tiny(run="two", **(options | {"steps": 13}))
    train(resumed)  # with another number of processes
    assert torch.load(f"{two.run}/last.pt", weights_only=True)["step"] == 13
