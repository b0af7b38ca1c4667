"""``nakt pack`` with findings: kept as published, counted, and no patient in two splits."""

import json
import shutil
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from nakt_dist.cli import main, parse_config
from nakt_dist.config import ImageConfig, PackConfig, SplitConfig
from nakt_dist.config.selecting import LabelConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.loading.targets import labelled_targets
from nakt_dist.phantoms import write_phantom_dataset
from nakt_dist.records.run_record import RunRecord
from nakt_dist.runtime.files import file_sha256, value_sha256
from nakt_dist.shards.manifest import INDEX_NAME, MANIFEST_NAME, ShardManifest
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.tables import INDEX_SCHEMA, read_table, write_table
from nakt_dist.shards.verify import verify_folder
from nakt_dist.sources.findings import CHESTXRAY14_FINDINGS, LABEL_SETS, LabelPolicy
from nakt_dist.stages import pack
from tests.labelled import labels_of, make_labelled_dataset
from tests.unit.image_files import gradient

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ImageConfig(height=32, width=32)
COLUMNS = {"findings_column": "finding", "patient_column": "patient", "split_column": "split"}


def publish(root: Path, *rows: str) -> Path:
    """Writes a table of ``NAME,finding,patient,split`` and an image for each row."""
    root.mkdir(parents=True, exist_ok=True)
    for row in rows:
        name = row.partition(",")[0]
        # no two alike: copies would be kept in one split
        Image.fromarray(gradient(20, 20) ^ zlib.crc32(name.encode()) % 256).save(root / name)
    (root / "metadata.csv").write_text("\n".join(["filename,finding,patient,split", *rows]))
    return root


def pack_table(source: Path, output: Path, **settings: Any) -> RunRecord:
    defaults = {"layout": "images_csv", "layout_options": COLUMNS, "image": SMALL, "workers": 1}
    return pack.run(PackConfig(source=str(source), output=str(output), **(defaults | settings)))


def rejected(output: Path) -> dict[str, str]:
    table = pq.read_table(output / "rejected.parquet").to_pylist()
    return {row["source"]: row["reason"] for row in table}


def alter(folder: Path, change: Any, **fields: Any) -> None:
    """Changes rows of the index, and the manifest so that it goes with them."""
    rows = read_table(folder / INDEX_NAME, INDEX_SCHEMA).to_pylist()
    for row in rows:
        change(row)
    write_table(folder / INDEX_NAME, INDEX_SCHEMA, [rows], None)
    manifest = ShardManifest.read(folder)
    files = {**manifest.files, INDEX_NAME: file_sha256(folder / INDEX_NAME)}
    content = json.loads((folder / MANIFEST_NAME).read_text()) | {"files": files} | fields
    content.pop("fingerprint")
    (folder / MANIFEST_NAME).write_text(
        json.dumps(content | {"fingerprint": value_sha256(content)})
    )
    ShardManifest.read(folder).write(folder)


# ---------------------------------------------------------------- findings


def test_findings_are_kept_as_published_in_index_and_sample(tmp_path: Path) -> None:
    folder = make_labelled_dataset(tmp_path)

    images = IndexedShards(folder)
    assert images.manifest.findings == ("Edema", "Mass", "Nodule")
    assert images.manifest.label_policy == {"uncertain": "zero", "blank": "zero"}
    for number, (key, found) in enumerate(zip(images.keys, images.findings(), strict=True)):
        cells = zip(images.manifest.findings, labels_of(int(key[-3:])), strict=True)
        assert found == {name: int(cell) for name, cell in cells if cell}
        assert images.metadata(number)["findings"] == found
        assert images.metadata(number)["labels"]["age"] >= 20
    assert list(verify_folder(folder)) == []
    assert main(["verify", str(folder)]) == 0


def test_images_without_a_label_are_rejected_unless_told_otherwise(tmp_path: Path) -> None:
    source = publish(tmp_path / "source", "a.png,A,p1,", "b.png,,p1,", "c.png,B,p2,", "d.png,,,")
    strict = pack_table(source, tmp_path / "strict")
    assert rejected(tmp_path / "strict") == {"b.png": "missing_label", "d.png": "missing_label"}
    assert strict.counts["packed"] == 2
    assert ShardManifest.read(tmp_path / "strict").patients == {"known": 2, "images_without": 0}

    everything = pack_table(source, tmp_path / "all", unlabelled=True)
    assert (everything.counts["packed"], rejected(tmp_path / "all")) == (4, {})
    images = IndexedShards(tmp_path / "all")
    assert images.manifest.patients == {"known": 2, "images_without": 1}
    by_key = dict(zip(images.keys, images.findings(), strict=True))
    assert by_key == {"a": {"A": 1, "B": 0}, "b": None, "c": {"A": 0, "B": 1}, "d": None}
    values = labelled_targets(images, LabelConfig()).values
    assert [bool(row[0] != row[0]) for row in values] == [key in "bd" for key in images.keys]


def test_what_was_counted_is_printed_and_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = publish(tmp_path / "source", "a.png,A,p1,", "b.png,,p2,", "c.png,B,p2,")
    record = pack_table(source, tmp_path / "out", labels=LabelPolicy(blank="ignore"))

    printed = capsys.readouterr().err
    assert "rows without a label: 1" in printed
    assert "uncertain ones count as zero, blank ones as ignore" in printed
    assert "2 patients, none of them in two splits" in printed
    assert record.details["found"]["rows without a label"] == 1
    assert record.details["patients"] == {"known": 2, "images_without": 0}
    assert ShardManifest.read(tmp_path / "out").found == record.details["found"]


def test_positives_are_printed_by_split(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [f"t{n}.png,{'AB'[n % 2]},p{n},train" for n in range(4)] + ["v.png,B,q,test"]
    source = publish(tmp_path / "source", *rows)
    record = pack_table(source, tmp_path / "out", splits=SplitConfig(official=True))

    printed = capsys.readouterr().err
    lines = [line.split() for line in printed.splitlines()]
    assert ["A", "0", "0.0", "%", "2", "50.0", "%"] in lines
    assert ["B", "1", "100.0", "%", "2", "50.0", "%"] in lines
    assert "without AUROC there: A (test), B (test)" in printed
    assert record.details["positives"] == {
        "A": {"test": 0, "train": 2},
        "B": {"test": 1, "train": 2},
    }


def test_official_splits_are_told_from_those_of_fractions(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = publish(tmp_path / "source", *OFFICIAL)
    card = tmp_path / "card.yaml"
    fields = {"title", "modality", "task", "source", "licence", "citation"}
    counts = {"images": 36, "official split test": 7}
    content = dict.fromkeys(fields, "x") | {"layout": "images_csv", "expected_counts": counts}
    card.write_text(json.dumps(content))
    pack_table(source, tmp_path / "fractions", card=str(card))
    printed = capsys.readouterr().err
    assert "images: card expects 36, found 36" in printed
    assert "official split test: 6" in printed
    assert "card expects 7" not in printed
    pack_table(source, tmp_path / "out", card=str(card), splits=SplitConfig(official=True))
    assert "official split test: card expects 7, found 6" in capsys.readouterr().err


def test_absent_official_splits_name_the_setting_and_the_files(
    tmp_path: Path,
) -> None:
    write_phantom_dataset("chest_chestxray14", tmp_path / "source", count=4, image_size=32)
    for path in (tmp_path / "source").rglob("*_list.txt"):
        path.unlink()
    with pytest.raises(DatasetError, match=r"train_val_list\.txt and test_list.*without_official"):
        pack_table(
            tmp_path / "source",
            tmp_path / "out",
            layout="chestxray14",
            layout_options={},
            splits=SplitConfig(official=True),
        )


def test_other_findings_on_the_same_output_are_refused(tmp_path: Path) -> None:
    source = publish(tmp_path / "source", "a.png,A,p1,", "b.png,B,p2,")
    pack_table(source, tmp_path / "out")
    publish(source, "a.png,B,p1,", "b.png,A,p2,")
    with pytest.raises(DatasetError, match="packed otherwise"):
        pack_table(source, tmp_path / "out")


def test_a_vocabulary_of_another_order_is_another_dataset(tmp_path: Path) -> None:
    source = publish(tmp_path / "source", "a.png,A,p1,", "b.png,B,p2,")
    hashes = set()
    for names in (["A", "B"], ["B", "A"], ["A"]):
        output = tmp_path / "-".join(names)
        pack_table(source, output, layout_options=COLUMNS | {"finding_names": names})
        hashes.add(ShardManifest.read(output).fingerprint)
    assert len(hashes) == 3


def test_a_wrong_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="labels"):
        parse_config(
            "pack",
            ["--layout=images_csv", "--source=a", "--output=b", "--labels.uncertain=perhaps"],
        )
    pack = ["--layout=images_csv", "--source=a", "--output=b"]
    with pytest.raises(ConfigurationError, match="differs by finding is a setting of train"):
        parse_config("pack", [*pack, "--labels.uncertain={default: zero, Edema: one}"])
    config = parse_config("pack", [*pack, "--labels.blank=ignore"])
    assert config.labels == LabelPolicy("zero", "ignore")


# ---------------------------------------------------------------- patients and splits

OFFICIAL = [
    *(f"t{number:02d}.png,A,p{number // 3:02d},train" for number in range(30)),
    *(f"v{number:02d}.png,B,q{number // 3:02d},test" for number in range(6)),
]


def splits_of(folder: Path) -> dict[str, set[str]]:
    """Returns the splits of each patient."""
    found: dict[str, set[str]] = {}
    for row in IndexedShards(folder).index.to_pylist():
        found.setdefault(row["patient_id"], set()).add(row["split"])
    return found


def test_official_splits_that_share_a_patient_are_refused_by_name(tmp_path: Path) -> None:
    rows = ["a.png,A,p1,train", "b.png,A,p1,test", "c.png,A,p2,test", "d.png,B,p3,train"]
    source = publish(tmp_path / "source", *rows)
    with pytest.raises(DatasetError, match=r"patient 'p1' is in the splits '(train|test)' and"):
        pack_table(source, tmp_path / "out", splits=SplitConfig(official=True))
    assert not (tmp_path / "out").exists()
    pack_table(source, tmp_path / "by_patient")  # by fractions the same images are divided


def test_an_image_that_is_set_aside_puts_no_patient_into_a_split(tmp_path: Path) -> None:
    rows = ["a.png,A,p1,train", "b.png,,p1,test", "c.png,B,p2,test"]
    source = publish(tmp_path / "source", *rows)
    record = pack_table(source, tmp_path / "out", splits=SplitConfig(official=True))
    assert (record.counts["packed"], record.counts["rejected"]) == (2, 1)
    with pytest.raises(DatasetError, match="patient 'p1'"):
        pack_table(source, tmp_path / "all", splits=SplitConfig(official=True), unlabelled=True)


def test_a_share_of_the_official_training_patients_is_for_validation(tmp_path: Path) -> None:
    source = publish(tmp_path / "source", *OFFICIAL)
    splits = SplitConfig(official=True, validation_from_train=0.2)
    record = pack_table(source, tmp_path / "out", splits=splits)

    assert record.details["splits"] == {"test": 6, "train": 24, "validation": 6}
    found = splits_of(tmp_path / "out")
    assert all(len(splits) == 1 for splits in found.values())
    for patient, (split,) in found.items():
        assert (split == "test") == patient.startswith("q")
    other = pack_table(source, tmp_path / "other", splits=splits, seed=1)
    assert other.details["splits"] == record.details["splits"]
    assert splits_of(tmp_path / "other") != found


@pytest.mark.parametrize("split", ["validation", "test"])
def test_validation_is_taken_only_where_there_is_none_and_training_is(
    tmp_path: Path, split: str
) -> None:
    source = publish(tmp_path / "source", f"a.png,A,p1,{split}", f"b.png,B,p2,{split}")
    with pytest.raises(ConfigurationError, match=f"own splits are {split}"):
        pack_table(
            source,
            tmp_path / "out",
            splits=SplitConfig(official=True, validation_from_train=0.2),
        )


@pytest.mark.parametrize(("official", "share"), [(False, 0.1), (True, 1.0), (True, -0.1)])
def test_a_share_for_validation_that_cannot_be_meant_is_refused(
    official: bool, share: float
) -> None:
    with pytest.raises(ConfigurationError, match=r"splits\."):
        SplitConfig(official=official, validation_from_train=share)


def test_verify_finds_a_patient_in_two_splits(tmp_path: Path) -> None:
    folder = make_labelled_dataset(tmp_path)
    alter(folder, lambda row: row.update(patient_id="p000"))
    found = [str(damage) for damage in verify_folder(folder)]
    assert any("patient 'p000' is in the splits" in line for line in found)
    assert any("'known': 1" in line for line in found)


@pytest.mark.parametrize("text", ['{"Edema": 3}', '{"Oedema": 1}', "[]", "1e"])
def test_verify_finds_findings_that_are_none(tmp_path: Path, text: str) -> None:
    folder = make_labelled_dataset(tmp_path)
    key = IndexedShards(folder).keys[0]
    alter(folder, lambda row: row["key"] == key and row.update(findings=text))
    (damage,) = verify_folder(folder)
    assert damage.key == key
    assert "finding" in damage.detail


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("findings", '{"Edema": 0, "Mass": 0, "Nodule": 0}'),
        ("findings", None),
        ("labels", '{"age": 21, "sex": "F"}'),
        ("labels", '{"age": 2000}'),
        ("labels", '{"age": "old"}'),
        ("labels", '{"age": NaN}'),
        ("labels", '{"sex": ["F"]}'),
        ("labels", "[]"),
        ("labels", "{"),
        ("labels", None),
        ("source", "other.png"),
    ],
)
def test_verify_finds_an_index_that_says_otherwise_than_the_shard(
    tmp_path: Path, column: str, text: str | None
) -> None:
    folder = make_labelled_dataset(tmp_path)
    images = IndexedShards(folder)
    key = next(k for k, f in zip(images.keys, images.findings(), strict=True) if f["Edema"])
    alter(folder, lambda row: row["key"] == key and row.update({column: text}))
    (damage,) = verify_folder(folder)
    assert damage.key == key
    assert "the index" in damage.detail
    assert column in damage.detail or "age" in damage.detail or "label" in damage.detail


def test_verify_builds_damaged_findings_again(tmp_path: Path) -> None:
    folder = make_labelled_dataset(tmp_path)
    before = (folder / INDEX_NAME).read_bytes()
    (folder / INDEX_NAME).write_bytes(before[:100])
    assert main(["verify", str(folder), "--repair=true"]) == 0
    assert (folder / INDEX_NAME).read_bytes() == before


# ---------------------------------------------------------------- published images


def pack_real(source: Path, output: Path, *words: str) -> ShardManifest:
    words = (*words, "--image.height=64", "--image.width=64", "--workers=1")
    pack.run(parse_config("pack", [*words, f"--source={source}", f"--output={output}"]))
    assert list(verify_folder(output)) == []
    return ShardManifest.read(output)


def positives(folder: Path) -> Counter[str]:
    found = IndexedShards(folder).findings()
    return Counter(name for each in found for name, value in each.items() if value == 1)


@pytest.mark.realdata
def test_the_covid_collection_is_packed_by_patient(real_data: Path, tmp_path: Path) -> None:
    manifest = pack_real(
        real_data / "covid-chestxray",
        tmp_path / "out",
        f"--config={CONFIGS / 'pack/covid_chestxray.yaml'}",
    )
    assert manifest.counts["packed"] == manifest.counts["inputs"] == 55
    assert manifest.patients == {"known": 30, "images_without": 0}
    found = splits_of(tmp_path / "out")
    assert len(found) == 30
    assert all(len(splits) == 1 for splits in found.values())
    assert set(manifest.splits) == {"train", "validation", "test"}
    assert positives(tmp_path / "out") == {"COVID-19": 55, "ARDS": 9}
    for split in manifest.splits:  # each can be learnt from and measured
        found = IndexedShards(tmp_path / "out", [split]).findings()
        assert {each["ARDS"] for each in found} == {0, 1}


@pytest.mark.realdata
def test_images_that_the_table_names_and_that_are_gone_are_counted(
    real_data: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(real_data / "covid-chestxray", tmp_path / "source"))
    gone = sorted((source / "images").iterdir())[:4]
    for path in gone:
        path.unlink()
    words = f"--config={CONFIGS / 'pack/covid_chestxray.yaml'}"
    manifest = pack_real(source, tmp_path / "out", words)
    assert (manifest.counts["packed"], manifest.counts["rejected"]) == (51, 4)
    assert manifest.found["images named without a file"] == 4
    assert rejected(tmp_path / "out") == {f"images/{path.name}": "missing_image" for path in gone}


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "images", "patients"), [("nih", 16, None), ("nih320", 500, 500)])
def test_chestxray14_is_packed_whole(
    real_data: Path, tmp_path: Path, name: str, images: int, patients: int | None
) -> None:
    manifest = pack_real(real_data / name, tmp_path / "out", "--layout=chestxray14")
    assert manifest.counts["packed"] == images
    assert manifest.patients["images_without"] == 0
    assert patients in (None, manifest.patients["known"])
    assert manifest.findings == LABEL_SETS["chestxray14_with_no_finding"]
    found = IndexedShards(tmp_path / "out").findings()
    assert all(set(each) == set(manifest.findings) for each in found)
    for each in found:  # "No Finding" stands alone, and something else where it does not stand
        present = {label for label in CHESTXRAY14_FINDINGS if each[label]}
        assert bool(present) != bool(each["No Finding"])
    assert all(len(splits) == 1 for splits in splits_of(tmp_path / "out").values())
