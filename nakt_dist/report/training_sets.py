"""The images a network learnt from, as its lineage names them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nakt_dist.errors import DatasetError
from nakt_dist.report.fields import label_dataset, printable, read_field, read_names
from nakt_dist.runtime.record import RunRecord


@dataclass(frozen=True)
class TrainingSet:
    """The images a classifier learnt from.

    Attributes:
        dataset: name.
        fingerprint: of its manifest.
        phantom: whether its images are procedural.
        splits: splits used; None for all.
        samples: how many images.
    """

    dataset: str
    fingerprint: str
    phantom: bool
    splits: tuple[str, ...] | None
    samples: int

    @property
    def label(self) -> str:
        """The dataset's name, marked where it is a phantom."""
        return label_dataset(self.dataset, self.phantom)


def read_training_set(value: Mapping[str, Any]) -> TrainingSet:
    """Reads which images a network learnt from.

    Raises:
        DatasetError: a field is missing or wrong; names it.
    """
    return TrainingSet(
        dataset=printable(read_field(value, "dataset", str)),
        fingerprint=read_field(value, "fingerprint", str),
        phantom=read_field(value, "phantom", bool),
        splits=read_names(value, "splits") if "splits" in value else None,
        samples=read_field(value, "samples", int),
    )


def known_training_sets(records: Iterable[RunRecord]) -> dict[str, TrainingSet]:
    """Returns what each network that was trained or tested learnt from last.

    Students of older lineages name their teacher's dataset only; what more is known of the
    teacher is found here by its weights.

    Args:
        records: of any stage; those that name no images are passed over.

    Returns:
        By SHA-256 of the weights.
    """
    found: dict[str, TrainingSet] = {}
    for record in records:
        weights = record.inputs.get("weights_sha256")
        if record.stage == "train":
            weights = record.details.get("best_weights_sha256")
        try:
            trained_on = read_field(record.details, "lineage.trained_on", Mapping)
            if isinstance(weights, str):
                found.setdefault(weights, read_training_set(trained_on))
        except DatasetError:
            continue  # named as the reason when the record itself is used
    return found
