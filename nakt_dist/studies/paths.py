"""Who waits for whom, from the paths that settings read and write."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from os.path import realpath
from typing import Any

from nakt_dist import limits

_NOT_READ = ("output", "cache", "deidentify_key", "card")


@dataclass(frozen=True)
class Paths:
    """What settings read and write, absolute where they are on this machine.

    Attributes:
        writes: the output; None where the stage has none.
        reads: inputs, each needed.
        searches: folders below which runs are looked for; what is not there is not missed.
    """

    writes: str | None
    reads: tuple[str, ...]
    searches: tuple[str, ...]


def paths_of(config: Any) -> Paths:
    """Returns the paths in a stage's configuration: its fields with a limit for paths say which."""
    output = getattr(config, "output", None)
    found = list(_paths(config))
    return Paths(
        writes=None if output is None else absolute(output),
        reads=tuple(dict.fromkeys(path for path, searched in found if not searched)),
        searches=tuple(dict.fromkeys(path for path, searched in found if searched)),
    )


def absolute(path: str) -> str:
    """Returns a path without ``..`` and links, so that equal ones are equal; a URL as it is."""
    path = path.removeprefix("file://")
    return path.rstrip("/") if "://" in path else realpath(path)


def _paths(value: Any) -> Iterator[tuple[str, bool]]:
    """Yields each path that is read, and whether it is searched."""
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            if is_dataclass(item):
                yield from _paths(item)
    elif is_dataclass(value):
        for each in fields(value):
            item, limit = getattr(value, each.name), each.metadata.get("limit")
            if item is None or (each.name in _NOT_READ and not is_dataclass(item)):
                continue
            if limit is limits.SEARCHED["limit"]:
                yield from ((absolute(path), True) for path in item)
            elif limit is limits.PATHS["limit"]:
                yield from ((absolute(path), False) for path in item)
            elif limit is limits.PATH["limit"]:
                yield absolute(item), False
            else:
                yield from _paths(item)


@dataclass(frozen=True)
class Edges:
    """What one run waits for: numbers of other runs.

    Attributes:
        needs: must be done.
        after: must have ended.
    """

    needs: tuple[int, ...]
    after: tuple[int, ...]


def edges_of(runs: Sequence[Paths]) -> list[Edges]:
    """Returns what each run waits for.

    A run needs those that write what it reads: the folder itself, one that it lies in, or one
    inside. Where it searches a folder, it waits until those that write inside have ended; runs
    that search, such as two reports, do not wait for each other.
    """
    writers = {run.writes: number for number, run in enumerate(runs) if run.writes is not None}
    inside: dict[str, list[int]] = {}
    for path, number in writers.items():
        for parent in _parents(path):
            inside.setdefault(parent, []).append(number)

    def touching(path: str) -> Iterator[int]:
        for place in (path, *_parents(path)):
            if place in writers:
                yield writers[place]
        yield from inside.get(path, ())

    edges = []
    for number, run in enumerate(runs):
        needs = {each for path in run.reads for each in touching(path)} - {number}
        searched = {each for path in run.searches for each in touching(path)}
        after = {each for each in searched - {number} - needs if not runs[each].searches}
        edges.append(Edges(tuple(sorted(needs)), tuple(sorted(after))))
    return edges


def _parents(path: str) -> Iterator[str]:
    """Yields the folders that a path lies in, from the nearest."""
    while (cut := path.rfind("/")) > 0 and not path[:cut].endswith(":/"):
        path = path[:cut]
        yield path
