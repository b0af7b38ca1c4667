"""Fills names into settings: ``${name}`` stands for a value, ``${name.part}`` for a part of it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nakt_dist.errors import ConfigurationError, nearest_name

_PLACE = re.compile(r"\$\{([^{}]*)\}")
_MOST_CHARACTERS, _MOST_FILLED = 2**16, 100_000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class Parts(dict[str, Any]):
    """A mapping that says why it lacks a part.

    Args:
        values: its parts.
        why: what follows in the message.
    """

    def __init__(self, values: Mapping[str, Any], why: str) -> None:
        super().__init__(values)
        self.why = why


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


def fill_in(value: Any, names: Mapping[str, Any]) -> Any:
    """Replaces every ``${name}`` in the texts of a nested value.

    A text that is one ``${name}`` becomes the value itself, of whatever type; inside a longer
    text a value is inserted as text, a mapping by its ``name``. Values may hold ``${name}`` in
    turn.

    Raises:
        ConfigurationError: a name is unknown (names the nearest), stands for itself, or for
            something that cannot be part of a longer text; or definitions that hold each other
            many times over would become more than settings are.
    """
    return _fill_in(value, names, (), iter(range(_MOST_FILLED)))


def defined(value: Any, definitions: Mapping[str, Any]) -> Any:
    """Returns the value behind a text that is one ``${name}``; what it holds stays as it is.

    Raises:
        ConfigurationError: as ``fill_in``.
    """
    passed: list[str] = []
    while isinstance(value, str) and (found := _PLACE.fullmatch(value)) is not None:
        value = _look_up(found[1], definitions, passed)
        passed.append(found[1])
    return value


def _fill_in(
    value: Any, names: Mapping[str, Any], passed: tuple[str, ...], left: Iterator[int]
) -> Any:
    if isinstance(value, Mapping):
        return {key: _fill_in(item, names, passed, left) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill_in(item, names, passed, left) for item in value]
    if not isinstance(value, str):
        return value

    def value_of(name: str) -> Any:
        if next(left, None) is None:
            raise _too_much((*passed, name))
        return _fill_in(_look_up(name, names, passed), names, (*passed, name), left)

    whole = _PLACE.fullmatch(value)
    if whole is not None:
        return value_of(whole[1])
    filled = _PLACE.sub(lambda found: _as_text(value_of(found[1]), found[1], value), value)
    if filled != value and len(filled) > _MOST_CHARACTERS:
        raise _too_much(passed)
    return filled


def _too_much(passed: Sequence[str]) -> ConfigurationError:
    return ConfigurationError(
        f"what {' → '.join(f'${{{name}}}' for name in passed) or 'a setting'} stands for is more "
        f"than {_MOST_FILLED:,} names or {_MOST_CHARACTERS:,} characters of one text; definitions "
        "hold each other too many times"
    )


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
            why = value.why if isinstance(value, Parts) else ""
            raise ConfigurationError(
                f"${{{name}}}: {value!r:.60} has no part '{part}'{nearest}{why}"
            )
        value = value[part]
    return value


def _as_text(value: Any, name: str, text: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return str(value["name"])
    if not isinstance(value, str | int | float):
        raise ConfigurationError(
            f"${{{name}}} is {value!r:.60}, which cannot be part of the longer text '{text}'; "
            "name a part of it, as in ${name.part}"
        )
    return str(value)
