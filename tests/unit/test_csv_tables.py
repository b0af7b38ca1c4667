"""The tables of datasets, as published, as spreadsheets mangle them, and as attackers might."""

import gzip
from collections import Counter
from pathlib import Path

import pytest

from nakt_dist.errors import DatasetError
from nakt_dist.sources import csv_tables
from nakt_dist.sources.csv_tables import column_names, find_table, quoted, read_list, read_rows
from nakt_dist.sources.files import FoundFile, walk


def table(folder: Path, content: str | bytes, name: str = "t.csv") -> FoundFile:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return FoundFile(name, folder / name)


def cells(file: FoundFile, *columns: str, **settings: object) -> list[tuple[str, ...]]:
    rows = list(read_rows(file, columns, **settings))
    assert [row.fault for row in rows] == [None] * len(rows)
    return [row.cells for row in rows]


class TestReadRows:
    @pytest.mark.parametrize("compress", [bytes, gzip.compress])
    @pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
    def test_forms_of_one_table(self, tmp_path: Path, compress: object, name: str) -> None:
        for content in ("a,b\n1,2\n", "\ufeffa,b,\r\n1,2,\r\n", ' a ,b,\n"1", 2 ,\n,,\n\n'):
            file = table(tmp_path, compress(content.encode()), name)
            assert cells(file, "b", "a") == [("2", "1")]

    @pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
    @pytest.mark.parametrize("said", [True, False])
    def test_separators_and_the_line_that_says_them(
        self, tmp_path: Path, separator: str, said: bool
    ) -> None:
        rows = ["x,a,b", '0,"1,5;6\n7",2', "1,3,4", "5,6,7,8"]
        written = [row.replace(",", separator).replace(f"1{separator}5", "1,5") for row in rows]
        before = f"\ufeffsep={separator}\r\n" if said else "\ufeff"
        file, found = table(tmp_path, before + "\r\n".join(written)), Counter()
        *read, wide = read_rows(file, ("b", "a"), found=found)
        assert [row.cells for row in read] == [("2", "1,5;6\n7"), ("4", "3")]
        assert [row.line for row in read] == [3 + said, 4 + said]
        assert wide.fault == "it has 4 cells; expected 3 as in the header"
        assert found.total() == (separator != ",")
        assert column_names(file, ("b",)) == ("x", "a", "b")

    def test_a_line_that_says_a_separator_which_is_none(self, tmp_path: Path) -> None:
        assert cells(table(tmp_path, "sep=;\na,b\n1,2\n"), "b") == [("2",)]

    @pytest.mark.parametrize("start", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0"])
    def test_spreadsheets_are_named(self, tmp_path: Path, start: bytes) -> None:
        with pytest.raises(DatasetError, match=r"is a spreadsheet .*save it as CSV"):
            cells(table(tmp_path, start + bytes(99)), "a")

    def test_commas_hold_where_nothing_speaks_for_another_separator(self, tmp_path: Path) -> None:
        assert cells(table(tmp_path, "a,b;c\n1,2;3\n"), "a", "b;c") == [("1", "2;3")]
        assert cells(table(tmp_path, "a\n1;2\n"), "a") == [("1;2",)]

    def test_column_names_in_another_unicode_form(self, tmp_path: Path) -> None:
        file = table(tmp_path, "Gro\u0308\u00dfe,\u200bx\u00a0\n1,2\n")
        assert cells(file, "Gr\u00f6\u00dfe", "x") == [("1", "2")]

    def test_columns_quotes_and_formulas(self, tmp_path: Path) -> None:
        file = table(tmp_path, 'x,a,b\n0,"1, ""2""\n3",=HYPERLINK("a")\n')
        rows = list(read_rows(file, ("b",), ("absent", "a")))
        assert rows == [(3, ('=HYPERLINK("a")', "", '1, "2"\n3'), None, 1)]

    def test_bytes_of_other_encodings(self, tmp_path: Path) -> None:
        assert cells(table(tmp_path, b"a,b\nJos\xe9,2\n"), "a", "b") == [("Jos\ufffd", "2")]
        for text, encoding in (
            ("\ufeffa,b\n", "utf-16"),
            ("\ufeffa,b\n", "utf-16-be"),
            ("a,b\n1,2\n", "utf-16-le"),
            ("a,b\n1,2\n", "utf-16-be"),
        ):
            content = text.encode(encoding)
            with pytest.raises(DatasetError, match=r"UTF-16 text.*save it as CSV in UTF-8"):
                cells(table(tmp_path, content), "a")

    def test_rows_of_other_lengths(self, tmp_path: Path) -> None:
        file = table(tmp_path, "a,b,c\n1\n1,2,3,4\n1,2,3,,\n")
        rows = list(read_rows(file, ("a", "c"), ("d",)))
        assert [row.cells for row in rows] == [("1", "", ""), ("1", "3", ""), ("1", "3", "")]
        assert [row.fault for row in rows] == [
            "it has 1 cells; expected 3 as in the header",
            "it has 4 cells; expected 3 as in the header",
            None,
        ]

    def test_header_names_that_stand_for_two_columns(self, tmp_path: Path) -> None:
        file = table(tmp_path, 'a,"size[w,h]","spacing[x,y]"\n1,2,3,4,5\n')
        assert cells(file, "a", optional=("b",), wide_rows=True) == [("1", "")]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "has no header; expected the columns Path"),
            ("Paths,Sex\n", "lacks the column 'Path', did you mean 'Paths'"),
            ("Path,Sex,Path\n", "names the column 'Path' twice"),
            ('Path\n"a"b\n', "cannot be read .*download the table again"),
            ('Path\n"' + "a\n" * 80_000, r"cannot be read \(the row that begins in line 2: "),
            ('Path\nx\n\n"a\nb"c\n', r"begins in line 4: .*what stands in quotes there"),
            ('Path\nx\ny,"z\n', r"begins in line 3: unexpected end of data"),
            ("Paths;Sex\n", "did you mean 'Paths'.*separated by ';'"),
            ('"Path,Sex"\n"a,b"\n', "without quotes around its lines"),
            (gzip.compress(b"Path\na\n" * 99, mtime=0)[:-12], "cannot be read"),
            (b"\x1f\x8b\x00not gzip", "cannot be read"),
            (
                gzip.compress(b"Path\n" + b"a" * 2**21, mtime=0),
                "line 2 is longer than any published",
            ),
        ],
    )
    def test_refused(self, tmp_path: Path, content: str | bytes, message: str) -> None:
        with pytest.raises(DatasetError, match=message):
            cells(table(tmp_path, content), "Path")

    def test_number_of_lines_is_bounded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(csv_tables, "MAX_LINES", 3)
        assert len(cells(table(tmp_path, "a\n1\n2\n"), "a")) == 2
        with pytest.raises(DatasetError, match="4 lines"):
            cells(table(tmp_path, "a\n1\n2\n3\n"), "a")


def test_read_list(tmp_path: Path) -> None:
    file = table(tmp_path, "\ufeffb.png \r\n\na.png", "list.txt")
    assert read_list(file) == ["b.png", "a.png"]


def test_find_table(tmp_path: Path) -> None:
    assert find_table(walk(tmp_path), "t.csv") is None
    (tmp_path / "copy").mkdir()
    table(tmp_path, "a\n", "copy/t.csv")
    table(tmp_path, "a\n")
    assert find_table(walk(tmp_path), "t.csv").name == "t.csv"
    table(tmp_path, "b\n")
    with pytest.raises(DatasetError, match=r"'t.csv' and 'copy/t.csv' both stand .* differ"):
        find_table(walk(tmp_path), "t.csv")


def test_quoted_cells_are_short_and_plain() -> None:
    assert quoted("a\x1b[2J\n") == r"'a\x1b[2J\n'"
    assert len(quoted("a" * 10_000)) == 62
