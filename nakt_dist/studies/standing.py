"""Which runs of a study are done, from what is on disk alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nakt_dist.config import as_plain
from nakt_dist.errors import DatasetError, NaktError
from nakt_dist.records.run_record import RECORD_NAME, read_record
from nakt_dist.runtime.files import differing_fields, read_json, with_new_nulls, write_json
from nakt_dist.runtime.work import is_unfinished
from nakt_dist.studies.folder import RunState, StudyFolder, left_in, mark_of
from nakt_dist.studies.paths import absolute
from nakt_dist.studies.plan import Study, StudyRun, settings_sha256

SETTINGS_NAME = "settings.json"


@dataclass(frozen=True)
class Standing:
    """How a run stands before a study goes on.

    Attributes:
        done: with these settings; nothing of it has to be looked at again.
        changed: where it has ended with other settings: the fields that differ.
        reached: it has come to where it was to come; a trial may yet go on from there.
    """

    done: bool
    changed: tuple[str, ...] = ()
    reached: bool = False


def stand(
    study: Study, folder: StudyFolder, names: Iterable[str] | None = None
) -> dict[str, Standing]:
    """Says which runs are done, by name.

    A run is done when its state, or its record where it has no state, says so for the same
    settings, its output is there as it was left, and all that it needs or looks for is done and is
    what it was when the run began. Whatever is not sure is not done: its stage is started, and
    finds out at once. So of a run that has begun and not ended: its record may be of before, and
    of what it needed then.

    Args:
        names: looks at these alone, and at what they wait for; None looks at all.
    """
    runs = study.runs if names is None else _upstream(study, names)
    states = {run.name: folder.read_state(run.name) for run in runs}
    found: dict[str, Standing] = {}
    marks: dict[str, str] = {}
    over: dict[int, bool] = {}
    trials = {run.name for run in runs if run.trial is not None}
    for run in runs:
        # Of trials that it chooses among some may fail: the choice says whether all have ended.
        before = [
            each for each in (*run.planned.needs, *run.planned.after)
            if not (run.choices and each in trials) or found[each].done or found[each].changed
        ]  # fmt: skip
        state = states[run.name]
        standing = _stand_alone(run, folder, state)
        seen = state.inputs if state is not None else {}
        stale = any(not found[each].done or seen.get(each, marks[each]) != marks[each]
                    for each in before)  # fmt: skip
        if standing.done and stale:
            standing = Standing(False)
        if run.trial is not None and standing.done:
            search = run.trial.search
            if search.step not in over:
                over[search.step] = search.is_over
            standing = Standing(over[search.step], reached=True)
        elif run.trial is not None and all(map(_is_length, standing.changed)):
            standing = Standing(False)  # it was going on when it was killed
        found[run.name] = standing
        marks[run.name] = mark_of(run.planned.output, state)
    return found


def _upstream(study: Study, names: Iterable[str]) -> list[StudyRun]:
    """Returns the runs of these names and all that they wait for, in the order of the study."""
    wanted = set(names)
    for run in reversed(study.runs):
        if run.name in wanted:
            wanted.update(run.planned.needs, run.planned.after)
    return [run for run in study.runs if run.name in wanted]


def _is_length(difference: str) -> bool:
    return difference.startswith("recipe.epochs:")


def note_settings(folder: StudyFolder, name: str, config: Any) -> None:
    """Keeps the settings with which a run begins, to say later what has changed."""
    write_json(folder.of_run(name) / SETTINGS_NAME, as_plain(config))


def _record_of(run: StudyRun) -> Path | None:
    """Returns where a run's record is or would be; None of those that leave none here."""
    output = run.planned.output
    return None if output is None or "://" in output else Path(output) / RECORD_NAME


def _is_whole(run: StudyRun, state: RunState | None) -> bool:
    """Says whether an output is there with what its run left, and nothing of it to be done."""
    output = run.planned.output
    if output is None or "://" in output:
        return True
    if is_unfinished(Path(output), run.planned.stage):
        return False
    try:
        return any(Path(output).iterdir()) and set(state.left if state else ()) <= left_in(output)
    except OSError:
        return False


def _stand_alone(run: StudyRun, folder: StudyFolder, state: RunState | None) -> Standing:
    ended = state is not None and state.status == "done"
    record = _record_of(run)
    if not _is_whole(run, state) or not (ended or (record and record.exists())):
        return Standing(False)
    try:
        config, _ = run.decided()
    except NaktError:  # what it chooses by is not there any more
        return Standing(False)
    if ended and state is not None and state.settings == settings_sha256(config):
        return Standing(True)
    now = as_plain(config)
    noted = _noted_settings(folder, run.name) if ended else None
    before = noted or _recorded_settings(record)
    if before is None:
        return Standing(False)
    before = with_new_nulls(_spelt_as(before, now), now)
    differences = differing_fields(before, now)
    # A record tells what the stage made of settings that are left open.
    changed = differences if noted else differing_fields(_left_open(before, now), now)
    return Standing(not differences and (ended or state is None), tuple(changed))


def _left_open(before: Any, now: Any) -> Any:
    """Returns settings with null wherever they are null now."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return {name: _left_open(value, now.get(name, value)) for name, value in before.items()}
    return None if now is None else before


def _spelt_as(before: Any, now: Any) -> Any:
    """Returns settings with those paths as they are written now that mean the same place."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return {name: _spelt_as(value, now.get(name)) for name, value in before.items()}
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [_spelt_as(*pair) for pair in zip(before, now, strict=True)]
    both = isinstance(before, str) and isinstance(now, str) and "\0" not in before + now
    return now if both and absolute(before) == absolute(now) else before


def _noted_settings(folder: StudyFolder, name: str) -> dict[str, Any] | None:
    """Returns the settings with which a run began last; None where nothing says so."""
    try:
        return read_json(folder.of_run(name) / SETTINGS_NAME, "settings", 2**24)
    except DatasetError:
        return None


def _recorded_settings(record: Path | None) -> dict[str, Any] | None:
    """Returns the settings in a record; None where nothing can be read."""
    try:
        return None if record is None else dict(read_record(record).config)
    except DatasetError:
        return None
