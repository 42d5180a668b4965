"""Imports go one way between the wings of the package, and nowhere in circles."""

import ast
from pathlib import Path

import pytest

import d3dnet

PACKAGE = Path(d3dnet.__file__).parent
EVERYWHERE = {"errors", "files", "wording"}  # which import nothing of ours themselves
MAY_IMPORT = {
    "ops": set(),
    "network": {"ops"},
    "video": {"network"},
    "job": {"network", "video"},
    "datasets": {"network", "video"},
    "evaluation": {"datasets", "network", "video"},
    "training": {"datasets", "evaluation", "network"},
    "inspection": {"job", "network", "video"},
    "commands": {"datasets", "evaluation", "inspection", "job", "network", "ops", "training"}
    | {"video"},
    "cli": {"commands"},
    "__main__": {"cli"},
    "errors": set(),
    "files": set(),
    "wording": set(),
}
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imported(node: ast.AST) -> list[str]:
    """Our modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [name.name for name in node.names if name.name in MODULES]
    if not isinstance(node, ast.ImportFrom) or node.module is None:
        return []
    names = [f"{node.module}.{name.name}" for name in node.names]
    found = [name if name in MODULES else node.module for name in names]
    return [name for name in found if name in MODULES]


def wing(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("importer", sorted(set(MODULES) - {"d3dnet"}))
def test_a_wing_imports_only_what_is_below_it(importer):
    """Anywhere in the source: in functions and for annotations too."""
    tree = ast.walk(ast.parse(MODULES[importer].read_text()))
    wings = {wing(name) for node in tree for name in imported(node)} - {""}  # "": the version
    assert wings <= EVERYWHERE | MAY_IMPORT[wing(importer)] | {wing(importer)}


def test_no_module_needs_itself_to_be_imported():
    needs = {
        module: {name for node in ast.parse(path.read_text()).body for name in imported(node)}
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def follow(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path, module))
        if module not in done:
            for name in needs[module] - {"d3dnet"}:
                follow(name, (*path, module))
            done.add(module)

    for module in MODULES:
        follow(module, ())


def test_the_root_has_seven_modules_at_most():
    assert len([path for path in PACKAGE.glob("*.py")]) <= 7
