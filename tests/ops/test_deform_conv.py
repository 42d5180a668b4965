"""The module: it holds parameters as PyTorch's convolutions do, and nothing else."""

import torch

from d3dnet.ops import DeformConv3d, deform_conv3d


def test_it_starts_with_the_parameters_of_a_torch_convolution():
    settings = {"kernel_size": (1, 3, 2), "groups": 2}
    torch.manual_seed(5)
    ours = DeformConv3d(4, 6, **settings)
    torch.manual_seed(5)
    theirs = torch.nn.Conv3d(4, 6, **settings)
    assert list(ours.state_dict()) == ["weight", "bias"]
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)


def test_it_is_the_function_on_its_parameters():
    module = DeformConv3d(
        4, 6, 3, (1, 2, 1), (1, 0, 2), (1, 2, 1), groups=2, dims="TW", negative_slope=0.2
    )
    input, offset = torch.randn(1, 4, 3, 7, 4), torch.randn(1, 2 * 27 * 2, 3, 2, 6)
    mask = torch.rand(1, 2 * 27, 3, 2, 6)
    wanted = deform_conv3d(
        *(input, offset, module.weight, module.bias, (1, 2, 1), (1, 0, 2), (1, 2, 1), mask),
        *("TW", 0.2),
    )
    assert torch.equal(module(input, offset, mask), wanted)
    assert not torch.equal(module(input, offset), wanted)


def test_it_can_do_without_a_bias():
    module = DeformConv3d(2, 2, 1, bias=False, dtype=torch.float64, device="meta")
    assert module.bias is None
    assert [(n, p.dtype, p.device.type) for n, p in module.named_parameters()] == [
        ("weight", torch.float64, "meta")
    ]


def test_its_printed_form_names_its_settings():
    assert str(DeformConv3d(2, 4, (1, 3, 3), padding=1, bias=False, dims="HW")) == (
        "DeformConv3d(2, 4, kernel_size=(1, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1), "
        "dilation=(1, 1, 1), groups=1, bias=False, dims='HW', negative_slope=1.0)"
    )
