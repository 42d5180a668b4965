"""Memory that the C library keeps for the next step, instead of giving it back.

A training allocates and frees the same large tensors at every step. By default glibc maps each of
them anew and gives it back to the kernel, which then clears it, page by page: a tenth of a step.
"""

import ctypes
import platform

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEPT = 2**31 - 1  # bytes at the end of the heap that are not given back


def keep_freed_memory() -> bool:
    """Have this process keep memory that it frees; whether that could be had.

    Nothing changes where the C library is not glibc. The process then holds what it needed most.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, KEPT))
