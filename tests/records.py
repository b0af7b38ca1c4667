"""Run records and pseudo-labels written by hand, so that every number in a report is known."""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nakt_dist.config import ReportConfig
from nakt_dist.evaluation.summary import summarise_metric
from nakt_dist.records.run_record import RunRecord
from nakt_dist.runtime.files import file_sha256
from nakt_dist.shards.manifest import INDEX_NAME, PseudoLabelManifest
from nakt_dist.shards.tables import PSEUDO_INDEX_SCHEMA, write_table
from nakt_dist.shards.writer import write_shard
from nakt_dist.stages import report

RULE = {"alpha": 256, "beta": 2.5, "combine": "either", "scale_alpha": False}
VERSIONS = {"python": "3.11.7", "torch": "2.15.0"}


def sha(name: str) -> str:
    """Returns 64 hexadecimal digits that begin with the name's own bytes."""
    return name.encode().hex().ljust(64, "0")[:64]


def reported_once(root: Path, output: Path) -> tuple[Path, RunRecord, list[str]]:
    """Makes a report, and returns its folder, its record, and the lines that it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        record = report.run(ReportConfig([str(root)], str(output)))
    return output, record, printed.getvalue().splitlines()


def annotations(
    dataset: str = "breast", samples: int = 88, split: str = "train", phantom: bool = True
) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "fingerprint": sha(f"packing of {dataset}"),
        "phantom": phantom,
        "samples": samples,
        "labels": "annotations",
        "splits": [split],
        "exclusion": None,
    }


def pseudo_masks(
    dataset: str,
    teachers: Sequence[str],
    samples: int = 160,
    before: int = 160,
    exclusion: Mapping[str, Any] | None = None,
    phantom: bool = True,
    fingerprint: str | None = None,
) -> dict[str, Any]:
    return annotations(dataset, samples, phantom=phantom) | {
        "labels": "pseudo masks",
        "exclusion": exclusion,
        "before_exclusion": before,
        "pseudo_labels_fingerprint": fingerprint or sha(f"pseudo {dataset} {teachers}"),
        "teachers": [{"name": name, "weights_sha256": sha(name)} for name in teachers],
    }


def lineage(
    trained_on: Mapping[str, Any],
    parent: str | None = None,
    parent_lineage: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns what ``nakt train`` writes into its weights; ``parent`` names other weights."""
    return {
        "model": {"name": "unet"},
        "trained_on": dict(trained_on),
        "validated_on": None,
        "parent": parent and {"weights_sha256": sha(parent), "lineage": dict(parent_lineage or {})},
    }


def write_evaluation(
    folder: Path,
    trained: Mapping[str, Any],
    dice: Sequence[float],
    name: str | None = None,
    network: str = "unet",
    options: Mapping[str, Any] | None = None,
    dataset: str = "breast",
    phantom: bool = True,
    splits: Sequence[str] | None = ("test",),
    first_key: int = 0,
    **changes: Any,
) -> Path:
    """Writes ``FOLDER/record.json`` and ``predictions.parquet``; the folder names the weights."""
    folder.mkdir(parents=True)
    keys = [f"patient-{first_key + number:04d}" for number in range(len(dice))]
    columns = {"key": keys, "dice": [float(value) for value in dice]}
    columns |= {"target_pixels": [9] * len(dice), "predicted_pixels": [9] * len(dice)}
    pq.write_table(pa.table(columns), folder / "predictions.parquet")
    wanted = None if splits is None else list(splits)
    inputs = {
        "weights_sha256": sha(folder.name),
        "dataset": dataset,
        "dataset_fingerprint": sha(f"packing of {dataset}"),
        "splits": wanted,
        "threshold": 0.5,
        "both_empty": "one",
    }
    test_set = {"dataset": dataset, "phantom": phantom, "splits": wanted, "height": 64, "width": 64}
    record = {
        "stage": "evaluate",
        "name": name or folder.name,
        "config": {"weights": f"/home/somebody/{folder.name}", "patient": "of no concern"},
        "inputs": inputs,
        "counts": {"images": len(dice)},
        "metrics": summarise_metric("dice", dice, samples=200, seed=0).to_json(),
        "details": {
            "network": name or folder.name,
            "lineage": dict(trained),
            "model": {"name": network, "options": dict(options or {})},
            "test_set": test_set,
        },
        "seconds": 1.5,
        "versions": VERSIONS,
    } | changes
    RunRecord(**record).write(folder)
    return folder


def write_training(
    folder: Path,
    trained: Mapping[str, Any],
    losses: Sequence[float] = (1.0, 0.5, 0.25),
    validation: Sequence[float] = (),
    epochs: int = 6,
) -> Path:
    """Writes the record and the metrics of a training run."""
    folder.mkdir(parents=True)
    lines = [{"step": step, "epoch": 0, "loss": loss} for step, loss in enumerate(losses, 1)]
    lines += [{"step": step, "validation_dice": dice} for step, dice in enumerate(validation, 1)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 4, "lo')
    RunRecord(
        stage="train",
        name=folder.name,
        config={"recipe": {"epochs": epochs, "steps": None}},
        inputs={"dataset": trained["trained_on"]["fingerprint"]},
        counts={"images": trained["trained_on"]["samples"]},
        details={"lineage": dict(trained), "best_weights_sha256": sha(folder.name), "steps": 3},
        seconds=2.0,
        versions=VERSIONS,
    ).write(folder)
    return folder


def write_pseudo_set(
    folder: Path,
    rows: Sequence[tuple[str, int, float]],
    dataset: str = "thyroid",
    dataset_fingerprint: str = sha("packing of thyroid"),
    teachers: Sequence[str] = ("teacher",),
    soft: bool = True,
    masks: Mapping[str, bytes] | None = None,
    keys: Sequence[str] | None = None,
    size: tuple[int, int] = (64, 64),
    learnt_from: Mapping[str, Any] | None = None,
    started_from: Mapping[str, Any] | None = None,
) -> PseudoLabelManifest:
    """Writes pseudo-labels from (split, target pixels, entropy) per sample.

    Their expected Dice is 1 without any entropy, and 0 from ten bits on.

    Args:
        folder: made here.
        rows: of the index.
        dataset: name.
        dataset_fingerprint: of its manifest.
        teachers: their names.
        soft: whether one of them is.
        masks: encoded soft mask by key; one byte each when absent.
        keys: of the samples; numbered when absent.
        size: rows and columns of the masks.
        learnt_from: the images of the teachers' training.
        started_from: those of the network that they began with.
    """
    folder.mkdir(parents=True)
    keys = keys or [f"patient-{number:04d}" for number in range(len(rows))]
    masks = masks or dict.fromkeys(keys, b"?")
    files = ((key, {"soft.png": masks[key]}) for key in keys)
    entry, members = write_shard(folder / "pseudo-000000.tar", "train", files)
    table = []
    for key, (split, target_pixels, entropy) in zip(keys, rows, strict=True):
        member = members[key]["soft.png"]
        table.append(
            {
                "key": key,
                "shard": 0,
                "split": split,
                "soft_offset": member.offset,
                "soft_size": member.size,
                "soft_crc32": member.crc32,
                "target_pixels": target_pixels,
                "entropy": entropy,
                "mean_confidence": 0.9,
                "teacher_disagreement": 0.0,
                "expected_dice": max(0.0, 1 - entropy / 10),
            }
        )
    write_table(folder / INDEX_NAME, PSEUDO_INDEX_SCHEMA, [table], None)
    parent = started_from and {"lineage": {"trained_on": started_from, "parent": None}}
    manifest = PseudoLabelManifest(
        shards=(entry,),
        files={INDEX_NAME: file_sha256(folder / INDEX_NAME)},
        dataset=dataset,
        dataset_fingerprint=dataset_fingerprint,
        phantom=True,
        height=size[0],
        width=size[1],
        teachers=tuple(
            {"name": name, "weights_sha256": sha(name)}
            | ({"lineage": {"trained_on": learnt_from, "parent": parent}} if learnt_from else {})
            for name in teachers
        ),
        soft=soft,
    )
    manifest.write(folder)
    return manifest


def scores(mean: float, spread: float = 0.1, images: int = 8) -> np.ndarray:
    """Returns Dice of so many images with exactly this mean and population deviation."""
    return mean + spread * np.where(np.arange(images) % 2, 1.0, -1.0)


def write_experiment(root: Path) -> Path:
    """Writes a whole experiment: a teacher of 80 % Dice, students, fine-tuning, two teachers.

    KTC by hand: thyroid 100 · 76 / 80 = 95 (the student with exclusion), photographs
    100 · 50 / 80 = 62.5.
    """
    tests = root / "evaluate"
    teacher = lineage(annotations())
    write_evaluation(tests / "teacher", teacher, scores(0.80))
    write_evaluation(tests / "teacher-2", lineage(annotations()), scores(0.60), network="sdu_net")
    pseudo = write_pseudo_set(
        root / "pseudo" / "thyroid",
        [("train", 300, 1.0)] * 5
        + [("train", 100, 1.0)] * 2
        + [("train", 300, 3.0), ("other", 0, 3.0)],
    )
    plain = pseudo_masks("thyroid", ["teacher"], 8, 8, None, fingerprint=pseudo.fingerprint)
    chosen = pseudo_masks("thyroid", ["teacher"], 5, 8, RULE, fingerprint=pseudo.fingerprint)
    both = pseudo_masks("thyroid", ["teacher", "teacher-2"])
    photographs = pseudo_masks("photographs", ["teacher"], 43, 120, RULE)
    students = {
        "student": (plain, 0.70, "sdu_net"),
        "student-chosen": (chosen, 0.76, "sdu_net"),
        "student-u": (plain, 0.65, "unet"),
        "student-photographs": (photographs, 0.50, "sdu_net"),
        "student-of-both": (both, 0.83, "deeplabv3plus"),
    }
    for name, (trained_on, mean, network) in students.items():
        options = {"encoder_name": "resnet18"} if network == "deeplabv3plus" else {}
        write_evaluation(
            tests / name, lineage(trained_on), scores(mean), network=network, options=options
        )
        write_training(root / "train" / name, lineage(trained_on), validation=(0.3, 0.6))
    few = annotations(samples=50, split="finetune")
    for name, trained, mean in (
        ("scratch", lineage(few), 0.40),
        ("fine-tuned-student", lineage(few, "student-chosen", lineage(chosen)), 0.78),
        ("fine-tuned-teacher", lineage(few, "teacher", teacher), 0.82),
    ):
        network = "unet" if name == "fine-tuned-teacher" else "sdu_net"
        write_evaluation(tests / name, trained, scores(mean), network=network)
    return root
