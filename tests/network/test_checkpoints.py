"""Weights files: what is written is read back, what is wrong is named, and nothing is executed."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import d3dnet
from d3dnet.errors import CheckpointError
from d3dnet.network.checkpoints import bundled_models, load_model, resolve_device, save_weights
from d3dnet.network.model import D3Dnet
from tests.network.test_model import with_offsets


@pytest.fixture(scope="module")
def network() -> D3Dnet:
    torch.manual_seed(0)
    return with_offsets(D3Dnet(channels=8, resd3d_blocks=2, res_blocks=1, window=5, scale=2))


@pytest.fixture
def weights(network, tmp_path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_weights(path, network.state_dict(), {"training data": "none", "step": 7})
    return path


def same_tensors(model: D3Dnet, other: D3Dnet) -> bool:
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_saved_weights_load_with_their_hyperparameters_and_metadata(weights, network):
    model = load_model(weights, device="cpu", precision="float32")
    assert same_tensors(model, network)
    assert (model.scale, model.channels, model.window) == (2, 8, 5)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.metadata["architecture"] == "D3Dnet"
    assert json.loads(model.metadata["step"]) == 7
    assert len(model.metadata["sha256"]) == 64


def test_published_checkpoints_load_with_the_scalars_beside_their_tensors(network, tmp_path):
    path = tmp_path / "published.pth.tar"
    content = {
        "epoch": 35,
        "state_dict": network.state_dict(),
        "loss": [0.1, np.float64(0.2)],
        "psnr": [np.float32(30.1), np.float64(31.2)],
    }
    torch.save(content, path)
    assert same_tensors(load_model(path, device="cpu", precision="float32"), network)


def test_published_checkpoints_in_the_old_file_format_and_of_data_parallel_load(network, tmp_path):
    path = tmp_path / "old.pth.tar"
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False)
    assert same_tensors(load_model(path, device="cpu", precision="float32"), network)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_precision_asked_for_is_the_precision_of_the_weights(weights, precision):
    model = load_model(weights, device="cpu", precision=precision)
    assert {p.dtype for p in model.parameters()} == {getattr(torch, precision)}


def test_an_unknown_precision_or_device_is_refused_with_the_accepted_words(weights):
    with pytest.raises(ValueError, match=r"precision: got 'int8'.*auto, float32"):
        load_model(weights, device="cpu", precision="int8")
    with pytest.raises(ValueError, match=r"device: got 'gpu'.*accepted are auto, cpu"):
        load_model(weights, device="gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_refused_before_any_work():
    with pytest.raises(ValueError, match=r"'cuda', which torch .* does not find"):
        resolve_device("cuda")


def test_a_missing_file_names_the_bundled_models():
    with pytest.raises(CheckpointError, match=r"nowhere.*found nothing.*accepted are a bundled"):
        load_model("nowhere")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="found a folder"):
        load_model(tmp_path)


def test_a_truncated_file_is_refused(weights):
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_model(weights, device="cpu")


def test_a_changed_bit_is_noticed_by_the_checksum(weights):
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        load_model(weights, device="cpu")


@pytest.mark.parametrize("content", [b"", b"not a network at all", b"\x80\x02garbage"])
@pytest.mark.parametrize("name", ["x.pth.tar", "x.safetensors"])
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name) as caught:
        load_model(path, device="cpu")
    assert "\n" not in str(caught.value)


def test_code_inside_a_pickle_is_never_run(tmp_path):
    marker = tmp_path / "executed"

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    plain = tmp_path / "plain.pth.tar"
    plain.write_bytes(pickle.dumps({"state_dict": Attack()}))
    zipped = tmp_path / "zipped.pth.tar"
    torch.save({"state_dict": {}, "extra": Attack()}, zipped)
    assert zipfile.is_zipfile(zipped)
    for path in (plain, zipped):
        with pytest.raises(CheckpointError, match=r"accepted are \.safetensors"):
            load_model(path, device="cpu")
    assert not marker.exists()


def test_weights_of_another_network_are_refused(tmp_path, network):
    path = tmp_path / "other.safetensors"
    save_file({"conv.weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"not the weights of a D3Dnet.*conv\.weight"):
        load_model(path, device="cpu")
    save_file(network.state_dict(), path, metadata={"architecture": "OtherNet"})
    with pytest.raises(CheckpointError, match="weights of 'OtherNet'"):
        load_model(path, device="cpu")


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "nan"])
def test_a_tensor_that_does_not_fit_is_named(tmp_path, network, change):
    tensors = dict(network.state_dict())
    name = "residual_layer.1.dcn0.bias"
    if change == "missing":
        del tensors[name]
    elif change == "extra":
        name = "residual_layer.1.dcn9.bias"
        tensors[name] = torch.zeros(8)
    elif change == "shape":
        tensors[name] = torch.zeros(9)
    else:
        tensors[name] = torch.full((8,), torch.nan)
    path = tmp_path / "changed.safetensors"
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=name):
        load_model(path, device="cpu")


def test_saving_leaves_nothing_but_the_file(weights):
    assert list(weights.parent.iterdir()) == [weights]


def test_bicubic_loads_as_a_network_does_and_agrees_with_itself_in_every_mode():
    model = load_model("bicubic", device="cpu", precision="float32")
    clip = torch.rand(2, 1, 7, 8, 9)
    sequence = model.forward_sequence(clip)
    assert sequence.shape == (2, 1, 7, 32, 36)
    torch.testing.assert_close(model(clip), sequence[:, :, 3])
    torch.testing.assert_close(list(model.stream(clip[0].unbind(1)))[6], sequence[0, :, 6])
    with pytest.raises(ValueError, match="abacus"):
        load_model("bicubic", device="abacus")


def test_every_bundled_model_loads_with_its_provenance():
    assert bundled_models() == ["d3dnet", "d3dnet-lite"]
    for name in bundled_models():
        model = d3dnet.load_model(name, device="cpu", precision="float32")
        assert model.scale == 4
        for key in ("training_data", "step", "results", "commit"):
            assert model.metadata[key], key
    for name, parameters in (("d3dnet", 2_579_941), ("d3dnet-lite", 402_928)):
        assert sum(p.numel() for p in d3dnet.load_model(name).parameters()) == parameters


def test_bundled_weights_are_stored_in_half_precision_and_stay_small():
    for path in (Path(d3dnet.__file__).parent / "weights").glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}
        assert path.stat().st_size < 6e6
