"""`imresize` and BD on tensors: the numpy ones, to the last bit."""

import numpy as np
import pytest
import torch

from d3dnet.datasets import imresize as arrays
from d3dnet.datasets import imresize_torch as tensors


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Half noise, half a flat pattern of few values, in which ties are common."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[:, width // 2 :] = rng.integers(0, 2, (height, 1, 3)) * 128 + 1
    return image


def channels_first(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).movedim(-1, 0)


@pytest.mark.parametrize("recipe", ["double", "uint8"])
@pytest.mark.parametrize("scale", [1 / 4, 4, 1 / 2, 3])
@pytest.mark.parametrize("size", [(64, 96), (4, 4), (3, 5), (30, 41)])
def test_8_bit_images_come_out_as_from_numpy(size, scale, recipe):
    image = picture(*size)
    resized = tensors.imresize(channels_first(image), scale, recipe)
    expected = channels_first(arrays.imresize(image, scale, recipe))
    assert resized.dtype == torch.uint8 and torch.equal(resized, expected)


@pytest.mark.parametrize("scale", [1 / 4, 4, 1.7])
def test_floating_point_images_come_out_as_from_numpy_to_the_last_bit(scale):
    image = picture(29, 36) / 255
    resized = tensors.imresize(channels_first(image), scale)
    assert torch.equal(resized, channels_first(arrays.imresize(image, scale)))


@pytest.mark.parametrize("degradation", ["double", "uint8", "bd"])
def test_a_batch_is_degraded_image_by_image(degradation):
    images = np.stack([picture(34, 45, seed) for seed in range(4)])
    batch = torch.from_numpy(images).movedim(-1, 1).reshape(2, 2, 3, 34, 45)
    low = tensors.degrade(batch, degradation)
    assert low.shape == (2, 2, 3, 8, 11)
    for image, result in zip(images, low.flatten(0, 1), strict=True):
        assert torch.equal(result, channels_first(arrays.degrade(image, degradation)))


def test_the_input_is_left_as_it_was():
    image = torch.rand(8, 8, dtype=torch.float64)
    before = image.clone()
    tensors.imresize(image, 0.25)
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((torch.zeros(4), 0.25), "images"),
        ((torch.zeros(4, 4, dtype=torch.int32), 0.25), "int32"),
        ((torch.zeros(4, 4), 0), "scale"),
        ((torch.zeros(4, 4), 0.25, "matlab"), "recipe"),
    ],
)
def test_wrong_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        tensors.imresize(*arguments)
    with pytest.raises(ValueError, match="degradation"):
        tensors.degrade(torch.zeros(4, 4), "bicubic")
