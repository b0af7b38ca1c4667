"""Splits keep groups whole, strata even, and do not depend on order."""

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.sources import SourceRecord
from nakt_dist.sources.splits import assign_splits, choose_subset, official_splits, strata_of

FRACTIONS = st.sampled_from(
    [
        {"train": 0.8, "val": 0.1, "test": 0.1},
        {"train": 0.7, "test": 0.3},
        {"train": 1.0},
        {"train": 1.0, "test": 0.0},
        {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3},
        {"a": 0.05, "b": 0.15, "c": 0.25, "d": 0.55},
    ]
)
# a patient (None: unknown) with their class, which several patients share
SAMPLES = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(0, 40)), st.sampled_from("xyz")), max_size=120
)


@given(SAMPLES, FRACTIONS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_groups_strata_and_order(samples, fractions, seed, random) -> None:
    # one class a patient, so that what each stratum holds is plain
    groups = [None if patient is None else f"p{patient}" for patient, _ in samples]
    class_of = dict(zip(groups, (c for _, c in samples), strict=True))
    strata = [c if g is None else class_of[g] for g, (_, c) in zip(groups, samples, strict=True)]
    keys = [f"k{i}" for i in range(len(samples))]
    splits = assign_splits(keys, groups, strata, fractions, seed)

    splits_of_group = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        splits_of_group[group].add(split)
    splits_of_group.pop(None, None)
    assert all(len(found) == 1 for found in splits_of_group.values())

    sizes = Counter(g if g else k for g, k in zip(groups, keys, strict=True))
    for stratum in set(strata):
        inside = [i for i, s in enumerate(strata) if s == stratum]
        largest = max(sizes[groups[i] or keys[i]] for i in inside)
        counts = Counter(splits[i] for i in inside)
        for split, fraction in fractions.items():
            assert abs(counts[split] - fraction * len(inside)) < largest + 1e-6
            assert fraction > 0 or counts[split] == 0

    order = random.sample(range(len(keys)), len(keys))
    again = assign_splits(
        [keys[i] for i in order],
        [groups[i] for i in order],
        [strata[i] for i in order],
        dict(reversed(fractions.items())),
        seed,
    )
    assert again == [splits[i] for i in order]


def test_many_small_strata_are_even_over_all() -> None:
    keys = [f"k{i}" for i in range(200)]
    strata = [f"s{i // 2}" for i in range(200)]
    fractions = {"train": 0.8, "val": 0.1, "test": 0.1}
    counts = Counter(assign_splits(keys, [None] * 200, strata, fractions, seed=0))
    assert all(abs(counts[s] - f * 200) <= 1 for s, f in fractions.items())


def test_seed_and_exact_counts() -> None:
    keys = [f"k{i}" for i in range(200)]
    strata = ["benign"] * 136 + ["malignant"] * 64
    arguments = (keys, [None] * 200, strata, {"train": 0.75, "test": 0.25})
    first, second = (assign_splits(*arguments, seed=seed) for seed in (1, 2))
    assert first != second
    assert Counter(zip(strata, first, strict=True)) == {
        ("benign", "train"): 102,
        ("benign", "test"): 34,
        ("malignant", "train"): 48,
        ("malignant", "test"): 16,
    }


def test_a_patient_named_like_another_samples_key() -> None:
    keys = [f"k{i}" for i in range(40)]
    groups = ["k1" if i == 0 else None for i in range(40)]
    together = [
        assign_splits(keys, groups, ["x"] * 40, {"a": 0.5, "b": 0.5}, seed)[:2] for seed in range(9)
    ]
    assert any(first != second for first, second in together)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 0.8, "test": 0.1}, r"train 0.8, test 0.1\) add up to 0.9; expected 1"),
        ({"train": 1.2, "test": -0.2}, "'train' is 1.2; expected 0 to 1"),
        ({}, r"none\) add up to 0"),
        ({"train": float("nan")}, "expected 0 to 1"),
    ],
)
def test_wrong_fractions(fractions: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        assign_splits(["k"], [None], ["x"], fractions, 0)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="argument"):
        assign_splits(["k"], [], ["x"], {"train": 1.0}, 0)


def test_official_splits() -> None:
    image = Path("unused")
    records = [SourceRecord("a", image, official_split="train"), SourceRecord("b", image)]
    assert official_splits(records[:1]) == ["train"]
    assert official_splits(records, missing="unlabelled") == ["train", "unlabelled"]
    with pytest.raises(DatasetError, match=r"no split to 1 of 2 images \('b' is the first\)"):
        official_splits(records)
    with pytest.raises(
        DatasetError, match=r"come from a\.txt and b\.txt.*splits\.without_official"
    ):
        official_splits(records, named_by=("a.txt", "b.txt"))


@given(st.sets(st.text(max_size=5), max_size=30), st.data())
def test_subsets_are_nested(keys: set[str], data: st.DataObject) -> None:
    smaller = data.draw(st.integers(0, len(keys)))
    larger = data.draw(st.integers(smaller, len(keys)))
    chosen = choose_subset(sorted(keys), smaller, seed=3)
    assert len(chosen) == smaller
    assert chosen <= choose_subset(sorted(keys, reverse=True), larger, seed=3) <= keys


def test_subset_too_large() -> None:
    with pytest.raises(ConfigurationError, match="A subset of 3 samples was asked for and there"):
        choose_subset(["a", "b"], 3, 0)
    with pytest.raises(ConfigurationError, match="ask for 0 to 2"):
        choose_subset(["a", "b"], -1, 0)


def findings_of(*rows: tuple[str | None, str]) -> list[SourceRecord]:
    """Records of a patient and the initials of the findings that are present; x is absent."""
    return [
        SourceRecord(
            f"{number:03d}",
            Path("unused"),
            patient_id=patient,
            findings={"x": 0, **dict.fromkeys(initials, 1), "u": -1},
        )
        for number, (patient, initials) in enumerate(rows)
    ]


def test_strata_of_findings_are_the_rarest_of_each_patient() -> None:
    rows = [("1", "c"), ("1", "ac"), ("2", "c"), ("2", ""), ("3", ""), (None, "b"), (None, "")]
    records = findings_of(*rows, ("4", "b"))
    # patients with a finding: a 1, b 2, c 2
    assert strata_of(records) == ["a", "a", "c", "c", "", "b", "", "b"]
    without = [SourceRecord("a", Path("unused")), SourceRecord("b", Path("unused"))]
    assert strata_of(without) == ["", ""]


def test_strata_of_the_dataset_go_before_findings() -> None:
    records = findings_of(("1", "a"), ("2", "b"))
    assert strata_of([replace(records[0], stratum="benign"), records[1]]) == ["benign", ""]


def test_the_patients_with_a_rare_finding_are_spread_over_the_splits() -> None:
    # 30 patients of 2 images; 5 of them have the rare finding, in one of the two
    rows = [(f"p{n}", "ab" if n % 6 == 0 and i else "a") for n in range(30) for i in range(2)]
    records = findings_of(*rows)
    keys, patients = [r.name for r in records], [r.patient_id for r in records]
    fractions = {"train": 0.6, "validation": 0.2, "test": 0.2}
    for seed in range(20):
        splits = assign_splits(keys, patients, strata_of(records), fractions, seed)
        assert Counter(splits) == {"train": 36, "validation": 12, "test": 12}
        rare = Counter(s for s, r in zip(splits, records, strict=True) if r.findings.get("b"))
        assert rare == {"train": 3, "validation": 1, "test": 1}
