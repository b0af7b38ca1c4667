"""What of a study was submitted to SLURM before, and is still in its queue."""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from nakt_dist.errors import DatasetError, NaktError
from nakt_dist.studies.folder import StudyFolder
from nakt_dist.studies.plan import Study
from nakt_dist.studies.queue import read_queue
from nakt_dist.studies.standing import Standing

JOBS_NAME = "jobs.jsonl"
_NEVER = "DependencyNeverSatisfied"
"""SLURM's reason why a job waits in vain: what it needs has failed, or was cancelled."""


def queued_runs(
    study: Study, folder: StudyFolder, standings: Mapping[str, Standing]
) -> dict[str, str]:
    """Returns the jobs that are to do runs of a study, such as ``123_4``, by the run's name.

    Raises:
        NaktError: jobs were submitted, and SLURM does not say whether they are in the queue; or
            nobody can say whether any were.
    """
    submitted = read_jobs(folder)
    queue = read_queue() if submitted else {}
    if queue is None:
        if shutil.which("squeue") is None:
            raise NaktError(
                "jobs of this study were submitted before, but squeue is not on this machine, so "
                "that nothing says whether they still are. Submit on a machine of the cluster"
            )
        raise NaktError(
            "squeue does not answer as expected, so that nothing says which jobs of this study are "
            "queued; try again when it does. See: squeue --me --noheader"
        )
    known = {run.name for run in study.runs if not standings[run.name].done}
    found: dict[str, str] = {}
    for line in submitted:
        for task, names in line["tasks"].items():
            job = f"{line['job']}_{task}"
            if _NEVER in queue.get(job, _NEVER):
                continue
            for name in known & set(names):
                state = folder.read_state(name)
                failed = state is not None and state.status == "failed" and state.job == job
                if not failed:  # it may do other runs now
                    found[name] = job
    return found


def read_jobs(folder: StudyFolder) -> list[dict[str, Any]]:
    """Returns the arrays that were submitted, oldest first; what is damaged is left out.

    Raises:
        DatasetError: there is a list of them that cannot be read: not to know of a job would be to
            submit its runs twice.
    """
    path = folder.folder / JOBS_NAME
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None
    found = []
    for line in lines:
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            value = json.loads(line)
            tasks = {task: list(map(str, names)) for task, names in value["tasks"].items()}
            found.append({**value, "job": str(value["job"]), "tasks": tasks})
    return found


def note_jobs(folder: StudyFolder, told: Mapping[str, Any]) -> None:
    """Appends a line of an array, also behind one that was cut short."""
    line = json.dumps(told, ensure_ascii=False).encode() + b"\n"
    with (folder.folder / JOBS_NAME).open("a+b") as stream:
        if stream.tell():
            stream.seek(-1, 2)
            line = line if stream.read() == b"\n" else b"\n" + line
        stream.write(line)
