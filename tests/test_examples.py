"""What a wing calls public is there, and a public function shows how it is called."""

import inspect
import re
from importlib import import_module

import pytest

import d3dnet
from tests.test_tree import WINGS


def public_names(wing: str) -> list[str]:
    """Names in ``__all__`` of a wing, and those that its docstring calls public."""
    module = import_module(f"d3dnet.{wing}")
    told = re.search(r"^Public: (.*?)\.$", module.__doc__, re.S | re.M)
    names = re.findall(r"`([\w.]+)`", told[1]) if told else []
    return [*getattr(module, "__all__", []), *names]


def look_up(wing: str, name: str) -> object:
    *inside, last = name.split(".")
    return getattr(import_module(".".join(["d3dnet", wing, *inside])), last)


@pytest.mark.parametrize("wing", WINGS)
def test_every_public_function_of_a_wing_is_there_and_has_an_example(wing):
    values = {name: look_up(wing, name) for name in public_names(wing)}
    bare = [
        n for n, v in values.items() if inspect.isfunction(v) and ">>>" not in (v.__doc__ or "")
    ]
    assert not bare


@pytest.mark.parametrize("name", d3dnet.__all__)
def test_every_public_name_of_the_package_has_an_example(name):
    assert ">>>" in getattr(d3dnet, name).__doc__
