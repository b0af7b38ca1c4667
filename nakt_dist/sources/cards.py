"""Dataset cards: what a dataset is, where to get it, and how many images it should have."""

import reprlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, StrictInt, StrictStr, TypeAdapter, ValidationError

from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.sources import SOURCES, SourceListing

NO_IMAGES = (
    "missing_image", "mask_without_image", "unrecognised_name", "not_in_table", "duplicate_image",
    "unreadable_row", "unsafe_path",
)  # fmt: skip
"""Problems of inputs that are no images of the dataset."""

_EXPECTED = {"labels": "a list of names", "expected_counts": "whole numbers or null by name"}

_Words = Annotated[StrictStr, Field(pattern=r"\S")]


@dataclass(frozen=True)
class DatasetCard:
    """One dataset, described.

    Attributes:
        name: the card's file name without its suffix.
        modality: how the images were taken, such as ``"ultrasound"``.
        task: what the published labels are for.
        layout: name in ``SOURCES`` of the layout that reads it.
        source: where to get it: the official page by name, or a DOI.
        labels: names of the image-level or pixel-level classes.
        expected_counts: images in the official release by what ``count_listing`` counts;
            None where the number is not known for certain.
        notes: what a user should know before using it.
    """

    name: str
    title: _Words
    modality: _Words
    task: _Words
    layout: _Words
    source: _Words
    licence: _Words
    citation: _Words
    labels: tuple[StrictStr, ...] = ()
    expected_counts: Mapping[StrictStr, StrictInt | None] = field(default_factory=dict)
    notes: _Words = ""


@dataclass(frozen=True)
class CountComparison:
    """One number of a card beside the number found.

    Attributes:
        what: what is counted, such as ``"class benign"``.
    """

    what: str
    expected: int
    found: int


def load_card(path_or_name: str | Path, cards_folder: Path) -> DatasetCard:
    """Reads a dataset card.

    Args:
        path_or_name: path of a YAML file, or the name of a card in ``cards_folder``.

    Raises:
        ConfigurationError: there is no such card, or a field is unknown, missing or of
            another type.
    """
    path = Path(path_or_name)
    if path.suffix not in (".yaml", ".yml"):
        path = cards_folder / f"{path_or_name}.yaml"
    if not path.is_file():
        known = sorted(card.stem for card in cards_folder.glob("*.yaml"))
        raise ConfigurationError(
            f"There is no dataset card '{path_or_name}'{nearest_name(path.stem, known)} "
            f"(in '{cards_folder}': {', '.join(known) or 'none'})"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigurationError(f"The card '{path}' cannot be read: {error}") from error
    return _card_from(content, path)


def count_listing(listing: SourceListing) -> dict[str, int]:
    """Counts a listing in the words that cards use.

    Images that a setting left out count as found; inputs whose image is not there or that
    are not images of the dataset (``NO_IMAGES``) do not. What the layout has counted itself
    (``SourceListing.found``) goes before.

    Returns:
        ``"images"``, ``"images with a mask"``, ``"class X"`` and ``"official split X"`` for
        each class and official split, and all that the layout has counted, such as ``"patients"``.
    """
    records = [r for r in listing.records if r.problem is None or r.problem[0] not in NO_IMAGES]
    counts = Counter(listing.left_out)
    counts["images"] = len(records) + sum(listing.left_out.values())
    counts["images with a mask"] = sum(bool(record.masks) for record in records)
    counts.update(f"class {record.stratum}" for record in records if record.stratum)
    splits = [record.official_split for record in records if record.official_split]
    counts.update(f"official split {split}" for split in splits)
    return dict(sorted({**counts, **listing.found}.items()))


def compare_counts(card: DatasetCard, listing: SourceListing) -> list[CountComparison]:
    """Puts the numbers that a card knows beside those of a listing, in the order of the card."""
    found = count_listing(listing)
    return [
        CountComparison(what, expected, found.get(what, 0))
        for what, expected in card.expected_counts.items()
        if expected is not None
    ]


def _card_from(content: Any, path: Path) -> DatasetCard:
    if not isinstance(content, dict):
        raise ConfigurationError(f"The card '{path}' holds no fields; expected 'title: ...'")
    known = [item.name for item in fields(DatasetCard) if item.name != "name"]
    for name in content:
        if name not in known:
            raise ConfigurationError(
                f"The card '{path}' has the unknown field '{name}'{nearest_name(str(name), known)} "
                f"(known: {', '.join(known)})"
            )
    try:
        card = TypeAdapter(DatasetCard).validate_python({**content, "name": path.stem})
    except ValidationError as error:
        first = min(error.errors(), key=lambda each: each["type"] != "missing")
        name = str(first["loc"][0])
        if first["type"] == "missing":
            raise ConfigurationError(f"The card '{path}' lacks the field '{name}'") from None
        raise ConfigurationError(
            f"'{name}' in the card '{path}' is {reprlib.repr(content[name])[:200]}; expected "
            f"{_EXPECTED.get(name, 'text')} (quote what YAML reads as another type)"
        ) from None
    if card.layout not in SOURCES:
        raise ConfigurationError(
            f"'layout' in the card '{path}' is '{card.layout}'"
            f"{nearest_name(card.layout, SOURCES)} (known: {', '.join(SOURCES)})"
        )
    return card
