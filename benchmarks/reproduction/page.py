"""Fills the marked places of `docs/reproduction.md` from records.

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->``; a number of the prose between
``<!--NAME-->`` and ``<!--/-->``. The page is its own template: what lies between marks is
replaced, all else stays, so that it can be made again at any time. A number outside a mark is an
error, unless it belongs to a name.
"""

import re
from collections.abc import Mapping

from nakt_dist.errors import DatasetError

_TABLE = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_NUMBER = re.compile(r"(<!--([\w./-]+)-->).*?(<!--/-->)", re.DOTALL)
_CODE = re.compile(r"```.*?```|`[^`\n]*`|\]\([^)]*\)", re.DOTALL)
_NAMES = re.compile(
    r"DenseNet-\d+|ChestX-ray14|EfficientNet-Lite0|BSDS500|ISIC 2019|VOC2012|DeepLabv3\+|Paper A|"
    r"(?:sections?|tables?|figures?|equation) [\d.]+(?:(?:,| and| to) \d+)*|95 % interval|"
    r"1\.96 s / √n"
)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def fill(text: str, tables: Mapping[str, str], numbers: Mapping[str, str]) -> str:
    """Returns the page with every marked place filled.

    Raises:
        DatasetError: a mark names nothing that there is, or a table has no place.
    """

    def table(found: re.Match[str]) -> str:
        return f"{found[1]}\n{_named(found[2], tables)}\n\n{found[3]}"

    def number(found: re.Match[str]) -> str:
        return f"{found[1]}{_named(found[2], numbers)}{found[3]}"

    placed = {found[2] for found in _TABLE.finditer(text)}
    if missing := sorted(tables.keys() - placed):
        raise DatasetError(
            f"the page has no place for {', '.join(missing)}; write <!-- table NAME --> and "
            "<!-- end --> where it is to stand"
        )
    return _NUMBER.sub(number, _TABLE.sub(table, text))


def _named(name: str, known: Mapping[str, str]) -> str:
    if name not in known:
        raise DatasetError(f"the page asks for {name}; there are {', '.join(sorted(known))}")
    return known[name]


def loose_numbers(text: str) -> list[str]:
    """Returns the lines of the prose that hold a number which no record fills."""
    prose = _TABLE.sub("", text)
    for pattern in (_NUMBER, _CODE, _COMMENT, _NAMES):
        prose = pattern.sub("", prose)
    return [line for line in prose.splitlines() if re.search(r"\d", line)]
