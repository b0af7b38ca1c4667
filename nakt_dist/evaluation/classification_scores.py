"""Classification: probabilities of every image, AUROC and what goes with it (paper B)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from nakt_dist.config import EvaluateConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.evaluation.classification_summary import percent_interval, summarise_classification
from nakt_dist.evaluation.facts import FACTS, read_facts
from nakt_dist.evaluation.label_matching import match_labels
from nakt_dist.evaluation.origin import other_policy
from nakt_dist.evaluation.resampling import paired_difference
from nakt_dist.evaluation.scores import PREDICTIONS_NAME, TaskScores, diverged
from nakt_dist.evaluation.subgroups import age_band
from nakt_dist.loading.labels import LabelledImages
from nakt_dist.loading.samples import SelectedSamples
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.records.run_record import RECORD_NAME, RunRecord, read_record
from nakt_dist.runtime.files import differing_fields
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
    facts = [(name, _KINDS.get(name, pa.string())) for name in FACTS]
    return pa.schema([*known, *per_label, *facts])


class ClassificationScores(TaskScores):
    """Probabilities of every image for the labels that network and test set share.

    Args:
        config: of the evaluation.
        trained: the network.
        samples: the test images.

    Raises:
        ConfigurationError: a setting is one of segmentation, the outputs have no names, or no
            label is shared.
    """

    def __init__(
        self, config: EvaluateConfig, trained: TrainedNetwork, samples: SelectedSamples
    ) -> None:
        for name in ("overlays", "teacher_record"):
            if getattr(config, name):
                raise ConfigurationError(
                    f"{name} is for segmentation, and {config.weights} classifies; leave it out"
                )
        self._config = config
        self._trained = trained
        self._labels = match_labels(config.weights, trained, samples.images, config.labels)
        self._facts = read_facts(samples.images)
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
        probability = predict(self._trained, image)[:, list(self._labels.outputs)]
        if not probability.isfinite().all():
            raise diverged(self._config.weights, self.dataset)
        rows = []
        for number, answers, truth in zip(
            numbers, probability.tolist(), target.tolist(), strict=True
        ):
            row = dict(self._facts[number])
            for name, answer, value in zip(self._labels.names, answers, truth, strict=True):
                row[f"probability {name}"] = answer
                row[f"target {name}"] = None if np.isnan(value) else int(value)
            rows.append(row)
        return rows

    def check_references(self, identity: Mapping[str, Any]) -> None:
        """Reads the evaluation to compare with, where one is given; see ``TaskScores``."""
        if self._config.compare_with is not None:
            self._other_evaluation(self._config.compare_with, identity)

    def summarise(
        self, table: pa.Table, identity: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the metrics, those of each label, and those of subgroups."""
        config, names = self._config, self._labels.names
        groups = {
            "sex": table["sex"].to_pylist(),
            "age": [age_band(age) for age in table["age"].to_pylist()],
            "view": table["view"].to_pylist(),
            "projection": table["projection"].to_pylist(),
        }
        metrics, details = summarise_classification(
            names,
            label_columns(table, "probability", names),
            label_columns(table, "target", names),
            table["patient_id"].to_pylist(),
            groups,
            config.bootstrap_samples,
            config.seed,
        )
        if config.compare_with is not None:
            metrics["paired_difference"] = self._compare(table, config.compare_with, identity)
        details["outputs_not_used"] = list(self._labels.outputs_not_used)
        details["labels_not_used"] = list(self._labels.labels_not_used)
        details["other_label_policy"] = self._other_policy
        return metrics, details

    def draw(self, path: Path, table: pa.Table) -> None:
        """Draws nothing: a classifier has no outlines."""

    def sentence(self, record: RunRecord) -> str:
        """Says what the mean AUROC is, over how many labels."""
        metrics = record.metrics
        if metrics["auroc_mean"] is None:
            return f"evaluate {record.name}: no label with both classes, so no AUROC"
        counted, left_out = metrics["labels_counted"], metrics["labels_left_out"]
        of_all = f" of {counted + left_out} ({left_out} lack a class)" if left_out else ""
        lower, upper = metrics["auroc_interval_95"]
        text = (
            f"evaluate {record.name}: mean AUROC {metrics['auroc_mean']:.2f} % over "
            f"{counted}{of_all} labels and {metrics['images']} images of "
            f"{metrics['patients'] or 'unknown'} patients, 95 % interval {lower:.2f} to {upper:.2f}"
        )
        compared = metrics.get("paired_difference")
        if compared is not None:
            text += _spell_difference(compared)
        cautions = record.details.get("interval", {}).get("cautions", [])
        return text + "".join(f"\nevaluate {record.name}: warning: {each}" for each in cautions)

    def _other_evaluation(
        self, given: str, identity: Mapping[str, Any]
    ) -> tuple[RunRecord, pa.Table]:
        """Reads the record and the predictions to compare with.

        Raises:
            DatasetError: they are absent or damaged, of another test set, of other readings of
                unsure labels, or share no label.
        """
        folder = Path(given)
        record = read_record(folder / RECORD_NAME)
        same = ("task", "dataset_fingerprint", "splits", "label_policy")
        found = {name: record.inputs.get(name) for name in same}
        expected = {name: identity[name] for name in same}
        if found != expected:
            raise DatasetError(
                f"{folder}: compare_with needs an evaluation of the same test set "
                f"({'; '.join(differing_fields(found, expected))})"
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

    def _compare(
        self, table: pa.Table, given: str, identity: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Returns this network's mean AUROC less the other's, over the labels both have."""
        record, other = self._other_evaluation(given, identity)
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
        return {
            "compared_with": record.details.get("network", record.name),
            "weights_sha256": record.inputs["weights_sha256"],
            "auroc_mean": 100 * found.means[0],
            "compared_auroc_mean": 100 * found.means[1],
            "difference": 100 * found.difference,
            "interval_95": percent_interval(found.interval),
            "p_value": found.p_value,
            "labels_counted": found.labels_counted,
        }


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


def _spell_difference(compared: Mapping[str, Any]) -> str:
    """Says the difference together with the two means that it is of."""
    lower, upper = compared["interval_95"]
    text = f"; against {compared['compared_with']}"
    if "auroc_mean" in compared:  # earlier records hold the difference alone
        text += (
            f", over the {compared['labels_counted']} labels that count for both, "
            f"{compared['auroc_mean']:.2f} and {compared['compared_auroc_mean']:.2f} %:"
        )
    return (
        f"{text} difference {compared['difference']:+.2f} ({lower:+.2f} to {upper:+.2f}, "
        f"p = {compared['p_value']:.2g})"
    )
