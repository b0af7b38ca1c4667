"""Which image goes to which split, and which images make a subset of a given size."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.limits import OLDEST_AGE
from nakt_dist.sources.listing import SourceRecord

_TOLERANCE = 1e-9
_IMAGES, _GROUPS = "images", "groups"


def assign_splits(
    keys: Sequence[str],
    groups: Sequence[str | None],
    traits: Sequence[Collection[str]],
    fractions: Mapping[str, float],
    seed: int,
) -> list[str]:
    """Splits a dataset by group so that its splits resemble each other.

    No group lies in two splits. Groups are placed one after the other, those that weigh most
    first, each where the splits then differ least: in images, in groups, in groups of about the
    same size, and in the images of every trait. A difference is measured in units of what
    random assignment of the groups would give (minimisation, Taves 1974; Pocock and Simon 1975,
    with this measure of imbalance), so that rare traits count as much as common ones. As long
    as another split has the room, none grows beyond its share of all samples by as much as the
    largest group; samples without a group are divided exactly. The result depends on the sets
    of keys and groups, their traits, the fractions and the seed, not on any order.

    Args:
        keys: one unique key a sample.
        groups: the patient of each sample; None where unknown: the sample stands for itself.
        traits: what each sample has, such as ``{"finding Edema", "sex F"}``.
        fractions: share of each split, 0 to 1; together 1.
        seed: chooses among the equally good splits.

    Returns:
        The name of the split of each sample, in the order of ``keys``.

    Raises:
        ConfigurationError: the fractions are not from 0 to 1 or do not add up to 1.
        ValueError: the three sequences differ in length.
    """
    shares = checked_shares(fractions)
    members: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    group_of_sample = []
    for key, group, found in zip(keys, groups, traits, strict=True):
        # a patient may be named like some other sample's key
        identity = ("sample", key) if group is None else ("group", group)
        group_of_sample.append(identity)
        members[identity].update((_IMAGES, *(f"trait {trait}" for trait in set(found))))
    for counts in members.values():
        counts.update((_GROUPS, f"groups of {counts[_IMAGES].bit_length()} binary digits"))
    split_of_group = _place(members, shares, seed)
    return [split_of_group[identity] for identity in group_of_sample]


def traits_of(record: SourceRecord) -> set[str]:
    """Names what splits should have alike of a record, as ``assign_splits`` takes it.

    These are its stratum, its present findings, sex, projection (else the view) and the decade
    of the age; and that it has no findings, where the dataset labels some.
    """
    labels = record.labels
    view = labels.get("projection") or labels.get("view")
    age = labels.get("age", labels.get("age_approx"))
    traits = {f"stratum {record.stratum}", f"sex {labels.get('sex')}", f"view {view}"}
    if isinstance(age, int | float) and 0 <= age <= OLDEST_AGE:
        traits.add(f"age {age // 10:.0f}")
    if record.findings is None:
        return traits | {"without findings"}
    return traits | {f"finding {name}" for name, value in record.findings.items() if value == 1}


def official_splits(
    records: Sequence[SourceRecord], missing: str | None = None, named_by: Sequence[str] = ()
) -> list[str]:
    """Returns the split that the dataset itself assigns to each record.

    Args:
        records: records without a problem.
        missing: name of the split for records to which the dataset assigns none, such as
            ``"unlabelled"``; without it there must be no such record.
        named_by: the files that assign the splits, where they are apart from the table.

    Raises:
        DatasetError: a record has no official split and ``missing`` is not given.
    """
    without = [record.name for record in records if record.official_split is None]
    if without and missing is None:
        files = f" Its splits come from {' and '.join(named_by)}: put them below the source."
        raise DatasetError(
            f"The dataset assigns no split to {len(without)} of {len(records)} images "
            f"('{without[0]}' is the first).{files if named_by else ''} Or name a split for these "
            "images, such as splits.without_official: unlabelled, or set splits.official to "
            "false to divide all images by splits.fractions"
        )
    return [record.official_split or str(missing) for record in records]


def choose_subset(keys: Sequence[str], count: int, seed: int) -> set[str]:
    """Chooses ``count`` keys; with the same seed the smaller set lies in the larger.

    Args:
        keys: unique keys; their order does not matter.
        count: how many to choose, 0 to all.
        seed: chooses the sets.

    Raises:
        ConfigurationError: there are fewer keys than ``count``, or it is negative.
    """
    if not 0 <= count <= len(keys):
        raise ConfigurationError(
            f"A subset of {count} samples was asked for and there are {len(keys)}; "
            f"ask for 0 to {len(keys)}"
        )
    return set(sorted(keys, key=lambda key: _shuffle_rank(seed, "subset", key))[:count])


def checked_shares(fractions: Mapping[str, float]) -> dict[str, float]:
    """Returns the fractions above 0 in the order of their names, adding up to 1 exactly.

    Raises:
        ConfigurationError: one is not from 0 to 1, or they do not add up to 1.
    """
    for split, fraction in fractions.items():
        if not 0 <= fraction <= 1:
            raise ConfigurationError(
                f"The fraction of the split '{split}' is {fraction}; expected 0 to 1"
            )
    total = sum(fractions.values())
    if abs(total - 1) > 1e-6:
        asked = ", ".join(f"{split} {fraction}" for split, fraction in fractions.items())
        raise ConfigurationError(
            f"The fractions of the splits ({asked or 'none'}) add up to {total:g}; expected 1"
        )
    return {split: fractions[split] / total for split in sorted(fractions) if fractions[split]}


def _shuffle_rank(seed: int, kind: str, name: str) -> bytes:
    """Returns what sorts names into an order that the seed and the name alone decide."""
    text = f"{seed}\0{kind}\0{name}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _place(
    members: Mapping[tuple[str, str], Mapping[str, int]], shares: Mapping[str, float], seed: int
) -> dict[tuple[str, str], str]:
    """Returns the split of each group; see ``assign_splits``.

    Args:
        members: how much each group has of what is to be even, its samples among it.
        shares: share of each split, above 0, by name.
        seed: orders groups of the same weight.
    """
    variance: Counter[str] = Counter()
    for counts in members.values():
        variance.update({name: count**2 for name, count in counts.items()})
    order = sorted(
        members,
        key=lambda group: (
            -sum(sorted(count**2 / variance[name] for name, count in members[group].items())),
            _shuffle_rank(seed, *group),
        ),
    )
    names, share = list(shares), list(shares.values())
    # Of each split over its share of what is placed. Plain numbers: arrays this small take longer.
    excess = {name: [0.0] * len(names) for name in variance}
    sizes = [counts[_IMAGES] for counts in members.values()]
    lacking, slack = [part * sum(sizes) for part in share], max(sizes, default=1) - 1 + _TOLERANCE
    placed = {}
    for group in order:
        counts = members[group]
        terms = [(excess[name], float(counts[name]), 1 / variance[name]) for name in sorted(counts)]
        for row, amount, _ in terms:
            row[:] = [over - amount * part for over, part in zip(row, share, strict=True)]
        least = min(counts[_IMAGES] - slack, max(lacking))
        fitting = [split for split, part in enumerate(lacking) if part >= least]
        # Of equal costs, but for rounding, the first.
        costs = [round(_growth(terms, split) / share[split] * 1e9) for split in fitting]
        chosen = fitting[costs.index(min(costs))]
        placed[group] = names[chosen]
        for row, amount, _ in terms:
            row[chosen] += amount
        lacking[chosen] -= counts[_IMAGES]
    return placed


def _growth(terms: Sequence[tuple[list[float], float, float]], split: int) -> float:
    """Returns by how much the sum of the squares of a split's excesses grows with a group.

    Args:
        terms: of each quantity the excesses by split, how much the group has, and the weight.
    """
    grown = 0.0
    for excess, amount, weight in terms:  # sum() of floats rounds by the version of Python
        grown += amount * weight * (2 * excess[split] + amount)
    return grown
