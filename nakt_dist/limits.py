"""What settings and files may hold: each limit once.

Every room may import this module; of ours it imports the errors alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from nakt_dist.errors import ConfigurationError

LARGEST_SEED = 2**63 - 1
"""What NumPy and torch both take."""

LARGEST_NUMBER = 2**64 - 1
"""Of an array of whole numbers; seeds of phantoms go so far."""

LARGEST_FACTOR = 1e30
"""Larger numbers, or what a training makes of them, overflow float32."""

LARGEST_INPUT_SIDE = 8192
"""Most rows or columns of a network's input."""

LARGEST_IMAGE_SIDE = 65500
"""Most rows or columns of an image, as JPEG has it."""

MOST_PIXELS = 100_000_000
"""Of one image."""

MOST_PROCESSES = 1024
"""Processes, or threads of one, that a machine may have."""

OLDEST_AGE = 120
"""Years; what a dataset says beyond is no age."""

SECONDS_OF_A_WEEK = 7 * 24 * 3600


def limit(expected: str, holds: Callable[[Any], Any]) -> Mapping[str, Any]:
    """Returns the metadata of a dataclass's field that takes not every value of its type.

    Args:
        expected: which it takes, for messages; ``{value!r}`` stands for the one that was found.
        holds: says whether a value is one of them.
    """
    return {"limit": (expected, holds)}


def within(least: float, most: float, expected: str) -> Mapping[str, Any]:
    """Returns the metadata of a field with a number, or a list of them, from one to another."""

    def holds(value: Any) -> bool:
        numbers = value if isinstance(value, list) else [value]
        return all(least <= number <= most for number in numbers)

    return limit(expected, holds)


PATH = limit("a path, not {value!r}", lambda path: str(path) != "" and "\0" not in str(path))
PATHS = limit("a list of paths, not {value!r}", lambda paths: all(map(PATH["limit"][1], paths)))
SEARCHED = limit("at least one folder", len)
"""Folders below which a stage looks for runs: it reads whatever is there, and needs none of it."""

SPLITS = limit("a list with a split, or null for all splits", len)
POSITIVE = limit("positive", lambda number: number > 0)
NOT_NEGATIVE = limit("0 or more", lambda number: number >= 0)
SHARE = limit("in (0, 1]", lambda share: 0 < share <= 1)
SEED = within(0, LARGEST_SEED, f"0 or more, at most {LARGEST_SEED}")
PROCESSES = within(1, MOST_PROCESSES, f"positive, at most {MOST_PROCESSES}")
FACTOR = limit(f"positive, at most {LARGEST_FACTOR:g}", lambda factor: 0 < factor <= LARGEST_FACTOR)
WEIGHT = within(0, LARGEST_FACTOR, f"from 0 to {LARGEST_FACTOR:g}")
SECONDS = limit("positive, at most a week", lambda seconds: 0 < seconds <= SECONDS_OF_A_WEEK)


@dataclass(frozen=True)
class Limited:
    """A dataclass of settings whose values are checked against the limits of their fields.

    ``class Recipe(Limited, group="recipe")`` says what messages put before a setting's name.
    Null passes every limit; the type says whether it may be there.
    """

    GROUP: ClassVar[str] = ""

    def __init_subclass__(cls, group: str = "", **others: Any) -> None:
        super().__init_subclass__(**others)
        cls.GROUP = f"{group}." if group else cls.GROUP

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if "limit" in field.metadata and value is not None:
                expected, holds = field.metadata["limit"]
                require(holds(value), f"{self.GROUP}{field.name}", expected.format(value=value))


def require(condition: Any, name: str, expected: str) -> None:
    """Refuses a setting.

    Raises:
        ConfigurationError: the condition does not hold.
    """
    if not condition:
        raise ConfigurationError(f"{name} must be {expected}")
