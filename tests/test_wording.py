"""Sizes, durations and times, as people write and read them."""

from fractions import Fraction

import pytest

from d3dnet.wording import parse_size, parse_time, show_duration

GIB = 2**30


@pytest.mark.parametrize(
    ("text", "size"),
    [("1000000", 1000000), ("6G", 6 * GIB), ("1.5GiB", 1.5 * GIB), ("800m", 800 * 2**20)],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1G", "0", "G", "nan", "inf"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="accepted are bytes, or a number with K, M, G or T"):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (99, "99 s"), (720, "12 min"), (12000, "3 h 20 min"), (352800, "4 d 2 h")],
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert show_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "time"),
    [("83.04", "83.04"), ("1:23.5", "83.5"), ("1:00:00", "3600"), ("-0:02.5", "-2.5")],
)
def test_times_are_read_exactly(text, time):
    assert parse_time(text) == Fraction(time)
