"""Does one run of a study in this process, which is one of several that a launcher has started."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nakt_dist.errors import NaktError, StartAgain
from nakt_dist.runtime.preemption import REQUEUE_ALONE_EXIT_CODE, REQUEUE_EXIT_CODE
from nakt_dist.runtime.processes import process_place
from nakt_dist.runtime.work import hold_lock
from nakt_dist.studies.folder import StudyFolder
from nakt_dist.studies.one_run import (
    is_left_to_others,
    lock_path,
    prepare,
    reason_of,
    shortened,
    status_after,
)
from nakt_dist.studies.plan import Study, StudyRun

_FIRST_SECONDS = 60


def do_together(
    run: StudyRun, study: Study, folder: StudyFolder, work: Callable[[Any], Any]
) -> None:
    """Does a run; the first of the processes notes how it stands, or one that fails.

    That it is done is noted by whichever process finds it so: the first may leave while others
    do its last pieces.

    As a task of a scheduler's array, the processes write what they print to the run's log.

    Args:
        work: the run's stage; takes its configuration.

    Raises:
        StartAgain: a signal asked to leave, or another job does this run right now.
        Exception: as ``work``.
    """
    place = process_place()
    folder.of_run(run.name).mkdir(parents=True, exist_ok=True)
    os.environ["NAKT_STUDY"] = study.config.study_name
    if study.config.task is not None:
        _print_to(folder.log_path(run.name))
    with _lock(run, folder) if place.is_main else contextlib.nullcontext():
        if place.is_main:
            prepare(run, folder, int(os.environ.get("NAKT_TRY", "1")), None)
        else:
            _await_first(run, folder)
        config, _ = run.decided()
        code, reason = 1, None
        try:
            work(config)
            code = 0
        except StartAgain as error:
            code = REQUEUE_ALONE_EXIT_CODE if error.alone else REQUEUE_EXIT_CODE
            raise
        except NaktError as error:
            reason = shortened(f"exit code 1: nakt: error: {error}")
            raise
        finally:
            status = status_after(code)
            if status == "done":
                notes = not is_left_to_others(run)
            else:
                notes = place.is_main or reason is not None
            state = folder.read_state(run.name)
            # Who fails ends the others, who then tell of something else.
            noted = state is not None and state.status in ("failed", status)
            if notes and not noted:
                told = reason or reason_of(folder, run.name, code)
                folder.end(run.name, status, code, told, run.planned.output)


def _await_first(run: StudyRun, folder: StudyFolder) -> None:
    """Waits, not for ever, until the first process has noted that the run begins."""
    deadline = time.monotonic() + _FIRST_SECONDS
    while time.monotonic() < deadline:
        state = folder.read_state(run.name)
        if state is not None and state.status not in ("queued", "interrupted"):
            return
        time.sleep(0.05)


@contextlib.contextmanager
def _lock(run: StudyRun, folder: StudyFolder) -> Iterator[None]:
    """Holds the run, on the first of the processes, which the others cannot do without."""
    with hold_lock(lock_path(folder, run.name)) as held:
        if not held:
            again = StartAgain(f"{run.name}: another job does it right now")
            again.alone = True
            raise again
        yield


def _print_to(log: Path) -> None:
    """Appends all that this process prints from now on to a file."""
    print(f"prints to {log}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for target in (1, 2):
        os.dup2(stream, target)
    os.close(stream)
