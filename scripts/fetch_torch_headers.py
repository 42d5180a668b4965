"""Fetch the headers of the oldest torch that d3dnet promises to build on; print where they are.

tests/ops/test_cuda_compile.py compiles the launchers against them, and skips without them. They
come out of the smallest wheel of that version on PyPI (macOS, 75 MiB; the headers are the same),
which pip downloads and which is not kept. The headers are kept in $XDG_CACHE_HOME/d3dnet, else
~/.cache/d3dnet.

    python scripts/fetch_torch_headers.py
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "2.10.0"  # of pyproject.toml's torch>=
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "d3dnet"
HEADERS = CACHE / f"torch-{VERSION}" / "include"


def fetch() -> None:
    """Download the wheel and unpack its headers."""
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder]
        command += ["--only-binary=:all:", "--platform=macosx_11_0_arm64", "--python-version=312"]
        subprocess.run([*command, f"torch=={VERSION}"], check=True)
        (wheel,) = Path(folder).glob("torch-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            archive.extractall(folder, [n for n in names if n.startswith("torch/include/")])
        HEADERS.parent.mkdir(parents=True, exist_ok=True)
        (Path(folder) / "torch" / "include").replace(HEADERS)


def main() -> None:
    """Fetch what is not there yet."""
    if not HEADERS.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        fetch()
    print(HEADERS)


if __name__ == "__main__":
    main()
