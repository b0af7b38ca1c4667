"""``nakt teach``: teachers write pseudo masks and their statistics beside a packed dataset.

Processes share nothing but the output folder and never wait for each other, so ranks may
differ in speed, die, come back, and be another number next time.
"""

import contextlib
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nakt_dist.config import TeachConfig, TeacherConfig, as_plain, save_config
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.evaluation.network_lineage import task_of
from nakt_dist.loading.samples import SelectedSamples, image_form
from nakt_dist.models.inference import for_inference
from nakt_dist.models.network_file import open_network
from nakt_dist.models.weights_path import weights_path
from nakt_dist.records.lineage_reading import readable
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.devices import choose_device
from nakt_dist.runtime.files import file_sha256
from nakt_dist.runtime.processes import process_place, say
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.runtime.shared_job import Done, SharedJob
from nakt_dist.shards.manifest import INDEX_NAME, MANIFEST_NAME, PseudoLabelManifest, ShardEntry
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.tables import PSEUDO_INDEX_SCHEMA, write_table
from nakt_dist.stages.opening import NotOpened, Opening, tell_weights
from nakt_dist.stages.teach_shard import ShardTeaching, teach_shards
from nakt_dist.transfer.ensemble import Teacher

_MASK_BYTES_PER_PIXEL = 0.4
"""Of soft masks as PNG; rough, to notice a disk that is too small."""
_BYTES_PER_SAMPLE = 1536
"""Besides the soft mask: a header and its padding, and rows in the index and, until the end, in
the ledger. Measured 1.2 to 1.4 KB."""
_FORM = ["BatchNorm folded", "channels_last"]
"""How networks lie in memory, see ``for_inference``: it decides the last digits."""


def resolve_precision(precision: str, device: torch.device) -> str:
    """Returns what ``auto`` means on a device: the fastest that keeps the stored masks.

    Against float32, more than one grey level away may be 0.1 % of the pixels. Five trained
    networks on three datasets, DeepLabv3+ and U-Net, gave 2.4 to 9.5 % with bfloat16, and at
    most 0.08 % where the inputs and weights of convolutions were rounded as TF32 rounds them.

    Raises:
        ConfigurationError: tf32 is asked for without a GPU.
    """
    if precision == "auto":
        return "tf32" if device.type == "cuda" else "float32"
    if precision == "tf32" and device.type != "cuda":
        raise ConfigurationError(
            f"precision is tf32, which a GPU has, and the device is {device.type}; set it to auto"
        )
    return precision


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
        mask = manifest.height * manifest.width * _MASK_BYTES_PER_PIXEL
        opening.disk = int(manifest.num_samples * (mask + _BYTES_PER_SAMPLE))
        opening.disk += len(manifest.shards) * tarfile.RECORDSIZE
        teachers = _open_teachers(config, images, opening)
        if device is not None and len(teachers) == len(config.teachers):
            seen = [
                replace(each, preprocessing=teacher.trained.preprocessing)
                for each, teacher in zip(config.teachers, teachers, strict=True)
            ]
            return Teaching(replace(config, teachers=seen), images, teachers, device)
    raise NotOpened


def _open_teachers(config: TeachConfig, images: IndexedShards, opening: Opening) -> list[Teacher]:
    """Returns those that can be used, on the CPU: the device's memory may be another job's."""
    teachers = []
    for number, teacher in enumerate(config.teachers, start=1):
        with opening.part(f"teacher {number}"):
            opened, notices = open_teacher(teacher, images)
            opening.note(*notices)
            trained = opened.trained
            words = tell_weights(weights_path(teacher.weights), trained.weights_sha256)
            opening.facts[f"teacher {number}"] = f"{trained.name}: {words}"
            teachers.append(opened)
    return teachers


def open_teacher(config: TeacherConfig, images: IndexedShards) -> tuple[Teacher, list[str]]:
    """Loads one teacher and checks that it can see these images.

    Returns:
        The teacher, and what is worth knowing of it, a sentence each.

    Raises:
        ConfigurationError: it classifies, or its channels or outputs do not fit.
        CheckpointError: its file cannot be used.
    """
    trained = open_network(config.weights, config.model, config.preprocessing, name=config.name)
    trained.require_outputs(config.weights, "nakt teach")
    if task_of(trained) == "classification":
        outputs = trained.spec.num_outputs
        raise ConfigurationError(
            f"{config.weights}: {trained.spec.name} classifies images into {outputs} finding"
            f"{'' if outputs == 1 else 's'}; a segmentation teacher gives a mask. Name a "
            "segmentation network; nakt train, task: classification, can follow a classifier"
        )
    if trained.spec.num_outputs != 1:
        raise ConfigurationError(
            f"{config.weights}: the network has {trained.spec.num_outputs} outputs; a "
            "segmentation teacher has 1"
        )
    if trained.spec.in_channels not in (1, 3):
        raise ConfigurationError(
            f"{config.weights}: the network wants {trained.spec.in_channels} channels; images "
            f"have {images.manifest.channels}, which can be brought to 1 or 3"
        )
    teacher = Teacher(trained, config.weight, config.output)
    return teacher, trained.describe(image_form(images.manifest))


class Teaching(SharedJob[PseudoLabelManifest]):
    """The pseudo-labels of one dataset by some teachers; a piece is a shard.

    Args:
        images: the packed dataset, all splits.
        teachers: as ``open_teacher`` gives them.
        device: that they work on; they are not there before they do.
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
    ) -> None:
        self.config = config
        self.images = images
        self.teachers = teachers
        self.device = device
        identity = {
            "dataset": images.manifest.dataset,
            "dataset_fingerprint": images.manifest.fingerprint,
            "teachers": [teacher.provenance for teacher in teachers],
            "batch_size": config.batch_size,
            "precision": resolve_precision(config.precision, device),
            "form": _FORM,
            "device": device.type,
        }
        super().__init__(config.output, identity, len(images.manifest.shards))

    def read(self) -> tuple[Mapping[str, Any], PseudoLabelManifest]:
        """Reads the manifest, which holds the identity."""
        manifest = PseudoLabelManifest.read(self.output)
        return manifest.config, manifest

    def check(self) -> list[str]:
        """Looks whether the job can begin; the stage may run where there is another device.

        Raises:
            DatasetError: the output holds other pseudo-labels, finished or not.
        """
        try:
            return super().check()
        except DatasetError:
            if self.config.device != "auto":
                raise
            other = torch.device("cpu" if self.device.type == "cuda" else "cuda")
            if self.config.precision == "tf32":
                raise
            elsewhere = Teaching(self.config, self.images, self.teachers, other)
            with contextlib.suppress(DatasetError):
                SharedJob.check(elsewhere)
                return [
                    f"the pseudo-labels in {self.output} are of a {other.type} device, and teach "
                    f"would work on {self.device.type} here, which it refuses: start it where they "
                    "began"
                ]
            raise

    def teach(self, numbers: Iterable[int]) -> Done:
        """Writes the pseudo-labels of shards; yields each one's number and receipt."""
        config, device = self.config, self.device
        manifest, precision = self.images.manifest, self.identity["precision"]
        if device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = precision != "float32"
        size = manifest.height, manifest.width
        teachers = [
            replace(teacher, trained=for_inference(teacher.trained, device, size))
            for teacher in self.teachers
        ]
        autocast = torch.bfloat16 if precision == "bfloat16" else None
        how = ShardTeaching(self.images, teachers, config.batch_size, device, autocast)
        return teach_shards(how, numbers, self.output, self.ledger.folder)

    def mend(self, manifest: PseudoLabelManifest) -> int:
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

    def put_together(self) -> PseudoLabelManifest:
        """Writes the index and, last of all, the manifest; any process may do it.

        Raises:
            DatasetError: samples are without a pseudo-label, or have several.
        """
        shards: list[ShardEntry] = []

        def rows() -> Iterator[list[Mapping[str, Any]]]:
            for receipt in self.ledger.receipts():
                shards.append(ShardEntry(**receipt["entry"]))
                yield receipt["rows"]

        output, images, staging = self.output, self.images.manifest, self.ledger.folder
        write_table(output / INDEX_NAME, PSEUDO_INDEX_SCHEMA, rows(), staging)
        manifest = PseudoLabelManifest(
            shards=tuple(shards),
            files={INDEX_NAME: file_sha256(output / INDEX_NAME)},
            dataset=images.dataset,
            dataset_fingerprint=images.fingerprint,
            phantom=images.phantom,
            height=images.height,
            width=images.width,
            teachers=tuple(
                {**each.provenance, "lineage": readable(each.trained.lineage)}
                for each in self.teachers
            ),
            soft=any(teacher.output == "soft" for teacher in self.teachers),
            config=self.identity,
        )
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
    job: Teaching, manifest: PseudoLabelManifest | None, taught: int, stopwatch: Stopwatch
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
