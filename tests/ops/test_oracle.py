"""The oracle itself, checked against the definition of a derivative and plain convolution."""

import cases
import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F

SMALL = cases.Case(
    size=(2, 3, 3),
    channels=4,
    outputs=2,
    kernel=(2, 2, 1),
    groups=2,
    offset_groups=2,
    dims="THW",
    mask=True,
)


def test_with_zero_offsets_it_is_a_convolution():
    case = cases.CASES["asymmetric geometry"]
    t = cases.make(case)
    result = oracle.deform_conv3d(
        t.input.numpy(),
        np.zeros(t.offset.shape),
        t.weight.numpy(),
        t.bias.numpy(),
        None,
        *case.geometry,
    )
    wanted = F.conv3d(t.input, t.weight, t.bias, case.stride, case.padding, case.dilation)
    assert cases.relative_error(torch.from_numpy(result.output), wanted) < 1e-14


@pytest.mark.parametrize("name", ["input", "offset", "weight", "bias", "mask"])
def test_its_gradients_are_those_of_its_output(name):
    arrays = vars(cases.make(SMALL).map(lambda tensor: tensor.numpy().copy()))
    arrays = {key: value.copy() for key, value in arrays.items()}
    arrays["offset"] = np.where(
        arrays["offset"] == np.round(arrays["offset"]), 0.3, arrays["offset"]
    )  # differences across a kink are no derivative
    grad = arrays.pop("grad")

    def loss() -> float:
        found = oracle.deform_conv3d(
            arrays["input"],
            arrays["offset"],
            arrays["weight"],
            arrays["bias"],
            arrays["mask"],
            *SMALL.geometry,
        )
        return float((found.output * grad).sum())

    result = oracle.deform_conv3d(
        *(arrays[key] for key in ("input", "offset", "weight", "bias", "mask")),
        *SMALL.geometry,
        grad=grad,
    )
    analytic = getattr(result, f"grad_{name}").ravel()
    values = arrays[name].reshape(-1)
    for index in np.random.default_rng(1).choice(values.size, min(values.size, 12), replace=False):
        kept, step = values[index], 1e-6
        values[index] = kept + step
        above = loss()
        values[index] = kept - step
        below = loss()
        values[index] = kept
        assert (above - below) / (2 * step) == pytest.approx(analytic[index], abs=1e-6)


@pytest.mark.parametrize(
    ("position", "corners"),
    [
        ([0.0, -1.0, 0.0], {}),
        ([0.0, 3.0, 0.0], {}),
        ([0.0, -0.25, 0.0], {(0, 0, 0): 0.75, (0, 0, 1): 0.0, (1, 0, 0): 0.0, (1, 0, 1): 0.0}),
        ([1.0, 2.75, 4.0], {(1, 2, 4): 0.25}),
        ([0.0, 1.0, 2.5], {(0, 1, 2): 0.5, (0, 1, 3): 0.5}),
    ],
)
def test_its_cells_are_as_worked_out_by_hand(position, corners):
    found = {corner: weight for corner, weight, _ in oracle.cell(position, [2, 3, 5])}
    assert {c: w for c, w in found.items() if w} == {c: w for c, w in corners.items() if w}
    assert set(corners) <= set(found)
