"""Images with their targets, of one dataset or of several, as a training reads them."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch


class Images(ABC):
    """Decoded images with their targets, numbered from 0."""

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """Images of each source, one source after the other."""

    @property
    def source_names(self) -> tuple[str, ...]:
        """What the sources are called, where there are several."""
        return ()

    @property
    @abstractmethod
    def memory_bytes(self) -> int:
        """What all of them take decoded."""

    @property
    def labels_that_count(self) -> np.ndarray | None:
        """How many labels of each image are not ignored, int64 (N,); None where all pixels are."""
        return None

    @abstractmethod
    def open_memory(self) -> None:
        """Opens the memory for what was decoded, before several threads ask for it."""

    @abstractmethod
    def keys(self, numbers: Sequence[int] | np.ndarray) -> list[str]:
        """Returns what the samples are called, no two alike."""

    @property
    @abstractmethod
    def form(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""

    @abstractmethod
    def empty_target(self, numbers: Sequence[int], pinned: bool = False) -> torch.Tensor:
        """Returns the targets of samples, or room for those that are decoded."""

    @abstractmethod
    def read_into(self, number: int, image: np.ndarray, target: np.ndarray) -> None:
        """Reads a sample into its place in a batch.

        Args:
            image: uint8 (C, H, W).
            target: as ``empty_target`` made it, of this sample.

        Raises:
            DatasetError: it does not decode, or to another size than the manifest's; names shard
                and key.
        """

    def __len__(self) -> int:
        return sum(self.sizes)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """Returns one sample, see ``empty_batch``, without the first axis.

        Raises:
            DatasetError: as ``read_into`` does.
        """
        return {name: values[0] for name, values in self.batch([int(number)]).items()}

    def batch(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        """Reads some samples, see ``empty_batch``.

        Raises:
            DatasetError: as ``read_into`` does.
        """
        batch = self.empty_batch(numbers)
        self.fill(batch, range(len(numbers)))
        return batch

    def empty_batch(self, numbers: Sequence[int], pinned: bool = False) -> dict[str, torch.Tensor]:
        """Returns a batch whose pixels are not read yet.

        Args:
            pinned: in memory that a GPU copies from while this process goes on.

        Returns:
            ``image`` uint8 (N, C, H, W), ``target``, and ``number`` int64 (N,).
        """
        shape = (len(numbers), *self.form)
        return {
            "image": torch.empty(shape, dtype=torch.uint8, pin_memory=pinned),
            "target": self.empty_target(numbers, pinned),
            "number": torch.as_tensor(numbers),
        }

    def fill(self, batch: Mapping[str, torch.Tensor], rows: range) -> None:
        """Reads the pixels of some rows of a batch.

        Raises:
            DatasetError: as ``read_into`` does.
        """
        image, target = batch["image"].numpy(), batch["target"].numpy()
        numbers = batch["number"].tolist()
        for row in rows:
            self.read_into(numbers[row], image[row], target[row])


class MixedImages(Images):
    """The images of several sources, numbered one source after the other.

    Args:
        parts: of each source, alike in the shape of images and targets.
        names: of the sources, no two alike; they stand before the keys.
    """

    def __init__(self, parts: Sequence[Images], names: Sequence[str]) -> None:
        self._parts, self._names = tuple(parts), tuple(names)
        self._ends = np.cumsum(self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """See ``Images``."""
        return tuple(map(len, self._parts))

    @property
    def source_names(self) -> tuple[str, ...]:
        """See ``Images``."""
        return self._names

    @property
    def memory_bytes(self) -> int:
        """See ``Images``."""
        return sum(part.memory_bytes for part in self._parts)

    @functools.cached_property
    def labels_that_count(self) -> np.ndarray | None:
        """See ``Images``."""
        counts = [part.labels_that_count for part in self._parts]
        known = [each for each in counts if each is not None]
        return np.concatenate(known) if len(known) == len(counts) else None

    def open_memory(self) -> None:
        """See ``Images``."""
        for part in self._parts:
            part.open_memory()

    def keys(self, numbers: Sequence[int] | np.ndarray) -> list[str]:
        """Returns ``source/key`` of each: no key holds a slash."""
        places = map(self._place, numbers)
        return [f"{self._names[at]}/{self._parts[at].keys([number])[0]}" for at, number in places]

    @property
    def form(self) -> tuple[int, int, int]:
        """See ``Images``."""
        return self._parts[0].form

    def empty_target(self, numbers: Sequence[int], pinned: bool = False) -> torch.Tensor:
        """See ``Images``."""
        target = self._parts[0].empty_target([0] * len(numbers), pinned)
        if target.is_floating_point():  # findings, which are there already; masks are decoded
            for row, (at, number) in enumerate(map(self._place, numbers)):
                target[row] = self._parts[at].empty_target([number])[0]
        return target

    def read_into(self, number: int, image: np.ndarray, target: np.ndarray) -> None:
        """See ``Images``."""
        at, number = self._place(number)
        self._parts[at].read_into(number, image, target)

    def _place(self, number: int) -> tuple[int, int]:
        """Returns the source of a sample, and its number there."""
        at = int(np.searchsorted(self._ends, number, side="right"))
        return at, int(number) - int(self._ends[at]) + len(self._parts[at])
