"""What a dataset adapter says about each published image: paths and facts, no pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

MaskKind = Literal["none", "binary", "classes"]


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One published image and what belongs to it.

    Attributes:
        name: path of the image below the dataset's root, with ``/``; unique in a listing.
        image: where the image is.
        masks: mask files; several binary masks are united.
        mask_kind: what reading the masks gives: ``"none"`` (the dataset has no mask for this
            image), ``"binary"`` (background and target) or ``"classes"`` (class indices,
            255 void).
        mask_classes: only with kind ``"binary"``, when the mask file holds class indices:
            the target is the union of these classes, void counts as background.
        patient_id: the patient as the dataset names them, or None where it does not.
        stratum: class used to stratify the splits, such as ``"benign"``; may be empty.
        official_split: the split the dataset itself assigns, or None.
        labels: image-level labels and facts, JSON-serialisable.
        findings: per finding 1 (present), 0 (absent) or -1 (uncertain); a finding that is not
            named is blank. None where the dataset says nothing about this image.
        problem: ``(reason, detail)`` when the listing already shows that the image cannot
            be used, for example a mask that should exist and does not; else None.
    """

    name: str
    image: Path
    masks: tuple[Path, ...] = ()
    mask_kind: MaskKind = "none"
    mask_classes: tuple[int, ...] = ()
    patient_id: str | None = None
    stratum: str = ""
    official_split: str | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    findings: Mapping[str, int] | None = None
    problem: tuple[str, str] | None = None


@dataclass(frozen=True)
class SourceListing:
    """Everything an adapter found below a dataset's root.

    Attributes:
        records: sorted by ``name``; each is one input that must end up packed or rejected.
        left_out: images a setting leaves out, counted by the setting's words,
            such as ``{"class normal": 133}``.
        ignored_files: files that are neither image nor mask of this layout
            (``Thumbs.db``, licences, tables), by file suffix.
        findings: names of the findings that the dataset labels, in order; empty without any.
        found: counts worth saying, by words, such as ``{"studies without a label row": 3}``;
            the words name no patient, study, file or folder.
        examples: a case of what such words count, by the words. It may name a patient or a
            file, so that nothing de-identified may tell it.
    """

    records: list[SourceRecord]
    left_out: Mapping[str, int] = field(default_factory=dict)
    ignored_files: Mapping[str, int] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    found: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)

    def told(self) -> dict[str, int]:
        """Returns ``found`` with an example in its words where there is one."""
        return {
            f"{words} (such as {self.examples[words]})" if words in self.examples else words: count
            for words, count in self.found.items()
        }
