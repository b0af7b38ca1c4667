"""What a classifier reaches at thresholds chosen on validation images, as records hold it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nakt_dist.records.fields import (
    FieldError,
    printable,
    read_field,
    read_if_there,
    read_interval_or_null,
    read_percent,
    read_percent_or_null,
    read_texts,
)

RATES = ("sensitivity", "specificity", "ppv", "npv")
"""Sensitivity, specificity, positive and negative predictive value."""

YOUDEN = "youden"
"""The rule that is always there."""

LEARNT_FROM = "learnt_from"
"""Of the validation images: whether the network is known to have learnt from some of them."""

Curve = tuple[tuple[float, float, float], ...]
"""Per bin of probabilities: images, sum of their probabilities, positive ones among them."""

_INTERVAL = "_interval_95"


@dataclass(frozen=True)
class PointScore:
    """One finding at one threshold. Rates are in percent, None where nothing is to be counted.

    Attributes:
        rule: by which the threshold was chosen, such as ``"youden"`` or ``"sensitivity 0.9"``.
        threshold: probability from which on an image is called positive.
        true_positives: test images that show the finding and are called positive.
        false_positives: test images that do not show it and are called positive.
        rates: of the test images, those of ``RATES`` by name.
        intervals: their 95 % bootstrap intervals over patients, the threshold as it is.
    """

    rule: str
    threshold: float
    validation_sensitivity: float
    validation_specificity: float
    true_positives: int
    false_positives: int
    rates: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float] | None]

    def to_json(self) -> dict[str, Any]:
        """Returns one of a finding's ``points``."""
        value = asdict(self)
        rates, intervals = value.pop("rates"), value.pop("intervals")
        listed = {f"{name}{_INTERVAL}": each and list(each) for name, each in intervals.items()}
        return {**value, **rates, **listed}

    @classmethod
    def from_json(cls, value: Any) -> "PointScore":
        """Reads one of a finding's ``points``.

        Raises:
            DatasetError: a field is missing or wrong; names it.
        """
        return cls(
            rule=printable(read_field(value, "rule", str)),
            threshold=read_percent(value, "threshold", 2),
            validation_sensitivity=read_percent(value, "validation_sensitivity"),
            validation_specificity=read_percent(value, "validation_specificity"),
            true_positives=read_field(value, "true_positives", int),
            false_positives=read_field(value, "false_positives", int),
            rates={name: read_percent_or_null(value, name) for name in RATES},
            intervals={name: read_interval_or_null(value, f"{name}{_INTERVAL}") for name in RATES},
        )


@dataclass(frozen=True)
class FindingPoints:
    """One finding at its thresholds, and how sure its scaled probabilities are.

    Attributes:
        temperature: by which its logits are divided.
        calibration_error_scaled: of the test images, then, in [0, 1]; None without an image.
        reliability_scaled: likewise.
    """

    name: str
    validation_positives: int
    validation_negatives: int
    temperature: float
    calibration_error_scaled: float | None
    reliability_scaled: Curve
    points: tuple[PointScore, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns one of the ``findings``."""
        return asdict(self) | {
            "reliability_scaled": list(map(list, self.reliability_scaled)),
            "points": [each.to_json() for each in self.points],
        }

    @classmethod
    def from_json(cls, value: Any) -> "FindingPoints":
        """Reads one of the ``findings``.

        Raises:
            DatasetError: a field is missing or wrong; names it.
        """
        error = read_field(value, "calibration_error_scaled", (int, float, type(None)))
        return cls(
            name=printable(read_field(value, "name", str)),
            validation_positives=read_field(value, "validation_positives", int),
            validation_negatives=read_field(value, "validation_negatives", int),
            temperature=read_percent(value, "temperature"),
            calibration_error_scaled=None
            if error is None
            else read_percent(value, "calibration_error_scaled", 1),
            reliability_scaled=read_curve(value, "reliability_scaled"),
            points=tuple(map(PointScore.from_json, read_field(value, "points", list))),
        )


@dataclass(frozen=True)
class OperatingPoints:
    """A classifier at thresholds chosen on validation images.

    Attributes:
        validation: which images these are, as the record says it.
        findings: those with both classes on the validation images, in order.
        without: names of the others.
    """

    validation: Mapping[str, Any]
    findings: tuple[FindingPoints, ...]
    without: tuple[str, ...]

    @property
    def caution(self) -> str:
        """Why to distrust thresholds and temperatures, in words; empty where nothing is known."""
        if self.validation.get(LEARNT_FROM) is not True:
            return ""
        return (
            "thresholds and temperatures were chosen on images that the network learnt from, of "
            "which it is surer than of new ones; choose them on others"
        )

    def mean(self, rule: str, rate: str) -> float | None:
        """Returns the mean of a rate of ``RATES`` by a rule, over the findings that have it."""
        points = (each for one in self.findings for each in one.points if each.rule == rule)
        known = [value for each in points if (value := each.rates[rate]) is not None]
        return sum(known) / len(known) if known else None

    def to_json(self) -> dict[str, Any]:
        """Returns a record's ``details.operating_points``."""
        return {
            "validation": dict(self.validation),
            "findings": [each.to_json() for each in self.findings],
            "without": list(self.without),
        }

    @classmethod
    def from_json(cls, value: Any) -> "OperatingPoints":
        """Reads a record's ``details.operating_points``.

        Raises:
            DatasetError: a field is missing or wrong; names it.
        """
        return cls(
            validation=read_field(value, "validation", Mapping),
            findings=tuple(map(FindingPoints.from_json, read_field(value, "findings", list))),
            without=read_texts(value, "without"),
        )


def read_curve(record: Any, path: str) -> Curve:
    """Reads a reliability curve; an empty one where the field is absent.

    Raises:
        DatasetError: the field holds something else.
    """
    rows = read_if_there(record, path, list) or []
    for row in rows:
        if not (isinstance(row, list) and len(row) == 3 and all(map(_is_amount, row))):
            raise FieldError(path, row, "lists of images, their probabilities and positives")
    return tuple((row[0], row[1], row[2]) for row in rows)


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63
