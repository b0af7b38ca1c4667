"""The exclusion explorer: which images a rule excludes, while its thresholds are moved."""

import functools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import yaml

from nakt_dist.config.saving import CONFIG_NAME
from nakt_dist.config.yaml_files import load_document
from nakt_dist.errors import DatasetError, NaktError, UnusableSample
from nakt_dist.imaging.packed import decode_pixels, encode_mask_png
from nakt_dist.records.pseudo_sets import read_pseudo_set
from nakt_dist.runtime.files import read_regular_file
from nakt_dist.shards.manifest import MANIFEST_NAME, PseudoLabelManifest
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.transfer.exclusion import REFERENCE_PIXELS, ExclusionRule
from nakt_dist.watch.pseudo_statistics import (
    FoundSet,
    find_dataset,
    find_sets,
    pack_statistics,
    without_folder,
)
from nakt_dist.watch.web import Request, Response, json_response

PARTS = ("image", "soft")
"""What can be asked for of an image: its picture, and its pseudo mask."""

_PNG = b"\x89PNG\r\n\x1a\n"


class Explorer:
    """What the explorer's page asks for.

    Args:
        folders: below which sets of pseudo-labels, and the datasets they are of, are looked for.
        images: whether images may be shown; otherwise none is ever read.
    """

    def __init__(self, folders: Sequence[Path], images: bool = False) -> None:
        self._folders = tuple(folders)
        self._images = images
        self._sets: dict[str, FoundSet] = {}
        self._opened: dict[str, tuple[PseudoLabels, IndexedShards]] = {}
        self._lock = threading.Lock()

    def describe(self) -> dict[str, Any]:
        """Returns the sets there are now, the paper's rule, and whether images may be shown."""
        self._sets = find_sets(self._folders)
        return {
            "sets": [found.describe() for found in self._sets.values()],
            "rule": ExclusionRule().to_json(),
            "reference_pixels": REFERENCE_PIXELS,
            "images": self._images,
        }

    def statistics(self, place: str) -> bytes:
        """Returns the statistics of a set, as ``pack_statistics`` does.

        Raises:
            DatasetError: there is no such set, or it cannot be read; names no folder of the
                machine.
        """
        found = self._find(place)
        try:
            return pack_statistics(found)
        except DatasetError as error:
            raise DatasetError(without_folder(error, found.folder)) from None

    def picture(self, place: str, row: int, part: str) -> tuple[str, bytes]:
        """Reads an image or its pseudo mask at its place in the shards.

        Nothing is decoded but the masks of several classes, which are shown together.

        Args:
            row: of the statistics.
            part: one of ``PARTS``.

        Returns:
            Its media type and its bytes, whose checksum was compared.

        Raises:
            DatasetError: images may not be shown, or this one is not there or damaged.
        """
        if not self._images:
            raise DatasetError("images are not shown: start nakt watch with --images true")
        found = self._find(place)
        try:
            labels, images = self._open(found)
            if part not in PARTS or not 0 <= row < len(labels.shard_numbers):
                raise DatasetError(f"no part {part!r} of an image {row}")
            read = images.image_bytes if part == "image" else labels.soft_mask_bytes
            data = read(row)
            if part == "soft" and labels.manifest.classes:
                data = _together(data, labels.manifest.planes)
        except (DatasetError, UnusableSample) as error:
            raise DatasetError(without_folder(error, found.folder)) from None
        return ("image/png" if data.startswith(_PNG) else "image/jpeg"), data

    def _find(self, place: str) -> FoundSet:
        if place not in self._sets:
            self._sets = find_sets(self._folders)
        if place not in self._sets:
            raise DatasetError(
                f"there are no pseudo-labels {place!r} any more. Load the page again"
            )
        return self._sets[place]

    def _open(self, found: FoundSet) -> tuple[PseudoLabels, IndexedShards]:
        """Opens a set and its dataset, both in the order of the set's own rows."""
        if found.manifest is None:
            raise DatasetError(found.problem or "damaged")
        fingerprint = found.manifest.fingerprint
        with self._lock:
            if fingerprint not in self._opened:
                self._opened[fingerprint] = self._opened_now(found, found.manifest)
            return self._opened[fingerprint]

    def _opened_now(
        self, found: FoundSet, manifest: PseudoLabelManifest
    ) -> tuple[PseudoLabels, IndexedShards]:
        folder = find_dataset(self._folders, manifest.dataset_fingerprint) or _named_dataset(found)
        if folder is None:
            raise DatasetError(
                f"the packed dataset {manifest.dataset!r} that these pseudo-labels were made for "
                "is not below the watched folders. Name its folder to nakt watch as well"
            )
        images = IndexedShards(folder)
        keys = read_pseudo_set(found.folder).statistics["key"]
        rows = pc.index_in(keys, value_set=images.column("key").combine_chunks())
        if rows.null_count:
            raise DatasetError("keys of these pseudo-labels are not in their dataset")
        images = images.select(rows.to_numpy())
        return PseudoLabels(found.folder, images), images


def _together(data: bytes, planes: int) -> bytes:
    """Returns the mask of all classes together, as a page shows it, of one plane for each."""
    levels = decode_pixels(data)[0]
    levels = levels.reshape(planes, -1, levels.shape[1]).sum(0, dtype=np.uint16)
    return encode_mask_png(levels.clip(max=255).astype(np.uint8))


def _named_dataset(found: FoundSet) -> Path | None:
    """Returns the dataset's folder as ``nakt teach`` was given it, where it is there."""
    try:
        value = load_document(read_regular_file(found.folder / CONFIG_NAME, 2**20).decode())
        folder = Path(value["dataset"])
        return folder if (folder / MANIFEST_NAME).is_file() else None
    except (OSError, NaktError, yaml.YAMLError, TypeError, KeyError, ValueError):
        return None


@functools.cache
def _explorer(folders: tuple[Path, ...], images: bool) -> Explorer:
    return Explorer(folders, images)


def _of(request: Request) -> Explorer:
    # Behind a proxy the page has left this machine; its images have not.
    images = request.config.images and not request.config.hosts
    return _explorer(tuple(request.collector.folders), images)


def pseudo_sets(request: Request) -> Response:
    """``/api/pseudo-sets``: the sets of pseudo-labels there are now, and the paper's rule."""
    return json_response(_of(request).describe())


def pseudo_statistics(request: Request) -> Response:
    """``/api/pseudo-statistics?set=PLACE``: statistics of every image, see ``pack_statistics``."""
    data = _of(request).statistics(request.query.get("set", ""))
    return Response(data, "application/octet-stream")


def pseudo_image(request: Request) -> Response:
    """``/api/pseudo-image?set=PLACE&row=N&part=image``: an image or, ``soft``, its mask."""
    place, part = request.query.get("set", ""), request.query.get("part", "")
    kind, data = _of(request).picture(place, request.number("row", 0), part)
    return Response(data, kind)
