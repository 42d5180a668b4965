"""The forward of D3Dnet's layers in Triton, as short as it can be: a yardstick for our kernels.

What a compiler makes of the plain algorithm: 64 channels, 3x3x3, padding 1, "HW", bfloat16, no bias
and no gradient. Height times width must be a multiple of 128. For scripts/benchmark_cuda.py, where
Triton is installed; it has not been run on a GPU yet.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS = 128


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _forward(  # type: ignore[no-untyped-def]  # Triton's own
    x, offset, weight, y, frames, height, width, channels: tl.constexpr, pixels: tl.constexpr
):  # fmt: skip
    """A block is `pixels` pixels of one frame; tensors are channels last, offsets contiguous."""
    size = height * width
    frame = tl.program_id(1)
    t = frame % frames
    pixel = tl.program_id(0) * pixels + tl.arange(0, pixels)
    channel = tl.arange(0, channels)
    total = tl.zeros((pixels, channels), tl.float32)
    clip = frame // frames
    for tap in range(27):
        source = t + tap // 9 - 1
        if (source >= 0) & (source < frames):
            at = offset + ((clip * 54 + 2 * tap).to(tl.int64) * frames + t) * size + pixel
            dy = tl.load(at)
            dx = tl.load(at + frames.to(tl.int64) * size)
            fy, fx = tl.floor(dy), tl.floor(dx)
            row = pixel // width + tap // 3 % 3 - 1 + fy.to(tl.int32)
            column = pixel % width + tap % 3 - 1 + fx.to(tl.int32)
            ay, ax = dy - fy, dx - fx
            sampled = tl.zeros((pixels, channels), tl.float32)
            for i in tl.static_range(2):
                for j in tl.static_range(2):
                    share = (ay if i else 1 - ay) * (ax if j else 1 - ax)
                    inside = (row + i >= 0) & (row + i < height)
                    inside = inside & (column + j >= 0) & (column + j < width) & (share != 0)
                    first = (clip * frames + source).to(tl.int64) * size
                    first = (first + (row + i) * width + column + j) * channels
                    value = tl.load(
                        x + first[:, None] + channel[None, :], mask=inside[:, None], other=0.0
                    )
                    sampled += share[:, None] * value.to(tl.float32)
            matrix = tl.load(
                weight + (tap * channels + channel[:, None]) * channels + channel[None, :]
            )
            total = tl.dot(sampled.to(tl.bfloat16), matrix, total)
    to = y + (frame.to(tl.int64) * size + pixel[:, None]) * channels + channel[None, :]
    tl.store(to, total.to(tl.bfloat16))


def forward(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """(B, 64, T, H, W), (B, 54, T, H, W), (64, 64, 3, 3, 3) → (B, 64, T, H, W), channels last."""
    batch, channels, frames, height, width = x.shape
    if height * width % PIXELS:
        raise ValueError(f"{height}x{width}: accepted is a multiple of {PIXELS} pixels")
    rows = x.permute(0, 2, 3, 4, 1).contiguous()
    matrices = weight.flatten(2).permute(2, 1, 0).contiguous()
    output = torch.empty_like(rows)
    grid = (height * width // PIXELS, batch * frames)
    sizes = {"channels": channels, "pixels": PIXELS, "num_warps": 8, "num_stages": 2}
    _forward[grid](rows, offset.contiguous(), matrices, output, frames, height, width, **sizes)
    return output.permute(0, 4, 1, 2, 3)
