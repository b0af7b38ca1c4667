"""Images as they are published, read as packed ones are."""

from collections.abc import Sequence

import numpy as np
import torch

from nakt_dist.config import ImageConfig
from nakt_dist.errors import UnusableSample
from nakt_dist.imaging.conversion import convert
from nakt_dist.loading.decoding import decode_into
from nakt_dist.loading.images import Images
from nakt_dist.predicting.naming import ListedImage


class FileImages(Images):
    """Image files in the form in which ``pack`` would have packed them; no targets.

    What is not usable is black, and its batch is as large as if it were: the last digits of the
    others do not depend on it.

    Attributes:
        shapes: height and width of each published picture that was read, by its number.
        problems: reason and detail of each that cannot be used.
        first_of_several: numbers of those whose file holds further pictures, which are not read.
    """

    def __init__(self, listed: Sequence[ListedImage], image: ImageConfig) -> None:
        self.listed, self.image = listed, image
        self.shapes: dict[int, tuple[int, int]] = {}
        self.problems: dict[int, tuple[str, str]] = {}
        self.first_of_several: set[int] = set()

    @property
    def sizes(self) -> tuple[int, ...]:
        """See ``Images``."""
        return (len(self.listed),)

    @property
    def form(self) -> tuple[int, int, int]:
        """See ``Images``."""
        return (1 if self.image.colour == "grey" else 3, self.image.height, self.image.width)

    @property
    def memory_bytes(self) -> int:
        """Nothing: no picture is kept."""
        return 0

    def open_memory(self) -> None:
        """Opens nothing."""

    def keys(self, numbers: Sequence[int] | np.ndarray) -> list[str]:
        """Returns what the outputs of images are called."""
        return [self.listed[int(number)].name for number in numbers]

    def empty_target(self, numbers: Sequence[int], pinned: bool = False) -> torch.Tensor:
        """See ``Images``; there is none, float32 (N, 0)."""
        return torch.empty(len(numbers), 0)

    def read_into(self, number: int, image: np.ndarray, target: np.ndarray) -> None:
        """Reads an image, or notes why it cannot be used."""
        try:
            made = convert(self.listed[number].path, self.image)
            decode_into(made.encoded, image)
        except UnusableSample as error:
            image[:] = 0
            self.problems[number] = error.reason, error.detail
        else:
            self.shapes[number] = made.shape
            if made.info.get("holds_more"):
                self.first_of_several.add(number)
