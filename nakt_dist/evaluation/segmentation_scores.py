"""Segmentation: Dice of every image, its interval, and the knowledge-transfer capability."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from nakt_dist.config import EvaluateConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.evaluation.mask_metrics import MASK_METRICS
from nakt_dist.evaluation.origin import lineage_of
from nakt_dist.evaluation.scores import TaskScores, diverged
from nakt_dist.evaluation.summary import knowledge_transfer_capability, summarise_metric
from nakt_dist.loading.samples import MaskedImages, SelectedSamples
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.records.run_record import RECORD_NAME, RunRecord, read_record
from nakt_dist.runtime.files import differing_fields

PREDICTIONS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        *((name, pa.float64()) for name in MASK_METRICS),
        ("target_pixels", pa.int64()),
        ("predicted_pixels", pa.int64()),
    ]
)
"""One row per image, in the order of the dataset."""


class SegmentationScores(TaskScores):
    """Dice, and what else ``MASK_METRICS`` lists, of every image.

    Args:
        config: of the evaluation.
        trained: the network.
        samples: the test images.

    Raises:
        ConfigurationError: a setting is one of classification, the network has several outputs,
            or the masks hold classes.
        DatasetError: some of the images have no mask.
    """

    dataset: MaskedImages
    schema = PREDICTIONS_SCHEMA

    def __init__(
        self, config: EvaluateConfig, trained: TrainedNetwork, samples: SelectedSamples
    ) -> None:
        for name in ("labels", "compare_with"):
            if getattr(config, name) is not None:
                raise ConfigurationError(
                    f"{name} is for classifiers, and {config.weights} segments; leave it out"
                )
        if trained.spec.num_outputs != 1:
            raise ConfigurationError(
                f"{config.weights}: the network has {trained.spec.num_outputs} outputs; Dice is of "
                "one target, which a network with 1 gives"
            )
        samples.check_masks("", "give a classifier's weights")
        self._config = config
        self._trained = trained
        self.dataset = MaskedImages(samples)
        self.settings = {"threshold": config.threshold, "both_empty": config.both_empty}

    def rows(
        self, numbers: range, image: torch.Tensor, target: torch.Tensor
    ) -> list[dict[str, Any]]:
        """Returns key, Dice and areas in pixels; see ``TaskScores``."""
        keys = self.dataset.samples.images.index["key"]
        both_empty = 1.0 if self._config.both_empty == "one" else float("nan")
        probability = self._trained.logits(image).sigmoid()
        if not probability.isfinite().all():
            raise diverged(self._config.weights, self.dataset)
        prediction = probability > self._config.threshold
        target = target > 0.5
        columns = (
            *(each(prediction, target, both_empty).tolist() for each in MASK_METRICS.values()),
            target.flatten(1).sum(1).tolist(),
            prediction.flatten(1).sum(1).tolist(),
        )
        return [
            dict(zip(PREDICTIONS_SCHEMA.names, (keys[number].as_py(), *values), strict=True))
            for number, *values in zip(numbers, *columns, strict=True)
        ]

    def check_references(self, identity: Mapping[str, Any]) -> None:
        """Opens the teacher's record, where one is given; see ``TaskScores``."""
        if self._config.teacher_record is not None:
            self._teacher_dice(self._config.teacher_record, identity)

    def summarise(
        self, table: pa.Table, identity: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns Dice in percent and, against a teacher's record, the capability."""
        config = self._config
        metrics: dict[str, Any] = {}
        for name in reversed(MASK_METRICS):  # Dice last: it says how many images count
            values = table[name].to_numpy()
            metrics |= summarise_metric(name, values, config.bootstrap_samples, config.seed)
        if config.teacher_record is not None:
            metrics["knowledge_transfer_capability"] = _capability(
                metrics["dice_mean"], self._teacher_dice(config.teacher_record, identity)
            )
        return metrics, {}

    def draw(self, path: Path, table: pa.Table) -> None:
        """Draws annotation and prediction on as many images as ``overlays`` says."""
        if self._config.overlays:
            from nakt_dist.evaluation.overlays import draw_overlays

            draw_overlays(path, self._trained, self.dataset, table, self._config)

    def sentence(self, record: RunRecord) -> str:
        """Says what the mean Dice is."""
        metrics = record.metrics
        if metrics["dice_mean"] is None:
            return f"evaluate {record.name}: no image with a defined Dice"
        lower, upper = metrics["dice_interval_95"]
        capability = metrics.get("knowledge_transfer_capability")
        return (
            f"evaluate {record.name}: Dice {metrics['dice_mean']:.2f} ± "
            f"{metrics['dice_std']:.2f} % over {metrics['images']} images, 95 % interval "
            f"{lower:.2f} to {upper:.2f}"
            + (f", KTC {capability:.1f} %" if capability is not None else "")
        )

    def _teacher_dice(self, given: str, identity: Mapping[str, Any]) -> float | None:
        """The mean Dice in the teacher's record, None where none was defined.

        Raises:
            DatasetError: there is no record, the teacher was evaluated on other images, or it
                is not a teacher of this network.
        """
        path = Path(given)
        record = read_record(path / RECORD_NAME if path.is_dir() else path)
        same = ("dataset_fingerprint", "splits", "both_empty")
        found = {name: record.inputs.get(name) for name in same}
        expected = {name: identity[name] for name in same}
        if found != expected:
            raise DatasetError(
                f"{path}: the teacher was evaluated on other images "
                f"({'; '.join(differing_fields(found, expected))})"
            )
        teachers = {each.weights_sha256 for each in lineage_of(self._trained).teachers}
        if record.inputs.get("weights_sha256") not in {*teachers, self._trained.weights_sha256}:
            raise DatasetError(
                f"{path}: this network did not teach {self._config.weights}, which names "
                f"{len(teachers)} teachers; give the evaluation of one of them as teacher_record"
            )
        return record.metrics["dice_mean"]


def _capability(student_dice: float | None, teacher_dice: float | None) -> float | None:
    """The student's Dice relative to its teacher's, where that is defined."""
    if student_dice is None or not teacher_dice:
        return None
    return knowledge_transfer_capability(student_dice, teacher_dice)
