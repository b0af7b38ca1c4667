"""Whom a student followed while it trained, and what it took from that teacher."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nakt_dist.errors import DatasetError
from nakt_dist.report.fields import label_dataset, printable, read_field, read_names
from nakt_dist.report.training_sets import TrainingSet

NOBODY: Mapping[str, TrainingSet] = {}


class Kind(StrEnum):
    """What a student takes from a teacher, in the order of a table's columns."""

    TRANSFER_LEARNING = "Transfer learning"
    DISTILLATION = "Distillation"
    ATTENTION = "Attention transfer"
    BOTH = "Attention transfer and distillation"


@dataclass(frozen=True)
class Followed:
    """The teacher of a student; the weights alone tell teachers apart.

    Attributes:
        weights_sha256: of its weights file.
        name: what the user called it.
        dataset: what it learnt from; None where its file does not say.
        phantom: whether those images are procedural; None if unknown.
        fingerprint: of their manifest; None if unknown.
        splits: splits used; None for all, or if unknown.
        splits_known: whether ``splits`` says anything.
    """

    weights_sha256: str
    name: str = field(compare=False)
    dataset: str | None = field(compare=False)
    phantom: bool | None = field(default=None, compare=False)
    fingerprint: str | None = field(default=None, compare=False)
    splits: tuple[str, ...] | None = field(default=None, compare=False)
    splits_known: bool = field(default=False, compare=False)

    @property
    def label(self) -> str:
        """Its name, with its dataset where the name does not hold that, marked if a phantom."""
        named = self.dataset is None or _letters(self.dataset) in _letters(self.name)
        whose = f"“{self.name}”" if named else f"“{self.name}” of {self.dataset}"
        return label_dataset(whose, bool(self.phantom))


@dataclass(frozen=True)
class Following:
    """What one training took from a teacher.

    Attributes:
        kind: never ``TRANSFER_LEARNING``.
        teacher: whom it followed.
        settings: how, sorted JSON of a flat mapping; equal settings give equal texts.
    """

    kind: Kind
    teacher: Followed
    settings: str


def read_following(
    transfer: Mapping[str, Any], known: Mapping[str, TrainingSet] = NOBODY
) -> Following:
    """Reads the ``transfer`` of a lineage.

    Args:
        transfer: as ``nakt train`` writes it.
        known: what networks learnt from, by their weights, for what the lineage does not say.

    Raises:
        DatasetError: a field is missing or wrong; names it.
    """
    taken = {
        name: read_field(transfer, name, (Mapping, type(None)))
        for name in ("attention", "distillation")
    }
    match [name for name, settings in taken.items() if settings is not None]:
        case ["attention"]:
            kind = Kind.ATTENTION
        case ["distillation"]:
            kind = Kind.DISTILLATION
        case [_, _]:
            kind = Kind.BOTH
        case _:
            raise DatasetError("the field 'transfer' names neither attention nor distillation")
    settings = {
        f"{part}.{name}": _plain(setting)
        for part, group in taken.items()
        for name, setting in (group or {}).items()
    }
    return Following(kind, _read_teacher(transfer, known), sorted_json(settings))


def _read_teacher(transfer: Mapping[str, Any], known: Mapping[str, TrainingSet]) -> Followed:
    teacher = read_field(transfer, "teacher", Mapping)
    weights = printable(read_field(transfer, "teacher.weights_sha256", str))
    found = known.get(weights)
    dataset = read_field(transfer, "teacher.trained_on", (str, type(None)))
    phantom, fingerprint = (
        read_field(teacher, name, (kind, type(None))) if name in teacher else None
        for name, kind in (("phantom", bool), ("fingerprint", str))
    )
    said = fingerprint is not None and "splits" in teacher
    splits = read_names(teacher, "splits") if said else None
    if found is not None:
        dataset = found.dataset if dataset is None else dataset
        phantom = found.phantom if phantom is None else phantom
        fingerprint = found.fingerprint if fingerprint is None else fingerprint
        splits = splits if said else found.splits
    return Followed(
        weights_sha256=weights,
        name=printable(read_field(transfer, "teacher.name", str)),
        dataset=None if dataset is None else printable(dataset),
        phantom=phantom,
        fingerprint=fingerprint,
        splits=splits,
        splits_known=said or found is not None,
    )


def _letters(name: str) -> str:
    """Returns a name without what users join its words with."""
    return "".join(each for each in name.lower() if each.isalnum())


def _plain(value: Any) -> Any:
    """Returns 1 and 1.0 as one number."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def sorted_json(value: Mapping[str, Any]) -> str:
    """Returns a mapping as text; equal mappings give equal texts."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
