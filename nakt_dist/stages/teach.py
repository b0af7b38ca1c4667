"""``nakt teach``: teachers write pseudo masks or pseudo-findings beside a packed dataset.

Processes share nothing but the output folder and never wait for each other, so ranks may
differ in speed, die, come back, and be another number next time.
"""

import contextlib
import sys
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from nakt_dist.config import TeachConfig, as_plain, save_config
from nakt_dist.errors import DatasetError
from nakt_dist.loading.samples import SelectedSamples
from nakt_dist.models.inference import for_inference
from nakt_dist.records.lineage_reading import readable
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.devices import choose_device
from nakt_dist.runtime.files import file_sha256
from nakt_dist.runtime.processes import process_place, say
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.runtime.shared_job import Done, SharedJob
from nakt_dist.shards.manifest import (
    INDEX_NAME,
    MANIFEST_NAME,
    PseudoFindingsManifest,
    PseudoLabelManifest,
    ShardEntry,
    TaughtManifest,
    read_taught_manifest,
)
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.tables import pseudo_index_schema, write_table
from nakt_dist.stages.opening import NotOpened, Opening
from nakt_dist.stages.teach_findings import FindingsOfTeachers
from nakt_dist.stages.teach_masks import PseudoMasks
from nakt_dist.stages.teach_opening import check_combination, open_teachers, resolve_precision
from nakt_dist.stages.teach_private import PrivateVotes
from nakt_dist.stages.teach_shard import ShardTeaching, teach_shards
from nakt_dist.stages.teach_table import AnswersInTable, open_table
from nakt_dist.transfer.ensemble import Teacher, joined_classes, joined_findings

_MASK_BYTES_PER_PIXEL = 0.4
"""Of soft masks as PNG; rough, to notice a disk that is too small."""
_BYTES_PER_SAMPLE = 1536
"""Besides the soft mask: a header and its padding, and rows in the index and, until the end, in
the ledger. Measured 1.2 to 1.4 KB."""
_FORM = ["BatchNorm folded", "channels_last"]
"""How networks lie in memory, see ``for_inference``: it decides the last digits."""


def run(config: TeachConfig) -> RunRecord:
    """Writes pseudo-labels; takes up an interrupted run where it stopped.

    On the CPU with one thread the bytes are the same for any number of processes and after
    any interruption (promise 1). Every sample gets exactly one pseudo-label (promise 2).
    There are no collective operations.

    Raises:
        ConfigurationError: a teacher does not fit the images.
        DatasetError: the dataset is absent or damaged, or the output holds something else.
        CheckpointError: a teacher's file is unsafe, damaged or does not fit its network.
    """
    stopwatch = Stopwatch()
    opening = Opening()
    job = plan(config, opening)
    opening.say("teach")
    manifest = job.begin()
    if manifest is not None:
        taught = job.mend(manifest)
    else:
        taught = _teach(job)
        manifest = job.finalise(job.put_together)
    return _summarise(job, manifest, taught, stopwatch)


def plan(config: TeachConfig, opening: Opening) -> "Teaching":
    """Opens the dataset and the teachers, and checks that they belong together."""
    device = None
    with opening.part("device"):
        device = choose_device(config.device, config.threads)
        precision = resolve_precision(config.precision, device)
        opening.facts["forward"] = ", ".join([precision, *_FORM])
    with opening.part("data"):
        images = IndexedShards(config.dataset, cache=Path(opening.cache or config.cache))
        manifest = images.manifest
        samples = SelectedSamples(images, None, len(images))
        opening.tell_samples("data", samples, config.dataset, None)
        processes, shards = process_place().world_size, len(manifest.shards)
        if processes > shards:
            opening.note(
                f"{processes - shards} of {processes} processes have nothing to do: the dataset "
                f"has {shards} shard{'' if shards == 1 else 's'}, and each is one process's. Pack "
                "it with fewer --samples_per_shard to divide it further"
            )
        table = None if config.table is None else open_table(config.table, images, opening)
        teachers = open_teachers(config.teachers, images, opening, config.classes)
        mask = manifest.height * manifest.width * _MASK_BYTES_PER_PIXEL
        mask *= max((len(e.masks) - 1 for e in teachers if e.findings is None), default=0)
        opening.disk = int(manifest.num_samples * (mask + _BYTES_PER_SAMPLE))
        opening.disk += len(manifest.shards) * tarfile.RECORDSIZE
        check_combination(config.combination, teachers)
        if device is not None and len(teachers) == len(config.teachers):
            seen = [
                replace(each, preprocessing=teacher.trained.preprocessing)
                for each, teacher in zip(config.teachers, teachers, strict=True)
            ]
            return Teaching(replace(config, teachers=seen), images, teachers, device, table)
    raise NotOpened


class Teaching(SharedJob[TaughtManifest]):
    """The pseudo-labels of one dataset by some teachers; a piece is a shard.

    Args:
        images: the packed dataset, all splits.
        teachers: as ``open_teacher`` gives them.
        device: that they work on; they are not there before they do.
        table: what a network of others says, in place of teachers.
    """

    stage = "teach"
    written_last = MANIFEST_NAME
    others = "other pseudo-labels"

    def __init__(
        self,
        config: TeachConfig,
        images: IndexedShards,
        teachers: list[Teacher],
        device: torch.device,
        table: AnswersInTable | None = None,
    ) -> None:
        self.config = config
        self.images = images
        self.teachers = teachers
        self.device = device
        self.table = table
        identity = {
            "dataset": images.manifest.dataset,
            "dataset_fingerprint": images.manifest.fingerprint,
            "teachers": [provenance for provenance, _ in self.authors],
            "batch_size": config.batch_size,
            "precision": resolve_precision(config.precision, device),
            "form": _FORM,
            "device": device.type,
            **({} if config.combination == "mean" else {"combination": config.combination}),
            **({"classes": list(self.classes)} if self.classes else {}),
        }
        self.private = None
        if config.privacy is not None:
            identity["privacy"] = asdict(config.privacy) | {"key": "", "epsilon": 0, "delta": 0}
            self.private = PrivateVotes(config.privacy, teachers, images.keys, identity)
        super().__init__(config.output, identity, len(images.manifest.shards))

    def begin(self) -> TaughtManifest | None:
        """Begins the job or takes it up, see ``SharedJob``; private votes are counted before."""
        result = super().begin()
        if result is None and self.private is not None:
            self.private.reserve()
        return result

    @property
    def findings(self) -> tuple[str, ...]:
        """What classifiers teach; empty where the teachers give masks."""
        return joined_findings(self.teachers) if self.table is None else self.table.findings

    @property
    def authors(self) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """What is known of each that writes the pseudo-labels, and its lineage."""
        if self.table is not None:
            return [(self.table.provenance, self.table.lineage)]
        return [(each.provenance, each.trained.lineage) for each in self.teachers]

    @property
    def classes(self) -> tuple[str, ...]:
        """Of the masks, the background first; empty where they have one target, or none are."""
        return joined_classes(self.teachers) if self.teachers else ()

    def read(self) -> tuple[Mapping[str, Any], TaughtManifest]:
        """Reads the manifest, which holds the identity."""
        manifest = read_taught_manifest(self.output)
        return manifest.config, manifest

    def check(self) -> list[str]:
        """Looks whether the job can begin; the stage may run where there is another device.

        Raises:
            DatasetError: the output holds other pseudo-labels, finished or not.
        """
        try:
            notes = super().check()
        except DatasetError:
            if self.config.device != "auto":
                raise
            other = torch.device("cpu" if self.device.type == "cuda" else "cuda")
            if self.config.precision == "tf32":
                raise
            elsewhere = Teaching(self.config, self.images, self.teachers, other, self.table)
            with contextlib.suppress(DatasetError):
                SharedJob.check(elsewhere)
                return [
                    f"the pseudo-labels in {self.output} are of a {other.type} device, and teach "
                    f"would work on {self.device.type} here, which it refuses: start it where they "
                    "began"
                ]
            raise
        if self.private is not None and self.finished() is None:
            self.private.check_budget()
        return notes

    def teach(self, numbers: Iterable[int]) -> Done:
        """Writes the pseudo-labels of shards; yields each one's number and receipt."""
        config, device = self.config, self.device
        if self.table is not None:
            return self.table.write(self.images, numbers, self.output, self.ledger.folder)
        if self.private is not None:
            self.private.require_counted()
        manifest, precision = self.images.manifest, self.identity["precision"]
        if device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = precision != "float32"
        size = manifest.height, manifest.width
        teachers = [
            replace(teacher, trained=for_inference(teacher.trained, device, size))
            for teacher in self.teachers
        ]
        autocast = torch.bfloat16 if precision == "bfloat16" else None
        plain = (
            FindingsOfTeachers(len(self.findings)) if self.findings else PseudoMasks(self.classes)
        )
        sidecar = plain if self.private is None else self.private
        how = ShardTeaching(
            self.images, teachers, sidecar, config.combination, config.batch_size, device, autocast
        )
        return teach_shards(how, numbers, self.output, self.ledger.folder)

    def mend(self, manifest: TaughtManifest) -> int:
        """Teaches damaged shards of finished pseudo-labels again; returns how many samples.

        Raises:
            DatasetError: they differ from what they were.
        """
        if not process_place().is_main:
            return 0
        damaged = [
            number
            for number, entry in enumerate(manifest.shards)
            if not (path := self.output / entry.name).is_file() or file_sha256(path) != entry.sha256
        ]
        if not damaged:
            return 0
        mended = 0
        self.ledger.folder.mkdir(exist_ok=True)
        for number, receipt in self.teach(damaged):
            entry = manifest.shards[number]
            if receipt["entry"]["sha256"] != entry.sha256:
                raise DatasetError(
                    f"{self.output / entry.name}: was damaged, and taught again it differs from "
                    "what it was: another device, thread count or version of torch. Teach into a "
                    "new --output"
                )
            say(f"teach: {entry.name} was damaged and is mended")
            mended += entry.samples
        self.ledger.close()
        return mended

    def put_together(self) -> TaughtManifest:
        """Writes the index, if there is one, and last of all the manifest; any process may do it.

        Raises:
            DatasetError: samples are without a pseudo-label, or have several.
        """
        output, images, staging = self.output, self.images.manifest, self.ledger.folder
        manifest = self._manifest()
        if manifest.num_samples != images.num_samples:
            raise DatasetError(
                f"{output}: {manifest.num_samples} pseudo-labels for "
                f"{images.num_samples} samples; delete the folder and teach again"
            )
        save_config(self.config, output, leave_out=("output", "cache"), staging=staging)
        manifest.write(output, staging)
        # Said by whichever process was the last.
        count = f"{manifest.num_samples} pseudo-labels in {output}"
        print(f"teach: {count}", file=sys.stderr, flush=True)
        return manifest

    def _manifest(self) -> TaughtManifest:
        images, shards, answered = self.images.manifest, list[ShardEntry](), list[int]()

        def rows() -> Iterator[list[Mapping[str, Any]]]:
            for receipt in self.ledger.receipts():
                shards.append(ShardEntry(**receipt["entry"]))
                answered.append(receipt.get("answered", 0))
                yield receipt.get("rows", [])

        index = self.output / INDEX_NAME
        if self.findings:
            deque(rows(), 0)
        else:
            schema = pseudo_index_schema(self.classes)
            write_table(index, schema, rows(), self.ledger.folder)
        common: dict[str, Any] = {
            "shards": tuple(shards),
            "files": {} if self.findings else {INDEX_NAME: file_sha256(index)},
            "dataset": images.dataset,
            "dataset_fingerprint": images.fingerprint,
            "phantom": images.phantom,
            "teachers": tuple(
                {**each, "lineage": readable(lineage)} for each, lineage in self.authors
            ),
            "config": self.identity,
        }
        if self.findings:
            privacy = None if self.private is None else self.private.settle(sum(answered))
            return PseudoFindingsManifest(findings=self.findings, privacy=privacy, **common)
        soft = any(teacher.output == "soft" for teacher in self.teachers)
        common |= {"height": images.height, "width": images.width, "classes": self.classes}
        return PseudoLabelManifest(soft=soft, **common)


JOB = Teaching


def _teach(job: Teaching) -> int:
    """Does this process's part of the work; returns how many samples it taught."""
    entries, taught = job.images.manifest.shards, 0
    with progress_bar("teach images", job.images.manifest.num_samples) as advance:
        for number in job.work(job.teach):
            taught += entries[number].samples
            advance(entries[number].samples)
    return taught


def _summarise(
    job: Teaching, manifest: TaughtManifest | None, taught: int, stopwatch: Stopwatch
) -> RunRecord:
    place, output = process_place(), job.output
    counts = {"taught_by_this_process": taught}
    if manifest is not None:
        counts["pseudo_labels"] = manifest.num_samples
        if not taught:
            say(f"teach: {counts['pseudo_labels']} pseudo-labels in {output}, complete already")
    else:
        say(f"teach: process {place.rank} is done; others still work on {output}")
    if taught:
        say(f"  {taught / stopwatch.seconds:.1f} images/s in process {place.rank}")
    return RunRecord(
        stage="teach",
        name=output.name,
        config=as_plain(job.config),
        counts=counts,
        details={"finished": manifest is not None},
        seconds=stopwatch.seconds,
        speed=stopwatch.speed(taught),
        versions=package_versions(),
    )
