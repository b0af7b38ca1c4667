"""What a report consists of, before it is written as Markdown or HTML."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

WARNING = "⚠"
"""Stands beside numbers that are known to mislead."""

NOTHING = "–"
"""Stands where there is no number."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: the main line.
        notes: smaller lines below it.
        strong: whether the main line is set in bold.
        minor: whether the cell may be set smaller, and left out where there is no room.
    """

    text: str
    notes: tuple[str, ...] = ()
    strong: bool = False
    minor: bool = False


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Notice:
    """Running text that must not be overlooked."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table; the first column names the rows, and remarks are sentences below it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """One column of a table whose rows each show one item.

    Attributes:
        show: what it shows of an item, a cell or its text alone.
        minor: whether its cells may be set smaller, and left out where there is no room.
    """

    name: str
    show: Callable[[Any], Cell | str]
    shown: bool = True
    minor: bool = False

    def cell(self, item: Any) -> Cell:
        """Returns what stands in the item's row."""
        shown = self.show(item)
        cell = Cell(shown) if isinstance(shown, str) else shown
        return replace(cell, minor=self.minor)


def tabulate(
    title: str, columns: Iterable[Column], items: Iterable[Any], remarks: Iterable[str] = ()
) -> Table:
    """Makes a table with a row for each item; columns that are not shown leave no trace."""
    columns = [column for column in columns if column.shown]
    rows = tuple(tuple(column.cell(item) for column in columns) for item in items)
    header = tuple(column.name for column in columns)
    return Table(title, header, rows, tuple(remarks))


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        name: file name without folder, such as ``"dice-1.png"``.
        title: above it; also its text for those who cannot see it.
        caption: sentences below it: what is drawn and how.
    """

    name: str
    png: bytes = field(repr=False)
    title: str
    caption: str


@dataclass(frozen=True)
class Bar:
    """A whole and its parts, side by side.

    Attributes:
        parts: their names, and shares that sum to 1; at most eleven.
    """

    title: str
    parts: tuple[tuple[str, float], ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The parts in words, such as ``"forward 31.0 %"``."""
        return tuple(f"{name} {100 * share:.1f} %" for name, share in self.parts)


Block = Paragraph | Notice | Bullets | Table | Figure | Bar


def present(*blocks: Block | None) -> tuple[Block, ...]:
    """Returns those blocks that there are."""
    return tuple(block for block in blocks if block is not None)


@dataclass(frozen=True)
class Section:
    """A part with a heading; the identifier is a lower-case word for links."""

    identifier: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Wing:
    """What a report says about one task; the brief is for a reader who reads nothing else."""

    brief: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    appendix: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Document:
    """A report; the subtitle is one line below its heading."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]

    @property
    def figures(self) -> list[Figure]:
        """All figures, in order."""
        return [
            block
            for section in self.sections
            for block in section.blocks
            if isinstance(block, Figure)
        ]
