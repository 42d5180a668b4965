"""Vimeo-90k septuplets as downloaded: ``sequences/00001/0001/im1.png`` ... ``im7.png`` and lists.

Low-resolution frames are read from ``LR_x4/`` where it is (``LR_x4_BD/`` for BD), and otherwise
made on the fly. Decoding 7 or 14 images for each sample starves a GPU:
`scripts/prepare_vimeo90k.py` packs a list of septuplets into a `LumaStore` once. Both are sequences
of `Clip`, for `EpochPatches`.
"""

import os
from pathlib import Path

import numpy as np

from d3dnet.datasets.benchmarks import BD_FOLDERS, HR_FOLDERS, LR_FOLDERS, SEPTUPLET, role_folder
from d3dnet.datasets.clips import Clip, clip_from_rgb
from d3dnet.datasets.frames import as_rgb, read_image
from d3dnet.datasets.imresize import Degradation
from d3dnet.datasets.luma import store_luma
from d3dnet.datasets.luma_store import LumaStore
from d3dnet.errors import BadClipError
from d3dnet.network import SCALE

TRAIN_LIST = "sep_trainlist.txt"
TEST_LIST = "sep_testlist.txt"


class Vimeo90k:
    """The septuplets of a list, decoded when asked for.

    Args:
        root: folder with ``sequences/`` (or ``GT/``) and the list.
        listing: name of the list in it, one septuplet ("00001/0001") a line.
        degradation: of low-resolution frames; the bicubic recipe only counts where they are made.
        make_lr: make low-resolution frames although there is a folder of them.

    Attributes:
        names: of the septuplets, in the order of the list.
        lr_source: where low-resolution frames come from, in words.

    Raises:
        FileNotFoundError: when the folder, its ``sequences/`` or the list is not there.
        ValueError: when the list is empty.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        listing: str = TRAIN_LIST,
        degradation: Degradation = "double",
        make_lr: bool = False,
    ) -> None:
        root = Path(root)
        self.listing = root / listing
        hr = role_folder(root, HR_FOLDERS) if root.is_dir() else None
        if hr is None or not self.listing.is_file():
            raise FileNotFoundError(
                f"{root}: needed are a folder sequences/ and the list {listing}; give the folder "
                "that vimeo_septuplet.zip was unpacked to, or a packed one"
            )
        self.names = self.listing.read_text().split()
        if not self.names:
            raise ValueError(f"{self.listing}: names no septuplets; copy it again")
        self.degradation = degradation
        self._hr = hr
        folders = BD_FOLDERS if degradation == "bd" else LR_FOLDERS
        self._lr = None if make_lr else role_folder(root, folders)
        self.lr_source = str(self._lr.name) if self._lr else f"made, {degradation}"

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Clip:
        """Decode septuplet ``index``.

        Raises:
            BadClipError: when frames are missing, damaged, or of unlike or wrong sizes.
        """
        name = self.names[index]
        hr = _read_frames(self._hr / name, name)
        if self._lr is None:
            return clip_from_rgb(name, hr, self.degradation)
        lr = _read_frames(self._lr / name, name)
        expected = tuple(size // SCALE for size in hr.shape[1:3])
        if lr.shape[1:3] != expected:
            raise BadClipError(
                name,
                [(self._lr / name, f"frames of {lr.shape[1:3]}; a quarter would be {expected}")],
            )
        height, width = (SCALE * size for size in expected)
        return Clip(name, store_luma(hr[:, :height, :width]), store_luma(lr))


def open_septuplets(
    path: str | os.PathLike[str], listing: str = TRAIN_LIST, degradation: Degradation = "double"
) -> LumaStore | Vimeo90k:
    """The septuplets at ``path``, packed ones or as downloaded.

    Raises:
        FileNotFoundError: when neither is there.
        ValueError: when a packed set is incomplete, damaged, or of another degradation or list.
    """
    if not LumaStore.is_at(path):
        return Vimeo90k(path, listing, degradation)
    store = LumaStore(path)
    for name, wanted in (("degradation", degradation), ("list", listing)):
        if store.settings.get(name) != wanted:
            raise ValueError(
                f"{path}: packed with {name} {store.settings.get(name)!r}, wanted is {wanted!r}; "
                "pack another store"
            )
    return store


def _read_frames(folder: Path, name: str) -> np.ndarray:
    """The seven frames of a folder, (7, H, W, 3) uint8 RGB."""
    frames, bad = [], []
    for number in range(1, SEPTUPLET + 1):
        path = folder / f"im{number}.png"
        if not path.is_file():
            bad.append((path, "missing"))
            continue
        try:
            frames.append(as_rgb(read_image(path)))
        except ValueError as error:
            bad.append((path, str(error).removeprefix(f"{path}: ")))
            continue
        if frames[-1].shape != frames[0].shape:
            bad.append((path, f"{frames[-1].shape} among frames of {frames[0].shape}"))
    if bad:
        raise BadClipError(name, bad)
    return np.stack(frames)
