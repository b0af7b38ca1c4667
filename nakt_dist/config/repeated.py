"""Reads the settings of hundreds of runs that differ in a few values."""

import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass, replace
from typing import Any

import yaml

from nakt_dist.errors import ConfigurationError

_PLAIN_TEXT = re.compile(r"[\w./+-]+")


class RepeatedReader:
    """Reads settings of one stage again and again, each as checked as the first.

    The parser takes some 40 ms for one. Where settings differ from earlier ones in single values
    of one type, these are put into the earlier configuration instead, whose classes check them
    against their limits. All else goes to the parser: other keys, other types, texts that YAML
    may take for something else, and whatever is refused, so that the message is the parser's.

    Args:
        parse: builds a configuration from nested values.
    """

    def __init__(self, parse: Callable[[Any], Any]) -> None:
        self._parse = parse
        self._known: dict[Any, tuple[Any, Any]] = {}

    def read(self, values: Any) -> Any:
        """Builds a configuration.

        Raises:
            ConfigurationError: as the parser.
        """
        shape = _shape(values)
        if shape in self._known:
            before, config = self._known[shape]
            try:
                return _with_values(config, before, values, type(config))
            except (_Differently, ConfigurationError):
                return self._parse(values)
        config = self._parse(values)
        self._known[shape] = (values, config)
        return config


class _Differently(Exception):
    """The parser makes something else of a value than the value."""


def _shape(values: Any) -> Any:
    if isinstance(values, Mapping):
        return tuple((key, _shape(item)) for key, item in values.items())
    if isinstance(values, list):
        return ("list", *map(_shape, values))
    return type(values)


def _with_values(config: Any, before: Any, values: Any, kind: Any) -> Any:
    """Returns what the parser made of ``before``, with the values in which ``values`` differ."""
    if before == values and type(before) is type(values):
        return config
    if isinstance(values, Mapping) and is_dataclass(config) and not isinstance(config, type):
        kinds = typing.get_type_hints(type(config))
        if not set(values) <= set(kinds):
            raise _Differently
        changed = {
            name: _with_values(getattr(config, name), before[name], item, kinds[name])
            for name, item in values.items()
            if before[name] != item
        }
        return replace(config, **changed)
    if isinstance(values, Mapping) and isinstance(config, dict) and set(values) == set(config):
        return {
            name: _with_values(config[name], before[name], item, _part(kind))
            for name, item in values.items()
        }
    if isinstance(values, list) and isinstance(config, list) and len(config) == len(values):
        part = _part(kind)
        return [_with_values(*each, part) for each in zip(config, before, values, strict=True)]
    if type(before) is type(values) is int and type(config) is float and config == before:
        return _with_values(config, float(before), float(values), kind)
    if not (type(config) is type(before) is type(values) and config == before):
        raise _Differently
    if not _takes_every(kind, values):
        raise _Differently
    return values


def _part(kind: Any) -> Any:
    """Returns the type of what a list or a mapping of this type holds."""
    for each in _alternatives(kind):
        if typing.get_origin(each) in (list, dict, Mapping):
            return typing.get_args(each)[-1]
    return Any


def _alternatives(kind: Any) -> tuple[Any, ...]:
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if union else (kind,)


def _takes_every(kind: Any, value: Any) -> bool:
    """Says whether a setting of this type takes the value as it is, being of the right type."""
    alternatives = set(_alternatives(kind)) - {type(None)}
    if isinstance(value, str):
        plain = _PLAIN_TEXT.fullmatch(value) is not None
        as_it_is = alternatives in ({str}, {Any}, {str, list[str]})
        return plain and as_it_is and yaml.safe_load(value) == value
    return isinstance(value, int | float) and alternatives in ({type(value)}, {Any})
