"""Names of files: what is an image or a video, and in which order they come."""

from pathlib import Path

import pytest

from d3dnet.video.names import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    looks_like_image,
    looks_like_video,
    natural_order,
)


def test_no_name_is_of_an_image_and_of_a_video():
    assert not set(IMAGE_SUFFIXES) & set(VIDEO_SUFFIXES)
    for suffix in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
        name = Path(f"a{suffix.upper()}")
        assert looks_like_image(name) != looks_like_video(name)


@pytest.mark.parametrize(
    "names",
    [
        ["im1.png", "im2.png", "im10.png"],
        ["im_000009.png", "im_10.png"],
        ["9.png", "10.png", "a.png"],
        ["shot1_im10.png", "shot2_im9.png"],
        ["a1.png", "A2.png", "a3.png"],
        ["m²1.png", "m²2.png"],  # a superscript is no number that can be counted with
    ],
)
def test_digits_in_names_count_as_numbers(names):
    assert sorted(reversed(names), key=lambda name: natural_order(Path(name))) == names
