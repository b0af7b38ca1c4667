"""``nakt pack``: a dataset as published becomes shards, an index and a manifest."""

import contextlib
import json
import multiprocessing
import os
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from nakt_dist.config import PackConfig, as_plain, save_config
from nakt_dist.errors import ConfigurationError, DatasetError, NaktError
from nakt_dist.runtime.files import differing_fields, file_sha256, flush_folder
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
from nakt_dist.stages.mask_coverage import read_coverage
from nakt_dist.stages.pack_identity import kept_layout_options, modification_sha256
from nakt_dist.stages.pack_masks import judge_masks
from nakt_dist.stages.pack_plan import PackPlan, check_apart, make_plan, tolerated_problems
from nakt_dist.stages.pack_shard import pack_shard
from nakt_dist.stages.pack_summary import announce, announce_speed, count_positives

LEDGER_NAME = ".pack"
_LARGEST_VOCABULARY = 100
_GUARD = (
    "Each worker imports the script that calls pack: put the call below "
    "'if __name__ == \"__main__\":' there, or set workers=1"
)


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
    _refuse_import_by_worker()
    require_one_process("pack")
    stopwatch = Stopwatch()
    output = Path(config.output)
    check_apart(config)
    plan = make_plan(config)
    check_output(output, "pack")
    if _finished(plan, output) is None:
        plan = judge_masks(config, plan)
    output.mkdir(parents=True, exist_ok=True)
    with sole_user(output, "pack"):
        manifest, packed_now = _pack(config, plan, output)
    positives = count_positives(output, manifest)
    coverage = read_coverage(output, manifest)
    announce(config, plan, manifest, positives, coverage, output)
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
            "positives": positives,
            "coverage": coverage,
            "fingerprint": manifest.fingerprint,
        },
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )


def _pack(config: PackConfig, plan: PackPlan, output: Path) -> tuple[ShardManifest, int]:
    """Returns the manifest and how many inputs were read now rather than earlier."""
    ledger, manifest = _ledger(plan, output), _finished(plan, output)
    if manifest is not None:
        ledger.close()
        return manifest, 0
    ledger.open()
    pending = [number for number in range(ledger.pieces) if not _is_whole(ledger, number, output)]
    if len(pending) < ledger.pieces:
        say(f"pack: {ledger.pieces - len(pending)} of {ledger.pieces} shards are there already")
    inputs = sum(len(plan.shards[number].keys) for number in pending)
    with progress_bar("pack images", inputs) as advance:
        for number in write_shards(config, plan, output, ledger, pending):
            advance(len(plan.shards[number].keys))
    manifest = _finalise(config, plan, output, ledger)
    ledger.close()
    return manifest, inputs


def check_own_output(plan: PackPlan, output: Path) -> None:
    """Looks whether an output is absent, or of this very packing, and writes nothing.

    Raises:
        DatasetError: it holds a dataset packed otherwise, or an unfinished one.
    """
    if _finished(plan, output) is None:
        _ledger(plan, output).check()


def _ledger(plan: PackPlan, output: Path) -> WorkLedger:
    identity = {**plan.identity, "source_modification_sha256": modification_sha256(plan.records)}
    return WorkLedger(output / LEDGER_NAME, identity, len(plan.shards))


def _finished(plan: PackPlan, output: Path) -> ShardManifest | None:
    """Returns the manifest of this packing, once it is done.

    Raises:
        DatasetError: it is that of a dataset packed otherwise.
    """
    if not (output / MANIFEST_NAME).exists():
        return None
    manifest = ShardManifest.read(output)
    if manifest.config != json.loads(json.dumps(plan.identity)):
        differences = "; ".join(differing_fields(manifest.config, plan.identity)[:5])
        raise DatasetError(
            f"{output}: already holds a dataset packed otherwise ({differences}). "
            "Choose another --output, or delete the folder"
        )
    return manifest


def _is_whole(ledger: WorkLedger, number: int, output: Path) -> bool:
    """Says whether a finished shard is still on disk as its receipt says."""
    if not ledger.is_finished(number):
        return False
    try:
        entry = ledger.receipt(number)["entry"]
        return file_sha256(output / entry["name"]) == entry["sha256"]
    except (OSError, DatasetError, KeyError):
        return False


def write_shards(
    config: PackConfig, plan: PackPlan, output: Path, ledger: WorkLedger, numbers: list[int]
) -> Iterator[int]:
    """Writes the given shards with a pool of workers, and yields each number when done."""
    workers = min(config.workers or len(os.sched_getaffinity(0)), max(len(numbers), 1))
    settings = (config.image, config.masks, tolerated_problems(config), config.deidentify)
    settings = (*settings, plan.mask_rule)
    tasks = {number: (ledger, output, number, plan.shards[number], *settings) for number in numbers}
    if workers == 1:
        for number, task in tasks.items():
            _write_one(*task)
            yield number
        return
    context = multiprocessing.get_context("spawn")  # forking a process with threads can hang
    begun = context.Event()
    with ProcessPoolExecutor(workers, context, _begin_worker, (begun,)) as pool:
        with _interrupts_ignored():  # workers inherit it: Ctrl-C is the main process's to answer
            futures = {pool.submit(_write_one, *task): number for number, task in tasks.items()}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures.pop(future)
        except BrokenProcessPool:
            if not begun.is_set():
                raise NaktError(f"pack: its worker processes could not start. {_GUARD}") from None
            raise NaktError(
                "pack: a worker process was killed, often for want of memory. Finished shards "
                "are kept: run the same command again, with fewer --workers if memory is short"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set this, and only it is interrupted
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _refuse_import_by_worker() -> None:
    """Refuses to pack in a worker that is only importing the script which started it.

    Raises:
        ConfigurationError: the script packs whenever it is imported.
    """
    # What multiprocessing itself asks before it lets a process start others.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigurationError(f"pack was called while a worker process starts. {_GUARD}")


def _begin_worker(begun: Event) -> None:
    """Says that a worker runs, and ends it when the main process is gone, however that went."""
    begun.set()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _write_one(ledger: WorkLedger, output: Path, number: int, *task: Any) -> None:
    ledger.finish(number, pack_shard(output, ledger.folder, number, *task))


def _finalise(
    config: PackConfig, plan: PackPlan, output: Path, ledger: WorkLedger
) -> ShardManifest:
    """Writes the tables and, last of all, the manifest."""
    staging = ledger.folder
    summary = _Summary()
    write_table(output / INDEX_NAME, INDEX_SCHEMA, summary.rows(ledger, plan), staging)
    rejected = (ledger.receipt(number)["rejected"] for number in range(ledger.pieces))
    write_table(output / REJECTED_NAME, REJECTED_SCHEMA, rejected, staging)
    manifest = ShardManifest(
        shards=tuple(summary.shards),
        files={name: file_sha256(output / name) for name in (INDEX_NAME, REJECTED_NAME)},
        dataset=config.dataset_name,
        phantom=plan.phantom,
        height=config.image.height,
        width=config.image.width,
        channels=1 if config.image.colour == "grey" else 3,
        mask_kind=_mask_kind(plan) if config.masks else "none",
        splits=dict(summary.splits),
        counts={
            "inputs": plan.num_inputs,
            "packed": summary.packed,
            "rejected": summary.rejected,
            "left_out": sum(plan.left_out.values()),
            "united_masks": summary.united_masks,
        },
        left_out=dict(plan.left_out),
        ignored_files=dict(plan.ignored_files),
        vocabulary=summary.vocabulary(),
        findings=plan.findings,
        label_policy=asdict(config.labels),
        patients=summary.patient_counts(),
        found={**plan.found, **summary.mask_remarks},
        config=dict(plan.identity),
    )
    if summary.packed == 0:
        first = next(iter(ledger.receipt(0)["rejected"]))
        raise DatasetError(
            f"{config.source}: none of its {plan.num_inputs} inputs could be packed; the first, "
            f"{first['source']}: {first['detail']}"
        )
    if summary.packed + summary.rejected != plan.num_inputs:
        raise DatasetError(
            f"{output}: {summary.packed} packed and {summary.rejected} rejected are not the "
            f"{plan.num_inputs} inputs; delete the folder and pack again, and report this"
        )
    left_out = ("output", "workers", "deidentify_key", *(["source"] if config.deidentify else []))
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
        self.packed = self.rejected = self.united_masks = self.without_patient = 0
        self.mask_remarks: Counter[str] = Counter()
        self._patients: set[str] = set()
        self._labels: dict[str, set[str]] = defaultdict(set)

    def rows(self, ledger: WorkLedger, plan: PackPlan) -> Iterator[list[Mapping[str, Any]]]:
        """Yields the index rows of each shard, after checking that no input is lost or doubled."""
        for number in range(ledger.pieces):
            receipt = ledger.receipt(number)
            keys = [row["key"] for row in (*receipt["rows"], *receipt["rejected"])]
            if sorted(keys) != sorted(plan.shards[number].keys):
                raise DatasetError(
                    f"{plan.shards[number].name}: holds other inputs than were planned for it; "
                    "delete the output and pack again, and report this"
                )
            entry = ShardEntry(**receipt["entry"])
            self.shards.append(entry)
            self.splits[entry.split] += entry.samples
            self.packed += entry.samples
            self.rejected += len(receipt["rejected"])
            self.united_masks += receipt["united_masks"]
            self.mask_remarks.update(receipt["mask_remarks"])
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
    kinds = {record.mask_kind for shard in plan.shards for record in shard.records if record.masks}
    if len(kinds) > 1:
        raise DatasetError(f"the layout mixes masks of kinds {sorted(kinds)}; pack them apart")
    return kinds.pop() if kinds else "none"
