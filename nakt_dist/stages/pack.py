"""``nakt pack``: a dataset as published becomes shards, an index and a manifest.

First every input is read, converted and staged; then it is known which images are copies and
which cannot be used, the rest is divided into splits, and shards are put together.
"""

import contextlib
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from nakt_dist.config import PackConfig, as_plain
from nakt_dist.errors import DatasetError
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.outputs import check_output
from nakt_dist.runtime.shared_job import SharedJob
from nakt_dist.runtime.work import sole_launch
from nakt_dist.shards.manifest import MANIFEST_NAME, ShardManifest
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.split_table import compare_splits
from nakt_dist.stages.mask_coverage import summarise_coverage
from nakt_dist.stages.opening import NotOpened, Opening
from nakt_dist.stages.pack_divide import divide
from nakt_dist.stages.pack_finish import finalise
from nakt_dist.stages.pack_passes import judge_masks, prepare_all, write_shards
from nakt_dist.stages.pack_plan import PackPlan, check_apart, check_deidentify, make_plan
from nakt_dist.stages.pack_pool import Workers, refuse_import_by_worker
from nakt_dist.stages.pack_sources import FileTimes, find_changes, remember_times
from nakt_dist.stages.pack_summary import announce, announce_speed

_JPEG_BYTES_PER_PIXEL = 0.4
"""Rough, to notice a disk that is too small."""
_BYTES_PER_SAMPLE = 4096
"""Besides the pixels: three headers and their padding, JSON, a small mask, the tables of a JPEG,
and rows in the index and, until the end, in the ledger. Measured 2.7 to 4.1 KB on phantoms."""


def run(config: PackConfig) -> RunRecord:
    """Packs a dataset; takes up an interrupted packing where it stopped.

    Any number of processes may pack together, each with its own workers. The bytes of every file
    depend on the source and the settings alone, not on their number nor on interruptions
    (promise 1). Every input ends in exactly one shard or in ``rejected.parquet`` (promise 2).

    Raises:
        ConfigurationError: a setting is wrong.
        DatasetError: the source is not of the layout, or the output holds something else.
    """
    refuse_import_by_worker()
    stopwatch = Stopwatch()
    job = plan(config, Opening(), may_make_key=True)
    output = job.output
    check_output(output, "pack")
    output.mkdir(parents=True, exist_ok=True)
    try:
        with sole_launch(output, "pack"):
            manifest, packed_now = _pack(job)
    except DatasetError:
        with contextlib.suppress(OSError):  # unless something was written
            output.rmdir()
        raise
    images = IndexedShards(output)
    table = compare_splits(images.index, images.findings(), manifest.findings)
    coverage = summarise_coverage(images.index)
    announce(job.plan, manifest, table, coverage, output)
    announce_speed(packed_now, stopwatch.seconds)
    return RunRecord(
        stage="pack",
        name=config.dataset_name,
        config=as_plain(config),
        counts=manifest.counts,
        details={
            "splits": manifest.splits,
            "patients": manifest.patients,
            "found": manifest.found,
            "positives": {row.what: row.counts for row in table if row.what in manifest.findings},
            "splits_differ": [row.what for row in table if row.differs],
            "coverage": coverage,
            "fingerprint": manifest.fingerprint,
        },
        seconds=stopwatch.seconds,
        speed=stopwatch.speed(packed_now),
        versions=package_versions(),
    )


def plan(config: PackConfig, opening: Opening, may_make_key: bool = False) -> "Packing":
    """Lists the dataset and chooses what is packed of it; may write a key that is not there.

    Without the key nobody knows what the packing would be, so that there is none to return.
    """
    with opening.part("pack"):
        check_apart(config)
        key = Path(config.deidentify_key).expanduser()
        wants_key = config.deidentify and not key.exists()
        if config.deidentify:
            opening.facts["key"] = f"{key} ({'will be made' if wants_key else 'is there'})"
        if wants_key and not may_make_key:
            check_deidentify(config)
            _tell_source(make_plan(replace(config, deidentify=False)), opening)
            raise NotOpened
        whole = make_plan(config, may_make_key)
        _tell_source(whole, opening)
        return Packing(whole)
    raise NotOpened


def _tell_source(plan: PackPlan, opening: Opening) -> None:
    """Says what is to be packed, and what it will take."""
    config, unusable = plan.config, sum(not each.usable for each in plan.inputs)
    opening.facts["source"] = (
        f"{len(plan.inputs):,} inputs of layout {config.layout} in {config.source}, "
        f"{unusable:,} of them without a file, a label or a mask that should be there"
    )
    form = config.image
    per_pixel = _JPEG_BYTES_PER_PIXEL if form.encoding == "jpg" else 1
    channels = 1 if form.colour == "grey" else 3
    per_sample = form.height * form.width * channels * per_pixel + _BYTES_PER_SAMPLE
    # Until the end, what was read is staged beside the shards.
    opening.disk = int(2 * len(plan.inputs) * per_sample)
    shards = len(plan.inputs) // config.samples_per_shard + len(config.splits.fractions)
    opening.disk += shards * tarfile.RECORDSIZE


class Packing(SharedJob[ShardManifest]):
    """The packing of one dataset; how many shards it has is known once they are divided.

    Whether the source has changed since a packing began is looked at piece by piece.
    """

    stage = "pack"
    written_last = MANIFEST_NAME
    others = "a dataset packed otherwise"

    def __init__(self, plan: PackPlan) -> None:
        super().__init__(plan.config.output, plan.settings)
        self.plan = plan
        self.times: Mapping[str, tuple[FileTimes, ...]] = {}

    def read(self) -> tuple[Mapping[str, Any], ShardManifest]:
        """Reads the manifest, which holds the identity."""
        manifest = ShardManifest.read(self.output)
        return manifest.config, manifest

    def finished(self) -> ShardManifest | None:
        """Returns the manifest once it is there; ``times`` are then those of files read anew.

        Raises:
            DatasetError: it is that of a dataset packed otherwise, or from files that have changed.
        """
        manifest = super().finished()
        if manifest is None:
            return None
        if manifest.findings != self.plan.findings:
            found, wanted = (", ".join(each.findings) for each in (manifest, self.plan))
            raise self.refusal(f"findings {found}, now {wanted}")
        trusts = self.plan.config.trust_times
        read: Literal["modified", "touched"] = "modified" if trusts else "touched"
        changed, self.times = find_changes(self.output, self.plan, read)
        if changed:
            raise self.refusal(changed)
        return manifest


JOB = Packing


def _pack(job: Packing) -> tuple[ShardManifest, int]:
    """Returns the manifest and how many inputs were read now rather than earlier."""
    manifest = job.begin()
    if manifest is not None:
        if job.times and not job.plan.config.trust_times:  # then every touched file was read
            remember_times(job.output, job.times, job.plan.content_key)
        return manifest, 0
    try:
        return _pack_pieces(job)
    except (DatasetError, OSError):
        manifest = job.finished()
        if manifest is None:
            raise
        return manifest, 0  # others were done while this one looked, and took the ledger away


def _pack_pieces(job: Packing) -> tuple[ShardManifest, int]:
    """Does this process's part of the three passes; each begins when the one before is done."""
    plan, output, ledger = job.plan, job.output, job.ledger
    with Workers(plan.config.workers) as workers:
        try:
            rule, found = judge_masks(plan, ledger.folder, workers)
        except DatasetError:  # other settings will follow, which this ledger would refuse
            ledger.close()
            raise
        prepared, read_now = prepare_all(plan, rule, ledger.folder, workers)
        shards, copies = divide(plan, prepared)
        ledger.pieces = len(shards)
        write_shards(shards, output, ledger, workers)
    plan = replace(plan, found={**plan.found, **found, **copies})
    manifest = job.finalise_or_wait(lambda: finalise(plan, shards, prepared, output, ledger))
    return manifest, read_now
