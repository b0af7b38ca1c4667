"""What ``evaluate`` needs to know of a task: rows per image, and what they amount to."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import torch

from nakt_dist.config import EvaluateConfig
from nakt_dist.errors import CheckpointError, DatasetError
from nakt_dist.evaluation.network_lineage import refuse_other_task
from nakt_dist.loading.samples import CachedImages
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.records.run_record import RunRecord, read_record
from nakt_dist.runtime.files import differing_fields

PREDICTIONS_NAME = "predictions.parquet"


class TaskScores(ABC):
    """Scores one network on one test set.

    Attributes:
        dataset: the test images with their targets.
        trained: the network, where and in the form in which it is to run.
        schema: columns of the predictions, the first of them ``key``; one row per image.
        settings: the settings and choices that decide the predictions, JSON-serialisable.
        foreign_settings: those of the other task, which are refused.

    Raises:
        ConfigurationError: one of them is set.
    """

    dataset: CachedImages
    schema: pa.Schema
    settings: Mapping[str, Any]
    foreign_settings: ClassVar[tuple[str, ...]]

    def __init__(self, config: EvaluateConfig, trained: TrainedNetwork) -> None:
        refuse_other_task(config, self.foreign_settings, trained)
        self._config = config
        self.trained = trained

    @abstractmethod
    def rows(
        self, numbers: range, image: torch.Tensor, target: torch.Tensor
    ) -> list[dict[str, Any]]:
        """Runs the network on a batch.

        Args:
            numbers: which images these are.
            image: float32 (N, C, H, W) in [0, 1].
            target: as the dataset gives it, float32.

        Returns:
            One row of the predictions per image.

        Raises:
            CheckpointError: the network's outputs are not numbers.
        """

    @abstractmethod
    def check_references(self, identity: Mapping[str, Any]) -> Mapping[str, RunRecord]:
        """Reads the other evaluations that this one refers to; a wrong one costs no forward pass.

        Args:
            identity: of this evaluation: what decides its predictions.

        Returns:
            Their records, by the settings that name them.

        Raises:
            DatasetError: it is absent, or is no match.
        """

    @abstractmethod
    def summarise(self, table: pa.Table) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the metrics, and the details that this task adds to the record."""

    @abstractmethod
    def draw(self, path: Path, table: pa.Table) -> None:
        """Draws what the configuration asks for."""

    @abstractmethod
    def sentence(self, record: RunRecord) -> str:
        """Sums up the result in one line."""

    def _check_finite(self, probability: torch.Tensor) -> None:
        """Refuses outputs that are not numbers."""
        if not probability.isfinite().all():
            raise CheckpointError(
                f"{self._config.weights}: gives values that are not numbers for images of "
                f"{self.dataset.samples.images.root}; its training has diverged"
            )


def read_reference(
    path: Path, names: Sequence[str], identity: Mapping[str, Any], problem: str
) -> RunRecord:
    """Reads the record of another evaluation, which must be of the same test set.

    Args:
        names: the inputs that must be those of this evaluation.
        problem: what to say where they are not, with the place.

    Raises:
        DatasetError: the record is absent, damaged or no match.
    """
    record = read_record(path)
    found = {name: record.inputs.get(name) for name in names}
    expected = {name: identity.get(name) for name in names}
    if found != expected:
        differences = "; ".join(differing_fields(found, expected))
        raise DatasetError(f"{problem} ({differences})")
    return record
