"""Findings of images: probabilities, and what thresholds of an evaluation make of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from nakt_dist.config import PredictConfig
from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.classification_scores import predict
from nakt_dist.evaluation.network_lineage import refuse_other_task
from nakt_dist.evaluation.temperature import scale
from nakt_dist.loading.targets import require_output_names
from nakt_dist.models.network_file import TrainedNetwork, stored_output_names
from nakt_dist.models.preprocessing import ImageForm
from nakt_dist.predicting.answers import ABOUT_THE_IMAGE, Answers
from nakt_dist.predicting.naming import ListedImage
from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.finding_results import ClassificationResult
from nakt_dist.records.operating_points import FindingPoints
from nakt_dist.records.run_record import RECORD_NAME, read_record


class FindingAnswers(Answers):
    """The probability of each finding, ``probability NAME`` as ``evaluate`` has it.

    With operating points, ``scaled NAME`` is the probability after temperature scaling, and
    ``RULE NAME``, such as ``youden Edema``, says whether the threshold of a rule is reached.

    Raises:
        ConfigurationError: a setting is one of segmentation, or nobody names the outputs.
        DatasetError: the operating points are another network's, or of other names of its outputs
            or another size of images, or absent.
    """

    def __init__(self, config: PredictConfig, trained: TrainedNetwork, form: ImageForm) -> None:
        super().__init__(config, trained)
        refuse_other_task(config, ("files", "classes"), trained)
        self.names = require_output_names(
            trained, config.weights, config.labels, "labels", "nakt predict"
        )
        points: Sequence[FindingPoints] = []
        if config.operating_points is not None:
            points = _points(config, trained, form, self.names)
        self._points = [each for each in points if each.name in self.names]
        columns = [(f"probability {name}", pa.float64()) for name in self.names]
        for each in self._points:
            columns.append((f"scaled {each.name}", pa.float64()))
            columns += [(f"{point.rule} {each.name}", pa.bool_()) for point in each.points]
        self.schema = pa.schema([*ABOUT_THE_IMAGE, *columns, ("entropy", pa.float64())])
        self.settings = {
            "task": "classification",
            "labels": list(self.names),
            "operating_points": [each.to_json() for each in self._points],
        }
        self.described = {"labels": list(self.names)}

    def ask(self, image: torch.Tensor) -> Sequence[Any]:
        """Returns probabilities, float64 (N, K)."""
        return list(predict(self.trained, image).cpu().numpy())

    def row(
        self, listed: ListedImage, shape: tuple[int, int], answer: Any, staging: Path
    ) -> dict[str, Any]:
        """Returns the columns of an image; see ``Answers``."""
        if not np.isfinite(answer).all():
            raise self._diverged()
        row: dict[str, Any] = {
            f"probability {name}": value
            for name, value in zip(self.names, answer.tolist(), strict=True)
        }
        for each in self._points:
            probability = row[f"probability {each.name}"]
            row[f"scaled {each.name}"] = float(scale(np.array([probability]), each.temperature)[0])
            row |= {f"{one.rule} {each.name}": probability >= one.threshold for one in each.points}
        return {**row, "entropy": binary_entropy(answer)}


def binary_entropy(probabilities: np.ndarray) -> float:
    """Returns the mean over findings of −p log₂ p − (1 − p) log₂ (1 − p), in bits from 0 to 1."""
    both = np.stack([probabilities, 1 - probabilities])
    terms = np.where(both > 0, -both * np.log2(np.where(both > 0, both, 1)), 0)
    return float(terms.sum(0).mean())


def _points(
    config: PredictConfig, trained: TrainedNetwork, form: ImageForm, names: tuple[str, ...]
) -> Sequence[FindingPoints]:
    """Reads thresholds and temperatures from an evaluation of this very network.

    Args:
        form: of the images to predict, which the network has to see at the size of those.
        names: of its outputs, which have to be called so there.
    """
    folder = Path(str(config.operating_points))
    record = read_record(folder / RECORD_NAME)
    expected = {"model": None, **trained.identity}
    wrong = [name for name, value in expected.items() if record.inputs.get(name) != value]
    if record.stage != "evaluate" or wrong:
        raise DatasetError(
            f"{folder}: operating_points needs an evaluation of {config.weights}, and this is one "
            f"of another network or input ({', '.join(wrong) or f'stage {record.stage}'})"
        )
    stored = stored_output_names(trained, config.weights) or ()
    called = tuple(record.inputs.get("outputs") or stored)
    if called != names:
        raise DatasetError(
            f"{folder}: operating_points is an evaluation in which the outputs of {config.weights} "
            f"are {', '.join(called)}, and here they are {', '.join(names)}; set labels as there"
        )
    tested = EvaluationSet.from_record(record, called)
    there, here = trained.size_of(ImageForm(tested.height, tested.width)), trained.size_of(form)
    if there != here:
        raise DatasetError(
            f"{folder}: operating_points is an evaluation in which {config.weights} saw images of "
            f"{there[0]} × {there[1]} pixels, and here it would see {here[0]} × {here[1]}; bring "
            "these to that size with image.height and image.width, or as_packed"
        )
    points = ClassificationResult.from_record(record).operating_points
    if points is None:
        raise DatasetError(
            f"{folder}: this evaluation chose no thresholds; run nakt evaluate with "
            "operating_points.validation, and give its output"
        )
    return points.findings
