"""Freed memory stays with the process, where the C library can do that."""

import platform

from d3dnet.training.heap import keep_freed_memory

PROGRAM = """
import resource, sys, torch
from d3dnet.training.heap import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    torch.ones(16 * 2**20)  # 64 MB, freed at once
work()
before = faults()
for _ in range(5):
    work()
print(faults() - before)
"""


def test_a_tensor_as_large_as_one_before_takes_no_new_pages(start):
    if platform.libc_ver()[0] != "glibc":
        assert keep_freed_memory() is False
        return
    kept, given_back = (
        int(start("-c", PROGRAM, word).communicate()[0]) for word in ("keep", "do not")
    )
    assert kept < given_back / 3
