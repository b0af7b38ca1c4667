"""Whether a network saw the images of a test as it sees or saw others.

The capability of a student compares it with its teacher: with the network that taught it, and not
with what the same weights say of images at another size, or less another mean.
"""

from collections.abc import Mapping
from typing import Any

from nakt_dist.records.fields import printable


def input_differences(
    seen: Mapping[str, Any], told: Any, size: tuple[int, int]
) -> list[tuple[str, str, str]]:
    """Compares what a network sees of images with what it saw in a test.

    Args:
        seen: preprocessing by field; a field that is None, or not there, is not compared.
        told: that of the test, as a record holds it.
        size: height and width of the test's images, for a network that saw them as packed.

    Returns:
        Of each field that differs its name, the value of ``seen`` and that of the test, in words.
    """
    sides = dict(zip(("height", "width"), size, strict=True))
    known = told if isinstance(told, Mapping) else {}
    tested = {**known, **{name: known.get(name) or side for name, side in sides.items()}}
    return [
        (f"preprocessing.{name}", printable(str(value)), printable(str(tested[name])))
        for name, value in seen.items()
        if value is not None and name in tested and not _alike(value, tested[name])
    ]


def seen_otherwise(taught: Mapping[str, Any], told: Any, size: tuple[int, int]) -> str:
    """Says in what a test showed a teacher images otherwise than it saw them when it taught.

    Args:
        taught: its preprocessing then, see ``Network.seen``; empty where nobody says.
        told: as for ``input_differences``.
        size: likewise.

    Returns:
        What differs, in words; empty where nothing does.
    """
    differences = input_differences(taught, told, size)
    return ", ".join(f"{name} {then}, and {now} in the test" for name, then, now in differences)


def _alike(one: Any, other: Any) -> bool:
    """Says whether means, or deviations, are alike; one number stands for all channels."""
    first, second = (each if isinstance(each, list) else [each] for each in (one, other))
    longest = max(len(first), len(second))
    first, second = (each * longest if len(each) == 1 else each for each in (first, second))
    return first == second
