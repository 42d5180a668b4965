"""Steps of scripts/gpu_day.py that run in processes of their own, on the GPU.

python scripts/gpu_steps.py machine         print what this machine is
python scripts/gpu_steps.py architecture    print the GPU's compute capability
python scripts/gpu_steps.py smoke           compare the kernels in use with the reference
python scripts/gpu_steps.py probe           print training steps a second (--rigid: without D3D)
python scripts/gpu_steps.py export STATE WEIGHTS    turn a training's state into weights
"""

import argparse
import sys
import time
from pathlib import Path

import gpu_day  # beside this script
import torch

from d3dnet.network.checkpoints import save_weights
from d3dnet.ops import cuda, deform_conv3d, reference
from d3dnet.training.config import load_config
from d3dnet.training.learner import Learner
from d3dnet.training.processes import join_processes


def show_machine() -> None:
    """Print what this is about."""
    gpu = torch.cuda.get_device_properties(0)
    print(f"{gpu.name}, {gpu.major}.{gpu.minor}, {gpu.multi_processor_count} multiprocessors")
    print(f"{gpu.total_memory / 2**30:.0f} GiB; Python {sys.version.split()[0]}")
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}; {time.strftime('%Y-%m-%d')}")


def show_architecture() -> None:
    """Print the compute capability."""
    print("{}.{}".format(*torch.cuda.get_device_capability()))


def try_kernels(device: str = "cuda") -> None:
    """Compare the kernels in use with the PyTorch reference, forward and backward."""
    name = cuda.kernels(torch.cuda.current_device()).name if device == "cuda" else device
    for dtype, tolerance in ((torch.bfloat16, 3e-2), (torch.float32, 2e-3)):
        torch.manual_seed(0)
        tensors = [torch.randn(1, 64, 3, 20, 24), torch.randn(1, 54, 3, 20, 24)]
        tensors.append(torch.randn(64, 64, 3, 3, 3) / 40)
        x, offset, weight = (t.to(device, dtype).requires_grad_() for t in tensors)
        found = deform_conv3d(x, offset, weight, padding=1, dims="HW")
        grad = torch.randn_like(found)
        gradients = torch.autograd.grad(found, (x, offset, weight), grad)
        wide = (x.detach().float(), offset.detach().float(), weight.detach().float())
        ones = (1, 1, 1)
        wanted = reference.forward(*wide, None, None, ones, ones, ones, "HW", 1.0)
        needs = (True, True, True, False, False)
        of = reference.backward(grad.float(), *wide, None, ones, ones, ones, "HW", *needs)
        for result, right in zip((found, *gradients), (wanted, *of[:3]), strict=True):
            error = ((result.float() - right).norm() / right.norm()).item()
            if not error <= tolerance:
                raise SystemExit(f"{name}, {dtype}: a result is {error:.2g} off")
    print(f"{name}: agrees with the reference")


def measure_steps(rigid: bool) -> None:
    """Print training steps a second on noise."""
    settings = [f"{name}={value}" for name, value in gpu_day.SETTINGS.items()]
    settings += ["rigid_steps=1000000"] if rigid else []
    config = load_config("clips", settings)
    torch.backends.cudnn.benchmark = True
    with join_processes(config.device) as processes:
        learner = Learner(config, processes)
        shape = (config.batch, 1, config.frames, config.patch, config.patch)
        lr = torch.rand(shape, device=learner.device)
        hr = torch.rand(*shape[:3], 4 * config.patch, 4 * config.patch, device=learner.device)
        times: list[float] = []
        while len(times) < 12:
            started = time.monotonic()
            loss, _, _ = learner.differentiate(lr, hr)
            learner.update()
            loss.item()
            times.append(time.monotonic() - started)
    rate = 1 / sorted(times[4:])[len(times[4:]) // 2]
    print(f"{rate * config.batch:.1f} patches a second\nsteps a second: {rate:.4f}")


def export(state: Path, weights: Path) -> None:
    """Store the moving average in half precision, with what it is."""
    saved = torch.load(state, map_location="cpu", weights_only=True)
    settings = dict(saved["config"])
    for name in ("run", "root", "validation_root", "initial"):
        settings[name] = Path(settings[name]).name
    halves = {name: value.half() for name, value in saved["average"].items()}
    save_weights(weights, halves, {"step": saved["step"], "settings": settings})
    print(f"{weights.name}: step {saved['step']}")


def main() -> None:
    """Run one of the steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    steps = parser.add_subparsers(dest="step", required=True)
    for name in ("machine", "architecture", "smoke"):
        steps.add_parser(name)
    steps.add_parser("probe").add_argument("--rigid", action="store_true")
    step = steps.add_parser("export")
    step.add_argument("state", type=Path)
    step.add_argument("weights", type=Path)
    options = parser.parse_args()
    if options.step == "machine":
        show_machine()
    elif options.step == "architecture":
        show_architecture()
    elif options.step == "smoke":
        try_kernels()
    elif options.step == "probe":
        measure_steps(options.rigid)
    else:
        export(options.state, options.weights)


if __name__ == "__main__":
    main()
