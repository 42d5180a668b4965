"""Compiles the CUDA kernels where they run, with the NVRTC that torch brings; no nvcc is needed.

The sources are those that setup.py builds from, cuda_ops/cuda/*.cuh. What was compiled is kept in a
cache folder ($XDG_CACHE_HOME/d3dnet, else ~/.cache/d3dnet), by a hash of all that went into it.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from d3dnet.ops.cuda_launch import ELEMENTS, CudaProblem, Launch, LaunchedOperators

_PACKAGE = Path(__file__).parent.parent
# Installed within the package; in a clone beside it.
SOURCES = next(
    (
        f
        for f in (place / "cuda_ops" / "cuda" for place in (_PACKAGE, _PACKAGE.parent))
        if f.is_dir()
    ),
    None,
)
OLDEST = (7, 0)  # that has the shared memory, and __grid_constant__
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


def load(device: int) -> LaunchedOperators:
    """The operators on kernels compiled at run time; `OSError` or `RuntimeError` says why not.

    Kernels are compiled at the first use of their element type, which takes some seconds, once.
    """
    _compiler()
    _driver()
    _sources()
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST:
        wanted, found = ("{}.{}".format(*version) for version in (OLDEST, capability))
        raise RuntimeError(
            f"the kernels need a GPU of compute capability {wanted} or later, this one has {found}"
        )
    # A GPU that the compiler does not know shows here, not in the middle.
    compiled('extern "C" __global__ void nothing() {}\n', _architecture(device))
    return LaunchedOperators(_launch)


def _sources() -> Path:
    if SOURCES is None:
        raise OSError("the kernels' sources, cuda_ops/cuda/*.cuh, are not installed")
    return SOURCES


def source(kernel: str) -> str:
    """The program that holds a kernel: all kernels of its element type, "tf32" being one.

    Those of a layer's channels, such as "d3dnet_forward_tf32_64", are a program of their own.
    """
    name = kernel.rsplit("_", 1)[1]
    if name.isdigit():
        product = kernel.rsplit("_", 2)[1]
        element = ELEMENTS[torch.float32 if product == "tf32" else getattr(torch, product)]
        return (
            "#define D3DNET_PRODUCTS(X)\n#define D3DNET_ELEMENTS(X)\n"
            f"#define D3DNET_LAYERS(X) X({product}, {element.type}, {name})\n"
            '#include "kernels.cuh"\n'
        )
    dtype = torch.float32 if name == "tf32" else getattr(torch, name)
    element = ELEMENTS[dtype]
    tensor_cores = str(name not in ("float32", "float64")).lower()
    blocks = 1 if name == "float64" else 2
    elements = f"X({element.name}, {element.type})" if name != "tf32" else ""
    return (
        f"#define D3DNET_PRODUCTS(X) X({name}, {element.type}, {tensor_cores}, {blocks})\n"
        f"#define D3DNET_ELEMENTS(X) {elements}\n#define D3DNET_LAYERS(X)\n"
        '#include "kernels.cuh"\n'
    )


def _launch(launch: Launch, problem: CudaProblem, on: Tensor) -> None:
    x, y, z = launch.grid
    if x >= 2**31 or max(y, z) >= 2**16:
        raise RuntimeError(
            "deform_conv3d: too many output pixels, groups or taps for one launch: its grid is "
            f"{launch.grid}"
        )
    device = on.get_device()
    arguments = (ctypes.c_void_p * 1)(ctypes.addressof(problem))
    stream = torch.cuda.current_stream(device).cuda_stream
    with _current(device):
        _check(
            _driver().cuLaunchKernel(
                _function(device, launch.kernel, launch.shared),
                *(ctypes.c_uint(n) for n in (x, y, z, launch.threads, 1, 1, launch.shared)),
                ctypes.c_void_p(stream),
                arguments,
                None,
            )
        )


@contextlib.contextmanager
def _current(device: int) -> Iterator[None]:
    """Make torch's context of a device current; threads of autograd may have none yet."""
    _check(_driver().cuCtxPushCurrent_v2(_context(device)))
    try:
        yield
    finally:
        _check(_driver().cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p())))


@functools.cache
def _function(device: int, kernel: str, shared: int) -> ctypes.c_void_p:
    function = ctypes.c_void_p()
    module = _module(device, source(kernel))
    _check(_driver().cuModuleGetFunction(ctypes.byref(function), module, kernel.encode()))
    if shared > 48 << 10:
        _check(_driver().cuFuncSetAttribute(function, _MAX_DYNAMIC_SHARED, shared))
    return function


def _architecture(device: int) -> str:
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


@functools.cache
def _module(device: int, program: str) -> ctypes.c_void_p:
    binary = compiled(program, _architecture(device))
    module = ctypes.c_void_p()
    _check(_driver().cuModuleLoadData(ctypes.byref(module), binary))
    return module


@functools.cache
def _context(device: int) -> ctypes.c_void_p:
    context, handle = ctypes.c_void_p(), ctypes.c_int()
    _check(_driver().cuDeviceGet(ctypes.byref(handle), device))
    _check(_driver().cuDevicePrimaryCtxRetain(ctypes.byref(context), handle))
    return context


def compiled(program: str, architecture: str) -> bytes:
    """Machine code of a program, from the cache or else compiled into it."""
    options = ["--std=c++17", f"--gpu-architecture={architecture}"]
    version = (ctypes.c_int * 2)()
    _compiler().nvrtcVersion(ctypes.byref(version, 0), ctypes.byref(version, 4))
    made_from = hashlib.sha256(repr((program, options, list(version))).encode())
    for header in sorted(_sources().glob("*.cuh")):
        made_from.update(header.read_bytes())
    name = f"{made_from.hexdigest()[:32]}.cubin"
    # A cache that cannot be read or written costs time, no more.
    with contextlib.suppress(OSError, RuntimeError):
        return (_cache() / name).read_bytes()
    binary = _compile(program, [*options, f"--include-path={_sources()}"])
    with contextlib.suppress(OSError, RuntimeError):
        _cache().mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=_cache(), delete=False) as partial:
            partial.write(binary)
        os.replace(partial.name, _cache() / name)
    return binary


def _cache() -> Path:
    """`RuntimeError` where the user has no home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "d3dnet"


def _compile(program: str, options: list[str]) -> bytes:
    nvrtc, handle = _compiler(), ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(handle), program.encode(), b"d3dnet.cu", 0, None, None)
    arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(handle, len(options), arguments)

    def read(what: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(nvrtc, f"nvrtcGet{what}Size")(handle, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{what}")(handle, text)
        return text.raw

    found = read("ProgramLog") if failed else read("CUBIN")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(handle))
    if failed:
        log = found.decode(errors="replace").rstrip("\0").strip()
        raise RuntimeError(f"NVRTC cannot compile the kernels: {log or f'error {failed}'}")
    return found


@functools.cache
def _compiler() -> ctypes.CDLL:
    if torch.version.cuda is None:
        raise OSError("this torch has no CUDA")
    name = f"libnvrtc.so.{torch.version.cuda.split('.')[0]}"
    nvidia = find_spec("nvidia")
    places = (nvidia.submodule_search_locations if nvidia else None) or ()
    installed = [str(file) for place in places for file in Path(place).glob(f"*/lib/{name}")]
    for candidate in (*installed, name):
        try:
            return ctypes.CDLL(candidate)
        except OSError:
            continue
    raise OSError(f"NVRTC, {name}, was not found")


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _check(error: int) -> None:
    if error:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(error, ctypes.byref(text))
        reason = text.value.decode() if text.value else f"error {error}"
        raise RuntimeError(f"deform_conv3d: CUDA says: {reason}")
