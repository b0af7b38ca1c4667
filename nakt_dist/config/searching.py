"""Settings of a search: what is drawn for each trial, how many there are, which are stopped."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nakt_dist.config.axes import check_distribution
from nakt_dist.config.placeholders import check_names
from nakt_dist.errors import ConfigurationError, nearest_name

TRIAL = "trial"
"""The name that numbers the trials of a search, from 0."""

_MOST = 10_000
_KEYS = ("count", "seed", "sampler", "by", "values", "early_stopping", "at_a_time")
_SAMPLERS = ("tpe", "random")


@dataclass(frozen=True)
class SearchSettings:
    """A step's ``search``.

    Attributes:
        count: of the trials.
        by: the metric of validation images that is looked at; the highest is the best.
        values: by name a distribution, as those of ``random``.
        seed: of all draws.
        sampler: ``tpe`` learns from the trials before, ``random`` does not.
        first_epochs: that each trial is trained for; None trains all to the end.
        factor: of so many trials that came to the same epoch one goes on, for as many times the
            epochs.
        at_a_time: trials at once.
    """

    count: int
    by: str
    values: Mapping[str, Mapping[str, Any]]
    seed: int = 0
    sampler: str = "tpe"
    first_epochs: int | None = None
    factor: int = 3
    at_a_time: int = 1

    @property
    def identity(self) -> dict[str, Any]:
        """What trials of one search have in common; there may be more of them, or more at once."""
        return {
            "seed": self.seed, "sampler": self.sampler, "by": self.by,
            "first_epochs": self.first_epochs, "factor": self.factor,
            "values": {name: dict(drawn) for name, drawn in self.values.items()},
        }  # fmt: skip

    @property
    def corners(self) -> list[dict[str, Any]]:
        """Values at the ends of their ranges, and every one of a choice."""
        ends = {name: next(iter(drawn.values())) for name, drawn in self.values.items()}
        return [
            {name: values[number % len(values)] for name, values in ends.items()}
            for number in range(max(map(len, ends.values())))
        ]

    def rungs(self, length: int) -> list[int]:
        """Returns the epochs at which trials are compared; the last is ``length``."""
        rungs = [] if self.first_epochs is None else [self.first_epochs]
        while rungs and rungs[-1] * self.factor < length:
            rungs.append(rungs[-1] * self.factor)
        return [*rungs, length]


def read_search(given: Any) -> SearchSettings:
    """Reads ``search`` of a step, whose names have been filled in.

    Raises:
        ConfigurationError: names what is wrong.
    """
    if not isinstance(given, Mapping) or not {"count", "by", "values"} <= set(given):
        raise ConfigurationError(
            f"search is {given!r:.60}, expected {{count, by, values: {{name: …}}}}"
        )
    _check_keys("search", given, _KEYS)
    values = given["values"]
    if not isinstance(values, Mapping) or not values:
        raise ConfigurationError(f"search.values is {values!r:.60}, expected {{name: …}}")
    check_names(values, "search.values", {TRIAL: None})
    for name, drawn in values.items():
        check_distribution(f"search.values.{name}", drawn)
    sampler = given.get("sampler", "tpe")
    if sampler not in _SAMPLERS:
        raise ConfigurationError(
            f"search.sampler is {sampler!r}, expected one of {', '.join(_SAMPLERS)}"
            f"{nearest_name(str(sampler), _SAMPLERS)}"
        )
    if not isinstance(given["by"], str):
        raise ConfigurationError(f"search.by is {given['by']!r:.60}, expected a metric")
    stopping = given.get("early_stopping")
    first, factor = None, 3
    if stopping is not None:
        if not isinstance(stopping, Mapping) or "from" not in stopping:
            raise ConfigurationError(
                f"search.early_stopping is {stopping!r:.60}, expected {{from: EPOCHS, factor: 3}}"
            )
        _check_keys("search.early_stopping", stopping, ("from", "factor"))
        first = _number("early_stopping.from", stopping["from"], 1)
        factor = _number("early_stopping.factor", stopping.get("factor", 3), 2)
    return SearchSettings(
        count=_number("count", given["count"], 1),
        by=given["by"],
        values=values,
        seed=_number("seed", given.get("seed", 0), 0),
        sampler=sampler,
        first_epochs=first,
        factor=factor,
        at_a_time=_number("at_a_time", given.get("at_a_time", 1), 1),
    )


def _check_keys(where: str, given: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in map(str, given):
        if key not in keys:
            raise ConfigurationError(
                f"{where} has no '{key}'{nearest_name(key, keys)} ({', '.join(keys)})"
            )


def _number(name: str, value: Any, least: int) -> int:
    if type(value) is not int or not least <= value <= _MOST:
        raise ConfigurationError(f"search.{name} is {value!r:.60}, expected {least} to {_MOST}")
    return value
