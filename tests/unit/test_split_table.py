"""The table of splits counts what they hold, and tells chance from another population."""

import csv
import gzip
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nakt_dist.shards import split_table
from nakt_dist.shards.split_table import SplitRow, compare_splits, describe_splits
from nakt_dist.shards.tables import INDEX_SCHEMA
from nakt_dist.sources.listing import SourceRecord
from nakt_dist.sources.splits import assign_splits, traits_of


def table_of(rows: list[dict]) -> list[SplitRow]:
    """Compares the splits of rows that name split, patient, findings, labels and target share."""
    filled = [
        {
            "key": f"k{number}",
            "split": row["split"],
            "patient_id": row.get("patient"),
            "stratum": row.get("stratum", ""),
            "labels": json.dumps(row.get("labels", {})),
            "target_share": row.get("target_share"),
        }
        for number, row in enumerate(rows)
    ]
    index = pa.Table.from_pylist(filled, schema=INDEX_SCHEMA)
    findings = [row.get("findings") for row in rows]
    vocabulary = list(dict.fromkeys(name for each in findings if each for name in each))
    return compare_splits(index, findings, vocabulary)


def test_counts_shares_and_means_by_hand() -> None:
    rows = [
        {
            "split": "train",
            "patient": "a",
            "findings": {"Edema": 1},
            "labels": {"age": 40, "sex": "F"},
        },
        {
            "split": "train",
            "patient": "a",
            "findings": {"Edema": 0},
            "labels": {"age": 42, "sex": "F"},
        },
        {"split": "train", "patient": "b", "findings": {"Edema": -1}, "labels": {"sex": "M"}},
        {"split": "train", "patient": None, "findings": None, "labels": {"projection": "AP"}},
        {"split": "test", "patient": "c", "findings": {"Edema": 1}, "labels": {"age": 60}},
    ]
    found = {row.what: (dict(row.values), dict(row.counts)) for row in table_of(rows)}
    assert found["images"] == ({"train": 4, "test": 1}, {})
    assert found["patients"] == ({"train": 2, "test": 1}, {})
    assert found["images a patient"][0] == {"train": pytest.approx(4 / 3), "test": 1}
    assert found["Edema"] == ({"train": pytest.approx(1 / 3), "test": 1}, {"train": 1, "test": 1})
    assert found["sex F"] == ({"train": 0.5, "test": 0}, {"train": 2, "test": 0})
    assert found["AP"] == ({"train": 0.25, "test": 0}, {"train": 1, "test": 0})
    assert found["age"][0] == {"train": 41, "test": 60}


def test_the_text_names_every_split_and_warns_only_where_they_differ() -> None:
    rows = [{"split": "train", "patient": f"a{n // 9}"} for n in range(900)]
    rows += [{"split": "test", "patient": f"b{n}"} for n in range(100)]
    head, *lines = describe_splits(table_of(rows))
    assert head.split() == ["train", "test"]
    assert lines[0].split() == ["images", "900", "100"]
    assert lines[2].split() == ["images", "a", "patient", "9.00", "1.00"]
    assert lines[-1].startswith("WARNING: the splits are not alike: images a patient (9.00, 1.00)")
    alone = describe_splits(table_of(rows[:900]))
    assert not any("WARNING" in line for line in alone)


@pytest.mark.parametrize("part", ["findings", "labels", "stratum", "target_share"])
def test_each_kind_of_fact_is_compared(part: str) -> None:
    def fact(number: int, test: bool) -> dict:
        high = number % 10 < (8 if test else 2)
        return {
            "findings": {"findings": {"Mass": int(high)}},
            "labels": {"labels": {"sex": "MF"[high]}},
            "stratum": {"stratum": ("benign", "malignant")[high]},
            "target_share": {"target_share": 0.1 + 0.4 * high},
        }[part]

    rows = [{"split": "train", "patient": f"a{n}", **fact(n, False)} for n in range(400)]
    rows += [{"split": "test", "patient": f"b{n}", **fact(n, True)} for n in range(100)]
    assert any(row.differs for row in table_of(rows))
    same = [{**row, **fact(n, False)} for n, row in enumerate(rows)]
    assert not any(row.differs for row in table_of(same))


def test_splits_at_random_are_seldom_called_different() -> None:
    random = np.random.default_rng(0)
    called = 0
    for _ in range(60):
        sizes = np.minimum(random.lognormal(1, 1.5, 150).astype(int) + 1, 80)
        rows = []
        for patient, size in enumerate(sizes):
            split = random.choice(["train", "validation", "test"], p=[0.8, 0.1, 0.1])
            ill = random.random(6) < 0.2
            for _ in range(size):
                findings = {f"f{n}": int(each) for n, each in enumerate(ill)}
                rows.append({"split": split, "patient": f"p{patient}", "findings": findings})
        called += any(row.differs for row in table_of(rows))
    assert called <= 1


@pytest.mark.realdata
def test_splits_of_chestxray14_lie_within_ten_random_ones(
    real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """112,120 images of 30,805 patients, divided 80/10/10, beside patients divided at random."""
    path = real_data / "chexnet_golden" / "Data_Entry_2017_v2020.csv.gz"
    with gzip.open(path) as raw:
        published = list(csv.DictReader(io.TextIOWrapper(raw, "utf-8")))
    records = [
        SourceRecord(
            row["Image Index"],
            Path("unused"),
            patient_id=row["Patient ID"],
            labels={
                "sex": row["Patient Gender"],
                "age": int(row["Patient Age"]),
                "projection": row["View Position"],
            },
            findings={name: 1 for name in row["Finding Labels"].split("|")},
        )
        for row in published
    ]
    patients = [record.patient_id for record in records]
    fractions = {"train": 0.8, "validation": 0.1, "test": 0.1}
    names = list(fractions)
    vocabulary = sorted({name for record in records for name in record.findings})
    table = {
        "labels": [json.dumps(record.labels) for record in records],
        "stratum": [""] * len(records),
        "patient_id": patients,
        "target_share": pa.nulls(len(records), pa.float32()),
    }

    def rows_of(splits) -> list[SplitRow]:
        index = pa.table({**table, "split": list(splits)})
        found = compare_splits(index, [record.findings for record in records], vocabulary)
        return {row.what: [row.values[name] for name in names] for row in found}, found

    keys = [record.name for record in records]
    ours, compared = rows_of(
        assign_splits(keys, patients, [traits_of(each) for each in records], fractions, seed=0)
    )
    # What the images are does not change with how they are divided.
    facts = list(
        split_table._facts(pa.table(table), [each.findings for each in records], vocabulary)
    )
    monkeypatch.setattr(split_table, "_facts", lambda *_: facts)
    known = sorted(set(patients))
    chances = []
    for seed in range(10):
        drawn = np.random.default_rng(seed).choice(names, len(known), p=list(fractions.values()))
        split_of = dict(zip(known, drawn, strict=True))
        chances.append(rows_of([split_of[patient] for patient in patients])[0])
    assert len(ours) == 3 + 2 + 2 + 1 + 15
    for what, values in ours.items():
        lowest, highest = (f([each[what] for each in chances], axis=0) for f in (np.min, np.max))
        assert (lowest <= values).all() and (values <= highest).all(), what
    assert not any(row.differs for row in compared)
    assert Counter(map(len, chances)) == {len(ours): 10}
