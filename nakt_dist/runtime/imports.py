"""Importing what is large: torch, timm and the like."""

import atexit
import contextlib
import gc
import sys
from collections.abc import Iterator


def keep_imports() -> None:
    """Tells Python that this process keeps what it imports to its end.

    It then looks for garbage in all but that. A look at what torch and timm bring takes a quarter
    to half a second, and there are several before a first step.
    """
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
        if gc.get_freeze_count() and len(sys.modules) > known:  # see keep_imports
            gc.freeze()
        if was_on:
            gc.enable()
