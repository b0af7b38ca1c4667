"""Looks at YAML before it is read: what is deep, endless or said twice is refused.

PyYAML ends the process on deep nesting, follows aliases that repeat each other without end,
and silently takes the last of two values. The events of the text show all of it at once.
"""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from nakt_dist.errors import ConfigurationError

# The config.yaml of a dataset may list all patients of a large one, such as in a filter.
_MOST_CHARACTERS = 2**24
_MOST_NESTED = 50
_MOST_VALUES = 2**18
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # as jsonargparse chooses


def read_settings_file(path: Path) -> str:
    """Returns the text of a file with settings.

    Raises:
        ConfigurationError: it is absent, no regular file (to read a pipe is to wait, perhaps
            for ever), far longer than settings are, no text, or cannot be read.
    """
    if not path.is_file():
        found = "not a regular file" if path.exists() else "no such file"
        raise ConfigurationError(f"{path}: {found}; expected a YAML file with settings")
    try:
        if path.stat().st_size > _MOST_CHARACTERS:
            raise _too_large(f"{path}: {path.stat().st_size} bytes")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"{path}: not UTF-8 text; expected YAML with settings, saved as UTF-8"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None


def check_document(text: str) -> None:
    """Refuses YAML that must not be read; what is no YAML is left for the reader to refuse.

    Raises:
        ConfigurationError: the text is not Unicode, is longer, deeper or has more values than
            settings have (an alias counts as what it stands for), or names a setting twice.
    """
    if len(text) > _MOST_CHARACTERS:
        raise _too_large(f"{len(text)} characters")
    try:
        text.encode()
        _Walk().over(text)
    except UnicodeEncodeError:
        raise ConfigurationError(f"{text[:60]!r} is not UTF-8 text") from None
    except yaml.YAMLError:
        return


def _too_large(found: str) -> ConfigurationError:
    return ConfigurationError(
        f"{found}; expected settings of at most {_MOST_CHARACTERS} characters and {_MOST_VALUES} "
        "values, an alias counted as what it stands for"
    )


@dataclass
class _Collection:
    """A mapping or list whose end has not been seen."""

    is_mapping: bool
    anchor: str | None
    values: int = 1
    awaits_key: bool = True
    keys: set[str] = field(default_factory=set)


class _Walk:
    """Follows the events of one text."""

    def __init__(self) -> None:
        self._open: list[_Collection] = []
        self._values_of: dict[str, int] = {}  # by anchor

    def over(self, text: str) -> None:
        for event in yaml.parse(text, Loader=_LOADER):
            match event:
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._begin(event)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    ended = self._open.pop()
                    self._add(ended.values, ended.anchor)
                case yaml.ScalarEvent():
                    self._add(1, event.anchor, event.value)
                case yaml.AliasEvent():
                    self._add(self._repeated(event.anchor), None)

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        if len(self._open) == _MOST_NESTED:
            raise ConfigurationError(
                f"line {event.start_mark.line + 1} is nested more than {_MOST_NESTED} deep; "
                "expected settings, which are a few deep"
            )
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        self._open.append(_Collection(is_mapping, event.anchor))

    def _repeated(self, anchor: str) -> int:
        if any(each.anchor == anchor for each in self._open):
            raise ConfigurationError(f"the alias *{anchor} stands inside of what it stands for")
        return self._values_of.get(anchor, 1)

    def _add(self, values: int, anchor: str | None, text: str | None = None) -> None:
        if anchor is not None:
            self._values_of[anchor] = values
        if not self._open:
            return
        parent = self._open[-1]
        parent.values += values
        if parent.values > _MOST_VALUES:
            raise _too_large("more values than settings have")
        if not parent.is_mapping:
            return
        if parent.awaits_key and text is not None:
            if text in parent.keys:
                raise ConfigurationError(f"the setting '{text}' stands there twice; remove one")
            parent.keys.add(text)
        parent.awaits_key = not parent.awaits_key
