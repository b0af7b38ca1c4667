"""Segmentation: Dice of every image, its interval, and the knowledge-transfer capability.

Of several classes, each is scored as one target would be; the Dice of an image is the mean over
its classes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from nakt_dist.config import EvaluateConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.evaluation.dice import class_masks, predicted_classes
from nakt_dist.evaluation.metrics import MASK_METRICS
from nakt_dist.evaluation.network_lineage import classes_of, lineage_of
from nakt_dist.evaluation.scores import TaskScores, read_reference
from nakt_dist.evaluation.summary import knowledge_transfer_capability, summarise_metric
from nakt_dist.evaluation.surface import SURFACE_METRICS, surface_distances_per_image
from nakt_dist.loading.mask_planes import planes_of_samples
from nakt_dist.loading.masked import MaskedImages
from nakt_dist.loading.samples import SelectedSamples
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.records.mask_results import CLASSES, ClassScore, MaskScore, SegmentationResult
from nakt_dist.records.run_record import RECORD_NAME, RunRecord
from nakt_dist.records.seen_images import seen_otherwise
from nakt_dist.transfer.classes import BACKGROUND, ONE_TARGET
from nakt_dist.transfer.ensemble import in_places

PREDICTIONS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        *((name, pa.float64()) for name in MASK_METRICS),
        ("target_pixels", pa.int64()),
        ("predicted_pixels", pa.int64()),
    ]
)
"""One row per image, in the order of the dataset; surface distances follow where asked for. Of
several classes the metrics are means over those that have one, and the same columns follow for each
class, as ``dice:NAME``."""

_WITH_SURFACES = pa.schema(
    [*PREDICTIONS_SCHEMA, *(pa.field(name, pa.float64()) for name in SURFACE_METRICS)]
)
_PIXELS = ("target_pixels", "predicted_pixels")
_HALF = 0.5


class SegmentationScores(TaskScores):
    """Dice, what else ``MASK_METRICS`` lists, and surface distances on request, of every image.

    Raises:
        ConfigurationError: a setting is one of classification, or the classes of network and masks
            are not the same.
        DatasetError: some of the images have no mask.
    """

    dataset: MaskedImages
    foreign_settings = ("labels", "operating_points", "compare_with")

    def __init__(
        self, config: EvaluateConfig, trained: TrainedNetwork, samples: SelectedSamples
    ) -> None:
        super().__init__(config, trained)
        samples.check_masks("", "give a classifier's weights")
        self._teacher_dice: float | None = None
        outputs = classes_of(trained, config.classes, "classes", config.weights)
        classes = tuple(dict.fromkeys([BACKGROUND, *outputs]))
        self._places = [classes.index(name) for name in outputs[: trained.spec.num_outputs]]
        planes = planes_of_samples(samples, config.class_map, classes)
        self.dataset = MaskedImages(samples, planes=planes)
        self._several = classes[1:] if len(classes) > len(ONE_TARGET) else ()
        if self._several and config.threshold != _HALF:
            raise ConfigurationError(
                f"threshold is {config.threshold}, and {config.weights} tells {len(classes)} "
                "classes apart, of which the most probable is taken; leave it out"
            )
        self.settings = {
            "threshold": config.threshold,
            "both_empty": config.both_empty,
            "surface_distances": config.surface_distances,
            **({"classes": list(classes)} if self._several else {}),
            **({} if planes.is_plain else {"class_map": list(planes.places)}),
            # Where outputs are in the order of the classes, those are enough.
            **({} if sorted(self._places) == self._places else {"places": self._places}),
        }
        plain = _WITH_SURFACES if config.surface_distances else PREDICTIONS_SCHEMA
        self._columns = plain.names[1:]
        of_classes = [
            pa.field(f"{name}:{each}", plain.field(name).type)
            for each in self._several
            for name in self._columns
        ]
        self.schema = pa.schema([*plain, *of_classes])

    def rows(
        self, numbers: range, image: torch.Tensor, target: torch.Tensor
    ) -> list[dict[str, Any]]:
        """Returns key, metrics and areas in pixels; see ``TaskScores``."""
        keys = self.dataset.samples.images.column("key")
        prediction, annotated = self._masks(image, target)
        scores = [
            self._scores(prediction[:, [number]], annotated[:, [number]])
            for number in range(prediction.shape[1])
        ]
        overall = scores[0] if not self._several else self._joined(scores)
        columns = [*overall, *(column for each in scores for column in each if self._several)]
        return [
            dict(zip(self.schema.names, (keys[number].as_py(), *values), strict=True))
            for number, *values in zip(numbers, *columns, strict=True)
        ]

    def _masks(
        self, image: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns where each class but the background is predicted and annotated, (N, P, H, W)."""
        probability = self.trained.probability(image)
        self._check_finite(probability)
        if len(self._places) > 1:
            probability = in_places(probability, self._places)
        chosen = predicted_classes(probability, self._config.threshold)
        return class_masks(chosen, target, len(self.dataset.planes.classes))

    def _scores(self, prediction: torch.Tensor, target: torch.Tensor) -> list[list[float]]:
        """Returns the columns of one class, from bool (N, 1, H, W) each."""
        both_empty = 1.0 if self._config.both_empty == "one" else float("nan")
        columns = [
            *(each(prediction, target, both_empty).tolist() for each in MASK_METRICS.values()),
            target.flatten(1).sum(1).tolist(),
            prediction.flatten(1).sum(1).tolist(),
        ]
        if self._config.surface_distances:
            apart = surface_distances_per_image(prediction, target, 1 - both_empty)
            columns += apart.T.tolist()
        return columns

    def _joined(self, scores: list[list[list[float]]]) -> list[list[float]]:
        """Returns the columns of all classes together: means of metrics, and sums of pixels."""
        joined = []
        for name, *by_class in zip(self._columns, *scores, strict=True):
            values = np.array(by_class)  # classes, images
            if name in _PIXELS:
                joined.append(values.sum(0).tolist())
                continue
            counts = (~np.isnan(values)).sum(0)
            joined.append((np.nansum(values, 0) / np.where(counts, counts, np.nan)).tolist())
        return joined

    def check_references(self, identity: Mapping[str, Any]) -> Mapping[str, RunRecord]:
        """Reads the teacher's record, where one is given; see ``TaskScores``."""
        if self._config.teacher_record is None:
            return {}
        record = self._read_teacher(Path(self._config.teacher_record), identity)
        self._teacher_dice = SegmentationResult.from_json(record.metrics).dice.mean
        return {"teacher_record": record}

    def summarise(self, table: pa.Table) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns Dice in percent and, against a teacher's record, the capability.

        Of several classes the details hold the scores of each.
        """
        config = self._config

        def summed_up(ending: str = "") -> dict[str, MaskScore]:
            return {
                name: summarise_metric(
                    name, table[f"{name}{ending}"].to_numpy(), config.bootstrap_samples, config.seed
                )
                for name in self._columns
                if name not in _PIXELS
            }

        scores = summed_up()
        dice = scores.pop("dice")
        by_class = []
        for name in self._several:
            others = summed_up(f":{name}")
            of_class = SegmentationResult(others.pop("dice"), tuple(others.values()))
            by_class.append(ClassScore(name, of_class))
        result = SegmentationResult(
            dice,
            tuple(scores.values()),
            compared=config.teacher_record is not None,
            capability=_capability(dice.mean, self._teacher_dice),
        )
        details = {CLASSES: [each.to_json() for each in by_class]} if by_class else {}
        return result.to_json(), details

    def draw(self, path: Path, table: pa.Table) -> None:
        """Draws annotation and prediction on as many images as ``overlays`` says."""
        if self._config.overlays:
            from nakt_dist.evaluation.overlays import draw_overlays

            draw_overlays(path, self.trained, self.dataset, table, self._config, self._masks)

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

    def _read_teacher(self, path: Path, identity: Mapping[str, Any]) -> RunRecord:
        record = read_reference(
            path / RECORD_NAME if path.is_dir() else path,
            ("dataset_fingerprint", "splits", "threshold", "both_empty", "classes", "class_map"),
            identity,
            f"{path}: the teacher was evaluated on other images, or scored otherwise",
        )
        teachers, weights = lineage_of(self.trained).teachers, record.inputs.get("weights_sha256")
        known = {each.weights_sha256 for each in teachers}
        if weights not in {*known, self.trained.weights_sha256}:
            raise DatasetError(
                f"{path}: this network did not teach {self._config.weights}, which names "
                f"{len(known)} teachers; give the evaluation of one of them as teacher_record"
            )
        manifest, told = self.dataset.samples.images.manifest, record.inputs.get("preprocessing")
        differs = [
            seen_otherwise(each.seen, told, (manifest.height, manifest.width))
            for each in teachers
            if each.weights_sha256 == weights
        ]
        if differs and all(differs):
            raise DatasetError(
                f"{path}: this teacher saw other images when it taught {self._config.weights}: "
                f"{differs[0]}. Evaluate it with the preprocessing with which it taught"
            )
        return record


def _capability(student_dice: float | None, teacher_dice: float | None) -> float | None:
    """The student's Dice relative to its teacher's, where that is defined."""
    if student_dice is None or not teacher_dice:
        return None
    return knowledge_transfer_capability(student_dice, teacher_dice)
