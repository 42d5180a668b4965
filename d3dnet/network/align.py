"""Neighbouring frames' features brought to where this frame shows the same things."""

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor


class Way:
    """The way from the pixels of frames to a neighbouring frame of each.

    Several layers follow the same way: what they share is worked out once.

    Args:
        motion: (N, 3, h, w) rows and columns to go, in pixels, and the confidence in it.
    """

    def __init__(self, motion: Tensor) -> None:
        self.motion = motion

    def align(self, features: Tensor) -> Tensor:
        """What the neighbours show at the frames' pixels.

        Args:
            features: (N, C, h, w) of the neighbours.

        Returns:
            (N, C, h, w): features at p + motion(p), bilinear, zero outside, times the confidence.

        >>> way = Way(torch.tensor([0.0, 1.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 1, 3))
        >>> way.align(torch.tensor([5.0, 6.0, 7.0]).view(1, 1, 1, 3)).flatten().tolist()
        [6.0, 7.0, 0.0]
        """
        if self._sums_rows(features):
            index, weight = self._corners
            rows = features.permute(0, 2, 3, 1).flatten(0, 2)  # a pixel's channels side by side
            pixels = F.embedding_bag(index, rows, mode="sum", per_sample_weights=weight)
            count, height, width = features.shape[0], *features.shape[2:]
            aligned: Tensor = pixels.unflatten(0, (count, height, width))
            return aligned.permute(0, 3, 1, 2)
        place = self._place.to(features.dtype)
        moved = F.grid_sample(features, place, padding_mode="zeros", align_corners=False)
        return moved * self.motion[:, 2:].to(features.dtype)

    def then(self, on: Tensor) -> "Way":
        """This way, and on from each pixel by the neighbours' own motion (N, 3, h, w)."""
        certain = torch.ones_like(self.motion[:, :1])
        moved = Way(torch.cat([self.motion[:, :2], certain], 1)).align(on)
        to = self.motion[:, :2] + moved[:, :2]
        return Way(torch.cat([to, self.motion[:, 2:] * moved[:, 2:]], 1))

    def _sums_rows(self, features: Tensor) -> bool:
        """Whether to sum pixels in channels-last layout, the quicker way on a CPU by far."""
        learns = torch.is_grad_enabled() and features.requires_grad
        return features.device.type == "cpu" and features.dtype == torch.float32 and not learns

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """Rows and columns (N, h, w) that the pixels lead to."""
        height, width = self.motion.shape[2:]
        device = self.motion.device
        rows = torch.arange(height, device=device)[:, None] + self.motion[:, 0]
        columns = torch.arange(width, device=device) + self.motion[:, 1]
        return rows, columns

    @cached_property
    def _place(self) -> Tensor:
        """The same as `grid_sample` takes them: (N, h, w, 2), columns first, from -1 to 1."""
        height, width = self.motion.shape[2:]
        rows, columns = self._places
        return torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1)

    @cached_property
    def _corners(self) -> tuple[Tensor, Tensor]:
        """The four pixels around each place, as rows of all pixels, and their shares: (pixels, 4).

        A corner outside of the frame has no share.
        """
        count, _, height, width = self.motion.shape
        first_of_frame = height * width * torch.arange(count).view(-1, 1, 1)
        indices, weights = [], []
        above, left = (place.floor() for place in self._places)
        for y in (above, above + 1):
            for x in (left, left + 1):
                share = (1 - (self._places[0] - y).abs()) * (1 - (self._places[1] - x).abs())
                inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
                weights.append(share * inside * self.motion[:, 2])
                at = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
                indices.append(first_of_frame + at.long())
        return torch.stack(indices, -1).view(-1, 4), torch.stack(weights, -1).view(-1, 4)
