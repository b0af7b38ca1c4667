"""Writes a report as one HTML page that needs nothing from outside itself."""

import base64
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from nakt_dist.report.document import Cell, Document

_LONGEST_WORD = 40
"""Longer ones are broken anywhere, so that a name cannot push a table off the page."""


def to_html(document: Document) -> str:
    """Writes a document as one page: figures inside it, no script, nothing from outside.

    Every text is escaped; a run named like a tag shows its name.
    """
    return _template().render(document=document)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("nakt_dist.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "base64": lambda png: base64.b64encode(png).decode(),
        "breakable": _breakable,
        "kind": _kind,
        "name": lambda block: type(block).__name__,
    }
    return environment.get_template("page.html")


def _kind(cell: Cell) -> str:
    """Numbers and digests stay on one line; words get a column wide enough to be read."""
    text = cell.text
    if any(len(word) > _LONGEST_WORD for word in text.split()):
        return "endless"
    if cell.minor:
        return "minor"
    if (text.lstrip("+−")[:1].isdigit() and len(text) < 20) or (
        " " not in text and len(text) <= 12
    ):
        return "short"
    return "long"


def _breakable(text: str) -> Markup:
    """Escapes a text and says where long names in it may be broken."""
    return escape(text).replace("_", Markup("_<wbr>"))
