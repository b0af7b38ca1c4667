"""Lineages in which that of each network stands once, however often the network is named.

A teacher of two sources, or one that is the start besides, stands in a student's lineage twice; its
own teacher then four times, and so on: rounds of students that teach would double it each time.
"""

from collections.abc import Iterator, Mapping
from typing import Any


def told_once(value: Any, told: set[str] | None = None) -> Any:
    """Returns a lineage, or a part of one, without the lineages that it holds already.

    Args:
        value: as JSON has it.
        told: weights whose lineage stands before; added to.

    Returns:
        A copy in which a network named again, by the SHA-256 of its weights, has an empty lineage.
    """
    told = set() if told is None else told
    if isinstance(value, list):
        return [told_once(item, told) for item in value]
    if not isinstance(value, Mapping):
        return value
    if (weights := _whose(value)) is not None:
        if weights in told:
            return {**value, "lineage": {}}
        told.add(weights)
    return {name: told_once(item, told) for name, item in value.items()}


def lineages_told(value: Any) -> dict[str, Mapping[str, Any]]:
    """Returns the lineages that stand in one, by the SHA-256 of the networks' weights."""
    return {weights: network["lineage"] for weights, network in _networks(value)}


def _networks(value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            if (weights := _whose(value)) is not None:
                yield weights, value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _whose(value: Mapping[str, Any]) -> str | None:
    """Returns the weights whose lineage a mapping tells; None where it tells none."""
    weights, lineage = value.get("weights_sha256"), value.get("lineage")
    told = isinstance(weights, str) and isinstance(lineage, Mapping) and lineage
    return weights if told else None
