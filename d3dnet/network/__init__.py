"""The network, and how it is run over clips of any length and frames of any size.

Nothing is imported here, so that the command line can name modes and precisions without torch.
"""

from typing import Literal, get_args

Mode = Literal["sequence", "window"]  # every frame's features once, or the published window
Precision = Literal["float32", "bfloat16", "float16"]  # arithmetic of a network
MODES: tuple[Mode, ...] = get_args(Mode)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
