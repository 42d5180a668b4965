"""What was measured, in a file that later runs go on with, and the table made of it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Numbers = dict[str, float]


@dataclass
class Entry:
    """A peer's numbers, and the version of it that they are of."""

    version: str
    numbers: Numbers


@dataclass
class Results:
    """Quality by test set and peer; speed by peer, all of one run, and what it ran on."""

    quality: dict[str, dict[str, Entry]] = field(default_factory=dict)
    speed: dict[str, Entry] = field(default_factory=dict)
    machine: str = ""

    @classmethod
    def read(cls, path: Path) -> "Results":
        """What a file holds; nothing where there is none."""
        if not path.exists():
            return cls()
        found = json.loads(path.read_text())
        return cls(
            {frames: _entries(peers) for frames, peers in found["quality"].items()},
            _entries(found["speed"]),
            found["machine"],
        )

    def write(self, path: Path) -> None:
        partial = path.with_name(path.name + ".part")
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        partial.replace(path)

    def scored(self, frames: str, peer: str, version: str) -> bool:
        """Whether this version of a peer was scored on these frames."""
        entry = self.quality.get(frames, {}).get(peer)
        return entry is not None and entry.version == version

    def table(self, frames: str, versions: dict[str, str]) -> str:
        """Markdown: a row for each peer of `versions`; empty cells for what is not known of it."""
        lines = [_line(["", *COLUMNS]), _line(["---"] * (1 + len(COLUMNS)))]
        for name, version in versions.items():
            known: Numbers = {}
            for entries in (self.quality.get(frames, {}), self.speed):
                if name in entries and entries[name].version == version:
                    known |= entries[name].numbers
            lines.append(_line([name, *(_cell(text, known) for text in COLUMNS.values())]))
        return "\n".join(lines)


COLUMNS = {
    "`y-crop0`, dB / SSIM": "{psnr:.3f} / {ssim:.4f}",
    "`d3dnet`, dB / SSIM": "{psnr_d3dnet:.3f} / {ssim_d3dnet:.4f}",
    "temporal error": "{temporal_error:.2f}",
    "tOF": "{tof:.3f}",
    "CPU s a frame, one thread": "{cpu_one:.3f}",
    "CPU s a frame, all threads": "{cpu_all:.3f}",
    "frames a second, all threads": "{fps_all:.3g}",
    "peak memory, MiB": "{memory:.0f}",
}


def _cell(text: str, known: Numbers) -> str:
    try:
        return text.format(**known)
    except KeyError:
        return ""


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _entries(found: dict[str, dict[str, Any]]) -> dict[str, Entry]:
    return {name: Entry(entry["version"], entry["numbers"]) for name, entry in found.items()}
