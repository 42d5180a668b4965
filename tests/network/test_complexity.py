"""Multiply-accumulates against sums over layers, and against the published figures."""

import pytest

from d3dnet.network.complexity import count_macs, measure
from d3dnet.network.model import D3Dnet

LOW = 320 * 180  # pixels of a low-resolution frame
WINDOW = 7


def layers(frames: int) -> dict[str, int]:
    """What D3Dnet's layers take, in words: taps x channels in x channels out x pixels."""
    video = frames * LOW
    return {
        "input": 27 * 64 * video,
        "offsets": 10 * 27 * 64 * 54 * video,
        "deformable": 10 * 27 * 64 * 64 * video,
        "bottleneck": WINDOW * 64 * 64 * LOW,
        "residual": 12 * 9 * 64 * 64 * LOW,
        "subpixel": 9 * 64 * 16 * LOW,  # three layers in one
        "last": 9 * 16 * LOW,
    }


@pytest.fixture(scope="module")
def network() -> D3Dnet:
    return D3Dnet()


def test_a_window_is_the_sum_over_the_layers(network):
    expected = layers(WINDOW)
    counted = count_macs(network, 720, 1280, "window")
    # Making the one kernel of three layers takes some multiplications, whatever the size.
    assert 0 <= counted - sum(expected.values()) < 1e-4 * counted


def test_the_published_figures_come_out(network):
    parts = layers(WINDOW)
    assert parts["offsets"] == pytest.approx(376e9, rel=2e-3)
    complexity = measure(network, "window")
    # As published, the end of the network is three layers: 1x1 to 1024 channels, and 3x3 to one.
    apart = 64 * 1024 * LOW + 9 * 64 * 16 * LOW
    published = complexity.macs - parts["subpixel"] + apart
    assert published == pytest.approx(855e9, rel=2e-3)
    assert published - parts["deformable"] == pytest.approx(408.8e9, rel=2e-3)
    assert complexity.parameters == pytest.approx(2.58e6, rel=1e-3)
    assert (complexity.width, complexity.height) == (1280, 720)


def test_a_sequence_computes_the_features_of_a_frame_once(network):
    counted = count_macs(network, 720, 1280, "sequence")
    assert counted == pytest.approx(sum(layers(1).values()), rel=1e-4)


def test_it_grows_with_the_size_and_with_the_channels():
    small, large = (D3Dnet(channels=c, resd3d_blocks=1, res_blocks=1) for c in (8, 16))
    at = count_macs(small, 64, 64)
    assert count_macs(small, 128, 64) == pytest.approx(2 * at, rel=0.05)
    assert 2 < count_macs(large, 64, 64) / at < 4


def test_the_network_itself_is_left_alone(network):
    before = next(network.parameters())
    count_macs(network, 64, 64)
    assert next(network.parameters()) is before and before.device.type == "cpu"


def test_what_cannot_be_counted_is_refused(network):
    with pytest.raises(ValueError, match="1281x720; accepted are multiples of the scale 4"):
        count_macs(network, 720, 1281)
    with pytest.raises(ValueError, match="'frame'; accepted are sequence, window"):
        count_macs(network, mode="frame")
