"""What upscaling a video will mean, found without doing it."""

import os
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from d3dnet.network import Mode
from d3dnet.network.interface import Network, Plannable
from d3dnet.network.plan import cost, make_plan
from d3dnet.network.speed import pixels_per_second
from d3dnet.video.colour import Layout
from d3dnet.video.ffmpeg import find_program
from d3dnet.video.picture import ColourTags
from d3dnet.video.scenes import shots
from d3dnet.video.source import VideoSource
from d3dnet.video.target import Encoding, Size, rounded, target_of
from d3dnet.wording import counted, show_duration, show_size

FOUR_TIMES = Size()
BITS_PER_PIXEL = 0.1  # of libx264 at its default quality: a guess, contents differ by a factor of 5
MATRICES = {0: "RGB", 1: "BT.709", 5: "BT.601", 6: "BT.601", 9: "BT.2020"}
TRANSFERS = {1: "BT.709", 6: "BT.601", 13: "sRGB", 16: "PQ (HDR)", 18: "HLG (HDR)"}


def describe(
    path: str | os.PathLike[str],
    network: Network,
    *,
    size: Size = FOUR_TIMES,
    mode: Mode = "sequence",
    cuts: str = "auto",
    tile: int | None = None,
    max_memory: int | None = None,
    seconds: float = 5,
    ffmpeg: str | os.PathLike[str] | None = None,
) -> Iterator[tuple[str, str]]:
    """Lines of (name, what is known), each as soon as it is.

    Args:
        path: a file that `d3dnet.upscale_video` would be given.
        network: on its device; its speed is measured there for about `seconds`.
        size, mode, tile, max_memory: as the video would be upscaled.
        cuts: "auto" reads the whole file to find them and to count the frames, "off" does not.

    Raises:
        InputError, OutputError, ProgramError: as `d3dnet.upscale_video` would.
        NotEnoughMemoryError: no plan fits.

    >>> import cv2, numpy, tempfile
    >>> from d3dnet.network.bicubic import Bicubic
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = cv2.imwrite(f"{folder}/1.png", numpy.full((16, 24, 3), 99, "uint8"))
    ...     lines = dict(describe(f"{folder}/%d.png", Bicubic(), seconds=0.01))
    >>> sorted(lines)[:3]
    ['beside it', 'colour', 'disk']
    """
    with VideoSource(path) as source:
        target = target_of(source, size, find_program(ffmpeg), Encoding())
        yield "file", f"{source.path.name}, {show_size(_bytes(source))}"
        yield "picture", _picture(source)
        yield "colour", _colour(source.layout, source.colour)
        yield "beside it", _others(source)
        frames = source.frames_estimate
        if cuts == "auto":
            peak = 2**source.layout.depth - 1
            found = shots(source.frames(), peak, "auto", source.time_base)
            lengths = list(Counter(shot for shot, _, _ in found).values())
            frames = sum(lengths)
            longest = f"; the longest has {max(lengths)}" if len(lengths) > 1 else ""
            yield "frames", f"{frames}, in {counted(len(lengths), 'shot')}{longest}"
        else:
            yield "frames", f"{frames or 'unknown'} as the file says"
        other = rounded(size, source, target)
        yield (
            "result",
            f"{target.width}×{target.height}, {target.layout.pixel_format}, "
            f"{target.encoding.codec}{f' ({other})' if other else ''}",
        )
        height, width = source.height, source.width
        plan = make_plan(network, height, width, mode=mode, tile=tile, max_memory=max_memory)
        work = 1.0
        if isinstance(network, Plannable):
            needed = cost(network, plan, height, width, mode)
            work = needed.work
            where = f"tiles of {plan.tile}, in turn" if plan.tile else "whole frames"
            yield (
                "memory",
                f"about {show_size(needed.device + needed.host)} for the network: {where}, "
                f"{plan.chunk} at once, {plan.precision} on {plan.device}",
            )
        if frames:
            disk = frames * target.height * target.width * BITS_PER_PIXEL / 8
            yield "disk", f"about {show_size(disk)} (at {BITS_PER_PIXEL} bits a pixel; a guess)"
        speed = pixels_per_second(network, seconds) / (height * width * work)
        time = f", {show_duration(frames / speed)} for all" if frames else ""
        yield "time", f"about {speed:.3g} frames a second on this machine{time} (network alone)"


def _bytes(source: VideoSource) -> int:
    return sum(Path(path).stat().st_size for path in source.images or [source.path])


def _picture(source: VideoSource) -> str:
    rate = Fraction(source.frame_rate)
    text = f"{source.width}×{source.height}, {float(rate):.6g} frames a second"
    aspect = source.sample_aspect_ratio
    if aspect and aspect != 1:
        text += f", pixels {aspect.numerator}:{aspect.denominator}"
    return text


def _colour(layout: Layout, tags: ColourTags) -> str:
    parts = [layout.pixel_format, "full range" if layout.full_range else "limited range"]
    for what, names, value in (
        ("matrix", MATRICES, tags.matrix),
        ("transfer", TRANSFERS, tags.transfer),
    ):
        if value != 2:  # unspecified
            parts.append(f"{what} {names.get(value, f'number {value}')}")
    return ", ".join(parts)


def _others(source: VideoSource) -> str:
    streams = source.streams
    parts = [f"sound {codec}" for codec in streams.sound]
    parts += [f"subtitles {codec}" for codec in streams.subtitles]
    parts += [counted(len(streams.covers), "cover picture")] if streams.covers else []
    for number, name in ((streams.attachments, "attachment"), (streams.chapters, "chapter")):
        parts += [counted(number, name)] if number else []
    return ", ".join(parts) or "nothing"
