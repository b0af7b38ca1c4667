"""Classification: probabilities of every image, AUROC and what goes with it (paper B)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from nakt_dist.config import EvaluateConfig
from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.classification_summary import summarise_classification
from nakt_dist.evaluation.image_metadata import METADATA, read_metadata
from nakt_dist.evaluation.label_matching import match_labels
from nakt_dist.evaluation.network_lineage import other_policy
from nakt_dist.evaluation.resampling import paired_difference
from nakt_dist.evaluation.scores import PREDICTIONS_NAME, TaskScores, read_reference
from nakt_dist.evaluation.subgroups import age_band
from nakt_dist.loading.samples import SelectedSamples
from nakt_dist.loading.targets import LabelledImages
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.records.results import ClassificationResult, Comparison
from nakt_dist.records.run_record import RECORD_NAME, RunRecord
from nakt_dist.runtime.processes import say
from nakt_dist.shards.tables import read_table

_KINDS = {"age": pa.int32()}


def predictions_schema(names: Sequence[str]) -> pa.Schema:
    """Returns the columns of the predictions of some labels.

    Key, patient (null where unknown), per label the probability and the target (null where
    ignored), and sex, age in years, view and projection, null where the dataset does not say.
    """
    per_label = [
        column
        for name in names
        for column in ((f"probability {name}", pa.float64()), (f"target {name}", pa.int8()))
    ]
    known = [("key", pa.string()), ("patient_id", pa.string())]
    metadata = [(name, _KINDS.get(name, pa.string())) for name in METADATA]
    return pa.schema([*known, *per_label, *metadata])


class ClassificationScores(TaskScores):
    """Probabilities of every image for the labels that network and test set share.

    Raises:
        ConfigurationError: a setting is one of segmentation, the outputs have no names, or no
            label is shared.
    """

    foreign_settings = ("overlays", "teacher_record")
    refusal = ("segmentation", "classifies")

    def __init__(
        self, config: EvaluateConfig, trained: TrainedNetwork, samples: SelectedSamples
    ) -> None:
        super().__init__(config, trained)
        self._other: tuple[RunRecord, pa.Table] | None = None
        self._labels = match_labels(config.weights, trained, samples.images, config.labels)
        self._metadata = read_metadata(samples.images)
        self.dataset = LabelledImages(samples, self._labels.targets)
        self.schema = predictions_schema(self._labels.names)
        self.settings = {
            "task": "classification",
            "labels": list(self._labels.names),
            "label_policy": asdict(self._labels.targets.policy),
        }
        unused = self._labels.describe()
        if unused is not None:
            say(f"evaluate: {len(self._labels.names)} labels shared; {unused}")
        self._other_policy = other_policy(trained, self.settings["label_policy"])
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
            row = dict(self._metadata[number])
            for name, answer, value in zip(self._labels.names, answers, truth, strict=True):
                row[f"probability {name}"] = answer
                row[f"target {name}"] = None if np.isnan(value) else int(value)
            rows.append(row)
        return rows

    def check_references(self, identity: Mapping[str, Any]) -> None:
        """Reads the evaluation to compare with, where one is given; see ``TaskScores``."""
        if self._config.compare_with is not None:
            self._other = self._read_other(Path(self._config.compare_with), identity)

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
            comparison = self._compare(table, *self._other)
            result = replace(result, compared=True, comparison=comparison)
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
        cautions = result.rests_on.get("cautions", [])
        return text + "".join(f"\nevaluate {record.name}: warning: {each}" for each in cautions)

    def _read_other(self, folder: Path, identity: Mapping[str, Any]) -> tuple[RunRecord, pa.Table]:
        """Reads the record and the predictions to compare with."""
        record = read_reference(
            folder / RECORD_NAME,
            ("task", "dataset_fingerprint", "splits", "label_policy"),
            identity,
            f"{folder}: compare_with needs an evaluation of the same test set",
        )
        names = record.inputs["labels"]
        if not set(names) & set(self._labels.names):
            raise DatasetError(
                f"{folder}: compare_with shares no label: it has {', '.join(names)}; this one "
                f"{', '.join(self._labels.names)}"
            )
        try:
            table = read_table(folder / PREDICTIONS_NAME, predictions_schema(names))
        except DatasetError as error:
            raise DatasetError(
                f"{error}. compare_with needs it: delete the folder and evaluate that network again"
            ) from None
        if table["key"].to_pylist() != self.dataset.samples.images.keys:
            raise DatasetError(
                f"{folder / PREDICTIONS_NAME}: its keys are not those of the test images; delete "
                "the folder and evaluate that network again"
            )
        return record, table

    def _compare(self, table: pa.Table, record: RunRecord, other: pa.Table) -> Comparison | None:
        """Returns this network's mean AUROC less the other's, over the labels both have."""
        names = [name for name in self._labels.names if name in record.inputs["labels"]]
        found = paired_difference(
            label_columns(table, "probability", names),
            label_columns(other, "probability", names),
            label_columns(table, "target", names),
            table["patient_id"].to_pylist(),
            self._config.bootstrap_samples,
            self._config.seed,
        )
        if found is None:
            return None
        return Comparison(
            compared_with=record.details.get("network", record.name),
            weights_sha256=record.inputs["weights_sha256"],
            difference=100 * found.difference,
            interval_95=[100 * limit for limit in found.interval],
            p_value=found.p_value,
            auroc_mean=100 * found.means[0],
            compared_auroc_mean=100 * found.means[1],
            labels_counted=found.labels_counted,
        )


def predict(trained: TrainedNetwork, image: torch.Tensor) -> torch.Tensor:
    """Returns the probabilities of a classifier's outputs.

    Args:
        trained: the network, giving logits (N, K).
        image: float32 (N, C, H, W) in [0, 1].

    Returns:
        float64 (N, K); float32 would make sure answers equal, and AUROC count them as ties.
    """
    return trained.logits(image).double().sigmoid()


def label_columns(table: pa.Table, kind: str, names: Sequence[str]) -> np.ndarray:
    """Returns the columns ``probability NAME`` or ``target NAME``: float64 (N, K), NaN for null."""
    columns = [table[f"{kind} {name}"].cast(pa.float64()).to_numpy() for name in names]
    return np.stack(columns, axis=1)


def _spell(policy: Mapping[str, str | None]) -> str:
    return ", ".join(f"{kind}: {use or 'not said'}" for kind, use in policy.items())


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
