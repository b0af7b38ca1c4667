"""Tables of any size and origin: text beyond 2 GiB, foreign Parquet, damage."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.segmentation_scores import PREDICTIONS_SCHEMA
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.shards.tables import INDEX_SCHEMA, TEXT, read_table
from tests.datasets import make_packed_dataset, make_pseudo_labels

SCHEMA = pa.schema([("key", pa.string()), ("dice", pa.float64())])


def write(path, keys, group=2):
    table = pa.table({"key": keys, "dice": np.arange(len(keys), dtype=float)}, schema=SCHEMA)
    pq.write_table(table, path, row_group_size=group)
    return path


def test_text_has_offsets_that_count_beyond_two_gib(tmp_path):
    """Of ``string`` a take of more than 2 GiB is an error; its offsets are 32-bit numbers."""
    dataset = make_packed_dataset(tmp_path)
    images = IndexedShards(dataset)
    chosen = IndexedShards(dataset, ["train"]).select([3, 1])
    texts = [field.name for field in INDEX_SCHEMA if field.type == pa.string()]
    assert len(texts) > 5
    for index in (images.index, chosen.index):
        assert {index.schema.field(name).type for name in texts} == {TEXT}
    pseudo = PseudoLabels(make_pseudo_labels(tmp_path, dataset), images)
    assert pseudo.select([1]).statistics.schema.field("key").type == TEXT


@pytest.mark.parametrize("group", [1, 2, 100])
def test_rows_are_chosen_whatever_pieces_they_were_written_in(group, tmp_path):
    keys = [f"key {number}" for number in range(7)]
    table = read_table(write(tmp_path / "table.parquet", keys, group), SCHEMA)
    assert table["key"].type == TEXT
    assert table["key"].to_pylist() == keys
    assert table.take(pa.array([6, 0, 3]))["key"].to_pylist() == ["key 6", "key 0", "key 3"]
    assert table.filter(pa.array([True] + [False] * 6))["key"].to_pylist() == ["key 0"]
    assert table["key"].num_chunks == 1


def test_a_table_without_rows_and_one_without_text_are_read(tmp_path):
    assert read_table(write(tmp_path / "empty.parquet", []), SCHEMA).num_rows == 0
    nothing = write(tmp_path / "null.parquet", [None, None])
    assert read_table(nothing, SCHEMA)["key"].to_pylist() == [None, None]


def damaged(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    return {
        "empty": b"",
        "text": b"key,dice\na,1\n" * 40,
        "half": content[:middle],
        "without a footer": content[:-12] + bytes(12),
        "other bytes": content[:8] + bytes(b ^ 0x5A for b in content[8:middle]) + content[middle:],
    }


@pytest.mark.parametrize("kind", damaged(b""))
def test_damage_is_one_line_with_the_file(kind, tmp_path):
    path = write(tmp_path / "table.parquet", [f"key {number}" for number in range(2000)], 2000)
    path.write_bytes(damaged(path.read_bytes())[kind])
    with pytest.raises(DatasetError) as refused:
        read_table(path, SCHEMA)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "columns",
    [
        {"key": [1, 2], "dice": [0.5, 0.5]},
        {"key": [["a"], ["b"]], "dice": [0.5, 0.5]},
        {"key": ["a", "b"], "dice": ["0.5", "x"]},
        {"key": pa.array(["a", "b"]).dictionary_encode(), "dice": [0.5, 0.5]},
        {"key": pa.array([b"\xff", b"b"]), "dice": [0.5, 0.5]},
        {"key": pa.array([{"a": 1}, {"a": 2}]), "dice": pa.array([1, 2], pa.decimal128(9, 2))},
        {"KEY": ["a", "b"], "dice": [0.5, 0.5]},
        {"key": ["a", "b"]},
    ],
    ids=lambda columns: str({name: pa.array(values).type if isinstance(values, list)
                             else values.type for name, values in columns.items()}),
)  # fmt: skip
def test_foreign_parquet_is_refused_by_file_and_column(columns, tmp_path):
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DatasetError, match="column") as refused:
        read_table(path, SCHEMA)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_large_text_as_other_writers_have_it_is_text(tmp_path):
    path = tmp_path / "table.parquet"
    columns = {"key": pa.array(["a", "b"], TEXT), "dice": [0.5, 0.25]}
    pq.write_table(pa.table(columns), path)
    assert read_table(path, SCHEMA).to_pydict() == {"key": ["a", "b"], "dice": [0.5, 0.25]}


def test_a_folder_in_the_place_of_a_table_is_named(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        read_table(tmp_path, PREDICTIONS_SCHEMA)


def test_columns_are_read_when_asked_for_and_are_those_of_the_whole_table(tmp_path):
    dataset = make_packed_dataset(tmp_path)
    whole = read_table(dataset / "index.parquet", INDEX_SCHEMA)
    images = IndexedShards(dataset)
    chosen = IndexedShards(dataset, ["train"]).select([2, 0])
    assert set(images._held) == {"key"}
    train = whole.filter(pa.compute.equal(whole["split"], "train")).take([2, 0])
    for opened, expected in ((images, whole), (chosen, train)):
        assert opened.index.equals(expected)
        for name in INDEX_SCHEMA.names:
            assert opened.column(name).combine_chunks() == expected[name].combine_chunks()
    later = chosen.select([1])
    assert later.column("source").to_pylist() == [chosen.column("source")[1].as_py()]


def test_a_table_that_changes_after_it_was_opened_is_refused(tmp_path):
    dataset = make_packed_dataset(tmp_path)
    images = IndexedShards(dataset)
    with (dataset / "index.parquet").open("r+b") as stream:
        stream.seek(200)
        stream.write(b"other")
    with pytest.raises(DatasetError, match="not the file the manifest names"):
        images.column("source")
