"""Compares what a disturbed run has left with what an undisturbed one leaves."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nakt_dist.records.run_record import RECORD_NAME, read_record
from tests.faults.chaos_cases import Case
from tests.recipes import file_hashes

_SHOWN = 5
_OF_ONE_LAUNCH = ("steps_now", "images_per_second", "processes")


@dataclass(frozen=True)
class Verdict:
    """What is wrong with an output.

    Attributes:
        lost: keys that it should hold and does not.
        duplicated: keys that it holds too often, or should not hold.
        differing: files and results that are not those of the undisturbed run.
    """

    lost: tuple[str, ...] = ()
    duplicated: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.duplicated or self.differing)

    def __str__(self) -> str:
        identical = "no" if self.differing else "yes"
        return f"lost {len(self.lost)}, duplicated {len(self.duplicated)}, identical {identical}"

    def details(self) -> list[str]:
        """Says what is wrong, a line for each kind."""
        kinds = {"lost": self.lost, "duplicated": self.duplicated, "differs": self.differing}
        return [f"{kind}: {_some(names)}" for kind, names in kinds.items() if names]


def join(verdicts: Sequence[Verdict]) -> Verdict:
    """Adds up what is wrong with several outputs."""
    return Verdict(
        tuple(key for each in verdicts for key in each.lost),
        tuple(key for each in verdicts for key in each.duplicated),
        tuple(name for each in verdicts for name in each.differing),
    )


def judge(case: Case, output: Path, undisturbed: Path) -> Verdict:
    """Counts the keys of an output and compares its files with the undisturbed run's.

    Args:
        case: the stage.
        output: of the run that was hit.
        undisturbed: of the one that was not.
    """
    expected, found = Counter(case.expected), Counter(case.found(output))
    return Verdict(
        lost=tuple(sorted((expected - found).elements())),
        duplicated=tuple(sorted((found - expected).elements())),
        differing=tuple(_differences(case, output, undisturbed)),
    )


def _differences(case: Case, output: Path, undisturbed: Path) -> list[str]:
    found, expected = file_hashes(output), file_hashes(undisturbed)
    names = [
        name
        for name in sorted(found.keys() | expected.keys())
        if (name in found) != (name in expected)
        or (found[name] != expected[name] and name not in case.changing)
    ]
    if case.last == RECORD_NAME and _results(output) != _results(undisturbed):
        names.append("the results in record.json")
    return names


def _results(output: Path) -> dict[str, Any] | None:
    """Returns what a record says that does not depend on how often a run was started."""
    if not (output / RECORD_NAME).exists():
        return None
    record = read_record(output / RECORD_NAME)
    parts = {name: getattr(record, name) for name in ("inputs", "counts", "metrics", "details")}
    return {
        part: {name: value for name, value in values.items() if name not in _OF_ONE_LAUNCH}
        for part, values in parts.items()
    }


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
