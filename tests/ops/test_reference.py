"""The PyTorch reference needs little memory and needs no particular chunk size."""

import cases
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from d3dnet.ops import reference


class LargestResult(TorchDispatchMode):
    """Records the size in bytes of the largest storage that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("dims", ["HW", "THW"])
def test_it_never_holds_the_column_matrix(dims, monkeypatch):
    """What it makes at once is bounded by the chunk, not by 27·C·Ho·Wo."""
    monkeypatch.setattr(reference, "COLUMN_ELEMENTS", 2**15)
    size, channels, taps = (2, 32, 30), 16, 27
    input = torch.randn(1, channels, *size)
    offset = torch.randn(1, taps * len(dims), *size)
    weight = torch.randn(channels, channels, 3, 3, 3)
    grad = torch.randn(1, channels, *size)
    geometry = ((1, 1, 1), (1, 1, 1), (1, 1, 1), dims)
    with LargestResult() as largest:
        reference.forward(input, offset, weight, None, None, *geometry, 0.1)
        reference.backward(grad, input, offset, weight, None, *geometry, *[True] * 5)
    columns = 4 * taps * channels * size[0] * size[1] * size[2]
    indices = 8 * 2 ** len(dims) * 2**15 // channels  # int64, one per corner of a chunk's samples
    assert largest.bytes <= max(offset.nbytes, input.nbytes + 32, 4 * 2**15, indices)
    assert largest.bytes < columns / 4


@pytest.mark.parametrize("elements", [1, 1000])
def test_the_chunk_size_changes_no_value(elements, monkeypatch):
    case = cases.CASES["groups across offset groups"]
    monkeypatch.setattr(reference, "COLUMN_ELEMENTS", elements)
    found = cases.compute("reference", case, cases.make(case))
    for name, wanted in cases.expected(case).items():
        assert cases.relative_error(found[name], wanted) < 1e-10, name
