"""``nakt evaluate``: Dice of every image, exactly once, in any number of processes."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from nakt_dist.config import EvaluateConfig, as_plain, save_config
from nakt_dist.errors import CheckpointError, DatasetError
from nakt_dist.evaluation.dice import dice_per_image
from nakt_dist.evaluation.summary import knowledge_transfer_capability, summarise_dice
from nakt_dist.loading.batches import as_float
from nakt_dist.loading.samples import MaskedImages, SelectedSamples, select_samples
from nakt_dist.models.network_file import TrainedNetwork, open_network
from nakt_dist.runtime.devices import choose_device
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
from nakt_dist.shards.tables import read_table, write_table
from nakt_dist.transfer.ensemble import logits_at_image_size

LEDGER_NAME = ".evaluate"
PREDICTIONS_NAME = "predictions.parquet"
_IMAGES_PER_PIECE = 64
_ONLY_IN_THE_RECORD = ("teacher_record", "bootstrap_samples", "seed", "overlays")

PREDICTIONS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("dice", pa.float64()),
        ("target_pixels", pa.int64()),
        ("predicted_pixels", pa.int64()),
    ]
)
"""One row per image, in the order of the dataset."""


def run(config: EvaluateConfig) -> RunRecord:
    """Evaluates a network; takes up an interrupted evaluation where it stopped.

    The images are cut into pieces of fixed size; processes share them through the output
    folder alone, so every image is counted once in any number of processes (promise 2), and
    none waits for another.

    Raises:
        DatasetError: the dataset is absent, damaged or without masks, or the output holds
            another evaluation.
        CheckpointError: the weights cannot be used.
    """
    stopwatch = Stopwatch()
    device = choose_device(config.device, config.threads)
    trained = open_network(config.weights, config.model, config.preprocessing, device)
    samples = select_samples(config.dataset, config.splits, cache=config.cache)
    identity = _identity(config, trained, samples)
    if config.teacher_record is not None:
        _teacher_dice(config, trained, identity)  # a wrong one costs no forward pass
    output = Path(config.output)
    check_output(output, "evaluate")
    output.mkdir(parents=True, exist_ok=True)
    record = _finished(config, output, identity)
    if record is None:
        return _evaluate(config, trained, samples, identity, output, device, stopwatch)
    WorkLedger(output / LEDGER_NAME, identity, 0).close()  # a kill may have left it
    say(f"{_sentence(record)} (was complete already)")
    return record


def _identity(
    config: EvaluateConfig, trained: TrainedNetwork, samples: SelectedSamples
) -> dict[str, Any]:
    identity = {
        "weights_sha256": trained.weights_sha256,
        "dataset": samples.images.manifest.dataset,
        "dataset_fingerprint": samples.images.manifest.fingerprint,
        "splits": config.splits,
        "threshold": config.threshold,
        "both_empty": config.both_empty,
        "preprocessing": vars(trained.preprocessing),
        "batch_size": config.batch_size,
    }
    return json.loads(json.dumps(identity))


def _finished(
    config: EvaluateConfig, output: Path, identity: Mapping[str, Any]
) -> RunRecord | None:
    """Returns the record that is there, unless it should now say something else besides.

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
    return record if same else None


def _evaluate(
    config: EvaluateConfig,
    trained: TrainedNetwork,
    samples: SelectedSamples,
    identity: Mapping[str, Any],
    output: Path,
    device: torch.device,
    stopwatch: Stopwatch,
) -> RunRecord:
    """Does this process's pieces; whoever finds all of them done writes the record."""
    place = process_place()
    dataset = MaskedImages(samples)
    pieces = -(-len(samples) // _IMAGES_PER_PIECE)
    ledger = WorkLedger(output / LEDGER_NAME, identity, pieces)
    ledger.open()
    finished = _finished(config, output, identity)
    if finished is not None:  # another process finished all while this one looked
        ledger.close()
        return finished
    with progress_bar(f"evaluate {output.name}", len(samples)) as advance:
        for piece in ledger.unfinished(place.rank, place.world_size):
            first = piece * _IMAGES_PER_PIECE
            numbers = range(first, min(first + _IMAGES_PER_PIECE, len(samples)))
            ledger.finish(piece, {"rows": _score(config, trained, dataset, numbers, device)})
            advance(len(numbers))
    if ledger.is_complete():
        with hold_lock(ledger.folder / "finalise.lock") as held:
            finished = _finished(config, output, identity) if held else None
            if finished is not None:
                return finished
            if held:
                record = _finalise(config, trained, samples, identity, output, ledger, stopwatch)
                ledger.close()
                print(_sentence(record), file=sys.stderr, flush=True)  # whichever rank this is
                return record
    if (output / RECORD_NAME).exists():
        return read_record(output / RECORD_NAME)
    say(f"evaluate: process {place.rank} is done; others still work on {output}")
    return RunRecord(stage="evaluate", name=output.name, config=as_plain(config), inputs=identity)


@torch.inference_mode()
def _score(
    config: EvaluateConfig,
    trained: TrainedNetwork,
    dataset: MaskedImages,
    numbers: range,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Returns the rows of one piece."""
    keys = dataset.samples.images.index["key"]
    both_empty = 1.0 if config.both_empty == "one" else float("nan")
    rows: list[dict[str, Any]] = []
    for start in range(numbers.start, numbers.stop, config.batch_size):
        batch = range(start, min(start + config.batch_size, numbers.stop))
        items = [dataset[number] for number in batch]
        image, target = as_float(torch.utils.data.default_collate(items), device)
        probability = predict(trained, image)
        if not probability.isfinite().all():
            raise CheckpointError(
                f"{config.weights}: gives values that are not numbers for images of "
                f"{dataset.samples.images.root}; its training has diverged"
            )
        prediction = probability > config.threshold
        target = target > 0.5
        columns = (
            dice_per_image(prediction, target, both_empty).tolist(),
            target.flatten(1).sum(1).tolist(),
            prediction.flatten(1).sum(1).tolist(),
        )
        for number, *values in zip(batch, *columns, strict=True):
            names = ("dice", "target_pixels", "predicted_pixels")
            rows.append({"key": keys[number].as_py(), **dict(zip(names, values, strict=True))})
    return rows


def predict(trained: TrainedNetwork, image: torch.Tensor) -> torch.Tensor:
    """Returns the probability of target, float32 (N, 1, H, W), for images in [0, 1]."""
    seen = trained.preprocessing
    return logits_at_image_size(
        trained.network,
        image,
        trained.spec.in_channels,
        seen.height,
        seen.width,
        seen.mean,
        seen.std,
    ).sigmoid()


def _finalise(
    config: EvaluateConfig,
    trained: TrainedNetwork,
    samples: SelectedSamples,
    identity: Mapping[str, Any],
    output: Path,
    ledger: WorkLedger,
    stopwatch: Stopwatch,
) -> RunRecord:
    """Joins the pieces, checks that each image is there once, and writes the record."""

    def pieces() -> Iterator[list[Mapping[str, Any]]]:
        for piece in range(ledger.pieces):
            yield ledger.receipt(piece)["rows"]

    path = output / PREDICTIONS_NAME
    write_table(path, PREDICTIONS_SCHEMA, pieces(), ledger.folder)
    table = read_table(path, PREDICTIONS_SCHEMA)
    if table["key"].to_pylist() != samples.images.keys:
        raise DatasetError(
            f"{path}: its keys are not those of the test images, each once; delete it"
        )
    metrics = summarise_dice(table["dice"].to_numpy(), config.bootstrap_samples, config.seed)
    if config.teacher_record is not None:
        metrics["knowledge_transfer_capability"] = _capability(
            metrics["dice_mean"], _teacher_dice(config, trained, identity)
        )
    if config.overlays:
        from nakt_dist.evaluation.overlays import draw_overlays

        draw_overlays(output / "overlays.png", trained, MaskedImages(samples), table, config)
    save_config(config, output, staging=ledger.folder)
    manifest = samples.images.manifest
    record = RunRecord(
        stage="evaluate",
        name=output.name,
        config=as_plain(config),
        inputs=identity,
        counts={"images": len(samples)},
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
            },
        },
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )
    record.write(output, ledger.folder)
    return record


def _teacher_dice(
    config: EvaluateConfig, trained: TrainedNetwork, identity: Mapping[str, Any]
) -> float | None:
    """The mean Dice in the teacher's record, None where none was defined.

    Raises:
        DatasetError: there is no record, the teacher was evaluated on other images, or it is
            not a teacher of this network.
    """
    path = Path(config.teacher_record)
    record = read_record(path / RECORD_NAME if path.is_dir() else path)
    same = ("dataset_fingerprint", "splits", "both_empty")
    found = {name: record.inputs.get(name) for name in same}
    expected = {name: identity[name] for name in same}
    if found != expected:
        raise DatasetError(
            f"{path}: the teacher was evaluated on other images "
            f"({'; '.join(differing_fields(found, expected))})"
        )
    teachers = _teachers_of(trained.lineage)
    if record.inputs.get("weights_sha256") not in {*teachers, trained.weights_sha256}:
        raise DatasetError(
            f"{path}: this network did not teach {config.weights}, which names "
            f"{len(teachers)} teachers; give the evaluation of one of them as teacher_record"
        )
    return record.metrics["dice_mean"]


def _teachers_of(lineage: Mapping[str, Any]) -> set[str]:
    """The weights of all teachers of a network and of those it was started from."""
    teachers: set[str] = set()
    while lineage:
        taught = lineage.get("trained_on", {}).get("teachers", [])
        teachers |= {teacher["weights_sha256"] for teacher in taught}
        lineage = (lineage.get("parent") or {}).get("lineage", {})
    return teachers


def _capability(student_dice: float | None, teacher_dice: float | None) -> float | None:
    """The student's Dice relative to its teacher's, where that is defined."""
    if student_dice is None or not teacher_dice:
        return None
    return knowledge_transfer_capability(student_dice, teacher_dice)


def _sentence(record: RunRecord) -> str:
    """Says in one line what came out."""
    metrics = record.metrics
    if metrics["dice_mean"] is None:
        return f"evaluate {record.name}: no image with a defined Dice"
    lower, upper = metrics["dice_interval_95"]
    capability = metrics.get("knowledge_transfer_capability")
    return (
        f"evaluate {record.name}: Dice {metrics['dice_mean']:.2f} ± {metrics['dice_std']:.2f} % "
        f"over {metrics['images']} images, 95 % interval {lower:.2f} to {upper:.2f}"
        + (f", KTC {capability:.1f} %" if capability is not None else "")
    )
