"""Any network runs over the frames of a shot, and none is taken that would make another size."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from d3dnet import load_model, upscale_frames
from d3dnet.datasets.imresize import imresize
from d3dnet.errors import CheckpointError
from d3dnet.network.bicubic import Bicubic
from d3dnet.network.checkpoints import save_weights
from d3dnet.network.interface import Network, Plannable
from d3dnet.network.model import D3Dnet
from d3dnet.network.run import load_network, run_network
from tests.network.stand_in import BilinearNetwork, MeanNetwork, enlarge

SMALL = {"channels": 4, "resd3d_blocks": 1, "res_blocks": 0, "window": 3}


def test_bicubic_is_keys_cubic_about_the_edges_of_the_picture():
    # MATLAB's imresize of an enlargement is that, and shares no code with it.
    picture = np.random.default_rng(0).random((9, 11))
    found = upscale_frames(picture[None], model="bicubic")[0]
    inside = (slice(8, -8), slice(8, -8))  # MATLAB mirrors at the edges
    expected = np.clip(imresize(picture, 4), 0, 1)
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-5)
    clip = torch.rand(5, 1, 9, 8)
    results = [list(run_network(Bicubic(), clip, mode)) for mode in ("window", "sequence")]
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 11])
def test_window_mode_repeats_the_first_and_the_last_frame(count):
    clip = torch.rand(count, 1, 9, 8)
    found = list(run_network(MeanNetwork(), clip, "window"))
    assert len(found) == count
    for t, frame in enumerate(found):
        window = [clip[min(max(t + n, 0), count - 1)] for n in range(-3, 4)]
        expected = sum(weight * f for weight, f in zip(range(1, 8), window, strict=True)) / 28
        torch.testing.assert_close(frame, enlarge(expected[None])[0])


@pytest.mark.parametrize("mode", ["sequence", "window"])
def test_an_endless_video_is_read_no_further_than_the_network_looks(mode):
    read_frames = itertools.count()

    def endless():
        for n in read_frames:
            yield torch.full((1, 8, 8), n / 1000)

    results = run_network(BilinearNetwork(), endless(), mode)
    for n, frame in enumerate(itertools.islice(results, 50)):
        torch.testing.assert_close(frame, torch.full((1, 32, 32), n / 1000))
        assert next(read_frames) <= 50 + 2 * (n + 5)  # itself a step of the counter
        break
    assert next(read_frames) < 8


class Differences(BilinearNetwork):
    """A network that finds something between frames by itself, and has no windows."""

    window = None
    temporal_radius = 1

    def stream(self, frames, chunk=8):
        before = None
        for frame in frames:
            yield enlarge((frame - (frame if before is None else before))[None])[0]
            before = frame


def test_a_network_may_find_what_it_needs_from_the_luma_that_it_is_fed():
    clip = torch.rand(5, 1, 9, 8)
    found = torch.stack(list(run_network(Differences(), clip)))
    torch.testing.assert_close(found, enlarge(torch.cat([clip[:1] * 0, clip[1:] - clip[:-1]])))
    with pytest.raises(ValueError, match="mode: got 'window', which this network has none of"):
        next(run_network(Differences(), clip, "window"))


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (7, 8)])
@pytest.mark.parametrize("network", [D3Dnet(**SMALL), Bicubic(), BilinearNetwork()], ids=repr)
def test_frames_smaller_than_a_network_needs_come_out_in_their_own_size(network, size):
    frames = list(run_network(network, torch.rand(3, 1, *size)))
    assert [tuple(frame.shape) for frame in frames] == [(1, 4 * size[0], 4 * size[1])] * 3


def test_what_can_be_planned_is_known_by_what_it_has():
    assert isinstance(D3Dnet(**SMALL), Plannable)
    for network in (Bicubic(), BilinearNetwork()):
        assert isinstance(network, Network)
        assert not isinstance(network, Plannable)
    with pytest.raises(ValueError, match="model: got Linear; accepted are names, weights files"):
        load_network(nn.Linear(1, 1))


def test_weights_of_another_scale_are_refused_wherever_pictures_are_made_of_them(tmp_path):
    path = tmp_path / "twice.safetensors"
    save_weights(path, D3Dnet(scale=2, **SMALL).state_dict(), {})
    assert load_model(path, "cpu").scale == 2  # what they are can still be looked at
    match = r"twice.safetensors makes pictures 2 times larger; accepted are weights .* 4 times"
    with pytest.raises(CheckpointError, match=match):
        load_network(path, "cpu")
    with pytest.raises(CheckpointError, match=match):
        upscale_frames(np.zeros((2, 8, 8), np.uint8), model=path, device="cpu")
    with pytest.raises(CheckpointError, match="D3Dnet makes pictures 3 times larger"):
        load_network(D3Dnet(scale=3, **SMALL))
