import dataclasses
import json

import pytest

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import value_sha256
from nakt_dist.shards.manifest import (
    INDEX_NAME,
    MANIFEST_NAME,
    PseudoLabelManifest,
    ShardEntry,
    ShardManifest,
)
from tests.datasets import make_packed_dataset, make_pseudo_labels

DATASET = ShardManifest(
    shards=(
        ShardEntry("train-000000.tar", "train", 4, 20480, "a" * 64),
        ShardEntry("test-000001.tar", "test", 3, 10240, "b" * 64),
    ),
    files={INDEX_NAME: "c" * 64},
    dataset="squares",
    phantom=False,
    height=32,
    width=48,
    channels=1,
    mask_kind="binary",
    splits={"train": 4, "test": 3},
    counts={"inputs": 8, "packed": 7, "rejected": 1},
    left_out={},
    ignored_files={".txt": 2},
    vocabulary={"class": ["benign", "malignant"]},
    findings=("Edema", "Mass"),
    label_policy={"uncertain": "zero", "blank": "ignore"},
    patients={"known": 3, "images_without": 2},
    found={"studies without a label row": 3},
    config={"seed": 0, "splits": {"fractions": {"train": 0.6, "test": 0.4}}},
)
PSEUDO = PseudoLabelManifest(
    shards=(ShardEntry("pseudo-000000.tar", "train", 4, 10240, "d" * 64),),
    files={INDEX_NAME: "e" * 64},
    dataset="squares",
    dataset_fingerprint=DATASET.fingerprint,
    phantom=False,
    height=32,
    width=48,
    teachers=({"name": "teacher", "weights_sha256": "f" * 64, "weight": 1.0},),
    soft=True,
)


def change_stored(folder, change, keep_fingerprint=False):
    """Applies a change to a stored manifest as somebody who knows the format would."""
    path = folder / MANIFEST_NAME
    value = json.loads(path.read_text())
    change(value)
    if not keep_fingerprint:
        value.pop("fingerprint")
        value["fingerprint"] = value_sha256(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("manifest", [DATASET, PSEUDO], ids=["dataset", "pseudo_labels"])
def test_a_manifest_comes_back_with_its_fingerprint(tmp_path, manifest):
    manifest.write(tmp_path)
    again = type(manifest).read(tmp_path)
    assert again.fingerprint == manifest.fingerprint
    assert again.shards == manifest.shards
    assert again.is_as_written(tmp_path)
    assert again.num_samples == sum(entry.samples for entry in manifest.shards)


def test_equal_manifests_give_equal_bytes(tmp_path):
    reordered = dataclasses.replace(DATASET, counts=dict(reversed(DATASET.counts.items())))
    (tmp_path / "again").mkdir()
    DATASET.write(tmp_path)
    reordered.write(tmp_path / "again")
    written = (tmp_path / MANIFEST_NAME).read_bytes()
    assert written == (tmp_path / "again" / MANIFEST_NAME).read_bytes()
    assert reordered.fingerprint == DATASET.fingerprint


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(ShardManifest)])
def test_every_field_is_part_of_the_fingerprint(field):
    assert dataclasses.replace(DATASET, **{field: "other"}).fingerprint != DATASET.fingerprint


def test_no_manifest_holds_a_path_of_the_machine(tmp_path):
    dataset = make_packed_dataset(tmp_path, images=4)
    pseudo = make_pseudo_labels(tmp_path, dataset)
    for folder in (dataset, pseudo):
        text = (folder / MANIFEST_NAME).read_text()
        assert str(tmp_path) not in text
        assert tmp_path.name not in text


@pytest.mark.parametrize(
    "name",
    [
        "../outside.tar",
        "..",
        "folder/inside.tar",
        "/etc/passwd",
        "C:\\outside.tar",
        "..\\outside.tar",
        "s3://bucket/outside.tar",
        "pipe:touch outside",
        ".hidden.tar",
        "null\0byte.tar",
        "",
    ],
)
@pytest.mark.parametrize("place", ["shards", "files"])
def test_a_name_that_could_lead_out_of_the_folder_is_refused(tmp_path, name, place):
    def change(value):
        if place == "shards":
            value["shards"][0]["name"] = name
        else:
            value["files"][name] = "0" * 64

    DATASET.write(tmp_path)
    change_stored(tmp_path, change)
    with pytest.raises(DatasetError, match="expected a plain file name") as caught:
        ShardManifest.read(tmp_path)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", [7, None, ["train-000000.tar"]])
def test_a_name_that_is_no_text_is_refused(tmp_path, name):
    DATASET.write(tmp_path)
    change_stored(tmp_path, lambda value: value["shards"][0].update(name=name))
    with pytest.raises(DatasetError, match=r"field 'shards\[0\]\.name' is .*, expected"):
        ShardManifest.read(tmp_path)


@pytest.mark.parametrize("found", ["nakt-shards/1", "webdataset", None, 1])
def test_an_unknown_format_is_refused_naming_the_known_one(tmp_path, found):
    DATASET.write(tmp_path)
    change_stored(tmp_path, lambda value: value.update(format=found))
    with pytest.raises(DatasetError, match="shard manifest of format nakt-shards/3"):
        ShardManifest.read(tmp_path)


def test_pseudo_labels_are_not_taken_for_a_dataset(tmp_path):
    PSEUDO.write(tmp_path)
    with pytest.raises(DatasetError, match="expected a shard manifest"):
        ShardManifest.read(tmp_path)


@pytest.mark.parametrize("field", ["shards", "files", "splits", "config"])
def test_a_missing_field_is_refused(tmp_path, field):
    DATASET.write(tmp_path)
    change_stored(tmp_path, lambda value: value.pop(field))
    with pytest.raises(DatasetError, match=field):
        ShardManifest.read(tmp_path)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("shards", {}),
        ("shards", [3]),
        ("files", []),
        ("files", {INDEX_NAME: 3}),
        ("dataset", 3),
        ("phantom", "no"),
        ("height", 0),
        ("height", 32.0),
        ("width", True),
        ("channels", 2),
        ("mask_kind", []),
        ("splits", {"train": -1}),
        ("splits", ["train"]),
        ("counts", {"inputs": 8}),
        ("counts", None),
        ("left_out", {"mood": "good"}),
        ("ignored_files", 2),
        ("vocabulary", {"class": "benign"}),
        ("config", []),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(tmp_path, field, wrong):
    DATASET.write(tmp_path)
    change_stored(tmp_path, lambda value: value.update({field: wrong}))
    with pytest.raises(DatasetError, match=f"field '{field}' is .*, expected"):
        ShardManifest.read(tmp_path)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("samples", -1),
        ("samples", "4"),
        ("bytes", 1.5),
        ("bytes", None),
        ("split", 3),
        ("sha256", 0),
    ],
)
def test_a_field_of_a_shard_of_another_type_is_refused_by_name(tmp_path, field, wrong):
    DATASET.write(tmp_path)
    change_stored(tmp_path, lambda value: value["shards"][1].update({field: wrong}))
    with pytest.raises(DatasetError, match=rf"field 'shards\[1\]\.{field}' is .*, expected"):
        ShardManifest.read(tmp_path)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("teachers", {}), ("teachers", [{"name": "x"}]), ("soft", 1), ("dataset_fingerprint", None)],
)
def test_a_field_of_pseudo_labels_of_another_type_is_refused_by_name(tmp_path, field, wrong):
    PSEUDO.write(tmp_path)
    change_stored(tmp_path, lambda value: value.update({field: wrong}))
    with pytest.raises(DatasetError, match=f"field '{field}' is .*, expected"):
        PseudoLabelManifest.read(tmp_path)


def test_a_manifest_nested_too_deeply_is_refused(tmp_path):
    DATASET.write(tmp_path)
    path = tmp_path / MANIFEST_NAME
    value = json.loads(path.read_text()) | {"config": {"deep": "here"}}
    path.write_text(json.dumps(value).replace('"here"', "[" * 800 + "]" * 800))
    with pytest.raises(DatasetError, match="nested too deeply"):
        ShardManifest.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda value: value.update(mood="good"), "mood"),
        (lambda value: value["shards"][0].update(compression="none"), "compression"),
        (lambda value: value["shards"][0].pop("samples"), "samples"),
    ],
)
def test_a_missing_or_unknown_field_is_named(tmp_path, change, field):
    DATASET.write(tmp_path)
    change_stored(tmp_path, change)
    with pytest.raises(DatasetError, match=field):
        ShardManifest.read(tmp_path)


def test_an_edited_manifest_is_refused_even_where_it_still_makes_sense(tmp_path):
    DATASET.write(tmp_path)
    change_stored(tmp_path, lambda value: value["counts"].update(packed=6), keep_fingerprint=True)
    with pytest.raises(DatasetError, match="damaged or edited"):
        ShardManifest.read(tmp_path)


@pytest.mark.parametrize("manifest", [DATASET, PSEUDO], ids=["dataset", "pseudo_labels"])
def test_no_changed_byte_goes_unnoticed(tmp_path, manifest):
    manifest.write(tmp_path)
    path = tmp_path / MANIFEST_NAME
    content = path.read_bytes()
    for position, byte in enumerate(content):
        flipped = (0x01, 0x20)[position % 2]  # 0x20 makes capitals of letters
        path.write_bytes(content[:position] + bytes([byte ^ flipped]) + content[position + 1 :])
        try:
            noticed = not type(manifest).read(tmp_path).is_as_written(tmp_path)
        except DatasetError as error:
            noticed = str(path) in str(error)
        assert noticed, content[position - 20 : position + 20]


def test_an_absent_manifest_means_an_unfinished_dataset(tmp_path):
    with pytest.raises(DatasetError, match="no shard manifest here"):
        ShardManifest.read(tmp_path)


def test_pseudo_labels_fit_the_dataset_they_were_made_for(tmp_path):
    PSEUDO.check_made_for(DATASET, tmp_path)


def test_pseudo_labels_of_another_dataset_are_refused_by_name(tmp_path):
    other = dataclasses.replace(DATASET, dataset="discs")
    with pytest.raises(DatasetError, match="of dataset 'squares', not of 'discs'"):
        PSEUDO.check_made_for(other, tmp_path)


def test_pseudo_labels_of_another_packing_are_refused_naming_both(tmp_path):
    other = dataclasses.replace(DATASET, height=64)
    with pytest.raises(DatasetError, match="another packing of 'squares'") as caught:
        PSEUDO.check_made_for(other, tmp_path)
    message = str(caught.value)
    assert "dataset_fingerprint" in message
    assert DATASET.fingerprint[:12] in message
    assert other.fingerprint[:12] in message
