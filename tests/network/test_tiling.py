"""Frames in tiles are the frames of the whole, whatever happens on the way."""

import itertools
import weakref

import pytest
import torch
from torch import Tensor

from d3dnet.network import streaming
from d3dnet.network.checkpoints import load_model
from d3dnet.network.model import D3D, D3Dnet
from d3dnet.network.offsets import measured_reach
from d3dnet.network.plan import Plan
from d3dnet.network.streaming import Stream
from d3dnet.network.tiling import run_tiled, tiles
from tests.network.test_model import with_offsets

CODE_VALUE = 1 / 255


@pytest.fixture(scope="module")
def network() -> D3Dnet:
    """A small network whose offsets are some pixels; it sees 7 pixels without them."""
    torch.manual_seed(0)
    model = with_offsets(D3Dnet(channels=8, resd3d_blocks=1, res_blocks=1, window=3))
    for layer in model.modules():
        if isinstance(layer, D3D):
            layer.conv_offset.weight.data *= 0.2
            layer.conv_offset.bias.data.uniform_(-1.2, 1.2)
    # Bring the details to the size of those of a trained network.
    model.upscale[3].weight.data *= 3
    return model


@pytest.fixture(scope="module")
def clip() -> Tensor:
    torch.manual_seed(1)
    return torch.rand(8, 1, 30, 40)


def whole(network, clip):
    with torch.no_grad():
        return network.forward_sequence(clip.transpose(0, 1)[None])[0].transpose(0, 1)


def tiled(network, clip, mode="sequence", **plan):
    plans = []
    frames = list(run_tiled(network, clip, Plan(**plan), mode, plans.append))
    return torch.stack(frames), plans


def worst(one, other):
    assert one.shape == other.shape
    return (one - other).abs().max().item()


@pytest.mark.parametrize(("chunk", "block"), [(1, 0), (3, 0), (8, 0), (1, 3), (8, 4), (3, 20)])
def test_tiles_with_kept_and_with_rebuilt_states_give_the_frames_of_the_whole(
    network, clip, chunk, block
):
    result, plans = tiled(network, clip, tile=20, reach=6, chunk=chunk, block=block)
    assert worst(result, whole(network, clip)) < 1e-5
    assert plans == []


def test_details_and_offsets_of_the_test_network_are_not_small(network, clip):
    with measured_reach(network) as reach:
        result = whole(network, clip)
    assert 3 <= reach() <= 6
    smooth = torch.nn.functional.interpolate(
        clip, scale_factor=4, mode="bilinear", align_corners=False
    )
    assert worst(result, smooth) > 20 * CODE_VALUE


def test_without_the_halo_the_seams_would_show(network, clip, monkeypatch):
    monkeypatch.setattr(D3Dnet, "spatial_radius", 0)
    result, _ = tiled(network, clip, tile=20, reach=0, block=4)
    assert worst(result[:, :, :4], whole(network, clip)[:, :, :4]) > CODE_VALUE


@pytest.mark.parametrize(("frames", "block"), [(1, 0), (2, 2), (3, 2)])
def test_short_clips_are_whole_too(network, clip, frames, block):
    result, _ = tiled(network, clip[:frames], tile=20, reach=6, block=block, chunk=2)
    assert worst(result, whole(network, clip[:frames])) < 1e-5


def test_window_mode_in_tiles_is_window_mode_on_the_whole(network, clip):
    result, _ = tiled(network, clip, "window", tile=20, reach=6, chunk=1)
    edges = torch.cat([clip[:1], clip, clip[-1:]])
    with torch.no_grad():
        expected = [network(edges[t : t + 3].transpose(0, 1)[None])[0] for t in range(len(clip))]
    assert worst(result, torch.stack(expected)) < 1e-5


def test_bfloat16_tiles_stay_within_a_code_value_and_a_hundredth_of_a_decibel(network, clip):
    low = D3Dnet(channels=8, resd3d_blocks=1, res_blocks=1, window=3)
    low.load_state_dict(network.state_dict())
    low = low.bfloat16().eval()
    untiled = whole(low, clip)
    result, _ = tiled(low, clip, tile=20, reach=6, block=4)
    assert worst(result, untiled) <= CODE_VALUE
    error = [((frames - whole(network, clip)) ** 2).mean().log10() for frames in (result, untiled)]
    assert abs(10 * (error[0] - error[1])) < 0.01


@pytest.mark.parametrize("block", [0, 4])
def test_offsets_beyond_the_halo_enlarge_it_and_the_same_frames_are_done_again(
    network, clip, block
):
    """The offsets become large in mid-stream: with the brightness, after frame 5."""
    torch.manual_seed(2)
    model = D3Dnet(channels=8, resd3d_blocks=1, res_blocks=1, window=3).eval()
    model.load_state_dict(network.state_dict())
    layer = model.residual_layer[0].dcn0
    layer.conv_offset.bias.data.zero_()
    layer.conv_offset.weight.data *= 30
    dark = clip.clone()
    dark[:5] *= 0.02
    with measured_reach(model) as reach:
        whole(model, dark[:3])
    begin = reach()
    result, plans = tiled(model, dark, tile=12, reach=begin, chunk=2, block=block)
    assert plans
    assert plans[-1].reach > begin
    assert worst(result, whole(model, dark)) < 1e-5


def test_every_new_plan_has_a_larger_halo_in_smaller_tiles():
    plan = Plan(tile=100, reach=10)
    assert plan.with_reach(20, 1000, 1000) == Plan(tile=70, reach=25)
    assert plan.with_reach(10**6, 300, 400) == Plan(tile=16, reach=400)


@pytest.mark.parametrize(("fails_at", "block"), [(1, 0), (6, 0), (6, 4)])
def test_a_full_gpu_halves_the_tile_and_the_same_frames_are_done_again(
    network, clip, monkeypatch, fails_at, block
):
    calls = []
    shallow_features = network.shallow_features

    def features(x, pad_t=1):
        calls.append(x.shape)
        if len(calls) == fails_at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return shallow_features(x, pad_t)

    expected = whole(network, clip)
    monkeypatch.setattr(network, "shallow_features", features)
    result, plans = tiled(network, clip, tile=32, reach=6, chunk=2, block=block)
    assert [plan.tile for plan in plans] == [16]
    assert worst(result, expected) < 1e-5


def test_after_a_change_of_plan_no_state_of_the_old_tiles_takes_memory(network, clip, monkeypatch):
    alive = weakref.WeakSet()

    class Watched(Stream):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            alive.add(self)

    shallow_features, calls = network.shallow_features, itertools.count(1)

    def features(x, pad_t=1):
        if next(calls) == 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return shallow_features(x, pad_t)

    monkeypatch.setattr(streaming, "Stream", Watched)
    monkeypatch.setattr(network, "shallow_features", features)
    plans = []
    for _ in run_tiled(network, clip, Plan(tile=32, reach=6, chunk=2), on_plan=plans.append):
        assert bool(alive) != bool(plans)  # then no state is kept from block to block
    assert plans


def test_memory_that_is_full_with_the_smallest_tile_is_an_error(network, clip, monkeypatch):
    def features(x, pad_t=1):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(network, "shallow_features", features)
    with pytest.raises(torch.OutOfMemoryError):
        tiled(network, clip)


@pytest.mark.parametrize(("height", "width", "tile", "halo"), [(40, 52, 16, 9), (7, 300, 64, 0)])
def test_tiles_cover_every_pixel_once_and_halos_stay_inside(height, width, tile, halo):
    count = torch.zeros(height, width, dtype=int)
    for part in tiles(height, width, tile, halo):
        count[slice(*part.rows), slice(*part.columns)] += 1
        for (begin, end), (outer, after), length in zip(
            part[:2], part[2:], (height, width), strict=True
        ):
            assert end - begin <= tile
            assert (outer, after) == (max(0, begin - halo), min(length, end + halo))
    assert (count == 1).all()


def test_the_halo_is_the_receptive_field_of_the_convolutions():
    torch.manual_seed(0)
    model = D3Dnet(channels=4, resd3d_blocks=2, res_blocks=2, window=3).eval()
    x = torch.rand(1, 1, 3, 41, 41, requires_grad=True)
    model(x)[0, 0, 80:84, 80:84].abs().sum().backward()
    rows, columns = x.grad[0, 0].abs().sum(0).nonzero().T
    assert model.spatial_radius == 10
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 30, 10, 30)
    assert D3Dnet().spatial_radius == 24


def test_reach_is_the_sum_of_the_largest_offsets_rounded_up():
    model = D3Dnet(channels=4, resd3d_blocks=1, res_blocks=0, window=3).eval()
    model.residual_layer[0].dcn0.conv_offset.bias.data[5] = -2.25
    model.residual_layer[0].dcn1.conv_offset.bias.data[7] = 1.0
    with measured_reach(model) as reach:
        whole(model, torch.rand(3, 1, 8, 8))
    assert reach() == 3 + 1
    assert all(layer.on_offset is None for layer in model.modules() if isinstance(layer, D3D))


def test_the_bundled_weights_in_tiles_are_those_weights_on_the_whole():
    torch.manual_seed(3)
    model = load_model("d3dnet", "cpu", "float32")
    clip = torch.rand(1, 1, 8, 64)
    result, _ = tiled(model, clip, tile=32)
    expected = whole(model, clip)
    assert worst(result, expected) <= CODE_VALUE
    error = ((result - expected) ** 2).mean()
    assert 10 * torch.log10(1 / error) > 60
