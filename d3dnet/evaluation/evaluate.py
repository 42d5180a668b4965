"""Evaluate a network, bicubic, or ready frames on a test set: per frame, per clip, per set.

Frames flow one way: clips of the set -> low-resolution RGB -> super-resolved frames -> scores
under the protocol -> means -> a table beside the published rows, and JSON.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from d3dnet.datasets.benchmarks import (
    KNOWN_CLIPS,
    BenchmarkClip,
    canonical_name,
    find_clips,
    make_lr,
)
from d3dnet.datasets.frames import clip_name, is_clip, read_clip
from d3dnet.datasets.imresize import Degradation
from d3dnet.evaluation import temporal
from d3dnet.evaluation.metrics import (
    Score,
    cut_size,
    mean_score,
    score_frame,
)
from d3dnet.evaluation.protocols import Protocol, get_protocol
from d3dnet.evaluation.results import ClipResult, EvaluationResult, FrameResult
from d3dnet.evaluation.upscalers import Upscale, rgb_from_luma, super_resolve
from d3dnet.network import SCALE, Mode, check_mode

if TYPE_CHECKING:
    from d3dnet.network.complexity import Complexity
    from d3dnet.network.interface import Network


@dataclass(frozen=True)
class ClipFrames:
    """The frames of a clip while it is evaluated.

    Attributes:
        name: of the clip.
        indices: of the frames in the clip.
        sr: super-resolved frames as `score_frame` takes them.
        hr: (T, H, W, 3) uint8 RGB, as many.
        lr: (T, h, w, 3) uint8 RGB, or None for ready frames.
    """

    name: str
    indices: Sequence[int]
    sr: Sequence[np.ndarray]
    hr: np.ndarray
    lr: np.ndarray | None = None


def evaluate(
    model: "str | os.PathLike[str] | Network | Upscale",
    dataset: str,
    root: str | os.PathLike[str],
    protocol: str | Protocol = "d3dnet",
    mode: Mode = "sequence",
    *,
    clips: Sequence[str] | None = None,
    bd: bool = False,
    device: str = "auto",
    precision: str = "auto",
    movie: bool = False,
    tof: bool = False,
    on_clip: Callable[[ClipFrames], None] | None = None,
    progress: bool = False,
) -> EvaluationResult:
    """Super-resolve a test set and score the result.

    Args:
        model: "bicubic" (MATLAB's, on 8-bit RGB), what `load_model` accepts, a network, or a
            function: (T, h, w, 3) uint8 RGB of a clip to its frames as `score_frame` takes them.
        dataset: "Vid4", "SPMC-11", "Vimeo-90k", or the name of a folder like them.
        root: the folder that holds the set; see `find_clips` for the layouts.
        protocol: a name of `PROTOCOLS`, or a `Protocol`.
        mode: "sequence" streams each clip; "window" gives the network seven frames at a time,
            the first and last frame repeated beyond the ends, as published.
        clips: names of the clips to take; all by default.
        bd: low-resolution frames by Gaussian blur and decimation, not bicubic.
        device: as of `load_model`, for a model given by name; so is
        precision.
        movie: measure MOVIE, which takes half a minute and more for each evaluated frame on a CPU.
        tof: measure the difference of optical flows.
        on_clip: is given the frames of each clip once it is scored, for pictures.
        progress: show a bar on stderr.

    Raises:
        ValueError: for an unknown mode, protocol or clip, frames that do not fit together, or clips
            too short for MOVIE.
        FileNotFoundError: when the set is not there.

    >>> import cv2, tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     Path(f"{root}/mine/clip").mkdir(parents=True)
    ...     for number in range(5):
    ...         frame = np.full((32, 32, 3), 40 * number, np.uint8)
    ...         _ = cv2.imwrite(f"{root}/mine/clip/im{number}.png", frame)
    ...     result = evaluate("bicubic", "mine", root, "y-crop0")
    >>> result.psnr, len(result.clips[0].frames)
    (inf, 5)
    """
    protocol = get_protocol(protocol)
    check_mode(mode)
    dataset = canonical_name(dataset)
    found = _select(find_clips(dataset, root, "bd" if bd else "double"), clips)
    name = str(model) if isinstance(model, str | os.PathLike) else type(model).__name__
    upscaler: Literal["bicubic"] | Network | Upscale
    if model == "bicubic":
        upscaler = "bicubic"
    elif callable(model) and not hasattr(model, "parameters"):
        upscaler = model
    else:
        from d3dnet.network.run import load_network

        named = cast("str | os.PathLike[str] | Network", model)  # functions have no parameters
        upscaler = load_network(named, device, precision)
    results, notes = [], _incomplete(dataset, found)
    if bd:
        notes.append(
            "BD degradation: not to be compared with the published rows, which are bicubic"
        )
    for clip in _progress(found, progress):
        hr = clip.read_hr(protocol.max_frames)
        scored = _scored(protocol, len(hr), clip)
        if movie:
            temporal.check_length(len(hr), clip.name, protocol)
        lr, source, remarks = _low_resolution(clip, hr, dataset, protocol, bd)
        height, width = cut_size(hr[0], protocol.size_multiple)
        lr = lr[:, : height // SCALE, : width // SCALE]
        started = time.perf_counter()
        sr = list(super_resolve(upscaler, lr, mode))
        seconds = (time.perf_counter() - started) / len(hr)
        if protocol.domain == "rgb" and sr[0].ndim == 2:
            sr = [rgb_from_luma(frame, low) for frame, low in zip(sr, lr, strict=True)]
        frames = ClipFrames(clip.name, range(len(hr)), sr, hr, lr)
        scores = _score_clip(frames, scored, protocol, movie, tof, device)
        results.append(replace(scores, lr=source, seconds_per_frame=seconds))
        notes += remarks
        if on_clip is not None:
            on_clip(frames)
    if upscaler == "bicubic":
        return _result(dataset, protocol, name, None, results, notes)
    result = _result(dataset, protocol, name, mode, results, notes)
    return replace(result, complexity=_complexity(upscaler, mode))


def evaluate_frames(
    frames: str | os.PathLike[str],
    dataset: str,
    root: str | os.PathLike[str],
    protocol: str | Protocol = "d3dnet",
    *,
    clips: Sequence[str] | None = None,
    movie: bool = False,
    tof: bool = False,
    on_clip: Callable[[ClipFrames], None] | None = None,
    progress: bool = False,
) -> EvaluationResult:
    """Score ready frames, such as published ones, against the ground truth of a test set.

    Args:
        frames: a folder with one folder of frames (or lossless video) for each clip, under the
            clip's name; or, with one clip in ``clips`` or a folder of that name, its frames
            themselves. 8-bit RGB, or grey for luma. Clips without frames are left out, with a
            note. A clip may hold all frames, those that the protocol uses, or those it scores.
        dataset: as of `evaluate`, and so are the others.

    Raises:
        ValueError: when counts or sizes of frames do not fit the ground truth.
        FileNotFoundError: when there are no frames of any clip.

    >>> import cv2, tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for side in ("mine", "results"):
    ...         Path(f"{root}/{side}/clip").mkdir(parents=True)
    ...         _ = cv2.imwrite(f"{root}/{side}/clip/im1.png", np.full((32, 32, 3), 99, np.uint8))
    ...     evaluate_frames(f"{root}/results", "mine", root, "y-crop0").psnr
    inf
    """
    protocol = get_protocol(protocol)
    dataset = canonical_name(dataset)
    folder = Path(frames)
    chosen = _select(find_clips(dataset, root), clips)
    sources = _ready_frames(folder, chosen)
    notes = _incomplete(dataset, [clip for clip in chosen if clip.name in sources])
    results = []
    for clip in _progress([clip for clip in chosen if clip.name in sources], progress):
        hr, ready = clip.read_hr(), read_clip(sources[clip.name])
        used = len(hr[: protocol.max_frames])
        scored = _scored(protocol, used, clip)
        if len(ready) >= used and len(ready) in (used, len(hr)):
            indices = range(used)
        elif len(ready) == len(scored):
            indices = scored
        else:
            accepted = sorted({len(hr), used, len(scored)}, reverse=True)
            raise ValueError(
                f"{sources[clip.name]}: got {len(ready)} frames; under protocol {protocol.name} "
                f"accepted are {' or '.join(map(str, accepted))} (clip {clip.name})"
            )
        if ready.ndim == 4 and (ready == ready[..., :1]).all() and protocol.domain == "y":
            notes.append(
                f"{clip.name}: the frames are grey stored as RGB, and were read as RGB; if they "
                "are luma, store them with one channel"
            )
        if movie:
            temporal.check_length(len(indices), clip.name, protocol)
        part = slice(indices.start, indices.stop)
        given = ClipFrames(clip.name, indices, list(ready[: len(indices)]), hr[part])
        results.append(_score_clip(given, scored, protocol, movie, tof))
        if on_clip is not None:
            on_clip(given)
    return _result(dataset, protocol, folder.name, None, results, notes)


def _score_clip(
    frames: ClipFrames,
    scored: Sequence[int],
    protocol: Protocol,
    movie: bool,
    tof: bool,
    device: str = "auto",
) -> ClipResult:
    """All that is measured on a clip; ``scored`` are the indices of which values are averaged."""
    position = {index: place for place, index in enumerate(frames.indices)}
    pairs = [(index, frames.sr[position[index]], frames.hr[position[index]]) for index in scored]
    scores = _score_frames(pairs, protocol)
    mean = mean_score([score for _, score in scores])
    result = ClipResult(
        frames.name,
        mean.psnr,
        mean.ssim,
        tuple(FrameResult(index, score.psnr, score.ssim) for index, score in scores),
    )
    if not movie and not tof:
        return result
    sr, hr = (temporal.luma_8bit(clip, protocol) for clip in (frames.sr, frames.hr))
    if movie:
        result = replace(result, movie=temporal.movie_of_result(sr, hr, protocol, device))
    if tof:
        result = replace(result, tof=temporal.tof(sr, hr, protocol.crop))
    return result


def _complexity(model: object, mode: Mode) -> "Complexity | None":
    from d3dnet.network.complexity import measure
    from d3dnet.network.interface import Network

    if isinstance(model, Network) and next(model.parameters(), None) is not None:
        return measure(model, mode)
    return None


def _score_frames(
    frames: Sequence[tuple[int, np.ndarray, np.ndarray]], protocol: Protocol
) -> list[tuple[int, Score]]:
    """Score frames, given as index, result and ground truth, on every core."""

    def score(frame: tuple[int, np.ndarray, np.ndarray]) -> tuple[int, Score]:
        index, sr, hr = frame
        return index, score_frame(sr, hr, protocol)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # numpy lets go of the GIL
        return list(pool.map(score, frames))


def _low_resolution(
    clip: BenchmarkClip, hr: np.ndarray, dataset: str, protocol: Protocol, bd: bool
) -> tuple[np.ndarray, str, list[str]]:
    """The low-resolution frames of a clip, where they came from, and notes on them."""
    vimeo = dataset == "Vimeo-90k"
    recipe: Degradation = protocol.septuplet_lr_recipe if vimeo else protocol.lr_recipe
    if bd:
        recipe = "bd"
    lr = clip.read_lr(protocol.max_frames)
    if clip.lr is None or lr is None:
        made_by = "blur and decimation (BD)" if bd else f"imresize, recipe {recipe}"
        return make_lr(hr, recipe), made_by, []
    expected = (len(hr), *(size // SCALE for size in hr.shape[1:3]), 3)
    if lr.shape != expected:
        raise ValueError(
            f"{clip.lr}: got low-resolution frames of shape {lr.shape}; accepted is {expected}, "
            "a quarter of the ground truth; remove the folder to have them made"
        )
    differing = float(np.mean(lr[0] != make_lr(hr[:1], recipe)[0]))
    notes = []
    if differing:
        notes.append(
            f"{clip.name}: {clip.lr.name} differs from recipe {recipe}"
            f"{'' if bd else f' of protocol {protocol.name}'} in {differing:.1%} of the samples of "
            "the first frame"
        )
    return lr, str(clip.lr), notes


def _scored(protocol: Protocol, frames: int, clip: BenchmarkClip) -> range:
    scored = protocol.scored_frames(frames)
    if not scored:
        raise ValueError(
            f"clip {clip.name}: got {frames} frames, of which protocol {protocol.name} scores none "
            f"(it averages frames [{protocol.scored[0]}:{protocol.scored[1]}]); use longer clips"
        )
    return scored


def _result(
    dataset: str,
    protocol: Protocol,
    model: str,
    mode: Mode | None,
    clips: Sequence[ClipResult],
    notes: Sequence[str],
) -> EvaluationResult:
    mean = mean_score([Score(clip.psnr, clip.ssim) for clip in clips])
    movies = [clip.movie for clip in clips if clip.movie]
    seconds = [clip.seconds_per_frame for clip in clips if clip.seconds_per_frame is not None]
    flows = [clip.tof for clip in clips if clip.tof is not None]
    return EvaluationResult(
        dataset,
        protocol.name,
        model,
        mode,
        mean.psnr,
        mean.ssim,
        tuple(clips),
        tuple(notes),
        movie=float(np.mean([score.movie for score in movies])) if movies else None,
        t_movie=float(np.mean([score.temporal for score in movies])) if movies else None,
        range_compressed=protocol.range_compressed if movies else None,
        tof=float(np.mean(flows)) if flows else None,
        seconds_per_frame=float(np.mean(seconds)) if seconds else None,
    )


def _select(clips: Sequence[BenchmarkClip], names: Sequence[str] | None) -> list[BenchmarkClip]:
    if names is None:
        return list(clips)
    present = [clip.name for clip in clips]
    unknown = [name for name in names if name not in present]
    if unknown:
        raise ValueError(f"clips: got {', '.join(unknown)}; present are {', '.join(present)}")
    return [clip for clip in clips if clip.name in names]


def _incomplete(dataset: str, clips: Sequence[BenchmarkClip]) -> list[str]:
    missing = set(KNOWN_CLIPS.get(dataset, ())) - {clip.name for clip in clips}
    if not missing:
        return []
    return [f"{', '.join(sorted(missing))} left out: the mean does not compare with tables"]


def _ready_frames(folder: Path, clips: Sequence[BenchmarkClip]) -> dict[str, Path]:
    """Where the ready frames of each clip are; clips without any are left out."""
    if not folder.is_dir():
        raise FileNotFoundError(f"frames: {folder} is not a folder")
    named = {clip_name(path).lower(): path for path in sorted(folder.iterdir()) if is_clip(path)}
    found = {
        clip.name: path
        for clip in clips
        if (path := named.get(clip.name.lower(), folder / clip.name)).exists() and is_clip(path)
    }
    if found:
        return found
    own = [clip for clip in clips if len(clips) == 1 or clip.name.lower() == folder.name.lower()]
    if own and is_clip(folder):
        return {own[0].name: folder}
    raise FileNotFoundError(
        f"frames: {folder} holds no frames of {', '.join(clip.name for clip in clips[:12])}; "
        "accepted is one folder of images, or one lossless video, for each clip, under its name"
    )


def _progress(clips: Sequence[BenchmarkClip], show: bool) -> Iterator[BenchmarkClip]:
    from tqdm import tqdm

    return iter(tqdm(clips, desc="clips", unit="clip", disable=not show))
