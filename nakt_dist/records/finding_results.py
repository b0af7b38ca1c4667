"""What evaluations of classifiers measured, as their records hold it: AUROC of findings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nakt_dist.records.comparison import Comparison
from nakt_dist.records.fields import (
    FieldError,
    printable,
    read_field,
    read_if_there,
    read_interval,
    read_interval_or_null,
    read_percent_or_null,
)
from nakt_dist.records.operating_points import Curve, OperatingPoints, read_curve
from nakt_dist.records.run_record import RunRecord

_DIFFERENCE = "paired_difference"
VALIDATED_FINDINGS = "validated_findings"
"""Of a training's details: those that the mean AUROC is over by which its best epoch is chosen."""

_PRECISION, _CALIBRATION = "average_precision", "calibration_error"
_POINTS = "operating_points"
PARTIAL_AUROC = "partial_auroc"


@dataclass(frozen=True)
class FindingScore:
    """How well one finding is recognised.

    Attributes:
        positives: images that show it.
        negatives: images that do not.
        ignored: images that do not say.
        auroc: in percent; None where a class is absent.
        interval: its 95 % bootstrap interval over patients; None where there is none.
        resamples_left_out: resamples without a class of it.
        metrics: those of ``evaluation.metrics.FINDING_METRICS`` by name, as the record has them.
        reliability: what its calibration error sums up; empty in records of earlier versions.
    """

    name: str
    positives: int
    negatives: int
    ignored: int
    auroc: float | None
    interval: tuple[float, float] | None
    resamples_left_out: int
    metrics: Mapping[str, float | None]
    reliability: Curve = ()

    @property
    def average_precision(self) -> float | None:
        """In percent, or None."""
        return self.metrics[_PRECISION]

    @property
    def partial_auroc(self) -> float | None:
        """In percent, or None."""
        return self.metrics.get(PARTIAL_AUROC)

    @property
    def calibration_points(self) -> float | None:
        """The calibration error in percentage points, or None."""
        return _points(self.metrics[_CALIBRATION])

    def to_json(self) -> dict[str, Any]:
        """Returns one of a record's ``labels``."""
        value = asdict(self)
        interval, metrics = value.pop("interval"), value.pop("metrics")
        value["reliability"] = list(map(list, self.reliability))
        return {**value, "auroc_interval_95": _listed(interval), **metrics}

    @classmethod
    def from_json(cls, value: Any) -> "FindingScore":
        """Reads one of a record's ``labels``, and of its metrics those that pages show.

        Raises:
            DatasetError: a field is missing or wrong; names it.
        """
        return cls(
            name=printable(read_field(value, "name", str)),
            positives=read_field(value, "positives", int),
            negatives=read_field(value, "negatives", int),
            ignored=read_if_there(value, "ignored", int) or 0,
            auroc=read_percent_or_null(value, "auroc"),
            interval=None
            if value.get("auroc_interval_95") is None
            else read_interval(value, "auroc_interval_95"),
            resamples_left_out=read_if_there(value, "resamples_left_out", int) or 0,
            metrics=_read_metrics(value, ""),
            reliability=read_curve(value, "reliability"),
        )


@dataclass(frozen=True)
class GroupScore:
    """How well one group of patients is served.

    Attributes:
        attribute: such as ``"sex"``.
        group: such as ``"F"``; ``"unknown"`` where the dataset does not say.
        patients: how many known ones.
        auroc_mean: over the findings with both classes in every compared group, in percent;
            None for a group that is not compared, or without such a finding.
        labels_counted: findings behind the mean.
    """

    attribute: str
    group: str
    images: int
    patients: int
    auroc_mean: float | None
    labels_counted: int

    @classmethod
    def from_json(cls, value: Any) -> "GroupScore":
        """Reads one of a record's ``subgroups``.

        Raises:
            DatasetError: a field is missing or wrong; names it.
        """
        return cls(
            attribute=printable(read_field(value, "attribute", str)),
            group=printable(read_field(value, "group", str)),
            images=read_field(value, "images", int),
            patients=read_if_there(value, "patients", int) or 0,
            auroc_mean=read_percent_or_null(value, "auroc_mean"),
            labels_counted=read_field(value, "labels_counted", int),
        )


@dataclass(frozen=True)
class ClassificationResult:
    """The evaluation of a classifier. AUROC and the like are in percent.

    Attributes:
        patients: how many known ones.
        auroc: mean over the findings that have both classes; None where none has.
        interval: 95 % bootstrap interval of it over patients; None where there is none.
        means: of each further metric over the findings that have both classes, as the record has
            them.
        findings: each finding's scores, in order.
        rests_on: what the interval rests on, and in ``cautions`` why to distrust it.
        groups: of patients, in order.
        gaps: largest less smallest AUROC by attribute, in percentage points.
        findings_of_groups: by attribute the findings that its groups are compared on.
        compared: whether another network's evaluation was given.
        comparison: with it; None where no finding has both classes.
        operating_points: what thresholds chosen on validation images give; None without any.
    """

    images: int
    patients: int
    auroc: float | None
    interval: tuple[float, float] | None
    means: Mapping[str, float | None]
    findings: tuple[FindingScore, ...]
    rests_on: Mapping[str, Any]
    groups: tuple[GroupScore, ...]
    gaps: Mapping[str, float | None]
    findings_of_groups: Mapping[str, list[str]]
    compared: bool = False
    comparison: Comparison | None = None
    operating_points: OperatingPoints | None = None

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the findings that lack a class."""
        return tuple(each.name for each in self.findings if each.auroc is None)

    @property
    def cautions(self) -> tuple[str, ...]:
        """Why to distrust the interval of the mean, in words."""
        told = self.rests_on.get("cautions")
        return tuple(printable(each) for each in told or () if isinstance(each, str))

    @property
    def counted(self) -> int:
        """Findings behind the means."""
        return len(self.findings) - len(self.left_out)

    @property
    def calibration_points(self) -> float | None:
        """The mean calibration error in percentage points, or None."""
        return _points(self.means[_CALIBRATION])

    def to_json(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns a record's ``metrics``, and its part of the ``details``."""
        metrics: dict[str, Any] = {
            "task": "classification",
            "images": self.images,
            "patients": self.patients,
            "auroc_mean": self.auroc,
            "auroc_interval_95": _listed(self.interval),
            **{f"{name}_mean": mean for name, mean in self.means.items()},
            "labels_counted": self.counted,
            "labels_left_out": len(self.left_out),
        }
        if self.compared:
            metrics[_DIFFERENCE] = self.comparison and self.comparison.to_json()
        details: dict[str, Any] = {
            "labels": [finding.to_json() for finding in self.findings],
            "interval": self.rests_on,
            "subgroups": [asdict(group) for group in self.groups],
            "gaps": self.gaps,
            "subgroup_labels": self.findings_of_groups,
        }
        if self.operating_points is not None:
            details[_POINTS] = self.operating_points.to_json()
        return metrics, details

    @classmethod
    def from_record(cls, record: RunRecord) -> "ClassificationResult":
        """Reads a record of ``nakt evaluate``, and of its metrics those that pages show.

        Raises:
            DatasetError: a field is missing or wrong; names it.
        """
        metrics, details = record.metrics, record.details
        points = read_if_there(details, _POINTS, Mapping)
        compared, gaps = metrics.get(_DIFFERENCE), details.get("gaps") or {}
        return cls(
            images=read_field(metrics, "images", int),
            patients=read_field(metrics, "patients", int),
            auroc=read_percent_or_null(metrics, "auroc_mean"),
            interval=read_interval_or_null(metrics, "auroc_interval_95"),
            means=_read_metrics(metrics, "_mean"),
            findings=tuple(map(FindingScore.from_json, read_field(details, "labels", list))),
            rests_on=_read_rests_on(details),
            groups=tuple(map(GroupScore.from_json, details.get("subgroups") or [])),
            gaps={printable(str(name)): read_percent_or_null(gaps, name) for name in gaps},
            findings_of_groups=_read_findings_of_groups(details),
            compared=_DIFFERENCE in metrics,
            comparison=None if compared is None else Comparison.from_json(compared),
            operating_points=None if points is None else OperatingPoints.from_json(points),
        )


def _read_rests_on(details: Mapping[str, Any]) -> Mapping[str, Any]:
    """Reads what an interval rests on; of its fields those that pages show are what they should."""
    found: Mapping[str, Any] = read_if_there(details, "interval", Mapping) or {}
    for name, kind in (("cautions", list), ("patients_drawn", int), ("resamples", int)):
        read_if_there(details, f"interval.{name}", kind)
    return found


def _read_findings_of_groups(details: Mapping[str, Any]) -> Mapping[str, list[str]]:
    found: Mapping[str, Any] = read_if_there(details, "subgroup_labels", Mapping) or {}
    for attribute, names in found.items():
        if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
            raise FieldError(f"subgroup_labels.{attribute}", names, "a list of texts")
    return found


def _read_metrics(value: Mapping[str, Any], ending: str) -> dict[str, float | None]:
    """Reads the metrics of findings that pages show, of one finding or the means of all."""
    name = f"{_CALIBRATION}{ending}"
    error = read_field(value, name, (int, float, type(None)))
    if error is not None and not 0 <= error <= 1:
        raise FieldError(name, error, "a share from 0 to 1")
    read = {_CALIBRATION: None if error is None else float(error)}
    for metric in (_PRECISION, PARTIAL_AUROC):
        if metric == _PRECISION or f"{metric}{ending}" in value:  # earlier records have but one
            read[metric] = read_percent_or_null(value, f"{metric}{ending}")
    return read


def _points(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
