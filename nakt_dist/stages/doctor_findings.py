"""What ``nakt doctor`` finds in one process: facts, and what is wrong."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from nakt_dist.errors import NaktError
from nakt_dist.runtime.machine import GIB, MIB, Machine


@dataclass
class Findings:
    """One process's findings, filled by the examinations one after the other.

    Attributes:
        rank: of the process.
        machine: what it runs on.
        facts: in words by name, in the order in which they are shown.
        problems: what is wrong, each with what to do.
        notes: what is worth knowing and stops nothing.
        inputs: fingerprints of what this process sees, which should be alike everywhere.
        versions: of Python and of the packages a result depends on.
        memory: bytes that the stage will keep in this process's memory.
        shared_memory: bytes that its loader processes will pass through ``/dev/shm``.
        disk: bytes that the stage will write.
    """

    rank: int
    machine: Machine
    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    memory: int = 0
    shared_memory: int = 0
    disk: int = 0

    @contextlib.contextmanager
    def problem_if_refused(self, what: str) -> Iterator[None]:
        """Makes an error that a stage would end with a problem, and goes on.

        Args:
            what: what is looked at, such as ``"data"``.
        """
        try:
            yield
        except NaktError as error:
            self.add_problem(f"{what}: {error}")
        except OSError as error:
            self.add_problem(f"{what}: {error.strerror or error}: {error.filename or '?'}")

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


def in_words(size: float) -> str:
    """Returns a number of bytes as people read it: ``3.2 GiB``, ``14 MiB``, ``1.5 MiB``, ``7 KiB``.

    What is not nothing is at least 1 KiB.
    """
    if size >= GIB:
        return f"{size / GIB:.1f} GiB"
    if size >= MIB:
        return f"{size / MIB:.{0 if size >= 10 * MIB else 1}f} MiB"
    return f"{math.ceil(size / 2**10)} KiB"
