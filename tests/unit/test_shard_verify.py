import json
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import file_sha256, json_bytes, value_sha256
from nakt_dist.shards.manifest import INDEX_NAME, MANIFEST_NAME, REJECTED_NAME
from nakt_dist.shards.verify import verify_folder
from nakt_dist.shards.writer import BLOCK_BYTES
from tests.datasets import make_packed_dataset, make_pseudo_labels

SHARD, PSEUDO_SHARD = "train-000000.tar", "pseudo-000000.tar"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two shards of three samples, and pseudo-labels for them; not to be damaged."""
    folder = tmp_path_factory.mktemp("verify")
    splits = {"train": 1.0}
    make_packed_dataset(folder, 6, splits=splits, samples_per_shard=3, name="images", seed=1)
    make_pseudo_labels(folder, folder / "images")
    return folder


@pytest.fixture
def images(whole, tmp_path):
    return Path(shutil.copytree(whole / "images", tmp_path / "images"))


@pytest.fixture
def pseudo(whole, tmp_path):
    return Path(shutil.copytree(whole / "pseudo", tmp_path / "pseudo"))


def damages(folder):
    return [(damage.file, damage.key) for damage in verify_folder(folder)]


def flip(path, position, bit=0):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def row_of(folder, sample=1):
    """Returns the index row of a sample of the first shard."""
    return pq.read_table(folder / INDEX_NAME).slice(sample, 1).to_pylist()[0]


def region_of(row, member, region):
    """Returns the position of a byte in a part of a member."""
    offset, size = row[f"{member}_offset"], row[f"{member}_size"]
    padding = -size % BLOCK_BYTES
    assert padding > 1, "this member has no padding to damage"
    return {
        "first": offset,
        "middle": offset + size // 2,
        "last": offset + size - 1,
        "name_in_header": offset - BLOCK_BYTES,
        "time_in_header": offset - BLOCK_BYTES + 140,
        "end_of_header": offset - 1,
        "first_of_padding": offset + size,
        "last_of_padding": offset + size + padding - 1,
    }[region]


REGIONS = [
    "first",
    "middle",
    "last",
    "name_in_header",
    "time_in_header",
    "end_of_header",
    "first_of_padding",
    "last_of_padding",
]


def test_a_whole_dataset_has_no_damage_and_every_sample_is_counted(whole):
    for folder in (whole / "images", whole / "pseudo"):
        counted = []
        assert list(verify_folder(folder, counted.append)) == []
        assert sum(counted) == 6


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("member", ["image", "mask", "json"])
@pytest.mark.parametrize("sample", [0, 1, 2])
def test_a_flipped_byte_of_a_sample_is_found_with_its_shard_and_key(images, sample, member, region):
    row = row_of(images, sample)
    flip(images / SHARD, region_of(row, member, region))
    assert damages(images) == [(SHARD, row["key"])]


@pytest.mark.parametrize("region", REGIONS)
def test_a_flipped_byte_of_a_pseudo_label_is_found_with_its_shard_and_key(pseudo, region):
    row = row_of(pseudo)
    flip(pseudo / PSEUDO_SHARD, region_of(row, "soft", region))
    assert damages(pseudo) == [(PSEUDO_SHARD, row["key"])]


@pytest.mark.parametrize("from_end", [1, BLOCK_BYTES, 2 * BLOCK_BYTES])
def test_a_flipped_byte_of_the_end_of_the_archive_is_found_with_its_shard(images, from_end):
    flip(images / SHARD, -from_end)
    assert damages(images) == [(SHARD, None)]


@pytest.mark.parametrize("name", [INDEX_NAME, REJECTED_NAME])
@pytest.mark.parametrize("position", [0, 10, 0.25, 0.5, 0.75, -10, -1])
def test_a_flipped_byte_of_a_table_is_found_by_its_name(images, name, position):
    path = images / name
    flip(path, int(position * path.stat().st_size) if isinstance(position, float) else position)
    assert name in {file for file, _ in damages(images)}


def test_a_manifest_of_equal_content_in_another_form_is_reported(images):
    path = images / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert damages(images) == [(MANIFEST_NAME, None)]


def test_a_removed_shard_is_found(images):
    (images / SHARD).unlink()
    assert damages(images) == [(SHARD, None)]


@pytest.mark.parametrize("name", [INDEX_NAME, REJECTED_NAME])
def test_a_removed_table_is_found(images, name):
    (images / name).unlink()
    assert name in {file for file, _ in damages(images)}


def test_a_tar_that_the_manifest_does_not_name_is_found(images):
    shutil.copy(images / SHARD, images / "stray.tar")
    assert damages(images) == [("stray.tar", None)]


def test_shards_are_checked_as_a_whole_where_the_index_is_damaged(images):
    flip(images / INDEX_NAME, 100)
    flip(images / SHARD, 2000)
    (images / "train-000001.tar").unlink()
    assert damages(images) == [(INDEX_NAME, None), (SHARD, None), ("train-000001.tar", None)]


def test_samples_are_still_named_where_the_table_of_rejected_inputs_is_damaged(images):
    row = row_of(images)
    flip(images / REJECTED_NAME, 100)
    flip(images / SHARD, row["image_offset"])
    assert damages(images) == [(REJECTED_NAME, None), (SHARD, row["key"])]


def test_two_exchanged_shards_are_found(images):
    first, second = images / SHARD, images / "train-000001.tar"
    first.rename(images / "aside")
    second.rename(first)
    (images / "aside").rename(second)
    assert {file for file, _ in damages(images)} == {first.name, second.name}


def test_bytes_after_the_end_are_found(images):
    with (images / SHARD).open("ab") as stream:
        stream.write(bytes(BLOCK_BYTES))
    size = (images / SHARD).stat().st_size
    found = [str(damage) for damage in verify_folder(images)]
    assert f"{SHARD}: {size} bytes, expected {size - BLOCK_BYTES}" in found


def test_every_damaged_sample_is_named(images):
    rows = [row_of(images, sample) for sample in (0, 2)]
    for row in rows:
        flip(images / SHARD, row["image_offset"] + 30)
    assert damages(images) == [(SHARD, row["key"]) for row in rows]


def test_damage_is_told_in_words_with_shard_and_key(images):
    row = row_of(images)
    flip(images / SHARD, row["mask_offset"])
    (damage,) = verify_folder(images)
    assert str(damage).startswith(f"{SHARD}, key {row['key']}: the bytes of .mask.png differ")


def change_index(folder, change):
    """Stores other rows, and a manifest that names them, as somebody who knows the format would."""
    path = folder / INDEX_NAME
    pq.write_table(change(pq.read_table(path)), path)
    change_manifest(folder, lambda value: value["files"].update({INDEX_NAME: file_sha256(path)}))


def change_manifest(folder, change):
    value = json.loads((folder / MANIFEST_NAME).read_text())
    value.pop("fingerprint")
    change(value)
    value["fingerprint"] = value_sha256(value)
    (folder / MANIFEST_NAME).write_bytes(json_bytes(value))


def with_value(column, wrong):
    def change(table):
        position = table.schema.get_field_index(column)
        field = table.schema.field(column)
        values = [table[column][0].as_py(), wrong, *table[column].to_pylist()[2:]]
        return table.set_column(position, field, pa.array(values, type=field.type))

    return change


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        ("image_offset", -1),
        ("image_offset", 1 << 62),
        ("image_offset", None),
        ("image_size", -1),
        ("image_size", (1 << 63) - 1),
        ("image_crc32", None),
        ("mask_offset", None),
        ("json_offset", None),
        ("extension", None),
        ("split", "test"),
        ("split", None),
        ("key", None),
        ("key", "../outside"),
    ],
)
def test_a_row_that_leads_nowhere_is_damage_of_its_shard_and_key(images, column, wrong):
    key = wrong if column == "key" else row_of(images)["key"]
    change_index(images, with_value(column, wrong))
    (damage,) = verify_folder(images)
    assert (damage.file, damage.key) == (SHARD, key)
    assert f"the index has {column} {wrong!r}, expected" in damage.detail


@pytest.mark.parametrize("wrong", [None, -1, 1 << 40])
def test_a_pseudo_label_that_lies_nowhere_is_damage(pseudo, wrong):
    key = row_of(pseudo)["key"]
    change_index(pseudo, with_value("soft_offset", wrong))
    assert damages(pseudo) == [(PSEUDO_SHARD, key)]


@pytest.mark.parametrize("wrong", [None, -1, 99])
def test_a_row_of_no_shard_is_damage(images, wrong):
    change_index(images, with_value("shard", wrong))
    assert (SHARD, None) in damages(images)


@pytest.mark.parametrize("column", ["key", "split", "shard", "image_offset"])
def test_a_column_of_another_type_is_damage_of_the_index(images, column):
    def change(table):
        position = table.schema.get_field_index(column)
        return table.set_column(position, column, pa.array([b"\xff"] * len(table)))

    change_index(images, change)
    (damage,) = verify_folder(images)
    assert damage.file == INDEX_NAME
    assert f"column '{column}' holds binary" in damage.detail


def test_the_size_of_an_image_is_compared_before_it_is_decoded(images, monkeypatch):
    def decode(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    change_manifest(images, lambda value: value.update(height=64))
    found = list(verify_folder(images))
    assert len(found) == 6
    assert all("is (32, 32), expected (64, 32)" in damage.detail for damage in found)


def test_what_the_system_refuses_to_read_is_told_as_ours(images, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("nakt_dist.shards.verify.file_sha256", refuse)
    with pytest.raises(DatasetError, match=r"cannot be read: .*Permission denied"):
        damages(images)


def test_a_folder_without_a_manifest_cannot_be_verified(tmp_path):
    with pytest.raises(DatasetError, match="no manifest here"):
        damages(tmp_path)


def check_never_unnoticed(folder, name, change):
    """Damages a copy of a file, and expects damage or an error a user can act on."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(folder, Path(scratch) / "copy"))
        before = (copy / name).read_bytes()
        after = change(before)
        (copy / name).write_bytes(after)
        try:
            found = list(verify_folder(copy))
        except DatasetError:
            return
        assert bool(found) == (before != after)


def truncate(share):
    return lambda data: data[: int(share * len(data))]


def overwrite(share, content):
    def change(data):
        position = int(share * len(data))
        return data[:position] + content + data[position + len(content) :]

    return change


SHARES = st.floats(0, 1, exclude_max=True)
CHANGES = st.builds(truncate, SHARES) | st.builds(
    overwrite, SHARES, st.binary(min_size=1, max_size=40)
)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("images", SHARD),
        ("images", MANIFEST_NAME),
        ("images", INDEX_NAME),
        ("images", REJECTED_NAME),
        ("pseudo", PSEUDO_SHARD),
        ("pseudo", MANIFEST_NAME),
        ("pseudo", INDEX_NAME),
    ],
)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(change=CHANGES)
def test_no_random_damage_crashes_the_check_or_goes_unnoticed(whole, kind, name, change):
    check_never_unnoticed(whole / kind, name, change)
