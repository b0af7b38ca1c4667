"""Writes a report as Markdown."""

import re

from nakt_dist.report.document import (
    Bar,
    Block,
    Bullets,
    Cell,
    Document,
    Figure,
    Notice,
    Paragraph,
    Table,
)

FIGURE_FOLDER = "figures"
_MARKS = re.compile(r"([\\`*\[\]|#~])")
_OPENS_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_OPENS_ENTITY = re.compile(r"&(?=#?\w+;)")


def to_markdown(document: Document) -> str:
    """Writes a document; its figures are linked below ``figures/``."""
    parts = [f"# {escape(document.title)}", escape(document.subtitle)]
    for section in document.sections:
        parts.append(f"## {escape(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def table_to_markdown(table: Table, notes: bool = True) -> str:
    """Writes one table with its title, its remarks and, where wished, its cells' notes."""
    lines = [f"| {' | '.join(map(escape, table.header))} |", "|" + " --- |" * len(table.header)]
    lines += [f"| {' | '.join(_cell(cell, notes) for cell in row)} |" for row in table.rows]
    remarks = "\n".join(f"- {escape(remark)}" for remark in table.remarks)
    parts = [f"**{escape(table.title)}**", "\n".join(lines), *([remarks] if remarks else [])]
    return "\n\n".join(parts)


def escape(text: str) -> str:
    """Makes text mean itself in Markdown, and in the HTML that Markdown may hold."""
    text = _OPENS_TAG.sub("&lt;", _OPENS_ENTITY.sub("&amp;", text))
    return _MARKS.sub(r"\\\1", text)


def _block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return escape(text)
        case Notice(text):
            return f"> **{escape(text)}**"
        case Bullets(items):
            return "\n".join(f"- {escape(item)}" for item in items)
        case Table():
            return table_to_markdown(block)
        case Bar():
            return f"**{escape(block.title)}:** {escape(', '.join(block.labels))}"
        case Figure():
            link = f"![{escape(block.title)}]({FIGURE_FOLDER}/{block.name})"
            return f"**{escape(block.title)}**\n\n{link}\n\n{escape(block.caption)}"


def _cell(cell: Cell, notes: bool) -> str:
    text = f"**{escape(cell.text)}**" if cell.strong and cell.text else escape(cell.text)
    return "<br>".join([text, *(escape(note) for note in cell.notes)]) if notes else text
