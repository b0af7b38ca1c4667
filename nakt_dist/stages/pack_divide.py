"""Which sample goes into which split and shard, once it is known what the images hold."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nakt_dist.config import PackConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime.files import value_sha256
from nakt_dist.sources.patients import patient_identity
from nakt_dist.sources.splits import assign_splits, official_splits
from nakt_dist.stages.pack_plan import PackInput, PackPlan
from nakt_dist.stages.pack_prepare import Prepared

COPIES = "images identical to another"
COPIES_APART = "of these with a copy in another split"
"""Words under which a manifest counts them."""


@dataclass(frozen=True)
class ShardPlan:
    """The samples of one shard.

    Attributes:
        inputs: in the order in which they are written.
    """

    name: str
    split: str
    inputs: tuple[PackInput, ...]
    prepared: tuple[Prepared, ...]

    @property
    def inputs_sha256(self) -> str:
        """SHA-256 of what is packed, and of what the dataset says of it."""
        return value_sha256([[made.key, made.staged, made.facts] for made in self.prepared])


def divide(plan: PackPlan, prepared: Sequence[Prepared]) -> tuple[list[ShardPlan], dict[str, int]]:
    """Divides a dataset into splits, shuffles what could be prepared and cuts it into shards.

    Inputs that ``count`` leaves out are divided, too, so that a sample is in the same split
    however many are packed; unless there are copies, which are known among the packed ones alone.

    Returns:
        The shards in the order of their numbers, and by words how many pictures are there again.

    Raises:
        ConfigurationError: fractions do not add up to 1, or there is no training to take a
            validation from.
    """
    config = plan.config
    # What cannot be read is known of the chosen inputs alone, so it stays in the division.
    inputs = [each for each in (*plan.inputs, *plan.left_over) if each.usable]
    place = {each.key: number for number, each in enumerate(inputs)}
    same: dict[int, list[int]] = defaultdict(list)
    for made in prepared:
        if made.reason is None and made.pixels is not None:
            same[made.pixels].append(place[made.key])
    copies = [numbers for numbers in same.values() if len(numbers) > 1]
    together = copies if config.splits.identical_together else []
    if config.splits.official:
        official = official_splits([each.record for each in inputs], config.splits.without_official)
        splits = _with_validation(config, inputs, official, together)
    else:
        splits = _assigned(inputs, together, config.splits.fractions, config.seed)
    split_of = {each.key: split for each, split in zip(inputs, splits, strict=True)}
    order = sorted(set(splits)) if config.splits.official else list(config.splits.fractions)
    shards = list(_cut_into_shards(plan, prepared, split_of, order))
    return shards, _count_identical(copies, splits, inputs)


def _count_identical(
    copies: Sequence[Sequence[int]], splits: Sequence[str], inputs: Sequence[PackInput]
) -> dict[str, int]:
    def of_several(what: Callable[[int], Any]) -> int:
        return sum(len(each) for each in copies if len({what(number) for number in each}) > 1)

    def said(number: int) -> str:
        record = inputs[number].record
        return repr((record.stratum, record.findings and sorted(record.findings.items())))

    counts = {
        COPIES: sum(map(len, copies)),
        COPIES_APART: of_several(lambda number: splits[number]),
        "of these with a copy of another class or other findings": of_several(said),
    }
    return {words: count for words, count in counts.items() if count}


def _assigned(
    inputs: Sequence[PackInput],
    together: Sequence[Sequence[int]],
    fractions: Mapping[str, float],
    seed: int,
) -> list[str]:
    keys, traits = [each.own_key for each in inputs], [each.traits for each in inputs]
    return assign_splits(keys, _groups(inputs, together), traits, fractions, seed)


def _groups(inputs: Sequence[PackInput], together: Sequence[Sequence[int]]) -> list[str | None]:
    """Returns the group of each sample: its patient, and all who share a picture with them."""
    names = [
        f"sample {each.own_key}"
        if each.patient is None
        else f"patient {patient_identity(each.patient)}"
        for each in inputs
    ]
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for numbers in together:
        for number in numbers[1:]:
            first, second = sorted((root(names[numbers[0]]), root(names[number])))
            parent[second] = first
    sizes = Counter(root(name) for name in parent)
    found = [root(name) for name in names]
    return [None if name.startswith("sample ") and sizes[name] == 1 else name for name in found]


def _with_validation(
    config: PackConfig,
    inputs: Sequence[PackInput],
    official: Sequence[str],
    together: Sequence[Sequence[int]],
) -> list[str]:
    """Returns the official splits with a share of the training patients as ``validation``."""
    share, splits = config.splits.validation_from_train, list(official)
    if share == 0:
        return splits
    if "validation" in official or "train" not in official:
        raise ConfigurationError(
            f"splits.validation_from_train is {share}, but the dataset's own splits are "
            f"{', '.join(sorted(set(official)))}; it needs a 'train' to take from and no "
            "'validation'. Set it to 0"
        )
    training = [number for number, split in enumerate(official) if split == "train"]
    place = {number: position for position, number in enumerate(training)}
    inside = [[place[n] for n in numbers if n in place] for numbers in together]
    divided = _assigned(
        [inputs[number] for number in training],
        [numbers for numbers in inside if len(numbers) > 1],
        {"train": 1 - share, "validation": share},
        config.seed,
    )
    for number, split in zip(training, divided, strict=True):
        splits[number] = split
    return splits


def _cut_into_shards(
    plan: PackPlan, prepared: Sequence[Prepared], split_of: Mapping[str, str], order: Iterable[str]
) -> Iterator[ShardPlan]:
    """Shuffles the whole dataset, then cuts each split into shards numbered throughout."""
    size = plan.config.samples_per_shard
    shuffled = np.random.Generator(np.random.PCG64(plan.config.seed)).permutation(len(prepared))
    usable = [number for number in shuffled if prepared[number].reason is None]
    shards = 0
    for split in order:
        members = [number for number in usable if split_of[prepared[number].key] == split]
        for start in range(0, len(members), size):
            piece = members[start : start + size]
            yield ShardPlan(
                name=f"{split}-{shards:06d}.tar",
                split=split,
                inputs=tuple(plan.inputs[number] for number in piece),
                prepared=tuple(prepared[number] for number in piece),
            )
            shards += 1
