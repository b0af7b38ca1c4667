"""How a classifier differs from another on the same images, as records hold it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nakt_dist.errors import DatasetError


@dataclass(frozen=True)
class FindingDifference:
    """The AUROC of one finding less that of another classifier, on the same images; in percent.

    Attributes:
        p_value: two-sided, in (0, 1].
        p_holm: corrected for the number of findings, see ``evaluation.many_comparisons``.
    """

    name: str
    difference: float
    interval_95: list[float]
    p_value: float
    p_holm: float


@dataclass(frozen=True)
class Comparison:
    """A classifier's mean AUROC less another's, on the same images; in percent.

    Attributes:
        compared_with: name of the other network.
        difference: of the two means.
        p_value: two-sided, in (0, 1].
        auroc_mean: of this network, over the findings that count for both; None in records of
            earlier versions.
        compared_auroc_mean: likewise, of the other.
        labels_counted: how many findings these are.
        findings: the difference of each of them.
    """

    compared_with: str
    weights_sha256: str
    difference: float
    interval_95: list[float]
    p_value: float
    auroc_mean: float | None = None
    compared_auroc_mean: float | None = None
    labels_counted: int = 0
    findings: tuple[FindingDifference, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns a record's ``metrics.paired_difference``."""
        return asdict(self) | {"findings": [asdict(each) for each in self.findings]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Comparison":
        """Reads a record's ``metrics.paired_difference``.

        Raises:
            DatasetError: it has another field, or lacks one.
        """
        try:
            findings = [FindingDifference(**each) for each in value.get("findings") or ()]
            return cls(**{**value, "findings": tuple(findings)})
        except TypeError as error:
            raise DatasetError(f"the field 'paired_difference' is no comparison: {error}") from None
