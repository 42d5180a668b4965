"""Train the bundled weights on a folder of clips, or go on with a training.

    python scripts/train_weights.py CLIPS RUN [--set name=value ...]

Prints a progress bar; RUN/log.jsonl holds loss and validation PSNR, RUN/state.pt everything
needed to resume (run the same command again). `scripts/export_weights.py` makes the weights file.
"""

import argparse
import math
from pathlib import Path

from d3dnet.training import TrainingConfig, override, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clips", type=Path, help="folder of videos and stills")
    parser.add_argument("run", type=Path, help="folder of this training's state and log")
    parser.add_argument("--set", nargs="*", default=[], help="settings of TrainingConfig")
    parser.add_argument("--max-seconds", type=float, default=math.inf)
    args = parser.parse_args()
    print(train(override(TrainingConfig(), args.set), args.clips, args.run, args.max_seconds))


if __name__ == "__main__":
    main()
