"""A barrier of the processes of a launch that gathers texts, and at which nobody waits for ever."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from nakt_dist.errors import NaktError
from nakt_dist.runtime.processes import ProcessPlace, process_place

_LONGEST_WORK_SECONDS = 1800
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Arrivals:
    """What the first process receives from the others.

    Attributes:
        texts: what each process sent, by rank; None of those that did not arrive.
        faults: why data could not pass between all of them, by rank; empty when it did.
    """

    texts: list[str | None]
    faults: dict[int, str]
    seconds: float


class Barrier:
    """Where the processes of a launch wait for one another and send the first one a text.

    To be opened before the work that leads to that text: the others then find the first one,
    however long it works.

    Args:
        seconds: how long the first process waits for the others once it has its own,
            and the others for it to be there at all.

    Raises:
        NaktError: this process cannot reach the first one, or, being the first, cannot listen.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._place = process_place()
        self._store = None
        if self._place.world_size > 1:
            with self._explained():
                self._store = _open_store(self._place, timedelta(seconds=seconds))

    def gather(self, own: str) -> Arrivals:
        """Gathers a text of every process at rank 0, then sums a number over all of them.

        The texts pass through the launcher's store, where a process that is missing can be named;
        the sum shows that all processes reach one another, not only the first.

        Returns:
            At rank 0 what arrived; elsewhere nothing.

        Raises:
            NaktError: the first process has ended, or works for more than half an hour.
        """
        if self._store is None:
            return Arrivals([own], {}, 0.0)
        with self._explained():
            if self._place.is_main:
                return self._gather(self._store, own)
            self._follow(self._store, own)
        return Arrivals([], {}, 0.0)

    def _gather(self, store: dist.Store, own: str) -> Arrivals:
        started = time.monotonic()
        store.set("begun", "yes")
        others = range(1, self._place.world_size)
        arrived = _collect(store, "text", others, self._seconds)
        complete = len(arrived) == len(others)
        store.set("complete", "yes" if complete else "no")
        faults = {0: _sum_over_all(store, self._seconds) if complete else ""}
        faults |= _collect(store, "fault", arrived, self._seconds)
        texts = [own, *(arrived.get(rank) for rank in others)]
        found = {rank: fault for rank, fault in sorted(faults.items()) if fault}
        return Arrivals(texts, found, time.monotonic() - started)

    def _follow(self, store: dist.Store, own: str) -> None:
        rank, seconds = self._place.rank, self._seconds
        store.set(f"text/{rank}", own)
        deadline = time.monotonic() + _LONGEST_WORK_SECONDS
        # The store's own waiting would not let Ctrl-C through. This fails when process 0 ends.
        while not store.check(["begun"]):
            if time.monotonic() > deadline:
                raise RuntimeError(f"process 0 still works after {_LONGEST_WORK_SECONDS} s")
            time.sleep(_PAUSE_SECONDS)
        # Process 0 decides after its own time is up, so the others wait longer.
        store.wait(["complete"], timedelta(seconds=2 * seconds))
        complete = store.get("complete") == b"yes"
        store.set(f"fault/{rank}", _sum_over_all(store, seconds) if complete else "")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, KeyError) as error:
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise NaktError(
                f"process {self._place.rank} of {self._place.world_size} and process 0 do not "
                f"meet at {where} ({_first_line(error)}). Check MASTER_ADDR, MASTER_PORT, the "
                "firewall between the nodes, and that all processes were started"
            ) from None


def _open_store(place: ProcessPlace, timeout: timedelta) -> dist.Store:
    """Opens the store that torchrun keeps, or one that rank 0 keeps where there is none."""
    of_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=place.is_main and not of_launcher,
        timeout=timeout,
        wait_for_workers=False,
    )
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"nakt/barrier/{attempt}", store)


def _collect(store: dist.Store, name: str, ranks: Iterable[int], seconds: float) -> dict[int, str]:
    """Returns what the ranks have put there, of those that do so in time."""
    deadline = time.monotonic() + seconds
    found = {}
    for rank in ranks:
        key, left = f"{name}/{rank}", max(deadline - time.monotonic(), 0.01)
        try:
            store.wait([key], timedelta(seconds=left))
        except RuntimeError:  # what torch's stores raise when the time is up
            continue
        found[rank] = store.get(key).decode()
    return found


def _sum_over_all(store: dist.Store, seconds: float) -> str:
    """Joins a short process group; returns what went wrong, empty when all was well."""
    place = process_place()
    try:
        dist.init_process_group(
            "gloo",
            store=dist.PrefixStore("group", store),
            rank=place.rank,
            world_size=place.world_size,
            timeout=timedelta(seconds=seconds),
        )
        total = torch.ones(1)
        dist.all_reduce(total)
    except (RuntimeError, ValueError) as error:
        return _first_line(error) or type(error).__name__
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    expected = place.world_size
    return "" if total.item() == expected else f"the sum is {total.item():g}, not {expected}"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
