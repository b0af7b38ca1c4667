"""Names what differs between things that would otherwise be called the same."""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from nakt_dist.records.fields import printable

Item = TypeVar("Item", bound=Hashable)
_MOST_NAMED = 3
_SHOWN_DIGITS = 8
_USES = {"zero": "as zero", "one": "as one", "ignore": "ignored"}


def tell_apart(
    items: Iterable[Item],
    name: Callable[[Item], Hashable],
    facts: Callable[[Item], Mapping[str, str]],
) -> dict[Item, str]:
    """Finds for each item the facts in which it differs from others of its name.

    Args:
        items: any.
        name: what an item is called anyway.
        facts: words for each fact, in the order in which they are said.

    Returns:
        The words, joined by commas; empty for an item whose name or facts nobody shares.
    """
    items = list(dict.fromkeys(items))
    alike: dict[Hashable, list[Item]] = {}
    for item in items:
        alike.setdefault(name(item), []).append(item)
    return {item: _differing(item, alike[name(item)], facts) for item in items}


def _differing(
    item: Item, group: Sequence[Item], facts: Callable[[Item], Mapping[str, str]]
) -> str:
    ours, theirs = facts(item), [facts(each) for each in group]
    words = [word for fact, word in ours.items() if any(each.get(fact) != word for each in theirs)]
    return ", ".join(dict.fromkeys(words))


def describe_policy(policy: str) -> dict[str, str]:
    """Returns words for what unsure labels count as, such as ``"uncertain labels as one"``.

    Args:
        policy: JSON of a mapping such as ``{"uncertain": "one", "blank": "zero"}``.
    """
    uses = json.loads(policy)
    return {
        str(kind): printable(f"{kind} labels {_USES.get(use, f'as {use}')}")
        for kind, use in sorted(uses.items(), reverse=True)
    }


def describe_findings(sets: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Returns words for sets of findings: how many, and which where others are as many."""
    sets = list(dict.fromkeys(sets))
    shared = set.intersection(*map(set, sets)) if sets else set()
    named = {}
    for findings in sets:
        words = f"{len(findings)} finding{'' if len(findings) == 1 else 's'}"
        if sum(len(each) == len(findings) for each in sets) > 1:
            own = [each for each in findings if each not in shared][:_MOST_NAMED]
            words += f" with {' and '.join(own)}" if own else " in another order"
        named[findings] = words
    return named


def describe_packing(fingerprint: str) -> str:
    """Returns the first digits of a dataset's fingerprint, in words."""
    return f"packing {printable(fingerprint)[:_SHOWN_DIGITS]}"
