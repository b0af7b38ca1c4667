"""``nakt weigh``: the weights of an ensemble, found on a few annotated images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from nakt_dist.config import LabelConfig, TeacherConfig, WeighConfig, as_plain, save_config
from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.loading.batches import as_float, read_ahead
from nakt_dist.loading.mask_planes import planes_of_samples
from nakt_dist.loading.masked import MaskedImages
from nakt_dist.loading.samples import CachedImages, SelectedSamples, select_samples
from nakt_dist.loading.targets import LabelledImages, labelled_targets
from nakt_dist.models.inference import for_inference
from nakt_dist.models.weights_path import weights_path
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.devices import choose_device
from nakt_dist.runtime.files import remove_unfinished, write_bytes
from nakt_dist.runtime.outputs import check_output
from nakt_dist.runtime.processes import own_cores, require_one_process, say
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.shards.pictures import read_pictures
from nakt_dist.stages.opening import NotOpened, Opening
from nakt_dist.stages.teach_opening import open_teachers
from nakt_dist.transfer.ensemble import Teacher
from nakt_dist.transfer.ensemble_weights import best_weights, squared_error
from nakt_dist.transfer.losses import split_void

TEACHERS_NAME = "teachers.yaml"


def run(config: WeighConfig) -> RunRecord:
    """Finds the weights of least squared error, and writes teachers with them.

    A weight of 0 leaves a teacher out of ``teachers.yaml``. Of findings those count that every
    teacher knows and the dataset labels.

    Raises:
        ConfigurationError: the teachers share no finding with each other and the dataset, or it
            was started as several processes.
        DatasetError: the dataset is absent, damaged or without what to judge by.
        CheckpointError: a teacher's file cannot be used, or gives what is no number.
    """
    require_one_process("weigh")
    stopwatch, opening, output = Stopwatch(), Opening(), Path(config.output)
    check_output(output, "weigh")
    teachers, images, columns = plan(config, opening)
    opening.say("weigh")
    gram, products, square = _sums(config, teachers, images, columns)
    weights = best_weights(gram, products)
    equal, alone = np.full(len(teachers), 1 / len(teachers)), np.eye(len(teachers))
    errors = {
        name: squared_error(gram, products, square, each)
        for name, each in (("weighted", weights), ("equal_weights", equal))
    }
    each_alone = [squared_error(gram, products, square, each) for each in alone]
    output.mkdir(parents=True, exist_ok=True)
    remove_unfinished(output)
    chosen = [
        replace(each, weight=round(float(weight), 6))
        for each, weight in zip(config.teachers, weights, strict=True)
        if round(float(weight), 6) > 0
    ]
    text = yaml.safe_dump({"teachers": [_plain(each) for each in chosen]}, sort_keys=False)
    write_bytes(output / TEACHERS_NAME, text.encode())
    save_config(config, output)
    names = [each.trained.name for each in teachers]
    for name, weight, error in zip(names, weights, each_alone, strict=True):
        say(f"weigh: {name}: weight {weight:.4f}; alone its squared error is {error:.5f}")
    say(
        f"weigh: squared error {errors['weighted']:.5f} with these weights, "
        f"{errors['equal_weights']:.5f} with equal ones; {output / TEACHERS_NAME}"
    )
    record = RunRecord(
        stage="weigh",
        name=output.name,
        config=as_plain(config),
        inputs={"dataset": images.samples.images.manifest.fingerprint},
        counts={"images": len(images)},
        metrics={f"{name}_squared_error": error for name, error in errors.items()},
        details={
            "teachers": [
                {"name": name, "weights_sha256": each.trained.weights_sha256, "weight": weight,
                 "squared_error": error}
                for name, each, weight, error in zip(
                    names, teachers, weights.tolist(), each_alone, strict=True
                )
            ],
            "findings": list(images.targets.names)
            if isinstance(images, LabelledImages)
            else None,
        },
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )  # fmt: skip
    record.write(output)
    return record


def plan(
    config: WeighConfig, opening: Opening
) -> tuple[list[Teacher], CachedImages, list[list[int]]]:
    """Opens images and teachers, and checks that they belong together.

    Returns:
        The teachers, the images with their targets, and of each classifier the numbers of its
        outputs that are judged; none for masks.
    """
    with opening.part("data"):
        samples = select_samples(config.dataset, config.splits, cache=opening.cache or config.cache)
        opening.tell_samples("data", samples, config.dataset, config.splits)
        teachers = open_teachers(config.teachers, samples.images, opening)
        if len(teachers) == len(config.teachers):
            opening.note(*_met(config.teachers, teachers, samples))
            return (teachers, *_targets(config, teachers, samples))
    raise NotOpened


def _targets(
    config: WeighConfig, teachers: Sequence[Teacher], samples: SelectedSamples
) -> tuple[CachedImages, list[list[int]]]:
    if teachers[0].findings is None:
        planes = planes_of_samples(samples, config.class_map, teachers[0].masks)
        return MaskedImages(samples, planes=planes), [[] for _ in teachers]
    labels = config.labels or LabelConfig()
    targets = labelled_targets(samples.images, labels)
    names = [
        name for name in targets.names if all(name in (each.findings or ()) for each in teachers)
    ]
    if not names:
        known = "; ".join(", ".join(each.findings or ()) for each in teachers)
        raise ConfigurationError(
            f"no finding is known to every teacher and labelled in {samples.images.root} "
            f"(teachers: {known}; labels: {', '.join(targets.names)}). Weigh those that share one"
        )
    targets = labelled_targets(samples.images, replace(labels, names=names))
    outputs = [[(each.findings or ()).index(name) for name in names] for each in teachers]
    return LabelledImages(samples, targets), outputs


def _met(
    configs: Sequence[TeacherConfig], teachers: Sequence[Teacher], samples: SelectedSamples
) -> list[str]:
    """Says which teachers have learnt from the images that they are weighed on, or may have."""
    notes = []
    for config, teacher in zip(configs, teachers, strict=True):
        met = read_pictures(weights_path(config.weights)).count(samples.images.column("pixels"))
        if met["training"] is None:
            notes.append(
                f"whether {teacher.trained.name} learnt from these images is not known: its "
                "weights lie without the numbers of the pictures that it met"
            )
        elif met["training"]:
            notes.append(
                f"{teacher.trained.name} learnt from {met['training']} of these {len(samples)} "
                "images: its weight is too high by what it remembers of them. Choose others"
            )
    return notes


@torch.inference_mode()
def _sums(
    config: WeighConfig, teachers: list[Teacher], images: CachedImages, columns: list[list[int]]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns means over all pixels, or labels: of T_i T_j, of T_i y, and of y²."""
    device = choose_device(config.device, config.threads)
    manifest = images.samples.images.manifest
    size = manifest.height, manifest.width
    ready = [replace(each, trained=for_inference(each.trained, device, size)) for each in teachers]
    sums = np.zeros((len(teachers) + 1, len(teachers) + 1))
    count = 0
    numbers = [
        range(start, min(start + config.batch_size, len(images)))
        for start in range(0, len(images), config.batch_size)
    ]
    with progress_bar("weigh images", len(images)) as advance:
        for batch in read_ahead(images, numbers, own_cores()):
            image, target = as_float(batch, device)
            if isinstance(images, MaskedImages):
                target, void = split_void(target, len(images.planes.classes))
                target = target.masked_fill(void > 0.5, torch.nan)
            rows = [
                torch.stack(list(each.probabilities(image))).mean(0)[:, wanted or slice(None)]
                for each, wanted in zip(ready, columns, strict=True)
            ]
            judged = ~target.isnan()
            stacked = torch.stack([each[judged] for each in (*rows, target)]).double()
            sums += (stacked @ stacked.T).cpu().numpy()
            count += int(judged.sum())
            advance(len(image))
    if not np.isfinite(sums).all():
        raise CheckpointError("a teacher gives values that are not numbers: its training diverged")
    if not count:
        raise ConfigurationError(f"{config.dataset}: every label is ignored; nothing to judge by")
    means = sums / count
    return means[:-1, :-1], means[:-1, -1], float(means[-1, -1])


def _plain(teacher: TeacherConfig) -> dict[str, Any]:
    """Returns a teacher's settings as YAML holds them, without those left out."""
    return {name: value for name, value in as_plain(teacher).items() if value not in (None, [], {})}
