"""Training a network, to be broken off and gone on with at any moment.

Settings (`config`) → numbered samples (`samples`) → gradients and steps (`learner`, `optimizers`,
`flatness`) → a state that survives a power cut (`state`), validated (`validation`) and shown
(`monitor`). `loop` reads top to bottom.
"""

from d3dnet.errors import ExplodedError
from d3dnet.training.config import TrainingConfig, load_config, override
from d3dnet.training.loop import train

__all__ = ["ExplodedError", "TrainingConfig", "load_config", "override", "train"]
