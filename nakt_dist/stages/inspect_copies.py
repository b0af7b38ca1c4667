"""Images of a packed dataset that are there several times, or in other datasets as well."""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from nakt_dist.config import InspectConfig
from nakt_dist.drawing.sheets import Group, Panel, draw_sheet
from nakt_dist.evaluation.near_duplicates import Pair, near_pairs, picture_signs
from nakt_dist.loading.pictures import sample_picture
from nakt_dist.records.fields import printable
from nakt_dist.shards.reader import IndexedShards

_COLUMNS = ("distance", "key", "split", "other_dataset", "other_key", "other_split")
_GAP = 4


class Copies(NamedTuple):
    """Images of a dataset and where else they are.

    Attributes:
        other: the dataset in which the others are; the same one for copies within it.
        identical: pairs of the same pixels as published, distance 0.
        alike: pairs that look alike and are not identical; None unless asked for.
    """

    other: IndexedShards
    identical: list[Pair]
    alike: list[Pair] | None


def find_copies(config: InspectConfig, images: IndexedShards) -> list[Copies]:
    """Finds copies within a dataset, and in each of ``config.against``.

    Raises:
        DatasetError: a dataset is absent, or an image damaged.
    """
    signs = picture_signs(images) if config.near_duplicates else None
    found = [_compare(images, images, signs, signs)]
    for folder in config.against:
        other = IndexedShards(folder)
        found.append(
            _compare(images, other, signs, signs if signs is None else picture_signs(other))
        )
    return found


def describe_copies(images: IndexedShards, found: Sequence[Copies]) -> Iterator[str]:
    """Says how many images are copies, and how many of them lie in other splits or datasets."""
    splits = images.column("split").to_pylist()
    for copies in found:
        within = copies.other is images
        where = "" if within else f" in {printable(copies.other.manifest.dataset)}"
        kinds = [("identical to another", copies.identical)]
        if copies.alike is not None:
            kinds.append(("that look like another", copies.alike))
        for words, pairs in kinds:
            firsts = {pair.first for pair in pairs} | (
                {p.second for p in pairs} if within else set()
            )
            line = f"images {words}{where}: {len(firsts)} of {len(images)}"
            if within:
                apart = [pair for pair in pairs if splits[pair.first] != splits[pair.second]]
                line += f"; pairs in two splits: {len(apart)} of {len(pairs)}"
            else:
                by_split = Counter(splits[number] for number in firsts)
                line += "".join(f"; {split} {count}" for split, count in sorted(by_split.items()))
            yield line


def copies_as_csv(images: IndexedShards, found: Sequence[Copies]) -> bytes:
    """Returns a row for each pair, the most alike first."""
    rows: list[tuple[Any, ...]] = []
    keys, splits = images.keys, images.column("split").to_pylist()
    for copies in found:
        others, other_splits = copies.other.keys, copies.other.column("split").to_pylist()
        name = printable(copies.other.manifest.dataset)
        for pair in sorted((*copies.identical, *(copies.alike or ()))):
            row = (pair.distance, keys[pair.first], splits[pair.first], name)
            rows.append((*row, others[pair.second], other_splits[pair.second]))
    return as_csv(_COLUMNS, rows)


def as_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Returns a table as a file of comma-separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((head, *rows))
    return text.getvalue().encode()


def draw_copies(images: IndexedShards, found: Sequence[Copies], wanted: int) -> bytes | None:
    """Draws pairs that look alike side by side, spread over their distances; None without any."""
    groups = []
    for copies in found:
        pairs = sorted(copies.alike or ())
        places = np.linspace(0, len(pairs) - 1, min(wanted, len(pairs))).round().astype(int)
        chosen = [pairs[place] for place in np.unique(places)]
        if chosen:
            where = "within the dataset"
            if copies.other is not images:
                where = f"with {printable(copies.other.manifest.dataset)}"
            title = f"Look alike {where}: {len(chosen)} of {len(pairs)} pairs"
            panels = tuple(_panel(images, copies.other, pair) for pair in chosen)
            groups.append(Group(title, panels))
    return draw_sheet("Pictures that look alike", groups) if groups else None


def _compare(
    images: IndexedShards,
    other: IndexedShards,
    signs: np.ndarray | None,
    other_signs: np.ndarray | None,
) -> Copies:
    within = other is images
    identical = list(_identical(_pictures(images), _pictures(other), within))
    if signs is None:
        return Copies(other, identical, None)
    known = {(pair.first, pair.second) for pair in identical}
    alike = near_pairs(signs, None if within else other_signs)
    return Copies(other, identical, [p for p in alike if (p.first, p.second) not in known])


def _pictures(images: IndexedShards) -> list[int | None]:
    return images.column("pixels").to_pylist()


def _identical(
    first: Sequence[int | None], second: Sequence[int | None], within: bool
) -> Iterator[Pair]:
    """Yields the pairs of equal pictures; of several within a dataset each with the first."""
    where: dict[int, list[int]] = defaultdict(list)
    for number, picture in enumerate(second):
        if picture is not None:
            where[picture].append(number)
    for number, picture in enumerate(first):
        same = [] if picture is None else where[picture]
        for other in same:
            if not within or (number == same[0] and other > number):
                yield Pair(0, number, other)


def _panel(images: IndexedShards, other: IndexedShards, pair: Pair) -> Panel:
    splits = [
        each.column("split")[number].as_py()
        for each, number in ((images, pair.first), (other, pair.second))
    ]
    left, right = (
        np.asarray(Image.fromarray(sample_picture(each, number)).convert("L"))
        for each, number in ((images, pair.first), (other, pair.second))
    )
    height = max(len(left), len(right))
    parts = [
        np.pad(part, ((0, height - len(part)), (0, gap)), constant_values=255)
        for part, gap in ((left, _GAP), (right, 0))
    ]
    caption = f"{' and '.join(map(printable, splits))}\n{pair.distance} of 255 signs differ"
    return Panel(np.concatenate(parts, axis=1), caption)
