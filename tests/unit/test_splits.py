"""Splits keep groups whole, resemble each other, and do not depend on order."""

from collections import Counter, defaultdict
from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.sources import SourceRecord
from nakt_dist.sources.splits import assign_splits, choose_subset, official_splits, traits_of

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
def test_groups_shares_and_order(samples, fractions, seed, random) -> None:
    groups = [None if patient is None else f"p{patient}" for patient, _ in samples]
    traits = [{trait} for _, trait in samples]
    keys = [f"k{i}" for i in range(len(samples))]
    splits = assign_splits(keys, groups, traits, fractions, seed)

    splits_of_group = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        splits_of_group[group].add(split)
    splits_of_group.pop(None, None)
    assert all(len(found) == 1 for found in splits_of_group.values())

    sizes = Counter(g if g else k for g, k in zip(groups, keys, strict=True))
    counts = Counter(splits)
    for split, fraction in fractions.items():
        excess = counts[split] - fraction * len(keys)
        assert excess < max(sizes.values(), default=1) + 1e-6
        assert -excess < (len(fractions) - 1) * max(sizes.values(), default=1) + 1e-6
        assert fraction > 0 or counts[split] == 0

    order = random.sample(range(len(keys)), len(keys))
    again = assign_splits(
        [keys[i] for i in order],
        [groups[i] for i in order],
        [traits[i] for i in order],
        dict(reversed(fractions.items())),
        seed,
    )
    assert again == [splits[i] for i in order]


def skewed_population(number: int, skew: float) -> tuple[list[str], list[set[str]]]:
    """Patients and traits of images: few patients have most images, and those are the ill ones.

    Args:
        number: of the population.
        skew: how much the images of a patient differ; 1 about tenfold, 2 a hundredfold.
    """
    random = np.random.default_rng(number)
    groups, traits = [], []
    for patient in range(400):
        images = 1 + int(random.lognormal(0.0, skew))
        illness = min(images / 20, 0.9)  # who is often imaged is ill, and lies
        lasting = {name for name in "abc" if random.random() < illness}
        lasting |= {f"sex {random.choice(['F', 'M'])}", f"age {int(random.normal(5 + illness, 1))}"}
        if random.random() < 0.02:
            lasting.add("rare")
        for _ in range(min(images, 100)):
            view = "AP" if random.random() < illness else "PA"
            groups.append(f"p{patient}")
            traits.append(lasting | {view} | ({"passing"} if random.random() < 0.1 else set()))
    return groups, traits


def unlikeness(
    groups: list[str], traits: list[set[str]], splits: list[str], fractions: dict[str, float]
) -> dict[str, float]:
    """The largest difference of each trait over the splits, in deviations of random assignment.

    Of traits that ten patients or more have. Beside them: images, patients, and patients with
    at least so many images.
    """
    sizes = Counter(groups)
    had: dict[str, Counter[str]] = defaultdict(Counter)
    for group, found in zip(groups, traits, strict=True):
        for name in ("images", *found):
            had[name][group] += 1
    had["patients"] = Counter(dict.fromkeys(sizes, 1))
    for least in (2, 4, 8, 16):
        had[f"patients of {least} images"] = Counter(g for g, n in sizes.items() if n >= least)
    split_of = dict(zip(groups, splits, strict=True))
    worst = {}
    for name, counts in had.items():
        if len(counts) < 10:
            continue  # a few patients cannot be divided evenly
        for split, share in fractions.items():
            inside = sum(n for group, n in counts.items() if split_of[group] == split)
            deviation = sqrt(share * (1 - share) * sum(n * n for n in counts.values()))
            found = abs(inside - share * counts.total()) / deviation if deviation else 0.0
            worst[name] = max(worst.get(name, 0.0), found)
    return worst


@pytest.mark.parametrize("skew", [0.3, 1.0, 2.0])
@pytest.mark.parametrize(
    "fractions",
    [{"train": 0.8, "validation": 0.1, "test": 0.1}, {"train": 0.5, "test": 0.5}],
)
def test_splits_of_skewed_populations_resemble_each_other(skew, fractions) -> None:
    for number in range(3):
        groups, traits = skewed_population(number, skew)
        keys = [f"k{i}" for i in range(len(groups))]
        splits = assign_splits(keys, groups, traits, fractions, seed=number)
        worst = unlikeness(groups, traits, splits, fractions)
        # random assignment gives about 1 for a trait, and 2 to 3 for the worst of twenty
        assert max(worst.values()) < 1.0, worst
        assert len(set(splits)) == len(fractions)


def test_patients_with_many_images_are_spread_like_the_others() -> None:
    """A split of a tenth gets a tenth of the patients who have most of the images."""
    groups = [f"p{p}" for p in range(100) for _ in range(50 if p % 2 else 1)]
    keys = [f"k{i}" for i in range(len(groups))]
    splits = assign_splits(keys, groups, [set()] * len(keys), {"train": 0.8, "test": 0.2}, 0)
    test = {group for group, split in zip(groups, splits, strict=True) if split == "test"}
    assert Counter(int(group[1:]) % 2 for group in test) == {0: 10, 1: 10}


def test_many_rare_traits_are_even_over_all() -> None:
    keys = [f"k{i}" for i in range(200)]
    traits = [{f"s{i // 2}"} for i in range(200)]
    fractions = {"train": 0.8, "val": 0.1, "test": 0.1}
    counts = Counter(assign_splits(keys, [None] * 200, traits, fractions, seed=0))
    assert all(abs(counts[s] - f * 200) <= 1 for s, f in fractions.items())


def test_seed_and_exact_counts() -> None:
    keys = [f"k{i}" for i in range(200)]
    classes = ["benign"] * 136 + ["malignant"] * 64
    arguments = (keys, [None] * 200, [{each} for each in classes], {"train": 0.75, "test": 0.25})
    first, second = (assign_splits(*arguments, seed=seed) for seed in (1, 2))
    assert first != second
    assert Counter(zip(classes, first, strict=True)) == {
        ("benign", "train"): 102,
        ("benign", "test"): 34,
        ("malignant", "train"): 48,
        ("malignant", "test"): 16,
    }


def test_a_patient_named_like_another_samples_key() -> None:
    keys = [f"k{i}" for i in range(40)]
    groups = ["k1" if i == 0 else None for i in range(40)]
    together = [
        assign_splits(keys, groups, [{"x"}] * 40, {"a": 0.5, "b": 0.5}, seed)[:2]
        for seed in range(9)
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
        assign_splits(["k"], [None], [{"x"}], fractions, 0)


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


def test_traits_of_a_record() -> None:
    labels = {"sex": "F", "age": 57, "view": "frontal", "projection": "AP", "study": "s1"}
    record = replace(findings_of(("1", "ab"))[0], labels=labels, stratum="malignant")
    common = {"stratum malignant", "sex F", "view AP", "age 5"}
    assert traits_of(record) == common | {"finding a", "finding b"}
    assert traits_of(replace(record, findings=None)) == common | {"without findings"}


def test_the_patients_with_a_rare_finding_are_spread_over_the_splits() -> None:
    # 30 patients of 2 images; 5 of them have the rare finding, in one of the two
    rows = [(f"p{n}", "ab" if n % 6 == 0 and i else "a") for n in range(30) for i in range(2)]
    records = findings_of(*rows)
    keys, patients = [r.name for r in records], [r.patient_id for r in records]
    fractions = {"train": 0.6, "validation": 0.2, "test": 0.2}
    for seed in range(20):
        splits = assign_splits(keys, patients, [traits_of(r) for r in records], fractions, seed)
        assert Counter(splits) == {"train": 36, "validation": 12, "test": 12}
        rare = Counter(s for s, r in zip(splits, records, strict=True) if r.findings.get("b"))
        assert rare == {"train": 3, "validation": 1, "test": 1}
