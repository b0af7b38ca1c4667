"""What ``nakt doctor`` finds in each process, what that comes to, and how it is printed."""

import contextlib
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nakt_dist.errors import DatasetError, NaktError
from nakt_dist.runtime.barrier import Arrivals
from nakt_dist.runtime.machine import Machine
from nakt_dist.shards.location import DatasetLocation
from nakt_dist.shards.manifest import AnyManifest
from nakt_dist.stages.opening import Opening, in_words


@dataclass
class Findings(Opening):
    """One process's findings; an error in a part of what is opened is a problem beside others.

    Attributes:
        problems: what is wrong, each with what to do.
        versions: of Python and of the packages a result depends on.
    """

    rank: int
    machine: Machine
    problems: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def is_sound(self) -> bool:
        """Whether nothing was wrong so far."""
        return not self.problems

    @contextlib.contextmanager
    def part(self, what: str) -> Iterator[None]:
        """Makes an error that the stage would end with a problem, and goes on."""
        try:
            yield
        except NaktError as error:
            self.add_problem(f"{what}: {error}")
        except OSError as error:
            self.add_problem(f"{what}: {error.strerror or error}: {error.filename or '?'}")

    def check_shards(self, folder: str, manifest: AnyManifest) -> None:
        """Looks whether all shards of a local folder are there, by their sizes.

        Raises:
            DatasetError: they are not.
        """
        if "://" in folder:
            return  # shards behind a URL are fetched when they are read
        there = DatasetLocation(folder).folder
        wrong = [
            entry.name
            for entry in manifest.shards
            if not (path := there / entry.name).is_file() or path.stat().st_size != entry.bytes
        ]
        if wrong:
            raise DatasetError(
                f"{folder}: {len(wrong)} of {len(manifest.shards)} shards are absent or of another "
                f"size than the manifest says ({wrong[0]} is the first). Run nakt verify on the "
                "folder"
            )

    def add_problem(self, problem: str) -> None:
        """Adds a problem unless it is known: parts of a stage are looked at more than once."""
        if problem not in self.problems:
            self.problems.append(problem)

    @property
    def host(self) -> str:
        """The machine's name."""
        return self.machine.host

    def as_plain(self) -> dict[str, Any]:
        """Returns plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "Findings":
        """Returns what ``as_plain`` was given."""
        return cls(**{**values, "machine": Machine(**values["machine"])})


@dataclass(frozen=True)
class Diagnosis:
    """All that is printed.

    Attributes:
        facts: in words by name, in order.
        problems: what is wrong, with what to do.
        notes: what is worth knowing.
    """

    facts: Mapping[str, str]
    problems: Sequence[str]
    notes: Sequence[str]


def diagnose(stage: str | None, arrivals: Arrivals) -> Diagnosis:
    """Joins what the processes found.

    Args:
        arrivals: their findings as JSON; None of those that did not come.
    """
    came = [Findings.from_plain(json.loads(text)) for text in arrivals.texts if text is not None]
    problems = [f"{text}{_who(ranks, came)}" for text, ranks in _by_text(came, "problems").items()]
    problems += _absent(arrivals)
    problems += _differences(came, "inputs", "make the same files and settings visible to all")
    problems += _differences(came, "versions", "install the same versions on all nodes")
    problems += _gpus_used_twice(came)
    problems += _short_of_memory(came)
    notes = [f"{text}{_who(ranks, came)}" for text, ranks in _by_text(came, "notes").items()]
    facts = {**_launch(stage, came, arrivals), **came[0].facts, **_machines(came)}
    return Diagnosis(facts, tuple(problems), (*notes, *_too_many_threads(came)))


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Prints a table in a terminal, and one plain line a fact elsewhere."""
    verdict = [("problem", each) for each in diagnosis.problems] or [("problems", "none")]
    rows = [*diagnosis.facts.items(), *(("note", each) for each in diagnosis.notes), *verdict]
    if not sys.stdout.isatty():
        width = max(len(name) for name, _ in rows)
        print(*(f"{name:<{width}}  {words}" for name, words in rows), sep="\n", flush=True)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"problem": "bold red", "note": "yellow", "problems": "bold green"}
    table = Table(show_header=False, title="nakt doctor", title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in rows:  # Text, because rich would read [brackets] as a command
        style = styles.get(name, "")
        table.add_row(Text(name, style=style or "bold"), Text(words, style=style))
    Console().print(table)


def _launch(stage: str | None, came: Sequence[Findings], arrivals: Arrivals) -> dict[str, str]:
    hosts = _ranks_by(came, lambda each: each.host)
    count = len(arrivals.texts)
    backend = came[0].machine.backend
    tried = "" if backend == "gloo" else "itself not tried; "
    joined = not arrivals.faults and None not in arrivals.texts
    reached = f"all met over gloo in {arrivals.seconds:.1f} s" if joined else "not all met"
    return {
        "stage": stage or "none named",
        "processes": f"{count} on {len(hosts)} host{'' if len(hosts) == 1 else 's'}",
        "backend": "none, one process" if count == 1 else f"{backend} ({tried}{reached})",
    }


def _machines(came: Sequence[Findings]) -> dict[str, str]:
    """Says what each process computes on, and what each host has."""
    facts = {}
    for each in came:
        machine = each.machine
        facts["device" if len(came) == 1 else f"process {each.rank}"] = (
            f"{each.host}: {machine.device}, {machine.threads} thread"
            f"{'' if machine.threads == 1 else 's'} of {machine.cores} cores"
        )
    for host, ranks in _ranks_by(came, lambda each: each.host).items():
        here = [each for each in came if each.rank in ranks]
        of_host = "" if len(came) == len(ranks) else f" of {host}"
        facts[f"memory{of_host}"] = _memory(here)
    facts["versions"] = ", ".join(f"{name} {word}" for name, word in came[0].versions.items())
    return facts


def _memory(here: Sequence[Findings]) -> str:
    left, needed = _memory_left(here), sum(each.memory for each in here)
    words = "unknown" if left is None else f"{in_words(left)} left"
    return f"{words}, about {in_words(needed)} needed for images" if needed else words


def _memory_left(here: Sequence[Findings]) -> int | None:
    known = [each.machine.memory for each in here]
    return min((each for each in known if each is not None), default=None)


def _absent(arrivals: Arrivals) -> list[str]:
    absent = [rank for rank, text in enumerate(arrivals.texts) if text is None]
    problems = [
        f"processes: {fault}; data does not pass between all processes (process {rank}): check "
        "the network between the hosts, and GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME"
        for rank, fault in arrivals.faults.items()
    ]
    if absent:
        problems.append(
            f"processes: nothing came from {_numbers(absent)} of {len(arrivals.texts)} within the "
            "time; check that they were started and reach MASTER_ADDR; raise wait_seconds for slow "
            "ones"
        )
    return problems


def _differences(came: Sequence[Findings], what: str, advice: str) -> list[str]:
    """Names the entries of a mapping in which processes differ."""
    problems = []
    names = dict.fromkeys(name for each in came for name in getattr(each, what))
    for name in names:

        def value_of(each: Findings, name: str = name) -> str:
            return getattr(each, what).get(name, "nothing")

        by_value = _ranks_by(came, value_of)
        if len(by_value) > 1:
            told = "; ".join(
                f"{value[:40]}: {_places(ranks, came)}" for value, ranks in by_value.items()
            )
            problems.append(f"{name} differs between processes ({told}); {advice}")
    return problems


def _gpus_used_twice(came: Sequence[Findings]) -> list[str]:
    with_gpu = [each for each in came if each.machine.gpu]
    used = _ranks_by(with_gpu, lambda each: f"{each.host} {each.machine.gpu}")
    return [
        f"device: {_numbers(ranks)} share one GPU of {gpu.split()[0]}; start one process for each "
        "GPU (--num_processes, CUDA_VISIBLE_DEVICES)"
        for gpu, ranks in used.items()
        if len(ranks) > 1
    ]


def _short_of_memory(came: Sequence[Findings]) -> list[str]:
    problems = []
    for host, ranks in _ranks_by(came, lambda each: each.host).items():
        here = [each for each in came if each.rank in ranks]
        left, needed = _memory_left(here), sum(each.memory for each in here)
        if left is not None and needed > left:
            problems.append(
                f"memory: images take about {in_words(needed)} in {_numbers(ranks)} on {host}, and "
                f"{in_words(left)} are left; lower memory_cache_megabytes, or ask for more"
            )
    return problems


def _too_many_threads(came: Sequence[Findings]) -> list[str]:
    notes = []
    for host, ranks in _ranks_by(came, lambda each: each.host).items():
        here = [each.machine for each in came if each.rank in ranks and not each.machine.gpu]
        threads, cores = sum(each.threads for each in here), max([e.cores for e in here], default=0)
        if len(here) > 1 and threads > cores:
            notes.append(
                f"{len(here)} processes with {threads} threads together share {cores} cores of "
                f"{host}; set OMP_NUM_THREADS to {max(cores // len(here), 1)}"
            )
    return notes


def _by_text(came: Iterable[Findings], what: str) -> dict[str, list[int]]:
    ranks = defaultdict(list)
    for each in came:
        for text in getattr(each, what):
            ranks[text].append(each.rank)
    return ranks


def _ranks_by(came: Iterable[Findings], key: Callable[[Findings], str]) -> dict[str, list[int]]:
    ranks = defaultdict(list)
    for each in came:
        ranks[key(each)].append(each.rank)
    return ranks


def _who(ranks: Sequence[int], came: Sequence[Findings]) -> str:
    return "" if len(ranks) == len(came) else f" ({_places(ranks, came)})"


def _places(ranks: Sequence[int], came: Sequence[Findings]) -> str:
    hosts = dict.fromkeys(each.host for each in came if each.rank in ranks)
    return f"{_numbers(ranks)} on {', '.join(hosts)}"


def _numbers(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (" …" if len(ranks) > 8 else "")
    return f"process{'' if len(ranks) == 1 else 'es'} {shown}"
