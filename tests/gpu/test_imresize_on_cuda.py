"""`imresize` and BD on a GPU: the numpy ones, to the last bit."""

import numpy as np
import pytest
import torch

from d3dnet.datasets import imresize as arrays
from d3dnet.datasets import imresize_torch as tensors
from tests.datasets.test_imresize_torch import channels_first, picture


@pytest.mark.parametrize("degradation", ["double", "uint8", "bd"])
def test_degraded_images_are_those_of_the_cpu(gpu, degradation):
    images = [picture(256, 448, seed) for seed in range(7)]
    low = tensors.degrade(torch.stack([channels_first(i) for i in images]).to(gpu), degradation)
    assert low.device.type == "cuda"
    for image, result in zip(images, low.cpu(), strict=True):
        assert torch.equal(result, channels_first(arrays.degrade(image, degradation)))


@pytest.mark.parametrize("recipe", ["double", "uint8"])
def test_enlarged_images_are_those_of_the_cpu(gpu, recipe):
    image = picture(64, 112)
    result = tensors.imresize(channels_first(image).to(gpu), 4, recipe)
    assert torch.equal(result.cpu(), channels_first(arrays.imresize(image, 4, recipe)))
    floating = tensors.imresize(channels_first(image).to(gpu) / 255.0, 4)
    expected = arrays.imresize(np.asarray((channels_first(image) / 255.0).movedim(0, -1)), 4)
    assert torch.allclose(floating.cpu(), channels_first(expected), rtol=0, atol=1e-6)
