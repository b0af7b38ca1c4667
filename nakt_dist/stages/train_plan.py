"""What a training run starts from and learns: network, data, task, and their lineage."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from nakt_dist.config import LabelConfig, TrainConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.evaluation import network_lineage
from nakt_dist.loading.overlap import copies_in_both, images_in_both, patients_in_both
from nakt_dist.loading.samples import (
    CachedImages,
    MaskedImages,
    SelectedSamples,
    image_form,
    select_samples,
)
from nakt_dist.loading.targets import (
    LabelledImages,
    LabelledTargets,
    labelled_targets,
)
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.weights_path import weights_path
from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.exposure import describe_unknown, judge
from nakt_dist.shards.pictures import PicturesMet, numbers_of, read_pictures
from nakt_dist.stages.train_start import Start, choose_start
from nakt_dist.training.following import (
    Following,
    Pairing,
    describe_following,
    open_teacher,
    pair,
)
from nakt_dist.training.tasks import ClassificationTask, SegmentationTask, TrainingTask
from nakt_dist.transfer.classification import positive_weights


@dataclass(frozen=True)
class LearningSet:
    """Samples with what is to be learnt from them.

    Attributes:
        samples: as selected.
        targets: their findings; None for segmentation.
    """

    samples: SelectedSamples
    targets: LabelledTargets | None

    def images(self, cache_megabytes: int) -> CachedImages:
        """Returns the samples decoded one by one, with their targets."""
        if self.targets is None:
            return MaskedImages(self.samples, cache_megabytes)
        return LabelledImages(self.samples, self.targets, cache_megabytes)


@dataclass(frozen=True)
class TrainPlan:
    """Everything a training run is decided by, before any process group exists.

    Attributes:
        config: with what the network and its teacher see filled in.
        start: the network and its first weights.
        training: what is learnt from.
        validation: what the best epoch is chosen on, or None.
        teacher: whom the student follows, on the CPU; or None.
        pairing: what of both is compared; None without a teacher.
        notices: what is worth knowing of all this, a sentence each.
    """

    config: TrainConfig
    start: Start
    training: LearningSet
    validation: LearningSet | None
    teacher: TrainedNetwork | None
    pairing: Pairing | None
    notices: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the network's outputs; None for segmentation."""
        return None if self.training.targets is None else self.training.targets.names


def make_plan(config: TrainConfig) -> TrainPlan:
    """Opens data, start and teacher, and checks that they belong together.

    Raises:
        ConfigurationError: settings contradict each other or the data.
        DatasetError: data are absent, damaged, or were made for something else.
        CheckpointError: weights cannot be read or do not fit.
    """
    training = _open_set(config, "data", None)
    names = training.targets and list(training.targets.names)
    validation = _open_set(config, "validation", training.targets)
    notices = _check_validation(config, training, validation)
    start = choose_start(config, names)
    teacher = open_teacher(config.teacher) if config.teacher else None
    form = image_form(training.samples.images.manifest)
    notices += [f"init {notice}" for notice in start.describe(form)]
    notices += _say_what_was_met(start, config, validation)
    config = replace(config, preprocessing=start.seen.preprocessing)
    if teacher is not None:
        notices += [f"teacher {notice}" for notice in teacher.describe(form)]
        followed = replace(config.teacher, preprocessing=teacher.preprocessing)
        config = replace(config, teacher=followed)
    return TrainPlan(
        config=config,
        start=start,
        training=training,
        validation=validation,
        teacher=teacher,
        pairing=pair(config.teacher, teacher, start.spec.name, names) if teacher else None,
        notices=tuple(notices),
    )


def make_task(plan: TrainPlan, device: torch.device) -> TrainingTask:
    """Returns the forward pass and loss of a plan, its teacher on the device."""
    config = plan.config
    following = None
    if plan.teacher is not None:
        plan.teacher.network.to(device)
        if config.recipe.channels_last:
            plan.teacher.network.to(memory_format=torch.channels_last)
        size = config.recipe.global_batch_size
        following = Following(config.teacher, plan.teacher, plan.pairing, size)
    common = (plan.start.spec.in_channels, config.preprocessing, config.recipe, following)
    if plan.training.targets is None:
        return SegmentationTask(*common)
    balanced = config.recipe.positive_weighting == "balanced"
    weights = positive_weights(plan.training.targets.values) if balanced else None
    return ClassificationTask(*common, weights)


def select(config: TrainConfig, role: Literal["data", "validation"]) -> SelectedSamples:
    """Opens and chooses the samples that the settings name for a role.

    Raises:
        ConfigurationError: as ``select_samples``.
        DatasetError: as ``select_samples``.
    """
    chosen = getattr(config, role)
    return select_samples(
        chosen.dataset, chosen.splits, chosen.pseudo_labels, chosen.exclusion, chosen.count,
        chosen.subset_seed, chosen.cache or config.data.cache, f"{role}.",
    )  # fmt: skip


def _open_set(
    config: TrainConfig, role: Literal["data", "validation"], training: LabelledTargets | None
) -> LearningSet | None:
    """Selects samples and their targets; validation answers as the training's ``targets`` do.

    Raises:
        ConfigurationError: none of the labels counts.
    """
    if getattr(config, role) is None:
        return None
    samples = select(config, role)
    if config.task == "segmentation":
        return LearningSet(samples, None)
    labels = config.labels or LabelConfig()
    if training is not None:
        policy = training.policy
        labels = LabelConfig(list(training.names), policy.uncertain, policy.blank)
    targets = labelled_targets(samples.images, labels)
    if np.isnan(targets.values).all():
        raise ConfigurationError(
            f"{samples.images.root}: every label of its {len(samples)} samples is ignored "
            f"(uncertain: {targets.policy.uncertain}, blank: {targets.policy.blank}), so that "
            "there is nothing to learn. Choose other labels.names, or another policy"
        )
    return LearningSet(samples, targets)


def _check_validation(
    config: TrainConfig, training: LearningSet, validation: LearningSet | None
) -> list[str]:
    """Refuses a validation set that could not choose an epoch.

    Returns:
        What is worth knowing of it.

    Raises:
        ConfigurationError: it shares images or patients with the training set and this is not
            asked for, or has no finding with both classes.
    """
    if validation is None:
        return []
    notices = _check_apart(config, training.samples, validation.samples)
    if validation.targets is not None:
        values = validation.targets.values
        if not ((values == 1).any(0) & (values == 0).any(0)).any():
            raise ConfigurationError(
                f"validation: none of its {len(values)} samples has a finding both present and "
                "absent, so no AUROC is defined. Choose more samples or other labels"
            )
    learnt, chosen = (image_form(e.samples.images.manifest) for e in (training, validation))
    if learnt != chosen:
        notices.append(
            f"validation: its images are of the form {chosen}, and those learnt from {learnt}; "
            "pack both alike to choose by what is learnt"
        )
    if validation.samples.mask_is_soft:
        notices.append(
            "validation: the best epoch is chosen by Dice with pseudo masks, not with annotations; "
            "leave validation.pseudo_labels out to take the dataset's own masks"
        )
    return notices


def _check_apart(
    config: TrainConfig, training: SelectedSamples, validation: SelectedSamples
) -> list[str]:
    same = images_in_both(training, validation)
    if same:
        found = (
            f"validation: {len(same)} of its {len(validation)} images are learnt from as well (the "
            f"first: {validation.images.root}:{same[0]})"
        )
        if not config.validation.same_images:
            raise ConfigurationError(
                f"{found}, so that the best epoch would be the one that remembers them best. "
                f"data.splits is {_spell(config.data.splits)} and validation.splits "
                f"{_spell(config.validation.splits)}: choose others, or set "
                "validation.same_images to true"
            )
        return [f"{found}, as validation.same_images allows: its result says nothing of new ones"]
    copies = copies_in_both(training, validation)
    if copies:
        return [
            f"validation: {len(copies)} of its {len(validation)} images are copies of images that "
            f"are learnt from (the first: {validation.images.root}:{copies[0]}), in splits that "
            "the dataset itself assigns: its result is too high by what these make of it"
        ]
    shared = [] if config.validation.same_images else patients_in_both(training, validation)
    if shared:
        raise ConfigurationError(
            f"{len(shared)} patients are in both the training and the validation samples (the "
            f"first: {shared[0]}). Choose other splits for data and validation"
        )
    return []


def _say_what_was_met(
    start: Start, config: TrainConfig, validation: LearningSet | None
) -> list[str]:
    """Says where the weights started from have met the validation images already."""
    if validation is None or start.parent is None:
        return []
    images, parent = validation.samples.images, start.parent
    met, lineage = read_pictures(weights_path(config.init)), network_lineage.lineage_of(parent)
    validated = EvaluationSet.of(images.manifest, config.validation.splits)
    found = judge(lineage, validated, met.roles_with(images.index), met.unknown)
    if not any(found[role].exposure.is_met for role in ("training", "parents")):
        unknown = describe_unknown(lineage, validated.fingerprint, found, met, "validation")
        return [f"init {parent.name}: {each}" for each in unknown]
    return [
        f"init {parent.name} learnt from images of the validation set: the best epoch is the one "
        "that remembers them best. Choose other images for validation"
    ]


def _spell(splits: list[str] | None) -> str:
    return "all" if splits is None else f"[{', '.join(splits)}]"


def lineage_of(plan: TrainPlan, trainable_parameters: int) -> dict[str, Any]:
    """What the weights come from; travels inside them, holds no path."""
    config, targets = plan.config, plan.training.targets
    exclusion = config.data.exclusion
    lineage = {
        "task": config.task,
        "model": asdict(plan.start.spec),
        "seed": config.seed,
        "labels": targets and targets.names,
        "label_policy": targets and asdict(targets.policy),
        "trainable": {"parts": config.trainable, "parameters": trainable_parameters},
        "trained_on": {
            **plan.training.samples.describe(),
            "splits": config.data.splits,
            "exclusion": None if exclusion is None else asdict(exclusion),
            "count": config.data.count,
            "subset_seed": config.data.subset_seed,
        },
        "validated_on": None
        if plan.validation is None
        else {
            **plan.validation.samples.describe(),
            "splits": config.validation.splits,
            "same_images": config.validation.same_images,
        },
        "parent": plan.start.origin and plan.start.origin.to_json(),
        "transfer": plan.teacher and describe_following(config.teacher, plan.teacher, plan.pairing),
    }
    return json.loads(json.dumps(lineage))


def pictures_met(plan: TrainPlan) -> PicturesMet:
    """Returns the numbers of the pictures that the network meets, by role.

    Returns:
        Those of ``training``, ``validation`` (where the best epoch is chosen), ``parents`` (what
        the weights it starts from learnt from, and those before) and ``teacher`` (what its own,
        and its parents', learnt from).
    """
    config, none = plan.config, PicturesMet({})
    first = read_pictures(weights_path(config.init)) if config.init else none
    taught = read_pictures(weights_path(config.teacher.weights)) if config.teacher else none
    parent, teacher = first.numbers, taught.numbers
    # Pseudo-labels may be passed on, and do not hold which pictures those that wrote them met.
    authors = {"teacher"} if config.data.pseudo_labels else set()

    def union(*found: np.ndarray | None) -> np.ndarray:
        known = [each for each in found if each is not None]
        return np.unique(np.concatenate(known)) if known else np.empty(0, np.int64)

    numbers = {
        "training": numbers_of(plan.training.samples.images.index),
        "validation": numbers_of(plan.validation.samples.images.index)
        if plan.validation
        else union(),
        "parents": union(parent.get("training"), parent.get("parents")),
        "teacher": union(*teacher.values(), parent.get("teacher")),
    }
    unknown = {
        "parents": first.unknown & {"training", "parents"},
        "teacher": taught.unknown | (first.unknown & {"teacher"}) | authors,
    }
    return PicturesMet(numbers, frozenset(role for role, those in unknown.items() if those))
