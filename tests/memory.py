"""How much memory a piece of code takes, for however short."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

_RESET_PEAK = "5"


@contextlib.contextmanager
def at_most_megabytes(most: float) -> Iterator[None]:
    """Fails where this process came to hold so much more in between than before."""
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    before = _kilobytes("VmRSS")
    yield
    grown = (_kilobytes("VmHWM") - before) / 1024
    assert grown < most, f"took {grown:.0f} MB, allowed: {most}"


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
