"""Which image goes to which split, and which images make a subset of a given size."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.sources.record import SourceRecord

_TOLERANCE = 1e-9


def assign_splits(
    keys: Sequence[str],
    groups: Sequence[str | None],
    strata: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
) -> list[str]:
    """Splits a dataset by group and evenly over its strata.

    No group lies in two splits. In each stratum, the number of samples of a split differs
    from ``fraction × samples`` by less than the largest group of that stratum; what the
    small strata leave over is evened out over the whole dataset. The result depends on the
    sets of keys and groups, the fractions and the seed, not on any order.

    Args:
        keys: one unique key a sample.
        groups: the patient of each sample; None where unknown: the sample stands for itself.
        strata: the class of each sample. A group with several counts in its most frequent
            one.
        fractions: share of each split, 0 to 1; together 1.
        seed: chooses among the equally good splits.

    Returns:
        The name of the split of each sample, in the order of ``keys``.

    Raises:
        ConfigurationError: the fractions are not from 0 to 1 or do not add up to 1.
        ValueError: the three sequences differ in length.
    """
    shares = _checked_shares(fractions)
    members: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    group_of_sample = []
    for key, group, stratum in zip(keys, groups, strata, strict=True):
        # a patient may be named like some other sample's key
        identity = ("sample", key) if group is None else ("group", group)
        group_of_sample.append(identity)
        members[identity][stratum] += 1
    groups_of_stratum: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for identity, counts in members.items():
        main = min(counts, key=lambda stratum: (-counts[stratum], stratum))
        groups_of_stratum[main].append(identity)

    split_of_group: dict[tuple[str, str], str] = {}
    overall = dict.fromkeys(shares, 0.0)
    for _, identities in sorted(groups_of_stratum.items()):
        sizes = {identity: members[identity].total() for identity in identities}
        order = sorted(identities, key=lambda i: (-sizes[i], _shuffle_rank(seed, *i)))
        split_of_group |= _fill_splits(order, sizes, shares, overall)
    return [split_of_group[identity] for identity in group_of_sample]


def strata_of(records: Sequence[SourceRecord]) -> list[str]:
    """Returns the class by which each record is kept even over the splits.

    That is its own stratum where the dataset has any. Where it labels findings instead, each
    record takes the rarest finding that its patient has in any image, so that also the few
    patients with a rare finding are spread over the splits; without any finding it is ``""``.
    The rarest is the one of the fewest patients, the first by name of several such.
    """
    own = [record.stratum for record in records]
    if any(own):
        return own
    present: dict[tuple[str, str], set[str]] = defaultdict(set)
    identities = [
        ("sample", record.name) if record.patient_id is None else ("group", record.patient_id)
        for record in records
    ]
    for identity, record in zip(identities, records, strict=True):
        findings = record.findings or {}
        present[identity].update(name for name, value in findings.items() if value == 1)
    patients = Counter(name for names in present.values() for name in names)
    rarest = {
        identity: min(names, key=lambda name: (patients[name], name), default="")
        for identity, names in present.items()
    }
    return [rarest[identity] for identity in identities]


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


def _checked_shares(fractions: Mapping[str, float]) -> dict[str, float]:
    """Returns the fractions above 0 in the order of their names, adding up to 1 exactly."""
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


def _fill_splits(
    order: Sequence[tuple[str, str]],
    sizes: Mapping[tuple[str, str], int],
    shares: Mapping[str, float],
    overall: dict[str, float],
) -> dict[tuple[str, str], str]:
    """Places the groups of one stratum, the larger ones first.

    A split that still lacks at least the size of the group takes precedence, the neediest
    first. Where none does, whoever of those that lack anything is furthest behind over all
    strata takes it: so no split ends further from its share than one group.

    Args:
        order: the groups, from the largest to the smallest.
        sizes: samples in each group.
        shares: share of each split, above 0.
        overall: samples that each split lacks over all strata so far; brought up to date.
    """
    total = sum(sizes.values())
    lacking = {split: share * total for split, share in shares.items()}
    for split in shares:
        overall[split] += lacking[split]
    placed = {}
    for identity in order:
        size = sizes[identity]
        neediest = max(shares, key=lambda split: lacking[split])
        if lacking[neediest] < size - _TOLERANCE:
            candidates = [split for split in shares if lacking[split] > _TOLERANCE]
            neediest = max(candidates or [neediest], key=lambda split: overall[split])
        placed[identity] = neediest
        lacking[neediest] -= size
        overall[neediest] -= size
    return placed
