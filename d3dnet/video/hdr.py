"""High dynamic range: how a video says that it is one, and what its display was."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from d3dnet.video.sidedata import SideData

TRANSFERS = {16: "PQ", 18: "HLG"}  # ITU-T H.273
BESIDE = {"A53_CC": "closed captions", "SPHERICAL": "its mark as spherical (360°) video"}
DYNAMIC = ("DYNAMIC_HDR_PLUS", "DYNAMIC_HDR_VIVID", "DOVI_METADATA", "DOVI_RPU_BUFFER")


@dataclass(frozen=True)
class Mastering:
    """SMPTE ST 2086 and CTA-861.3: the display of the grading, and the light of the content.

    Attributes:
        display: x and y of red, green, blue and white, then the least and the most luminance in
            cd/m²; or None.
        light: the brightest pixel and the brightest frame average, in cd/m²; or None.
    """

    display: tuple[Fraction, ...] | None = None
    light: tuple[int, int] | None = None


NO_MASTERING = Mastering()


def mastering_of(side_data: SideData) -> Mastering:
    """What is said beside a decoded frame."""
    display = light = None
    data = side_data.get("MASTERING_DISPLAY_METADATA")
    if data is not None:
        numbers = [int(number) for number in np.frombuffer(data, np.int32)[:22]]
        if numbers[20] and numbers[21]:  # it has primaries, and luminance
            pairs = zip(numbers[0:20:2], numbers[1:20:2], strict=True)
            display = tuple(Fraction(top, bottom or 1) for top, bottom in pairs)
    data = side_data.get("CONTENT_LIGHT_LEVEL")
    if data is not None:
        brightest, average = np.frombuffer(data, np.uint32)[:2]
        light = (int(brightest), int(average))
    return Mastering(display, light)


def lost_metadata(side_data: SideData) -> list[str]:
    """What is said beside a frame that no encoder here repeats: in words, or by FFmpeg's name."""
    lost = [name for name in DYNAMIC if name in side_data]
    lost += [text for name, text in BESIDE.items() if name in side_data]
    stereo = side_data.get("STEREO3D")
    if stereo is not None and np.frombuffer(stereo, np.int32)[0] != 0:  # 0: a plain picture
        lost.append("its mark as stereo 3-D")
    return lost


def encoder_parameters(mastering: Mastering, codec: str) -> dict[str, str]:
    """The options that make `codec` write `mastering`, by name; {} if it has none or cannot."""
    display, light = mastering.display, mastering.light
    found = []
    if codec in ("libx264", "libx265"):
        if display:  # units of 1/50000 and 1/10000 cd/m²
            red, green, blue, white = (
                f"({round(x * 50000)},{round(y * 50000)})"
                for x, y in zip(display[0:8:2], display[1:8:2], strict=True)
            )
            dark, bright = (round(value * 10000) for value in display[8:])
            found.append(("display", f"G{green}B{blue}R{red}WP{white}L({bright},{dark})"))
        if light:
            found.append(("light", f"{light[0]},{light[1]}"))
        names = {"display": "master-display", "light": "max-cll"}
        if codec == "libx264":
            names = {"display": "mastering-display", "light": "cll"}
        option = f"{codec[3:]}-params"
    elif codec == "libsvtav1":
        if display:
            red, green, blue, white = (
                f"({float(x):.5f},{float(y):.5f})"
                for x, y in zip(display[0:8:2], display[1:8:2], strict=True)
            )
            least, most = (float(value) for value in display[8:])
            found.append(("display", f"G{green}B{blue}R{red}WP{white}L({most:.4f},{least:.4f})"))
        if light:
            found.append(("light", f"{light[0]},{light[1]}"))
        names = {"display": "mastering-display", "light": "content-light"}
        option = "svtav1-params"
    return {option: ":".join(f"{names[key]}={value}" for key, value in found)} if found else {}


def warn_of_hdr(path: object, transfer: int, mastering: Mastering, codec: str) -> None:
    """Warn that the network has not seen such pictures, and of mastering metadata that is lost."""
    if transfer in TRANSFERS:
        warnings.warn(
            f"{path}: {TRANSFERS[transfer]} (HDR): the network was trained on SDR; look at it",
            stacklevel=3,
        )
    options: Mapping[str, str] = encoder_parameters(mastering, codec)
    if mastering != NO_MASTERING and not options:
        warnings.warn(
            f"{path}: {codec} cannot be given the mastering metadata; libx265 can", stacklevel=3
        )
