"""The teachers of ``nakt teach``, opened and checked against the images, and their precision."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from nakt_dist.config import TeacherConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.evaluation.network_lineage import classes_of, task_of
from nakt_dist.loading.samples import image_form
from nakt_dist.loading.targets import require_output_names
from nakt_dist.models.network_file import open_network
from nakt_dist.models.timm_files import check_size
from nakt_dist.models.weights_path import weights_path
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages.opening import Opening, tell_weights
from nakt_dist.transfer.classes import BACKGROUND, check_classes
from nakt_dist.transfer.combining import MOST_VOTERS, Combination
from nakt_dist.transfer.ensemble import Teacher, joined_classes
from nakt_dist.transfer.views import scaled_size


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


def open_teachers(
    configs: Sequence[TeacherConfig],
    images: IndexedShards,
    opening: Opening,
    classes: Sequence[str] | None = None,
) -> list[Teacher]:
    """Returns those that can be used, on the CPU: the device's memory may be another job's.

    Args:
        classes: of the masks; None for those of the first teacher.

    Raises:
        ConfigurationError: some give masks and some findings; or as ``open_teacher``.
        CheckpointError: as ``open_teacher``.
    """
    teachers: list[Teacher] = []
    wanted = None if classes is None else check_classes(classes, "classes")
    for number, teacher in enumerate(configs, start=1):
        with opening.part(f"teacher {number}"):
            opened, notices = open_teacher(teacher, images, wanted)
            wanted = opened.masks if opened.findings is None else wanted
            opening.note(*notices)
            trained = opened.trained
            words = tell_weights(weights_path(teacher.weights), trained.weights_sha256)
            opening.facts[f"teacher {number}"] = f"{trained.name}: {words}"
            teachers.append(opened)
    _check_alike(teachers)
    return teachers


def open_teacher(
    config: TeacherConfig, images: IndexedShards, wanted: Sequence[str] | None = None
) -> tuple[Teacher, list[str]]:
    """Loads one teacher and checks that it can see these images.

    Args:
        wanted: the classes of the masks; None for the teacher's own.

    Returns:
        The teacher, and what is worth knowing of it, a sentence each.

    Raises:
        ConfigurationError: its channels or outputs do not fit, or have no names.
        CheckpointError: its file cannot be used.
    """
    trained = open_network(config.weights, config.model, config.preprocessing, name=config.name)
    trained.require_outputs(config.weights, "nakt teach")
    seen = tuple(config.flips), tuple(config.scales)
    teacher = Teacher(trained, config.weight, config.output, None, *seen)
    if task_of(trained) == "classification":
        findings = require_output_names(
            trained, config.weights, config.labels, "teachers.labels", "nakt teach"
        )
        teacher = replace(teacher, findings=findings)
    elif config.labels is not None:
        raise ConfigurationError(
            f"{config.weights}: teachers.labels names the findings of a classifier, and "
            f"{trained.spec.name} gives masks; leave it out"
        )
    else:
        teacher = _with_classes(teacher, config, wanted)
    form = image_form(images.manifest)
    notices = trained.describe(form)
    for scale in config.scales:
        size = scaled_size(trained.size_of(form), scale)
        check_size(trained.network, size, f"{trained.name} at {scale:g} of teachers.scales")
    return teacher, notices


def _with_classes(teacher: Teacher, config: TeacherConfig, wanted: Sequence[str] | None) -> Teacher:
    """Returns a teacher of masks that gives the classes that are wanted."""
    own = classes_of(teacher.trained, config.classes, "teachers.classes", config.weights)
    named = [config.class_map.names.get(name, name) for name in own]
    masks = tuple(dict.fromkeys([BACKGROUND, *(wanted or named)]))
    places = config.class_map.places(own, masks, config.weights)
    several = teacher.trained.spec.num_outputs > 1
    return replace(teacher, masks=masks, classes=tuple(masks[p] for p in places) if several else ())


def _check_alike(teachers: Sequence[Teacher]) -> None:
    """Refuses teachers of which some give masks and some findings."""
    kinds = {each.findings is None: each.trained for each in teachers}
    if len(kinds) > 1:
        raise ConfigurationError(
            f"teachers: {kinds[True].name} ({kinds[True].spec.name}) gives masks, and "
            f"{kinds[False].name} ({kinds[False].spec.name}) findings; let them teach one after "
            "the other, into two outputs"
        )


def check_combination(combination: Combination, teachers: Sequence[Teacher]) -> None:
    """Refuses STAPLE where it is not defined.

    Raises:
        ConfigurationError: the teachers give findings, or have more views than it can count.
    """
    if combination != "staple" or not teachers:
        return
    voters = sum(each.views for each in teachers)
    if teachers[0].findings is not None:
        raise ConfigurationError(
            "combination is staple, which judges voters by the pixels of an image, and the "
            "teachers give findings; set it to mean or median"
        )
    if joined_classes(teachers):
        raise ConfigurationError(
            "combination is staple, which asks whether a pixel is target, and the masks have "
            f"{len(teachers[0].masks)} classes; set it to mean or median"
        )
    if not 3 <= voters <= MOST_VOTERS:
        raise ConfigurationError(
            f"combination is staple, and there are {voters} voters (teachers and their views); "
            f"expected 3 to {MOST_VOTERS}: of two, neither shows itself to be the better one"
        )
