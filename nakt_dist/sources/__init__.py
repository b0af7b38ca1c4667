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
from nakt_dist.sources.patients import count_spelt_apart
from nakt_dist.sources.record import SourceListing, SourceRecord
from nakt_dist.sources.registry import Source

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("busi", busi.scan, card="busi"),
        Source("paired_folders", paired_folders.scan),
        Source("kaggle_nerve", kaggle_nerve.scan, card="kaggle_nerve"),
        Source("drive", drive.scan, card="drive"),
        Source("chase_db1", chase_db1.scan, card="chase_db1"),
        Source("isic2019", isic2019.scan, card="isic2019"),
        Source("isic_archive", isic_archive.scan, card="isic_archive"),
        Source("voc2012", voc2012.scan, card="voc2012"),
        Source("image_folder", image_folder.scan, card="image_folder"),
        Source("images_csv", images_csv.scan),
        Source("chexpert", chexpert.scan, card="chexpert"),
        Source("mimic_cxr", mimic_cxr.scan, card="mimic_cxr"),
        Source(
            "chestxray14",
            chestxray14.scan,
            card="chestxray14",
            split_files=tuple(chestxray14.LISTS.values()),
        ),
    )
}


def scan_source(layout: str, root: Path, options: Mapping[str, Any]) -> SourceListing:
    """Lists the dataset below ``root``.

    Args:
        layout: a name in ``SOURCES``.
        root: the dataset's folder.
        options: settings of this layout; those left out keep their defaults.

    Raises:
        ConfigurationError: the layout, an option or its type is unknown.
        DatasetError: ``root`` is absent or not of this layout.
    """
    if layout not in SOURCES:
        raise ConfigurationError(
            f"There is no layout '{layout}'{nearest_name(layout, SOURCES)} "
            f"(known: {', '.join(SOURCES)})"
        )
    source = SOURCES[layout]
    return count_spelt_apart(source.scan(Path(root), **source.read_options(options)))


__all__ = ["SOURCES", "Source", "SourceListing", "SourceRecord", "scan_source"]
