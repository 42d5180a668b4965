"""`D3Dnet.stream` gives what `forward_sequence` gives, in constant memory and without rework."""

import gc
import itertools

import pytest
import torch

from d3dnet.network.model import D3D, D3Dnet
from tests.network.test_model import with_offsets


@pytest.fixture(scope="module")
def network() -> D3Dnet:
    torch.manual_seed(0)
    return with_offsets(D3Dnet(channels=16, resd3d_blocks=2, res_blocks=1))


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 20])
@pytest.mark.parametrize("chunk", [1, 3, 8, 50])
def test_a_stream_equals_the_whole_sequence_whatever_the_chunk(network, frames, chunk):
    clip = torch.rand(frames, 1, 10, 9)
    with torch.no_grad():
        whole = network.forward_sequence(clip.transpose(0, 1)[None])[0].transpose(0, 1)
    streamed = torch.stack(list(network.stream(clip, chunk=chunk)))
    assert streamed.shape == (frames, 1, 40, 36)
    assert streamed.dtype == torch.float32
    assert (streamed - whole).abs().max() < 1e-5


def test_a_bfloat16_stream_stays_within_one_code_value_of_the_whole_sequence():
    torch.manual_seed(1)
    model = with_offsets(D3Dnet(channels=16, resd3d_blocks=2, res_blocks=1)).bfloat16()
    clip = torch.rand(9, 1, 10, 9)
    with torch.no_grad():
        whole = model.forward_sequence(clip.transpose(0, 1)[None])[0].transpose(0, 1)
    streamed = torch.stack(list(model.stream(clip, chunk=4)))
    assert (streamed - whole).abs().max() < 1 / 255


def test_the_published_network_looks_14_frames_ahead():
    assert D3Dnet().temporal_radius == 14


@pytest.mark.parametrize("chunk", [1, 4, 8])
def test_an_endless_source_yields_its_first_frame_after_14_frames_and_a_chunk(chunk):
    model = with_offsets(D3Dnet(channels=4, res_blocks=0))
    asked = itertools.count()

    def endless():
        while True:
            next(asked)
            yield torch.rand(1, 4, 4)

    stream = model.stream(endless(), chunk=chunk)
    next(stream)
    assert next(asked) <= 14 + chunk


def test_every_layer_evaluates_every_frame_exactly_once(network):
    frames = 23
    evaluated = {}

    def count(name):
        def hook(module, args, output):
            evaluated[name] = evaluated.get(name, 0) + output.shape[2]

        return hook

    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, D3D)]
    handles = [layer.register_forward_hook(count(name)) for name, layer in layers]
    for _ in network.stream(torch.rand(frames, 1, 6, 6), chunk=5):
        pass
    for handle in handles:
        handle.remove()
    assert evaluated == {name: frames for name, _ in layers}
    assert len(layers) == 4


def test_memory_does_not_grow_with_the_length_of_the_stream(network):
    def live_values() -> int:
        gc.collect()
        return sum(
            o.untyped_storage().nbytes() for o in gc.get_objects() if type(o) is torch.Tensor
        )

    stream = network.stream((torch.rand(1, 8, 8) for _ in range(200)), chunk=4)
    held = []
    for index, _ in enumerate(stream):
        if index in (40, 160):
            held.append(live_values())
    assert held[1] <= held[0]


def test_a_frame_of_another_size_is_refused(network):
    clip = [torch.rand(1, 8, 8), torch.rand(1, 8, 9)]
    with pytest.raises(ValueError, match=r"\(1, 8, 9\).*all of the size of the first"):
        list(network.stream(clip))


def test_an_empty_source_gives_an_empty_stream(network):
    assert list(network.stream([])) == []


def test_a_chunk_below_one_is_refused(network):
    with pytest.raises(ValueError, match="chunk: got 0"):
        list(network.stream([], chunk=0))
