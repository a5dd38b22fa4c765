"""Settings of the C library's memory allocator. Imports nothing heavy, so that `settle` can run before any thread starts.

glibc gives each thread an arena of its own and keeps returning the memory of large blocks to the system. When a hundred
requests hold bodies, pictures and pixels at once, each for a second or so, the arenas fragment and grow for many minutes
although the memory in use stays constant, and each batch on a CPU costs tens of thousands of page faults. A single
arena that keeps its memory reaches its final size within minutes, and batches cause no faults.
"""

import ctypes
import os
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_MIB = 2**20

_SETTINGS = {
    _M_ARENA_MAX: 1,
    _M_MMAP_THRESHOLD: 32 * _MIB,  # the most that glibc allows; larger blocks are still returned at once
    _M_TRIM_THRESHOLD: 256 * _MIB,
}


def settle() -> bool:
    """Keep this process's memory from fragmenting. Return True if the settings were applied.

    Does nothing with another C library, or if the environment already sets `MALLOC_…` or `GLIBC_TUNABLES`.
    """
    if platform.libc_ver()[0] != "glibc" or any(
        name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ
    ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) == 1 for name, value in _SETTINGS.items())


def give_back() -> None:
    """Return freed memory to the system at once, for example that of a model; only glibc needs to be told."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
