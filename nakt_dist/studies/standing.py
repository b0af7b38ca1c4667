"""Which runs of a study are done, from what is on disk alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nakt_dist.config import as_plain
from nakt_dist.errors import DatasetError
from nakt_dist.records.run_record import RECORD_NAME, read_record
from nakt_dist.runtime.files import differing_fields, read_json, write_json
from nakt_dist.studies.folder import RunState, StudyFolder
from nakt_dist.studies.plan import Study, StudyRun, settings_sha256

SETTINGS_NAME = "settings.json"


@dataclass(frozen=True)
class Standing:
    """How a run stands before a study goes on.

    Attributes:
        done: with these settings; nothing of it has to be looked at again.
        changed: where it has ended with other settings: the fields that differ.
    """

    done: bool
    changed: tuple[str, ...] = ()


def stand(study: Study, folder: StudyFolder) -> dict[str, Standing]:
    """Says which runs are done, by name.

    A run is done when its state or its record says so for the same settings, its output is
    there, and all that it needs is done and has not been made again since. Whatever is not sure
    is not done: its stage is started, and finds out at once.
    """
    states = {run.name: folder.read_state(run.name) for run in study.runs}
    found: dict[str, Standing] = {}
    for run in study.runs:
        needs = run.planned.needs
        standing = _stand_alone(run, folder, states[run.name])
        stale = any(
            not found[need].done or _is_newer(states[need], states[run.name]) for need in needs
        )
        if standing.done and stale:
            standing = Standing(False)
        found[run.name] = standing
    return found


def note_settings(folder: StudyFolder, name: str, config: Any) -> None:
    """Keeps the settings with which a run begins, to say later what has changed."""
    write_json(folder.of_run(name) / SETTINGS_NAME, as_plain(config))


def _is_newer(need: RunState | None, run: RunState | None) -> bool:
    return bool(need and run and need.ended and run.started and need.ended > run.started)


def _stand_alone(run: StudyRun, folder: StudyFolder, state: RunState | None) -> Standing:
    output = run.planned.output
    here = output is None or "://" in output or Path(output).exists()
    ended = state is not None and state.status == "done"
    record = None if output is None or "://" in output else Path(output) / RECORD_NAME
    if not here or not (ended or (record is not None and record.exists())):
        return Standing(False)
    try:
        config, _ = run.decided()
    except DatasetError:  # what it chooses by is not there any more
        return Standing(False)
    if ended and state is not None and state.settings == settings_sha256(config):
        return Standing(True)
    before = _settings_before(folder, run.name, record)
    if before is None:
        return Standing(False)
    differences = differing_fields(before, as_plain(config))
    return Standing(not differences, tuple(differences))


def _settings_before(folder: StudyFolder, name: str, record: Path | None) -> dict[str, Any] | None:
    """Returns the settings that a run ended with; None where nothing says so."""
    try:
        if record is not None and record.exists():
            return dict(read_record(record).config)
        return read_json(folder.of_run(name) / SETTINGS_NAME, "settings", 2**24)
    except DatasetError:
        return None
