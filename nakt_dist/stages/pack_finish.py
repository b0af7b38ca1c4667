"""Writes the tables and the manifest of a packed dataset, and checks that no input is lost."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from nakt_dist.config import save_config
from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import file_sha256, flush_folder
from nakt_dist.runtime.work import WorkLedger
from nakt_dist.shards.manifest import INDEX_NAME, REJECTED_NAME, ShardEntry, ShardManifest
from nakt_dist.shards.tables import INDEX_SCHEMA, REJECTED_SCHEMA, write_table
from nakt_dist.sources.findings import LabelUse
from nakt_dist.sources.listing import MaskKind
from nakt_dist.stages.mask_coverage import LOST_TARGETS
from nakt_dist.stages.pack_divide import ShardPlan
from nakt_dist.stages.pack_plan import PackPlan, kept_layout_options
from nakt_dist.stages.pack_prepare import Prepared
from nakt_dist.stages.pack_sources import SOURCES_NAME, SOURCES_SCHEMA, remember_times

_LARGEST_VOCABULARY = 100
_NOT_KEPT = ("output", "workers", "trust_times", "deidentify_key")
_REMARKS = {
    "other_bits": "DICOM pictures with bits beside their values (overlays, or a header that says "
    "too few bits), left out",
    "burned_in": "DICOM pictures that hold text, says their header (BurnedInAnnotation): it may "
    "name patients, and is packed as it is",
    "constant": "pictures of one value everywhere",
    "holds_more": "images of which a file, theirs or a mask's, holds several pictures (pages or "
    "frames); the first alone is read",
    "void": "images with void pixels, packed as background",
    "other": "images with mask values that are neither 0 nor named, packed as background",
    "turned_apart": "images turned by EXIF otherwise than their masks: check the overlays, and set "
    "mask_values.orientation to image where masks lie on images as stored",
    "lost": LOST_TARGETS,
}
"""By what was noticed of single images."""


def write_tables(
    folder: Path,
    plan: PackPlan,
    prepared: Sequence[Prepared],
    rows: Iterator[list[Mapping[str, Any]]],
    staging: Path,
) -> None:
    """Writes the tables beside the shards; ``rows`` are those of the index, shard by shard."""
    write_table(folder / INDEX_NAME, INDEX_SCHEMA, rows, staging)
    columns = REJECTED_SCHEMA.names
    rejected = (
        [dict(zip(columns, (each.record.name, made.key, made.reason, made.detail), strict=True))]
        for each, made in zip(plan.inputs, prepared, strict=True)
        if made.reason is not None
    )
    write_table(folder / REJECTED_NAME, REJECTED_SCHEMA, rejected, staging)
    _write_sources(folder, plan, prepared, staging)


def finalise(
    plan: PackPlan,
    shards: Sequence[ShardPlan],
    prepared: Sequence[Prepared],
    output: Path,
    ledger: WorkLedger,
) -> ShardManifest:
    """Writes the tables and, last of all, the manifest; all shards are written by now.

    Raises:
        DatasetError: no input could be packed, or the sums do not hold.
    """
    config, staging = plan.config, ledger.folder
    rejected = [made for made in prepared if made.reason is not None]
    if len(rejected) == len(prepared):
        first = plan.inputs[0].record.name
        raise DatasetError(
            f"{config.source}: none of its {len(prepared)} inputs could be packed; the first, "
            f"{first}: {rejected[0].detail}"
        )
    summary = _Summary()
    write_tables(output, plan, prepared, summary.rows(ledger, shards), staging)
    if summary.packed + len(rejected) != len(plan.inputs):
        raise DatasetError(
            f"{output}: {summary.packed} packed and {len(rejected)} rejected are not the "
            f"{len(plan.inputs)} inputs; delete the folder and pack again, and report this"
        )
    remarks = Counter(what for made in prepared for what in made.remarks)
    remarks["constant"] = sum(made.constant for made in prepared)
    found = {words: remarks[what] for what, words in _REMARKS.items() if remarks[what]}
    manifest = ShardManifest(
        shards=tuple(summary.shards),
        files={
            name: file_sha256(output / name) for name in (INDEX_NAME, REJECTED_NAME, SOURCES_NAME)
        },
        dataset=config.dataset_name,
        phantom=plan.phantom,
        height=config.image.height,
        width=config.image.width,
        channels=1 if config.image.colour == "grey" else 3,
        mask_kind=(kind := _mask_kind(plan)),
        classes=plan.classes if kind == "classes" else (),
        splits=dict(summary.splits),
        counts={
            "inputs": len(plan.inputs),
            "packed": summary.packed,
            "rejected": len(rejected),
            "left_out": sum(plan.left_out.values()),
            "united_masks": sum(made.united_masks for made in prepared),
        },
        left_out=dict(plan.left_out),
        ignored_files=dict(plan.ignored_files),
        vocabulary=summary.vocabulary(),
        findings=plan.findings,
        label_policy={
            "uncertain": cast(LabelUse, config.labels.uncertain),  # the settings allow no other
            "blank": config.labels.blank,
        },
        patients={"known": len(summary.patients), "images_without": summary.without_patient},
        found={**plan.found, **found},
        config=dict(plan.settings),
    )
    kept = replace(config, layout_options=kept_layout_options(config))
    hidden = ("source",) if config.deidentify else ()
    save_config(kept, output, leave_out=(*_NOT_KEPT, *hidden), staging=staging)
    flush_folder(output)
    manifest.write(output, staging)
    return manifest


class _Summary:
    """Sums over the receipts, gathered while the index streams by."""

    def __init__(self) -> None:
        self.shards: list[ShardEntry] = []
        self.splits: Counter[str] = Counter()
        self.packed = self.without_patient = 0
        self.patients: set[str] = set()
        self._labels: dict[str, set[str]] = defaultdict(set)

    def rows(
        self, ledger: WorkLedger, shards: Sequence[ShardPlan]
    ) -> Iterator[list[Mapping[str, Any]]]:
        """Yields the index rows of each shard, after checking that none is lost or doubled."""
        for shard, receipt in zip(shards, ledger.receipts(), strict=True):
            keys = [row["key"] for row in receipt["rows"]]
            planned = [made.key for made in shard.prepared]
            found = (keys, receipt["inputs"], receipt["entry"]["name"])
            if found != (planned, shard.inputs_sha256, shard.name):
                raise DatasetError(
                    f"{shard.name}: holds other samples than were planned for it; delete the "
                    "output and pack again, and report this"
                )
            entry = ShardEntry(**receipt["entry"])
            self.shards.append(entry)
            self.splits[entry.split] += entry.samples
            self.packed += entry.samples
            for row in receipt["rows"]:
                if row["patient_id"] is None:
                    self.without_patient += 1
                else:
                    self.patients.add(row["patient_id"])
                for name, value in json.loads(row["labels"]).items():
                    if isinstance(value, str) and len(self._labels[name]) <= _LARGEST_VOCABULARY:
                        self._labels[name].add(value)
            yield receipt["rows"]

    def vocabulary(self) -> dict[str, list[str]]:
        """Distinct values of each textual label; free text, with too many of them, left out."""
        return {
            name: sorted(values)
            for name, values in sorted(self._labels.items())
            if 0 < len(values) <= _LARGEST_VOCABULARY
        }


def _mask_kind(plan: PackPlan) -> MaskKind:
    kinds = {each.record.mask_kind for each in plan.inputs if each.record.masks}
    if len(kinds) > 1:
        raise DatasetError(f"the layout mixes masks of kinds {sorted(kinds)}; pack them apart")
    return kinds.pop() if kinds else "none"


def _write_sources(
    folder: Path, plan: PackPlan, prepared: Sequence[Prepared], staging: Path
) -> None:
    """Writes what the dataset was packed from, and when that was last seen to change."""
    rows = ([{name: getattr(made, name) for name in SOURCES_SCHEMA.names}] for made in prepared)
    write_table(folder / SOURCES_NAME, SOURCES_SCHEMA, rows, staging)
    remember_times(folder, {made.key: made.times for made in prepared}, plan.content_key, staging)
