"""The protocols of published tables, as data: what makes one table's figures its own.

Numbers of different protocols are not comparable. A protocol fixes the colour domain, every
rounding, the border, the frames that count, the variant of SSIM and how the low-resolution side is
made; here each has the name that the literature's tables get in this project.
"""

from dataclasses import dataclass
from typing import Literal

from d3dnet.datasets.imresize import Recipe


@dataclass(frozen=True)
class Protocol:
    """How super-resolved frames are compared with the ground truth.

    Attributes:
        name: what the protocol is called.
        domain: "y", BT.601 limited-range luma of the 8-bit RGB frame, not rounded; or "rgb".
        network_luma: a network's luma is "unquantised" (only clamped to [0, 1]) or "rounded" to
            8 bit before it is scored.
        psnr_samples: PSNR compares samples "as they are", or both sides "truncated" to 8 bit.
        ssim_border: "valid", the standard index over windows inside the frame; or "zero", windows
            everywhere, zeros beyond the (cropped) frame.
        crop: pixels left out on every side.
        size_multiple: frames are first cut to a multiple of this, the top left being kept.
        max_frames: only so many frames of a clip are used at all; None for all.
        scored: [start, stop) of the used frames whose values are averaged, as in a slice.
        lr_recipe: which `imresize` recipe makes the low-resolution frames.
        septuplet_lr_recipe: the same for Vimeo-90k.
        range_compressed: MOVIE is measured on luma prepared as for the published figures, of
            reduced contrast (`temporal.range_compressed`), and not on luma as it is.
    """

    name: str
    domain: Literal["y", "rgb"] = "y"
    network_luma: Literal["unquantised", "rounded"] = "rounded"
    psnr_samples: Literal["as they are", "truncated"] = "as they are"
    ssim_border: Literal["valid", "zero"] = "valid"
    crop: int = 0
    size_multiple: int = 4
    max_frames: int | None = None
    scored: tuple[int, int | None] = (0, None)
    lr_recipe: Recipe = "double"
    septuplet_lr_recipe: Recipe = "double"
    range_compressed: bool = False

    def scored_frames(self, frames: int) -> range:
        """Indices, among ``frames`` used frames, of those whose values are averaged."""
        return range(frames)[slice(*self.scored)]


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "d3dnet",
            network_luma="unquantised",
            psnr_samples="truncated",
            ssim_border="zero",
            crop=8,
            size_multiple=16,
            max_frames=31,
            scored=(2, -2),
            lr_recipe="uint8",
            range_compressed=True,
        ),
        Protocol("y-crop0"),
        Protocol("y-crop8", crop=8),
        Protocol("rgb-crop0", domain="rgb"),
        Protocol("rgb-crop8", domain="rgb", crop=8),
        Protocol("vimeo-center", max_frames=7, scored=(3, 4)),
    )
}


def get_protocol(protocol: str | Protocol) -> Protocol:
    """The protocol of a name (a `Protocol` is returned as it is).

    Raises:
        ValueError: for an unknown name.

    >>> get_protocol("d3dnet").crop, get_protocol("y-crop0").crop
    (8, 0)
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: got {protocol!r}; accepted are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]
