"""Rounds of a stage that is killed until it finishes, until there were enough kills."""

import argparse
import itertools
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nakt_dist.runtime.progress import progress_bar
from tests.faults.chaos_cases import IMAGES, Case, make_case
from tests.faults.chaos_launches import Launch, LaunchError
from tests.faults.chaos_verdict import Verdict, join, judge

_KILLS_PER_ROUND = 5
_LEAST_PATIENCE_SECONDS = 120.0
_WHOLE_JOB = "job"


@dataclass(frozen=True)
class Kill:
    """One blow.

    Attributes:
        victim: a process of the launch, or ``job`` for all of them.
        seconds: after the start of its launch.
        done: share of the whole work that was finished by then, 0 to 1.
    """

    victim: str
    seconds: float
    done: float

    def __str__(self) -> str:
        return f"{self.victim} at {self.seconds:.1f} s ({100 * self.done:.0f} %)"


@dataclass(frozen=True)
class Round:
    """One output, from nothing to its end.

    Attributes:
        launches: how often the command was started.
        kills: what it was hit with.
        verdict: what came of it.
    """

    launches: int
    kills: tuple[Kill, ...]
    verdict: Verdict


@dataclass(frozen=True)
class Pace:
    """How fast the undisturbed run was.

    Attributes:
        first: seconds until its first piece was finished.
        all: seconds until its end.
    """

    first: float
    all: float

    @property
    def interval(self) -> float:
        """Mean seconds from a start, or a kill, to the next kill: some hits fall on the start."""
        return self.first + (self.all - self.first) / _KILLS_PER_ROUND

    @property
    def patience(self) -> float:
        """Seconds after which a launch counts as hung."""
        return max(20 * self.all, _LEAST_PATIENCE_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs chaos from the command line; returns 0 when nothing was lost or differs."""
    options = _parse(arguments)
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{options.stage}-"))
    try:
        case = make_case(
            options.stage, folder, options.images, options.world, options.launcher == "command"
        )
        with progress_bar(f"chaos {options.stage}: kills", options.kills) as advance:
            rounds = run_rounds(case, options.kills, options.seed, folder, print, advance)
    except LaunchError as error:
        print(f"chaos {options.stage}: {error}\nwhat is there: {folder}")
        return 1
    verdict = join([each.verdict for each in rounds])
    for line in verdict.details():
        print(line)
    if verdict.is_clean:
        shutil.rmtree(folder)
    else:
        print(f"what is there: {folder}")
    print(str(verdict))
    return 0 if verdict.is_clean else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kills a stage again and again with -9.")
    parser.add_argument("stage", choices=IMAGES)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--world", type=int, default=2, help="processes; for pack, workers")
    parser.add_argument("--images", type=int, help="more make a longer run")
    parser.add_argument(
        "--launcher", choices=["forked", "command"], default="forked",
        help="ranks forked from a warm server, or torchrun, whose every start takes seconds",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.kills < 1:
        parser.error(f"--kills is {options.kills}; without one there is nothing to compare")
    options.images = options.images or IMAGES[options.stage]
    return options


def run_rounds(
    case: Case,
    kills: int,
    seed: int,
    folder: Path,
    say: Callable[[str], None],
    advance: Callable[[int], None],
) -> list[Round]:
    """Runs the stage once undisturbed, then in rounds until so many kills have hit.

    Args:
        case: the stage and its data.
        kills: how many.
        seed: of the moments, in units of the measured pace, and of the victims.
        folder: for the outputs; those that are right are removed.
        say: is told what happened.
        advance: is told of each kill.

    Raises:
        LaunchError: a launch hangs, fails by itself or leaves processes behind.
    """
    undisturbed = folder / "undisturbed"
    pace = _measure(case, undisturbed, folder / "undisturbed.log")
    say(
        f"chaos {case.stage}: {kills} kills, {case.world} processes, seed {seed}; undisturbed "
        f"{pace.all:.1f} s, its first piece after {pace.first:.1f} s"
    )
    verdict = judge(case, undisturbed, undisturbed)
    if not verdict.is_clean:
        raise LaunchError(f"not even the undisturbed run is whole: {verdict.details()}")
    dice, rounds = random.Random(seed), []
    while (left := kills - sum(len(each.kills) for each in rounds)) > 0:
        name = f"round-{len(rounds) + 1}"
        launches, hits = _play(case, folder / name, left, dice, pace, advance)
        rounds.append(Round(launches, hits, judge(case, folder / name, undisturbed)))
        blows = ", ".join(map(str, hits))
        say(f"{name}: {launches} launches, {len(hits)} kills: {blows or 'it was too fast'}")
        if rounds[-1].verdict.is_clean:
            shutil.rmtree(folder / name)
    return rounds


def _measure(case: Case, output: Path, log: Path) -> Pace:
    """Runs the stage undisturbed."""
    started, first = time.monotonic(), None
    with case.launch(output, log) as launch:
        while not launch.wait(0.01):
            if first is None and case.share_done(output) > 0:
                first = time.monotonic() - started
            if time.monotonic() - started > 10 * _LEAST_PATIENCE_SECONDS:
                launch.finish(0)
        seconds = time.monotonic() - started
    launch.check()
    return Pace(first if first is not None else seconds, seconds)


def _play(
    case: Case,
    output: Path,
    kills: int,
    dice: random.Random,
    pace: Pace,
    advance: Callable[[int], None],
) -> tuple[int, tuple[Kill, ...]]:
    """Starts the stage again and again until it ends undisturbed; returns starts and kills."""
    hits: list[Kill] = []
    for launches in itertools.count(1):
        log = output.with_name(f"{output.name}-{launches}.log")
        with case.launch(output, log) as launch:
            new = _harass(case, launch, output, kills - len(hits), dice, pace, advance)
        launch.check()
        log.unlink(missing_ok=True)
        hits += new
        if not new:
            return launches, tuple(hits)


def _harass(
    case: Case,
    launch: Launch,
    output: Path,
    kills: int,
    dice: random.Random,
    pace: Pace,
    advance: Callable[[int], None],
) -> list[Kill]:
    """Kills processes of one launch at random moments, until it has ended."""
    started, hits = time.monotonic(), []
    while not launch.wait(0):
        if len(hits) == kills:
            launch.finish(pace.patience)
            break
        if launch.wait(dice.expovariate(1) * pace.interval):
            break
        seconds, done = time.monotonic() - started, case.share_done(output)
        if seconds > pace.patience:
            launch.finish(0)
        victim = _choose(dice, list(launch.members()))
        if launch.kill(victim):
            hits.append(Kill(victim or _WHOLE_JOB, seconds, done))
            advance(1)
    return hits


def _choose(dice: random.Random, alive: list[str]) -> str | None:
    """Chooses the whole job half of the time, else one of the living."""
    everybody, place = dice.random() < 0.5, dice.random()
    return None if everybody or not alive else alive[int(place * len(alive))]
