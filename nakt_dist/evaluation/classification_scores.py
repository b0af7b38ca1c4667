"""Classification: probabilities of every image, AUROC and what goes with it (paper B)."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from nakt_dist.config import EvaluateConfig
from nakt_dist.config.evaluating import OperatingPointConfig
from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.classification_summary import summarise_classification
from nakt_dist.evaluation.comparing import compare
from nakt_dist.evaluation.finding_predictions import (
    EvaluatedImages,
    label_columns,
    predictions_schema,
    read_evaluation,
)
from nakt_dist.evaluation.image_metadata import METADATA, read_metadata
from nakt_dist.evaluation.label_matching import match_labels
from nakt_dist.evaluation.network_lineage import other_policy
from nakt_dist.evaluation.operating_points import Labelled, operate
from nakt_dist.evaluation.scores import PREDICTIONS_NAME, TaskScores
from nakt_dist.evaluation.subgroups import age_band
from nakt_dist.loading.samples import SelectedSamples
from nakt_dist.loading.targets import LabelledImages
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.records.comparison import Comparison
from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.exposure import MET
from nakt_dist.records.fields import read_if_there
from nakt_dist.records.finding_results import ClassificationResult
from nakt_dist.records.operating_points import LEARNT_FROM, RATES, YOUDEN, OperatingPoints
from nakt_dist.records.run_record import RunRecord
from nakt_dist.runtime.processes import say
from nakt_dist.sources.findings import describe_use


class ClassificationScores(TaskScores):
    """Probabilities of every image for the labels that network and test set share.

    Raises:
        ConfigurationError: a setting is one of segmentation, the outputs have no names, or no
            label is shared.
    """

    foreign_settings = ("overlays", "surface_distances", "teacher_record")

    def __init__(
        self, config: EvaluateConfig, trained: TrainedNetwork, samples: SelectedSamples
    ) -> None:
        super().__init__(config, trained)
        self._other: tuple[RunRecord, pa.Table] | None = None
        self._validation: tuple[RunRecord, pa.Table] | None = None
        self._labels = match_labels(config.weights, trained, samples.images, config.labels)
        self._metadata = read_metadata(samples.images)
        self._pictures = samples.images.column("pixels")
        self.dataset = LabelledImages(samples, self._labels.targets)
        self.schema = predictions_schema(self._labels.names)
        self.settings = {
            "task": "classification",
            "labels": list(self._labels.names),
            "label_policy": asdict(self._labels.targets.policy),
            **({"outputs": list(self._labels.named)} if self._labels.named else {}),
        }
        unused = self._labels.describe()
        if unused is not None:
            say(f"evaluate: {len(self._labels.names)} labels shared; {unused}")
        policy, names = self.settings["label_policy"], self._labels.names
        self._other_policy = other_policy(trained, policy, names)
        if self._other_policy is not None:
            learnt, tested = (_spell(policy) for policy in self._other_policy.values())
            say(
                f"evaluate: warning: '{trained.name}' learnt with labels read as {learnt}, and is "
                f"tested with {tested}; set labels.uncertain and labels.blank to test it as it "
                "learnt"
            )

    def rows(
        self, numbers: range, image: torch.Tensor, target: torch.Tensor
    ) -> list[dict[str, Any]]:
        """Returns probabilities, targets and what is known of each image; see ``TaskScores``."""
        probability = predict(self.trained, image)[:, list(self._labels.outputs)]
        self._check_finite(probability)
        rows = []
        for number, answers, truth in zip(
            numbers, probability.tolist(), target.tolist(), strict=True
        ):
            row = {**self._metadata[number], "picture": self._pictures[number].as_py()}
            for name, answer, value in zip(self._labels.names, answers, truth, strict=True):
                row[f"probability {name}"] = answer
                row[f"target {name}"] = None if np.isnan(value) else int(value)
            rows.append(row)
        return rows

    def check_references(self, identity: Mapping[str, Any]) -> Mapping[str, RunRecord]:
        """Reads the evaluations to compare with and to choose on; see ``TaskScores``."""
        if self._config.compare_with is not None:
            self._other = self._read_other(Path(self._config.compare_with), identity)
        points = self._config.operating_points
        if points is not None:
            self._validation = self._read_validation(Path(points.validation), identity)
        both = {"compare_with": self._other, "operating_points": self._validation}
        return {name: found[0] for name, found in both.items() if found is not None}

    def summarise(self, table: pa.Table) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the metrics, those of each label, and those of subgroups."""
        config, names = self._config, self._labels.names
        groups = {name: table[name].to_pylist() for name in METADATA}
        groups["age"] = [age_band(age) for age in groups["age"]]
        result = summarise_classification(
            names,
            label_columns(table, "probability", names),
            label_columns(table, "target", names),
            table["patient_id"].to_pylist(),
            groups,
            config.bootstrap_samples,
            config.seed,
        )
        if self._other is not None:
            comparison = compare(self._labels.names, table, *self._other, config)
            result = replace(result, compared=True, comparison=comparison)
        if config.operating_points is not None and self._validation is not None:
            points = self._operate(table, config.operating_points, *self._validation)
            result = replace(result, operating_points=points)
        metrics, details = result.to_json()
        details["outputs_not_used"] = list(self._labels.outputs_not_used)
        details["labels_not_used"] = list(self._labels.labels_not_used)
        details["other_label_policy"] = self._other_policy
        return metrics, details

    def draw(self, path: Path, table: pa.Table) -> None:
        """Draws nothing: a classifier has no outlines."""

    def sentence(self, record: RunRecord) -> str:
        """Says what the mean AUROC is, over how many labels."""
        result = ClassificationResult.from_record(record)
        if result.auroc is None:
            return f"evaluate {record.name}: no label with both classes, so no AUROC"
        lacking, labels = len(result.left_out), len(result.findings)
        of_all = f" of {labels} ({lacking} lack a class)" if lacking else ""
        text = (
            f"evaluate {record.name}: mean AUROC {result.auroc:.2f} % over "
            f"{result.counted}{of_all} labels and {result.images} images of "
            f"{result.patients or 'unknown'} patients"
        )
        if result.interval is not None:
            text += ", 95 % interval {:.2f} to {:.2f}".format(*result.interval)
        if result.comparison is not None:
            text += _spell_difference(result.comparison)
        points = result.operating_points
        if points is not None:
            text += _spell_points(points)
        cautions = [*result.cautions, *filter(None, [points.caution if points else ""])]
        return text + "".join(f"\nevaluate {record.name}: warning: {each}" for each in cautions)

    def _read_other(self, folder: Path, identity: Mapping[str, Any]) -> tuple[RunRecord, pa.Table]:
        """Reads the evaluation to compare with."""
        record, table = read_evaluation(
            folder,
            "compare_with",
            ("task", "dataset_fingerprint", "splits", "label_policy"),
            identity,
            self._labels.names,
            "an evaluation of the same test set",
        )
        if table["key"].to_pylist() != self.dataset.samples.images.keys:
            raise DatasetError(
                f"{folder / PREDICTIONS_NAME}: its keys are not those of the test images; delete "
                "the folder and evaluate that network again"
            )
        return record, table

    def _read_validation(
        self, folder: Path, identity: Mapping[str, Any]
    ) -> tuple[RunRecord, pa.Table]:
        """Reads the evaluation that thresholds are chosen on, which may share no image with this.

        How unsure labels were read there may differ: it is told.
        """
        setting = "operating_points.validation"
        record, table = read_evaluation(
            folder,
            setting,
            ("task", "weights_sha256", "preprocessing", "model", "outputs"),
            identity,
            self._labels.names,
            "an evaluation of this network on validation images",
        )
        index = self.dataset.samples.images
        columns = {"key": "key", "patient_id": "patient_id", "picture": "pixels"}
        known = pa.table({name: index.column(stored) for name, stored in columns.items()})
        tested = EvaluatedImages.of(identity, known)
        both = tested.shared_with(EvaluatedImages.of(record.inputs, table))
        if both:
            raise DatasetError(
                f"{folder}: {setting} shares {both} with the test set, so that thresholds would "
                "be chosen on what they are tested on. Evaluate the network on a split that is "
                "not tested, such as --splits [validation], and give that folder"
            )
        return record, table

    def _operate(
        self, table: pa.Table, config: OperatingPointConfig, record: RunRecord, known: pa.Table
    ) -> OperatingPoints:
        """Applies what validation images tell to the test images, over the labels of both."""
        names = [name for name in self._labels.names if name in record.inputs["labels"]]
        validation, test = (
            Labelled(*(label_columns(each, kind, names) for kind in ("probability", "target")))
            for each in (known, table)
        )
        told = ("dataset", "dataset_fingerprint", "splits", "label_policy")
        points = operate(
            names,
            validation,
            test,
            table["patient_id"].to_pylist(),
            config,
            {
                "images": len(known),
                "phantom": EvaluationSet.from_record(record, tuple(names)).phantom,
                LEARNT_FROM: read_if_there(record.details, f"{MET}.training", bool),
                **{name: record.inputs[name] for name in told},
            },
            self._config.bootstrap_samples,
            self._config.seed,
        )
        others = [name for name in self._labels.names if name not in names]
        return replace(points, without=(*points.without, *others))


def predict(trained: TrainedNetwork, image: torch.Tensor) -> torch.Tensor:
    """Returns the probabilities of a classifier's outputs.

    Args:
        trained: the network, giving logits (N, K).
        image: float32 (N, C, H, W) in [0, 1].

    Returns:
        float64 (N, K); float32 would make sure answers equal, and AUROC count them as ties.
    """
    return trained.logits(image).double().sigmoid()


def _spell_points(found: OperatingPoints) -> str:
    """Says what Youden's thresholds give on average."""
    sensitivity, specificity = (found.mean(YOUDEN, rate) for rate in RATES[:2])
    if sensitivity is None or specificity is None:
        return "; no label with both classes in validation and test, so nothing at thresholds"
    return (
        f"; at thresholds by Youden's J, mean over {len(found.findings)} labels: sensitivity "
        f"{sensitivity:.1f} %, specificity {specificity:.1f} %"
    )


def _spell(policy: Mapping[str, Any]) -> str:
    return ", ".join(f"{kind}: {describe_use(use)}" for kind, use in policy.items())


def _spell_difference(found: Comparison) -> str:
    """Says the difference together with the two means that it is of."""
    lower, upper = found.interval_95
    text = f"; against {found.compared_with}"
    if found.auroc_mean is not None:  # earlier records hold the difference alone
        text += (
            f", over the {found.labels_counted} labels that count for both, "
            f"{found.auroc_mean:.2f} and {found.compared_auroc_mean:.2f} %:"
        )
    return (
        f"{text} difference {found.difference:+.2f} ({lower:+.2f} to {upper:+.2f}, "
        f"p = {found.p_value:.2g})"
    )
