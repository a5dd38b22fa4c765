"""How this process asks the C library for memory. Imports nothing heavy: call it before anything starts a thread.

glibc gives each thread an arena of its own and hands the memory of large blocks back to the system again and again.
Where a hundred requests hold bodies, pictures and pixels at once, each for a second or so, arenas fragment and grow for
many minutes, though what is in use stays the same; and each batch on a CPU pays for tens of thousands of page faults.
One arena that keeps what it has reaches its size within minutes and stays there, and batches cause no faults.
"""

import ctypes
import os
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_MIB = 2**20

_SETTINGS = {
    _M_ARENA_MAX: 1,
    _M_MMAP_THRESHOLD: 32 * _MIB,  # the most that glibc allows; larger blocks still go back at once
    _M_TRIM_THRESHOLD: 256 * _MIB,
}


def settle() -> bool:
    """Keep this process's memory from fragmenting. Returns whether that was done.

    Not done where the C library is another one, or the environment sets `MALLOC_…` or `GLIBC_TUNABLES` already.
    """
    if platform.libc_ver()[0] != "glibc" or any(
        name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ
    ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) == 1 for name, value in _SETTINGS.items())
