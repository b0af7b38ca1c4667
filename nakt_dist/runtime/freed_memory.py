"""Memory that is freed stays with the process, which soon asks for as much again.

A training frees megabytes each step. Glibc hands them back to the system, which clears each page
when the next step touches it: up to a fifth of the time of augmentation.
"""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of mallopt(3)
_KEPT = 2**30
_LARGEST_OF_OLD_GLIBC = 32 * 2**20
_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Tells glibc to keep up to 1 GiB of what is freed; other C libraries have it their way.

    Returns:
        Whether it does; it is not told where the environment has told it already.
    """
    if any(name in os.environ for name in _USERS_OWN):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    # Either alone would be worse: once one is set, glibc no longer adapts the other.
    large = set_option(_MMAP_THRESHOLD, _KEPT) or set_option(_MMAP_THRESHOLD, _LARGEST_OF_OLD_GLIBC)
    return bool(large and set_option(_TRIM_THRESHOLD, _KEPT))
