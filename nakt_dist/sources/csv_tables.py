"""Reads the tables that datasets come with, row by row: ``.csv``, or ``.csv.gz``.

Tables are untrusted. They are read as text (a formula is its characters), in UTF-8 with or
without a byte order mark; bytes that are not UTF-8 become U+FFFD, or letters of Windows-1252
where a caller asks for it, so that one damaged cell does not cost the table. A line, and the
number of lines, is bounded, so that a small archive cannot fill the memory.
"""

import csv
import filecmp
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from nakt_dist.errors import DatasetError, nearest_name
from nakt_dist.sources.files import FolderContents, FoundFile
from nakt_dist.sources.record import SourceRecord

MAX_LINE_CHARACTERS = 2**20
MAX_LINES = 10_000_000
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_GZIP_MARK = b"\x1f\x8b"
_NOT_UTF_8 = re.compile("[\udc80-\udcff]")


class TableRow(NamedTuple):
    """One row of a table.

    Attributes:
        line: number of its last line in the file, from 1.
        cells: the wanted columns, without surrounding blanks; ``""`` where the row is short.
        fault: what is wrong with the row, in words, or None; its cells then mean nothing.
        number: of the row below the header, from 1, where empty ones do not count.
    """

    line: int
    cells: tuple[str, ...]
    fault: str | None
    number: int


def read_rows(
    table: FoundFile,
    required: Sequence[str],
    optional: Sequence[str] = (),
    wide_rows: bool = False,
    windows_letters: Counter[str] | None = None,
) -> Iterator[TableRow]:
    """Yields the rows of a table; empty ones are skipped.

    Args:
        table: the file; a gzip file is recognised by its content, not by its name.
        required: columns that the header must name.
        optional: columns that it may name; their cells are ``""`` where it does not.
        wide_rows: allow rows with more cells than the header has names, as in tables whose
            last header names stand for two columns each.
        windows_letters: where given, bytes that are not UTF-8 are read as Windows-1252, and
            the lines that hold some are counted here.

    Returns:
        Rows whose cells follow the order of ``required``, then ``optional``. The columns may
        come in any order and among others; columns without a name are passed over.

    Raises:
        DatasetError: the file cannot be read, is not UTF-8 text, has no header, lacks a
            required column, names a column twice, or is too large.
    """
    errors = "replace" if windows_letters is None else "surrogateescape"
    with _opened(table, errors) as text:
        lines = _lines(text, table.name)
        if windows_letters is not None:
            lines = _with_windows_letters(lines, windows_letters)
        reader = csv.reader(lines, strict=True)
        rows = _rows(reader, table.name)
        header = [name.strip() for name in next(rows, [])]
        positions = _positions(table, header, required, optional)
        width = len(header)
        while header and not header[-1]:
            header.pop()
        narrowest = len(header)
        padded = None in positions
        positions = [width if position is None else position for position in positions]
        for number, row in enumerate(filter(any, rows), start=1):
            fault = None
            if len(row) < narrowest or (not wide_rows and any(row[narrowest:])):
                fault = f"it has {len(row)} cells; expected {narrowest} as in the header"
            if padded or len(row) < width:  # absent columns read the cell after the last
                row = [*row[:width], *[""] * max(width + 1 - len(row), 1)]
            cells = tuple([row[p].strip() for p in positions])
            yield TableRow(reader.line_num, cells, fault, number)


def _rows(reader: Any, name: str) -> Iterator[list[str]]:
    """Yields what a ``csv.reader`` does; its complaints name where the row begins."""
    while True:
        first = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DatasetError(
                f"'{name}' cannot be read (the row that begins in line {first}: {error}); mend "
                "what stands in quotes there, or download the table again"
            ) from None
        if row is None:
            return
        yield row


def read_list(file: FoundFile) -> list[str]:
    """Returns the lines of a list of names, without surrounding blanks and empty lines.

    Raises:
        DatasetError: the file cannot be read, is not UTF-8 text, or is too large.
    """
    with _opened(file) as text:
        return [name for line in _lines(text, file.name) if (name := line.strip())]


def find_table(contents: FolderContents, *file_names: str) -> FoundFile | None:
    """Returns the one file of the given names, or None.

    Copies of the same content count as one; the least deep is returned.

    Raises:
        DatasetError: several files differ, so that it is open which one holds.
    """
    wanted = frozenset(file_names)
    found = [file for file in contents.others if file.file_name in wanted]
    found.sort(key=lambda file: (file.name.count("/"), file.name))
    for other in found[1:]:
        if not _same_content(found[0], other):
            raise DatasetError(
                f"'{found[0].name}' and '{other.name}' both stand below the dataset's folder and "
                "differ; leave the one that belongs to the images there"
            )
    return found[0] if found else None


def row_record(root: Path, table: FoundFile, line: int, reason: str, detail: str) -> SourceRecord:
    """Returns the record of a row that names no image that could be looked for.

    Its name tells the table and the line; no such file exists.
    """
    name = f"{table.name}, line {line}"
    return SourceRecord(name, root / name, problem=(reason, detail))


def quoted(text: str) -> str:
    """Returns a cell for a message: quoted, escaped and not longer than 60 characters."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _positions(
    table: FoundFile, header: Sequence[str], required: Sequence[str], optional: Sequence[str]
) -> list[int | None]:
    if not any(header):
        raise DatasetError(
            f"'{table.name}' has no header; expected the columns {', '.join(required)}. "
            "Download the table again"
        )
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise DatasetError(
            f"The header of '{table.name}' names the column {quoted(twice[0])} twice, so that it "
            "is open which one holds; remove one of the two columns"
        )
    for name in required:
        if name not in header:
            found = ", ".join(quoted(column) for column in header[:30])
            raise DatasetError(
                f"The header of '{table.name}' lacks the column '{name}'"
                f"{nearest_name(name, header)} (found: {found}). Download the table again, or "
                "choose the layout that fits it"
            )
    return [header.index(name) if name in header else None for name in (*required, *optional)]


@contextmanager
def _opened(file: FoundFile, errors: str = "replace") -> Iterator[TextIO]:
    """Opens a table as text and puts the ways in which reading fails into words."""
    try:
        with file.path.open("rb") as raw:
            start = raw.read(2)
        if start in _UTF16_MARKS:
            raise _is_utf_16(file.name)
        open_text = gzip.open if start == _GZIP_MARK else open
        with open_text(file.path, "rt", encoding="utf-8-sig", errors=errors, newline="") as text:
            yield text
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(
            f"'{file.name}' cannot be read ({error}); download the table again"
        ) from error


def _is_utf_16(name: str) -> DatasetError:
    return DatasetError(
        f"'{name}' is UTF-16 text, as spreadsheets write it; expected UTF-8. "
        "Download the table again, or save it as CSV in UTF-8"
    )


def _lines(text: TextIO, name: str) -> Iterator[str]:
    for number in range(1, MAX_LINES + 2):
        line = text.readline(MAX_LINE_CHARACTERS)
        if not line:
            return
        if number == 1 and "\0" in line:  # UTF-16 without its mark: every other byte is 0
            raise _is_utf_16(name)
        if len(line) == MAX_LINE_CHARACTERS or number > MAX_LINES:
            what = f"line {number} is" if number <= MAX_LINES else f"its {number} lines are"
            raise DatasetError(
                f"'{name}': {what} longer than any published table; expected lines below "
                f"{MAX_LINE_CHARACTERS} characters and at most {MAX_LINES} of them. Download "
                "the table again"
            )
        yield line


def _with_windows_letters(lines: Iterator[str], found: Counter[str]) -> Iterator[str]:
    """Gives the bytes that are not UTF-8 a letter each, and counts the lines that hold some."""
    for line in lines:
        if _NOT_UTF_8.search(line):
            found["lines that are not UTF-8, read as Windows-1252"] += 1
            line = _NOT_UTF_8.sub(_windows_letter, line)
        yield line


def _windows_letter(escaped: re.Match[str]) -> str:
    byte = escaped[0].encode("utf-8", "surrogateescape")
    try:
        return byte.decode("cp1252")
    except UnicodeDecodeError:  # five bytes mean nothing there and a control sign in Latin-1
        return byte.decode("latin-1")


def _same_content(first: FoundFile, second: FoundFile) -> bool:
    try:
        return filecmp.cmp(first.path, second.path, shallow=False)
    except OSError:
        return False  # whichever cannot be read, the message names both
