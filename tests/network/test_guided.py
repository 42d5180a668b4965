"""Motion-guided D3D: the forms agree, and it is the deformable convolution that it claims to be."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from d3dnet.network.align import Way
from d3dnet.network.complexity import count_macs
from d3dnet.network.guided import GuidedD3D, GuidedD3Dnet
from d3dnet.network.motion import guided, with_motion
from d3dnet.network.offsets import deformable_layers, watched_offsets
from d3dnet.network.plan import Plan, make_plan
from d3dnet.network.tiling import run_tiled
from d3dnet.ops import deform_conv3d

NETWORKS = {
    "the first layer of a block guided": {"near": 3},
    "both layers guided, and a bottleneck": {"near": 6, "both": True, "joined": 5},
}


@pytest.fixture(params=NETWORKS, scope="module")
def network(request) -> GuidedD3Dnet:
    torch.manual_seed(0)
    model = GuidedD3Dnet(channels=6, resd3d_blocks=2, res_blocks=1, **NETWORKS[request.param])
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    return model.eval().requires_grad_(False)


def moving_clip(frames: int, height: int = 24, width: int = 28) -> Tensor:
    """A square that moves fast over a ground that drifts: (1, 1, T, h, w)."""
    torch.manual_seed(3)
    ground = F.interpolate(torch.rand(1, 1, 16, 24), scale_factor=4, mode="bicubic").clamp(0, 1)
    square = torch.rand(8, 8)
    clip = torch.stack([ground[0, 0, 2 : 2 + height, t : t + width] for t in range(frames)])
    for t in range(frames):
        x = (3 * t) % (width - 8)
        clip[t, 6:14, x : x + 8] = square
    return clip[None, None]


def random_ways(count: int, height: int, width: int, reach: float) -> Tensor:
    ways = (2 * torch.rand(count, 6, height, width) - 1) * reach
    ways[:, 2::3] = torch.rand(count, 2, height, width)
    return ways


def test_it_is_a_modulated_d3d_whose_tap_offsets_are_the_motion_at_their_own_places():
    torch.manual_seed(1)
    channels, height, width = 4, 9, 11
    layer = GuidedD3D(channels, channels)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    frames = torch.randn(1, channels, 3, height, width)
    ways = random_ways(1, height, width, 3.0)
    both = (Way(ways[:, :3]), Way(ways[:, 3:]))
    found = layer(frames[:, :, 1], frames[:, :, 0], frames[:, :, 2], both)

    own, before, after = layer.weight.split(channels, 1)
    weight = torch.stack([before, own, after], 2)
    still = torch.cat([torch.zeros(1, 2, height, width), torch.ones(1, 1, height, width)], 1)
    planes = torch.stack([ways[:, :3], still, ways[:, 3:]], 1)[0]  # t, (y, x, confidence), h, w
    # At tap k of the pixel p: the plane's value at p + k, and nothing outside.
    taps = F.unfold(planes, 3, padding=1).view(3, 3, 9, height, width)
    offset = taps[:, :2].transpose(1, 2).reshape(1, 54, 1, height, width)
    mask = taps[:, 2].reshape(1, 27, 1, height, width)
    wanted = deform_conv3d(
        frames, offset, weight, layer.bias, padding=(0, 1, 1), dims="HW", mask=mask
    )
    assert (found - wanted[:, :, 0]).abs().max() < 1e-4


@pytest.mark.parametrize("frames", [1, 2, 3, 9])
@pytest.mark.parametrize("chunk", [1, 4, 50])
def test_a_stream_equals_the_whole_sequence_whatever_the_chunk(network, frames, chunk):
    clip = moving_clip(frames)
    whole = network.forward_sequence(clip)[0].transpose(0, 1)
    streamed = torch.stack(list(network.stream(clip[0].transpose(0, 1), chunk=chunk)))
    assert streamed.shape == (frames, 1, 96, 112)
    assert (streamed - whole).abs().max() < 1e-5


def test_a_bfloat16_stream_stays_within_one_code_value_of_the_whole_sequence(network):
    clip = moving_clip(6)
    model = GuidedD3Dnet(
        channels=6,
        near=network.near,
        resd3d_blocks=2,
        both=network.both,
        res_blocks=1,
        joined=network.joined,
    )
    model.load_state_dict(network.state_dict())
    model = model.bfloat16().requires_grad_(False)
    whole = model.forward_sequence(clip)[0].transpose(0, 1)
    streamed = torch.stack(list(model.stream(clip[0].transpose(0, 1))))
    assert (streamed - whole).abs().max() < 1 / 255


def test_a_frame_depends_on_frames_within_the_temporal_radius_and_no_further(network):
    clip = with_motion(moving_clip(2 * network.temporal_radius + 3))
    middle = clip.shape[2] // 2
    before = network.forward_sequence(clip)[:, :, middle]
    for distance, changes in (
        (network.temporal_radius, True),
        (network.temporal_radius + 1, False),
    ):
        other = clip.clone()
        other[:, 0, middle + distance] += 0.5
        moved = (network.forward_sequence(other)[:, :, middle] - before).abs().max()
        assert (moved > 0) == changes


def test_motion_that_is_given_is_the_motion_that_is_found(network):
    clip = moving_clip(4)
    assert torch.equal(network.forward_sequence(clip), network.forward_sequence(with_motion(clip)))


def test_copies_of_a_frame_shown_as_still_are_one_picture_in_their_middle(network):
    clip = moving_clip(1).expand(-1, -1, 2 * network.temporal_radius + 3, -1, -1)
    found = network.forward_sequence(clip)
    middle = clip.shape[2] // 2
    assert (found[:, :, middle] - found[:, :, middle - 1]).abs().max() < 1e-5


def test_gradients_reach_every_weight():
    model = GuidedD3Dnet(channels=4, near=2, resd3d_blocks=1, both=True, res_blocks=1, joined=3)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    model.forward_sequence(moving_clip(5)).square().mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.abs().max() > 0, name


@pytest.mark.parametrize("shape", [(1, 3, 4, 8, 8), (1, 1, 8, 8), (1, 1, 0, 8, 8)])
def test_another_shape_is_refused(network, shape):
    with pytest.raises(ValueError, match=r"accepted are luma \(B, 1, T, h, w\)"):
        network.forward_sequence(torch.rand(shape))


@pytest.mark.parametrize("settings", [{"joined": 2}, {"near": 0}, {"near": 9, "channels": 8}])
def test_settings_that_make_no_network_are_refused(settings):
    with pytest.raises(ValueError, match="got"):
        GuidedD3Dnet(**settings)


def whole(network: GuidedD3Dnet, clip: Tensor) -> Tensor:
    return network.forward_sequence(clip)[0].transpose(0, 1)


@pytest.mark.parametrize(("chunk", "block"), [(1, 0), (8, 0), (2, 3), (3, 20)])
def test_tiles_of_a_clip_that_moves_give_the_frames_of_the_whole(network, chunk, block):
    clip = moving_clip(7, 30, 44)
    plan = Plan(tile=22, reach=0, chunk=chunk, block=block)
    changed = []
    frames = run_tiled(network, clip[0].transpose(0, 1), plan, "sequence", changed.append)
    assert (torch.stack(list(frames)) - whole(network, clip)).abs().max() < 1e-5
    assert changed and changed[-1].reach > 3  # what moves was seen to reach beyond the first halo


def test_without_the_halo_the_seams_would_show(network, monkeypatch):
    clip = moving_clip(5, 30, 44)
    monkeypatch.setattr(GuidedD3Dnet, "spatial_radius", 0)
    monkeypatch.setattr("d3dnet.network.offsets.FAR", 0)  # nothing is seen to reach anywhere
    plan = Plan(tile=22, reach=0)
    frames = torch.stack(list(run_tiled(network, clip[0].transpose(0, 1), plan)))
    assert (frames - whole(network, clip)).abs().max() > 1 / 255


def test_window_mode_makes_each_frame_of_the_frames_around_it(network):
    clip = with_motion(moving_clip(9))
    feed = network.begin("window")
    found = [*feed.feed(clip[:, :, :4]), *feed.feed(clip[:, :, 4:]), *feed.finish()]
    for index in (0, 1, 4, 8):
        begin, end = max(0, index - 3), min(9, index + 4)
        wanted = network.forward_sequence(clip[:, :, begin:end])[0, :, index - begin]
        assert (found[index] - wanted).abs().max() < 1e-5
    middle = network(clip[:, :, 1:8])
    assert (found[4] - middle[0]).abs().max() < 1e-5


@pytest.mark.parametrize("mode", ["sequence", "window"])
def test_a_shot_taken_up_in_its_middle_gives_the_same_bits(network, mode):
    clip = list(guided(moving_clip(30)[0].transpose(0, 1)))

    def run(frames, skip):
        feed = network.begin(mode, skip)
        return [*feed.feed(torch.stack(frames, 1)[None]), *feed.finish()]

    radius = network.begin(mode).radius
    first = 4
    later = run(clip[first:], radius)
    assert all(map(torch.equal, later, run(clip, 0)[first + radius :]))


def test_it_is_planned_within_what_it_takes(network):
    small, large = (network.footprint("sequence", chunk) for chunk in (1, 8))
    assert small.state == large.state and small.work < large.work
    assert small.radius == network.temporal_radius
    plan = make_plan(network, 90, 120)
    assert plan.tile == 0 and plan.reach > 0


def test_its_multiplications_are_counted_without_looking_for_motion():
    model = GuidedD3Dnet()
    pixels = 180 * 320
    block = 48 * 96 * 9 + 48 * 48 * 9
    wanted = pixels * (3 * 48 * 9 + 5 * block + 2 * 2 * 48 * 48 * 9 + 48 * 16 * 9)
    assert count_macs(model, mode="sequence") == wanted


def test_layers_that_follow_motion_tell_what_they_follow(network):
    seen = {}
    with watched_offsets(network, lambda name, offset: seen.setdefault(name, offset)):
        network.forward_sequence(with_motion(moving_clip(3)))
    assert set(seen) == set(deformable_layers(network))
    assert all(offset.shape[1] == 2 and offset.abs().max() > 1 for offset in seen.values())


def test_compiled_it_gives_the_same_frames(network):
    clip = with_motion(moving_clip(4))
    compiled = torch.compile(network.forward_sequence, backend="aot_eager")
    assert (compiled(clip) - network.forward_sequence(clip)).abs().max() < 1e-5
