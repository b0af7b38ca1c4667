"""Segmentation: Dice of every image, its interval, and the knowledge-transfer capability."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from nakt_dist.config import EvaluateConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.evaluation.metrics import MASK_METRICS
from nakt_dist.evaluation.network_lineage import lineage_of
from nakt_dist.evaluation.scores import TaskScores, read_reference
from nakt_dist.evaluation.summary import knowledge_transfer_capability, summarise_metric
from nakt_dist.evaluation.surface import SURFACE_METRICS, surface_distances_per_image
from nakt_dist.loading.samples import MaskedImages, SelectedSamples
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.records.results import SegmentationResult
from nakt_dist.records.run_record import RECORD_NAME, RunRecord

PREDICTIONS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        *((name, pa.float64()) for name in MASK_METRICS),
        ("target_pixels", pa.int64()),
        ("predicted_pixels", pa.int64()),
    ]
)
"""One row per image, in the order of the dataset; surface distances follow where asked for."""

_WITH_SURFACES = pa.schema(
    [*PREDICTIONS_SCHEMA, *(pa.field(name, pa.float64()) for name in SURFACE_METRICS)]
)


class SegmentationScores(TaskScores):
    """Dice, what else ``MASK_METRICS`` lists, and surface distances on request, of every image.

    Raises:
        ConfigurationError: a setting is one of classification, the network has several outputs,
            or the masks hold classes.
        DatasetError: some of the images have no mask.
    """

    dataset: MaskedImages
    foreign_settings = ("labels", "operating_points", "compare_with")
    refusal = ("classifiers", "segments")

    def __init__(
        self, config: EvaluateConfig, trained: TrainedNetwork, samples: SelectedSamples
    ) -> None:
        super().__init__(config, trained)
        if trained.spec.num_outputs != 1:
            raise ConfigurationError(
                f"{config.weights}: the network has {trained.spec.num_outputs} outputs; Dice is of "
                "one target, which a network with 1 gives"
            )
        samples.check_masks("", "give a classifier's weights")
        self._teacher_dice: float | None = None
        self.dataset = MaskedImages(samples)
        self.settings = {
            "threshold": config.threshold,
            "both_empty": config.both_empty,
            "surface_distances": config.surface_distances,
        }
        self.schema = _WITH_SURFACES if config.surface_distances else PREDICTIONS_SCHEMA

    def rows(
        self, numbers: range, image: torch.Tensor, target: torch.Tensor
    ) -> list[dict[str, Any]]:
        """Returns key, metrics and areas in pixels; see ``TaskScores``."""
        keys = self.dataset.samples.images.column("key")
        both_empty = 1.0 if self._config.both_empty == "one" else float("nan")
        probability = self.trained.logits(image).sigmoid()
        self._check_finite(probability)
        prediction = probability > self._config.threshold
        target = target > 0.5
        columns = (
            *(each(prediction, target, both_empty).tolist() for each in MASK_METRICS.values()),
            target.flatten(1).sum(1).tolist(),
            prediction.flatten(1).sum(1).tolist(),
        )
        if self._config.surface_distances:
            apart = surface_distances_per_image(prediction, target, 1 - both_empty)
            columns += tuple(apart.T.tolist())
        return [
            dict(zip(self.schema.names, (keys[number].as_py(), *values), strict=True))
            for number, *values in zip(numbers, *columns, strict=True)
        ]

    def check_references(self, identity: Mapping[str, Any]) -> None:
        """Reads the teacher's record, where one is given; see ``TaskScores``."""
        if self._config.teacher_record is not None:
            self._teacher_dice = self._read_teacher(Path(self._config.teacher_record), identity)

    def summarise(self, table: pa.Table) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns Dice in percent and, against a teacher's record, the capability."""
        config = self._config
        scores = {
            name: summarise_metric(
                name, table[name].to_numpy(), config.bootstrap_samples, config.seed
            )
            for name in (*MASK_METRICS, *SURFACE_METRICS)
            if name in self.schema.names
        }
        dice = scores.pop("dice")
        result = SegmentationResult(
            dice,
            tuple(scores.values()),
            compared=config.teacher_record is not None,
            capability=_capability(dice.mean, self._teacher_dice),
        )
        return result.to_json(), {}

    def draw(self, path: Path, table: pa.Table) -> None:
        """Draws annotation and prediction on as many images as ``overlays`` says."""
        if self._config.overlays:
            from nakt_dist.evaluation.overlays import draw_overlays

            draw_overlays(path, self.trained, self.dataset, table, self._config)

    def sentence(self, record: RunRecord) -> str:
        """Says what the mean Dice is."""
        result = SegmentationResult.from_json(record.metrics)
        dice, capability = result.dice, result.capability
        if dice.interval is None:
            return f"evaluate {record.name}: no image with a defined Dice"
        lower, upper = dice.interval
        return (
            f"evaluate {record.name}: Dice {dice.mean:.2f} ± {dice.std:.2f} % over {dice.images} "
            f"images, 95 % interval {lower:.2f} to {upper:.2f}"
            + (f", KTC {capability:.1f} %" if capability is not None else "")
        )

    def _read_teacher(self, path: Path, identity: Mapping[str, Any]) -> float | None:
        """The mean Dice in the teacher's record, None where none was defined."""
        record = read_reference(
            path / RECORD_NAME if path.is_dir() else path,
            ("dataset_fingerprint", "splits", "both_empty"),
            identity,
            f"{path}: the teacher was evaluated on other images",
        )
        teachers = {each.weights_sha256 for each in lineage_of(self.trained).teachers}
        if record.inputs.get("weights_sha256") not in {*teachers, self.trained.weights_sha256}:
            raise DatasetError(
                f"{path}: this network did not teach {self._config.weights}, which names "
                f"{len(teachers)} teachers; give the evaluation of one of them as teacher_record"
            )
        return SegmentationResult.from_json(record.metrics).dice.mean


def _capability(student_dice: float | None, teacher_dice: float | None) -> float | None:
    """The student's Dice relative to its teacher's, where that is defined."""
    if student_dice is None or not teacher_dice:
        return None
    return knowledge_transfer_capability(student_dice, teacher_dice)
