"""Reads the tables that datasets come with, row by row: ``.csv``, or ``.csv.gz``.

Tables are untrusted. They are read as text (a formula is its characters), in UTF-8 with or
without a byte order mark; bytes that are not UTF-8 become U+FFFD, or letters of Windows-1252
where a caller asks for it, so that one damaged cell does not cost the table. A line, and the
number of lines, is bounded, so that a small archive cannot fill the memory.

Columns may be separated by commas, semicolons, tabs or ``|``: whichever makes the first line name
every required column, or what a line ``sep=;`` before it says, as spreadsheets write.
"""

import csv
import filecmp
import gzip
import itertools
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from nakt_dist.errors import DatasetError, nearest_name
from nakt_dist.sources.files import FolderContents, FoundFile
from nakt_dist.sources.listing import SourceRecord

MAX_LINE_CHARACTERS = 2**20
MAX_LINES = 10_000_000
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_SPREADSHEET_MARKS = (b"PK", b"\xd0\xcf")
_GZIP_MARK = b"\x1f\x8b"
_SEPARATORS = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|:^~#])"?', re.IGNORECASE)
NO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff"
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
    found: Counter[str] | None = None,
    windows_letters: bool = False,
) -> Iterator[TableRow]:
    """Yields the rows of a table; empty ones are skipped.

    Args:
        table: the file; a gzip file is recognised by its content, not by its name.
        required: columns that the header must name.
        optional: columns that it may name; their cells are ``""`` where it does not.
        wide_rows: allow rows with more cells than the header has names, as in tables whose
            last header names stand for two columns each.
        found: where given, counts by words what is worth saying of the table.
        windows_letters: read bytes that are not UTF-8 as Windows-1252; the lines that hold some
            are counted.

    Returns:
        Rows whose cells follow the order of ``required``, then ``optional``. The columns may
        come in any order and among others; columns without a name are passed over.

    Raises:
        DatasetError: the file cannot be read, is not UTF-8 text, has no header, lacks a
            required column, names a column twice, or is too large.
    """
    found = Counter() if found is None else found
    with _opened(table, "surrogateescape" if windows_letters else "replace") as text:
        lines = _lines(text, table.name)
        if windows_letters:
            lines = _with_windows_letters(lines, found)
        form, lines = _form_of(lines, required)
        if form.separator != ",":
            words = f"tables whose columns are separated by {_separator_told(form.separator)}"
            found[words] += 1
        reader, rows, header = _header(table, form, lines)
        places = _positions(table, header, form.separator, required, optional)
        width = len(header)
        while header and not header[-1]:
            header.pop()
        narrowest = len(header)
        padded = None in places
        positions = [width if place is None else place for place in places]
        for number, row in enumerate(filter(any, rows), start=1):
            fault = None
            if len(row) < narrowest or (not wide_rows and any(row[narrowest:])):
                fault = f"it has {len(row)} cells; expected {narrowest} as in the header"
            if padded or len(row) < width:  # absent columns read the cell after the last
                row = [*row[:width], *[""] * max(width + 1 - len(row), 1)]
            cells = tuple([row[p].strip() for p in positions])
            yield TableRow(reader.line_num + form.lines_before, cells, fault, number)


def column_names(table: FoundFile, required: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of all columns of a table, in order and without those of no name.

    Raises:
        DatasetError: as ``read_rows``.
    """
    with _opened(table) as text:
        form, lines = _form_of(_lines(text, table.name), required)
        _, _, header = _header(table, form, lines)
        _positions(table, header, form.separator, required, ())
    return tuple(filter(None, header))


class _Form(NamedTuple):
    """How a table is written: what stands between its cells, and lines before its header."""

    separator: str
    lines_before: int


def _form_of(lines: Iterator[str], required: Sequence[str]) -> tuple[_Form, Iterator[str]]:
    """Returns how a table is written, and its lines from the header on."""
    header = next(lines, "")
    said = _SEPARATOR_LINE.fullmatch(header.rstrip("\r\n"))
    if said:
        header = next(lines, "")
    wanted = set(map(_column_name, required))
    fitting = [
        (len(wanted.intersection(names)), len(names) > 1, separator)
        for separator in dict.fromkeys(([said[1]] if said else []) + list(_SEPARATORS))
        if (names := _split_header(header, separator)) is not None
    ]
    # the first of the best, so that the one said or commas hold where nothing speaks for another
    best = max(fitting, key=lambda each: each[:2], default=(0, False, ","))
    return _Form(best[2], 1 if said else 0), itertools.chain([header], lines)


def _header(
    table: FoundFile, form: _Form, lines: Iterator[str]
) -> tuple[Any, Iterator[list[str]], list[str]]:
    """Returns the ``csv.reader`` of a table, its rows below the header, and that."""
    reader = csv.reader(lines, strict=True, delimiter=form.separator)
    rows = _rows(reader, table.name, form.lines_before)
    return reader, rows, [_column_name(name) for name in next(rows, [])]


def _split_header(line: str, separator: str) -> list[str] | None:
    """Returns the names of a header split at a separator; None where quotes forbid it."""
    try:
        row = next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return None
    return list(map(_column_name, row))


def _column_name(text: str) -> str:
    """Returns a name without blanks and signs of no width around it, its letters in NFC."""
    return unicodedata.normalize("NFC", text.strip().strip(NO_WIDTH).strip())


def _separator_told(separator: str) -> str:
    return _SEPARATORS.get(separator, repr(separator))


def _rows(reader: Any, name: str, lines_before: int) -> Iterator[list[str]]:
    """Yields what a ``csv.reader`` does; its complaints name where the row begins."""
    while True:
        first = lines_before + reader.line_num + 1
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
    table: FoundFile,
    header: Sequence[str],
    separator: str,
    required: Sequence[str],
    optional: Sequence[str],
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
    places = {name: place for place, name in reversed(list(enumerate(header)))}
    for name in required:
        if _column_name(name) not in places:
            found = ", ".join(quoted(column) for column in header[:30])
            apart = "" if separator == "," else f", separated by {_separator_told(separator)}"
            raise DatasetError(
                f"The header of '{table.name}' lacks the column '{name}'"
                f"{nearest_name(name, header)} (found: {found}{apart}).{_written_as_one(header)} "
                "Name the columns as the table does, download it again, or choose the layout that "
                "fits it"
            )
    return [places.get(_column_name(name)) for name in (*required, *optional)]


def _written_as_one(header: Sequence[str]) -> str:
    """Says what is wrong with a header whose one cell holds a whole line."""
    if len(header) == 1 and any(separator in header[0] for separator in _SEPARATORS):
        return " The whole line is one name: save the table without quotes around its lines."
    return ""


@contextmanager
def _opened(file: FoundFile, errors: str = "replace") -> Iterator[TextIO]:
    """Opens a table as text and puts the ways in which reading fails into words."""
    try:
        with file.path.open("rb") as raw:
            start = raw.read(2)
        if start in _UTF16_MARKS:
            raise _is_utf_16(file.name)
        if start in _SPREADSHEET_MARKS:
            raise DatasetError(
                f"'{file.name}' is a spreadsheet (.xlsx or .xls), whatever its name says; save it "
                "as CSV in UTF-8"
            )
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
