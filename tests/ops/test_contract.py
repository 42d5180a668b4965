"""Every wrong argument is refused by name, with what was found and what is accepted."""

import pytest
import torch

from d3dnet.ops import DeformConv3d, deform_conv3d

INPUT = torch.zeros(2, 4, 3, 6, 5)
OFFSET = torch.zeros(2, 2 * 27 * 2, 3, 6, 5)
WEIGHT = torch.zeros(6, 2, 3, 3, 3)
MASK = torch.zeros(2, 2 * 27, 3, 6, 5)
ACCEPTED = {
    "input": INPUT,
    "offset": OFFSET,
    "weight": WEIGHT,
    "bias": torch.zeros(6),
    "padding": 1,
    "mask": MASK,
    "dims": "HW",
}


def refused(**changed) -> str:
    with pytest.raises(ValueError) as error:
        deform_conv3d(**{**ACCEPTED, **changed})
    return str(error.value)


def test_the_arguments_these_tests_change_are_accepted():
    assert deform_conv3d(**ACCEPTED).shape == (2, 6, 3, 6, 5)


@pytest.mark.parametrize(
    ("name", "wrong", "found", "accepted"),
    [
        ("input", torch.zeros(4, 3, 6, 5), "(4, 3, 6, 5)", "(B, C, T, H, W)"),
        ("input", torch.zeros(2, 4, 3, 0, 5), "(2, 4, 3, 0, 5)", "none of C, T, H, W being 0"),
        ("input", [1.0], "list", "a torch.Tensor"),
        ("weight", torch.zeros(6, 2, 3, 3), "(6, 2, 3, 3)", "(O, C/groups, kt, kh, kw)"),
        ("weight", torch.zeros(6, 3, 3, 3, 3), "(6, 3, 3, 3, 3)", "C = 4 from input"),
        ("weight", torch.zeros(5, 2, 3, 3, 3), "(5, 2, 3, 3, 3)", "a multiple of groups = 2"),
        ("weight", torch.zeros(0, 2, 3, 3, 3), "(0, 2, 3, 3, 3)", "none of them being 0"),
        ("weight", None, "NoneType", "a torch.Tensor"),
        ("bias", torch.zeros(5), "(5,)", "O = 6 from weight"),
        ("bias", torch.zeros(6, 1), "(6, 1)", "(O,)"),
        ("offset", torch.zeros(2, 107, 3, 6, 5), "(2, 107, 3, 6, 5)", "K = 27 taps, D = 2"),
        ("offset", torch.zeros(2, 162, 3, 6, 5), "(2, 162, 3, 6, 5)", "G a divisor of C = 4"),
        ("offset", torch.zeros(2, 0, 3, 6, 5), "(2, 0, 3, 6, 5)", "G a divisor of C = 4"),
        ("offset", torch.zeros(1, 108, 3, 6, 5), "(1, 108, 3, 6, 5)", "B = 2"),
        ("offset", torch.zeros(2, 108, 3, 6, 4), "(2, 108, 3, 6, 4)", "(To, Ho, Wo) = (3, 6, 5)"),
        ("offset", torch.zeros(2, 108, 3, 30), "(2, 108, 3, 30)", "(B, G·K·D, To, Ho, Wo)"),
        ("mask", torch.zeros(2, 27, 3, 6, 5), "(2, 27, 3, 6, 5)", "G = 2 offset groups"),
        ("mask", torch.zeros(2, 54, 3, 5, 5), "(2, 54, 3, 5, 5)", "(To, Ho, Wo) = (3, 6, 5)"),
        ("dims", "WH", "'WH'", "'HW'"),
        ("dims", "", "''", "'THW'"),
        ("dims", "hw", "'hw'", "'HW'"),
        ("dims", "HH", "'HH'", "'HW'"),
        ("dims", None, "None", "'HW'"),
        ("stride", 0, "0", "each ≥ 1"),
        ("stride", (1, 1), "(1, 1)", "three ints (t, h, w)"),
        ("stride", "111", "'111'", "three ints (t, h, w)"),
        ("stride", 1.5, "1.5", "an int"),
        ("padding", -1, "-1", "each ≥ 0"),
        ("padding", (1, 1, -2), "(1, 1, -2)", "each ≥ 0"),
        ("dilation", (1, 0, 1), "(1, 0, 1)", "each ≥ 1"),
        ("dilation", None, "None", "an int"),
        ("negative_slope", 0, "0", "a finite number above 0"),
        ("negative_slope", -0.1, "-0.1", "a finite number above 0"),
        ("negative_slope", float("inf"), "inf", "a finite number above 0"),
        ("negative_slope", float("nan"), "nan", "a finite number above 0"),
        ("negative_slope", None, "None", "1 for no activation"),
    ],
)
def test_a_wrong_shape_or_setting_is_refused(name, wrong, found, accepted):
    message = refused(**{name: wrong})
    assert message.startswith(f"{name} ")
    assert found in message.split("; accepted: ")[0]
    assert accepted in message.split("; accepted: ")[1]


@pytest.mark.parametrize(
    ("setting", "size"),
    [
        ({"padding": 0, "dilation": (2, 1, 1)}, "(-1, 4, 3)"),
        ({"padding": 0, "dilation": (1, 1, 3)}, "(1, 4, -1)"),
        ({"padding": (0, 1, 1), "weight": torch.zeros(6, 2, 5, 3, 3)}, "(-1, 6, 5)"),
    ],
)
def test_an_empty_output_is_refused(setting, size):
    message = refused(**setting)
    assert message.startswith("input ") and f"makes the output {size}" in message


@pytest.mark.parametrize("name", ["offset", "weight", "bias", "mask"])
def test_another_dtype_than_that_of_the_input_is_refused(name):
    message = refused(**{name: ACCEPTED[name].double()})
    assert message == f"{name} is torch.float64; accepted: the dtype of input, torch.float32"


def test_an_offset_narrower_than_the_features_is_refused():
    message = refused(offset=OFFSET.half())
    assert message == "offset is torch.float16; accepted: the dtype of input, torch.float32"


def test_an_offset_in_the_other_16_bit_format_is_refused():
    low = {name: ACCEPTED[name].bfloat16() for name in ("input", "weight", "bias", "mask")}
    message = refused(**low, offset=OFFSET.half())
    assert message.endswith("the dtype of input, torch.bfloat16, or torch.float32")


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.float8_e5m2], ids=str)
def test_a_dtype_that_is_none_of_the_four_is_refused(dtype):
    message = refused(input=INPUT.to(dtype))
    assert message.startswith(f"input is {dtype}; accepted: torch.float32, torch.float64")


def test_float64_beside_float32_is_refused_under_autocast_too():
    with torch.autocast("cpu", torch.bfloat16):
        assert refused(weight=WEIGHT.double()).startswith("weight is torch.float64")


@pytest.mark.parametrize("name", ["offset", "weight", "bias", "mask"])
def test_another_device_than_that_of_the_input_is_refused(name):
    message = refused(**{name: ACCEPTED[name].to("meta")})
    assert message == f"{name} is on meta; accepted: the device of input, cpu"


@pytest.mark.parametrize("triple", [(1, 2, 3), [1, 2, 3], torch.Size([1, 2, 3])])
def test_triples_are_in_the_order_of_time_rows_columns(triple):
    input, weight = torch.zeros(1, 1, 9, 9, 9), torch.zeros(1, 1, 2, 2, 2)
    offset = torch.zeros(1, 8, 10, 6, 4)
    found = deform_conv3d(input, offset, weight, stride=triple, padding=(1, 2, 2), dims="W")
    assert found.shape == (1, 1, 10, 6, 4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"groups": 3}, "in_channels is 4 and groups is 3"),
        ({"groups": 0}, "in_channels is 4 and groups is 0"),
        ({"groups": 4}, "out_channels is 6 and groups is 4"),
        ({"kernel_size": (3, 3)}, r"kernel_size is \(3, 3\)"),
        ({"kernel_size": 0}, "kernel_size is 0"),
        ({"dims": "XY"}, "dims is 'XY'"),
        ({"stride": -1}, "stride is -1"),
        ({"negative_slope": 0.0}, "negative_slope is 0.0"),
    ],
)
def test_the_module_refuses_wrong_settings_when_it_is_made(setting, message):
    with pytest.raises(ValueError, match=message):
        DeformConv3d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **setting})
