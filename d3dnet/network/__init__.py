"""The network, and how it is run over clips of any length and frames of any size.

Here are the words and numbers by which a network is asked for. Nothing is imported, so that the
command line can name them without torch.

Luma frames → windows, a stream or tiles of them (`streaming`, `tiling`, as `plan` decides from
free `memory`) → the network (`model`, or `guided` with `motion`) → luma frames (`run`).

Public: `model.D3Dnet`, `checkpoints.load_model`, `checkpoints.save_weights`,
`checkpoints.bundled_models`, `run.run_network`, `run.run_paired`, `complexity.measure`,
`cubic.resample_luma`.
"""

from typing import Literal, get_args

SCALE = 4  # that of the published network, of the data sets, and of all that is made with them

Mode = Literal["sequence", "window"]  # every frame's features once, or the published window
Precision = Literal["float32", "bfloat16", "float16"]  # arithmetic of a network
MODES: tuple[Mode, ...] = get_args(Mode)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def check_mode(mode: str) -> None:
    """See that a mode is one.

    >>> check_mode("sequence")
    >>> check_mode("both")
    Traceback (most recent call last):
    ValueError: mode: got 'both'; accepted are sequence, window
    """
    if mode not in MODES:
        raise ValueError(f"mode: got {mode!r}; accepted are {', '.join(MODES)}")
