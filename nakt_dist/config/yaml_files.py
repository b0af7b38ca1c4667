"""Files of settings: refuses YAML that must not be read, and says where something is wrong.

PyYAML ends the process on deep nesting, follows aliases that repeat each other without end,
and silently takes the last of two values.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nakt_dist.errors import ConfigurationError
from nakt_dist.limits import LARGEST_NUMBER

# The config.yaml of a dataset may list all patients of a large one, such as in a filter.
_MOST_CHARACTERS = 2**24
_MOST_NESTED = 50
_MOST_VALUES = 2**18
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # as jsonargparse chooses
_NAMED = re.compile(r"^(?:there is no setting '(?P<unknown>[^']+)'|(?P<key>[a-z_][\w.]*) )")


def _read_text(path: Path) -> str:
    if not path.is_file():  # to read a pipe is to wait, perhaps for ever
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


def check_document(text: str) -> yaml.Node | None:
    """Refuses YAML that must not be read; what is no YAML is left for the reader to refuse.

    Returns:
        The tree of the text; None where there is none.

    Raises:
        ConfigurationError: the text is not Unicode, is longer, deeper or has more values than
            settings have (an alias counts as what it stands for), or names a setting twice.
    """
    if len(text) > _MOST_CHARACTERS:
        raise _too_large(f"{len(text)} characters")
    try:
        text.encode()
        _check_events(text)
        node = yaml.compose(text, Loader=_LOADER)
    except UnicodeEncodeError:
        raise ConfigurationError(f"{text[:60]!r} is not UTF-8 text") from None
    except yaml.YAMLError:
        return None
    if node is not None:
        _count_values(node, {})
    return node


def load_document(text: str) -> Any:
    """Reads YAML that a run left, which anybody may have put there.

    Raises:
        ConfigurationError: as ``check_document`` does.
        yaml.YAMLError: it is no YAML.
    """
    check_document(text)
    return yaml.load(text, Loader=_LOADER)


def _too_large(found: str) -> ConfigurationError:
    return ConfigurationError(
        f"{found}; expected settings of at most {_MOST_CHARACTERS} characters and {_MOST_VALUES} "
        "values, an alias counted as what it stands for"
    )


def _check_events(text: str) -> None:
    """Checks what would end the process, or take all memory, when a tree is made of the text."""
    inside: list[str | None] = []  # anchors of the mappings and lists that are open
    values = 0
    for event in yaml.parse(text, Loader=_LOADER):
        match event:
            case yaml.CollectionStartEvent():
                inside.append(event.anchor)
            case yaml.CollectionEndEvent():
                inside.pop()
            case yaml.AliasEvent() if event.anchor in inside:
                raise ConfigurationError(
                    f"the alias *{event.anchor} stands inside of what it stands for"
                )
        values += isinstance(event, yaml.NodeEvent)
        if len(inside) > _MOST_NESTED and event.start_mark is not None:
            raise ConfigurationError(
                f"line {event.start_mark.line + 1} is nested more than {_MOST_NESTED} deep; "
                "expected settings, which are a few deep"
            )
        if values > _MOST_VALUES:
            raise _too_large("more values than settings have")


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Returns the values of a part of a tree, an alias counted as what it stands for.

    Args:
        known: of the parts that were counted before, by their ``id``.
    """
    if id(node) not in known:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            parts = node.value
        elif isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for name, times in Counter(keys).items():
                if times > 1:
                    raise ConfigurationError(f"the setting '{name}' stands there twice; remove one")
        known[id(node)] = 1 + sum(_count_values(part, known) for part in parts)
        if known[id(node)] > _MOST_VALUES:
            raise _too_large("more values than settings have")
    return known[id(node)]


def load_settings_file(path: Path) -> Mapping[str, Any]:
    """Returns what a file with settings holds.

    Raises:
        ConfigurationError: it cannot or must not be read, is no YAML, or YAML of something else
            than settings; names the file, and the line where there is one.
    """
    text = _read_text(path)
    try:
        check_document(text)
        value = yaml.load(text, Loader=_LOADER)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(_not_yaml(path, text, error)) from None
    except ValueError:  # of Python, which reads no number of thousands of digits
        raise ConfigurationError(
            "the file of --config holds a number that cannot be read; expected at most "
            f"{LARGEST_NUMBER}"
        ) from None
    if isinstance(value, Mapping):
        return value
    found = {type(None): "is empty", list: "holds a list"}.get(type(value))
    raise ConfigurationError(
        f"{path}: {found or f'holds {str(value)[:60]!r} alone'}; expected settings by name, one a "
        "line, such as output: runs/first"
    )


def _not_yaml(path: Path, text: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    if mark is None:
        return f"{path}: cannot be read as YAML: {problem}"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    hint = ". A tab stands there, and YAML is indented by blanks" if "\t" in line else ""
    return f"{path}, line {mark.line + 1}: cannot be read as YAML: {problem}{hint}"


def with_place(message: str, words: Sequence[str]) -> str:
    """Adds file and line to a complaint about a setting that a file of ``--config`` has.

    Args:
        message: begins with the dotted name of the setting, or says that there is none of a name.
        words: of the command line; what they set themselves stands in no file.
    """
    named = _NAMED.match(message)
    key = named and (named["unknown"] or named["key"])
    if not key or any(re.match(rf"--{re.escape(key)}\b", word) for word in words):
        return message
    for path in reversed(settings_files(words)):
        line = _line_of(key, path)
        if line is not None:
            return f"{path}, line {line}: {message}"
    return message


def settings_files(words: Sequence[str]) -> list[Path]:
    """Returns the files that ``--config`` names on a command line, in order."""
    found = []
    for number, word in enumerate(words):
        key, equals, value = word.partition("=")
        if key == "--config":
            value = value if equals else "".join(words[number + 1 : number + 2])
            found.append(Path(value).expanduser() if value.startswith("~/") else Path(value))
    return found


def _line_of(key: str, path: Path) -> int | None:
    """Returns the line, from 1, of a setting, or of a part of one with the same last name."""
    try:
        node = check_document(_read_text(path))
    except ConfigurationError:
        return None
    places = list(_keys_of(node, ""))
    for name, line in places:
        if name == key:
            return line
    last = key.rpartition(".")[2]
    return next((line for name, line in places if name.rpartition(".")[2] == last), None)


def _keys_of(node: Any, prefix: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if isinstance(name, yaml.ScalarNode):
                yield f"{prefix}{name.value}", name.start_mark.line + 1
                yield from _keys_of(value, f"{prefix}{name.value}.")
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _keys_of(value, prefix)
