"""Training: `config.py` (what is asked for), `samples.py` (what is drawn), `optimizers.py`,
`state.py` (what is kept), `monitor.py` (what is shown), and `loop.py`, which reads top to bottom.
"""

from d3dnet.errors import ExplodedError
from d3dnet.training.config import TrainingConfig, load_config, override
from d3dnet.training.loop import train

__all__ = ["ExplodedError", "TrainingConfig", "load_config", "override", "train"]
