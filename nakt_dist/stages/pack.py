"""``nakt pack``: a dataset as published becomes shards, an index and a manifest.

First every input is read, converted and staged; then it is known which images are copies and
which cannot be used, the rest is divided into splits, and shards are put together.
"""

import contextlib
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nakt_dist.config import PackConfig, as_plain
from nakt_dist.errors import DatasetError
from nakt_dist.imaging.mask_rule import MaskRule
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.files import file_sha256
from nakt_dist.runtime.outputs import check_output
from nakt_dist.runtime.processes import say
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.runtime.shared_job import SharedJob
from nakt_dist.runtime.work import WorkLedger, sole_launch
from nakt_dist.shards.manifest import (
    MANIFEST_NAME,
    ShardManifest,
)
from nakt_dist.stages.mask_coverage import read_coverage
from nakt_dist.stages.opening import Opening
from nakt_dist.stages.pack_divide import ShardPlan, divide
from nakt_dist.stages.pack_finish import finalise
from nakt_dist.stages.pack_identity import check_deidentify
from nakt_dist.stages.pack_masks import judge_masks
from nakt_dist.stages.pack_plan import PackPlan, check_apart, make_plan, tolerated_problems
from nakt_dist.stages.pack_pool import Workers, refuse_import_by_worker
from nakt_dist.stages.pack_prepare import (
    Prepared,
    PrepareSettings,
    is_prepared,
    prepare,
    prepared_inputs,
)
from nakt_dist.stages.pack_shard import pack_shard
from nakt_dist.stages.pack_sources import (
    FileTimes,
    find_changes,
    remember_times,
)
from nakt_dist.stages.pack_summary import announce, announce_speed, compare_packed

PREPARED_NAME = "prepared"
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
    table = compare_packed(output, manifest)
    coverage = read_coverage(output, manifest)
    announce(config, job.plan, manifest, table, coverage, output)
    announce_speed(packed_now, stopwatch.seconds)
    return RunRecord(
        stage="pack",
        name=config.dataset_name,
        config=as_plain(config),
        counts=manifest.counts,
        metrics={"images_per_second": packed_now / max(stopwatch.seconds, 1e-9)},
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
        versions=package_versions(),
    )


def plan(config: PackConfig, opening: Opening, may_make_key: bool = False) -> "Packing | None":
    """Lists the dataset and chooses what is packed of it.

    Args:
        config: of the packing.
        opening: filled here.
        may_make_key: write a new key where ``deidentify`` is set and there is none.

    Returns:
        The packing; None where nobody knows what it would be, for want of the key or because
        ``opening`` gathers what is wrong.

    Raises:
        NaktError: as ``run``.
    """
    with opening.part("pack"):
        check_apart(config)
        key = Path(config.deidentify_key).expanduser()
        wants_key = config.deidentify and not key.exists()
        if config.deidentify:
            opening.facts["key"] = f"{key} ({'will be made' if wants_key else 'is there'})"
        if wants_key and not may_make_key:
            check_deidentify(config)
            _tell_source(config, make_plan(replace(config, deidentify=False)), opening)
            return None
        packing = Packing(config, make_plan(config, may_make_key))
        _tell_source(config, packing.plan, opening)
        return packing
    return None


def _tell_source(config: PackConfig, plan: PackPlan, opening: Opening) -> None:
    """Says what is to be packed, and what it will take."""
    unusable = sum(not each.usable for each in plan.inputs)
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

    Args:
        config: of the packing.
        plan: its inputs.
    """

    stage = "pack"
    written_last = MANIFEST_NAME
    others = "a dataset packed otherwise"

    def __init__(self, config: PackConfig, plan: PackPlan) -> None:
        super().__init__(config.output, plan.settings)
        self.config = config
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
        read = "modified" if self.config.trust_times else "touched"
        changes = find_changes(self.output, self.plan, read)
        if str(changes):
            raise self.refusal(str(changes))
        self.times = changes.times
        return manifest


def _pack(job: Packing) -> tuple[ShardManifest, int]:
    """Returns the manifest and how many inputs were read now rather than earlier."""
    manifest = job.begin()
    if manifest is not None:
        if job.times and not job.config.trust_times:  # then every touched file was read
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
    config, plan, output, ledger = job.config, job.plan, job.output, job.ledger
    with Workers(config.workers) as workers:
        try:
            rule, found = judge_masks(config, plan, ledger.folder, workers)
        except DatasetError:  # other settings will follow, which this ledger would refuse
            ledger.close()
            raise
        prepared, read_now = prepare_all(config, plan, rule, ledger.folder, workers)
        division = divide(config, plan, prepared)
        ledger.pieces = len(division.shards)
        write_shards(division.shards, output, ledger, workers)
    plan = replace(plan, found={**plan.found, **found, **division.found})
    manifest = job.finalise_or_wait(
        lambda: finalise(config, plan, division, prepared, output, ledger)
    )
    return manifest, read_now


def prepare_all(
    config: PackConfig, plan: PackPlan, rule: MaskRule, folder: Path, workers: Workers
) -> tuple[list[Prepared], int]:
    """Reads, converts and stages the inputs that are not yet staged.

    Args:
        config: of the packing.
        plan: its inputs.
        rule: what is target in binary masks.
        folder: of the packing's ledger; the files lie in one of its own there.
        workers: do the work.

    Returns:
        What was made of each input, in their order, and how many were read now, by whomever.
    """
    size = config.samples_per_shard
    pieces = [plan.inputs[at : at + size] for at in range(0, len(plan.inputs), size)]
    ledger = WorkLedger(folder / PREPARED_NAME, {}, len(pieces))
    ledger.open()
    settings = PrepareSettings(
        config.image, tolerated_problems(config), config.deidentify, plan.content_key, rule
    )
    unsound = ledger.unsound(lambda number: is_prepared(ledger, number, pieces[number], settings))
    read_now = sum(len(pieces[number]) for number in unsound)
    if read_now < len(plan.inputs):
        say(f"pack: {len(plan.inputs) - read_now} of {len(plan.inputs)} images are read already")
    with progress_bar("pack images", read_now) as advance:
        for number in workers.complete(
            ledger, unsound, prepare, lambda number: (ledger, number, pieces[number], settings)
        ):
            advance(len(pieces[number]))
    return list(prepared_inputs(ledger, pieces, settings)), read_now


def write_shards(
    shards: Sequence[ShardPlan], output: Path, ledger: WorkLedger, workers: Workers
) -> None:
    """Puts together the shards that are not there already.

    Args:
        shards: of the dataset, or some of them.
        output: the dataset's folder.
        ledger: of the shards; the staged files lie in a folder of its own.
        workers: do the work.
    """
    unsound = ledger.unsound(lambda number: _is_whole(ledger, number, shards[number], output))
    planned = {shard.name for shard in shards}
    for left in output.glob("*-[0-9][0-9][0-9][0-9][0-9][0-9].tar"):
        if left.name not in planned:  # of a source that has changed since the packing began
            left.unlink(missing_ok=True)
    if len(unsound) < len(shards):
        say(f"pack: {len(shards) - len(unsound)} of {len(shards)} shards are there already")
    with progress_bar("write shards", len(unsound)) as advance:
        for _ in workers.complete(
            ledger, unsound, _write_one, lambda number: (ledger, output, number, shards[number])
        ):
            advance(1)


def _write_one(ledger: WorkLedger, output: Path, number: int, shard: ShardPlan) -> None:
    receipt = pack_shard(output, ledger.folder, ledger.folder / PREPARED_NAME, number, shard)
    ledger.finish(number, {**receipt, "inputs": shard.inputs_sha256})


def _is_whole(ledger: WorkLedger, number: int, shard: ShardPlan, output: Path) -> bool:
    """Says whether a finished shard is on disk as its receipt says, and of these very inputs."""
    try:
        receipt = ledger.receipt(number)
        entry = receipt["entry"]
        same = receipt["inputs"] == shard.inputs_sha256 and entry["name"] == shard.name
        return same and file_sha256(output / shard.name) == entry["sha256"]
    except (OSError, DatasetError, KeyError):
        return False
