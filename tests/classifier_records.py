"""Records of classifiers written by hand, with predictions that they truly sum up."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nakt_dist.config.evaluating import OperatingPointConfig
from nakt_dist.evaluation.classification_summary import summarise_classification
from nakt_dist.evaluation.operating_points import Labelled, operate
from nakt_dist.records.run_record import RunRecord
from tests.records import VERSIONS, sha

FINDINGS = ("Cardiomegaly", "Edema", "Pneumothorax", "Pleural Effusion")
POLICY = {"uncertain": "zero", "blank": "zero"}
ATTENTION = {
    "preset": "paper",
    "taps": None,
    "reduction": "eq2",
    "weight_mode": "divide",
    "beta": 1,
}
DISTILLATION = {"temperature": 2.0, "weight": 1.0}


def images_of(
    dataset: str = "chexpert", samples: int = 100, split: str = "train", phantom: bool = True
) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "fingerprint": sha(f"packing of {dataset}"),
        "phantom": phantom,
        "samples": samples,
        "labels": "annotations",
        "splits": [split],
        "exclusion": None,
        "count": samples,
        "subset_seed": 0,
    }


def followed(name: str = "teacher", dataset: str | None = "mimic", **taken: Any) -> dict[str, Any]:
    """Returns what a student's lineage says of its teacher; ``taken`` names what it takes."""
    return {
        "teacher": {
            "name": name, "weights_sha256": sha(name), "model": "densenet121",
            "trained_on": dataset,
        },
        "attention": None,
        "distillation": None,
    } | (taken or {"attention": ATTENTION})  # fmt: skip


def start(name: str, lineage: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "weights_sha256": sha(name), "lineage": dict(lineage or {})}


def classifier(
    trained_on: Mapping[str, Any] | None = None,
    network: str = "densenet121",
    seed: int = 0,
    parent: Mapping[str, Any] | None = None,
    transfer: Mapping[str, Any] | None = None,
    parts: str | list[str] = "all",
    findings: Sequence[str] = FINDINGS,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns what ``nakt train`` writes into a classifier's weights."""
    parameters = {"densenet121": 6_968_206, "densenet40": 1_364_142}.get(network, 1000)
    return {
        "task": "classification",
        "model": {"name": network, "in_channels": 3, "num_outputs": len(findings),
                  "options": dict(options or {})},
        "seed": seed,
        "labels": list(findings),
        "label_policy": POLICY,
        "trainable": {
            "parts": parts, "parameters": 2_700_814 if parts == "last34" else parameters,
        },
        "trained_on": dict(trained_on or images_of()),
        "validated_on": images_of((trained_on or {}).get("dataset", "chexpert"), 50, "validation"),
        "parent": parent,
        "transfer": transfer,
    }  # fmt: skip


def predictions(
    signal: float, seed: int = 0, images: int = 80, findings: Sequence[str] = FINDINGS
) -> dict[str, Any]:
    """Returns the columns of a classifier's predictions on one fixed set of images.

    Two images are of one patient each. The last finding's targets are all 0 where there are
    more than four, so that it lacks a class.

    Args:
        signal: how far positives lie above negatives, in standard deviations of the noise.
        seed: of the noise.
        images: how many.
        findings: names.
    """
    truth = np.random.default_rng(7).random((images, len(findings))) < 0.4
    truth[:2] = [[True], [False]]
    if len(findings) > len(FINDINGS):
        truth[:, -1] = False
    noise = np.random.default_rng(seed).normal(size=truth.shape)
    shared = np.random.default_rng(8).normal(size=truth.shape)
    probability = 1 / (1 + np.exp(-(signal * truth + 0.5 * noise + shared)))
    columns: dict[str, Any] = {
        "key": [f"image-{number:04d}" for number in range(images)],
        "patient_id": [f"patient-{number // 2:04d}" for number in range(images)],
    }
    for number, name in enumerate(findings):
        columns[f"probability {name}"] = probability[:, number]
        columns[f"target {name}"] = truth[:, number].astype(np.int8)
    return columns | {
        "sex": ["F" if number // 2 % 2 else "M" for number in range(images)],
        "age": [30 + number // 2 for number in range(images)],
        "view": ["frontal"] * images,
    }


def labelled(columns: Mapping[str, Any], findings: Sequence[str]) -> Labelled:
    """Returns the probabilities and targets in the columns of predictions."""
    values = [
        np.stack([columns[f"{kind} {name}"] for name in findings], axis=1).astype(float)
        for kind in ("probability", "target")
    ]
    return Labelled(*values)


def write_classified(
    folder: Path,
    lineage: Mapping[str, Any],
    signal: float = 1.0,
    dataset: str = "chexpert",
    phantom: bool = True,
    images: int = 80,
    network: str | None = None,
    operating: bool = False,
    **changes: Any,
) -> float:
    """Writes a record of ``nakt evaluate`` and its predictions; returns the AUROC in percent.

    The folder names the weights; ``operating`` gives it operating points. ``changes`` replace
    parts of the record.
    """
    folder.mkdir(parents=True)
    findings = lineage.get("labels", FINDINGS)
    columns = predictions(signal, lineage.get("seed", 0), images, findings)
    pq.write_table(pa.table(columns), folder / "predictions.parquet")
    test = labelled(columns, findings)
    result = summarise_classification(
        findings, test.probabilities, test.targets, columns["patient_id"],
        {"sex": columns["sex"]}, samples=50, seed=0,
    )  # fmt: skip
    if operating:
        validation = labelled(predictions(signal, 1000, images, findings), findings)
        packing = sha(f"packing of {dataset}")
        told = {
            "dataset": dataset,
            "dataset_fingerprint": packing,
            "phantom": phantom,
            "splits": ["validation"],
            "images": images,
        }
        points = operate(
            findings, validation, test, columns["patient_id"], OperatingPointConfig("validation"),
            told, samples=50, seed=0,
        )  # fmt: skip
        result = replace(result, operating_points=points)
    metrics, details = result.to_json()
    model = lineage.get("model", {"name": network or "densenet121", "options": {}})
    record: dict[str, Any] = {
        "stage": "evaluate",
        "name": folder.name,
        "config": {"weights": f"/home/somebody/{folder.name}"},
        "inputs": {
            "weights_sha256": sha(folder.name),
            "dataset": dataset,
            "dataset_fingerprint": sha(f"packing of {dataset}"),
            "splits": ["test"],
            "task": "classification",
            "labels": list(findings),
            "label_policy": POLICY,
        },
        "counts": {"images": images},
        "metrics": metrics,
        "details": {
            **details,
            "network": folder.name,
            "lineage": dict(lineage),
            "model": {"name": model["name"], "options": model["options"]},
            "test_set": {
                "dataset": dataset, "phantom": phantom, "splits": ["test"], "height": 64,
                "width": 64,
            },
        },
        "seconds": 1.0,
        "versions": VERSIONS,
    } | changes  # fmt: skip
    RunRecord(**record).write(folder)
    return metrics["auroc_mean"]


def write_classifier_training(
    folder: Path,
    lineage: Mapping[str, Any],
    auroc: Sequence[float] = (0.6, 0.7, 0.65),
    loss: Sequence[float] = (0.6, 0.5, 0.55),
    recipe: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Writes the record and the metrics of a training with one validation an epoch.

    ``settings`` are further ones of the training.
    """
    folder.mkdir(parents=True)
    lines: list[dict[str, Any]] = []
    for epoch, pair in enumerate(zip(auroc, loss, strict=True)):
        for step in (2 * epoch + 1, 2 * epoch + 2):
            falling = 0.6 * 0.9**epoch
            lines.append({"step": step, "epoch": epoch, "loss": falling, "cross_entropy": falling})
        lines.append(
            {"step": 2 * epoch + 2, "validation_auroc": pair[0], "validation_loss": pair[1]}
        )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 4, "va')
    epochs = len(auroc)
    RunRecord(
        stage="train",
        name=folder.name,
        config={
            "output": str(folder), "seed": lineage["seed"],
            "recipe": {"epochs": epochs, "steps": None, "learning_rate": 1e-4, **(recipe or {})},
            "data": {"dataset": "/somewhere", "splits": ["train"]}, **settings,
        },
        inputs={"dataset": lineage["trained_on"]["fingerprint"]},
        counts={"images": lineage["trained_on"]["samples"]},
        details={
            "lineage": dict(lineage), "best_weights_sha256": sha(folder.name),
            "total_steps": 2 * epochs,
        },
        seconds=2.0,
        versions=VERSIONS,
    ).write(folder)  # fmt: skip
    return folder


def write_attention(
    folder: Path,
    student: str,
    similarities: Sequence[float | None] = (0.9, 0.8, 0.7, None),
    sheet: bytes | None = None,
    **changes: Any,
) -> Path:
    """Writes a record of ``nakt attention``, and its sheet where one is given."""
    folder.mkdir(parents=True)
    labels = [
        {
            "name": name,
            "images": 0 if mean is None else 5,
            "similarity_mean": mean,
            "similarity_std": None if mean is None else 0.05,
            "similarity_to_other_image_mean": None if mean is None else mean - 0.2,
        }
        for name, mean in zip(FINDINGS, similarities, strict=True)
    ]
    if sheet is not None:
        (folder / "attention.png").write_bytes(sheet)
    details: dict[str, Any] = {
        "labels": labels,
        "network": student,
        "teacher": {
            "name": "teacher", "weights_sha256": sha("teacher"), "taught_this_student": True,
        },
        "test_set": {"dataset": "chexpert", "phantom": True},
    } | changes  # fmt: skip
    RunRecord(
        stage="attention", name=folder.name, config={"student": student}, details=details,
        versions=VERSIONS,
    ).write(folder)  # fmt: skip
    return folder


def write_study(
    root: Path,
    seeds: int = 3,
    sizes: Sequence[int] = (100, 400),
    networks: Sequence[str] = ("densenet121", "densenet40"),
    phantom: bool = True,
    images: int = 80,
) -> Path:
    """Writes a study: transfer learning, also of the last layers, against attention transfer."""
    teacher = classifier(images_of("mimic", 1200, phantom=phantom), seed=9)
    write_classified(root / "tests" / "teacher", teacher, 2.5, "mimic", phantom, images)
    first = start("imagenet")
    for network in networks:
        for number, size in enumerate(sizes):
            methods: dict[str, tuple[dict[str, Any], float]] = {
                "all": ({}, 0.9),
                "attention": ({"transfer": followed()}, 1.5),
            }
            if network == "densenet121":
                methods["last34"] = ({"parts": "last34"}, 0.7)
            for method, (options, signal) in methods.items():
                for seed in range(seeds):
                    trained_on = images_of(samples=size, phantom=phantom)
                    lineage = classifier(trained_on, network, seed, first, **options)
                    name = f"{network}-{size}-{method}-{seed}"
                    stronger = signal + 0.6 * number * (1.6 if method != "attention" else 0.6)
                    write_classified(
                        root / "tests" / name, lineage, stronger, phantom=phantom, images=images
                    )
                    epochs = np.arange(12)
                    late = 8 if method == "attention" else 4
                    wobble = 0.004 * np.sin(epochs + seed)
                    gain = 0.12 * signal * (1 - np.exp(-epochs / 3))
                    fall = 0.012 * np.maximum(epochs - late, 0)
                    write_classifier_training(
                        root / "runs" / name, lineage, (0.6 + gain - fall + wobble).tolist(),
                        (0.6 - gain + 3 * fall + wobble).tolist(),
                    )  # fmt: skip
    return root
