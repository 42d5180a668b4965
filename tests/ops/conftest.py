"""Runs a test on the PyTorch reference and on every instruction set of the compiled kernel."""

from collections.abc import Iterator

import pytest

from d3dnet.ops import fallback_problem, instruction_set, instruction_sets
from d3dnet.ops.compiled import INSTRUCTION_SETS, set_instruction_set


@pytest.fixture(params=("reference", *INSTRUCTION_SETS))
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of an implementation; the operator uses it while the test runs, unless "reference"."""
    name = request.param
    if name == "reference":
        yield name
        return
    if fallback_problem() is not None:
        pytest.skip(f"the compiled CPU kernel is not used: {fallback_problem()}")
    if name not in instruction_sets():
        pytest.skip(f"this machine or build has no {name}, only {', '.join(instruction_sets())}")
    before = instruction_set()
    set_instruction_set(name)
    yield name
    set_instruction_set(before)
