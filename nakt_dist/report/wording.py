"""Names what differs between things that would otherwise be called the same."""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from nakt_dist.records.fields import printable
from nakt_dist.sources.findings import OTHERWISE

Item = TypeVar("Item", bound=Hashable)
Key = TypeVar("Key", bound=Hashable)
_MOST_FINDINGS = 3
_MOST_LISTED = 4
_SHOWN_DIGITS = 8
_USES = {"zero": "as zero", "one": "as one", "ignore": "ignored"}


def tell_apart(
    items: Iterable[Item],
    name: Callable[[Item], Hashable],
    describe: Callable[[Item], Mapping[str, str]],
) -> dict[Item, str]:
    """Says for each item in what it differs from others of its name.

    Args:
        name: what an item is called anyway.
        describe: words for each of its properties, in the order in which they are said.

    Returns:
        The words, joined by commas; empty for an item whose name or properties nobody shares.
    """
    items = list(dict.fromkeys(items))
    alike = grouped(items, name)
    described = {item: describe(item) for item in items}

    def differing(item: Item) -> str:
        others = [described[each] for each in alike[name(item)]]
        words = [
            word
            for what, word in described[item].items()
            if any(each.get(what) != word for each in others)
        ]
        return ", ".join(dict.fromkeys(words))

    return {item: differing(item) for item in items}


def describe_policy(policy: str) -> dict[str, str]:
    """Returns words for a policy of labels, JSON such as ``{"uncertain": "one"}``."""
    uses = json.loads(policy)
    return {
        str(kind): printable(f"{kind} labels {_describe_use(use)}")
        for kind, use in sorted(uses.items(), reverse=True)
    }


def _describe_use(use: str | Mapping[str, str]) -> str:
    """Returns words for one use of all findings, or for a use by finding, the others' first."""
    if isinstance(use, str):
        return _USES.get(use, f"as {use}")
    otherwise = use.get(OTHERWISE, "not said")
    by_use = grouped((name for name in sorted(use) if name != OTHERWISE), lambda name: use[name])
    own = [f"of {list_some(names)} {_describe_use(each)}" for each, names in by_use.items()]
    return ", ".join([_describe_use(otherwise), *own])


def describe_findings(sets: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Returns words for sets of findings: how many, and which where others are as many."""
    sets = list(dict.fromkeys(sets))
    shared = set.intersection(*map(set, sets)) if sets else set()
    named = {}
    for findings in sets:
        words = show_count(len(findings), "finding")
        if sum(len(each) == len(findings) for each in sets) > 1:
            own = [each for each in findings if each not in shared][:_MOST_FINDINGS]
            words += f" with {' and '.join(own)}" if own else " in another order"
        named[findings] = words
    return named


def describe_packing(fingerprint: str) -> str:
    """Returns the first digits of a dataset's fingerprint, in words."""
    return f"packing {printable(fingerprint)[:_SHOWN_DIGITS]}"


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Groups items by a key, in the order in which the keys first appear."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def show_count(number: int, what: str) -> str:
    """Returns a number of things, such as ``"1 record"`` and ``"2 records"``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def show_range(values: Iterable[int]) -> str:
    """Returns the least and the greatest of some numbers, such as ``"30 to 500"``."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    return str(low) if low == high else f"{low} to {high}"


def list_some(names: Sequence[str]) -> str:
    """Returns the first four names and how many more there are."""
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
