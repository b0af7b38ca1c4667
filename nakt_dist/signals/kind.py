"""What students take from their teachers, as reports name, order and colour it."""

import itertools
from dataclasses import dataclass

from nakt_dist.signals import SIGNALS

_WITHOUT_TEACHER, _OF_SEVERAL = ("#D55E00", "#E69F00"), ("#CC79A7",)


@dataclass(frozen=True)
class Kind:
    """What a student takes from a teacher.

    Attributes:
        signals: their names, in the order of the list of signals; none in transfer learning.
    """

    signals: tuple[str, ...] = ()

    @property
    def value(self) -> str:
        """Its name, such as ``"Attention transfer and distillation"``."""
        if not self.signals:
            return "Transfer learning"
        first, *others = (SIGNALS[name].title for name in self.signals)
        return " and ".join([first, *(each if each.isupper() else each.lower() for each in others)])

    @property
    def order(self) -> tuple[int, ...]:
        """Sorts kinds in the order of a table's columns: those of fewer signals first."""
        return len(self.signals), *(SIGNALS[name].column for name in self.signals)

    @property
    def colours(self) -> tuple[str, ...]:
        """Of its methods in figures: warm without a teacher, cool with one."""
        if len(self.signals) == 1:
            return SIGNALS[self.signals[0]].colours
        return _OF_SEVERAL if self.signals else _WITHOUT_TEACHER


TRANSFER_LEARNING = Kind()
ATTENTION_TRANSFER = Kind(("attention",))
"""The method of paper B."""


def following_kinds() -> list[Kind]:
    """Returns every kind that takes something from a teacher, in the order of columns."""
    sizes = range(1, len(SIGNALS) + 1)
    kinds = (Kind(names) for size in sizes for names in itertools.combinations(SIGNALS, size))
    return sorted(kinds, key=lambda kind: kind.order)
