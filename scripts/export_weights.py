"""Turn a training's state into a weights file.

    python scripts/export_weights.py RUN/best.pt d3dnet/weights/d3dnet.safetensors \\
        --training-data "..." --results results.json

Stores the moving average of the weights in half precision, with its provenance: training data,
step, settings (of paths only the last name), commit, and the results measured with it (any JSON,
see `d3dnet evaluate --json`). Prints the metadata.
"""

import argparse
import json
import subprocess
from pathlib import Path

import torch

from d3dnet.network.checkpoints import load_model, save_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("state", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--training-data", required=True, help="what it was trained on, licences")
    parser.add_argument("--results", type=Path, help="JSON of measured results")
    args = parser.parse_args()
    state = torch.load(args.state, weights_only=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    settings = dict(state["config"])
    for name in ("run", "root", "validation_root", "initial"):
        settings[name] = Path(settings[name]).name  # whose machine it was is nobody's business
    metadata = {
        "training_data": args.training_data,
        "step": state["step"],
        "settings": settings,
        "commit": commit,
        "results": json.loads(args.results.read_text()) if args.results else {},
    }
    halves = {name: value.half() for name, value in state["average"].items()}
    save_weights(args.output, halves, metadata)
    stored = load_model(args.output, device="cpu").metadata
    assert isinstance(stored, dict)
    for key, value in stored.items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    main()
