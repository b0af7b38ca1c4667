"""What a report consists of, before it is written as Markdown or HTML."""

from dataclasses import dataclass, field

WARNING = "⚠"
"""Stands beside numbers that are known to mislead."""


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
    """A table.

    Attributes:
        title: above it.
        header: names of the columns; the first column names the rows.
        rows: as many cells each as the header.
        remarks: sentences below it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        name: file name without folder, such as ``"dice-1.png"``.
        png: the file's content.
        title: above it; also its text for those who cannot see it.
        caption: sentences below it: what is drawn and how.
    """

    name: str
    png: bytes = field(repr=False)
    title: str
    caption: str


Block = Paragraph | Notice | Bullets | Table | Figure


@dataclass(frozen=True)
class Section:
    """A part with a heading.

    Attributes:
        identifier: lower-case word for links.
        title: the heading.
        blocks: in order.
    """

    identifier: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        title: the heading.
        subtitle: one line below it.
        sections: in order.
    """

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
