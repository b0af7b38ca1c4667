"""What ``nakt doctor`` finds in one process: facts, and what is wrong."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from nakt_dist.errors import NaktError
from nakt_dist.runtime.machine import Machine
from nakt_dist.shards.manifest import PseudoLabelManifest, ShardManifest
from nakt_dist.stages import opening
from nakt_dist.stages.opening import Opening


@dataclass
class Findings(Opening):
    """One process's findings; an error in a part of what is opened is a problem beside others.

    Attributes:
        rank: of the process.
        machine: what it runs on.
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

    def check_shards(self, folder: str, manifest: ShardManifest | PseudoLabelManifest) -> None:
        """Looks whether all shards of a local folder are there.

        Raises:
            DatasetError: they are not.
        """
        opening.check_shards(folder, manifest)

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
