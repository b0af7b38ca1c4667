"""From the folder of a study to what is committed of it; unlike things are refused together."""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.comparing import machine
from benchmarks.reproduction.records import DICE, Curve, Images, Records, Run, Values
from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.auroc import mean_auroc
from nakt_dist.records.lineage import Lineage
from nakt_dist.records.lineage_reading import parse_rule
from nakt_dist.report import paper
from nakt_dist.report.auroc_curves import read_auroc_curve
from nakt_dist.report.evaluations import ClassifierRun, Evaluation, FoundRecord, SegmentationRun
from nakt_dist.report.predictions import read_predictions
from nakt_dist.report.roles import describe_rules
from nakt_dist.report.runs import Collection, LeftOut, collect, read_each
from nakt_dist.runtime.tracking import METRICS_NAME
from nakt_dist.studies.folder import Plan, StudyFolder
from nakt_dist.transfer.exclusion import ExclusionRule

AS_PRINTED, CALIBRATED = "as printed", "calibrated"
_DIGITS = 8
_WEIGHTS = ("best_weights_sha256", "last_weights_sha256")


def collect_study(root: Path, commit: str, ran_on: str | None = None) -> Records:
    """Collects the evaluations that are done in the folder of a study.

    Args:
        commit: of the code that collects.
        ran_on: the kind of machine that the study ran on; None for one like this.

    Raises:
        DatasetError: nothing is done yet, there are evaluations of both tasks, or runs are not of
            the same versions, or of phantoms and of images.
    """
    plan = StudyFolder(root).read_plan()
    found = collect([root])
    evaluations: tuple[Evaluation, ...] = (*found.evaluations, *found.classified)
    if found.evaluations and found.classified:
        raise DatasetError(f"{root}: evaluations of masks and of findings; expected those of one")
    left_out = list(found.left_out)
    runs = [_Collected(each, found, plan) for each in evaluations]
    _refuse_unlike(root, evaluations, found.records)
    read = _Dice() if found.evaluations else _Places()
    values = {each.run.name: read_each([each.evaluation], read, left_out) for each in runs}
    kept = sorted((each for each in runs if values[each.run.name]), key=lambda it: it.run.name)
    numbers = read.numbers()
    return Records(
        about={"commit": commit, "machine": ran_on or _this_machine()}
        | _about(root, plan, kept, found, left_out),
        runs=tuple(each.run for each in kept),
        values={each.run.name: _numbered(*values[each.run.name][0], numbers) for each in kept},
        images=read.images(numbers),
        curves={each.run.name: each.curve for each in kept if each.curve is not None},
    )


def _about(
    root: Path,
    plan: Plan,
    kept: Sequence["_Collected"],
    found: Collection,
    left_out: Sequence[LeftOut],
) -> dict[str, Any]:
    planned = [run for run in plan.runs if run.stage == "evaluate"]
    done = {each.run.name for each in kept}
    states = [StudyFolder(root).read_state(run.name) for run in planned if run.name in done]
    ended = [state.ended for state in states if state is not None and state.ended is not None]
    day = time.strftime("%Y-%m-%d", time.gmtime(max(ended) if ended else None))
    return {
        "study": plan.name,
        "last_run": day,
        "versions": dict(found.records[0].record.versions),
        "phantom": any(each.evaluation.uses_phantoms for each in kept),
        "planned": len(planned),
        "done": len(kept),
        "not_run_yet": {run.name: dict(run.axes) for run in planned if run.name not in done},
        "kept": [count for each in found.records for count in _kept(each, found)],
        "left_out": [f"{each.place}: {each.reason}" for each in left_out],
    }


def _this_machine() -> str:
    told = machine()
    return str(told["gpu"] or f"{told['cores']} cores of {told['processor']}")


def _kept(inspected: FoundRecord, found: Collection) -> Iterable[dict[str, Any]]:
    """Yields what a rule leaves of a set of pseudo-labels, from a record of ``nakt inspect``."""
    record = inspected.record
    if record.stage != "inspect" or not record.config.get("exclusion"):
        return
    for pseudo in found.pseudo_sets:
        if pseudo.manifest.fingerprint == record.inputs.get("pseudo_labels"):
            yield {
                "name": inspected.place.split("/", 1)[-1],
                "transferal": pseudo.manifest.dataset,
                "rule": _kind_of_rules([parse_rule(record.config["exclusion"])]),
                "before": record.counts["before"],
                "after": record.counts["after"],
            }


def _refuse_unlike(
    root: Path, evaluations: Iterable[Evaluation], records: Iterable[FoundRecord]
) -> None:
    versions = {tuple(sorted(found.record.versions.items())) for found in records}
    phantom = {each.uses_phantoms for each in evaluations}
    for what, several in (("versions", versions), ("phantoms and images", phantom)):
        if len(several) > 1:
            shown = "; ".join(map(str, sorted(several)))
            raise DatasetError(
                f"{root}: runs of different {what} ({shown}); expected one study. Run what "
                "differs again, or collect it from another root"
            )


class _Collected:
    """An evaluation, its line, and the curve of the training behind it."""

    def __init__(self, evaluation: Evaluation, found: Collection, plan: Plan) -> None:
        self.evaluation = evaluation
        name = evaluation.place.split("/", 1)[-1]
        axes = next((run.axes for run in plan.runs if run.name == name), {})
        training = _training_of(evaluation.weights_sha256, found)
        self.run = _describe(name, evaluation, found, training, axes)
        self.curve = None if training is None else _curve(training)


def _training_of(weights: str | None, found: Collection) -> FoundRecord | None:
    for training in (*found.trainings, *found.classifier_trainings):
        if weights in [training.record.details.get(name, "") for name in _WEIGHTS]:
            return training
    return None


def _describe(
    name: str,
    evaluation: Evaluation,
    found: Collection,
    training: FoundRecord | None,
    axes: Mapping[str, str],
) -> Run:
    lineage = evaluation.lineage
    transfer, method = lineage.transfer, lineage.method
    teachers = list(dict.fromkeys(lineage.teachers))
    interval = _interval(evaluation)
    return Run(
        name=name,
        tested_on=evaluation.tested_on.dataset,
        role=_role(evaluation, found),
        network=evaluation.network.label,
        parameters=lineage.parameters,
        start=lineage.start.label,
        learnt=lineage.learnt.dataset,
        samples=lineage.learnt.samples,
        before=transfer.before_exclusion if transfer is not None else lineage.learnt.samples,
        rule=_kind_of_rule(lineage),
        exclusion="" if transfer is None else describe_rules(transfer),
        transferal="" if transfer is None else transfer.dataset,
        teachers=len(teachers),
        teacher_start=_joined(each.lineage.start.label for each in teachers),
        teacher_learnt=_joined(each.learnt.dataset or each.name for each in teachers),
        method=method.kind.value,
        parts=method.parts,
        settings=method.settings,
        steps=0 if training is None else int(training.record.details.get("steps") or 0),
        weights=evaluation.weights_sha256[:_DIGITS],
        taught_by=_joined(f"{each.weights_sha256}"[:_DIGITS] for each in teachers),
        size=evaluation.tested_on.height,
        seed=lineage.seed if training is None else int(training.record.config.get("seed") or 0),
        images=evaluation.images,
        mean=float(evaluation.mean),
        low=float(interval[0]),
        high=float(interval[1]),
        met="; ".join(evaluation.warnings),
        axes=dict(axes),
    )


def _joined(words: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(words))


def _interval(evaluation: Evaluation) -> tuple[float, float]:
    if isinstance(evaluation, SegmentationRun):
        return evaluation.interval
    assert isinstance(evaluation, ClassifierRun)
    return evaluation.result.interval or (float("nan"), float("nan"))


def _role(evaluation: Evaluation, found: Collection) -> str:
    if isinstance(evaluation, SegmentationRun):
        return evaluation.role.value
    students = {
        run.place
        for study in found.studies[0]
        for cell in study.cells.values()
        for repeats in cell.values()
        for run in repeats.runs
    }
    return "student" if evaluation.place in students else "other"


def _kind_of_rule(lineage: Lineage) -> str:
    """Says whether images were excluded by the paper's thresholds, or by others."""
    return (
        _kind_of_rules(part.exclusion for part in lineage.transfer.parts)
        if lineage.transfer
        else ""
    )


def _kind_of_rules(rules: Iterable[ExclusionRule | None]) -> str:
    chosen = [rule for rule in rules if rule is not None]
    if not chosen:
        return ""
    return AS_PRINTED if all(map(_is_printed, chosen)) else CALIBRATED


def _is_printed(rule: ExclusionRule) -> bool:
    printed = paper.EXCLUSION
    return rule.calibration is None and (rule.alpha, rule.beta) == (printed.alpha, printed.beta)


def _curve(training: FoundRecord) -> Curve | None:
    """Reads the validations of a classifier's training; None where there are none."""
    recipe, steps = training.record.config.get("recipe"), training.record.details.get("total_steps")
    epochs = recipe.get("epochs") if isinstance(recipe, Mapping) else None
    per_epoch = steps / epochs if epochs and steps else None
    try:
        read = read_auroc_curve(training.folder / METRICS_NAME, per_epoch)
    except DatasetError:  # masks, or a training without validation
        return None
    return Curve(read.places, read.loss, read.auroc)


Told = tuple[list[tuple[str, str]], np.ndarray]
"""Names of images, with their dataset, and float64 (N, K)."""


class _Dice:
    """Reads the Dice of each image."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def __call__(self, run: Evaluation) -> Told:
        def read(table: pa.Table) -> tuple[Told, int, float]:
            values = 100 * table[DICE].cast(pa.float64()).to_numpy()
            counted = ~np.isnan(values)
            keys = [(run.tested_on.dataset, key) for key in table["key"].to_pylist()]
            kept = [key for key, counts in zip(keys, counted, strict=True) if counts]
            return (kept, values[counted, None]), int(counted.sum()), float(values[counted].mean())

        told = read_predictions(run, read, "Dice per image", ["key", DICE])
        self._seen.update(told[0])
        return told

    def numbers(self) -> dict[tuple[str, str], int]:
        """Returns the number of each image, in an order that says nothing of its name."""
        return _in_no_order(self._seen)

    def images(self, numbers: Mapping[tuple[str, str], int]) -> Images | None:
        """Masks are not told."""
        return None


class _Places:
    """Reads each image's place in the order of the probabilities of each finding."""

    def __init__(self) -> None:
        self._findings: tuple[str, ...] = ()
        self._seen: dict[tuple[str, str], tuple[str, np.ndarray]] = {}

    def __call__(self, run: Evaluation) -> Told:
        found = run.tested_on.findings
        self._findings = self._findings or found
        if found != self._findings:
            raise DatasetError("tested on other findings than the runs before it")

        def columns(table: pa.Table, kind: str) -> np.ndarray:
            named = [table[f"{kind} {name}"].cast(pa.float64()) for name in found]
            return np.stack([column.to_numpy() for column in named], axis=1)

        def read(table: pa.Table) -> tuple[Told, int, float]:
            keys = [(run.tested_on.dataset, key) for key in table["key"].to_pylist()]
            patients, targets = table["patient_id"].to_pylist(), columns(table, "target")
            probabilities = columns(table, "probability")
            places = [np.unique(each, return_inverse=True)[1] for each in probabilities.T]
            self._seen |= dict(zip(keys, zip(patients, targets, strict=True), strict=True))
            told = keys, np.stack(places, axis=1).astype(np.float64)
            return told, len(keys), mean_auroc_percent(told[1], targets)

        return read_predictions(run, read, "AUROC", metric="AUROC ", tolerance=1e-6)

    def numbers(self) -> dict[tuple[str, str], int]:
        """Returns the number of each image, in an order that says nothing of its name."""
        return _in_no_order(self._seen)

    def images(self, numbers: Mapping[tuple[str, str], int]) -> Images | None:
        """Returns patients and findings by the numbers of images."""
        told = [self._seen[key] for key in numbers]
        of_patients = _in_no_order(("patient", name) for name, _ in told if name is not None)
        patients = ["" if name is None else str(of_patients["patient", name]) for name, _ in told]
        return Images(self._findings, tuple(patients), np.stack([each for _, each in told]))


def mean_auroc_percent(places: np.ndarray, targets: np.ndarray) -> float:
    """Returns the mean AUROC of float (N, K) in percent, or NaN."""
    mean = mean_auroc(places, targets).mean
    return np.nan if mean is None else 100 * mean


def _in_no_order(keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    def hashed(key: tuple[str, str]) -> str:
        return hashlib.sha256("\0".join(key).encode()).hexdigest()

    return {key: number for number, key in enumerate(sorted(set(keys), key=hashed))}


def _numbered(
    keys: Sequence[tuple[str, str]], values: np.ndarray, numbers: Mapping[tuple[str, str], int]
) -> Values:
    rows = np.array([numbers[key] for key in keys], dtype=np.int64)
    order = np.argsort(rows)
    return Values(rows[order], values[order])
