"""What ``nakt doctor`` looks at besides training: datasets, weights, sources and runs."""

import contextlib
import shlex
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nakt_dist.config import (
    AttentionConfig,
    EvaluateConfig,
    InspectConfig,
    PackConfig,
    PipelineConfig,
    ReportConfig,
    SubmitConfig,
    TeachConfig,
    VerifyConfig,
)
from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.attention_maps import AttentionReader
from nakt_dist.evaluation.attention_networks import choose_taps
from nakt_dist.loading.samples import SelectedSamples, select_samples
from nakt_dist.models.network_file import TrainedNetwork, open_network
from nakt_dist.models.weights_path import weights_path
from nakt_dist.runtime.devices import choose_device
from nakt_dist.shards.location import DatasetLocation
from nakt_dist.shards.manifest import PseudoLabelManifest, ShardManifest
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.verify import read_any_manifest
from nakt_dist.stages import attention, evaluate, pack, teach
from nakt_dist.stages.doctor_findings import Findings, in_words
from nakt_dist.stages.inspect_dataset import check_settings
from nakt_dist.stages.pack_identity import check_deidentify
from nakt_dist.stages.pack_plan import check_apart, make_plan
from nakt_dist.stages.pipeline import chosen_steps, read_steps
from nakt_dist.stages.submit import check_job
from nakt_dist.transfer.ensemble import Teacher

_JPEG_BYTES_PER_PIXEL = 0.4
_MASK_BYTES_PER_PIXEL = 0.4
"""Of soft masks as PNG; both are rough, to notice a disk that is too small."""
_PACK_BYTES_PER_SAMPLE = 4096
"""Besides the pixels: three headers and their padding, JSON, a small mask, the tables of a JPEG,
and rows in the index and, until the end, in the ledger. Measured 2.7 to 4.1 KB on phantoms."""
_TEACH_BYTES_PER_SAMPLE = 1536
"""Besides the soft mask: a header and its padding, and the same rows. Measured 1.2 to 1.4 KB."""


def examine_other(config: Any, found: Findings, cache: Path) -> None:
    """Looks at what any other stage reads.

    Args:
        config: of the stage.
        found: filled here.
        cache: folder for what has to be fetched to look at it.
    """
    for kind, examine in _EXAMINATIONS.items():
        if isinstance(config, kind):
            examine(config, found, cache)


def tell_samples(
    found: Findings,
    name: str,
    samples: SelectedSamples,
    dataset: str,
    splits: Sequence[str] | None,
    pseudo_labels: str | None = None,
) -> None:
    """Says what a choice of samples is, and whether its shards are all there.

    Raises:
        DatasetError: shards are absent or of another size.
    """
    manifest = samples.images.manifest
    phantom = " (phantom)" if manifest.phantom else ""
    where = "all splits" if splits is None else f"split {' + '.join(splits)}"
    kind = "pseudo masks" if samples.mask_is_soft else f"masks: {manifest.mask_kind}"
    known = f", findings: {len(manifest.findings)}" if manifest.findings else ""
    found.facts[name] = (
        f"{len(samples):,} of {manifest.num_samples:,} samples of {manifest.dataset}{phantom}, "
        f"{where}; {manifest.height}×{manifest.width}×{manifest.channels}; {kind}{known}; "
        f"{dataset} ({manifest.fingerprint[:12]})"
    )
    found.inputs[name] = manifest.fingerprint
    hidden = manifest.config.get("deidentified")
    found.inputs[f"{name}'s key"] = str(hidden and hidden.get("key_fingerprint"))
    _check_shards(dataset, manifest)
    if pseudo_labels is not None and samples.pseudo_labels is not None:
        found.inputs[f"{name}'s pseudo-labels"] = samples.pseudo_labels.manifest.fingerprint
        _check_shards(pseudo_labels, samples.pseudo_labels.manifest)


def tell_weights(path: Path, sha256: str) -> str:
    """Returns a weights file in words: name, size and the first digits of its SHA-256."""
    return f"{path} ({in_words(path.stat().st_size)}, {sha256[:12]})"


def _check_shards(folder: str, manifest: ShardManifest | PseudoLabelManifest) -> None:
    location = DatasetLocation(folder) if "://" not in folder else None
    if location is None:
        return  # shards behind a URL are fetched when they are read
    wrong = [
        entry.name
        for entry in manifest.shards
        if not (path := location.folder / entry.name).is_file()
        or path.stat().st_size != entry.bytes
    ]
    if wrong:
        raise DatasetError(
            f"{folder}: {len(wrong)} of {len(manifest.shards)} shards are absent or of another "
            f"size than the manifest says ({wrong[0]} is the first). Run nakt verify on the folder"
        )


def _examine_pack(config: PackConfig, found: Findings, cache: Path) -> None:
    with found.problem_if_refused("pack"):
        check_apart(config)
        key = Path(config.deidentify_key).expanduser()
        will_make_key = config.deidentify and not key.exists()
        if config.deidentify:
            found.facts["key"] = f"{key} ({'will be made' if will_make_key else 'is there'})"
        if will_make_key:
            check_deidentify(config)
            config = replace(config, deidentify=False)  # else the plan would want the key
        plan = make_plan(config, may_make_key=False)
        unusable = sum(not each.usable for each in plan.inputs)
        found.facts["source"] = (
            f"{len(plan.inputs):,} inputs of layout {config.layout} in {config.source}, "
            f"{unusable:,} of them without a file, a label or a mask that should be there"
        )
        form = config.image
        per_pixel = _JPEG_BYTES_PER_PIXEL if form.encoding == "jpg" else 1
        channels = 1 if form.colour == "grey" else 3
        pixels = form.height * form.width * channels
        per_sample = pixels * per_pixel + _PACK_BYTES_PER_SAMPLE
        # Until the end, what was read is staged beside the shards.
        found.disk = int(2 * len(plan.inputs) * per_sample)
        shards = len(plan.inputs) // config.samples_per_shard + len(config.splits.fractions)
        found.disk += shards * tarfile.RECORDSIZE
        if not will_make_key:  # without the key nobody knows what the dataset would be
            with found.problem_if_refused("output"):
                pack.Packing(config, plan).check()


def _examine_teach(config: TeachConfig, found: Findings, cache: Path) -> None:
    with found.problem_if_refused("data"):
        samples = select_samples(config.dataset, None, cache=str(cache))
        tell_samples(found, "data", samples, config.dataset, None)
        manifest = samples.images.manifest
        mask = manifest.height * manifest.width * _MASK_BYTES_PER_PIXEL
        found.disk = int(manifest.num_samples * (mask + _TEACH_BYTES_PER_SAMPLE))
        found.disk += len(manifest.shards) * tarfile.RECORDSIZE
        teachers = _look_at_teachers(config, found, samples.images)
        if len(teachers) == len(config.teachers):
            with found.problem_if_refused("device"):
                device = choose_device(config.device, config.threads)
                with found.problem_if_refused("output"):
                    _check_taught(config, samples.images, teachers, device, found)


def _check_taught(
    config: TeachConfig,
    images: IndexedShards,
    teachers: list[Teacher],
    device: torch.device,
    found: Findings,
) -> None:
    """Looks at pseudo-labels that are there; the stage may run where there is another device.

    Raises:
        DatasetError: they are others.
    """
    try:
        teach.Teaching(config, images, teachers, device).check()
    except DatasetError:
        other = torch.device("cpu" if device.type == "cuda" else "cuda")
        if config.device != "auto":
            raise
        with contextlib.suppress(DatasetError):
            teach.Teaching(config, images, teachers, other).check()
            found.notes.append(
                f"the pseudo-labels in {config.output} are of a {other.type} device, and teach "
                f"would work on {device.type} here, which it refuses: start it where they began"
            )
            return
        raise


def _look_at_teachers(config: TeachConfig, found: Findings, images: IndexedShards) -> list[Teacher]:
    """Returns those that can be used."""
    teachers = []
    for number, teacher in enumerate(config.teachers, start=1):
        with found.problem_if_refused(f"teacher {number}"):
            opened, notices = teach.open_teacher(teacher, torch.device("cpu"), images)
            found.notes += [each for each in notices if each not in found.notes]
            name, sha256 = opened.trained.name, opened.trained.weights_sha256
            words = tell_weights(weights_path(teacher.weights), sha256)
            found.facts[f"teacher {number}"] = f"{name}: {words}"
            teachers.append(opened)
    return teachers


def _examine_evaluate(config: EvaluateConfig, found: Findings, cache: Path) -> None:
    trained = _look_at_network(found, "weights", config)
    with found.problem_if_refused("data"):
        samples = select_samples(config.dataset, config.splits, cache=str(cache))
        tell_samples(found, "data", samples, config.dataset, config.splits)
        if trained is not None:
            with found.problem_if_refused("evaluate"):
                met, notices = evaluate.look_for_exposure(config, trained, samples)
                found.notes += notices
                job = evaluate.Evaluation(config, trained, samples, met)
                with found.problem_if_refused("output"):
                    job.check()


def _examine_attention(config: AttentionConfig, found: Findings, cache: Path) -> None:
    student = _look_at_network(found, "student", config.student)
    teacher = _look_at_network(found, "teacher", config.teacher)
    with found.problem_if_refused("data"):
        samples = select_samples(config.dataset, config.splits, cache=str(cache))
        tell_samples(found, "data", samples, config.dataset, config.splits)
        if student is not None and teacher is not None:
            found.notes += attention.describe_both(student, teacher, samples)
            with found.problem_if_refused("taps"):
                taps = choose_taps(config, student, teacher)
                AttentionReader(student, teacher, taps)


def _look_at_network(found: Findings, name: str, config: Any) -> TrainedNetwork | None:
    with found.problem_if_refused(name):
        trained = open_network(config.weights, config.model, config.preprocessing)
        words = tell_weights(weights_path(config.weights), trained.weights_sha256)
        found.facts[name] = f"{trained.name}, {trained.spec.name}: {words}"
        return trained
    return None


def _examine_verify(config: VerifyConfig, found: Findings, cache: Path) -> None:
    with found.problem_if_refused("data"):
        _tell_folder(found, config.folder)


def _examine_inspect(config: InspectConfig, found: Findings, cache: Path) -> None:
    folder = config.pseudo_labels
    with found.problem_if_refused("data"):
        manifest = _tell_folder(found, folder)
        if isinstance(manifest, ShardManifest):
            check_settings(config)
        elif config.dataset is not None:
            images = IndexedShards(config.dataset, cache=cache)
            manifest.check_made_for(images.manifest, Path(folder))


def _tell_folder(found: Findings, folder: str) -> ShardManifest | PseudoLabelManifest:
    """Says what a dataset or pseudo-labels are, and whether their shards are all there.

    Raises:
        DatasetError: they are neither, or shards are absent or of another size.
    """
    manifest = read_any_manifest(Path(folder))
    found.facts["data"] = f"{manifest.num_samples:,} samples of {manifest.dataset} in {folder}"
    _check_shards(folder, manifest)
    return manifest


def _examine_report(config: ReportConfig, found: Findings, cache: Path) -> None:
    for run in config.runs:
        if not Path(run).is_dir():
            found.add_problem(f"runs: {run} is no folder; name folders that hold records")
    records = sum(len(list(Path(run).rglob("record.json"))) for run in config.runs)
    found.facts["records"] = f"{records:,} below {', '.join(config.runs)}"
    if not (records or found.problems):
        found.add_problem(
            "runs: no record.json of a finished stage is there; run nakt evaluate first"
        )


def _examine_pipeline(config: PipelineConfig, found: Findings, cache: Path) -> None:
    with found.problem_if_refused("steps"):
        steps = chosen_steps(read_steps(config), config.only_step, config.only_run)
        found.facts["steps"] = f"{len(steps)}: {', '.join(step.stage for step in steps)}"


def _examine_submit(config: SubmitConfig, found: Findings, cache: Path) -> None:
    with found.problem_if_refused("job"):
        check_job(config)
        nodes = f"{config.nodes} node{'' if config.nodes == 1 else 's'}"
        tasks = f"{config.tasks} task{'' if config.tasks == 1 else 's'}"
        found.facts["job"] = f"{config.stage} on {nodes}, {tasks} on each"
        found.notes.append(
            "only settings were looked at; for data, weights and output ask: "
            f"nakt doctor {shlex.join([config.stage, *config.words])}"
        )


_EXAMINATIONS = {
    PackConfig: _examine_pack,
    TeachConfig: _examine_teach,
    EvaluateConfig: _examine_evaluate,
    AttentionConfig: _examine_attention,
    VerifyConfig: _examine_verify,
    InspectConfig: _examine_inspect,
    ReportConfig: _examine_report,
    PipelineConfig: _examine_pipeline,
    SubmitConfig: _examine_submit,
}
