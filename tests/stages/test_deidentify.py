"""``nakt pack --deidentify``: hashes instead of names, the same images in the same splits."""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nakt_dist.cli import main, parse_config
from nakt_dist.config import ImageConfig, PackConfig, VerifyConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.phantoms import write_phantom_dataset
from nakt_dist.runtime.key_file import make_key, read_key
from nakt_dist.shards.manifest import ShardManifest
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.verify import verify_folder
from nakt_dist.sources import deidentification
from nakt_dist.sources.deidentification import HIDDEN_DETAIL, Pseudonyms
from nakt_dist.stages import pack, verify
from tests.launching import Death, run_ranks
from tests.recipes import file_hashes

NAME, NUMBER, STUDY = "Miller-Anna", "MRN7390551", "ACC5520417"
"""Of the patient that each test looks for."""


def publish(folder: Path, patients: int = 6, images: int = 2) -> Path:
    """Writes a table that names patients, in folders that name them too, and what goes wrong."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(3)
    lines = ["filename,patient,study,sex,age,Nodule"]
    for patient in range(patients):
        place = folder / "films" / f"{NAME}{patient}"
        place.mkdir(parents=True)
        for image in range(images):
            pixels = random.integers(0, 255, (24, 24), dtype=np.uint8)
            name = f"{NAME}{patient}_{STUDY}{patient}{image}.png"
            Image.fromarray(pixels).save(place / name)
            facts = f"{NUMBER}{patient},{STUDY}{patient}{image},F,{50 + patient},{image % 2}"
            lines.append(f"films/{NAME}{patient}/{name},{facts}")
    (folder / "films" / f"{NAME}_cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + NAME.encode())
    (folder / "films" / f"{NAME}_text.png").write_bytes(f"{NAME}, born".encode())
    (folder / f"scan.{NAME}").write_text(NAME)
    lines += [
        f"films/{NAME}_cut.png,{NUMBER}0,{STUDY}8,F,50,1",
        f"films/{NAME}_text.png,{NUMBER}1,{STUDY}9,M,51,1",
        f"films/{NAME}_absent.png,{NUMBER}2,{STUDY}7,M,52,1",
        f"../{NAME}.png,{NUMBER}3,{STUDY}6,F,53,0",
        f"films/{NAME}_other.png,{NUMBER}4,{STUDY}5,F,54,{NAME}",
    ]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("published") / "clinic")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "deidentify.key"
    make_key(path)
    return path


def pack_config(source: Path, output: Path, key: Path | None, **changes: Any) -> PackConfig:
    options = {"patient_column": "patient", "study_column": "study", "sex_column": "sex"}
    config = PackConfig(
        layout="images_csv",
        source=str(source),
        output=str(output),
        layout_options={**options, "age_column": "age", "finding_columns": ["Nodule"]},
        image=ImageConfig(height=16, width=16, encoding="png"),
        samples_per_shard=3,
        workers=1,
    )
    if key is not None:
        config = replace(config, deidentify=True, deidentify_key=str(key))
    return replace(config, **changes)


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Everything in a folder that can be read as text: names, contents, columns of tables."""
    for path in sorted(folder.rglob("*")):
        yield str(path), path.name
        if path.suffix == ".parquet":
            for name, column in pq.read_table(path).to_pydict().items():
                yield f"{path}:{name}", f"{name} {column}"
        elif path.is_file():
            yield str(path), path.read_bytes().decode("latin-1")


def traces(folder: Path, names: Iterator[str] | tuple[str, ...]) -> list[str]:
    wanted = [name.casefold() for name in names]
    found = [(place, text.casefold()) for place, text in texts(folder)]
    return [f"{place}: {name}" for place, text in found for name in wanted if name in text]


def splits_by_pixels(folder: Path) -> Mapping[str, str]:
    images = IndexedShards(folder)
    splits = images.index["split"].to_pylist()
    pixels = (images.image_bytes(number) for number in range(len(images)))
    return {hashlib.sha256(each).hexdigest(): s for each, s in zip(pixels, splits, strict=True)}


def test_nothing_that_is_written_or_printed_names_a_patient_a_study_or_a_file(
    source: Path, key: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = (NAME, NUMBER, STUDY)
    pack.run(pack_config(source, tmp_path / "plain", None))
    assert {each.rsplit(" ", 1)[1] for each in traces(tmp_path / "plain", names)} == {
        name.casefold() for name in names
    }, "the search finds what is there"
    capfd.readouterr()

    pack.run(pack_config(source, tmp_path / "hidden", key))
    list(verify_folder(tmp_path / "hidden"))

    assert traces(tmp_path / "hidden", names) == []
    printed = "".join(capfd.readouterr()).casefold()
    assert not any(name.casefold() in printed for name in names)
    secret = (str(source), key.read_text().strip(), str(key))
    assert traces(tmp_path / "hidden", secret) == []
    assert key.read_text().strip() not in printed


def named_by_paths(source: Path, folder: Path) -> tuple[Path, dict[str, str]]:
    """Returns a copy whose table and folder are named after a patient, and options that say so."""
    place = folder / "named" / f"of_{NAME}"
    shutil.copytree(source, place)
    table = place / f"table_{NAME}.csv"
    (place / "metadata.csv").rename(table)
    table.write_text(table.read_text().replace("films/", ""))
    Image.new("L", (8, 8)).save(place / "aside.png")
    (place / "films").rename(place / f"films_{NAME}")
    paths = {"table": table.name, "image_folder": f"films_{NAME}"}
    return place, paths


def test_no_file_names_the_table_or_the_folder_of_the_images(
    source: Path, key: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place, paths = named_by_paths(source, tmp_path)
    config = pack_config(place, tmp_path / "hidden", key)
    pack.run(replace(config, layout_options={**config.layout_options, **paths}))
    assert traces(tmp_path / "hidden", (NAME, NUMBER, STUDY)) == []
    printed = "".join(capfd.readouterr()).casefold()
    assert printed and not any(name.casefold() in printed for name in (NAME, NUMBER, STUDY))
    manifest = ShardManifest.read(tmp_path / "hidden")
    assert manifest.found["rows in the table"] == 17
    assert manifest.ignored_files["image outside of the folder of images"] == 1
    assert manifest.config["layout_options"] == config.layout_options
    assert manifest.config["layout_options_left_out"] == ["image_folder", "table"]


def test_a_repair_asks_for_the_options_that_were_left_out(
    source: Path, key: Path, tmp_path: Path
) -> None:
    place, paths = named_by_paths(source, tmp_path)
    folder = tmp_path / "hidden"
    config = pack_config(place, folder, key)
    pack.run(replace(config, layout_options={**config.layout_options, **paths}))
    before = file_hashes(folder)
    (folder / "index.parquet").unlink()
    words = [str(folder), "--repair", "--workers=1", f"--source={place}", f"--deidentify_key={key}"]
    told = [f"--layout_options.{name}={value}" for name, value in paths.items()]
    for given in ([], told[:1], [*told, "--layout_options.views=[frontal]"]):
        with pytest.raises(ConfigurationError, match=r"expected \['image_folder', 'table'\]"):
            verify.run(parse_config("verify", [*words, *given]))
    verify.run(parse_config("verify", [*words, *told]))
    assert file_hashes(folder) == before


def test_findings_of_one_column_are_packed_by_the_names_that_are_wanted_alone(
    source: Path, key: Path, tmp_path: Path
) -> None:
    """Without them, whatever stands in a cell would be the name of a finding."""
    config = pack_config(source, tmp_path / "out", key)
    options = {name: config.layout_options[name] for name in ("patient_column", "study_column")}
    options["findings_column"] = "Nodule"
    with pytest.raises(ConfigurationError, match="finding_names"):
        pack.run(replace(config, layout_options=options))
    assert not (tmp_path / "out").exists()
    pack.run(replace(config, layout_options={**options, "finding_names": ["1"]}))
    assert traces(tmp_path / "out", (NAME, NUMBER, STUDY)) == []


@pytest.mark.parametrize("kind", ["chest_chexpert", "chest_mimic"])
def test_published_layouts_whose_paths_are_identifiers_give_none_away(
    kind: str, key: Path, tmp_path: Path
) -> None:
    write_phantom_dataset(kind, tmp_path / "published", count=20, image_size=48)
    layout = kind.removeprefix("chest_").replace("mimic", "mimic_cxr")
    config = pack_config(tmp_path / "published", tmp_path / "plain", None, layout=layout)
    config = replace(config, layout_options={})
    pack.run(config)
    rows = pq.read_table(tmp_path / "plain" / "index.parquet").to_pylist()
    names = {row["patient_id"] for row in rows} | {row["source"] for row in rows}
    names |= {row["key"] for row in rows}

    hidden = replace(config, output=str(tmp_path / "hidden"), deidentify=True)
    pack.run(replace(hidden, deidentify_key=str(key)))

    assert names and traces(tmp_path / "hidden", tuple(names)) == []
    rows = pq.read_table(tmp_path / "hidden" / "index.parquet").to_pylist()
    assert all('"study": "study-' in row["labels"] for row in rows)


def test_the_same_images_are_in_the_same_splits_and_a_patient_stays_one_patient(
    source: Path, key: Path, tmp_path: Path
) -> None:
    for name, used in (("plain", None), ("hidden", key)):
        pack.run(pack_config(source, tmp_path / name, used))
    assert splits_by_pixels(tmp_path / "plain") == splits_by_pixels(tmp_path / "hidden")
    plain, hidden = (ShardManifest.read(tmp_path / name) for name in ("plain", "hidden"))
    assert (plain.counts, plain.patients) == (hidden.counts, hidden.patients)
    assert hidden.patients["known"] == 6
    first = pack_config(source, tmp_path / "part", key, count=5)
    assert pack.run(first).counts["packed"] + first.count <= 10
    whole = splits_by_pixels(tmp_path / "hidden")
    assert splits_by_pixels(tmp_path / "part").items() <= whole.items()


def test_the_order_of_the_images_follows_from_their_hashes(
    source: Path, key: Path, tmp_path: Path
) -> None:
    """From the order of sorted names and a known seed one could count off the names."""
    pack.run(pack_config(source, tmp_path / "hidden", key))
    rows = [
        row
        for name in ("index", "rejected")
        for row in pq.read_table(tmp_path / "hidden" / f"{name}.parquet").to_pylist()
    ]
    keys = sorted(row["key"] for row in rows)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(keys))
    position = {keys[number]: place for place, number in enumerate(order)}
    for split in ("train", "validation", "test"):
        packed = [position[row["key"]] for row in rows if row.get("split") == split]
        assert packed == sorted(packed)


def test_one_key_gives_one_hash_in_every_dataset_and_another_key_another(
    source: Path, key: Path, tmp_path: Path
) -> None:
    other = publish(tmp_path / "later", patients=3, images=1)
    make_key(tmp_path / "other.key")
    pack.run(pack_config(source, tmp_path / "first", key))
    pack.run(pack_config(other, tmp_path / "second", key))
    pack.run(pack_config(other, tmp_path / "third", tmp_path / "other.key"))
    first, second, third = (
        set(IndexedShards(tmp_path / name).patients) for name in ("first", "second", "third")
    )
    assert len(second) == 3 and second < first and not third & first


def test_the_bytes_are_the_same_for_any_number_of_workers_and_after_a_kill(
    source: Path, key: Path, tmp_path: Path
) -> None:
    for workers in (1, 2):
        pack.run(pack_config(source, tmp_path / f"{workers}", key, workers=workers))
    expected = file_hashes(tmp_path / "1")
    assert file_hashes(tmp_path / "2") == expected

    config = pack_config(source, tmp_path / "killed", key)
    (outcome,) = run_ranks(config, death=Death(rename=5))
    assert outcome.exitcode == -9
    assert traces(tmp_path / "killed", (NAME, NUMBER, STUDY)) == []
    pack.run(config)
    assert file_hashes(tmp_path / "killed") == expected


@pytest.mark.parametrize("killed", [False, True])
def test_a_packing_does_not_go_on_with_another_key(
    source: Path, key: Path, tmp_path: Path, killed: bool
) -> None:
    run_ranks(pack_config(source, tmp_path / "out", key), death=Death(5) if killed else None)
    make_key(tmp_path / "other.key")
    for used in (tmp_path / "other.key", None):
        with pytest.raises(DatasetError, match="deidentified"):
            pack.run(pack_config(source, tmp_path / "out", used))
    assert pack.run(pack_config(source, tmp_path / "out", key)).counts["packed"] == 12


def test_rejected_inputs_keep_their_reason_and_lose_the_words_that_quote_them(
    source: Path, key: Path, tmp_path: Path
) -> None:
    pack.run(pack_config(source, tmp_path / "plain", None))
    pack.run(pack_config(source, tmp_path / "hidden", key))
    plain, hidden = (
        pq.read_table(tmp_path / name / "rejected.parquet").to_pylist()
        for name in ("plain", "hidden")
    )
    assert sorted(row["reason"] for row in plain) == sorted(row["reason"] for row in hidden)
    assert len(hidden) == 5 and {row["detail"] for row in hidden} == {HIDDEN_DETAIL}
    assert all(row["source"].startswith("image-") for row in hidden)
    ignored = ShardManifest.read(tmp_path / "hidden").ignored_files
    assert ignored == {"other suffixes": 1}


def test_the_key_is_made_for_its_owner_alone_and_named(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "keys" / "new.key"
    words = ["--layout", "images_csv", "--source", str(source), "--output", str(tmp_path / "out")]
    words += ["--layout_options.finding_columns", "[Nodule]", "--workers", "1"]
    words += ["--deidentify", "--deidentify_key", str(key)]
    assert main(["pack", *words]) == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    printed = capsys.readouterr().err
    assert f"made the key {key}" in printed and key.read_text().strip() not in printed
    before = key.read_bytes()
    assert not make_key(key) and key.read_bytes() == before
    assert [path.name for path in key.parent.iterdir()] == ["new.key"]


def test_a_setting_of_yes_or_no_that_stands_alone_is_yes() -> None:
    words = ["--layout=busi", "--source=a", "--output=b"]
    assert parse_config("pack", [*words, "--deidentify", "--seed", "1"]).deidentify
    assert not parse_config("pack", [*words, "--deidentify", "false"]).deidentify
    assert parse_config("verify", ["folder", "--repair"]).repair


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        ("a" * 64, 0o640, "chmod 600"),
        ("A" * 64, 0o600, "64 hexadecimal digits"),
        ("0" * 63, 0o600, "64 hexadecimal digits"),
        ("", 0o600, "64 hexadecimal digits"),
    ],
)
def test_a_key_that_others_may_read_or_that_is_none_is_refused_unquoted(
    content: str, mode: int, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "some.key"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=words) as refused:
        read_key(path)
    assert not content or content not in str(refused.value)


@pytest.mark.parametrize("place", ["source", "output"])
def test_a_key_is_not_kept_where_it_would_be_passed_on(
    place: str, source: Path, tmp_path: Path
) -> None:
    key = {"source": source, "output": tmp_path / "out"}[place] / "some.key"
    with pytest.raises(ConfigurationError, match=f"lies in the {place}"):
        pack.run(pack_config(source, tmp_path / "out", key))
    assert not key.exists()


@pytest.mark.parametrize("column", ["patient", "study", "filename"])
def test_a_filter_that_names_patients_studies_or_images_is_refused(
    column: str, source: Path, tmp_path: Path
) -> None:
    header, row, *_ = (source / "metadata.csv").read_text().splitlines()
    value = dict(zip(header.split(","), row.split(","), strict=True))[column]
    config = pack_config(source, tmp_path / "out", tmp_path / "new.key")
    options = {**config.layout_options, "filters": {"sex": ["F"], column: [value]}}
    with pytest.raises(ConfigurationError, match=f"wanted values of '{column}'") as refused:
        pack.run(replace(config, layout_options=options))
    assert value not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_filter_on_a_fact_is_kept(source: Path, key: Path, tmp_path: Path) -> None:
    config = pack_config(source, tmp_path / "out", key)
    options = {**config.layout_options, "filters": {"sex": ["F"]}}
    pack.run(replace(config, layout_options=options))
    assert ShardManifest.read(tmp_path / "out").left_out == {"filters on sex": 2}
    assert traces(tmp_path / "out", (NAME, NUMBER, STUDY)) == []


def test_a_repair_needs_the_source_and_the_key_and_says_so(
    source: Path, key: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "hidden"
    pack.run(pack_config(source, folder, key))
    before = file_hashes(folder)
    entries = ShardManifest.read(folder).shards
    shard = next(entry.name for entry in entries if entry.samples)
    with (folder / shard).open("r+b") as stream:
        stream.seek(700)
        stream.write(b"damage")
    make_key(tmp_path / "other.key")
    needed = VerifyConfig(str(folder), repair=True, source=str(source), workers=1)
    for config, words in (
        (replace(needed, source=None), "--source"),
        (replace(needed, deidentify_key=str(tmp_path / "absent.key")), "key cannot be read"),
        (replace(needed, deidentify_key=str(tmp_path / "other.key")), "another key"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            verify.run(config)
    assert not (tmp_path / "absent.key").exists()
    verify.run(replace(needed, deidentify_key=str(key)))
    assert file_hashes(folder) == before


def test_two_identifiers_with_one_hash_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    pseudonyms = Pseudonyms(bytes(32))
    assert pseudonyms.of("patient", "1") == pseudonyms.of("patient", "1")
    assert pseudonyms.of("patient", "1")[8:] != pseudonyms.of("study", "1")[6:]
    monkeypatch.setattr(deidentification, "_DIGITS", 1)
    with pytest.raises(DatasetError, match="two different identifiers"):
        for number in range(17):
            pseudonyms.of("patient", str(number))


def test_of_several_that_try_one_makes_the_key(tmp_path: Path) -> None:
    path = tmp_path / "shared.key"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: (make_key(path), read_key(path)), range(8)))
    assert [first for first, _ in made].count(True) == 1
    assert len({found for _, found in made}) == 1 and len(list(tmp_path.iterdir())) == 1


def test_without_hard_links_one_of_several_makes_the_key_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    path = tmp_path / "shared.key"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make_key(path), range(8)))
    assert made.count(True) == 1 and len(read_key(path)) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(list(tmp_path.iterdir())) == 1
