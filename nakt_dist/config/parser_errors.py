"""Puts the parser's complaints about a value into one line: field, found, expected, nearest."""

import re

from nakt_dist.errors import nearest_name

_KEY = re.compile(r'Parser key "([^"]+)":')
_FOUND = re.compile(
    r"(?:Got|Given) value: (?P<value>.*?)(?= - (?:Expected|Parser key)| Given value|$)"
)
_NESTED = re.compile(r"NestedArg\(key='(?P<key>[^']*)', val=(?P<value>.*)\)")
_UNION = re.compile(r"Subtypes: \[(?P<kinds>.*?)\] Errors:")
_ONE = re.compile(r"Expected an? (?P<kind>.*?)\. Got value")
_KIND = re.compile(
    r"(?P<mapping>dict\[str, .*?\]\])"
    r"|typing\.Literal\[(?P<choices>[^\]]*)\]|<class '(?P<name>[^']*)'>"
    r"|(?P<other>[^,\[\s][^,\[]*(?:\[.*?\])?)"
)
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "list": "a list",
    "list[str]": "a list as in [a, b]",
    "list[float]": "a list of numbers",
    "list[int | str]": "a list as in [1, 2]",
    "tuple": "a list of as many numbers as the default has",
    "dict": "settings by name",
    "NoneType": "null",
}


def explain_value(message: str) -> str | None:
    """Returns what a complaint on one line says of a value, None where it is of another form.

    The parser tells of every type that a value is not. What matters stands after the innermost
    key: the value that was found and the types that the key has.
    """
    keys = list(_KEY.finditer(message))
    if not keys:
        return None
    innermost = message[keys[-1].end() :]
    value, kinds = _FOUND.search(innermost), _UNION.search(innermost) or _ONE.search(innermost)
    if value is None or kinds is None:
        return None
    name, found = _joined([key[1] for key in keys]), value["value"].strip()
    nested = _NESTED.fullmatch(found)
    if nested:  # a part of a setting that has none
        name, found = f"{name}.{nested['key']}", nested["value"]
    choices, types = _expected(kinds[1])
    *others, last = [*choices, *types]
    expected = f"{', '.join(others)} or {last}" if others else last
    return f"{name} is {found}; expected {expected}{nearest_name(found, choices)}"


def _joined(keys: list[str]) -> str:
    """Returns the dotted name of the last of several keys, each inside the one before.

    One that was passed before is told a second time, of another type that the whole may have.
    """
    path: list[str] = []
    for key in keys:
        name = ".".join(path)
        if key in path:
            path = path[: path.index(key) + 1]
        elif path and (key == name or key.startswith(f"{name}.")):
            path = [key]
        else:
            path.append(key)
    return ".".join(path)


def _expected(kinds: str) -> tuple[list[str], list[str]]:
    """Returns the choices that are to be had, and what the other types are called."""
    choices, types = [], []
    for match in _KIND.finditer(kinds):
        if match["choices"]:
            choices += re.findall(r"'([^']*)'", match["choices"])
        else:
            kind = (match["name"] or match["other"] or "dict").strip()
            types.append(_WORDS.get(kind, "settings by name" if "." in kind else kind))
    return choices, types
