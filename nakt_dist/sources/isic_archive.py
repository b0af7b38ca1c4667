"""Images from the ISIC archive: ``ISIC_0000000.jpg`` with ``ISIC_0000000.json`` beside it."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nakt_dist.sources.files import FoundFile, printable, walk
from nakt_dist.sources.listing import (
    finish_listing,
    image_record,
    missing_image,
    require_folder,
    unrecognised,
    wrong_layout,
)
from nakt_dist.sources.record import SourceListing, SourceRecord

FACTS = ("benign_malignant", "diagnosis", "melanocytic", "age_approx", "sex")
MAX_JSON_CHARACTERS = 2**20
_STEM = re.compile(r"ISIC_\d+(_downsampled)?", re.IGNORECASE)


def scan(root: Path) -> SourceListing:
    """Lists archive images at any depth; the archive's originals have no masks.

    The patient is the ``patient_id`` of the json, or its ``lesion_id``, so that images of
    one lesion stay together. An image whose json is missing or cannot be read is listed
    all the same and its labels say ``{"metadata": "missing"}`` or ``"unreadable"``.

    Args:
        root: the folder of the images.

    Raises:
        DatasetError: there is no archive image below ``root``.
    """
    require_folder(root)
    contents = walk(root)
    facts = {
        (file.folder, file.stem): file
        for file in contents.others
        if file.name.endswith(".json") and _STEM.fullmatch(file.stem)
    }
    records, described = [], set()
    for image in contents.images:
        if image.suffix not in (".jpg", ".jpeg") or not _STEM.fullmatch(image.stem):
            records.append(unrecognised(image, "'ISIC_NUMBER.jpg'"))
            continue
        key = (image.folder, image.stem)
        described.add(key)
        records.append(_record(image, facts.get(key)))
    if not described:
        raise wrong_layout(root, "isic_archive", "'ISIC_NUMBER.jpg' images")
    for key in facts.keys() - described:
        name = facts[key].name.removesuffix(".json") + ".jpg"
        records.append(missing_image(name, facts[key].path.with_suffix(".jpg"), "a json"))
    return finish_listing(contents, records, used_files=[file.name for file in facts.values()])


def _record(image: FoundFile, description: FoundFile | None) -> SourceRecord:
    if description is None:
        return image_record(image, labels={"metadata": "missing"})
    facts = _read_facts(description.path)
    if facts is None:
        return image_record(image, labels={"metadata": "unreadable"})
    patient = facts.get("patient_id")
    lesion = facts.get("lesion_id")
    return image_record(
        image,
        patient_id=str(patient) if patient else f"lesion {lesion}" if lesion else None,
        stratum=str(facts.get("benign_malignant") or ""),
        labels={name: facts[name] for name in FACTS if name in facts},
    )


def _read_facts(path: Path) -> dict[str, Any] | None:
    """Returns the plain values of the archive's json; None where it cannot be read.

    The archive has written the same facts under ``meta.clinical`` and, since, under
    ``metadata.clinical``; identifiers have stood beside ``clinical`` as well as in it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            # NaN is no JSON and would not survive being written again
            document = json.loads(file.read(MAX_JSON_CHARACTERS), parse_constant=lambda _: None)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, Mapping):
        return None
    facts: dict[str, Any] = {}
    outer = document.get("metadata") or document.get("meta")
    clinical = outer.get("clinical") if isinstance(outer, Mapping) else None
    for level in (document, outer, clinical):
        if isinstance(level, Mapping):
            facts |= {k: printable(v) if isinstance(v, str) else v for k, v in _plain(level)}
    return facts


def _plain(level: Mapping[str, Any]) -> Iterator[tuple[str, str | int | float]]:
    """Yields texts and numbers; what is too large for a number is infinite, and none."""
    for name, value in level.items():
        if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
            yield name, value
