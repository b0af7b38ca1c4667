"""Repeats a step of a study for every combination of its axes: rounds, grid, zipped, random."""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nakt_dist.config.placeholders import check_names, defined, fill_in
from nakt_dist.errors import ConfigurationError, nearest_name

AXIS_KEYS = ("rounds", "matrix", "zip", "random", "exclude")
"""The keys of a step that say how it is repeated."""

SAMPLE = "sample"
"""The name that numbers the draws of ``random``, from 0."""

ROUND, PREVIOUS = "round", "previous"
"""The names of ``rounds``: a round's number, from 1, and what the round before made."""

_MOST_COMBINATIONS = 10_000
_MOST_ROUNDS = 50  # lineages are nested, a round in the next one

Combination = dict[str, Any]


def combinations(step: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Combination]:
    """Returns every combination of a step's axes, the last name changing fastest.

    Args:
        step: may hold ``matrix``: ``{name: [values…]}``, every value with every other; the values
            may be named groups, ``{name: {group: {…settings}}}``. ``zip``: lists of one length
            that go together. ``random``: ``{count, seed, values: {name: {distribution: …}}}``.
            ``exclude``: combinations to leave out, each ``{name: value}`` for some of the names;
            of a value that is a mapping, some items do, or its name. ``rounds``: ``{count, first,
            next}`` numbers rounds, see ``previous_round``. The whole of each, the values of a
            name, or a value in their list may be one ``${definition}``.
        definitions: values by name.

    Returns:
        One mapping from name to value for each; one that is empty for a step without axes.

    Raises:
        ConfigurationError: an axis is not as described, a name is there twice, or nothing is left.
    """
    grid, zipped = (_axes(step, kind, definitions) for kind in ("matrix", "zip"))
    blocks = [[{name: value} for value in values] for name, values in grid.items()]
    if "rounds" in step:
        blocks.insert(0, _rounds(step["rounds"], definitions))
    if zipped:
        blocks.append(_together(zipped))
    if "random" in step:
        blocks.append(_draws(fill_in(step["random"], definitions)))
    _check_apart(blocks, [PREVIOUS] if "rounds" in step else [])
    total = math.prod(map(len, blocks))
    if total > _MOST_COMBINATIONS:
        raise ConfigurationError(
            f"the step has {total} combinations, expected at most {_MOST_COMBINATIONS}"
        )
    every = [
        {name: value for part in parts for name, value in part.items()}
        for parts in itertools.product(*blocks)
    ]
    unwanted = _exclusions(defined(step.get("exclude"), definitions), every)
    kept = [each for each in every if not any(agrees(each, wanted) for wanted in unwanted)]
    if not kept:
        raise ConfigurationError("exclude leaves out every combination")
    return kept


def previous_round(rounds: Any, names: Mapping[str, Any]) -> Any:
    """Returns what ``${previous}`` stands for in a round.

    Args:
        rounds: ``{count, first, next}``, as ``combinations`` has checked it, or its definition.
        names: values by name, ``round`` and the other axes among them.

    Returns:
        ``first`` in round 1, with its names still to be filled in; later ``next`` as it is with
        the number of the round before.

    Raises:
        ConfigurationError: ``next`` has a name that is unknown.
    """
    rounds, number = defined(rounds, names), names[ROUND]
    if number == 1:
        return rounds["first"]
    return fill_in(rounds["next"], {**names, ROUND: number - 1})


def describe(combination: Mapping[str, Any]) -> dict[str, str]:
    """Returns the values of a combination in few words, by name, such as ``{"size": "1000"}``."""
    return {name: _brief(value) for name, value in combination.items()}


def agrees(value: Any, wanted: Any) -> bool:
    """Says whether a value is the wanted one, or has its items, or is the group of that name."""
    if isinstance(value, Mapping) and isinstance(wanted, Mapping):
        return all(name in value and agrees(value[name], wanted[name]) for name in wanted)
    if isinstance(value, Mapping) and isinstance(wanted, str):
        return value.get("name") == wanted
    return bool(value == wanted)


def _brief(value: Any) -> str:
    """Returns a value as one short text; of a mapping its name, or its first item."""
    if isinstance(value, Mapping) and "name" in value:
        return _brief(value["name"])
    if isinstance(value, Mapping | list):
        items = list(value.values()) if isinstance(value, Mapping) else value
        return f"{_brief(items[0])}…" if items else "none"
    return str(value)[-40:]


def _axes(
    step: Mapping[str, Any], kind: str, definitions: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """Reads ``matrix`` or ``zip``; none where the step has none."""
    if kind not in step:
        return {}
    axes = defined(step[kind], definitions)
    if not isinstance(axes, Mapping) or not axes:
        raise ConfigurationError(f"{kind} is {axes!r:.60}, expected {{name: [values…]}}")
    check_names(axes, kind, definitions)
    return {
        name: [
            defined(value, definitions)
            for value in _values(f"{kind}.{name}", defined(values, definitions))
        ]
        for name, values in axes.items()
    }


def _values(where: str, values: Any) -> list[Any]:
    if isinstance(values, Mapping) and all(isinstance(each, Mapping) for each in values.values()):
        for name, group in values.items():
            if "name" in group:
                raise ConfigurationError(
                    f"{where}.{name} holds 'name', which is the group's own; rename the setting"
                )
        values = [{"name": str(name), **group} for name, group in values.items()]
    if not isinstance(values, list) or not values:
        raise ConfigurationError(
            f"{where} is {values!r:.60}, expected a list of at least one value, or named groups "
            "of settings"
        )
    return values


def _together(axes: Mapping[str, list[Any]]) -> list[Combination]:
    lengths = {name: len(values) for name, values in axes.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ConfigurationError(f"zip has lists of different lengths: {told}; expected one length")
    return [dict(zip(axes, values, strict=True)) for values in zip(*axes.values(), strict=True)]


def _rounds(rounds: Any, definitions: Mapping[str, Any]) -> list[Combination]:
    """Numbers the rounds from 1."""
    rounds = defined(rounds, definitions)
    if not isinstance(rounds, Mapping) or set(rounds) != {"count", "first", "next"}:
        raise ConfigurationError(f"rounds is {rounds!r:.80}, expected {{count, first, next}}")
    check_names({ROUND: None, PREVIOUS: None}, "rounds", definitions)
    count = defined(rounds["count"], definitions)
    if type(count) is not int or not 1 <= count <= _MOST_ROUNDS:
        raise ConfigurationError(f"rounds.count is {count!r:.60}, expected 1 to {_MOST_ROUNDS}")
    return [{ROUND: number} for number in range(1, count + 1)]


def _check_apart(blocks: list[list[Combination]], others: Iterable[str]) -> None:
    names = set(others)
    for block in blocks:
        for name in block[0]:
            if name in names:
                raise ConfigurationError(f"the axis '{name}' is there twice; rename one")
            names.add(name)


_DISTRIBUTIONS: dict[str, Callable[[random.Random, float, float], float]] = {
    "uniform": lambda source, low, high: _rounded(source.uniform(low, high)),
    "log_uniform": lambda source, low, high: _rounded(
        math.exp(source.uniform(math.log(low), math.log(high)))
    ),
    "integers": lambda source, low, high: source.randint(int(low), int(high)),
}
_RANDOM_KEYS = ("count", "seed", "values")


def _draws(settings: Any) -> list[Combination]:
    """Draws values; each depends on seed, number and name alone, so that more are the same ones."""
    if not isinstance(settings, Mapping) or not {"count", "values"} <= set(settings):
        raise ConfigurationError(
            f"random is {settings!r:.60}, expected {{count, seed, values: {{name: …}}}}"
        )
    for key in settings:
        if key not in _RANDOM_KEYS:
            raise ConfigurationError(
                f"random has no '{key}'{nearest_name(str(key), _RANDOM_KEYS)} "
                f"({', '.join(_RANDOM_KEYS)})"
            )
    count, seed, values = settings["count"], settings.get("seed", 0), settings["values"]
    for name, number, least in (("count", count, 1), ("seed", seed, 0)):
        if type(number) is not int or not least <= number <= _MOST_COMBINATIONS:
            raise ConfigurationError(
                f"random.{name} is {number!r}, expected {least} to {_MOST_COMBINATIONS}"
            )
    if not isinstance(values, Mapping) or not values:
        raise ConfigurationError(f"random.values is {values!r:.60}, expected {{name: …}}")
    check_names(values, "random.values", {SAMPLE: None})
    for name, drawn in values.items():
        check_distribution(f"random.values.{name}", drawn)
    return [
        {SAMPLE: number}
        | {
            name: draw(drawn, random.Random(f"{seed}/{number}/{name}"))
            for name, drawn in values.items()
        }
        for number in range(count)
    ]


def draw(distribution: Mapping[str, Any], source: random.Random) -> Any:
    """Draws from ``{uniform | log_uniform | integers: [low, high]}`` or ``{choice: [values…]}``."""
    ((kind, values),) = distribution.items()
    return source.choice(values) if kind == "choice" else _DISTRIBUTIONS[kind](source, *values)


def check_distribution(where: str, distribution: Any) -> None:
    """Refuses what ``draw`` could not draw from.

    Args:
        where: it stands, for messages.

    Raises:
        ConfigurationError: names the kinds that there are.
    """
    kinds = (*_DISTRIBUTIONS, "choice")
    if not isinstance(distribution, Mapping) or len(distribution) != 1:
        raise ConfigurationError(
            f"{where} is {distribution!r:.60}, expected one of {', '.join(kinds)} with its values"
        )
    ((kind, values),) = distribution.items()
    if kind not in kinds:
        raise ConfigurationError(
            f"{where} has no '{kind}'{nearest_name(str(kind), kinds)} ({', '.join(kinds)})"
        )
    if kind == "choice":
        if not isinstance(values, list) or not values:
            raise ConfigurationError(f"{where}.choice is {values!r:.60}, expected a list")
        return
    wanted = int if kind == "integers" else (int, float)
    numbers = isinstance(values, list) and len(values) == 2
    numbers = numbers and all(
        isinstance(each, wanted) and not isinstance(each, bool) and math.isfinite(each)
        for each in values
    )
    if not numbers or values[0] > values[1] or (kind == "log_uniform" and values[0] <= 0):
        positive = ", both positive" if kind == "log_uniform" else ""
        raise ConfigurationError(
            f"{where}.{kind} is {values!r:.60}, expected [low, high]{positive}"
        )


def _rounded(value: float) -> float:
    """A value of six digits: it stands in names of folders."""
    return float(f"{value:.6g}")


def _exclusions(exclude: Any, every: list[Combination]) -> list[Mapping[str, Any]]:
    """Checks that every exclusion can leave something out, so that a typo is found."""
    if exclude is None:
        return []
    if not isinstance(exclude, list) or not all(isinstance(each, Mapping) for each in exclude):
        raise ConfigurationError(f"exclude is {exclude!r:.60}, expected [{{name: value}}, …]")
    for each in exclude:
        for name, value in each.items():
            if name not in every[0]:
                raise ConfigurationError(
                    f"exclude names '{name}', which is no axis of the step"
                    f"{nearest_name(str(name), every[0])}"
                )
            if not any(agrees(candidate[name], value) for candidate in every):
                raise ConfigurationError(
                    f"exclude has {name}: {value!r:.60}, which the axis {name} does not hold"
                )
    return [each for each in exclude if each]
