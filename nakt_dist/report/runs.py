"""Collects every run record and every set of pseudo-labels below some folders."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import compress
from pathlib import Path
from typing import Any, TypeVar

from nakt_dist.errors import DatasetError
from nakt_dist.records.exposure import join
from nakt_dist.records.fields import ODD_VALUES, printable, read_field
from nakt_dist.records.lineage import Lineage, Lineages
from nakt_dist.records.lineage_reading import is_classification, lineages_in, read_lineage
from nakt_dist.records.pseudo_sets import PseudoSet, read_pseudo_set
from nakt_dist.records.run_record import RECORD_NAME, read_record
from nakt_dist.report.evaluations import (
    EXPORTED_FROM,
    ClassifierRun,
    Evaluation,
    Found,
    FoundRecord,
    SegmentationRun,
    is_classifier_test,
)
from nakt_dist.report.studies import Study, make_studies
from nakt_dist.report.trained import settings_of
from nakt_dist.runtime.files import file_sha256, read_json, value_sha256
from nakt_dist.shards.manifest import MANIFEST_NAME, PseudoLabelManifest

_NUMBER = (int, float)
Item = TypeVar("Item")
Run = TypeVar("Run", bound=Evaluation)
Place = TypeVar("Place", bound=Found)


@dataclass(frozen=True)
class LeftOut:
    """Something found that is not in the tables: where it lies, and why."""

    place: str
    reason: str


def read_each(
    found: Iterable[Place], read: Callable[[Place], Item], left_out: list[LeftOut]
) -> list[Item]:
    """Reads something of each thing found; what is wrong with one is listed instead.

    Args:
        read: raises a DatasetError that says what is wrong, or stumbles over odd values.
        left_out: what cannot be used is added here, without the machine's paths.
    """
    items = []
    for each in found:
        try:
            items.append(read(each))
        except DatasetError as error:
            reason = str(error).replace(f"{each.folder}/", "")
            left_out.append(LeftOut(each.place, printable(reason)))
        except ODD_VALUES as error:
            shown = printable(f"{type(error).__name__}: {error}")[:120]
            left_out.append(LeftOut(each.place, f"damaged: {shown}. Run its stage again"))
    return items


@dataclass(frozen=True)
class Collection:
    """All that was found, each thing once and by place where nothing else is said.

    Attributes:
        evaluations: of segmentation, by role, transferal dataset, exclusion and network.
        trainings: records of ``nakt train`` for segmentation.
        pseudo_sets: by name.
        left_out: damaged or repeated records and damaged pseudo-labels.
        learnt: lineages of networks, by SHA-256 of their weights.
    """

    evaluations: tuple[SegmentationRun, ...]
    trainings: tuple[FoundRecord, ...]
    records: tuple[FoundRecord, ...]
    pseudo_sets: tuple[PseudoSet, ...]
    left_out: tuple[LeftOut, ...]
    classified: tuple[ClassifierRun, ...] = ()
    classifier_trainings: tuple[FoundRecord, ...] = ()
    attention: tuple[FoundRecord, ...] = ()
    learnt: Lineages = field(default_factory=dict)

    @cached_property
    def studies(self) -> tuple[list[Study], list[LeftOut]]:
        """The evaluations of classifiers by test set, setting and method; and what repeats one."""
        settings = settings_of(self.classifier_trainings)
        studies, repeated = make_studies(self.classified, settings)
        return studies, [LeftOut(place, reason) for place, reason in repeated]


def collect(folders: Sequence[str | Path], needs_tests: bool = True) -> Collection:
    """Reads what lies below some folders, at any depth.

    Hidden folders and links to folders are not entered. What cannot be read is listed with
    its reason and the rest goes on.

    Args:
        needs_tests: whether there must be an evaluation.

    Raises:
        DatasetError: a folder does not exist, or there is no usable evaluation below them.
    """
    left_out: list[LeftOut] = []
    places = _find_files(folders, left_out)
    records = _without_copies(read_each(places[RECORD_NAME], _read_found, left_out), left_out)
    pseudo_sets = _read_pseudo_sets(places[MANIFEST_NAME], left_out)
    tests = [found for found in records if found.record.stage == "evaluate"]
    classifiers = [found for found in tests if is_classifier_test(found.record)]
    segmenters = [found for found in tests if not is_classifier_test(found.record)]
    lineages = list(lineages_in(found.record for found in records))
    teachers = _teachers((lineage for _, lineage in lineages), pseudo_sets)
    teachers |= {each for forms in map(_files, tests) if forms & teachers for each in forms}
    learnt = {weights: lineage for weights, lineage in reversed(lineages) if weights}
    read_segmenter = partial(SegmentationRun.read, teachers=teachers, known=learnt)
    segmented = _read_tests(segmenters, read_segmenter, left_out)
    evaluations = _named_by_network(_once_in_all_forms(segmented, left_out))
    classified = _read_tests(classifiers, partial(ClassifierRun.read, known=learnt), left_out)
    classified = _without_validations(_once_in_all_forms(classified, left_out), left_out)
    if needs_tests and not evaluations and not classified:
        raise DatasetError(_nothing_found(folders, left_out))
    trainings = [found for found in records if found.record.stage == "train"]
    of_classifiers = [is_classification(found.record.details["lineage"]) for found in trainings]
    return Collection(
        evaluations=tuple(sorted(evaluations, key=lambda run: run.order)),
        trainings=tuple(compress(trainings, (not each for each in of_classifiers))),
        records=tuple(records),
        pseudo_sets=tuple(pseudo_sets),
        left_out=tuple(left_out),
        classified=tuple(classified),
        classifier_trainings=tuple(compress(trainings, of_classifiers)),
        attention=tuple(found for found in records if found.record.stage == "attention"),
        learnt=learnt,
    )


def _nothing_found(folders: Sequence[str | Path], left_out: Sequence[LeftOut]) -> str:
    where = ", ".join(str(folder) for folder in folders)
    found = "; ".join(f"{each.place}: {each.reason}" for each in left_out[:5])
    return (
        f"{where}: found no {RECORD_NAME} of a finished evaluation, expected at least one"
        f"{f' (left out: {found})' if found else ''}. Run nakt evaluate, and give the folders "
        "that hold its outputs"
    )


def _find_files(folders: Sequence[str | Path], left_out: list[LeftOut]) -> dict[str, list[Found]]:
    """Returns where every record and manifest lies, by file name, each file once."""
    found: dict[str, dict[Path, str]] = {RECORD_NAME: {}, MANIFEST_NAME: {}}
    for root in map(Path, folders):
        if not root.is_dir():
            raise DatasetError(f"{root}: no such folder; expected one that holds run records")
        base = root.resolve()

        def unreadable(error: OSError, base: Path = base) -> None:
            left_out.append(LeftOut(_place(Path(error.filename), base), f"{error.strerror}"))

        for folder, subfolders, names in os.walk(base, onerror=unreadable):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in found.keys() & set(names):
                found[name].setdefault(Path(folder), _place(Path(folder), base))
    return {
        name: [Found(*each) for each in sorted((place, path) for path, place in paths.items())]
        for name, paths in found.items()
    }


def _place(folder: Path, base: Path) -> str:
    """Names a folder without saying where on the machine the user's folder lies."""
    return printable(str(Path(base.name) / folder.relative_to(base)))


def _read_found(found: Found) -> FoundRecord:
    path = found.folder / RECORD_NAME
    record = read_record(path)
    for name in ("stage", "name"):
        read_field(vars(record), name, str)
    for name in ("config", "inputs", "counts", "metrics", "details", "versions"):
        read_field(vars(record), name, Mapping)
    read_field(vars(record), "seconds", _NUMBER)
    value_sha256(vars(record))  # finds what is nested too deeply to be written again
    if record.stage == "train":
        read_lineage(read_field(record.details, "lineage", Mapping))
    return FoundRecord(found.place, found.folder, record, file_sha256(path))


def _without_copies(records: Sequence[FoundRecord], left_out: list[LeftOut]) -> list[FoundRecord]:
    """Counts copies of one file once."""
    first: dict[str, FoundRecord] = {}
    for found in records:
        original = first.setdefault(found.sha256, found)
        if original is not found:
            left_out.append(LeftOut(found.place, f"a copy of {original.place}, which is counted"))
    return list(first.values())


def _read_tests(
    tests: Sequence[FoundRecord], read: Callable[[FoundRecord], Run], left_out: list[LeftOut]
) -> list[Run]:
    """Reads evaluations; one network tested twice on the same images counts once.

    What either record says of test images that were met counts for both.
    """
    runs: dict[str, Run] = {}

    def read_once(found: FoundRecord) -> None:
        run = read(found)
        same = value_sha256(found.record.inputs)
        first = runs.setdefault(same, run)
        if first is not run:
            # Weights that left their run's folder lose what it knows of pictures they have met.
            runs[same] = replace(first, exposure=join(first.exposure, run.exposure))
            raise DatasetError(
                f"the same network on the same images as {first.place}, which is counted"
            )

    read_each(tests, read_once, left_out)
    return list(runs.values())


def _files(found: FoundRecord) -> set[str]:
    """Returns the SHA-256 of the file that was tested, and of the weights it is a form of."""
    told = (found.record.inputs.get("weights_sha256"), found.record.details.get(EXPORTED_FROM))
    return {each for each in told if isinstance(each, str)}


def _once_in_all_forms(runs: Sequence[Run], left_out: list[LeftOut]) -> list[Run]:
    """Counts a network once on each test set, where its ONNX file was tested beside its weights."""
    originals = {(run.weights_sha256, run.tested_on): run for run in runs if not run.is_onnx}
    stands_for: dict[str, set[str]] = {}
    kept = []
    for run in runs:
        first = originals.get((run.original, run.tested_on))
        if first is None or not run.is_onnx:
            kept.append(run)
            continue
        stands_for.setdefault(first.weights_sha256, set()).add(run.weights_sha256)
        reason = (
            f"the ONNX form of {first.place}, which is counted: {run.METRIC} {run.mean:.2f} % "
            f"here, {first.mean:.2f} % there"
        )
        left_out.append(LeftOut(run.place, reason))
    return [
        replace(run, forms=run.forms | stands_for.get(run.weights_sha256, set())) for run in kept
    ]


def _without_validations(
    runs: Sequence[ClassifierRun], left_out: list[LeftOut]
) -> list[ClassifierRun]:
    """Leaves out evaluations that the thresholds of others were chosen on: they test nothing."""
    chosen: dict[tuple[Any, ...], ClassifierRun] = {}
    for run in runs:
        if run.result.operating_points is not None:
            told = run.result.operating_points.validation
            chosen[run.weights_sha256, f"{told.get('dataset_fingerprint')}", _splits(told)] = run
    tests = []
    for run in runs:
        served = chosen.get((run.weights_sha256, run.tested_on.fingerprint, run.tested_on.splits))
        if served is None or run.result.operating_points is not None:
            tests.append(run)
        else:
            words = f"no test: the thresholds of {served.place} were chosen on it"
            left_out.append(LeftOut(run.place, words))
    return tests


def _splits(told: Mapping[str, Any]) -> tuple[str, ...] | None:
    splits = told.get("splits")
    return tuple(sorted(map(str, splits))) if isinstance(splits, list) else None


def _named_by_network(runs: Sequence[SegmentationRun]) -> list[SegmentationRun]:
    """Calls runs by their network, so that one tested on two sets keeps one name.

    Where different weights, or different scorings of one test set, would share the name, the
    evaluations keep their own.
    """
    alike: dict[str, list[SegmentationRun]] = {}
    for run in runs:
        alike.setdefault(run.network_given_name, []).append(run)

    def is_clear(name: str) -> bool:
        weights = {run.weights_sha256 for run in alike[name]}
        tested = {run.tested_on.label for run in alike[name]}
        return bool(name) and len(weights) == 1 and len(tested) == len(alike[name])

    return [
        replace(run, name=run.network_given_name) if is_clear(run.network_given_name) else run
        for run in runs
    ]


def _read_pseudo_sets(places: Iterable[Found], left_out: list[LeftOut]) -> list[PseudoSet]:
    def read(found: Found) -> PseudoSet | None:
        format_name = read_json(found.folder / MANIFEST_NAME, "manifest").get("format")
        return read_pseudo_set(found.folder) if format_name == PseudoLabelManifest.FORMAT else None

    found = [each for each in read_each(places, read, left_out) if each is not None]
    once = {each.manifest.fingerprint: each for each in reversed(found)}
    return sorted(once.values(), key=lambda each: (each.label, each.name))


def _teachers(lineages: Iterable[Lineage], pseudo_sets: Sequence[PseudoSet]) -> set[str]:
    """Returns the SHA-256 of every network that wrote pseudo masks or was followed."""
    named = {
        teacher.weights_sha256
        for lineage in lineages
        for teacher in lineage.teachers
        if teacher.weights_sha256 is not None
    }
    written = {
        str(teacher[name])
        for each in pseudo_sets
        for teacher in each.manifest.teachers
        for name in ("weights_sha256", EXPORTED_FROM)
        if teacher.get(name)
    }
    return named | written
