"""Does one run of a study in this process, and notes how it stands."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from nakt_dist.config import save_config
from nakt_dist.errors import ConfigurationError, NaktError
from nakt_dist.runtime.files import write_json
from nakt_dist.runtime.preemption import REQUEUE_ALONE_EXIT_CODE, REQUEUE_EXIT_CODE
from nakt_dist.runtime.processes import printable_lines
from nakt_dist.runtime.relaunch import end_with_parent
from nakt_dist.runtime.slurm import this_job
from nakt_dist.runtime.work import hold_lock, is_unfinished
from nakt_dist.studies.folder import RunState, StudyFolder, mark_of
from nakt_dist.studies.plan import StudyRun, settings_sha256
from nakt_dist.studies.standing import note_settings

ELSEWHERE_EXIT_CODE = 74
"""Another process does this run right now."""

CHOICES_NAME = "choices.json"
WRONG_SETTINGS_EXIT_CODE = 2
"""Of a command line or settings that are wrong: another try would say the same."""

_LONGEST_REASON = 400
_PAUSE_SECONDS = 10.0

Main = Callable[[list[str]], int]
"""The program: words of a command line in, exit code out."""

_STOPPED = frozenset({
    REQUEUE_EXIT_CODE, REQUEUE_ALONE_EXIT_CODE, 130,
    *(code for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
      for code in (-number, 128 + number)),
})  # fmt: skip


def prepare(run: StudyRun, folder: StudyFolder, attempt: int, devices: str | None) -> Path:
    """Makes the choices that a run waits for, and writes its settings and that it runs.

    Returns:
        The file with its settings, for ``--config``.

    Raises:
        DatasetError: what it chooses by is absent.
    """
    config, choices = run.decided()
    place = folder.of_run(run.name)
    place.mkdir(parents=True, exist_ok=True)
    before = folder.read_state(run.name)
    # First of all: that it was done before, and the settings with which it begins now, would
    # together say that it is done with these.
    folder.write_state(
        run.name,
        RunState(
            "running",
            attempt=attempt,
            started=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
            job=this_job(),
            devices=devices,
            settings=settings_sha256(config),
            inputs={
                name: mark_of(output, folder.read_state(name))
                for name, output in run.before.items()
            },
            earlier_seconds=0.0
            if before is None
            else before.seconds_before_next(goes_on=run.trial is not None),
        ),
    )
    save_config(config, place)
    note_settings(folder, run.name, config)
    if choices:
        write_json(place / CHOICES_NAME, choices)
    return place / "config.yaml"


def lock_path(folder: StudyFolder, name: str) -> Path:
    """The lock that is held while a run is done, here or elsewhere."""
    return folder.of_run(name) / "lock"


def is_elsewhere(folder: StudyFolder, name: str) -> bool:
    """Says whether another process does this run right now."""
    if not lock_path(folder, name).exists():
        return False
    with hold_lock(lock_path(folder, name)) as held:
        return not held


def is_left_to_others(run: StudyRun) -> bool:
    """Says whether pieces of a run's output are left, although its stage has ended well."""
    output = run.planned.output
    return (
        output is not None
        and "://" not in output
        and is_unfinished(Path(output), run.planned.stage)
    )


def work_of(
    run: StudyRun, folder: StudyFolder, attempt: int, devices: str | None, main: Main
) -> Callable[[], int]:
    """Returns what a child process does for a run: its stage, or the launcher of its processes."""

    def work() -> int:
        folder.of_run(run.name).mkdir(parents=True, exist_ok=True)
        with hold_lock(lock_path(folder, run.name)) as held:
            if not held:
                return ELSEWHERE_EXIT_CODE
            try:
                settings = prepare(run, folder, attempt, devices)
            except NaktError as error:
                print(printable_lines(f"nakt: error: {error}"), file=sys.stderr)
                return WRONG_SETTINGS_EXIT_CODE if isinstance(error, ConfigurationError) else 1
            words = [run.planned.stage, "--config", str(settings)]
            code = main(words) if run.launch.is_alone else _launch(run, words)
            if code == 0 and is_left_to_others(run):
                time.sleep(_PAUSE_SECONDS)  # somebody does the rest, or has the lock of one who did
                return ELSEWHERE_EXIT_CODE
            return code

    return work


def _launch(run: StudyRun, words: list[str]) -> int:
    """Starts the processes of a run and waits for them; they end with this process."""
    processes = str(run.launch.processes)
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", processes]
    if run.launch.accelerate_config is not None:
        launcher = ["accelerate.commands.launch", "--config_file", run.launch.accelerate_config,
                    "--num_processes", processes]  # fmt: skip
    command = [sys.executable, "-m", *launcher, "-m", "nakt_dist", *words]
    # In a session of its own it gets one signal, not two: what it is told by us alone.
    process = subprocess.Popen(command, preexec_fn=end_with_parent, start_new_session=True)
    stopped: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if not stopped:
            process.send_signal(signal.SIGTERM)
        stopped.append(number)

    for each in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(each, pass_on)
    code = process.wait()
    return REQUEUE_EXIT_CODE if stopped and code else code  # launchers end with 1 whatever happened


def status_after(code: int) -> str:
    """Returns the status of a run whose process ended with this code."""
    if code == 0:
        return "done"
    return "interrupted" if code in _STOPPED else "failed"


def reason_of(folder: StudyFolder, name: str, code: int, start: int = 0) -> str | None:
    """Returns in one line why a run ended with this code: the last that it said.

    Args:
        start: where the log of this try begins.
    """
    if code == 0:
        return None
    lines = folder.last_lines(name, 50, start)
    errors = [line for line in lines if "error" in line.lower()]
    told = (errors or lines or ["it said nothing"])[-1].strip()
    ended = f"signal {-code}" if code < 0 else f"exit code {code}"
    return shortened(f"{ended}: {told}")


def shortened(reason: str) -> str:
    """Returns a reason as a table has room for it; the log holds all of it."""
    if len(reason) <= _LONGEST_REASON:
        return reason
    return f"{reason[:_LONGEST_REASON].rsplit(' ', 1)[0]} …"
