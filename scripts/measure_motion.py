"""Print what following motion and joining frames is worth: PSNR in dB with and without.

    python scripts/measure_motion.py CLIPS --model d3dnet-lite [--held-out NAME ...]

Of a guided network, over frames 2 to 6 of the first seven of each held-out source (8 pixels cut),
the same at 0.6 of the size, the middle frames of scenes made of held-out frames
(`d3dnet.datasets.scenes`), and, with `--vid4 ROOT`, every fifth frame of Vid4. `motion zero`:
neighbours are looked for where the pixel is; `copies`: the frame itself stands for its neighbours.
The last two columns are what each costs.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from d3dnet.datasets.benchmarks import find_clips
from d3dnet.datasets.clips import Clip, clip_from_rgb, find_sources, load_clip, source_of
from d3dnet.datasets.luma import unit_luma
from d3dnet.datasets.scenes import Scenes
from d3dnet.network.checkpoints import load_model
from d3dnet.network.guided import GuidedD3Dnet
from d3dnet.network.motion import AFTER, BEFORE, with_motion

HELD_OUT = ("davis_libby", "cut3r_hall", "sam2_dog", "udacity_road")
BORDER = 8  # high-resolution pixels that are not scored
FRAMES = 7
SCENES, SCENE_SIDE, SCENE_SEED = 16, 64, 99
EVERY = 5  # frames of Vid4, of which one is scored
Piece = tuple[Tensor, Tensor, slice]  # guided frames, (T, H, W) truth, the frames to score


def as_it_is(guided: Tensor) -> Tensor:
    return guided


def motion_zero(guided: Tensor) -> Tensor:
    still = guided.clone()
    for way in (BEFORE, AFTER):
        still[:, way][:, :2] = 0
        still[:, way.stop - 1] = 1
    still[:, BEFORE, 0] = still[:, AFTER, -1] = 0
    return still


def psnr(sr: Tensor, hr: Tensor) -> float:
    inside = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    return float(-10 * (sr.clamp(0, 1) - hr)[inside].square().mean().log10())


def of_clip(clip: Clip, wanted: slice) -> Piece:
    lr, hr = (torch.from_numpy(unit_luma(np.asarray(side))) for side in (clip.lr, clip.hr))
    return with_motion(lr[None, None]), hr, wanted


def held_out_pieces(root: Path, names: list[str], size: float) -> Iterator[Piece]:
    seen = set()
    for source in find_sources(root):
        name = source_of(source.stem)
        if name in names and name not in seen:
            seen.add(name)
            whole = load_clip(source, size=size)
            yield of_clip(Clip(name, whole.hr[:FRAMES], whole.lr[:FRAMES]), slice(1, FRAMES - 1))


def scene_pieces(root: Path, names: list[str]) -> Iterator[Piece]:
    stills = [load_clip(source) for source in find_sources(root) if source_of(source.stem) in names]
    scenes = Scenes(stills, FRAMES, SCENE_SIDE, SCENE_SEED, candidates=3, guided=True)
    for index in range(SCENES):
        lr, hr = scenes[index]
        yield lr[None], hr[0], slice(FRAMES // 2, FRAMES // 2 + 1)


def vid4_pieces(root: Path) -> Iterator[Piece]:
    for clip in find_clips("Vid4", root):
        whole = clip_from_rgb(clip.name, clip.read_hr())
        yield of_clip(whole, slice(FRAMES // 2, len(whole.lr) - FRAMES // 2, EVERY))


@torch.no_grad()
def scores(network: GuidedD3Dnet, pieces: Iterator[Piece]) -> list[float]:
    """Mean PSNR over the pieces: as it is, with motion zero, of copies."""
    found = []
    for guided, hr, wanted in pieces:
        changes: tuple[Callable[[Tensor], Tensor], ...] = (as_it_is, motion_zero)
        row = [psnr(network.super_resolve(f(guided), wanted)[0, 0], hr[wanted]) for f in changes]
        radius = network.temporal_radius
        copied = []
        for index in range(len(hr))[wanted]:
            luma = guided[:, :1, index : index + 1].expand(-1, -1, 2 * radius + 1, -1, -1)
            still = torch.cat([luma, torch.zeros_like(luma).expand(-1, 6, -1, -1, -1)], 1)
            middle = network.super_resolve(motion_zero(still), slice(radius, radius + 1))
            copied.append(middle[0, 0, 0])
        found.append([*row, psnr(torch.stack(copied), hr[wanted])])
    return [float(np.mean(column)) for column in zip(*found, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clips", type=Path, help="folder of clips, see data/README.md")
    parser.add_argument("--model", default="d3dnet-lite")
    parser.add_argument("--held-out", nargs="+", default=HELD_OUT, help="sources to measure with")
    parser.add_argument("--vid4", type=Path, metavar="ROOT", help="measure on Vid4, too")
    args = parser.parse_args()
    network = load_model(args.model, device="cpu", precision="float32")
    if not isinstance(network, GuidedD3Dnet):
        parser.error(f"--model: {args.model} follows no motion; give a guided network")
    names = list(args.held_out)
    tasks = {
        "held-out clips": held_out_pieces(args.clips, names, 1.0),
        "the same at 0.6 of the size": held_out_pieces(args.clips, names, 0.6),
        "scenes": scene_pieces(args.clips, names),
    }
    if args.vid4:
        tasks["Vid4"] = vid4_pieces(args.vid4)
    print("| | as it is | motion zero | copies | without motion | of copies |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, pieces in tasks.items():
        here, still, copies = scores(network, pieces)
        costs = f"{still - here:+.3f} | {copies - here:+.3f}"
        print(f"| {name} | {here:.3f} | {still:.3f} | {copies:.3f} | {costs} |", flush=True)


if __name__ == "__main__":
    main()
