"""Importing what is large: torch, timm and the like."""

import atexit
import contextlib
import gc
import sys
from collections.abc import Iterator

# Python could tell, but only by counting a million objects, which takes a tenth of a second.
_are_kept = False


def keep_imports() -> None:
    """Tells Python that this process keeps what it imports to its end.

    It then looks for garbage in all but that. A look at what torch and timm bring takes a quarter
    to half a second, and there are several before a first step.
    """
    global _are_kept
    _are_kept = True
    gc.freeze()
    atexit.register(gc.unfreeze)  # some extensions count what is left when Python takes them down


@contextlib.contextmanager
def large_imports() -> Iterator[None]:
    """Surrounds imports, during which nobody looks for garbage."""
    was_on, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if _are_kept and len(sys.modules) > known:
            gc.freeze()
        if was_on:
            gc.enable()
