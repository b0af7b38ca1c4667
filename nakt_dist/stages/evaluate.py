"""``nakt evaluate``: every image scored, exactly once, in any number of processes."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nakt_dist.config import EvaluateConfig, as_plain, save_config
from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.classification_scores import ClassificationScores
from nakt_dist.evaluation.origin import (
    describe_meetings,
    describe_unknown,
    meetings,
    task_of,
)
from nakt_dist.evaluation.scores import PREDICTIONS_NAME, TaskScores
from nakt_dist.evaluation.segmentation_scores import SegmentationScores
from nakt_dist.loading.batches import as_float
from nakt_dist.loading.samples import SelectedSamples, image_form, select_samples
from nakt_dist.models.network_file import TrainedNetwork, open_network
from nakt_dist.models.weights_path import weights_path
from nakt_dist.report.lineage import label_dataset
from nakt_dist.runtime.devices import choose_device, explain_full_memory
from nakt_dist.runtime.files import differing_fields
from nakt_dist.runtime.outputs import check_output
from nakt_dist.runtime.processes import process_place, say
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.runtime.record import (
    RECORD_NAME,
    RunRecord,
    Stopwatch,
    package_versions,
    read_record,
)
from nakt_dist.runtime.work import WorkLedger, hold_lock
from nakt_dist.shards.pictures import numbers_of, read_pictures
from nakt_dist.shards.tables import read_table, write_table

LEDGER_NAME = ".evaluate"
_IMAGES_PER_PIECE = 64
_MET = "met_test_images"
_ONLY_IN_THE_RECORD = ("teacher_record", "compare_with", "bootstrap_samples", "seed", "overlays")


def run(config: EvaluateConfig) -> RunRecord:
    """Evaluates a network; takes up an interrupted evaluation where it stopped.

    The images are cut into pieces of fixed size; processes share them through the output
    folder alone, so every image is counted once in any number of processes (promise 2), and
    none waits for another.

    Raises:
        ConfigurationError: a setting does not fit the network's task, or network and test set
            share no label.
        DatasetError: the dataset is absent, damaged or without masks, or the output holds
            another evaluation.
        CheckpointError: the weights cannot be used, or contradict themselves.
    """
    stopwatch = Stopwatch()
    device = choose_device(config.device, config.threads)
    trained = open_network(config.weights, config.model, config.preprocessing, device)
    config = replace(config, preprocessing=trained.preprocessing)
    samples = select_samples(config.dataset, config.splits, cache=config.cache)
    scores, identity = open_scores(config, trained, samples)
    met, notices = meet(config, trained, samples)
    for notice in notices:
        say(f"evaluate: {notice}")
    output = Path(config.output)
    check_output(output, "evaluate")
    output.mkdir(parents=True, exist_ok=True)
    record = _finished(config, output, identity, met)
    if record is None:
        return _evaluate(config, trained, scores, identity, met, output, device, stopwatch)
    WorkLedger(output / LEDGER_NAME, identity, 0).close()  # a kill may have left it
    say(f"{scores.sentence(record)} (was complete already)")
    return record


def open_scores(
    config: EvaluateConfig, trained: TrainedNetwork, samples: SelectedSamples
) -> tuple[TaskScores, dict[str, Any]]:
    """Chooses the task, and checks that settings, network and test images belong together.

    Returns:
        The scores, and what decides their predictions.

    Raises:
        ConfigurationError: a setting does not fit the network's task, or network and test set
            share no label.
        DatasetError: images have no mask, or another evaluation that this one refers to is
            absent, or is no match.
        CheckpointError: the weights contradict themselves.
    """
    scores = _scores(config, trained, samples)
    identity = _identity(config, trained, scores)
    scores.check_references(identity)
    return scores, identity


def check_own_output(config: EvaluateConfig, identity: Mapping[str, Any]) -> None:
    """Looks whether the output is absent, or of this very evaluation, and writes nothing.

    Args:
        config: of the evaluation.
        identity: as ``open_scores`` gives it.

    Raises:
        DatasetError: it holds another evaluation, finished or not.
    """
    output = Path(config.output)
    if _finished(config, output, identity, {}) is None:
        WorkLedger(output / LEDGER_NAME, identity, 0).check()


def _scores(
    config: EvaluateConfig, trained: TrainedNetwork, samples: SelectedSamples
) -> TaskScores:
    """Chooses the task by the architecture, which the weights may not contradict."""
    if task_of(trained) == "classification":
        return ClassificationScores(config, trained, samples)
    return SegmentationScores(config, trained, samples)


def meet(
    config: EvaluateConfig, trained: TrainedNetwork, samples: SelectedSamples
) -> tuple[dict[str, Any], list[str]]:
    """Finds out where the network may have met its test images, and how they differ from its own.

    Returns:
        What the record's details say of it, and a sentence each for the user.

    Raises:
        CheckpointError: the network's lineage is damaged.
    """
    manifest = samples.images.manifest
    pictures = numbers_of(samples.images.index)
    met = read_pictures(weights_path(config.weights))
    found = meetings(trained, manifest.dataset, manifest.fingerprint, config.splits, pictures, met)
    splits = "all splits" if config.splits is None else f"split {' + '.join(config.splits)}"
    test_set = f"{label_dataset(manifest.dataset, manifest.phantom)}, {splits}"
    counts = met.count(samples.images.index)
    warnings = describe_meetings(found, trained.name, test_set, counts, len(samples))
    sentences = [f"warning: {sentence}" for sentence in warnings]
    sentences += describe_unknown(trained, manifest.fingerprint, found, met)
    sentences += trained.describe(image_form(manifest))
    told = {kind: meeting.as_stored for kind, meeting in found.items()}
    return {_MET: told, "met_pictures": counts}, sentences


def _identity(
    config: EvaluateConfig, trained: TrainedNetwork, scores: TaskScores
) -> dict[str, Any]:
    manifest = scores.dataset.samples.images.manifest
    identity = {
        "weights_sha256": trained.weights_sha256,
        "dataset": manifest.dataset,
        "dataset_fingerprint": manifest.fingerprint,
        "splits": config.splits,
        "preprocessing": vars(trained.preprocessing),
        "batch_size": config.batch_size,
        **scores.settings,
    }
    return json.loads(json.dumps(identity))


def _finished(
    config: EvaluateConfig, output: Path, identity: Mapping[str, Any], met: Mapping[str, Any]
) -> RunRecord | None:
    """Returns the record that is there, unless it should now say something else besides.

    Args:
        config: of the evaluation.
        output: its folder.
        identity: as ``open_scores`` gives it.
        met: what ``meet`` found; empty where that is not looked at.

    Raises:
        DatasetError: it is that of another evaluation.
    """
    if not (output / RECORD_NAME).exists():
        return None
    record = read_record(output / RECORD_NAME)
    if record.inputs != identity:
        differences = "; ".join(differing_fields(record.inputs, identity)[:5])
        raise DatasetError(
            f"{output}: already holds another evaluation ({differences}). "
            "Choose another --output, or delete the folder"
        )
    asked = as_plain(config)
    same = all(record.config.get(name) == asked[name] for name in _ONLY_IN_THE_RECORD)
    known = {role: each for role, each in met.get(_MET, {}).items() if each is not None}
    told = record.details.get(_MET, {})
    return record if same and told == {**told, **known} else None


def _evaluate(
    config: EvaluateConfig,
    trained: TrainedNetwork,
    scores: TaskScores,
    identity: Mapping[str, Any],
    met: Mapping[str, Any],
    output: Path,
    device: torch.device,
    stopwatch: Stopwatch,
) -> RunRecord:
    """Does this process's pieces; whoever finds all of them done writes the record."""
    place = process_place()
    images = len(scores.dataset)
    pieces = -(-images // _IMAGES_PER_PIECE)
    ledger = WorkLedger(output / LEDGER_NAME, identity, pieces)
    ledger.open()
    finished = _finished(config, output, identity, met)
    if finished is not None:  # another process finished all while this one looked
        ledger.close()
        return finished
    with progress_bar(f"evaluate {output.name}", images) as advance:
        for piece in ledger.unfinished(place.rank, place.world_size):
            first = piece * _IMAGES_PER_PIECE
            numbers = range(first, min(first + _IMAGES_PER_PIECE, images))
            with explain_full_memory(
                str(output),
                f"Lower batch_size (now {config.batch_size}), into another --output since it "
                "decides the last digits, or set --device cpu",
            ):
                rows = _score(config, scores, numbers, device)
            ledger.finish(piece, {"rows": rows})
            advance(len(numbers))
    if ledger.is_complete():
        with hold_lock(ledger.folder / "finalise.lock") as held:
            finished = _finished(config, output, identity, met) if held else None
            if finished is not None:
                return finished
            if held:
                record = _finalise(
                    config, trained, scores, identity, met, output, ledger, stopwatch
                )
                ledger.close()
                # Whichever rank this is.
                print(scores.sentence(record), file=sys.stderr, flush=True)
                return record
    if (output / RECORD_NAME).exists():
        return read_record(output / RECORD_NAME)
    say(f"evaluate: process {place.rank} is done; others still work on {output}")
    return RunRecord(stage="evaluate", name=output.name, config=as_plain(config), inputs=identity)


@torch.inference_mode()
def _score(
    config: EvaluateConfig, scores: TaskScores, numbers: range, device: torch.device
) -> list[dict[str, Any]]:
    """Returns the rows of one piece."""
    rows: list[dict[str, Any]] = []
    for start in range(numbers.start, numbers.stop, config.batch_size):
        batch = range(start, min(start + config.batch_size, numbers.stop))
        items = [scores.dataset[number] for number in batch]
        image, target = as_float(torch.utils.data.default_collate(items), device)
        rows += scores.rows(batch, image, target)
    return rows


def _finalise(
    config: EvaluateConfig,
    trained: TrainedNetwork,
    scores: TaskScores,
    identity: Mapping[str, Any],
    met: Mapping[str, Any],
    output: Path,
    ledger: WorkLedger,
    stopwatch: Stopwatch,
) -> RunRecord:
    """Joins the pieces, checks that each image is there once, and writes the record."""

    def pieces() -> Iterator[list[Mapping[str, Any]]]:
        for piece in range(ledger.pieces):
            yield ledger.receipt(piece)["rows"]

    path = output / PREDICTIONS_NAME
    write_table(path, scores.schema, pieces(), ledger.folder)
    table = read_table(path, scores.schema)
    images = scores.dataset.samples.images
    if table["key"].to_pylist() != images.keys:
        raise DatasetError(
            f"{path}: its keys are not those of the test images, each once; delete it"
        )
    metrics, details = scores.summarise(table, identity)
    scores.draw(output / "overlays.png", table)
    save_config(config, output, staging=ledger.folder)
    manifest = images.manifest
    record = RunRecord(
        stage="evaluate",
        name=output.name,
        config=as_plain(config),
        inputs=identity,
        counts={"images": len(images)},
        metrics=metrics,
        details={
            "network": trained.name,
            "lineage": dict(trained.lineage),
            "model": {"name": trained.spec.name, "options": trained.spec.options},
            "test_set": {
                "dataset": manifest.dataset,
                "phantom": manifest.phantom,
                "splits": config.splits,
                "height": manifest.height,
                "width": manifest.width,
                "fit": image_form(manifest).fit,
            },
            **met,
            **details,
        },
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )
    record.write(output, ledger.folder)
    return record
