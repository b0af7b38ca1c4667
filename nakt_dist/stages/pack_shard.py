"""Reads, converts and writes the inputs of one shard; runs in a worker process."""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nakt_dist.config import ImageConfig
from nakt_dist.errors import UnusableSample
from nakt_dist.shards.writer import Member, write_shard
from nakt_dist.sources import SourceRecord
from nakt_dist.sources.deidentification import HIDDEN_DETAIL
from nakt_dist.sources.images import (
    encode_image,
    encode_mask_png,
    read_image,
    read_mask,
    resize_image,
    resize_mask,
)
from nakt_dist.sources.mask_rule import MaskRule
from nakt_dist.stages.mask_coverage import target_pixels
from nakt_dist.stages.pack_plan import ShardPlan, is_usable

_MASK_REMARKS = {
    "void": "images with void pixels, packed as background",
    "other": "images with mask values that are neither 0 nor named, packed as background",
    "turned_apart": "images turned by EXIF otherwise than their masks: check the overlays, and set "
    "mask_values.orientation to image where masks lie on images as stored",
}
"""By the names of what ``read_mask`` counts."""


def pack_shard(
    folder: Path,
    staging: Path,
    number: int,
    plan: ShardPlan,
    image: ImageConfig,
    masks: bool,
    tolerated: Collection[str],
    deidentified: bool,
    mask_rule: MaskRule,
) -> dict[str, Any]:
    """Writes one shard atomically.

    Args:
        folder: the dataset's output folder.
        staging: folder for the unfinished file.
        number: the shard's number.
        plan: its inputs.
        image: the form of the images.
        masks: whether masks are read.
        tolerated: reasons of problems for which an input is not set aside.
        deidentified: tell no more than the reason why an input is set aside.
        mask_rule: what is target in binary masks.

    Returns:
        A receipt: ``entry`` of the manifest, ``rows`` of the index, ``rejected`` rows, and of how
        many images masks were ``united_masks`` or, by words, worth a remark (``mask_remarks``).
    """
    rows: dict[str, dict[str, Any]] = {}
    rejected: list[dict[str, Any]] = []
    remarks: Counter[str] = Counter()

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for key, record in zip(plan.keys, plan.records, strict=True):
            try:
                if not is_usable(record, tolerated):
                    raise UnusableSample(*record.problem)
                files, facts = _convert(record, image, masks, mask_rule)
            except UnusableSample as error:
                detail = HIDDEN_DETAIL if deidentified else error.detail
                reason = {"reason": error.reason, "detail": detail}
                rejected.append({"source": record.name, "key": key, **reason})
                continue
            rows[key] = _row(key, number, plan.split, record, image)
            rows[key]["target_share"] = facts.pop("target_share", None)
            remarks.update(_MASK_REMARKS[what] for what, count in facts.items() if count)
            yield key, files

    entry, members = write_shard(folder / plan.name, plan.split, samples(), staging)
    for key, files in members.items():
        rows[key].update(_positions(files))
    by_key = dict(zip(plan.keys, plan.records, strict=True))
    return {
        "entry": asdict(entry),
        "rows": list(rows.values()),
        "rejected": rejected,
        "united_masks": sum(masks and len(by_key[key].masks) > 1 for key in rows),
        "mask_remarks": remarks,
    }


def _convert(
    record: SourceRecord, form: ImageConfig, masks: bool, rule: MaskRule
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Returns the files of one sample by extension, in the order in which they are packed.

    With them come facts about its masks: the counts of ``read_mask`` and ``target_share``.

    Raises:
        UnusableSample: with the reason why the input is set aside.
    """
    size = (form.height, form.width)
    pixels, info = read_image(
        record.image, form.colour, form.max_pixels, form.sixteen_bit, form.rendering
    )
    files = {
        form.encoding: encode_image(
            resize_image(pixels, size, form.fit), form.encoding, form.jpeg_quality
        )
    }
    facts: dict[str, Any] = {}
    if masks and record.masks:
        shape, turn = pixels.shape[:2], info["orientation"]
        mask, facts = read_mask(record, shape, form.max_pixels, rule, turn)
        mask = resize_mask(mask, size, form.fit, record.mask_kind)
        files["mask.png"] = encode_mask_png(mask)
        facts["target_share"] = float(target_pixels(mask, record.mask_kind).mean())
    description = {
        "source": record.name,
        "patient_id": record.patient_id,
        "labels": dict(record.labels),
        "findings": None if record.findings is None else dict(record.findings),
        "united_masks": len(record.masks) if masks else 0,
        **info,
    }
    files["json"] = json.dumps(description, sort_keys=True).encode()
    return files, facts


def _row(
    key: str, number: int, split: str, record: SourceRecord, image: ImageConfig
) -> dict[str, Any]:
    return {
        "key": key,
        "shard": number,
        "split": split,
        "patient_id": record.patient_id,
        "stratum": record.stratum,
        "source": record.name,
        "labels": json.dumps(dict(record.labels), sort_keys=True),
        "findings": (
            None if record.findings is None else json.dumps(dict(record.findings), sort_keys=True)
        ),
        "extension": image.encoding,
    }


def _positions(files: dict[str, Member]) -> dict[str, int]:
    """Returns the index columns that say where a sample's files lie."""
    names = {"mask.png": "mask", "json": "json"}
    return {
        f"{names.get(extension, 'image')}_{column}": value
        for extension, member in files.items()
        for column, value in asdict(member).items()
    }
