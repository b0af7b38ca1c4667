"""The images that a network was tested on, and how it was scored on them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nakt_dist.records.fields import (
    label_dataset,
    printable,
    read_field,
    read_if_there,
    read_names,
    read_policy,
)
from nakt_dist.records.run_record import RunRecord
from nakt_dist.shards.manifest import ShardManifest

_NUMBER = (int, float)


@dataclass(frozen=True)
class EvaluationSet:
    """The images of a test and how they were scored; equal ones compare.

    Attributes:
        splits: splits tested; None for all.
        phantom: whether the images are procedural.
        threshold: of segmentation: the probability above which a pixel is target.
        both_empty: likewise, Dice where mask and prediction are empty: ``"one"`` or ``"nan"``.
        findings: of classification: their names, in order.
        policy: likewise, what unsure labels count as, sorted JSON.
        fit: how the images were brought to their size; None where nobody says.
    """

    dataset: str
    fingerprint: str
    splits: tuple[str, ...] | None
    phantom: bool
    height: int
    width: int
    threshold: float | None = None
    both_empty: str | None = None
    findings: tuple[str, ...] = ()
    policy: str = "{}"
    fit: str | None = field(default=None, compare=False)

    @classmethod
    def of(
        cls, manifest: ShardManifest, splits: Iterable[str] | None, fit: str | None = None
    ) -> "EvaluationSet":
        """Returns splits of a packed dataset, all where None, before they are scored."""
        return cls(
            dataset=manifest.dataset,
            fingerprint=manifest.fingerprint,
            splits=None if splits is None else tuple(splits),
            phantom=manifest.phantom,
            height=manifest.height,
            width=manifest.width,
            fit=fit,
        )

    @classmethod
    def from_record(cls, record: RunRecord, findings: tuple[str, ...] = ()) -> "EvaluationSet":
        """Reads what a record of ``nakt evaluate`` was tested on.

        Args:
            findings: that a classifier was tested on; empty for segmentation.

        Raises:
            DatasetError: a field is missing or wrong; names it.
        """
        test_set = read_field(record.details, "test_set", Mapping)
        if findings:
            holds = record.inputs if record.inputs.get("label_policy") else test_set
            policy = read_policy(holds, "label_policy") if holds.get("label_policy") else "{}"
            scored: dict[str, Any] = {"findings": findings, "policy": policy}
        else:
            scored = {
                "threshold": read_field(record.inputs, "threshold", _NUMBER),
                "both_empty": printable(read_field(record.inputs, "both_empty", str)),
            }
        return cls(
            dataset=printable(read_field(test_set, "dataset", str)),
            fingerprint=printable(read_field(record.inputs, "dataset_fingerprint", str)),
            splits=read_names(record.inputs, "splits"),
            phantom=read_field(test_set, "phantom", bool),
            height=read_field(test_set, "height", int),
            width=read_field(test_set, "width", int),
            fit=read_if_there(test_set, "fit", str),
            **scored,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the ``test_set`` of a record; its inputs say the rest."""
        names = ("dataset", "phantom", "splits", "height", "width", "fit")
        return {name: getattr(self, name) for name in names}

    @property
    def label(self) -> str:
        """The dataset's name with its splits."""
        return f"{label_dataset(self.dataset, self.phantom)}, {describe_splits(self.splits)}"


def describe_splits(splits: Iterable[str] | None) -> str:
    """Returns ``"all splits"``, or which."""
    return "all splits" if splits is None else "split " + " + ".join(splits)
