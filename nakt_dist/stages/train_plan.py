"""What a training run starts from and learns: network, data, task, and their lineage."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from nakt_dist.config import (
    DataConfig,
    LabelConfig,
    TrainConfig,
    TrainingTeacherConfig,
    ValidationConfig,
)
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
from nakt_dist.models.initialise import read_initial_weights
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.weights import LoadedWeights
from nakt_dist.models.weights_path import weights_path
from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.exposure import describe_unknown, judge
from nakt_dist.shards.pictures import read_pictures
from nakt_dist.stages.opening import Opening, tell_weights
from nakt_dist.stages.train_start import Start, choose_start
from nakt_dist.training.following import (
    Following,
    Pairing,
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

    def images(self, cache_megabytes: int | None) -> CachedImages:
        """Returns the samples decoded, with their targets."""
        if self.targets is None:
            return MaskedImages(self.samples, cache_megabytes)
        return LabelledImages(self.samples, self.targets, cache_megabytes)


@dataclass(frozen=True)
class Followed:
    """A teacher and what is taken from it.

    Attributes:
        config: with what the teacher sees filled in.
        network: the teacher, on the CPU.
        pairing: what of it and the student is compared.
    """

    config: TrainingTeacherConfig
    network: TrainedNetwork
    pairing: Pairing


@dataclass(frozen=True)
class TrainPlan:
    """Everything a training run is decided by, before any process group exists.

    Attributes:
        config: with what the network and its teacher see filled in.
        start: the network and its first weights.
        training: what is learnt from.
        validation: what the best epoch is chosen on, or None.
        teacher: whom the student follows, or None.
        notices: what is worth knowing of all this, a sentence each.
    """

    config: TrainConfig
    start: Start
    training: LearningSet
    validation: LearningSet | None
    teacher: Followed | None
    notices: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the network's outputs; None for segmentation."""
        return None if self.training.targets is None else self.training.targets.names


def open_parts(
    config: TrainConfig, opening: Opening
) -> tuple[dict[str, SelectedSamples], LoadedWeights | None]:
    """Opens what a run reads, each part for itself.

    Returns:
        The samples of ``data`` and, where there is one, of ``validation``; and ``init``, or None.

    Raises:
        ConfigurationError: as ``select_samples``.
        DatasetError: data are absent, damaged, or were made for something else.
        CheckpointError: weights cannot be read.
    """
    samples: dict[str, SelectedSamples] = {}
    loaded = None
    for role, chosen in (("data", config.data), ("validation", config.validation)):
        if chosen is not None:
            with opening.part(role):
                cache = opening.cache or chosen.cache or config.data.cache
                samples[role] = select_samples(
                    chosen.dataset, chosen.splits, chosen.pseudo_labels, chosen.exclusion,
                    chosen.count, chosen.subset_seed, cache, f"{role}.",
                )  # fmt: skip
                opening.tell_samples(
                    role, samples[role], chosen.dataset, chosen.splits, chosen.pseudo_labels
                )
    if config.init is not None:
        with opening.part("init"):
            loaded = read_initial_weights(config.init)
            opening.facts["init"] = tell_weights(loaded.path, loaded.sha256)
    if config.teacher is not None:
        with opening.part("teacher"):
            opening.facts["teacher"] = str(weights_path(config.teacher.weights))
    return samples, loaded


def make_plan(
    config: TrainConfig, samples: Mapping[str, SelectedSamples], init: LoadedWeights | None
) -> TrainPlan:
    """Opens the networks, and checks that they and what ``open_parts`` gave belong together.

    Raises:
        ConfigurationError: settings contradict each other or the data.
        CheckpointError: weights cannot be read or do not fit.
    """
    training = _learning_set(config, samples["data"], None)
    names = None if training.targets is None else list(training.targets.names)
    start = choose_start(config, init, names)
    form = image_form(training.samples.images.manifest)
    notices = [f"init {notice}" for notice in start.describe(form)]
    validation, teacher = None, None
    if config.validation is not None:
        validation = _learning_set(config, samples["validation"], training.targets)
        notices = [
            *_check_validation(config.data, config.validation, training, validation),
            *notices,
            *_say_what_was_met(start.parent, init, config.validation.splits, validation),
        ]
    if config.teacher is not None:
        network = open_teacher(config.teacher)
        pairing = pair(config.teacher, network, start.spec.name, names)
        followed = replace(config.teacher, preprocessing=network.preprocessing)
        teacher = Followed(followed, network, pairing)
        notices += [f"teacher {notice}" for notice in network.describe(form)]
    return TrainPlan(
        config=replace(
            config,
            preprocessing=start.seen.preprocessing,
            teacher=teacher.config if teacher else None,
        ),
        start=start,
        training=training,
        validation=validation,
        teacher=teacher,
        notices=tuple(notices),
    )


def make_task(plan: TrainPlan, device: torch.device) -> TrainingTask:
    """Returns the forward pass and loss of a plan, its teacher on the device."""
    recipe = plan.config.recipe
    following = None
    if plan.teacher is not None:
        teacher = plan.teacher
        teacher.network.network.to(device)
        if recipe.channels_last:
            teacher.network.network.to(memory_format=torch.channels_last)
        following = Following(
            teacher.config, teacher.network, teacher.pairing, recipe.global_batch_size
        )
    common = (plan.start.spec.in_channels, plan.start.seen.preprocessing, recipe, following)
    if plan.training.targets is None:
        return SegmentationTask(*common)
    balanced = recipe.positive_weighting == "balanced"
    weights = positive_weights(plan.training.targets.values) if balanced else None
    return ClassificationTask(*common, None if weights is None else weights.to(device))


def _learning_set(
    config: TrainConfig, samples: SelectedSamples, training: LabelledTargets | None
) -> LearningSet:
    """Joins samples with their targets; validation answers as the training's ``targets`` do."""
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
    data: DataConfig, config: ValidationConfig, training: LearningSet, validation: LearningSet
) -> list[str]:
    """Refuses a validation set that could not choose an epoch; says what is worth knowing of it.

    It may share no image nor patient with the training set, unless asked for, and needs a finding
    with both classes.
    """
    notices = _check_apart(data, config, training.samples, validation.samples)
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
    data: DataConfig,
    config: ValidationConfig,
    training: SelectedSamples,
    validation: SelectedSamples,
) -> list[str]:
    if same := images_in_both(training, validation):
        found = (
            f"validation: {len(same)} of its {len(validation)} images are learnt from as well (the "
            f"first: {validation.images.root}:{same[0]})"
        )
        if not config.same_images:
            raise ConfigurationError(
                f"{found}, so that the best epoch would be the one that remembers them best. "
                f"data.splits is {_spell(data.splits)} and validation.splits "
                f"{_spell(config.splits)}: choose others, or set "
                "validation.same_images to true"
            )
        return [f"{found}, as validation.same_images allows: its result says nothing of new ones"]
    if copies := copies_in_both(training, validation):
        return [
            f"validation: {len(copies)} of its {len(validation)} images are copies of images that "
            f"are learnt from (the first: {validation.images.root}:{copies[0]}), in splits that "
            "the dataset itself assigns: its result is too high by what these make of it"
        ]
    if not config.same_images and (shared := patients_in_both(training, validation)):
        raise ConfigurationError(
            f"{len(shared)} patients are in both the training and the validation samples (the "
            f"first: {shared[0]}). Choose other splits for data and validation"
        )
    return []


def _say_what_was_met(
    parent: TrainedNetwork | None,
    init: LoadedWeights | None,
    splits: list[str] | None,
    validation: LearningSet,
) -> list[str]:
    """Says where the weights started from have met the validation images already."""
    if parent is None or init is None:
        return []
    images = validation.samples.images
    met, lineage = read_pictures(init.path), network_lineage.lineage_of(parent)
    validated = EvaluationSet.of(images.manifest, splits)
    found = judge(lineage, validated, met.roles_with(images.column("pixels")), met.unknown)
    learnt = (found["training"], found["parents"])
    if not any(each.exposure.is_met and not each.chosen for each in learnt):
        unknown = describe_unknown(lineage, validated.fingerprint, found, met, "validation")
        return [f"init {parent.name}: {each}" for each in unknown]
    return [
        f"init {parent.name} learnt from images of the validation set: the best epoch is the one "
        "that remembers them best. Choose other images for validation"
    ]


def _spell(splits: list[str] | None) -> str:
    return "all" if splits is None else f"[{', '.join(splits)}]"
