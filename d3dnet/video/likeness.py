"""Whether a picture of a result is that of its source, whatever network and encoder made of it.

Both are compared as large as the source, and again four times smaller. What is finer than that
neither network nor encoder need keep: of dither, a checkerboard or noise they keep the mean. So a
picture may differ by as much as one of low quality does, and by a tenth of the energy of what is so
fine; and where it is not flat, it must go up and down with the source.
"""

from dataclasses import dataclass

import numpy as np

from d3dnet.network.cubic import resample_chroma, resample_luma
from d3dnet.video.colour import grid_of, to_network
from d3dnet.video.picture import Frame
from d3dnet.video.source import VideoSource

MIN_PSNR = 20.0  # dB of each plane; a wrong picture, not one of low quality
COARSER = 4
OF_FINE = 0.1  # share of the energy that only the larger pictures have, that may be lost as error
FLAT = 8.0  # standard deviation in 8-bit code values, below which nothing is compared but the mean
FEW = 16  # samples, of which a correlation says nothing
CORRELATION = 0.6  # the least, where contrast is kept
CONTRAST = 0.25  # the least that is kept


@dataclass(frozen=True)
class Likeness:
    """Of one plane: its PSNR in dB as large as the source, and whether it is the same picture."""

    psnr: float
    fits: bool


def likenesses(
    small: Frame, before: VideoSource, large: Frame, after: VideoSource
) -> list[Likeness]:
    """Of the planes of a frame of `after`, made as small as that of `before`, to it.

    Luma, chroma, and alpha where both have it; all are taken in 8-bit limited range (`to_network`).
    """
    luma, rest = to_network(small.planes, before.layout)
    other, other_rest = to_network(large.planes, after.layout)
    alphas = [
        planes[-1] for planes, video in ((rest, before), (other_rest, after)) if video.layout.alpha
    ]
    chroma = rest[:-1] if before.layout.alpha else rest
    other_chroma = other_rest[:-1] if after.layout.alpha else other_rest
    scale = (luma.shape[0] / other.shape[0], luma.shape[1] / other.shape[1])
    grids = grid_of(after.layout), grid_of(before.layout)
    size = (luma.shape[0], luma.shape[1])
    pairs = [(255 * luma, resample_luma(255 * other, size))]
    pairs += [
        (plane, resample_chroma(made, (plane.shape[0], plane.shape[1]), scale, *grids))
        for plane, made in zip(chroma, other_chroma, strict=False)
    ]
    if len(alphas) == 2:
        pairs.append((255 * alphas[0], resample_luma(255 * alphas[1], size)))
    return [likeness(one, two) for one, two in pairs]


def likeness(one: np.ndarray, two: np.ndarray) -> Likeness:
    """Of a plane `two` to the plane `one` of the same size, in 8-bit code values.

    >>> checkers = 235.0 * (np.indices((16, 16)).sum(0) % 2)
    >>> likeness(checkers, np.full((16, 16), 117.5)).fits
    True
    >>> likeness(checkers, np.full((16, 16), 235.0)).fits
    False
    """
    error = float(((one - two) ** 2).mean())
    psnr = float(10 * np.log10(255**2 / max(error, 1e-3)))
    rows, columns = (max(1, -(-length // COARSER)) for length in one.shape)
    size = (rows, columns)
    coarse, other = resample_luma(one, size), resample_luma(two, size)
    fine = max(0.0, float(one.var() - coarse.var()))
    allowed = 255**2 / 10 ** (MIN_PSNR / 10) + OF_FINE * fine
    fits = float(((coarse - other) ** 2).mean()) <= allowed
    deviation, kept = float(coarse.std()), float(other.std())
    if deviation >= FLAT and coarse.size >= FEW:
        together = float(((coarse - coarse.mean()) * (other - other.mean())).mean())
        correlation = together / (deviation * max(kept, 1e-6))
        # What is left of a picture that lost contrast is correlated as much as it is left.
        share = kept / deviation
        fits &= share >= CONTRAST and correlation >= CORRELATION * min(1.0, share)
    return Likeness(psnr, bool(fits))
