"""Datasets as published: what each layout holds, image by image, without reading a pixel."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.sources import (
    busi,
    chase_db1,
    chestxray14,
    chexpert,
    drive,
    image_folder,
    images_csv,
    isic2019,
    isic_archive,
    kaggle_nerve,
    mimic_cxr,
    paired_folders,
    voc2012,
)
from nakt_dist.sources.listing import SourceListing, SourceRecord
from nakt_dist.sources.patients import count_spelt_apart
from nakt_dist.sources.registry import Source

_LAYOUTS = (
    busi, paired_folders, kaggle_nerve, drive, chase_db1, isic2019, isic_archive, voc2012,
    image_folder, images_csv, chexpert, mimic_cxr, chestxray14,
)  # fmt: skip
"""Every layout, each a module of its own with a ``SOURCE``; docs/extending.md adds one."""

SOURCES: dict[str, Source] = {layout.SOURCE.name: layout.SOURCE for layout in _LAYOUTS}


def find_source(layout: str) -> Source:
    """Returns a layout by its name.

    Raises:
        ConfigurationError: there is none of this name.
    """
    if layout not in SOURCES:
        raise ConfigurationError(
            f"There is no layout '{layout}'{nearest_name(layout, SOURCES)} "
            f"(known: {', '.join(SOURCES)})"
        )
    return SOURCES[layout]


def scan_source(layout: str, root: Path, options: Mapping[str, Any]) -> SourceListing:
    """Lists the dataset below ``root``.

    Args:
        layout: a name in ``SOURCES``.
        options: settings of this layout; those left out keep their defaults.

    Raises:
        ConfigurationError: the layout, an option or its type is unknown.
        DatasetError: ``root`` is absent or not of this layout.
    """
    source = find_source(layout)
    return count_spelt_apart(source.scan(Path(root), **source.read_options(options)))


__all__ = ["SOURCES", "Source", "SourceListing", "SourceRecord", "find_source", "scan_source"]
