"""One layout: how it is listed and which options that takes."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.sources.listing import SourceListing


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
        path_options: options that name files or folders of the dataset; they are not kept
            beside de-identified shards.
        check_deidentified: raises ConfigurationError for options that would give patients away
            beside de-identified shards; None where none can.
    """

    name: str
    scan: Callable[..., SourceListing]
    card: str | None = None
    split_files: tuple[str, ...] = ()
    path_options: tuple[str, ...] = ()
    check_deidentified: Callable[[Mapping[str, Any]], None] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options with their defaults, as the function's signature gives them."""
        parameters = list(inspect.signature(self.scan).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}

    def read_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the options, with numbers as text where the layout wants text.

        YAML reads ``1`` as a number, although a name such as that of a fold is meant.

        Raises:
            ConfigurationError: the layout does not have an option, or its value is of another
                type; names the option, its value and what was expected.
        """
        known = self.options
        hints = typing.get_type_hints(self.scan)
        read = {}
        for name, value in options.items():
            if name not in known:
                raise ConfigurationError(
                    f"The layout '{self.name}' has no option '{name}'{nearest_name(name, known)} "
                    f"(known: {', '.join(known) or 'none'})"
                )
            read[name] = _numbers_as_text(value, hints[name])
            if not _fits(read[name], hints[name]):
                expected = inspect.formatannotation(hints[name])
                for kind, word in (("Sequence", "list"), ("Mapping", "mapping")):
                    expected = expected.replace(f"collections.abc.{kind}", word)
                raise ConfigurationError(
                    f"Option '{name}' of the layout '{self.name}' is {value!r} "
                    f"({type(value).__name__}); expected {expected}{_wants_quotes(value)}"
                )
        return read


def _numbers_as_text(value: Any, hint: Any) -> Any:
    """Returns a value with its numbers as text wherever the hint allows text and no number."""
    if _fits(value, hint):
        return value
    if isinstance(hint, types.UnionType):
        read = ((_numbers_as_text(value, each), each) for each in typing.get_args(hint))
        return next((text for text, each in read if _fits(text, each)), value)
    if type(value) in (int, float):
        return str(value) if hint is str else value
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is Sequence and isinstance(value, list | tuple):
        return [_numbers_as_text(item, parts[0]) for item in value]
    if typing.get_origin(hint) is Mapping and isinstance(value, Mapping):
        pairs = value.items()
        return {_numbers_as_text(k, parts[0]): _numbers_as_text(v, parts[1]) for k, v in pairs}
    return value


def _wants_quotes(value: Any) -> str:
    """Says that a text wants quotes where YAML has read something else from it."""
    held = [value]
    for part in held:  # grows while it is read
        if isinstance(part, Mapping):
            held += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            held += part
    known = (str, int, float, Mapping, list, tuple)
    odd = [part for part in held if isinstance(part, bool) or not isinstance(part, known)]
    return f"; write {odd[0]} in quotes if it is meant as a text" if odd else ""


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that an option's annotation names; a bool is no number."""
    try:
        TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True
