"""One layout: how it is listed and which options that takes."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.sources.record import SourceListing


@dataclass(frozen=True)
class Source:
    """One dataset layout.

    Attributes:
        name: the name that configurations use.
        scan: lists a dataset; its first argument is the root, the others are the options.
        card: name of the dataset card that describes this layout's one dataset; None where
            several datasets come in this layout.
        split_files: names of the files that give the official splits, where these are apart
            from the tables that the layout requires.
    """

    name: str
    scan: Callable[..., SourceListing]
    card: str | None = None
    split_files: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The options with their defaults, as the function's signature gives them."""
        parameters = list(inspect.signature(self.scan).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuses options that the layout does not have and values of another type.

        Raises:
            ConfigurationError: names the option, its value and what was expected.
        """
        known = self.options
        hints = typing.get_type_hints(self.scan)
        for name, value in options.items():
            if name not in known:
                raise ConfigurationError(
                    f"The layout '{self.name}' has no option '{name}'{nearest_name(name, known)} "
                    f"(known: {', '.join(known) or 'none'})"
                )
            if not _fits(value, hints[name]):
                expected = inspect.formatannotation(hints[name])
                for kind, word in (("Sequence", "list"), ("Mapping", "mapping")):
                    expected = expected.replace(f"collections.abc.{kind}", word)
                raise ConfigurationError(
                    f"Option '{name}' of the layout '{self.name}' is {value!r} "
                    f"({type(value).__name__}); expected {expected}"
                )


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that an option's annotation names."""
    if isinstance(hint, types.UnionType):
        return any(_fits(value, member) for member in typing.get_args(hint))
    if typing.get_origin(hint) is Sequence:
        (member,) = typing.get_args(hint)
        return isinstance(value, list | tuple) and all(_fits(item, member) for item in value)
    if typing.get_origin(hint) is Mapping:
        kinds = typing.get_args(hint)
        return isinstance(value, Mapping) and all(
            _fits(part, kind)
            for item in value.items()
            for part, kind in zip(item, kinds, strict=True)
        )
    if isinstance(value, bool):  # a bool is an int to Python and not to a user
        return hint is bool
    return isinstance(value, hint)
