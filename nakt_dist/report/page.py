"""Writes a report as one HTML page that needs nothing from outside itself."""

import base64
from html import escape

from nakt_dist.report.document import (
    Block,
    Bullets,
    Cell,
    Document,
    Figure,
    Notice,
    Paragraph,
    Section,
    Table,
)

# Forbids the page to load or run anything, should a value ever slip through unescaped.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_LONGEST_WORD = 40
"""Longer ones are broken anywhere, so that a name cannot push a table off the page."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1b2430; --soft: #5a6675; --paper: #ffffff;
  --panel: #f5f7fa; --line: #d9dfe6; --accent: #0b5a8f; --notice: #fff4d6; --notice-line: #d99a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #a3aebc; --paper: #12171d;
  --panel: #1b222b; --line: #323c48; --accent: #7cc0ee; --notice: #3a2f12;
  --notice-line: #d99a00; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 80rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 3rem 0 .8rem; padding-bottom: .3rem;
  border-bottom: 2px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.8rem 0 .5rem; }
p, li { max-width: 52rem; overflow-wrap: anywhere; }
a { color: var(--accent); }
.subtitle, .remarks, figcaption, .note { color: var(--soft); }
.subtitle { margin: 0 0 1.4rem; }
.remarks, figcaption { font-size: .88rem; }
nav { background: var(--panel); border-radius: .5rem; padding: .8rem 1.2rem; }
nav ol { margin: 0; padding-left: 1.3rem; columns: 16rem auto; }
.notice { background: var(--notice); border-left: .35rem solid var(--notice-line);
  border-radius: .3rem; padding: .7rem 1rem; max-width: 52rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .5rem .6rem;
  border-bottom: 1px solid var(--line); }
td { overflow-wrap: break-word; }
td.short, th.short { white-space: nowrap; }
td.long { min-width: 7rem; }
td.endless { min-width: 12rem; overflow-wrap: anywhere; }
td.minor { font-size: .8rem; line-height: 1.4; color: var(--soft); }
td .note { white-space: normal; min-width: 10rem; overflow-wrap: anywhere; }
thead th { background: var(--panel); vertical-align: bottom; }
tbody th { font-weight: 600; min-width: 6rem; overflow-wrap: break-word; }
tbody th:has(.note) { min-width: 9rem; }
tbody tr:last-child > * { border-bottom: 0; }
.note { display: block; font-size: .8rem; font-weight: 400; line-height: 1.35; }
figure { margin: 1.2rem 0 2rem; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; padding: .5rem;
  border: 1px solid var(--line); border-radius: .5rem; }
figcaption { max-width: 52rem; margin-top: .5rem; }
@media (max-width: 40rem) { body { font-size: 15px; } main { padding: 1.2rem .8rem 3rem; }
  h1 { font-size: 1.5rem; } table { font-size: .82rem; } th, td { padding: .4rem .5rem; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff;
    --panel: #f2f2f2; --line: #bbb; --accent: #000; --notice: #fff; }
  body { font-size: 10pt; } main { max-width: none; padding: 0; } nav { display: none; }
  .wide { overflow: visible; border: 0; } thead th { white-space: normal; }
  table { font-size: 8pt; } tr, figure, .notice { break-inside: avoid; }
  h2, h3 { break-after: avoid; } td, tbody th { min-width: 0; padding: .25rem .35rem; } }
"""


def to_html(document: Document) -> str:
    """Writes a document as one page: figures inside it, no script, nothing from outside.

    Every text is escaped; a run named like a tag shows its name.
    """
    contents = "".join(
        f'<li><a href="#{escape(section.identifier)}">{escape(section.title)}</a></li>'
        for section in document.sections
    )
    sections = "\n".join(map(_section, document.sections))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(document.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(document.title)}</h1>"
        f'<p class="subtitle">{escape(document.subtitle)}</p></header>\n'
        f'<nav aria-label="Contents"><ol>{contents}</ol></nav>\n'
        f"{sections}\n</main>\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    blocks = "\n".join(map(_block, section.blocks))
    identifier = escape(section.identifier)
    return f'<section id="{identifier}">\n<h2>{escape(section.title)}</h2>\n{blocks}\n</section>'


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Notice(text):
            return f'<p class="notice">{escape(text)}</p>'
        case Bullets(items):
            return _list(items, "")
        case Table():
            return _table(block)
        case Figure():
            return _figure(block)


def _list(items: tuple[str, ...], kind: str) -> str:
    return f'<ul class="{kind}">{"".join(f"<li>{escape(item)}</li>" for item in items)}</ul>'


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col">{_breakable(name)}</th>' for name in table.header)
    rows = "\n".join(f"<tr>{_row(row)}</tr>" for row in table.rows)
    remarks = _list(table.remarks, "remarks") if table.remarks else ""
    return (
        f'<h3>{escape(table.title)}</h3>\n<div class="wide"><table>\n'
        f"<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n{remarks}"
    )


def _row(row: tuple[Cell, ...]) -> str:
    first, *others = row
    # A short name such as DenseNet-121 is not broken at its hyphen.
    kind = ' class="short"' if _kind(first) == "short" else ""
    cells = [f'<th scope="row"{kind}>{_content(first)}</th>']
    for cell in others:
        cells.append(f'<td class="{_kind(cell)}">{_content(cell)}</td>')
    return "".join(cells)


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


def _content(cell: Cell) -> str:
    text = _breakable(cell.text)
    text = f"<strong>{text}</strong>" if cell.strong else text
    return text + "".join(f'<span class="note">{escape(note)}</span>' for note in cell.notes)


def _breakable(text: str) -> str:
    """Escapes a text and says where long names in it may be broken."""
    return escape(text).replace("_", "_<wbr>")


def _figure(figure: Figure) -> str:
    data = base64.b64encode(figure.png).decode()
    return (
        f"<h3>{escape(figure.title)}</h3>\n<figure>"
        f'<img alt="{escape(figure.title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
    )
