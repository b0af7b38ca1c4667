"""``nakt doctor``: what a launch resolves to and what is wrong with it, before an hour is spent.

It is started as the stage would be: ``accelerate launch … -m nakt_dist doctor train --config
FILE``. It trains nothing and leaves nothing behind.
"""

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from nakt_dist.config import DoctorConfig, as_plain
from nakt_dist.errors import NaktError
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.barrier import Arrivals, Barrier
from nakt_dist.runtime.files import value_sha256
from nakt_dist.runtime.machine import free_bytes, is_locked, locks_work, look_around, nearest_folder
from nakt_dist.runtime.outputs import check_output, left_by
from nakt_dist.runtime.processes import process_place
from nakt_dist.runtime.shared_job import Job
from nakt_dist.runtime.work import LOCK_NAME, in_use
from nakt_dist.stages.doctor_report import Diagnosis, Findings, diagnose, print_diagnosis
from nakt_dist.stages.opening import NotOpened, Opening, in_words
from nakt_dist.stages.study import check_processes

_DISK_MARGIN = 1.1
"""What a stage writes is estimated."""


def run(config: DoctorConfig) -> RunRecord:
    """Examines this process, gathers what the others of the launch found, and prints it.

    Raises:
        NaktError: something is wrong; all of it has been printed. Or this process does not
            reach the first one.
    """
    stopwatch = Stopwatch()
    place = process_place()
    met = _examine_all(config)
    diagnosis = Diagnosis({}, (), ())
    if place.is_main:
        diagnosis = diagnose(config.stage, met)
        print_diagnosis(diagnosis)
    if diagnosis.problems:
        raise NaktError(
            f"doctor found {len(diagnosis.problems)} problem"
            f"{'' if len(diagnosis.problems) == 1 else 's'}, listed above"
        )
    return RunRecord(
        stage="doctor",
        name=config.stage or "machine",
        config=as_plain(config),
        counts={"problems": 0, "notes": len(diagnosis.notes), "processes": place.world_size},
        details={"facts": diagnosis.facts},
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )


def plan(config: DoctorConfig, opening: Opening) -> None:
    """Opens nothing: it is opening that the doctor is for."""


def _examine_all(config: DoctorConfig) -> Arrivals:
    """Examines this process, and what the others of the launch found, if they meet."""
    place, found = process_place(), None
    try:
        barrier = Barrier(config.wait_seconds)  # an examination may take long
        found = examine(config)
        return barrier.gather(json.dumps(found.as_plain()))
    except NaktError as error:
        if not place.is_main:
            raise
        found = found or examine(config)
        found.add_problem(f"processes: {error}")
        return Arrivals([json.dumps(found.as_plain())] + [None] * (place.world_size - 1), {}, 0.0)


def examine(config: DoctorConfig) -> Findings:
    """Returns what this process finds."""
    place = process_place()
    found = Findings(place.rank, look_around("cpu", None), versions=package_versions())
    stage_config = _read_settings(config, found)
    with found.part("device"):
        device, threads = (getattr(stage_config, each, None) for each in ("device", "threads"))
        found.machine = look_around(device or "auto", threads)
    if stage_config is not None:
        with found.part("processes"):
            check_processes(stage_config, place.world_size)
        found.inputs["settings"] = value_sha256(as_plain(stage_config))
        _open(str(config.stage), stage_config, found)
        _look_at_output(str(config.stage), stage_config, found)
    return found


def _read_settings(config: DoctorConfig, found: Findings) -> Any:
    """Returns the stage's configuration; None without a stage, or where it is wrong."""
    from nakt_dist.cli import parse_config

    if config.stage is None:
        return None
    with found.part("settings"):
        return parse_config(config.stage, config.settings)
    return None


def _open(stage: str, config: Any, found: Findings) -> None:
    """Opens what the stage would open, and looks whether its job can begin."""
    from nakt_dist.cli import load_stage

    with tempfile.TemporaryDirectory(prefix="nakt-doctor-") as cache:
        found.cache = cache
        with contextlib.suppress(NotOpened):
            job = load_stage(stage).plan(config, found)
            if isinstance(job, Job):
                with found.part("output"):
                    found.note(*job.check())


def _look_at_output(stage: str, config: Any, found: Findings) -> None:
    """Looks at the folder that the stage would write, and at the disk below it."""
    output = getattr(config, "output", None)
    if output is None:
        return
    folder = Path(output)
    nearest = nearest_folder(folder)
    found.inputs["output"] = f"in {nearest}"
    with found.part("output"):
        found.facts["output"] = f"{folder}: {_state(stage, folder)}"
        check_output(folder, stage)
        if is_locked(folder / LOCK_NAME):
            raise in_use(folder, stage)
        works = locks_work(nearest)
        found.facts["file locks"] = "work" if works else "do not work"
        if not works:
            found.note(
                f"locks do not work at {nearest}: two jobs that write one output would not "
                "notice each other; start one at a time"
            )
    left = free_bytes(nearest)
    needs = f", {stage} writes about {in_words(found.disk)}" if found.disk else ""
    found.facts["disk"] = f"{in_words(left)} left at {nearest}{needs}"
    if found.disk * _DISK_MARGIN > left:
        found.add_problem(
            f"disk: {stage} writes about {in_words(found.disk)}, and {in_words(left)} are left at "
            f"{nearest}; a tenth more than it writes should be. Make room, or choose another "
            "--output"
        )


def _state(stage: str, folder: Path) -> str:
    """Says how far the work in an output folder is."""
    from nakt_dist.cli import load_stage

    if not folder.is_dir() or not any(folder.iterdir()):
        return "new"
    job: type[Job] | None = getattr(load_stage(stage), "JOB", None)
    if job is not None and (folder / job.written_last).is_file():
        return "finished; the same settings do nothing more"
    if left_by(folder, stage) is None:
        return "holds other files"
    if job is None:
        return "written before; the stage does all of it again"
    return "unfinished; the same settings go on with it"
