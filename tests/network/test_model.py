"""The network: shape of the published one, and its three forms agree."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from d3dnet.network.model import D3D, D3Dnet
from d3dnet.ops import deform_conv3d
from d3dnet.training.learner import set_rigid


def with_offsets(model: D3Dnet, seed: int = 0) -> D3Dnet:
    """Random weights everywhere, offset convolutions included, small enough to stay in range."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "conv_offset" in name:
            parameter.data.normal_(std=0.05, generator=generator)
    return model.eval()


def published_forward(model: D3Dnet, x: Tensor) -> Tensor:
    """The published forward pass written out, one layer after the other, nothing merged."""
    p = model.state_dict()

    def d3d(x: Tensor, name: str) -> Tensor:
        offset = F.conv3d(
            x, p[f"{name}.conv_offset.weight"], p[f"{name}.conv_offset.bias"], padding=1
        )
        return deform_conv3d(
            x, offset, p[f"{name}.weight"], p[f"{name}.bias"], padding=1, dims="HW"
        )

    out = F.leaky_relu(F.conv3d(x, p["input.0.weight"], padding=1), 0.1)
    for i in range(5):
        name = f"residual_layer.{i}.dcn"
        out = out + d3d(F.leaky_relu(d3d(out, name + "0"), 0.1), name + "1")
    frame_major = torch.cat([out[:, :, t] for t in range(7)], 1)
    out = F.conv2d(frame_major, p["TA.weight"], p["TA.bias"])
    for i in range(6):
        name = f"reconstruct.{i}.dcn"
        mid = F.conv2d(out, p[f"{name}0.weight"], p[f"{name}0.bias"], padding=1)
        mid = F.leaky_relu(mid, 0.1)
        out = out + F.conv2d(mid, p[f"{name}1.weight"], p[f"{name}1.bias"], padding=1)
    out = F.pixel_shuffle(F.conv2d(out, p["upscale.0.weight"]), 4)
    out = F.conv2d(out, p["upscale.2.weight"], padding=1)
    out = F.conv2d(out, p["upscale.3.weight"], padding=1)
    return out + F.interpolate(x[:, :, 3], scale_factor=4, mode="bilinear", align_corners=False)


@pytest.fixture(scope="module")
def network() -> D3Dnet:
    torch.manual_seed(0)
    return with_offsets(D3Dnet())


def test_parameters_are_those_of_the_published_network(network):
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    expected = {"input.0.weight": (64, 1, 3, 3, 3)}
    for block in range(5):
        for layer in ("dcn0", "dcn1"):
            name = f"residual_layer.{block}.{layer}"
            expected[f"{name}.weight"] = (64, 64, 3, 3, 3)
            expected[f"{name}.bias"] = (64,)
            expected[f"{name}.conv_offset.weight"] = (54, 64, 3, 3, 3)
            expected[f"{name}.conv_offset.bias"] = (54,)
    expected["TA.weight"], expected["TA.bias"] = (64, 448, 1, 1), (64,)
    for block in range(6):
        for layer in ("dcn0", "dcn1"):
            name = f"reconstruct.{block}.{layer}"
            expected[f"{name}.weight"], expected[f"{name}.bias"] = (64, 64, 3, 3), (64,)
    expected["upscale.0.weight"] = (1024, 64, 1, 1)
    expected["upscale.2.weight"] = (1, 64, 3, 3)
    expected["upscale.3.weight"] = (1, 1, 3, 3)
    assert shapes == expected
    assert sum(value.numel() for value in network.parameters()) == 2_579_941


def test_model_of_a_window_is_the_published_forward_pass(network):
    x = torch.rand(2, 1, 7, 9, 12)
    with torch.no_grad():
        torch.testing.assert_close(network(x), published_forward(network, x), atol=1e-5, rtol=0)


def test_middle_frame_of_a_seven_frame_sequence_is_the_window_result(network):
    x = torch.rand(1, 1, 7, 13, 10)
    with torch.no_grad():
        middle = network.forward_sequence(x)[:, :, 3]
        assert (middle - network(x)).abs().max() < 1e-4


@pytest.mark.parametrize("rigid", [False, True])
def test_a_still_scene_is_the_middle_of_a_clip_of_its_copies(rigid):
    torch.manual_seed(0)
    model = with_offsets(D3Dnet(channels=8, resd3d_blocks=2, res_blocks=1))
    set_rigid(model, rigid)
    x = torch.rand(2, 1, 9, 10)
    copies = x.unsqueeze(2).expand(-1, -1, 2 * model.temporal_radius + 1, -1, -1)
    middle = model.forward_sequence(copies)[:, :, model.temporal_radius]
    torch.testing.assert_close(model.forward_still(x), middle, rtol=0, atol=1e-5)
    alone = model.forward_sequence(copies[:, :, :1])[:, :, 0]
    assert (alone - middle).abs().max() > 1e-2, "zeros around a clip would do as well"


def test_sequence_gives_the_same_with_and_without_gradients(network):
    x = torch.rand(2, 1, 3, 8, 8)
    trained = network.forward_sequence(x)
    with torch.no_grad():
        torch.testing.assert_close(trained, network.forward_sequence(x), atol=1e-5, rtol=0)


def test_offsets_start_at_zero_so_that_a_fresh_network_is_a_plain_convolution():
    torch.manual_seed(1)
    model = D3Dnet(channels=8, resd3d_blocks=1, res_blocks=1)
    x = torch.rand(1, 1, 7, 8, 8)
    with torch.no_grad():
        deformable = model(x)
        for layer in model.modules():
            if isinstance(layer, D3D):
                layer.rigid = True
        torch.testing.assert_close(model(x), deformable, atol=1e-5, rtol=0)
        with_offsets(model)
        torch.testing.assert_close(model(x), deformable, atol=1e-5, rtol=0)  # still held at zero


def test_offsets_receive_a_gradient_from_the_start():
    model = D3Dnet(channels=8, resd3d_blocks=1, res_blocks=1)
    model(torch.rand(1, 1, 7, 8, 8)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_merged_upscaling_equals_its_three_layers_borders_included(scale):
    torch.manual_seed(2)
    model = D3Dnet(scale=scale, channels=8, resd3d_blocks=0, res_blocks=0)
    features = torch.rand(1, 8, 5, 6)
    with torch.no_grad():
        detail = F.conv2d(features, model._subpixel_kernel(), padding=1)
        merged = model.upscale[3](F.pixel_shuffle(detail, scale))
        torch.testing.assert_close(merged, model.upscale(features), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_network_stays_close_to_float32_and_returns_float32(dtype):
    torch.manual_seed(3)
    model = with_offsets(D3Dnet(channels=16, resd3d_blocks=2, res_blocks=2))
    x = torch.rand(1, 1, 7, 8, 8)
    with torch.no_grad():
        expected = model(x)
        result = model.to(dtype)(x)
    assert result.dtype == torch.float32
    assert (result - expected).abs().max() < 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_round_the_luma(dtype):
    model = D3Dnet(channels=4)
    x = torch.rand(1, 1, 3, 8, 8)
    expected = model.shallow_features(x)
    with torch.autocast("cpu", dtype):
        assert torch.equal(model.shallow_features(x), expected)
        assert model.bottleneck(expected, 3).dtype == dtype


@pytest.mark.parametrize("shape", [(1, 7, 8, 8), (1, 3, 7, 8, 8), (1, 1, 5, 8, 8)])
def test_wrong_input_shapes_are_refused_with_the_shape_that_is_accepted(network, shape):
    with pytest.raises(ValueError, match=r"accepted is luma of shape \(B, 1, 7, h, w\)"):
        network(torch.rand(shape))


def test_even_windows_are_refused():
    with pytest.raises(ValueError, match="odd number"):
        D3Dnet(window=6)


def test_a_sequence_of_31_frames_of_180x144_fits_in_8_gb():
    # Offsets held at zero for speed; they add one (54, T, h, w) tensor at a time: 0.18 GB.
    program = (
        "import resource, torch\n"
        "from d3dnet.network.model import D3D, D3Dnet\n"
        "model = D3Dnet(resd3d_blocks=1, res_blocks=1).eval()\n"
        "for layer in model.modules():\n"
        "    if isinstance(layer, D3D): layer.rigid = True\n"
        "with torch.no_grad(): out = model.forward_sequence(torch.rand(1, 1, 31, 144, 180))\n"
        "assert out.shape == (1, 1, 31, 576, 720)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peak = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(peak.stdout) * 1024 < 8e9 - 0.2e9
