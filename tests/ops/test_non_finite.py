"""NaN and infinity: they reach what reads them and nothing else."""

import dataclasses
import itertools

import cases
import pytest
import torch

BAD = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("dtype", cases.TOLERANCE, ids=str)
@pytest.mark.parametrize("channels", [3, 32])
@pytest.mark.parametrize("dims", ["HW", "THW"])
def test_a_pixel_that_is_no_corner_reaches_nothing(implementation, value, dtype, channels, dims):
    """Every sample falls between the first two rows and columns, or far outside the clip."""
    case = cases.Case(
        size=(3, 6, 6), channels=channels, outputs=channels, dims=dims, padding=(1, 1, 1), mask=True
    )
    tensors = cases.make(case, coarse=True, coarse_offset=True).to(dtype)
    grid = {"T": 3, "H": 6, "W": 6}
    shape = (1, 27, len(dims), *grid.values())
    offset = torch.zeros(shape)
    for tap, at in itertools.product(range(27), itertools.product(*map(range, grid.values()))):
        regular = [at[0] - 1 + tap // 9, at[1] - 1 + tap // 3 % 3, at[2] - 1 + tap % 3]
        target = [0.5, 0.5, 0.5] if (tap + sum(at)) % 3 else [0.5, -20.0, 40.0]
        for n, name in enumerate(dims):
            axis = "THW".index(name)
            offset[(0, tap, n, *at)] = target[axis] - regular[axis]
    tensors = dataclasses.replace(tensors, offset=offset.flatten(1, 2).to(dtype))
    clean = cases.compute(implementation, case, tensors)
    tensors.input[..., 2:, :] = value
    tensors.input[..., 2:] = value
    found = cases.compute(implementation, case, tensors)
    for name, wanted in clean.items():
        assert torch.isfinite(wanted).all()
        assert torch.equal(found[name], wanted), name


@pytest.mark.parametrize("channels", [3, 32])
def test_a_neighbour_that_a_whole_position_gives_no_weight_does_not_reach_the_output(
    implementation, channels
):
    """With stride 2, one tap and zero offsets only even pixels are read."""
    case = cases.Case(
        size=(2, 4, 4),
        channels=channels,
        outputs=channels,
        kernel=(1, 1, 1),
        padding=(0, 0, 0),
        stride=(1, 2, 2),
    )
    tensors = cases.make(case).to(torch.float32)
    tensors = dataclasses.replace(tensors, offset=torch.zeros_like(tensors.offset))
    clean = cases.compute(implementation, case, tensors)["output"]
    tensors.input[..., 1::2, :] = float("nan")
    tensors.input[..., 1::2] = float("nan")
    assert torch.equal(cases.compute(implementation, case, tensors)["output"], clean)


def test_a_pixel_that_is_read_reaches_the_output(implementation):
    case = cases.Case(mask=False)
    tensors = cases.make(case).to(torch.float32)
    tensors = dataclasses.replace(tensors, offset=torch.full_like(tensors.offset, 0.5))
    tensors.input[0, 0, 1, 2, 2] = float("nan")
    assert cases.compute(implementation, case, tensors)["output"].isnan().any()


@pytest.mark.parametrize("value", [*BAD, 1e30, -1e30, 3e9, -3e9])
@pytest.mark.parametrize("channels", [3, 32])
def test_a_sample_at_an_offset_that_is_nowhere_is_zero(implementation, value, channels):
    case = cases.Case(channels=channels, outputs=channels, dims="THW", mask=True)
    tensors = cases.make(case).to(torch.float32)
    far = tensors.offset.clone()
    tensors.offset[:, ::2] = value
    far[:, ::2] = 1000.0
    found = cases.compute(implementation, case, tensors)
    wanted = cases.compute(implementation, case, dataclasses.replace(tensors, offset=far))
    for name in wanted:
        assert torch.equal(found[name], wanted[name]), name
