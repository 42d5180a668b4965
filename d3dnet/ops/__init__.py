"""Deformable 3-D convolution: one operator, a PyTorch reference and compiled kernels."""

from d3dnet.ops.compiled import fallback_problem, instruction_set, instruction_sets
from d3dnet.ops.deform_conv import DeformConv3d, deform_conv3d

__all__ = [
    "DeformConv3d",
    "deform_conv3d",
    "fallback_problem",
    "instruction_set",
    "instruction_sets",
]
