"""All errors are in one place, have one root, and say what the command line exits with."""

import ast
import pickle
from pathlib import Path

import pytest

import d3dnet
from d3dnet import errors
from d3dnet.errors import D3dnetError, exit_code

PACKAGE = Path(d3dnet.__file__).parent
CLASSES = [found for found in vars(errors).values() if isinstance(found, type)]
CLASSES = [found for found in CLASSES if issubclass(found, Exception)]


def test_no_other_module_defines_an_error_that_leaves_it():
    elsewhere = [
        f"{path.name}: {node.name}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "errors.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Exception"))
        if not node.name.startswith("_")
    ]
    assert elsewhere == []


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_the_root_and_an_exit_code_of_the_manual(kind):
    assert issubclass(kind, D3dnetError)
    assert kind.exit_code in (1, 2, 3)


def test_an_error_of_a_worker_arrives_as_it_is():
    error = pickle.loads(pickle.dumps(errors.OtherWorkError("made of something else")))
    assert (type(error), str(error)) == (errors.OtherWorkError, "made of something else")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InputError("x"), 1),
        (errors.CheckpointError("x"), 1),
        (errors.DeviceError("x"), 3),
        (errors.EncoderError("x"), 3),
        (ValueError("x"), 2),
        (MemoryError(), 3),
        (OSError("x"), 1),
        (RuntimeError("x"), 1),
    ],
    ids=repr,
)
def test_what_the_command_line_exits_with(error, code):
    assert exit_code(error) == code
