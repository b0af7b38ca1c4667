"""Repeats a step of a pipeline for every combination of some values, and fills in names.

``${name}`` stands for a value: of the step's own ``matrix``, of the file's ``definitions``, or
``root`` and ``data``. ``${name.part}`` takes a part of a value that is a mapping.
"""

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

from nakt_dist.errors import ConfigurationError, nearest_name

_PLACE = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_MOST_COMBINATIONS = 10_000


def check_names(names: Mapping[str, Any], where: str, taken: Mapping[str, Any]) -> None:
    """Refuses names that cannot stand in ``${…}``, or that mean something else already.

    Args:
        where: what to call them in messages, such as ``definitions``.

    Raises:
        ConfigurationError: names the first that is wrong.
    """
    for name in names:
        if _NAME.fullmatch(str(name)) is None:
            raise ConfigurationError(
                f"{where} has the name '{name}', expected letters, digits, _ and -, a letter first"
            )
        if name in taken:
            raise ConfigurationError(
                f"{where} defines '{name}' a second time; give it another name"
            )


def combinations(matrix: Any, exclude: Any, definitions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns every combination of a matrix, the last name changing fastest.

    Args:
        matrix: ``{name: [values…]}``; the whole, or the values of a name, may be one
            ``${definition}``.
        exclude: combinations to leave out, each ``{name: value}`` for some of the names; it
            leaves out all that agree in those. Of a value that is a mapping, some items do.
        definitions: values by name.

    Returns:
        One mapping from name to value for each.

    Raises:
        ConfigurationError: matrix or exclude is not as described, or nothing is left.
    """
    axes = _axes(matrix, definitions)
    total = math.prod(map(len, axes.values()))
    if total > _MOST_COMBINATIONS:
        raise ConfigurationError(
            f"matrix has {total} combinations, expected at most {_MOST_COMBINATIONS}"
        )
    unwanted = _exclusions(_defined(exclude, definitions), axes)
    every = (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
    kept = [each for each in every if not any(_agrees(each, wanted) for wanted in unwanted)]
    if not kept:
        raise ConfigurationError("exclude leaves out every combination of the matrix")
    return kept


def fill_in(value: Any, names: Mapping[str, Any]) -> Any:
    """Replaces every ``${name}`` in the texts of a nested value.

    A text that is one ``${name}`` becomes the value itself, of whatever type; inside a longer
    text a value is inserted as text. Values may hold ``${name}`` in turn.

    Raises:
        ConfigurationError: a name is unknown (names the nearest), stands for itself, or for
            something that cannot be part of a longer text.
    """
    return _fill_in(value, names, ())


def describe(combination: Mapping[str, Any]) -> str:
    """Says in a few words which combination it is, such as ``size=1000 seed=2``."""
    return " ".join(f"{name}={_brief(value)}" for name, value in combination.items())


def _brief(value: Any) -> str:
    """Returns a value as one short text; of a mapping its name, or its first item."""
    if isinstance(value, Mapping) and "name" in value:
        return _brief(value["name"])
    if isinstance(value, Mapping | list):
        items = list(value.values()) if isinstance(value, Mapping) else value
        return f"{_brief(items[0])}…" if items else "none"
    return str(value)[-40:]


def _axes(matrix: Any, definitions: Mapping[str, Any]) -> dict[str, list[Any]]:
    matrix = _defined(matrix, definitions)
    if not isinstance(matrix, Mapping) or not matrix:
        raise ConfigurationError(f"matrix is {matrix!r:.60}, expected {{name: [values…]}}")
    check_names(matrix, "matrix", definitions)
    axes = {name: _defined(values, definitions) for name, values in matrix.items()}
    for name, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ConfigurationError(
                f"matrix.{name} is {values!r:.60}, expected a list of at least one value"
            )
    return axes


def _exclusions(exclude: Any, axes: Mapping[str, list[Any]]) -> list[Mapping[str, Any]]:
    """Checks that every exclusion can leave something out, so that a typo is found."""
    if exclude is None:
        return []
    if not isinstance(exclude, list) or not all(isinstance(each, Mapping) for each in exclude):
        raise ConfigurationError(f"exclude is {exclude!r:.60}, expected [{{name: value}}, …]")
    for each in exclude:
        for name, value in each.items():
            if name not in axes:
                raise ConfigurationError(
                    f"exclude names '{name}', which is not in the matrix"
                    f"{nearest_name(str(name), axes)}"
                )
            if not any(_agrees(candidate, value) for candidate in axes[name]):
                raise ConfigurationError(
                    f"exclude has {name}: {value!r:.60}, which matrix.{name} does not hold"
                )
    return [each for each in exclude if each]


def _agrees(value: Any, wanted: Any) -> bool:
    if isinstance(value, Mapping) and isinstance(wanted, Mapping):
        return all(name in value and _agrees(value[name], wanted[name]) for name in wanted)
    return value == wanted


def _defined(value: Any, definitions: Mapping[str, Any]) -> Any:
    """Returns the value behind a text that is one ``${name}``; what it holds stays as it is."""
    passed: list[str] = []
    while isinstance(value, str) and (found := _PLACE.fullmatch(value)) is not None:
        value = _look_up(found[1], definitions, passed)
        passed.append(found[1])
    return value


def _fill_in(value: Any, names: Mapping[str, Any], passed: tuple[str, ...]) -> Any:
    if isinstance(value, Mapping):
        return {key: _fill_in(item, names, passed) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill_in(item, names, passed) for item in value]
    if not isinstance(value, str):
        return value

    def value_of(name: str) -> Any:
        return _fill_in(_look_up(name, names, passed), names, (*passed, name))

    whole = _PLACE.fullmatch(value)
    if whole is not None:
        return value_of(whole[1])
    return _PLACE.sub(lambda found: _as_text(value_of(found[1]), found[1], value), value)


def _look_up(name: str, names: Mapping[str, Any], passed: tuple[str, ...] | list[str]) -> Any:
    if name in passed:
        raise ConfigurationError(f"${{{name}}} stands for itself ({' → '.join([*passed, name])})")
    first, *parts = name.split(".")
    if first not in names:
        raise ConfigurationError(
            f"there is no ${{{first}}}{nearest_name(first, names)} (known: {', '.join(names)})"
        )
    value = names[first]
    for part in parts:
        if not isinstance(value, Mapping) or part not in value:
            nearest = nearest_name(part, map(str, value if isinstance(value, Mapping) else ()))
            raise ConfigurationError(f"${{{name}}}: {value!r:.60} has no part '{part}'{nearest}")
        value = value[part]
    return value


def _as_text(value: Any, name: str, text: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise ConfigurationError(
            f"${{{name}}} is {value!r:.60}, which cannot be part of the longer text '{text}'; "
            "name a part of it, as in ${name.part}"
        )
    return str(value)
