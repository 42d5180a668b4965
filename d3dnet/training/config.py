"""The settings of a training: a frozen dataclass, read from TOML."""

import dataclasses
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from d3dnet.datasets.imresize import Degradation
from d3dnet.network import Mode, Precision

CONFIGS = Path(__file__).parent.parent / "configs"

_AT_LEAST_ONE = (
    *("channels", "resd3d_blocks", "res_blocks", "steps", "batch", "frames", "patch"),
    *(
        "near",
        "joined",
        "still_frames",
        "candidates",
        "halve_every",
        "log_every",
        "validate_every",
        "save_every",
    ),
)


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that a training depends on. Paths are relative to the working directory.

    Attributes:
        run: folder of this training: its state, log and pictures.
        data: kind of the training set: "clips" (videos, folders of frames, stills; see
            `d3dnet.datasets.clips`) or "vimeo90k" (packed or as downloaded).
        root: folder of the training set.
        validation_root: folder of further held-out clips; of a packed Vimeo-90k, that of its test
            list, packed or as downloaded.
        validation_clips: at most so many held-out clips are used, evenly spread; 0 for none.
        held_out: sources (clip names without their number) below ``root`` that are for validation
            only; of "clips".
        still_frames: length of clips made of stills.
        reduced: training clips are also used at so much of their size (0.6: a frame of 640x360 is
            also one of 384x216), where they are sharper and move less; 0 for not; of "clips".
        degradation: what makes the low-resolution side, see `d3dnet.datasets.imresize.degrade`.
        workers: loader processes of each training process; 0 draws in the training process.
        network: "published", or "guided", whose D3D layers follow motion
            (`d3dnet.network.guided.GuidedD3Dnet`).
        channels, resd3d_blocks, res_blocks: the size of the network.
        near, both, joined: of a guided network, see there.
        initial: weights to start from: a bundled name, a weights file, or a training's ``.pt``
            (its moving average); "" for random ones.
        mode: the loss is that of the "window"'s centre frame, as published, or of all frames of
            the "sequence".
        loss: "mse", or "charbonnier": the mean of sqrt(difference² + 0.001²).
        flat_weight: at every third step so much of the mean square of what the network adds to flat
            pictures is a part of the loss; 0 for none. See `d3dnet.training.flatness`.
        steps: how many there are, over all runs.
        rigid_steps: for so many steps offsets are held at zero and their convolutions rest, which
            makes D3D a plain 3-D convolution at half the cost; then deformation is learned.
        batch: samples of a step, over all processes together.
        frames, patch: of a sample: low-resolution frames, and their height and width in pixels.
        candidates: places drawn for a sample, of which the one with the most detail is taken.
        pan_share: of all samples, so many are pans over single frames, see `d3dnet.datasets.pans`.
        scene_share: of all samples, so many are scenes made of stills, see
            `d3dnet.datasets.scenes`; taken after `pan_share`.
        single_frames: so many single frames go with each sample, as scenes that stand still, at
            less than half the cost while offsets rest; in the loss as much as a frame of a clip.
        optimizer: "adam", or "muon" for the inner convolutions and Adam for the rest.
        learning_rate: Adam's, at its highest.
        muon_learning_rate: Muon's, at its highest; it is of the size of Adam's.
        offset_learning_rate_factor: what both are multiplied by for the offset convolutions.
        schedule: after `warmup_steps` "cosine" falls to `final_learning_rate` (Adam's; Muon's falls
            by the same factor) at the last step; "step" halves every `halve_every` steps.
        clip_norm: the gradient's norm is limited to this; 0 for no limit.
        ema: decay of the moving average of the weights; 0 for no average.
        precision: of the network's convolutions (autocast); float16 comes with a loss scale.
        compile: run the network through `torch.compile`.
        deterministic: only algorithms that repeat to the bit, also on a GPU.
        device: "auto", "cpu", "cuda" or "cuda:N".
        seed: of the first weights and of all samples.
        offset_limit: stop when the mean length of a layer's offsets is beyond so many pixels.
        log_every, validate_every, save_every: in steps; offsets are checked before every save.
        pictures: held-out clips of which a picture is made at every validation.
    """

    run: str = ""
    data: Literal["clips", "vimeo90k"] = "clips"
    root: str = ""
    validation_root: str = ""
    validation_clips: int = 32
    held_out: tuple[str, ...] = ()
    still_frames: int = 9
    reduced: float = 0.0
    degradation: Degradation = "double"
    workers: int = 0
    network: Literal["published", "guided"] = "published"
    channels: int = 64
    resd3d_blocks: int = 5
    res_blocks: int = 6
    near: int = 24
    both: bool = False
    joined: int = 1
    initial: str = ""
    mode: Mode = "sequence"
    loss: Literal["mse", "charbonnier"] = "mse"
    flat_weight: float = 0.0
    steps: int = 4000
    rigid_steps: int = 0
    batch: int = 2
    frames: int = 7
    patch: int = 32
    candidates: int = 1
    pan_share: float = 0.0
    scene_share: float = 0.0
    single_frames: int = 0
    optimizer: Literal["adam", "muon"] = "adam"
    learning_rate: float = 4e-4
    muon_learning_rate: float = 1e-3
    offset_learning_rate_factor: float = 1.0
    schedule: Literal["cosine", "step"] = "cosine"
    halve_every: int = 1000
    final_learning_rate: float = 0.0
    warmup_steps: int = 0
    clip_norm: float = 0.0
    ema: float = 0.0
    precision: Precision = "float32"
    compile: bool = False
    deterministic: bool = False
    device: str = "auto"
    seed: int = 0
    offset_limit: float = 16.0
    log_every: int = 50
    validate_every: int = 250
    save_every: int = 100
    pictures: int = 3

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            words = get_args(field.type) if get_origin(field.type) is Literal else (value,)
            if value not in words:
                raise ValueError(f"{field.name}: got {value!r}; accepted are {', '.join(words)}")
            least = 1 if field.name in _AT_LEAST_ONE else 0
            if field.type in (int, float) and not least <= value < math.inf:
                raise ValueError(f"{field.name}: got {value}; accepted is a number from {least} up")
        if self.mode == "window" and self.frames % 2 == 0:
            raise ValueError(f"frames: got {self.frames}; a window has an odd number of frames")
        if self.mode == "sequence" and self.precision == "bfloat16" and self.frames < 7:
            # oneDNN leaves the gradient of the bottleneck's outer taps unwritten there.
            raise ValueError(f"frames: got {self.frames}; with bfloat16 accepted are 7 or more")
        if self.reduced >= 1:
            raise ValueError(f"reduced: got {self.reduced}; accepted is a size below 1, 0 for none")
        for name in ("pan_share", "scene_share"):
            if getattr(self, name) > 1:
                raise ValueError(
                    f"{name}: got {getattr(self, name)}; accepted is a share from 0 to 1"
                )
        if self.is_guided and (self.pan_share or self.single_frames or self.rigid_steps):
            raise ValueError(
                "pan_share, single_frames, rigid_steps: got one of them for a guided network; "
                "it learns to join frames from scene_share, and single frames with frames=1"
            )
        if self.learning_rate == 0:
            raise ValueError("learning_rate: got 0; accepted is a number above 0")
        if self.ema >= 1:
            raise ValueError(f"ema: got {self.ema}; accepted is a decay below 1")

    @property
    def is_guided(self) -> bool:
        """Whether samples are of guided frames."""
        return self.network == "guided"

    def toml(self) -> str:
        """The settings as a TOML document that `load_config` reads."""
        return "".join(
            f"{name} = {_literal(value)}\n" for name, value in dataclasses.asdict(self).items()
        )


def load_config(name_or_path: str | Path, settings: Sequence[str] = ()) -> TrainingConfig:
    """Read a TOML file and apply ``key=value`` settings to it.

    Args:
        name_or_path: a TOML file, or the name of one in ``d3dnet/configs``.
        settings: as for `override`.

    Raises:
        ValueError: no such file, not TOML, or unknown keys or values; it lists the accepted.

    >>> load_config("clips", ["root=CLIPS", "steps=100"]).steps
    100
    """
    path = Path(name_or_path)
    if not path.is_file():
        path = CONFIGS / f"{name_or_path}.toml"
    if not path.is_file():
        names = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.toml")))
        raise ValueError(f"{name_or_path}: no such file; accepted are a .toml file, or {names}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from None
    try:
        return override(TrainingConfig(**_checked(values)), settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def override(config: TrainingConfig, settings: Sequence[str]) -> TrainingConfig:
    """Apply ``key=value`` settings; values are as in TOML, but text needs no quotation marks.

    Raises:
        ValueError: unknown keys or values; it lists the accepted.

    >>> override(TrainingConfig(), ["mode=window", 'held_out=["city"]']).held_out
    ('city',)
    """
    values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"setting {setting!r}: accepted is key=value")
        try:
            values[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[name] = text
        if _types().get(name) is str:
            values[name] = text.strip("\"'")
    return dataclasses.replace(config, **_checked(values))


def _types() -> dict[str, Any]:
    """The type of each setting; that of words is ``str``."""
    return {
        field.name: str if get_origin(field.type) is Literal else field.type
        for field in dataclasses.fields(TrainingConfig)
    }


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, of the types of their fields."""
    types, checked = _types(), {}
    for name, value in values.items():
        if name not in types:
            raise ValueError(f"{name}: no such setting; accepted are {', '.join(types)}")
        wanted = types[name]
        if wanted is float and type(value) is int:
            value = float(value)
        if wanted == tuple[str, ...]:
            fits = isinstance(value, list | tuple) and all(type(item) is str for item in value)
            value, kind = tuple(value) if fits else value, 'a list such as ["a", "b"]'
        else:
            fits = type(value) is wanted
            kind = {int: "a whole number", float: "a number", bool: "true or false"}.get(
                wanted, "text in quotation marks"
            )
        if not fits:
            raise ValueError(f"{name}: got {value!r}; accepted is {kind}")
        checked[name] = value
    return checked


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return repr(value)
