"""Which of how many processes this is, read from the launcher's environment alone.

Stages without collective operations (``teach``, ``evaluate``) need no more than this, and
so cannot hang on a dead peer.
"""

import atexit
import contextlib
import os
import sys
import threading
from dataclasses import dataclass

from nakt_dist.errors import ConfigurationError

_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


@dataclass(frozen=True)
class ProcessPlace:
    """This process among the processes of a launch.

    Attributes:
        rank: 0 … world_size - 1.
        world_size: number of processes over all nodes.
        local_rank: number of this process on its node; picks the GPU.
        local_world_size: number of processes on its node, where the launcher says it.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that speaks to the user."""
        return self.rank == 0


def process_place() -> ProcessPlace:
    """Reads RANK, WORLD_SIZE, … as torchrun and accelerate launch set them.

    Raises:
        ConfigurationError: a variable is not a number, or a rank is outside the world.
    """
    try:
        rank, world_size, local_rank, here = (
            int(os.environ.get(name, default)) for name, default in _VARIABLES.items()
        )
    except ValueError as error:
        raise ConfigurationError(f"{', '.join(_VARIABLES)} must be numbers: {error}") from None
    if not 0 <= rank < world_size:
        raise ConfigurationError(
            f"RANK is {rank} and WORLD_SIZE {world_size}; expected 0 <= RANK < WORLD_SIZE. "
            "Unset both to run one plain process"
        )
    if local_rank < 0:
        raise ConfigurationError(f"LOCAL_RANK is {local_rank}; expected 0 or more")
    return ProcessPlace(rank, world_size, local_rank, max(here, 1))


def own_cores(wanted: int | None = None) -> int:
    """Returns this process's share of the machine's cores, at least 1, or the number wanted."""
    if wanted is not None:
        return wanted
    return max(len(os.sched_getaffinity(0)) // process_place().local_world_size, 1)


def require_one_process(stage: str) -> None:
    """Refuses to run a stage that is not distributed in several processes at once.

    Raises:
        ConfigurationError: the launcher started several.
    """
    if process_place().world_size > 1:
        raise ConfigurationError(
            f"{stage} was started as {process_place().world_size} processes, but runs as one. "
            "Start it without accelerate launch or torchrun"
        )


def say(message: str) -> None:
    """Prints lines for the user, on the main process only; ``printable_lines`` of them."""
    if process_place().is_main:
        print(printable_lines(message), file=sys.stderr, flush=True)


def printable_lines(text: str) -> str:
    """Makes each line ``printable``: names in it may come from a dataset that anybody wrote."""
    return "\n".join(printable(line) for line in text.split("\n"))


def printable(text: str) -> str:
    """Replaces control characters, which could steer a terminal, by question marks."""
    return "".join(character if character.isprintable() else "?" for character in text)


def end_process(status: int) -> None:
    """Ends this process as multiprocessing ends the processes that it has forked.

    Threads are waited for and exit handlers called, but modules are not taken down one by one,
    which with torch takes a second. Returns where what was printed cannot be written: Python then
    ends the process, and says so.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
