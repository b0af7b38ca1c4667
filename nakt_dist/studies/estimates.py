"""How long runs may take, from runs like them that are done."""

import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nakt_dist.config import as_plain
from nakt_dist.errors import DatasetError
from nakt_dist.records.run_record import RECORD_NAME, read_record
from nakt_dist.studies.folder import StudyFolder
from nakt_dist.studies.plan import Study, StudyRun

_MOST_RECORDS = 10_000


@dataclass(frozen=True)
class _Known:
    """A run that is done: its stage and settings, and the seconds that it took."""

    stage: str
    config: Mapping[str, Any]
    seconds: float


def with_estimates(study: Study, folder: StudyFolder, records: Sequence[str]) -> Study:
    """Returns the study with seconds for each run that something is known of.

    The ``hours`` of a step come first. Else a run takes as long as the mean of the runs of the
    same stage, network, dataset and number of images; of trainings for each epoch or step. Where
    there is none, as those of the same stage and network.

    Args:
        records: more folders that hold records, at any depth.
    """
    rates: dict[Hashable, list[float]] = {}
    for known in (*_of_study(study, folder), *_of_folders(records)):
        for key in _kinds(known.stage, known.config):
            rates.setdefault(key, []).append(known.seconds / _amount(known.config))
    return replace(study, runs=tuple(_with_estimate(run, rates) for run in study.runs))


def _with_estimate(run: StudyRun, rates: Mapping[Hashable, list[float]]) -> StudyRun:
    seconds = None if run.launch.hours is None else run.launch.hours * 3600
    if seconds is None and rates:
        plain = as_plain(run.config)
        for key in _kinds(run.planned.stage, plain):
            if key in rates:
                seconds = _amount(plain) * sum(rates[key]) / len(rates[key])
                break
    return replace(run, planned=replace(run.planned, estimate_seconds=seconds))


def _kinds(stage: str, config: Mapping[str, Any]) -> tuple[Hashable, Hashable]:
    """Returns what runs have in common that are alike, and that are alike roughly."""
    model = config.get("model") or {}
    network = (stage, model.get("name"), config.get("init") is not None and not model)
    data = config.get("data") or config
    sources = data if isinstance(data, list) else [data]
    closely = (
        repr([(each.get("dataset"), each.get("count"), each.get("splits")) for each in sources]),
        config.get("teacher") is not None, repr(model.get("options")),
    )  # fmt: skip
    return (*network, *closely), network


def _amount(config: Mapping[str, Any]) -> float:
    recipe = config.get("recipe") or {}
    return float(recipe.get("steps") or recipe.get("epochs") or 1)


def _of_study(study: Study, folder: StudyFolder) -> Iterator[_Known]:
    for run in study.runs:
        state = folder.read_state(run.name)
        if state is not None and state.status == "done" and state.seconds:
            yield _Known(run.planned.stage, as_plain(run.config), state.seconds)


def _of_folders(folders: Sequence[str]) -> Iterator[_Known]:
    count = 0
    for top in folders:
        if not Path(top).is_dir():
            raise DatasetError(f"records: {top} is no folder; expected one with records of runs")
        for folder, _, names in os.walk(top):
            if RECORD_NAME in names and count < _MOST_RECORDS:
                count += 1
                yield from _of_record(Path(folder) / RECORD_NAME)


def _of_record(path: Path) -> Iterator[_Known]:
    """Yields what a record tells; nothing where it is damaged, for it is an estimate."""
    try:
        record = read_record(path)
    except DatasetError:
        return
    share = 1.0
    if record.stage == "train":  # of a run that went on, the record tells the last part's seconds
        now, total = record.metrics.get("steps_now"), record.details.get("total_steps")
        if not (isinstance(now, int) and isinstance(total, int) and 0 < now <= total):
            return
        share = now / total
    if isinstance(record.seconds, int | float) and record.seconds > 0:
        yield _Known(record.stage, record.config, record.seconds / share)
