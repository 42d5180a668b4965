"""The network made visible: where it looks to make one output pixel.

Of a window of 7 frames: the positions that each D3D layer samples at that place in each frame, how
far its offsets go around it, and the effective receptive field, which is the gradient of the output
pixel with respect to the input.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from d3dnet.inspection import drawing
from d3dnet.network.guided import Bottleneck
from d3dnet.network.interface import Network
from d3dnet.network.offsets import deformable_layers, watched_offsets

SURROUNDINGS = 64  # input pixels on every side for which offsets are shown
FIELD = 20  # the same, for the receptive field
COLUMN = 150  # width of a frame in the picture
OTHER_FRAMES = ((66, 133, 244), (235, 120, 20), (30, 150, 80))  # of the result before, here, after
TAPS = [(t, y, x) for t in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)]


@dataclass(frozen=True)
class Layer:
    """One D3D layer around the pixel.

    Attributes:
        name: as in the network.
        taps: (window, 27, 2) offsets (rows, columns) in input pixels, for the results of all frames
            at the pixel's place.
        magnitude: (h, w) mean length of the 27 offsets, in the middle frame of the surroundings.
        largest: of all offsets there, in either direction.
    """

    name: str
    taps: np.ndarray
    magnitude: np.ndarray
    largest: float


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        at: output pixel (row, column) of the whole frame.
        place: the input pixel it belongs to, in the surroundings.
        frames: (window, h, w) luma of the surroundings.
        layers: in the order of the network.
        gradient: (window, h, w) size of the derivative of the output pixel.
    """

    at: tuple[int, int]
    place: tuple[int, int]
    frames: np.ndarray
    layers: tuple[Layer, ...]
    gradient: np.ndarray

    @property
    def share_of_frames(self) -> np.ndarray:
        """(window,) of the gradient that lies in each frame, 1 in all."""
        sums = self.gradient.sum((1, 2))
        shares: np.ndarray = sums / max(sums.sum(), 1e-30)
        return shares

    @property
    def radius(self) -> float:
        """Distance in input pixels within which nine tenths of the gradient lie."""
        rows, columns = np.indices(self.gradient.shape[1:])
        distance = np.hypot(rows - self.place[0], columns - self.place[1]).ravel()
        order = np.argsort(distance)
        weights = self.gradient.sum(0).ravel()[order].cumsum()
        return float(distance[order][np.searchsorted(weights, 0.9 * weights[-1])])


def inspect(network: Network, window: Tensor, at: tuple[int, int]) -> Inspection:
    """Look into the network while it makes one pixel.

    Args:
        network: in float32, with windows.
        window: (window, h, w) luma in [0, 1]; the output pixel is in the middle frame.
        at: output row and column.

    Raises:
        ValueError: the pixel is outside of the output.

    >>> from d3dnet import D3Dnet
    >>> network = D3Dnet(channels=4, resd3d_blocks=1, res_blocks=1).requires_grad_(False)
    >>> found = inspect(network, torch.rand(7, 16, 16), at=(30, 31))
    >>> [layer.name for layer in found.layers], found.share_of_frames.shape
    (['0.dcn0', '0.dcn1'], (7,))
    """
    height, width = window.shape[1:]
    scale = network.scale
    if not (0 <= at[0] < scale * height and 0 <= at[1] < scale * width):
        raise ValueError(
            f"--at: got {at[0]},{at[1]}; accepted is a row below {scale * height} and a column "
            f"below {scale * width}, of the output"
        )
    centre = (at[0] // scale, at[1] // scale)
    begin = [max(0, c - SURROUNDINGS) for c in centre]
    place = (centre[0] - begin[0], centre[1] - begin[1])
    y, x = (slice(b, c + SURROUNDINGS + 1) for b, c in zip(begin, centre, strict=True))
    window = window[:, y, x].to(next(network.parameters()).device, torch.float32)

    offsets: dict[str, list[Tensor]] = {}
    inputs = window.clone().requires_grad_()

    def watch(name: str, offset: Tensor) -> None:
        offsets.setdefault(name, []).append(offset.detach().float().cpu())

    with watched_offsets(network, watch):
        output = network(inputs[None, None])
    corner = [at[axis] - scale * begin[axis] for axis in (0, 1)]
    output[0, 0, corner[0], corner[1]].backward()
    assert inputs.grad is not None
    return Inspection(
        at=at,
        place=place,
        frames=window.cpu().numpy(),
        layers=tuple(
            _describe(place, name, *offsets[name])
            for name, layer in deformable_layers(network).items()
            if name in offsets and not isinstance(layer, Bottleneck)
        ),
        gradient=inputs.grad.abs().cpu().numpy(),
    )


def _describe(place: tuple[int, int], name: str, *offsets: Tensor) -> Layer:
    """Of one tensor of all offsets; or of two, the motion to the frames before and after."""
    offset = offsets[0] if len(offsets) == 1 else _of_taps(*offsets)
    moves = offset[0].unflatten(0, (27, 2)).numpy()  # tap, (row, column), frame, h, w
    middle = moves[:, :, moves.shape[2] // 2]
    return Layer(
        name=name.removeprefix("residual_layer."),
        taps=moves[..., place[0], place[1]].transpose(2, 0, 1),
        magnitude=np.hypot(middle[:, 0], middle[:, 1]).mean(0),
        largest=float(np.abs(moves).max()),
    )


def _of_taps(before: Tensor, after: Tensor) -> Tensor:
    """Motion (T, 2, h, w) to the frames before and after -> offsets of taps (1, 54, T, h, w).

    A tap follows the motion at its own place; those of the frame itself stay.
    """
    count, _, height, width = before.shape
    planes = [before, torch.zeros_like(before), after]
    taps = [
        F.unfold(plane, 3, padding=1).view(count, 2, 9, height, width).transpose(1, 2)
        for plane in planes
    ]
    return torch.cat(taps, 1).flatten(1, 2).transpose(0, 1)[None]


def sampled(layer: Layer, frame: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """What a layer samples in one frame of the window for the pixel's place in all results.

    Returns:
        For each tap that falls into the frame: which result it is for (-1: that of the frame
        before, 0, 1), the position (row, column) relative to the place, and where it would be
        without its offset.
    """
    found = []
    for (t, y, x), index in zip(TAPS, range(27), strict=True):
        result = frame - t
        if 0 <= result < len(layer.taps):
            regular = np.array([y, x], float)
            found.append((-t, regular + layer.taps[result, index], regular))
    return found


def picture(found: Inspection, title: str) -> np.ndarray:
    """All of it in one picture, (H, W, 3) uint8 RGB."""
    count = len(found.frames)
    names = [f"t{index - count // 2:+d}" if index != count // 2 else "t" for index in range(count)]
    rows = [drawing.caption(title, size=0.65)]
    rows.append(
        drawing.caption(
            "Effective receptive field: how much each input pixel changes the output pixel "
            f"(nine tenths within {found.radius:.1f} pixels)"
        )
    )
    fields = [
        drawing.captioned(panel, f"{name}: {share:.0%}")
        for panel, name, share in zip(_fields(found), names, found.share_of_frames, strict=True)
    ]
    rows.append(drawing.beside([_side_label("", COLUMN), *fields]))
    rows.append(
        drawing.caption(
            "Sampling positions of each layer, in all frames of the window, at its place"
        )
    )
    rows.append(_legend())
    reach = 1 + int(np.ceil(max(np.abs(layer.taps).max() for layer in found.layers)))
    for layer in found.layers:
        panels = [_positions(found, layer, frame, reach) for frame in range(count)]
        label = _side_label(layer.name, panels[0].shape[0], f"max {np.abs(layer.taps).max():.2f}")
        rows.append(drawing.beside([label, *panels]))
    most = max(float(layer.magnitude.max()) for layer in found.layers)
    rows.append(
        drawing.caption(
            "Offsets around it: mean length of the 27 offsets, in pixels of the input, frame t"
        )
    )
    maps = [_magnitude(found, layer, most) for layer in found.layers]
    per_row = count
    for start in range(0, len(maps), per_row):
        rows.append(drawing.beside([_side_label("", 1), *maps[start : start + per_row]]))
    bar = drawing.colour_bar(3 * COLUMN, "0", f"{most:.2f} pixels" if most else "all are zero")
    rows.append(drawing.beside([_side_label("", 1), bar]))
    return drawing.sheet(rows)


def _fields(found: Inspection) -> Iterable[np.ndarray]:
    # The root, as gradients fall off steeply.
    strength = (found.gradient / max(found.gradient.max(), 1e-30)) ** 0.5
    size = _half(found, FIELD)
    for luma, values in zip(found.frames, strength, strict=True):
        base, value = (_around(found, array, size) for array in (luma, values))
        base = 0.55 * drawing.grey(base)
        mixed = (
            base + (255 - base) * (drawing.heat(value) / 255.0) * np.clip(value, 0, 1)[..., None]
        )
        yield drawing.resized(np.rint(mixed).astype(np.uint8), COLUMN)


def _positions(found: Inspection, layer: Layer, frame: int, reach: int) -> np.ndarray:
    """A frame around the place, with what the layer samples in it."""
    side = 2 * reach + 1
    padded = np.pad(found.frames[frame], reach, mode="edge")
    y, x = found.place
    luma = padded[y : y + side, x : x + side]
    image = drawing.resized(drawing.grey(0.45 + 0.55 * luma), COLUMN)
    pixel = COLUMN / side

    def at(position: np.ndarray) -> tuple[int, int]:
        row, column = (position + reach + 0.5) * pixel * 16
        return round(column), round(row)  # in sixteenths, for OpenCV

    positions = sampled(layer, frame)
    for _, _, regular in positions:
        cv2.circle(image, at(regular), round(2.5 * 16), drawing.FAINT, 1, cv2.LINE_AA, 4)
    # Side by side where they fall together, as offsets of zero do.
    for result, position, _ in positions:
        shift = np.array([0, 3.5 * result / pixel])
        cv2.circle(image, at(position + shift), 28, OTHER_FRAMES[result + 1], -1, cv2.LINE_AA, 4)
    return image


def _magnitude(found: Inspection, layer: Layer, most: float) -> np.ndarray:
    image = drawing.resized(drawing.heat(layer.magnitude / max(most, 1e-30)), COLUMN)
    factor = COLUMN / layer.magnitude.shape[1]
    centre = (round((found.place[1] + 0.5) * factor), round((found.place[0] + 0.5) * factor))
    image = np.ascontiguousarray(image)
    cv2.circle(image, centre, 5, (255, 255, 255), 1, cv2.LINE_AA)
    return drawing.captioned(image, f"{layer.name}: max {layer.largest:.2f}")


def _legend() -> np.ndarray:
    texts = ("for the result before", "for the result at this frame", "for the result after")
    parts = [drawing.caption("", 108)]
    for colour, text in zip(OTHER_FRAMES, texts, strict=True):
        dot = drawing.caption("", 16)
        cv2.circle(dot, (8, 14), 4, colour, -1, cv2.LINE_AA)
        parts += [dot, drawing.caption(text, 190, size=0.45)]
    ring = drawing.caption("", 16)
    cv2.circle(ring, (8, 14), 3, drawing.FAINT, 1, cv2.LINE_AA)
    parts += [ring, drawing.caption("without offset", size=0.45)]
    return drawing.beside(parts, gap=0)


def _side_label(text: str, height: int, second: str = "") -> np.ndarray:
    label = np.full((max(height, 2 * drawing.LINE), 100, 3), drawing.PAPER, np.uint8)
    label[: drawing.LINE] = drawing.caption(text, 100)[:, :100]
    small = drawing.caption(second, 100, size=0.4, colour=drawing.FAINT)
    label[drawing.LINE : 2 * drawing.LINE] = small[:, :100]
    return label[:height] if height >= 2 * drawing.LINE else label[:1]


def _half(found: Inspection, most: int) -> int:
    _, height, width = map(int, found.frames.shape)
    return min(most, height, width)


def _around(found: Inspection, array: np.ndarray, half: int) -> np.ndarray:
    """(2 half + 1) squared around the place; what is outside is zero."""
    padded = np.pad(array, half)
    y, x = found.place
    return padded[y : y + 2 * half + 1, x : x + 2 * half + 1]
