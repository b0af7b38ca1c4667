"""What lies below folders of runs: each with what may be shown of it."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from nakt_dist.config import CONFIG_NAME
from nakt_dist.config.yaml_files import load_document
from nakt_dist.errors import DatasetError, NaktError
from nakt_dist.records.run_record import RECORD_NAME, RunRecord, read_record
from nakt_dist.runtime.files import read_json, read_regular_file, value_sha256
from nakt_dist.runtime.processes import printable
from nakt_dist.runtime.tracking import METRICS_NAME, whole_lines
from nakt_dist.shards.manifest import (
    MANIFEST_NAME,
    AnyManifest,
    PseudoFindingsManifest,
    PseudoLabelManifest,
    ShardManifest,
    read_taught_manifest,
)
from nakt_dist.studies.folder import Plan, PlannedRun, RunState, StudyFolder

_STAGES = ("train", "evaluate", "attention")
_IDENTITY_NAME = "identity.json"
_MOST_BYTES = 2**24


class Row(NamedTuple):
    """The numbers of a step, by name."""

    step: int
    values: Mapping[str, float]


class StudyRun(NamedTuple):
    """A run's place in a study.

    Attributes:
        plan: of the study, as it is now.
        planned: what the plan says of it; None where it is of an earlier plan.
    """

    plan: Plan
    root: Path
    name: str
    planned: PlannedRun | None


@dataclass(frozen=True)
class FoundRun:
    """A run, finished or not.

    Attributes:
        place: the same from the folder that was given, whose name comes first; where two are
            called alike, with those above it.
        record: of a finished ``train``, ``evaluate`` or ``attention``.
        manifest: of a finished ``pack`` or ``teach``.
    """

    folder: Path
    place: str
    stage: str
    record: RunRecord | None = None
    manifest: AnyManifest | None = None
    study: StudyRun | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.record is not None or self.manifest is not None

    @property
    def name(self) -> str:
        """What people call it: as its study does, else its folder."""
        return printable(self.study.name) if self.study else printable(self.folder.name)

    @cached_property
    def state(self) -> RunState | None:
        """How it stands, where a study started it."""
        if self.study is None:
            return None
        return StudyFolder(self.study.root).read_state(self.study.name)

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Its configuration; none of what has only a manifest, which does not hold it."""
        if self.record is not None:
            return self.record.config
        if self.manifest is not None or self.stage not in _STAGES:
            return {}
        try:
            text = read_regular_file(self.folder / CONFIG_NAME, _MOST_BYTES).decode()
            # As a record holds them: names are texts, and so are dates.
            found = json.loads(json.dumps(load_document(text), default=str, skipkeys=True))
        except (OSError, ValueError, RecursionError, NaktError, yaml.YAMLError):
            return {}  # that of a run which is about to write it
        return found if isinstance(found, Mapping) else {}

    @cached_property
    def lineage(self) -> Mapping[str, Any]:
        """Of the network that it trained or tested; empty where nobody says."""
        if self.record is not None:
            found = self.record.details.get("lineage")
        else:
            found = self._identity.get("lineage")
        return found if isinstance(found, Mapping) else {}

    @cached_property
    def _identity(self) -> Mapping[str, Any]:
        try:
            return read_json(self.folder / _IDENTITY_NAME, "identity", _MOST_BYTES)
        except DatasetError:
            return {}

    @property
    def known_by(self) -> str:
        """A fingerprint that is the same wherever the run is read, and before and after its end."""
        if self.manifest is not None:
            return self.manifest.fingerprint
        inputs: Mapping[str, Any] = self._identity
        if not inputs and self.record is not None:
            inputs = {**self.record.inputs, "settings": self.record.config}
        output = self.settings.get("output") or self.place
        return value_sha256([self.stage, self.folder.name, str(output), inputs])

    def history(self) -> list[Row]:
        """Returns its numbers, each step once and in order.

        What a kill left half written is not there yet, and neither is the last step of a run that
        goes on: more may be said of it.

        Raises:
            DatasetError: the file cannot be read.
        """
        rows: dict[int, dict[str, float]] = {}
        for _, line in _lines_of(self.folder / METRICS_NAME):
            numbers = {name: value for name, value in line.items() if name and is_number(value)}
            rows.setdefault(numbers.pop("step"), {}).update(numbers)
        steps = sorted(rows)
        return [Row(step, rows[step]) for step in (steps if self.ended else steps[:-1])]

    @property
    def damage(self) -> str | None:
        """Why not all of its numbers can be shown; None where they can.

        Raises:
            DatasetError: the file cannot be read.
        """
        path = self.folder / METRICS_NAME
        if not path.is_file():
            return f"{path}: is no regular file, and not shown" if path.exists() else None
        whole = len(_lines_of(path))
        if path.read_bytes().count(b"\n") <= whole:
            return None
        return f"{path}: line {whole + 1} is damaged; what follows it is not shown"

    def signature(self) -> str:
        """Returns what changes when there is something new to show.

        Of records and manifests their contents as they were read: by now there may be others.
        """
        written = None
        with contextlib.suppress(OSError):
            facts = (self.folder / METRICS_NAME).stat()
            written = [facts.st_size, facts.st_mtime_ns]
        record = None if self.record is None else asdict(self.record)
        manifest = None if self.manifest is None else self.manifest.fingerprint
        state = self.state and [self.state.status, self.state.attempt]
        return value_sha256([written, record, manifest, state])


def find_runs(folders: Sequence[str], left_out: list[str]) -> Iterator[FoundRun]:
    """Finds every run below some folders, at any depth, by place; each once.

    Hidden folders and links to folders are not entered.

    Args:
        left_out: what is damaged is named here, and passed over.

    Raises:
        DatasetError: a folder does not exist.
    """
    seen: set[Path] = set()
    studies: dict[Path, Plan | None] = {}
    for folder in folders:
        if not Path(folder).is_dir():
            raise DatasetError(f"{folder}: no such folder; expected one that holds runs")
    bases = list(dict.fromkeys(Path(folder).resolve() for folder in folders))
    for base in bases:
        called = _told_apart(base, bases)
        for folder, subfolders, names in os.walk(base):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            path = Path(folder)
            if path in seen or not {METRICS_NAME, RECORD_NAME, MANIFEST_NAME} & set(names):
                continue
            seen.add(path)
            place = printable(str(called / path.relative_to(base)))
            try:
                found = _read(path, place, set(names), _study_of(path, studies))
            except DatasetError as error:
                left_out.append(printable(str(error)))
                continue
            if found is not None:
                yield found


def _told_apart(base: Path, bases: Sequence[Path]) -> Path:
    """Returns a folder's name, behind as many of those above it as tell it from the others."""
    parts = base.parts[1:]
    for count in range(1, len(parts)):
        tail = parts[-count:]
        if sum(other.parts[-count:] == tail for other in bases) == 1:
            return Path(*tail)
    return Path(*parts)


def _read(path: Path, place: str, names: set[str], study: StudyRun | None) -> FoundRun | None:
    if RECORD_NAME in names:
        record = read_record(path / RECORD_NAME)
        for name in ("config", "inputs", "counts", "metrics", "details"):
            if not isinstance(getattr(record, name), Mapping):
                raise DatasetError(f"{path / RECORD_NAME}: '{name}' is no object, as it should be")
        if record.stage in _STAGES:
            return FoundRun(path, place, record.stage, record, study=study)
    if MANIFEST_NAME in names:
        found = read_json(path / MANIFEST_NAME, "manifest").get("format")
        if found in (PseudoLabelManifest.FORMAT, PseudoFindingsManifest.FORMAT):
            pseudo = read_taught_manifest(path)
            return FoundRun(path, place, "teach", manifest=pseudo, study=study)
        if found == ShardManifest.FORMAT:
            return FoundRun(path, place, "pack", manifest=ShardManifest.read(path), study=study)
    if METRICS_NAME in names:
        return FoundRun(path, place, "train", study=study)
    return None


def _study_of(folder: Path, known: dict[Path, Plan | None]) -> StudyRun | None:
    """Finds the study in whose root a run lies."""
    for root in folder.parents:
        if root not in known:
            study = StudyFolder(root)
            try:
                known[root] = study.read_plan() if study.plan_path.is_file() else None
            except DatasetError:  # about to be written, or damaged: the run is shown all the same
                known[root] = None
        plan = known[root]
        if plan is not None:
            name = folder.relative_to(root).as_posix()
            planned = next((run for run in plan.runs if run.name == name), None)
            return StudyRun(plan, root, name, planned)
    return None


def _lines_of(path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        return whole_lines(path)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None


def is_number(value: Any) -> bool:
    """Says whether a value can be drawn or compared as a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
