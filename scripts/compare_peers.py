"""What a user would pick instead, on the same frames and the same machine: docs/peers.md.

    python scripts/compare_peers.py Vid4 --root ROOT             # everything
    python scripts/compare_peers.py Vid4 --root ROOT --quality   # PSNR, SSIM, temporal error, tOF
    python scripts/compare_peers.py Vid4 --root ROOT --speed     # CPU time and memory, 320x180 x4
    python scripts/compare_peers.py Vid4 --root ROOT --peers SPAN d3dnet-lite

Prints a markdown table of our networks, our bicubic, and those of the others that are installed;
for every other one it says how to get it. What was measured is kept (--results): frames that a
version of a peer was scored on are not scored again. Speeds are always of one run, in which the
peers take turns, so that what else runs meets them all: run it on a quiet machine all the same.
"""

import argparse
import hashlib
import math
import os
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
from peers.child import process, sample, score, warm_up
from peers.listing import all_peers
from peers.peer import MissingPeerError, Peer
from peers.results import Entry, Numbers, Results

from d3dnet.datasets.benchmarks import BenchmarkClip, canonical_name, find_clips, make_lr
from d3dnet.ops import instruction_set

RESULTS = Path(__file__).parents[1] / "docs" / "peers.json"
HEIGHT, WIDTH = 180, 320  # of the frames that speed is measured with
CHUNK = 8  # frames: of our networks, as much at once as they take
SAMPLE_SECONDS = 2.0  # CPU time of a sample, about or more


def main() -> None:
    options = parse()
    peers = all_peers()
    if options.peers:
        names = [peer.name for peer in peers]
        if unknown := set(options.peers) - set(names):
            sys.exit(f"--peers: got {', '.join(sorted(unknown))}; there are {', '.join(names)}")
        peers = [peer for peer in peers if peer.name in options.peers]
    compare(peers, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", help="as of `d3dnet evaluate`")
    parser.add_argument("--root", type=Path, required=True, help="folder that holds the data set")
    parser.add_argument("--quality", action="store_true", help="only the scores")
    parser.add_argument("--speed", action="store_true", help="only time and memory")
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each (%(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="what was measured, kept")
    return parser.parse_args()


def compare(peers: list[Peer], options: argparse.Namespace) -> None:
    """Measure what was asked for, and print the table of all that is known."""
    results = Results.read(options.results)
    clips = find_clips(options.dataset, options.root)
    frames = f"{canonical_name(options.dataset)} {fingerprint(clips)}"
    versions, remarks = {}, []
    for peer in peers:
        try:
            versions[peer.name] = peer.version()
        except MissingPeerError as error:
            remarks.append(f"{peer.name}: {error}")
    present = [peer for peer in peers if peer.name in versions]
    if options.quality or not options.speed:
        for peer in present:
            if results.scored(frames, peer.name, versions[peer.name]):
                continue
            say(f"{peer.name}: scores")
            try:
                with process() as own:
                    numbers = own.submit(score, peer, options.dataset, options.root).result()
            except Exception as error:  # whatever another's code raises, or dies of
                remarks.append(f"{peer.name}: scoring failed: {error}")
                continue
            entry = Entry(versions[peer.name], numbers)
            results.quality.setdefault(frames, {})[peer.name] = entry
            results.write(options.results)
    if options.speed or not options.quality:
        pictures = speed_frames(clips[0])
        speeds, failed = measure_speed(present, pictures, options.rounds)
        remarks += failed
        results.speed = {name: Entry(versions[name], found) for name, found in speeds.items()}
        results.machine = machine()
        results.write(options.results)
    print(results.table(frames, versions))
    print(f"\nspeed: {results.machine}" if results.machine else "")
    for name, version in versions.items():
        print(f"{name}: {version}")
    for remark in remarks:
        print(f"left out: {remark}")


def measure_speed(
    peers: list[Peer], frames: np.ndarray, rounds: int
) -> tuple[dict[str, Numbers], list[str]]:
    """Medians of every peer that runs, and what is to be said of those that do not.

    Args:
        peers: each gets a process; all wait while one runs.
        frames: (T, h, w, 3) uint8 RGB.
        rounds: in each, every peer takes a sample with one thread and one with all.
    """
    every = os.cpu_count() or 1
    found: dict[str, dict[str, list[float]]] = {}
    failed: list[str] = []
    memory: dict[str, int] = {}
    counts: dict[str, int] = {}
    with ExitStack() as stack:
        own: dict[str, ProcessPoolExecutor] = {}

        def drop(name: str, error: Exception) -> None:
            failed.append(f"{name}: measuring its speed failed: {error}")
            own.pop(name)

        for peer in peers:
            say(f"{peer.name}: warms up")
            own[peer.name] = stack.enter_context(process())
            try:
                first = own[peer.name].submit(warm_up, peer, frames, CHUNK).result()
            except Exception as error:  # as above
                drop(peer.name, error)
                continue
            memory[peer.name], seconds = first
            counts[peer.name] = CHUNK * math.ceil(SAMPLE_SECONDS / max(seconds, 0.01))
            found[peer.name] = {"cpu_one": [], "cpu_all": [], "wall_all": []}
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for name in list(own):
                try:
                    one, _ = own[name].submit(sample, counts[name], 1).result()
                    cpu, wall = own[name].submit(sample, counts[name], every).result()
                except Exception as error:  # as above
                    drop(name, error)
                    continue
                say(f"{name}: {one:.3f} and {cpu:.3f} CPU s a frame, {wall:.3f} s")
                for kind, value in zip(found[name], (one, cpu, wall), strict=True):
                    found[name][kind].append(value)
        medians = {
            name: {kind: median(values) for kind, values in found[name].items()} for name in own
        }
    return {
        name: {
            "cpu_one": numbers["cpu_one"],
            "cpu_all": numbers["cpu_all"],
            "fps_all": 1 / numbers["wall_all"],
            "memory": memory[name] / 2**20,
        }
        for name, numbers in medians.items()
    }, failed


def speed_frames(clip: BenchmarkClip) -> np.ndarray:
    """Low-resolution frames of a clip, mirrored or cut to the size that speed is measured with."""
    hr = clip.read_hr(CHUNK)
    lr = make_lr(hr, "double")
    extra = [
        (0, max(0, size - have)) for size, have in zip((HEIGHT, WIDTH), lr.shape[1:3], strict=True)
    ]
    return np.pad(lr, [(0, 0), *extra, (0, 0)], mode="symmetric")[:, :HEIGHT, :WIDTH]


def fingerprint(clips: list[BenchmarkClip]) -> str:
    """Of all frames of a set: results on other frames are other results."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(clip.name.encode())
        for frames in (clip.read_hr(), clip.read_lr()):
            digest.update(b"" if frames is None else frames.tobytes())
    return digest.hexdigest()[:12]


def machine() -> str:
    """The processor in words, and how busy it was."""
    processor = platform.processor() or platform.machine()
    if (information := Path("/proc/cpuinfo")).exists():
        lines = information.read_text().splitlines()
        named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        processor = next(iter(named), processor)
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{processor}, {os.cpu_count()} cores, {instruction_set()}{load}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
