"""Whether a teacher saw images in a test as it did when it wrote pseudo-labels.

The capability of a student compares it with its teacher: with the network that taught it, and not
with what the same weights say of images at another size, or less another mean.
"""

from collections.abc import Mapping
from typing import Any

from nakt_dist.records.fields import printable


def seen_otherwise(taught: Mapping[str, Any], told: Any, size: tuple[int, int]) -> str:
    """Says in what a test showed a teacher images otherwise than it saw them when it taught.

    Args:
        taught: its preprocessing then, see ``Network.seen``; empty where nobody says.
        told: that of the test, as a record holds it.
        size: height and width of the test's images.

    Returns:
        What differs, in words; empty where nothing does.
    """
    sides = dict(zip(("height", "width"), size, strict=True))
    known = told if isinstance(told, Mapping) else {}
    tested = {**known, **{name: known.get(name) or side for name, side in sides.items()}}
    return ", ".join(
        f"preprocessing.{name} {printable(str(value))}, and {printable(str(tested[name]))} in the "
        "test"
        for name, value in taught.items()
        if value is not None and name in tested and not _alike(value, tested[name])
    )


def _alike(one: Any, other: Any) -> bool:
    """Says whether means, or deviations, are alike; one number stands for all channels."""
    first, second = (each if isinstance(each, list) else [each] for each in (one, other))
    longest = max(len(first), len(second))
    first, second = (each * longest if len(each) == 1 else each for each in (first, second))
    return first == second
