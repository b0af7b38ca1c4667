"""One evaluation of one classifier, read from its record."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nakt_dist.errors import DatasetError
from nakt_dist.report.classifier_lineage import (
    ClassifierLineage,
    ClassifierName,
    name_classifier,
    parse_classifier,
)
from nakt_dist.report.fields import label_dataset, printable, read_field, read_met, read_names
from nakt_dist.report.following import NOBODY, Followed, sorted_json
from nakt_dist.report.telling import describe_splits
from nakt_dist.report.training_sets import TrainingSet
from nakt_dist.runtime.record import RunRecord

_OTHER_PACKING = "another packing of the test set"
_PERCENT_OR_NONE = (int, float, type(None))
_MET = "the very splits it was tested on: its AUROC is too high"
_MET_PICTURES = "images that it was tested on: its AUROC is too high"


@dataclass(frozen=True)
class FindingSet:
    """The images and findings a classifier was tested on; equal ones compare.

    Attributes:
        dataset: name of the dataset.
        fingerprint: of its manifest.
        splits: splits tested; None for all.
        phantom: whether the images are procedural.
        height: rows of the images.
        width: columns of the images.
        findings: names, in order.
        policy: what unsure labels count as, sorted JSON.
    """

    dataset: str
    fingerprint: str
    splits: tuple[str, ...] | None
    phantom: bool
    height: int
    width: int
    findings: tuple[str, ...]
    policy: str

    @property
    def label(self) -> str:
        """The dataset's name with its splits."""
        return f"{label_dataset(self.dataset, self.phantom)}, {describe_splits(self.splits)}"


@dataclass(frozen=True)
class FindingScore:
    """How well one finding is told.

    Attributes:
        name: of the finding.
        positives: images that show it.
        negatives: images that do not.
        auroc: in percent; None where a class is absent.
        average_precision: in percent, or None.
        calibration_error: in percentage points, or None.
    """

    name: str
    positives: int
    negatives: int
    auroc: float | None
    average_precision: float | None
    calibration_error: float | None


@dataclass(frozen=True)
class GroupScore:
    """How well one group of patients is served.

    Attributes:
        attribute: such as ``"sex"``.
        group: such as ``"F"``.
        images: how many.
        auroc: mean over findings, in percent; None where none counts.
        counted: findings behind the mean.
    """

    attribute: str
    group: str
    images: int
    auroc: float | None
    counted: int


@dataclass(frozen=True)
class ClassifiedRun:
    """One evaluation of a classifier. AUROC and the like are in percent.

    Attributes:
        name: of the evaluation.
        place: its folder as the page names it.
        folder: its folder.
        weights_sha256: of the network's weights file.
        network: which network.
        lineage: what it learnt from; None for weights that are not ours.
        tested_on: which images and findings.
        images: how many.
        patients: how many known patients.
        auroc: mean over the findings that have both classes.
        interval: 95 % bootstrap interval of it over patients; None where there is none.
        average_precision: mean, or None.
        calibration_error: mean, or None.
        counted: findings behind the means.
        left_out: names of findings that lack a class.
        findings: each finding's scores, in order.
        groups: of patients, in order.
        gaps: largest less smallest AUROC by attribute, in percentage points.
        met: the roles in which the network met its test images, by the record: ``training``,
            ``validation``, ``parents`` (and those before) or ``teacher``.
    """

    name: str
    place: str
    folder: Path
    weights_sha256: str
    network: ClassifierName
    lineage: ClassifierLineage | None
    tested_on: FindingSet
    images: int
    patients: int
    auroc: float
    interval: tuple[float, float] | None
    average_precision: float | None
    calibration_error: float | None
    counted: int
    left_out: tuple[str, ...]
    findings: tuple[FindingScore, ...]
    groups: tuple[GroupScore, ...]
    gaps: Mapping[str, float]
    met: frozenset[str] = frozenset()

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts by test set, network and what it learnt from."""
        learnt = () if self.lineage is None else (self.lineage.trained_on.samples,)
        return (self.tested_on.label, self.network.order, learnt, self.name, self.place)

    @property
    def uses_phantoms(self) -> bool:
        """Whether it, its first weights or its teacher know procedural images, or its test."""
        if self.tested_on.phantom or self.lineage is None:
            return self.tested_on.phantom
        lineage = self.lineage
        learnt = (lineage.trained_on, lineage.start.trained_on, lineage.method.teacher)
        return any(each is not None and each.phantom for each in learnt)

    @property
    def warnings(self) -> tuple[str, ...]:
        """How the network, or the teacher it followed, may have met its test images."""
        teacher = None if self.lineage is None else self.lineage.method.teacher
        met = None if teacher is None else teacher_meeting(teacher, self.tested_on)
        if "teacher" in self.met and (met is None or met.startswith(_OTHER_PACKING)):
            met = "images that it was tested on: AUROC may be too high"
        followed = f"followed a teacher that learnt from {met}" if met is not None else None
        return tuple(each for each in (self.seen_before(), followed) if each is not None)

    def seen_before(self) -> str | None:
        """Says how the network may have met its test images while it learnt, or None."""
        known = self.lineage
        uncertain = None
        for role, how, images in (
            ("training", "learnt from", known and known.trained_on),
            ("parents", "started from weights that learnt from", known and known.start.trained_on),
            ("validation", "has its best epoch chosen on", known and known.validated_on),
        ):
            met = None if images is None else meeting(images, self.tested_on)
            if role in self.met and met != _MET:
                met = _MET_PICTURES
            if met in (_MET, _MET_PICTURES):
                return f"{how} {met}"
            if met is not None and uncertain is None:
                uncertain = f"{how} {met}"
        return uncertain


def teacher_meeting(teacher: Followed, tested: FindingSet) -> str | None:
    """Says which test images a teacher may have met; None where it met none, or if unknown."""
    if teacher.fingerprint is None:
        return None
    if teacher.fingerprint == tested.fingerprint and not teacher.splits_known:
        return "the dataset of the test, from which splits is not known"
    met = meeting(teacher, tested)
    return "the very splits of the test: AUROC may be too high" if met == _MET else met


def meeting(learnt: TrainingSet | Followed, tested: FindingSet) -> str | None:
    """Says which test images a network may have met; None where it met none."""
    if learnt.fingerprint != tested.fingerprint:
        if learnt.dataset == tested.dataset:
            return f"{_OTHER_PACKING}: patients may be shared"
        return None
    apart = learnt.splits is not None and tested.splits is not None
    if apart and not set(learnt.splits) & set(tested.splits):
        return None
    return _MET


def is_classifier_test(record: RunRecord) -> bool:
    """Says whether a record is a classifier's evaluation."""
    return record.stage == "evaluate" and record.metrics.get("task") == "classification"


def read_classified(
    record: RunRecord, place: str, folder: Path, known: Mapping[str, TrainingSet] = NOBODY
) -> ClassifiedRun:
    """Reads what a record of ``nakt evaluate`` holds for a classifier.

    Args:
        record: the record.
        place: its folder as the page names it.
        folder: its folder.
        known: what networks learnt from, by their weights, for what lineages leave out.

    Raises:
        DatasetError: a field is missing or wrong, or no finding has both classes.
    """
    metrics, details = record.metrics, record.details
    if metrics.get("auroc_mean") is None:
        raise DatasetError("no finding has both classes: there is no AUROC")
    lineage = read_field(details, "lineage", Mapping)
    findings = tuple(map(_read_finding, read_field(details, "labels", list)))
    return ClassifiedRun(
        name=printable(record.name),
        place=place,
        folder=folder,
        weights_sha256=printable(read_field(record.inputs, "weights_sha256", str)),
        network=name_classifier(read_field(details, "model", Mapping)),
        lineage=parse_classifier(lineage, known) if lineage else None,
        tested_on=_read_finding_set(record, tuple(each.name for each in findings)),
        images=read_field(metrics, "images", int),
        patients=read_field(metrics, "patients", int),
        auroc=_percent(metrics, "auroc_mean"),
        interval=_interval(metrics),
        average_precision=_percent(metrics, "average_precision_mean"),
        calibration_error=_points(metrics, "calibration_error_mean"),
        counted=read_field(metrics, "labels_counted", int),
        left_out=tuple(each.name for each in findings if each.auroc is None),
        findings=findings,
        groups=tuple(map(_read_group, details.get("subgroups") or [])),
        gaps=_read_gaps(details.get("gaps") or {}),
        met=read_met(details),
    )


def _read_finding_set(record: RunRecord, findings: tuple[str, ...]) -> FindingSet:
    test_set = read_field(record.details, "test_set", Mapping)
    policy = record.inputs.get("label_policy") or test_set.get("label_policy") or {}
    return FindingSet(
        dataset=printable(read_field(test_set, "dataset", str)),
        fingerprint=printable(read_field(record.inputs, "dataset_fingerprint", str)),
        splits=read_names(record.inputs, "splits"),
        phantom=read_field(test_set, "phantom", bool),
        height=read_field(test_set, "height", int),
        width=read_field(test_set, "width", int),
        findings=findings,
        policy=sorted_json(policy),
    )


def _read_finding(value: Any) -> FindingScore:
    return FindingScore(
        name=printable(read_field(value, "name", str)),
        positives=read_field(value, "positives", int),
        negatives=read_field(value, "negatives", int),
        auroc=_percent(value, "auroc"),
        average_precision=_percent(value, "average_precision"),
        calibration_error=_points(value, "calibration_error"),
    )


def _read_group(value: Any) -> GroupScore:
    return GroupScore(
        attribute=printable(read_field(value, "attribute", str)),
        group=printable(read_field(value, "group", str)),
        images=read_field(value, "images", int),
        auroc=_percent(value, "auroc_mean"),
        counted=read_field(value, "labels_counted", int),
    )


def _read_gaps(value: Mapping[str, Any]) -> dict[str, float]:
    gaps = {printable(str(name)): _percent(value, name) for name in value}
    return {name: gap for name, gap in gaps.items() if gap is not None}


def _interval(metrics: Mapping[str, Any]) -> tuple[float, float] | None:
    limits = metrics.get("auroc_interval_95")
    if limits is None:
        return None
    if not isinstance(limits, list) or len(limits) != 2:
        raise DatasetError(f"the field 'auroc_interval_95' is {limits!r:.60}, expected 2 limits")
    named = {"lower": limits[0], "upper": limits[1]}
    lower, upper = (_percent(named, name) for name in named)
    return None if lower is None or upper is None else (lower, upper)


def _percent(metrics: Mapping[str, Any], name: str) -> float | None:
    value = read_field(metrics, name, _PERCENT_OR_NONE)
    if value is None:
        return None
    if not (math.isfinite(value) and 0 <= value <= 100):
        raise DatasetError(f"the field '{name}' is {value!r}, expected a number from 0 to 100")
    return float(value)


def _points(metrics: Mapping[str, Any], name: str) -> float | None:
    """Returns what the record holds as a share, as percentage points."""
    value = read_field(metrics, name, _PERCENT_OR_NONE)
    if value is None:
        return None
    if not 0 <= value <= 1:
        raise DatasetError(f"the field '{name}' is {value!r}, expected a share from 0 to 1")
    return 100 * float(value)
