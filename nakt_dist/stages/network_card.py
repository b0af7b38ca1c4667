"""What a user says of a network of others: its licence, and the images that it learnt from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nakt_dist.config.teaching import LearntImagesConfig, NetworkCardConfig, TrainingTeacherConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.weights_path import weights_path
from nakt_dist.records.lineage import OF_OUTPUTS
from nakt_dist.shards.picture_lists import PictureList, read_picture_list
from nakt_dist.shards.pictures import PicturesMet, read_pictures


def with_card(
    network: TrainedNetwork, config: TrainingTeacherConfig
) -> tuple[TrainedNetwork, PicturesMet]:
    """Joins a teacher with what is said of it.

    Returns:
        The teacher, whose lineage and notices hold its card; and the pictures that it met: those
        listed, or, without a card, those kept beside its weights.

    Raises:
        ConfigurationError: its file says itself what it learnt from.
        DatasetError: a list cannot be read, or what is kept beside the weights is damaged.
    """
    card = config.card
    if card is None:
        return network, read_pictures(weights_path(config.weights))
    if network.lineage.keys() - OF_OUTPUTS:
        raise ConfigurationError(
            f"teacher.card is set, but {config.weights} says itself what it learnt from; leave the "
            "card out"
        )
    lists = _lists(card)
    lineage, told = lineage_of_card(card, lists)
    carded = replace(
        network,
        lineage={**network.lineage, **lineage},
        notices=(*network.notices, f"{network.name}: {told}"),
    )
    numbers = [np.empty(0, np.int64), *(found.numbers for found in lists if found)]
    decided = all(map(_is_decided, card.trained_on, lists))
    unknown = frozenset() if decided else frozenset({"training"})
    return carded, PicturesMet({"training": np.unique(np.concatenate(numbers))}, unknown)


def lineage_of_card(
    card: NetworkCardConfig, lists: Sequence[PictureList | None] | None = None
) -> tuple[dict[str, Any], str]:
    """Returns the lineage that a card tells, and the card in words.

    Args:
        lists: the lists of pictures that it names; None reads them.

    Raises:
        DatasetError: one cannot be read.
    """
    lists = _lists(card) if lists is None else lists
    told = [_tell(each, found) for each, found in zip(card.trained_on, lists, strict=True)]
    lineage = {"licence": card.licence, **_lineage(card.trained_on, lists)}
    return lineage, f"licence {card.licence}; learnt from {'; '.join(told)}"


def _lists(card: NetworkCardConfig) -> list[PictureList | None]:
    return [
        read_picture_list(Path(each.images), each.dataset) if each.images else None
        for each in card.trained_on
    ]


def _is_decided(images: LearntImagesConfig, found: PictureList | None) -> bool:
    """Says whether a picture that is not found in the list was not learnt from."""
    return found is not None and images.complete and found.by_picture


def _tell(images: LearntImagesConfig, found: PictureList | None) -> str:
    if _is_decided(images, found):
        return f"{images.dataset}, all pictures of which are listed"
    if found is None:
        return f"{images.dataset}, without a list: which images these are cannot be known"
    known = "by its picture" if found.by_picture else "by its name in that dataset alone"
    return (
        f"{images.dataset}, of which {found.rows:,} are listed, each {known}: whether others were "
        "met cannot be known"
    )


def _lineage(
    trained_on: Sequence[LearntImagesConfig], lists: Sequence[PictureList | None]
) -> dict[str, Any]:
    """Returns what a lineage holds of several trainings, each network the parent of the next."""
    lineage: Mapping[str, Any] = {}
    for images, found in reversed(list(zip(trained_on, lists, strict=True))):
        learnt = {
            "dataset": images.dataset,
            "fingerprint": "",  # of no packing
            "phantom": False,
            "samples": 0 if found is None else found.rows,
        }
        before = {"parent": {"lineage": lineage}} if lineage else {}
        lineage = {"trained_on": learnt, **before}
    return dict(lineage)
