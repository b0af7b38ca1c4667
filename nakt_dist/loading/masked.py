"""Images with their masks."""

from collections.abc import Sequence

import numpy as np
import torch

from nakt_dist.loading.decoding import decode_into
from nakt_dist.loading.mask_planes import MaskPlanes, planes_of_samples
from nakt_dist.loading.samples import CachedImages, SelectedSamples
from nakt_dist.shards.reader import PseudoLabels
from nakt_dist.transfer.classes import ClassMap


class MaskedImages(CachedImages):
    """Images with their masks: ``target`` is uint8 (N, P, H, W), one plane for one target.

    Args:
        planes: what becomes of stored masks; None has a plane for each class that they have.

    Raises:
        ConfigurationError: the dataset's own masks hold class indices without names.
        DatasetError: the dataset's own masks are wanted, and some samples have none.
    """

    def __init__(
        self,
        samples: SelectedSamples,
        cache_megabytes: float | None = 0,
        planes: MaskPlanes | None = None,
    ) -> None:
        samples.check_masks(", or train on data.pseudo_labels", "set task: classification")
        self.planes = planes or planes_of_samples(samples, ClassMap())
        super().__init__(samples, self.planes.stored, cache_megabytes)

    def _name_of_pixels(self) -> bytes:
        pseudo = self.samples.pseudo_labels
        masks = pseudo.fingerprint_of_rows() if isinstance(pseudo, PseudoLabels) else b""
        return super()._name_of_pixels() + masks

    def read_into(self, number: int, image: np.ndarray, target: np.ndarray) -> None:
        """See ``Images``."""
        if self.planes.is_plain:
            super().read_into(number, image, target)
            return
        stored = np.empty((self.planes.stored, *target.shape[1:]), np.uint8)
        super().read_into(number, image, stored)
        self.planes.spread(stored, target)

    def _parts(self, image: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, ...]:
        return image, target

    def _decode(self, number: int, parts: tuple[np.ndarray, ...]) -> None:
        super()._decode(number, parts)
        # The planes of a soft mask lie one below the other.
        decode_into(self.samples.target_bytes(number), parts[1].reshape(1, -1, self._form[2]))

    def empty_target(self, numbers: Sequence[int], pinned: bool = False) -> torch.Tensor:
        """See ``Images``."""
        shape = (len(numbers), self.planes.count, *self._form[1:])
        return torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
