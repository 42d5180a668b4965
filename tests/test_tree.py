"""The shape of the tree: few modules at its root, imports one way, tests beside modules."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "d3dnet"
WINGS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
# Tests of what no single module does, by wing.
ACROSS_MODULES = {
    "inspection": {"inspection"},
    "job": {"colour_bars", "resume", "upscale_memory"},
    "ops": {"cpu_kernel", "cuda_compile", "cuda_host", "non_finite", "oracle", "values"},
    "training": {"bare_machine", "guided", "resume"},
    "video": {"alpha", "codecs", "fuzz", "part", "surroundings", "torture"},
}
# Who must not know of whom, wherever the import stands.
STRANGERS = [
    *(("ops", other) for other in ("network", "video", "job", "datasets", "evaluation")),
    *(("network", other) for other in ("video", "job", "datasets", "evaluation", "training")),
    *(("video", other) for other in ("job", "datasets", "evaluation", "training", "inspection")),
    *(("job", other) for other in ("datasets", "evaluation", "training", "inspection")),
    ("datasets", "evaluation"),
    ("datasets", "training"),
    ("evaluation", "training"),
    ("datasets", "job"),
    ("evaluation", "job"),
    ("training", "job"),
]


def modules_of(wing: str) -> list[Path]:
    return [path for path in sorted((PACKAGE / wing).glob("*.py")) if path.stem != "__init__"]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(path: Path, everywhere: bool) -> set[str]:
    """The modules of d3dnet that a file imports, at its top level or anywhere in it."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in inside}
    return {name for name in found if name in MODULES} - {name_of(path)}


def wings_of(modules: set[str]) -> set[str]:
    return {name.split(".")[1] for name in modules if name.count(".")} & set(WINGS)


def test_at_most_seven_modules_are_at_the_root():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert len(modules) <= 7, modules


def test_every_wing_says_what_it_is():
    for wing in WINGS:
        assert ast.get_docstring(ast.parse((PACKAGE / wing / "__init__.py").read_text())), wing


def test_modules_are_not_longer_than_about_four_hundred_lines():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in [*PACKAGE.rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
        if (lines := len(path.read_text().splitlines())) > 420
    }
    assert not long


@pytest.mark.parametrize(("wing", "stranger"), STRANGERS)
def test_a_wing_knows_nothing_of_those_above_it(wing, stranger):
    knowing = {
        str(path.relative_to(ROOT))
        for path in modules_of(wing)
        if stranger in wings_of(imports_of(path, everywhere=True))
    }
    assert not knowing


def test_imports_between_wings_go_one_way():
    graph = {
        wing: set().union(
            *(wings_of(imports_of(path, everywhere=True)) for path in modules_of(wing))
        )
        - {wing}
        for wing in WINGS
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"wings import each other in a circle: {' -> '.join(error.args[1])}")


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: imports_of(path, everywhere=False) for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' -> '.join(error.args[1])}")


def test_tests_stand_where_their_modules_do():
    folders = {path.parent.name for path in ROOT.glob("tests/*/test_*.py")}
    assert folders <= {*WINGS, "gpu"}
    for wing in folders - {"gpu"}:
        tests = {path.stem.removeprefix("test_") for path in ROOT.glob(f"tests/{wing}/test_*.py")}
        modules = {path.stem for path in modules_of(wing)}
        assert tests - modules <= ACROSS_MODULES.get(wing, set()), wing
