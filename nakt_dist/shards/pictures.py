"""Which pictures a network has met: their numbers, kept beside its weights on this machine.

They are no part of the weights, which may be passed on: whoever has a picture could tell by its
number whether the network learnt from it.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from nakt_dist.shards.tables import read_table, write_table

PICTURES_NAME = "pictures.parquet"
ROLES = ("training", "validation", "parents", "teacher")
"""In which pictures are met; ``records.exposure`` says what each is."""

_SCHEMA = pa.schema([("role", pa.string()), ("pixels", pa.int64())])
"""One row per picture and role; null for pictures that a role may have met besides. Of pictures
that a public list names, and gives no number, there is the number of the name."""
_NO_NUMBER = -1
_ROWS = 2**16  # written at a time: a public list may have millions


@dataclass(frozen=True)
class PicturesMet:
    """The pictures that a network has met, as far as they are known.

    Attributes:
        numbers: int64 arrays by role.
        unknown: the roles in which others may have been met as well.
    """

    numbers: Mapping[str, np.ndarray]
    unknown: frozenset[str] = frozenset()

    @property
    def are_kept(self) -> bool:
        """Whether anything is kept beside the weights: a run knows what it learns from itself."""
        return "training" not in self.unknown

    def completed_by(self, before: "PicturesMet") -> "PicturesMet":
        """Returns what is known with what was known before of the same network.

        Weights that it started from, or its teacher, may have left the folder that tells.
        """
        regained = self.unknown - before.unknown
        known = {role: each for role, each in before.numbers.items() if role in regained}
        return PicturesMet({**self.numbers, **known}, self.unknown - regained)

    def roles_with(self, pixels: pa.ChunkedArray, names: np.ndarray | None = None) -> set[str]:
        """Returns the roles in which images are known to have been met; see ``count``."""
        return {role for role, count in self.count(pixels, names).items() if count}

    def count(
        self, pixels: pa.ChunkedArray, names: np.ndarray | None = None
    ) -> dict[str, int | None]:
        """Counts the images of a dataset that were met, by role; None where that is not known.

        Args:
            pixels: the column ``pixels`` of its index.
            names: the numbers of their names, see ``picture_lists.name_numbers``; None to go by
                their pictures alone.
        """
        tested = [pixels.fill_null(_NO_NUMBER).to_numpy(), *([] if names is None else [names])]
        counts = {
            role: int(np.any([np.isin(each, self.numbers[role]) for each in tested], 0).sum())
            if role in self.numbers
            else 0
            for role in ROLES
        }
        return {role: n or (None if role in self.unknown else 0) for role, n in counts.items()}


NOTHING_KEPT = PicturesMet({}, frozenset(ROLES))


def numbers_of(pixels: pa.ChunkedArray) -> np.ndarray:
    """Returns the numbers in the column ``pixels`` of an index, int64, sorted, each once."""
    return np.unique(pixels.drop_null().to_numpy())


def write_pictures(folder: Path, met: PicturesMet) -> None:
    """Writes which pictures a run has met."""
    pieces = (
        [{"role": role, "pixels": number} for number in numbers[start : start + _ROWS].tolist()]
        for role, numbers in met.numbers.items()
        for start in range(0, len(numbers), _ROWS)
    )
    unknown = [{"role": role, "pixels": None} for role in sorted(met.unknown)]
    write_table(folder / PICTURES_NAME, _SCHEMA, itertools.chain(pieces, [unknown]), None)


def read_pictures(weights: Path) -> PicturesMet:
    """Returns the pictures that a network has met.

    Args:
        weights: its file; nothing is known of one that left the folder of its run.

    Raises:
        DatasetError: the table is damaged.
    """
    path = weights.parent / PICTURES_NAME
    if not path.is_file():
        return NOTHING_KEPT
    table = read_table(path, _SCHEMA)
    known = table.filter(table["pixels"].is_valid())
    unknown = table.filter(table["pixels"].is_null())
    roles = np.array(known["role"].to_pylist(), dtype=object)
    numbers = {role: known["pixels"].to_numpy()[roles == role] for role in np.unique(roles)}
    return PicturesMet(numbers, frozenset(unknown["role"].to_pylist()))
