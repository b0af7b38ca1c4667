"""Manifests, tables and descriptions that lie, nest, repeat or never end."""

import json
import os
import tracemalloc
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_tars import change_cell, sign
from PIL import Image

from nakt_dist.config import ImageConfig, PackConfig, SplitConfig
from nakt_dist.errors import DatasetError, UnusableSample
from nakt_dist.runtime.files import read_json
from nakt_dist.shards import tables
from nakt_dist.shards.manifest import INDEX_NAME, MANIFEST_NAME, PseudoLabelManifest, ShardManifest
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.shards.verify import verify_folder
from nakt_dist.shards.writer import write_shard
from nakt_dist.stages import pack

pytestmark = pytest.mark.faults


TEXTS = {
    "deep_lists": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep_objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "endless_number": b'{"a":' + b"9" * 1_000_000 + b"}",
    "field_twice": b'{"format": "nakt-shards/3", "format": "nakt-shards/2"}',
    "field_twice_inside": b'{"shards": [{"name": "a.tar", "name": "../b.tar"}]}',
    "list": b"[]",
    "text": b'"nakt-shards/3"',
    "number": b"1e999",
    "nothing": b"null",
    "empty": b"",
    "cut": b'{"format": "nakt-shards/3"',
    "two_values": b"{}{}",
    "not_utf_8": b'{"a": "\xff"}',
    "utf_16": '{"a": 1}'.encode("utf-16"),
    "nul": b"\0" * 1000,
    "pickle": b"\x80\x04\x95\x1c\x00\x00\x00",
    "many_fields": b'{"x":' + json.dumps({str(n): n for n in range(100_000)}).encode() + b"}",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("kind", [ShardManifest, PseudoLabelManifest])
def test_what_is_no_manifest_is_refused_by_the_path_of_the_file(tmp_path, kind, text):
    (tmp_path / MANIFEST_NAME).write_bytes(text)
    with pytest.raises(DatasetError) as caught:
        kind.read(tmp_path)
    assert str(tmp_path / MANIFEST_NAME) in str(caught.value)
    assert len(str(caught.value)) < 1000
    with pytest.raises(DatasetError):
        list(verify_folder(tmp_path))


def test_a_field_that_stands_there_twice_is_named(tmp_path):
    (tmp_path / "a.json").write_bytes(TEXTS["field_twice_inside"])
    with pytest.raises(DatasetError, match="the field 'name' stands there twice"):
        read_json(tmp_path / "a.json", "thing")


def test_a_manifest_of_fifty_gigabytes_is_not_read(folders):
    path = folders[0] / MANIFEST_NAME
    os.truncate(path, 50 * 2**30)  # a hole on disk
    tracemalloc.start()
    try:
        for read in (ShardManifest.read, IndexedShards, lambda folder: list(verify_folder(folder))):
            with pytest.raises(DatasetError, match="53687091200 bytes, expected at most"):
                read(folders[0])
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def shard(**values: object) -> Callable[[dict], None]:
    return lambda manifest: manifest["shards"][0].update(values)


def whole_manifest(**values: object) -> Callable[[dict], None]:
    return lambda manifest: manifest.update(values)


SIGNED = {
    "shard_above": shard(name="../images/train-000000.tar"),
    "shard_absolute": shard(name="/etc/passwd"),
    "shard_of_another_drive": shard(name="C:\\a.tar"),
    "shard_by_url": shard(name="http://example.invalid/a.tar"),
    "shard_by_command": shard(name="pipe:touch marker"),
    "shard_with_nul": shard(name="a\0.tar"),
    "shard_that_moves_the_cursor": shard(name="a\x1b[2J.tar"),
    "shard_of_two_lines": shard(name="a\nverify: whole.tar"),
    "shard_of_half_a_character": shard(name="\ud800.tar"),
    "shard_written_backwards": shard(name="a\u202erat.tar"),
    "shard_with_an_endless_name": shard(name="a" * 300),
    "shard_is_a_list": shard(name=["a.tar"]),
    "shard_that_is_a_table": shard(name=INDEX_NAME),
    "shard_twice": lambda manifest: manifest["shards"].append(dict(manifest["shards"][0])),
    "samples_as_text": shard(samples="4"),
    "samples_below_nothing": shard(samples=-4),
    "samples_as_fraction": shard(samples=4.0),
    "samples_true": shard(samples=True),
    "samples_infinite": shard(samples=float("inf")),
    "samples_not_a_number": shard(samples=float("nan")),
    "bytes_below_nothing": shard(bytes=-1),
    "digest_is_a_number": shard(sha256=0),
    "split_is_nothing": shard(split=None),
    "entry_is_a_text": whole_manifest(shards=["train-000000.tar"]),
    "shards_are_an_object": whole_manifest(shards={"0": {}}),
    "table_above": lambda manifest: manifest["files"].update({"../x.parquet": "0" * 64}),
    "tables_are_a_list": whole_manifest(files=[INDEX_NAME]),
    "digest_of_a_table_is_a_list": whole_manifest(files={INDEX_NAME: ["0"]}),
    "no_table": whole_manifest(files={}),
    "phantom_as_text": whole_manifest(phantom="false"),
    "height_as_text": whole_manifest(height="32"),
    "height_endless": whole_manifest(height=10**400),
    "more_fields": whole_manifest(__class__="os.system"),
    "named_like_a_class": whole_manifest(class_path="os.system"),
}


@pytest.mark.parametrize("change", SIGNED.values(), ids=SIGNED)
@pytest.mark.parametrize("kind", ["images", "pseudo"])
def test_a_signed_manifest_that_lies_is_refused_and_opens_nothing(
    whole, folders, monkeypatch, kind, change
):
    images, pseudo = folders
    folder = images if kind == "images" else pseudo
    monkeypatch.chdir(folder)
    dataset = IndexedShards(whole / "images")
    sign(folder, change)
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(DatasetError) as caught:
        IndexedShards(images).image_bytes(0)
        PseudoLabels(pseudo, dataset).soft_mask_bytes(0)
    assert "\x1b" not in str(caught.value)
    assert sorted(folder.parent.rglob("*")) == before


LYING_CELLS = [
    ("image_offset", 2**62),
    ("image_offset", 10**6),
    ("image_size", 2**62),
    ("image_size", 0),
    ("image_crc32", 2**32 - 1),
    ("mask_offset", 10**6),
    ("json_size", 3),
]


@pytest.mark.parametrize(("column", "value"), LYING_CELLS)
def test_a_signed_index_that_points_elsewhere_gives_no_sample(folders, column, value):
    change_cell(folders[0], column, value)
    member = column.split("_")[0]
    with pytest.raises((UnusableSample, DatasetError)):
        IndexedShards(folders[0])._member(0, member)
    (damage,) = verify_folder(folders[0])
    assert damage.file == "train-000000.tar" and damage.key


@pytest.mark.parametrize("extension", ["json", "../../x", "exe", ""])
def test_an_index_that_names_another_extension_is_damage(folders, extension):
    change_cell(folders[0], "extension", extension)
    (damage,) = verify_folder(folders[0])
    assert "extension" in damage.detail and "jpg or png" in damage.detail


@pytest.mark.parametrize("change", ["renamed", "fewer", "more", "exchanged", "nothing", "text"])
def test_an_index_of_other_columns_is_refused_by_its_path(folders, change):
    path = folders[0] / INDEX_NAME
    table = pq.read_table(path)
    changed = {
        "renamed": lambda: table.rename_columns(["class_path", *table.schema.names[1:]]),
        "fewer": lambda: table.drop_columns(["json_offset"]),
        "more": lambda: table.append_column("more", table["key"]),
        "exchanged": lambda: table.select(table.schema.names[::-1]),
        "nothing": lambda: pa.table({}),
    }
    if change == "text":
        path.write_bytes(b"key,shard\n../x,0\n")
    else:
        pq.write_table(changed[change](), path)
    sign(folders[0])
    with pytest.raises(DatasetError, match=INDEX_NAME):
        IndexedShards(folders[0])
    assert {damage.file for damage in verify_folder(folders[0])} == {INDEX_NAME}


DESCRIPTIONS = {
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "list": b"[]",
    "cut": b'{"a": ',
    "not_utf_8": b"\xff\xfe\xfd",
    "empty": b"",
    "endless_number": b"9" * 1_000_000,
}


@pytest.mark.parametrize("text", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_description_that_is_no_object_is_an_unusable_sample(folders, text):
    images = folders[0]
    dataset = IndexedShards(images)
    image, mask = dataset.image_bytes(0), dataset.mask_bytes(0)
    files = {"png": image, "mask.png": mask, "json": text}
    entry, members = write_shard(images / "train-000000.tar", "train", [("a", files)])
    row = dataset.index.slice(0, 1).to_pylist()[0] | {"key": "a"}
    for name, extension in (("image", "png"), ("mask", "mask.png"), ("json", "json")):
        row |= {f"{name}_{field}": value for field, value in vars(members["a"][extension]).items()}
    pq.write_table(pa.Table.from_pylist([row], dataset.index.schema), images / INDEX_NAME)
    sign(images, shard(samples=entry.samples))
    with pytest.raises(UnusableSample, match="json"):
        IndexedShards(images).metadata(0)
    damages = [damage for damage in verify_folder(images) if damage.key == "a"]
    assert len(damages) == 1 and "json" in damages[0].detail


FACTS = {
    "infinite": '{"age_approx": 1e999, "sex": "female"}',
    "not_a_number": '{"age_approx": NaN}',
    "half_a_character": '{"patient_id": "\\ud800", "diagnosis": "a\\udfff"}',
    "large": '{"age_approx": ' + "9" * 4000 + "}",
    "endless": '{"age_approx": ' + "9" * 9000 + "}",
    "twice": '{"sex": "a", "sex": "b"}',
    "deep": "[" * 100_000,
    "list": "[1]",
    "formula": '{"patient_id": "=cmd|\' /C calc\'!A1", "diagnosis": "<script>alert(1)</script>"}',
    "nul": '{"patient_id": "a\\u0000b", "diagnosis": "\\u001b[2J"}',
}


def test_published_json_of_any_kind_is_packed_into_a_dataset_that_verifies(tmp_path):
    source = tmp_path / "published"
    source.mkdir()
    for number, text in enumerate(FACTS.values()):
        Image.new("L", (16, 16), number).save(source / f"ISIC_000000{number}.jpg")
        (source / f"ISIC_000000{number}.json").write_text(text)
    config = PackConfig(
        layout="isic_archive",
        source=str(source),
        output=str(tmp_path / "packed"),
        image=ImageConfig(height=16, width=16),
        masks=False,
        splits=SplitConfig(fractions={"train": 1.0}),
        workers=1,
    )
    pack.run(config)
    assert list(verify_folder(tmp_path / "packed")) == []
    images = IndexedShards(tmp_path / "packed")
    assert len(images) == len(FACTS)
    assert all(images.metadata(number)["source"] for number in range(len(images)))
    assert "=cmd|' /C calc'!A1" in images.patients


@pytest.mark.parametrize(
    ("endless", "told", "kept"),
    [
        (MANIFEST_NAME, "expected at most 67108864", []),
        (INDEX_NAME, "expected at most 1000", [MANIFEST_NAME]),
        ("shard", "expected at most {bytes}", [INDEX_NAME, MANIFEST_NAME]),
    ],
)
def test_a_remote_file_that_never_ends_is_not_fetched_to_its_end(
    folders, tmp_path, monkeypatch, endless, told, kept
):
    images, _ = folders
    (shard,) = ShardManifest.read(images).shards
    monkeypatch.setattr(tables, "MOST_TABLE_BYTES", 1000 if endless == INDEX_NAME else 10**6)
    name = shard.name if endless == "shard" else endless
    (images / name).unlink()
    (images / name).symlink_to("/dev/zero")
    url = images.as_uri()
    with pytest.raises(DatasetError, match=told.format(bytes=shard.bytes)) as caught:
        IndexedShards(url, cache=tmp_path / "cache").image_bytes(0)
    assert f"{url}/{name}" in str(caught.value)
    left = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert sorted(each for each in left if not each.endswith(".lock")) == kept
