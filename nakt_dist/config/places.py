"""Where in a settings file something is wrong: its name and line, for messages."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from nakt_dist.config.documents import check_document, read_settings_file
from nakt_dist.errors import ConfigurationError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NAMED = re.compile(r"^(?:there is no setting '(?P<unknown>[^']+)'|(?P<key>[a-z_][\w.]*) )")


def check_is_settings(path: Path, text: str) -> None:
    """Refuses a settings file that is no YAML, or YAML of something else than settings.

    Raises:
        ConfigurationError: names the file, and the line where there is one.
    """
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise ConfigurationError(_not_yaml(path, text, error)) from None
    empty = node is None or node.tag == "tag:yaml.org,2002:null"
    if empty or isinstance(node, yaml.SequenceNode):
        found = "is empty" if empty else "holds a list"
        raise ConfigurationError(
            f"{path}: {found}; expected settings by name, one a line, such as output: runs/first"
        )
    if isinstance(node, yaml.ScalarNode):
        raise ConfigurationError(
            f"{path}: holds {node.value[:60]!r} alone; expected settings by name, one a line, such "
            "as output: runs/first"
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
        text = read_settings_file(path)
        check_document(text)
        node = yaml.compose(text, Loader=_LOADER)
    except (ConfigurationError, yaml.YAMLError):
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
