"""``nakt teach``: teachers write pseudo masks and their statistics beside a packed dataset.

Processes share nothing but the output folder and never wait for each other, so ranks may
differ in speed, die, come back, and be another number next time.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from nakt_dist.config import PreprocessingConfig, TeachConfig, TeacherConfig, as_plain, save_config
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.evaluation.origin import task_of
from nakt_dist.loading.samples import image_form
from nakt_dist.models.network_file import open_network
from nakt_dist.runtime.devices import choose_device
from nakt_dist.runtime.files import differing_fields, file_sha256
from nakt_dist.runtime.outputs import check_output
from nakt_dist.runtime.processes import process_place, say
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.runtime.record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.work import WorkLedger, hold_lock
from nakt_dist.shards.manifest import INDEX_NAME, MANIFEST_NAME, PseudoLabelManifest, ShardEntry
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.tables import PSEUDO_INDEX_SCHEMA, write_table
from nakt_dist.stages.teach_shard import teach_shard
from nakt_dist.transfer.ensemble import Teacher

LEDGER_NAME = ".teach"
_AUTOCAST = {"float32": None, "bfloat16": torch.bfloat16}


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
    device = choose_device(config.device, config.threads)
    images = IndexedShards(config.dataset, cache=Path(config.cache))
    opened = [open_teacher(teacher, device, images) for teacher in config.teachers]
    teachers = [teacher for teacher, _ in opened]
    for notice in dict.fromkeys(notice for _, notices in opened for notice in notices):
        say(f"teach: {notice}")
    config = _in_full(config, teachers)
    identity = _identity(config, images, teachers, device)
    output = Path(config.output)
    check_output(output, "teach")
    output.mkdir(parents=True, exist_ok=True)
    taught = 0
    if _is_finished(output, identity):
        taught = _mend(config, images, teachers, output, device)
        WorkLedger(output / LEDGER_NAME, identity, 0).close()  # a kill may have left it
    else:
        taught = _teach(config, images, teachers, identity, output, device)
    return _summarise(config, output, taught, stopwatch)


def _in_full(config: TeachConfig, teachers: list[Teacher]) -> TeachConfig:
    """Returns the settings with those that the teachers' files say."""
    inputs = [PreprocessingConfig(**each.provenance["preprocessing"]) for each in teachers]
    pairs = zip(config.teachers, inputs, strict=True)
    return replace(config, teachers=[replace(each, preprocessing=seen) for each, seen in pairs])


def open_teacher(
    config: TeacherConfig, device: torch.device, images: IndexedShards
) -> tuple[Teacher, list[str]]:
    """Loads one teacher and checks that it can see these images.

    Returns:
        The teacher, and what is worth knowing of it, a sentence each.

    Raises:
        ConfigurationError: it classifies, or its channels or outputs do not fit.
        CheckpointError: its file cannot be used.
    """
    trained = open_network(config.weights, config.model, config.preprocessing, device, config.name)
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
    preprocessing = trained.preprocessing
    teacher = Teacher(
        network=trained.network,
        in_channels=trained.spec.in_channels,
        height=preprocessing.height,
        width=preprocessing.width,
        mean=preprocessing.mean,
        std=preprocessing.std,
        weight=config.weight,
        output=config.output,
        provenance={
            "name": trained.name,
            "weights_sha256": trained.weights_sha256,
            "architecture": asdict(trained.spec),
            "preprocessing": asdict(preprocessing),
            "weight": config.weight,
            "output": config.output,
        },
    )
    return teacher, trained.describe(image_form(images.manifest))


def check_own_output(
    config: TeachConfig, images: IndexedShards, teachers: list[Teacher], device: torch.device
) -> None:
    """Looks whether the output is absent, or of this very work, and writes nothing.

    Args:
        config: of the teaching.
        images: the packed dataset, all splits.
        teachers: as ``open_teacher`` gives them, on any device.
        device: that the teachers would work on.

    Raises:
        DatasetError: it holds other pseudo-labels, finished or not.
    """
    output, identity = Path(config.output), _identity(config, images, teachers, device)
    if not _is_finished(output, identity):
        WorkLedger(output / LEDGER_NAME, identity, 0).check()


def _identity(
    config: TeachConfig, images: IndexedShards, teachers: list[Teacher], device: torch.device
) -> dict[str, Any]:
    """Everything that decides the bytes of the pseudo-labels."""
    identity = {
        "dataset": images.manifest.dataset,
        "dataset_fingerprint": images.manifest.fingerprint,
        "teachers": [dict(teacher.provenance) for teacher in teachers],
        "batch_size": config.batch_size,
        "precision": config.precision,
        "device": device.type,
    }
    return json.loads(json.dumps(identity))


def _is_finished(output: Path, identity: Mapping[str, Any]) -> bool:
    """Says whether the output is this very work, done.

    Raises:
        DatasetError: it holds other pseudo-labels.
    """
    if not (output / MANIFEST_NAME).exists():
        return False
    manifest = PseudoLabelManifest.read(output)
    if manifest.config != identity:
        differences = "; ".join(differing_fields(manifest.config, identity)[:5])
        raise DatasetError(
            f"{output}: already holds other pseudo-labels ({differences}). "
            "Choose another --output, or delete the folder"
        )
    return True


def _teach(
    config: TeachConfig,
    images: IndexedShards,
    teachers: list[Teacher],
    identity: Mapping[str, Any],
    output: Path,
    device: torch.device,
) -> int:
    """Does this process's part of the work; returns how many samples it taught."""
    place = process_place()
    entries = images.manifest.shards
    ledger = WorkLedger(output / LEDGER_NAME, identity, len(entries))
    ledger.open()
    if (output / MANIFEST_NAME).exists():  # another process finished all while this one looked
        ledger.close()
        return 0
    taught = 0
    with progress_bar("teach images", images.manifest.num_samples) as advance:
        for number in ledger.unfinished(place.rank, place.world_size):
            receipt = teach_shard(
                output, ledger.folder, number, images, teachers, config.batch_size, device,
                _AUTOCAST[config.precision],
            )  # fmt: skip
            ledger.finish(number, receipt)
            taught += entries[number].samples
            advance(entries[number].samples)
    if ledger.is_complete():
        with hold_lock(ledger.folder / "finalise.lock") as held:
            if held and not (output / MANIFEST_NAME).exists():
                _finalise(config, images, teachers, identity, output, ledger)
                ledger.close()
                count = images.manifest.num_samples  # said by whichever process was the last
                print(f"teach: {count} pseudo-labels in {output}", file=sys.stderr, flush=True)
    return taught


def _mend(
    config: TeachConfig,
    images: IndexedShards,
    teachers: list[Teacher],
    output: Path,
    device: torch.device,
) -> int:
    """Teaches damaged shards of finished pseudo-labels again; returns how many samples."""
    if not process_place().is_main:
        return 0
    mended = 0
    for number, entry in enumerate(PseudoLabelManifest.read(output).shards):
        path = output / entry.name
        if path.is_file() and file_sha256(path) == entry.sha256:
            continue
        staging = output / LEDGER_NAME
        staging.mkdir(exist_ok=True)
        receipt = teach_shard(
            output, staging, number, images, teachers, config.batch_size, device,
            _AUTOCAST[config.precision],
        )  # fmt: skip
        if receipt["entry"]["sha256"] != entry.sha256:
            raise DatasetError(
                f"{path}: was damaged, and taught again it differs from what it was: another "
                "device, thread count or version of torch. Teach into a new --output"
            )
        say(f"teach: {entry.name} was damaged and is mended")
        mended += entry.samples
    return mended


def _finalise(
    config: TeachConfig,
    images: IndexedShards,
    teachers: list[Teacher],
    identity: Mapping[str, Any],
    output: Path,
    ledger: WorkLedger,
) -> None:
    """Writes the index and, last of all, the manifest; any process may do it."""
    shards: list[ShardEntry] = []

    def rows() -> Iterator[list[Mapping[str, Any]]]:
        for number in range(ledger.pieces):
            receipt = ledger.receipt(number)
            shards.append(ShardEntry(**receipt["entry"]))
            yield receipt["rows"]

    write_table(output / INDEX_NAME, PSEUDO_INDEX_SCHEMA, rows(), ledger.folder)
    manifest = PseudoLabelManifest(
        shards=tuple(shards),
        files={INDEX_NAME: file_sha256(output / INDEX_NAME)},
        dataset=images.manifest.dataset,
        dataset_fingerprint=images.manifest.fingerprint,
        phantom=images.manifest.phantom,
        height=images.manifest.height,
        width=images.manifest.width,
        teachers=tuple(dict(teacher.provenance) for teacher in teachers),
        soft=any(teacher.output == "soft" for teacher in teachers),
        config=dict(identity),
    )
    if manifest.num_samples != images.manifest.num_samples:
        raise DatasetError(
            f"{output}: {manifest.num_samples} pseudo-labels for "
            f"{images.manifest.num_samples} samples; delete the folder and teach again"
        )
    save_config(config, output, leave_out=("output", "cache"), staging=ledger.folder)
    manifest.write(output, ledger.folder)


def _summarise(config: TeachConfig, output: Path, taught: int, stopwatch: Stopwatch) -> RunRecord:
    place = process_place()
    finished = (output / MANIFEST_NAME).exists()
    counts = {"taught_by_this_process": taught}
    if finished:
        counts["pseudo_labels"] = PseudoLabelManifest.read(output).num_samples
        if not taught:
            say(f"teach: {counts['pseudo_labels']} pseudo-labels in {output}, complete already")
    else:
        say(f"teach: process {place.rank} is done; others still work on {output}")
    if taught:
        say(f"  {taught / stopwatch.seconds:.1f} images/s in process {place.rank}")
    return RunRecord(
        stage="teach",
        name=output.name,
        config=as_plain(config),
        counts=counts,
        metrics={"images_per_second": taught / max(stopwatch.seconds, 1e-9)},
        details={"finished": finished},
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )
