"""Reads settings: YAML and words of a command line onto frozen dataclasses.

jsonargparse can import and build any class that a text names. Settings arrive in files from
elsewhere, such as the ``config.yaml`` of a dataset, so it is told to import nothing but ours,
and keys that name a class are refused besides (promise 5).
"""

import copy
import dataclasses
import functools
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from nakt_dist.config.parser_errors import explain_value
from nakt_dist.config.yaml_files import (
    check_document,
    load_settings_file,
    settings_files,
    with_place,
)
from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.limits import LARGEST_NUMBER

_REFUSED_INSIDE = re.compile(
    r"(?:Errors:|\(implicit class_path\))\n\s*- (?!Does not validate|Not a valid subclass)(.*)"
)
_CLASS_KEYS = {"class_path", "init_args", "dict_kwargs"}
_load_yaml = jsonargparse.get_loader("yaml")


def read_config(
    kind: type, program: str, summary: str, words: Sequence[str], values: Any = None
) -> Any:
    """Builds a configuration.

    Args:
        program: what the help calls the command, such as ``nakt pack``.
        words: of a command line: ``--config FILE`` and ``--dotted.key value``.
        values: a nested mapping instead of words.

    Raises:
        ConfigurationError: a key or a value is wrong; names the nearest right key.
    """
    if values is not None and not isinstance(values, Mapping):
        raise ConfigurationError(f"the settings are {values!r}; expected settings by name")
    try:
        return _read(kind, program, summary, words, values)
    except ConfigurationError as error:
        raise ConfigurationError(with_place(str(error), words)) from None


def _read(kind: type, program: str, summary: str, words: Sequence[str], values: Any) -> Any:
    parser = _parser(kind, program, summary)
    try:
        if values is None:
            words = _with_true(kind, words)
            _check_words(kind, words)
            parsed = parser.parse_args(list(words))
        else:
            _check_shape(kind, _refuse_classes(values), "")
            parsed = parser.parse_object(copy.deepcopy(values))  # it writes into what it is given
    except ConfigurationError as error:
        raise ConfigurationError(_explain(str(error), kind, program)) from None
    try:
        fields = vars(parser.instantiate(parsed))
    except ValueError as error:  # a group that may be absent reports its own errors inside another
        found = _REFUSED_INSIDE.search(str(error))
        message = found[1] if found else _one_line(str(error))
        raise ConfigurationError(_named_whole(message, kind, parsed)) from None
    fields.pop("config", None)
    return _with_home(kind(**fields))


class _Parser(jsonargparse.ArgumentParser):
    """Raises its complaints, also those about the parts it parses inside a value."""

    def error(self, message: str, ex: Exception | None = None) -> typing.Never:
        raise ConfigurationError(message) from None

    def dump(self, *given: Any, **options: Any) -> str:
        """Writes settings; on the way the parser reads its own words, where groups are classes."""
        mode, self.parser_mode = self.parser_mode, "yaml"
        try:
            values = yaml.safe_load(super().dump(*given, **options))
        finally:
            self.parser_mode = mode
        return yaml.safe_dump(_without_classes(values), sort_keys=False, allow_unicode=True)


def _without_classes(value: Any) -> Any:
    """Returns settings as they are read: of a group what it holds, and not its class."""
    if isinstance(value, Mapping):
        inside = value.get("init_args", {}) if "class_path" in value else value
        return {name: _without_classes(item) for name, item in inside.items()}
    return [_without_classes(item) for item in value] if isinstance(value, list) else value


@functools.cache  # a study reads hundreds of settings of a kind
def _parser(kind: type, program: str, summary: str) -> _Parser:
    # Without allow_abbrev=False a setting that lost its last letters passes for the whole one.
    parser = _Parser(
        prog=program, description=summary, allow_abbrev=False, parser_mode="yaml_without_classes"
    )
    parser.add_argument("--config", action="config", help="YAML file with settings")
    parser.add_class_arguments(kind)
    return parser


def _refuse_classes(value: Any) -> Any:
    """Refuses the keys by which the parser would import and build any class."""
    if isinstance(value, Mapping):
        parts = {part for name in value for part in str(name).split(".")}
        for key in _CLASS_KEYS & parts:
            raise ConfigurationError(
                f"the key '{key}' names a class to run, which no setting may do; remove it"
            )
    if isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            _refuse_classes(item)
    return value


def _read_yaml(text: str) -> Any:
    """Reads every text, whether file, argument or part of one, before anything looks at it."""
    check_document(text)
    return _refuse_classes(_load_yaml(text))


jsonargparse.set_loader("yaml_without_classes", _read_yaml, (yaml.YAMLError,))
jsonargparse.set_parsing_settings(
    instantiate_subclass_spec_in_any=False,
    import_path_denylist=["*"],
    import_path_allowlist=["nakt_dist"],  # it names our own settings to itself
)


def _with_true(kind: type, words: Sequence[str]) -> list[str]:
    """Gives each yes-or-no setting that stands alone its value: ``--repair`` is true."""
    completed = []
    for number, word in enumerate(words):
        following = words[number + 1] if number + 1 < len(words) else "-"
        alone = word.startswith("--") and following.startswith("-") and "=" not in word
        yes_or_no = alone and _type_at(kind, word[2:].split(".")) is bool
        completed.append(f"{word}=true" if yes_or_no else word)
    return completed


def _check_words(kind: type, words: Sequence[str]) -> None:
    """Checks each ``--key value`` and each file of ``--config``."""
    for number, word in enumerate(words):
        following = words[number + 1] if number + 1 < len(words) else ""
        key, value = word.split("=", 1) if "=" in word else (word, following)
        if not key.startswith("--"):
            continue
        name = key[2:].rstrip("+")
        _refuse_classes({name: None})
        if name != "config":
            _check_text(_type_at(kind, name.split(".")), value, name)
    for path in settings_files(words):
        if path == Path():
            raise ConfigurationError("--config names no file; expected a YAML file with settings")
        settings = load_settings_file(path)
        _check_shape(kind, settings, "")
        _check_not_of_a_list(kind, settings, words)


def _check_not_of_a_list(kind: type, settings: Any, words: Sequence[str]) -> None:
    """Refuses a word for a part of a group of which a file gives several: it would be the last."""
    for name, value in settings.items() if isinstance(settings, Mapping) else ():
        part = next((word for word in words if word.startswith(f"--{name}.")), None)
        if part is not None and isinstance(value, list) and _group(_type_at(kind, [name])):
            raise ConfigurationError(
                f"{part.partition('=')[0]} changes one setting of {name}, and the file has a list "
                f"of {len(value)}; change the file, or give the whole list: --{name} '[{{…}}, …]'"
            )


def _check_text(kind: Any, text: str, where: str) -> None:
    try:
        value = _read_yaml(text)
    except yaml.YAMLError:
        return  # the parser says what is wrong with it
    except ValueError:  # of Python, which reads no number of thousands of digits
        raise ConfigurationError(
            f"{where} holds a number that cannot be read; expected at most {LARGEST_NUMBER}"
        ) from None
    _check_shape(kind, value, where)


def _check_shape(kind: Any, value: Any, where: str) -> None:
    """Refuses a text where a group of settings belongs: it would be imported as a class.

    Likewise a whole number where a number belongs that neither floats nor arrays hold, and null
    where a value belongs, which the parser takes in files.
    """
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, int) and abs(number) > LARGEST_NUMBER and _takes_numbers(kind):
            raise ConfigurationError(
                f"{where} is a number of {len(str(abs(number)))} digits; expected at most "
                f"{LARGEST_NUMBER}"
            )
    if dataclasses.is_dataclass(kind):
        if value is not None and not isinstance(value, Mapping):
            raise ConfigurationError(_not_settings(kind, value, where))
        hints = typing.get_type_hints(kind)
        for name, item in value.items() if isinstance(value, Mapping) else ():
            first, *rest = str(name).split(".")
            part, place = _type_at(hints.get(first), rest), f"{where}.{name}".lstrip(".")
            if item is None and not _takes_null(part):
                raise ConfigurationError(
                    f"{place} is null; expected a value. Leave the setting out for its default"
                )
            _check_shape(part, item, place)
    elif typing.get_origin(kind) is list:
        for item in value if isinstance(value, list) else [value]:
            _check_shape(typing.get_args(kind)[0], item, f"a part of {where}")
    else:  # an optional group, or one or a list of several
        parts = typing.get_args(kind)
        groups = [part for part in parts if dataclasses.is_dataclass(part)]
        lists = [part for part in parts if typing.get_origin(part) is list]
        one_or_many = isinstance(value, list) and bool(lists)
        for part in lists if one_or_many or not groups else groups:
            _check_shape(part, value, where)


def _takes_null(kind: Any) -> bool:
    return kind in (None, Any) or type(None) in typing.get_args(kind)


def _takes_numbers(kind: Any) -> bool:
    parts = typing.get_args(kind)
    return kind in (int, float) or (str not in parts and any(map(_takes_numbers, parts)))


def _not_settings(kind: Any, value: Any, where: str) -> str:
    """Says what to write instead of a text or a list where a group of settings belongs."""
    first = dataclasses.fields(kind)[0].name
    if not isinstance(value, str):
        found = "a list" if isinstance(value, list) else str(value)
        return f"{where} is {found}; expected settings by name, such as {{{first}: …}}"
    named = typing.get_type_hints(kind)[first] is str
    word = f" (in a command line --{where}.{first} {value})" if named and "." not in value else ""
    return (
        f"{where or 'the configuration'} is the text {value!r}; expected settings by name, such as "
        f"{{{first}: {value if word else '…'}}}{word if re.fullmatch(r'[a-z_.]+', where) else ''}"
    )


def _type_at(kind: Any, names: Sequence[str]) -> Any:
    """Returns the annotation at a dotted key, None where there is none."""
    for name in names:
        group = _group(kind)
        kind = typing.get_type_hints(group).get(name) if group is not None else None
    return kind


def _group(kind: Any) -> Any:
    """Returns the group of settings that an annotation is, or may be; None where it is none."""
    return next(filter(dataclasses.is_dataclass, (kind, *typing.get_args(kind))), None)


def _with_home(value: Any) -> Any:
    """Expands a leading ``~/`` in every setting, as a shell does for words of its own."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(value, **{n: _with_home(getattr(value, n)) for n in names})
    if isinstance(value, list):
        return [_with_home(item) for item in value]
    if isinstance(value, str) and value.startswith("~/"):
        return str(Path(value).expanduser())
    return value


_UNKNOWN_KEY = re.compile(
    r"unrecognized arguments: --(?P<argument>[^\s=]+)"
    r"|Group '(?P<group>[^']+)' does not accept option '(?P<in_group>[^']+)'"
    r"|Option '(?P<option>[^']+)' is not accepted"
)
_GROUP = re.compile(r'Parser key "([^"]+)"')


def _explain(message: str, kind: type, program: str) -> str:
    """Puts a complaint on one line; an unknown key gets the nearest known one."""
    found = _UNKNOWN_KEY.search(message)
    if found is None:
        message = _with_first_of_groups(_one_line(message), kind)
        return _explain_incomplete(message, kind) or explain_value(message) or message
    key = found["argument"] or found["option"] or f"{found['group']}.{found['in_group']}"
    known = _known_keys(kind)
    # A complaint about a part inside a value names that part's key alone.
    inside = [name for name in known if name.endswith(f".{key}")]
    nearest = nearest_name(key, [*known, *(name.rsplit(".", 1)[-1] for name in known)])
    if inside:  # not misspelt, but a setting of a group
        nearest = f", did you mean '{inside[0]}'?"
    group = _GROUP.search(message)
    if group and f"{group[1]}.options" in known:  # not listed, as each network has its own
        near = nearest_name(
            key, [name.rsplit(".", 1)[-1] for name in _known_keys(_type_at(kind, [group[1]]))]
        )
        nearest = f"{near[:-1]}, or" if near else ", did you mean"
        nearest += f" {group[1]}.options: {{{key}: …}}?"
    if ":" in key:
        nearest = "; a blank belongs after the colon, as in weights: FILE"
    return f"there is no setting '{key}'{nearest} ({program} --help lists them)"


def _with_first_of_groups(message: str, kind: type) -> str:
    """Names what a group cannot do without, where the parser misses a group of several forms."""
    said, required, names = message.partition("arguments are required: ")
    groups = {name: _group(_type_at(kind, [name])) for name in names.split(", ")}
    whole = [
        name if group is None else f"{name}.{dataclasses.fields(group)[0].name}"
        for name, group in groups.items()
    ]
    return f"{said}{required}{', '.join(whole)}" if required else message


def _named_whole(message: str, kind: type, parsed: jsonargparse.Namespace) -> str:
    """Names a setting by its groups, too, of which its class knows no more than its own."""
    name = message.partition(" ")[0]
    keys = [key for key in _known_keys(kind) if f".{key}".endswith(f".{name}")]
    for key in keys:
        group = key.rpartition(".")[0]
        if len(keys) == 1 or _is_refused(_type_at(kind, group.split(".")), parsed.get(group)):
            return key + message.removeprefix(name)
    return message


def _is_refused(kind: Any, values: Any) -> bool:
    group = _group(kind)
    try:
        if group is not None and isinstance(values, jsonargparse.Namespace):
            group(**vars(values))
    except ConfigurationError:
        return True
    return False


def _explain_incomplete(message: str, kind: Any) -> str | None:
    """Says what a group of settings lacks that may be absent as a whole; None of other complaints.

    The parser shows all that it has of the group, in its own notation.
    """
    found = re.search(r'Parser key "([^"]+)": .*?\bNamespace\(', message)
    if found is None:
        return None
    name = found[1]
    group = _group(_type_at(kind, name.split(".")))
    for field in dataclasses.fields(group) if group is not None else ():
        needed = field.default is field.default_factory is dataclasses.MISSING
        if needed and re.search(rf"\b{field.name}=None\b", message):
            return f"{name} is set without {field.name}; give {name}.{field.name} as well"
    return None


def _one_line(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text)


def _known_keys(kind: Any, prefix: str = "") -> list[str]:
    """Lists the dotted keys of a configuration class, through optional and listed parts."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return [
            key
            for field in dataclasses.fields(kind)
            for key in (
                f"{prefix}{field.name}",
                *_known_keys(hints[field.name], f"{prefix}{field.name}."),
            )
        ]
    return [key for part in typing.get_args(kind) for key in _known_keys(part, prefix)]
