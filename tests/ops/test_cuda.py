"""Which kernels run on CUDA, and what is said of it; none of this needs a GPU."""

import pytest
import torch

from d3dnet.ops import cuda, cuda_launch


@pytest.fixture(autouse=True)
def nothing_decided(monkeypatch, tmp_path):
    """Forget the kernels in use, and have none."""

    def no_compiler(device):
        raise OSError("NVRTC was not found")

    monkeypatch.setattr(cuda, "LIBRARY", tmp_path / "_C_cuda.so")
    monkeypatch.setattr(cuda.nvrtc, "load", no_compiler)
    monkeypatch.delenv(cuda.KERNELS_VARIABLE, raising=False)
    cuda.kernels.cache_clear()
    cuda._warn_of_fallback.cache_clear()
    yield
    cuda.kernels.cache_clear()
    cuda._warn_of_fallback.cache_clear()


def arguments() -> tuple:
    input, weight = torch.randn(1, 2, 1, 3, 3), torch.randn(2, 2, 1, 1, 1)
    geometry = ((1, 1, 1), (0, 0, 0), (1, 1, 1), "HW")
    return input, torch.zeros(1, 2, 1, 3, 3), weight, None, None, *geometry, 1.0


def test_without_kernels_the_reference_runs_and_one_warning_says_what_to_install():
    with pytest.warns(RuntimeWarning, match="plain PyTorch") as caught:
        for _ in range(2):
            output = cuda.forward(*arguments())
    assert output.shape == (1, 2, 1, 3, 3)
    (warning,) = caught
    for part in ("_C_cuda.so does not exist", "NVRTC was not found", "pip install"):
        assert part in str(warning.message)


def test_without_nvcc_the_kernels_are_compiled_at_run_time(monkeypatch):
    operators = cuda_launch.LaunchedOperators(lambda *launch: None)
    monkeypatch.setattr(cuda.nvrtc, "load", lambda device: operators)
    assert cuda.kernels(0) == ("nvrtc", operators, None)


def test_kernels_are_chosen_for_each_gpu_by_itself(monkeypatch):
    """The first one may be older, full, or another process's alone."""
    operators = cuda_launch.LaunchedOperators(lambda *launch: None)

    def load(device: int) -> cuda.Operators:
        if device == 0:
            raise RuntimeError("out of memory")
        return operators

    monkeypatch.setattr(cuda.nvrtc, "load", load)
    monkeypatch.setattr(cuda, "allow_tf32", lambda input: False)
    assert cuda.kernels(0).name == "reference" and "out of memory" in cuda.kernels(0).problem
    assert cuda.kernels(1) == ("nvrtc", operators, None)
    chosen = []

    def choose(device: int) -> cuda.Kernels:
        chosen.append(device)
        return cuda.Kernels("reference", None, None)

    with monkeypatch.context() as patched:
        patched.setattr(cuda, "kernels", choose)
        cuda.forward(*arguments())
    assert chosen == [-1]  # get_device() of a tensor on the CPU


def test_a_library_that_cannot_run_here_gives_way_to_kernels_compiled_at_run_time(monkeypatch):
    class BuiltForAnotherGpu:
        def deform_conv3d(self, *arguments):
            raise RuntimeError("no kernel image is available for execution on the device")

    operators = cuda_launch.LaunchedOperators(lambda *launch: None)
    cuda.LIBRARY.touch()
    monkeypatch.setattr(cuda.torch.ops, "load_library", lambda path: None)
    monkeypatch.setattr(cuda.torch.ops, "d3dnet_cuda", BuiltForAnotherGpu(), raising=False)
    monkeypatch.setattr(cuda.torch, "ones", lambda *size, device: torch.zeros(size))
    monkeypatch.setattr(cuda.nvrtc, "load", lambda device: operators)
    assert cuda.kernels(0).name == "nvrtc"
    monkeypatch.setenv(cuda.KERNELS_VARIABLE, "compiled")
    cuda.kernels.cache_clear()
    with pytest.raises(RuntimeError, match="asks for 'compiled': no kernel image is available"):
        cuda.kernels(0)


@pytest.mark.parametrize("dtype", cuda_launch.ELEMENTS, ids=str)
def test_a_block_takes_no_more_shared_memory_than_the_smallest_gpu_has(dtype):
    """64 KiB: Turing's."""
    assert max(cuda_launch.shared_bytes(dtype)) <= 64 << 10


def test_the_environment_forces_the_reference(monkeypatch, recwarn):
    monkeypatch.setenv(cuda.KERNELS_VARIABLE, "reference")
    assert cuda.kernels(0).name == "reference"
    cuda.forward(*arguments())
    assert not recwarn


def test_kernels_that_were_asked_for_and_cannot_be_had_are_an_error(monkeypatch):
    monkeypatch.setenv(cuda.KERNELS_VARIABLE, "nvrtc")
    with pytest.raises(RuntimeError, match="asks for 'nvrtc': NVRTC was not found"):
        cuda.kernels(0)
    monkeypatch.setenv(cuda.KERNELS_VARIABLE, "fast")
    with pytest.raises(
        ValueError, match="'fast'; accepted: compiled, nvrtc, torchvision, reference"
    ):
        cuda.kernels(0)


def test_the_gradient_of_the_input_is_not_deterministic(monkeypatch):
    launched = []
    operators = cuda_launch.LaunchedOperators(lambda *launch: launched.append(launch))
    monkeypatch.setattr(cuda.nvrtc, "load", lambda device: operators)
    monkeypatch.setattr(cuda, "allow_tf32", lambda input: False)
    input, offset, weight, _, mask, *geometry, _ = arguments()
    tensors = (torch.randn(1, 2, 1, 3, 3), input, offset, weight, mask, *geometry)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
            cuda.backward(*tensors, True, True, True, False, True)
        assert not launched
        cuda.backward(*tensors, False, True, True, False, True)
        assert launched
    finally:
        torch.use_deterministic_algorithms(False)
