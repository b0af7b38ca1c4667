"""``nakt pack``: a dataset as published becomes shards, an index and a manifest.

First every input is read, converted and staged; then it is known which images are copies and
which cannot be used, the rest is divided into splits, and shards are put together.
"""

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nakt_dist.config import PackConfig, as_plain, save_config
from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import differing_fields, file_sha256, flush_folder, value_sha256
from nakt_dist.runtime.outputs import check_output
from nakt_dist.runtime.processes import require_one_process, say
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.runtime.record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.work import WorkLedger, sole_user
from nakt_dist.shards.manifest import (
    INDEX_NAME,
    MANIFEST_NAME,
    REJECTED_NAME,
    ShardEntry,
    ShardManifest,
)
from nakt_dist.shards.tables import INDEX_SCHEMA, REJECTED_SCHEMA, write_table
from nakt_dist.sources.mask_rule import MaskRule
from nakt_dist.stages.mask_coverage import read_coverage
from nakt_dist.stages.pack_divide import Division, ShardPlan, divide
from nakt_dist.stages.pack_identity import kept_layout_options
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
    SOURCES_NAME,
    facts_of,
    find_changes,
    times_of,
    write_sources,
)
from nakt_dist.stages.pack_summary import announce, announce_speed, compare_packed

LEDGER_NAME = ".pack"
PREPARED_NAME = "prepared"
_LARGEST_VOCABULARY = 100
_REMARKS = {
    "constant": "pictures of one value everywhere",
    "void": "images with void pixels, packed as background",
    "other": "images with mask values that are neither 0 nor named, packed as background",
    "turned_apart": "images turned by EXIF otherwise than their masks: check the overlays, and set "
    "mask_values.orientation to image where masks lie on images as stored",
}
"""By what was noticed of single images."""


def run(config: PackConfig) -> RunRecord:
    """Packs a dataset; takes up an interrupted packing where it stopped.

    The bytes of every file depend on the source and the settings alone, not on the number of
    workers nor on interruptions (promise 1). Every input ends in exactly one shard or in
    ``rejected.parquet`` (promise 2).

    Raises:
        ConfigurationError: a setting is wrong, or several processes were started; pack makes
            its own workers.
        DatasetError: the source is not of the layout, or the output holds something else.
    """
    refuse_import_by_worker()
    require_one_process("pack")
    stopwatch = Stopwatch()
    output = Path(config.output)
    check_apart(config)
    plan = make_plan(config)
    check_output(output, "pack")
    output.mkdir(parents=True, exist_ok=True)
    try:
        with sole_user(output, "pack"):
            manifest, packed_now = _pack(config, plan, output)
    except DatasetError:
        with contextlib.suppress(OSError):  # unless something was written
            output.rmdir()
        raise
    table = compare_packed(output, manifest)
    coverage = read_coverage(output, manifest)
    announce(config, plan, manifest, table, coverage, output)
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


def _pack(config: PackConfig, plan: PackPlan, output: Path) -> tuple[ShardManifest, int]:
    """Returns the manifest and how many inputs were read now rather than earlier."""
    manifest = _finished(config, plan, output)
    ledger = _ledger(plan, output)
    if manifest is not None:
        ledger.close()  # a kill may have left it
        return manifest, 0
    ledger.open()
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
    found = {**plan.found, **found, **division.identical}
    manifest = _finalise(config, replace(plan, found=found), division, prepared, output, ledger)
    ledger.close()
    return manifest, read_now


def check_own_output(config: PackConfig, plan: PackPlan, output: Path) -> None:
    """Looks whether an output is absent, or of this very packing, and writes nothing.

    Raises:
        DatasetError: it holds a dataset packed otherwise, or an unfinished one.
    """
    if _finished(config, plan, output) is None:
        _ledger(plan, output).check()


def _ledger(plan: PackPlan, output: Path) -> WorkLedger:
    """Returns the ledger of the shards; how many there will be is known once they are divided."""
    listing = [
        [
            each.key,
            facts_of(each.record, plan.content_key),
            [time[:2] for time in times_of(each.record)],
        ]
        for each in plan.inputs
    ]
    identity = {
        **plan.settings,
        "findings": list(plan.findings),
        "listing_sha256": value_sha256(listing),
    }
    return WorkLedger(output / LEDGER_NAME, identity, 0)


def _finished(config: PackConfig, plan: PackPlan, output: Path) -> ShardManifest | None:
    """Returns the manifest of this packing, once it is done.

    Raises:
        DatasetError: it is that of a dataset packed otherwise, or from files that have changed.
    """
    if not (output / MANIFEST_NAME).exists():
        return None
    manifest = ShardManifest.read(output)
    settings = json.loads(json.dumps(plan.settings))
    if manifest.config != settings:
        what = "; ".join(differing_fields(manifest.config, settings)[:5])
    elif manifest.findings != plan.findings:
        what = f"findings {', '.join(manifest.findings)}, now {', '.join(plan.findings)}"
    else:
        read = "modified" if config.trust_times else "touched"
        what = str(find_changes(output, plan, read))
    if what:
        raise DatasetError(
            f"{output}: already holds a dataset packed otherwise ({what}). "
            "Choose another --output, or delete the folder"
        )
    return manifest


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
        What was made of each input, in their order, and how many were read now.
    """
    size = config.samples_per_shard
    pieces = [plan.inputs[at : at + size] for at in range(0, len(plan.inputs), size)]
    ledger = WorkLedger(folder / PREPARED_NAME, {}, len(pieces))
    ledger.open()
    settings = PrepareSettings(
        config.image, tolerated_problems(config), config.deidentify, plan.content_key, rule
    )
    tasks = {
        number: (ledger, number, inputs, settings)
        for number, inputs in enumerate(pieces)
        if not is_prepared(ledger, number, inputs, plan.content_key)
    }
    read_now = sum(len(pieces[number]) for number in tasks)
    if read_now < len(plan.inputs):
        say(f"pack: {len(plan.inputs) - read_now} of {len(plan.inputs)} images are read already")
    with progress_bar("pack images", read_now) as advance:
        for number in workers.run(prepare, tasks):
            advance(len(pieces[number]))
    return list(prepared_inputs(ledger)), read_now


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
    tasks = {
        number: (ledger, output, number, shard)
        for number, shard in enumerate(shards)
        if not _is_whole(ledger, number, shard, output)
    }
    if len(tasks) < len(shards):
        say(f"pack: {len(shards) - len(tasks)} of {len(shards)} shards are there already")
    with progress_bar("write shards", len(tasks)) as advance:
        for _ in workers.run(_write_one, tasks):
            advance(1)


def _write_one(ledger: WorkLedger, output: Path, number: int, shard: ShardPlan) -> None:
    receipt = pack_shard(output, ledger.folder, ledger.folder / PREPARED_NAME, number, shard)
    ledger.finish(number, {**receipt, "inputs": _inputs_sha256(shard)})


def _is_whole(ledger: WorkLedger, number: int, shard: ShardPlan, output: Path) -> bool:
    """Says whether a finished shard is on disk as its receipt says, and of these very inputs."""
    if not ledger.is_finished(number):
        return False
    try:
        receipt = ledger.receipt(number)
        entry = receipt["entry"]
        same = receipt["inputs"] == _inputs_sha256(shard) and entry["name"] == shard.name
        return same and file_sha256(output / shard.name) == entry["sha256"]
    except (OSError, DatasetError, KeyError):
        return False


def _inputs_sha256(shard: ShardPlan) -> str:
    return value_sha256([[made.key, made.image, made.masks] for made in shard.prepared])


def write_tables(
    folder: Path,
    plan: PackPlan,
    prepared: Sequence[Prepared],
    rows: Iterator[list[Mapping[str, Any]]],
    staging: Path,
) -> None:
    """Writes the tables beside the shards.

    Args:
        folder: the dataset's folder.
        plan: its inputs.
        prepared: what was made of each of them.
        rows: of the index, shard by shard.
        staging: folder for the unfinished files.
    """
    write_table(folder / INDEX_NAME, INDEX_SCHEMA, rows, staging)
    rejected = (
        [
            {
                "source": each.record.name,
                "key": made.key,
                "reason": made.reason,
                "detail": made.detail,
            }
        ]
        for each, made in zip(plan.inputs, prepared, strict=True)
        if made.reason is not None
    )
    write_table(folder / REJECTED_NAME, REJECTED_SCHEMA, rejected, staging)
    write_sources(folder, plan, prepared, staging)


def _finalise(
    config: PackConfig,
    plan: PackPlan,
    division: Division,
    prepared: Sequence[Prepared],
    output: Path,
    ledger: WorkLedger,
) -> ShardManifest:
    """Writes the tables and, last of all, the manifest."""
    staging = ledger.folder
    rejected = [made for made in prepared if made.reason is not None]
    if len(rejected) == len(prepared):
        first = plan.inputs[0].record.name
        raise DatasetError(
            f"{config.source}: none of its {len(prepared)} inputs could be packed; the first, "
            f"{first}: {rejected[0].detail}"
        )
    summary = _Summary()
    write_tables(output, plan, prepared, summary.rows(ledger, division.shards), staging)
    if summary.packed + len(rejected) != len(plan.inputs):
        raise DatasetError(
            f"{output}: {summary.packed} packed and {len(rejected)} rejected are not the "
            f"{len(plan.inputs)} inputs; delete the folder and pack again, and report this"
        )
    remarks = Counter(what for made in prepared for what in made.mask_remarks)
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
        mask_kind=_mask_kind(plan),
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
        label_policy=asdict(config.labels),
        patients=summary.patient_counts(),
        found={**plan.found, **found},
        config=dict(plan.settings),
    )
    left_out = ("output", "workers", "trust_times", "deidentify_key")
    if config.deidentify:
        left_out = (*left_out, "source")
    kept = replace(config, layout_options=kept_layout_options(config))
    save_config(kept, output, leave_out=left_out, staging=staging)
    flush_folder(output)
    manifest.write(output, staging)
    return manifest


class _Summary:
    """Sums over the receipts, gathered while the index streams by."""

    def __init__(self) -> None:
        self.shards: list[ShardEntry] = []
        self.splits: Counter[str] = Counter()
        self.packed = self.without_patient = 0
        self._patients: set[str] = set()
        self._labels: dict[str, set[str]] = defaultdict(set)

    def rows(
        self, ledger: WorkLedger, shards: Sequence[ShardPlan]
    ) -> Iterator[list[Mapping[str, Any]]]:
        """Yields the index rows of each shard, after checking that none is lost or doubled."""
        for number, shard in enumerate(shards):
            receipt = ledger.receipt(number)
            if [row["key"] for row in receipt["rows"]] != [made.key for made in shard.prepared]:
                raise DatasetError(
                    f"{shard.name}: holds other samples than were planned for it; delete the "
                    "output and pack again, and report this"
                )
            entry = ShardEntry(**receipt["entry"])
            self.shards.append(entry)
            self.splits[entry.split] += entry.samples
            self.packed += entry.samples
            for row in receipt["rows"]:
                self._count_patient(row["patient_id"])
                for name, value in json.loads(row["labels"]).items():
                    if isinstance(value, str) and len(self._labels[name]) <= _LARGEST_VOCABULARY:
                        self._labels[name].add(value)
            yield receipt["rows"]

    def _count_patient(self, patient: str | None) -> None:
        if patient is None:
            self.without_patient += 1
        else:
            self._patients.add(patient)

    def patient_counts(self) -> dict[str, int]:
        """Patients named by packed samples, and samples that name none."""
        return {"known": len(self._patients), "images_without": self.without_patient}

    def vocabulary(self) -> dict[str, list[str]]:
        """Distinct values of each textual label; free text, with too many of them, left out."""
        return {
            name: sorted(values)
            for name, values in sorted(self._labels.items())
            if 0 < len(values) <= _LARGEST_VOCABULARY
        }


def _mask_kind(plan: PackPlan) -> str:
    kinds = {each.record.mask_kind for each in plan.inputs if each.record.masks}
    if len(kinds) > 1:
        raise DatasetError(f"the layout mixes masks of kinds {sorted(kinds)}; pack them apart")
    return kinds.pop() if kinds else "none"
