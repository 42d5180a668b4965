"""What the documents name is there: paths, links, commands, options, variables, targets."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from d3dnet import cli

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
# These tell what was; their paths may be of then.
HISTORY = {"CHANGELOG.md", "training-log.md"}
PLACES = ("cuda_ops/", "d3dnet/", "data/", "docs/", "scripts/", "tests/", ".github/")
MADE_LATER = {"docs/gpu-results.md"}  # by `make gpu-check`
BUILT = re.compile(r"d3dnet/_C_\w+\.so")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(text: str) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in headings}


def code_lines(text: str) -> list[str]:
    """Lines of indented and fenced code, with lines that a backslash joins in one."""
    fenced = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M))
    indented = "\n".join(re.findall(r"^ {4}(.*)$", text, re.M))
    return (fenced + "\n" + indented).replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text()), target


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if p.name not in HISTORY], ids=ids)
def test_paths_that_documents_name_are_there(path):
    named = re.findall(r"[\w.\-*/]+/[\w.\-*/]*", path.read_text())
    missing = {
        name
        for name in (name.rstrip(".") for name in named)
        if name.startswith(PLACES)
        and name not in MADE_LATER
        and not BUILT.fullmatch(name)
        and not list(ROOT.glob(name))
    }
    assert not missing


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_make_has_the_targets_that_documents_name(path):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    text = path.read_text()
    named = set(re.findall(r"`make ([a-z-]+)", text)) | {
        match[1] for line in code_lines(text) if (match := re.match(r"make ([a-z-]+)", line))
    }
    assert named <= targets


def commands() -> dict[str, argparse.ArgumentParser]:
    parser = cli.build_parser()
    (found,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return found.choices


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_commands_have_the_options_that_documents_give_them(path):
    known = commands()
    for line in code_lines(path.read_text()):
        line = re.sub(r"^\$ |^(\.venv/bin/)", "", line)
        if not line.startswith("d3dnet "):
            continue
        words = shlex.split(line, comments=True)
        assert words[1].startswith("-") or words[1] in known, line
        options = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
        accepted = known[words[1]]._option_string_actions if words[1] in known else {"--help": None}
        assert options <= set(accepted), line


def test_contributing_lists_every_environment_variable_once():
    sources = [*(ROOT / "d3dnet").rglob("*.py"), *ROOT.glob("scripts/**/*.py"), ROOT / "setup.py"]
    sources += [*ROOT.glob("tests/*.py"), *ROOT.glob("tests/*/*.py")]
    text = "\n".join(path.read_text() for path in sources if path != Path(__file__))
    read = set(re.findall(r"environ(?:\.get\(|\[)\s*[\"'](\w+)[\"']", text))
    read |= set(re.findall(r"^[A-Z_]*VARIABLE = [\"'](\w+)[\"']", text, re.M))
    read -= {"PYTHONPATH"}  # Python's own
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## Environment variables")[2]
    rows = re.findall(r"^\| (`.*?) \|", table.partition("\n## ")[0], re.M)
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(listed) == len(set(listed))
    assert set(listed) == read


def test_contributing_names_every_script_once():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for script in ROOT.glob("scripts/*.py"):
        assert len(re.findall(rf"\b{script.stem}\.py\b", text)) == 1, script.name
