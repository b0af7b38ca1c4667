"""One evaluation of one classifier, read from its record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nakt_dist.errors import DatasetError
from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.exposure import Verdicts, judge_record, warn
from nakt_dist.records.fields import printable, read_field, read_interval, read_percent
from nakt_dist.records.lineage import NOT_KNOWN, Lineage, Lineages
from nakt_dist.records.lineage_reading import PRETRAINED, read_lineage
from nakt_dist.records.run_record import RunRecord
from nakt_dist.report.network_names import NetworkName, name_network


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
        exposure: how the network may have met its test images, by role.
    """

    name: str
    place: str
    folder: Path
    weights_sha256: str
    network: NetworkName
    lineage: Lineage | None
    tested_on: EvaluationSet
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
    exposure: Verdicts = field(compare=False)

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
        """How the network, and its teachers, may have met its test images."""
        return warn(self.exposure, "AUROC")


def is_classifier_test(record: RunRecord) -> bool:
    """Says whether a record is a classifier's evaluation."""
    return record.stage == "evaluate" and record.metrics.get("task") == "classification"


def read_classified(
    record: RunRecord,
    place: str,
    folder: Path,
    known: Lineages = NOT_KNOWN,
) -> ClassifiedRun:
    """Reads what a record of ``nakt evaluate`` holds for a classifier.

    Args:
        record: the record.
        place: its folder as the page names it.
        folder: its folder.
        known: lineages of networks by their weights, for what lineages leave out.

    Raises:
        DatasetError: a field is missing or wrong, or no finding has both classes.
    """
    metrics, details = record.metrics, record.details
    if metrics.get("auroc_mean") is None:
        raise DatasetError("no finding has both classes: there is no AUROC")
    lineage = read_field(details, "lineage", Mapping)
    findings = tuple(map(_read_finding, read_field(details, "labels", list)))
    tested_on = EvaluationSet.from_record(record, tuple(each.name for each in findings))
    return ClassifiedRun(
        name=printable(record.name),
        place=place,
        folder=folder,
        weights_sha256=printable(read_field(record.inputs, "weights_sha256", str)),
        network=name_network(read_field(details, "model", Mapping), PRETRAINED),
        lineage=read_lineage(lineage, known) if lineage else None,
        tested_on=tested_on,
        images=read_field(metrics, "images", int),
        patients=read_field(metrics, "patients", int),
        auroc=read_percent(metrics, "auroc_mean", or_null=True),
        interval=read_interval(metrics, "auroc_interval_95", or_null=True),
        average_precision=read_percent(metrics, "average_precision_mean", or_null=True),
        calibration_error=_points(metrics, "calibration_error_mean"),
        counted=read_field(metrics, "labels_counted", int),
        left_out=tuple(each.name for each in findings if each.auroc is None),
        findings=findings,
        groups=tuple(map(_read_group, details.get("subgroups") or [])),
        gaps=_read_gaps(details.get("gaps") or {}),
        exposure=judge_record(record, tested_on, known),
    )


def _read_finding(value: Any) -> FindingScore:
    return FindingScore(
        name=printable(read_field(value, "name", str)),
        positives=read_field(value, "positives", int),
        negatives=read_field(value, "negatives", int),
        auroc=read_percent(value, "auroc", or_null=True),
        average_precision=read_percent(value, "average_precision", or_null=True),
        calibration_error=_points(value, "calibration_error"),
    )


def _read_group(value: Any) -> GroupScore:
    return GroupScore(
        attribute=printable(read_field(value, "attribute", str)),
        group=printable(read_field(value, "group", str)),
        images=read_field(value, "images", int),
        auroc=read_percent(value, "auroc_mean", or_null=True),
        counted=read_field(value, "labels_counted", int),
    )


def _read_gaps(value: Mapping[str, Any]) -> dict[str, float]:
    gaps = {printable(str(name)): read_percent(value, name, or_null=True) for name in value}
    return {name: gap for name, gap in gaps.items() if gap is not None}


def _points(metrics: Mapping[str, Any], name: str) -> float | None:
    """Returns what the record holds as a share, as percentage points."""
    value = read_field(metrics, name, (int, float, type(None)))
    if value is None:
        return None
    if not 0 <= value <= 1:
        raise DatasetError(f"the field '{name}' is {value!r}, expected a share from 0 to 1")
    return 100 * float(value)
