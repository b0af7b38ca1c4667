"""Stored masks as planes: one for each class that is learnt but the background."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nakt_dist.errors import ConfigurationError
from nakt_dist.imaging.masks import VOID
from nakt_dist.loading.samples import SelectedSamples
from nakt_dist.shards.reader import PseudoLabels
from nakt_dist.transfer.classes import BACKGROUND, ONE_TARGET, ClassMap


@dataclass(frozen=True)
class MaskPlanes:
    """What becomes of the masks of some samples.

    Attributes:
        classes: that are learnt, the background first.
        places: of each class of the stored masks, background first, its number among these.
        indexed: the stored masks hold class indices, not a plane for each class.
        has_void: whether the last plane is of what is void, as it is where they are indices.
    """

    classes: tuple[str, ...] = ONE_TARGET
    places: tuple[int, ...] = (0, 1)
    indexed: bool = False
    has_void: bool = False

    @property
    def stored(self) -> int:
        """Planes of a stored mask."""
        return 1 if self.indexed else len(self.places) - 1

    @property
    def count(self) -> int:
        """Planes that are made of it: of each class but the background, and perhaps of void."""
        return len(self.classes) - 1 + self.has_void

    @property
    def is_plain(self) -> bool:
        """Whether the planes are those that are stored."""
        are_all = self.places == tuple(range(len(self.classes)))
        return are_all and not (self.indexed or self.has_void)

    def spread(self, stored: np.ndarray, planes: np.ndarray) -> None:
        """Makes planes of a stored mask.

        Args:
            stored: uint8 (stored, H, W).
            planes: uint8 (count, H, W), to be filled: 0 and 255, or levels of a soft mask. The
                background has none.
        """
        if self.indexed:
            table = np.full(VOID + 1, len(self.classes), np.uint8)  # void, and what has no name
            table[: len(self.places)] = self.places
            numbers = table[stored[0]]
            for number, plane in enumerate(planes, start=1):
                np.multiply(numbers == number, np.uint8(255), out=plane)
            return
        planes[:] = 0
        for place, levels in zip(self.places[1:], stored, strict=True):
            if place:
                plane = planes[place - 1]
                plane += np.minimum(levels, 255 - plane)  # rounded levels may sum to more


def classes_of_samples(samples: SelectedSamples) -> tuple[str, ...]:
    """Returns the classes of the masks that samples are learnt from or tested on.

    Raises:
        ConfigurationError: they hold class indices that nobody has named.
    """
    manifest = samples.images.manifest
    if isinstance(samples.pseudo_labels, PseudoLabels):
        return samples.pseudo_labels.manifest.classes or ONE_TARGET
    if manifest.mask_kind != "classes":
        return ONE_TARGET
    if not manifest.classes:
        raise ConfigurationError(
            f"{samples.images.root}: its masks hold class indices without names; pack it again"
        )
    return manifest.classes


def planes_of_samples(
    samples: SelectedSamples, class_map: ClassMap, classes: Sequence[str] | None = None
) -> MaskPlanes:
    """Says how the masks of samples become planes.

    Args:
        class_map: what their classes are called.
        classes: those that are learnt, the background first; None for those that they have.

    Raises:
        ConfigurationError: their classes are not found among those that are learnt.
    """
    own = classes_of_samples(samples)
    renamed = [class_map.names.get(name, name) for name in own]
    wanted = tuple(classes or dict.fromkeys([BACKGROUND, *renamed]))
    soft = samples.pseudo_labels if samples.mask_is_soft else None
    where = (soft or samples.images).root
    indexed = soft is None and samples.images.manifest.mask_kind == "classes"
    return MaskPlanes(wanted, class_map.places(own, wanted, str(where)), indexed, indexed)
