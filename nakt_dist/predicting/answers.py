"""What a network says of images, as rows of a table and as files."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from nakt_dist.config import PredictConfig
from nakt_dist.errors import CheckpointError
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.predicting.naming import ListedImage

ABOUT_THE_IMAGE = [
    ("name", pa.string()),
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("series", pa.int32()),
    ("slice", pa.int32()),
]
"""Columns that every table has: what the outputs are called, rows and columns of the image as
published and upright, and of DICOM files the numbers of series and of the place in it."""


class Answers(ABC):
    """What is written of each image.

    Attributes:
        trained: the network, where and in the form in which it is to run.
        schema: columns of the table.
        settings: what decides the answers besides network and images, JSON-serialisable.
        described: what the record says of them.
    """

    trained: TrainedNetwork
    schema: pa.Schema
    settings: Mapping[str, Any]
    described: Mapping[str, Any]

    def __init__(self, config: PredictConfig, trained: TrainedNetwork) -> None:
        self.config, self.trained = config, trained

    @abstractmethod
    def ask(self, image: torch.Tensor) -> Sequence[Any]:
        """Runs the network.

        Args:
            image: float32 (N, C, H, W) in [0, 1], on its device.

        Returns:
            Its answer for each image, on the CPU.
        """

    @abstractmethod
    def row(
        self, listed: ListedImage, shape: tuple[int, int], answer: Any, staging: Path
    ) -> dict[str, Any]:
        """Writes the files of an image; in a thread.

        Args:
            shape: height and width of the image as published.
            answer: what ``ask`` gave for it.

        Returns:
            Its row of the table, but for ``ABOUT_THE_IMAGE``.

        Raises:
            CheckpointError: the answer is not of numbers.
        """

    def _diverged(self) -> CheckpointError:
        return CheckpointError(
            f"{self.config.weights}: gives values that are not numbers for images of "
            f"{self.config.images}; its training has diverged"
        )
