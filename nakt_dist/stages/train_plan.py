"""What a training run starts from and learns: network, data, task, and their lineage."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from nakt_dist.config import (
    DataConfig,
    LabelConfig,
    TrainConfig,
    TrainingTeacherConfig,
    ValidationConfig,
)
from nakt_dist.config.selecting import is_unlabelled
from nakt_dist.errors import ConfigurationError
from nakt_dist.evaluation import network_lineage
from nakt_dist.loading.overlap import copies_in_both, images_in_both, patients_in_both
from nakt_dist.loading.samples import SelectedSamples, image_form, select_samples
from nakt_dist.loading.targets import LabelledTargets, leave_something
from nakt_dist.models.initialise import read_initial_weights
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.timm_files import check_size
from nakt_dist.models.weights import LoadedWeights
from nakt_dist.models.weights_path import weights_path
from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.exposure import describe_unknown, judge
from nakt_dist.shards.pictures import PicturesMet, read_pictures
from nakt_dist.shards.pseudo_findings import PseudoFindings
from nakt_dist.stages.network_card import with_card
from nakt_dist.stages.opening import Opening, tell_weights
from nakt_dist.stages.train_sources import LearningSet, Mixture, answers, mix
from nakt_dist.stages.train_start import Start, choose_start
from nakt_dist.training.following import Following, Pairing, open_teacher, pair
from nakt_dist.training.tasks import ClassificationTask, SegmentationTask, TrainingTask
from nakt_dist.transfer.classification import positive_weights


@dataclass(frozen=True)
class Followed:
    """A teacher and what is taken from it.

    Attributes:
        config: with what the teacher sees filled in.
        pairing: what of it and the student is compared.
    """

    config: TrainingTeacherConfig
    network: TrainedNetwork
    pairing: Pairing
    met: PicturesMet


@dataclass(frozen=True)
class TrainPlan:
    """Everything a training run is decided by, before any process group exists.

    Attributes:
        config: with what the network and its teacher see filled in.
        start: the network and its first weights.
        validation: what the best epoch is chosen on, or None.
        teacher: whom the student follows, or None.
        notices: what is worth knowing of all this, a sentence each.
    """

    config: TrainConfig
    start: Start
    training: Mixture
    validation: LearningSet | None
    teacher: Followed | None
    notices: tuple[str, ...]

    def check_size(self, network: nn.Module) -> None:
        """Refuses a student that takes images of another size than it would see.

        Raises:
            ConfigurationError: it does.
        """
        form = image_form(self.training.sources[0].samples.images.manifest)
        seen = self.start.seen.preprocessing
        size = (seen.height or form.height, seen.width or form.width)
        check_size(network, size, f"model {self.start.spec.name}")

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the findings that are learnt; None for segmentation."""
        return self.training.findings

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs of a network with one for each class; empty for others."""
        return self.training.classes if self.start.spec.num_outputs > 1 else ()


@dataclass(frozen=True)
class OpenedParts:
    """What a run reads, as far as it could be opened.

    Attributes:
        sources: the samples of each source of ``data``.
        validation: those of ``validation``, or None.
        init: the weights to start from, or None.
    """

    sources: tuple[SelectedSamples, ...]
    validation: SelectedSamples | None
    init: LoadedWeights | None


def open_parts(config: TrainConfig, opening: Opening) -> OpenedParts:
    """Opens what a run reads, each part for itself.

    Raises:
        ConfigurationError: as ``select_samples``.
        DatasetError: data are absent, damaged, or were made for something else.
        CheckpointError: weights cannot be read.
    """
    sources = config.sources
    parts = [
        ("data" if len(sources) == 1 else f"source {number}", source)
        for number, source in enumerate(sources, 1)
    ]
    labels = config.labels or LabelConfig()
    taught = [
        leave_something(each.confidence, labels.names) if config.task == "classification" else None
        for each in sources
    ]
    samples = [
        _open_samples(role, "data.", source, source.cache, opening, taught[number])
        for number, (role, source) in enumerate(parts)
    ]
    validation, init = None, None
    if config.validation is not None:
        cache = config.validation.cache or sources[0].cache
        validation = _open_samples("validation", "validation.", config.validation, cache, opening)
    if config.init is not None:
        with opening.part("init"):
            init = read_initial_weights(config.init)
            opening.facts["init"] = tell_weights(init.path, init.sha256)
    if config.teacher is not None:
        with opening.part("teacher"):
            opening.facts["teacher"] = str(weights_path(config.teacher.weights))
    return OpenedParts(tuple(each for each in samples if each is not None), validation, init)


def _open_samples(
    role: str,
    group: str,
    chosen: DataConfig | ValidationConfig,
    cache: str,
    opening: Opening,
    taught: Callable[[PseudoFindings], np.ndarray] | None = None,
) -> SelectedSamples | None:
    with opening.part(role):
        samples = select_samples(
            chosen.dataset, chosen.splits, chosen.pseudo_labels, chosen.exclusion,
            chosen.count, chosen.subset_seed, opening.cache or cache, group, taught,
        )  # fmt: skip
        if isinstance(chosen, DataConfig) and is_unlabelled(chosen):
            samples = replace(samples, unlabelled=True)
        opening.tell_samples(role, samples, chosen.dataset, chosen.splits, chosen.pseudo_labels)
        return samples
    return None


def make_plan(config: TrainConfig, parts: OpenedParts) -> TrainPlan:
    """Opens the networks, and checks that they and what was opened belong together.

    Args:
        parts: all that ``open_parts`` opens.

    Raises:
        ConfigurationError: settings contradict each other or the data.
        CheckpointError: weights cannot be read or do not fit.
    """
    training, mixed = mix(config, parts.sources)
    names = None if training.findings is None else list(training.findings)
    start = choose_start(config, parts.init, names, training.classes)
    form = image_form(parts.sources[0].images.manifest)
    notices = [*mixed, *(f"init {notice}" for notice in start.describe(form))]
    validation, teacher = None, None
    if config.validation is not None and parts.validation is not None:
        validation = answers(config, config.validation, parts.validation, training)
        notices = [
            *_check_validation(config, config.validation, training, validation),
            *notices,
            *_say_what_was_met(start.parent, parts.init, config.validation.splits, validation),
        ]
    if config.teacher is not None:
        network, met = with_card(open_teacher(config.teacher), config.teacher)
        pairing = pair(config.teacher, network, start.spec.name, names, start.spec.num_outputs)
        followed = replace(config.teacher, preprocessing=network.preprocessing)
        teacher = Followed(followed, network, pairing, met)
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
        manifest = plan.training.sources[0].samples.images.manifest
        following = Following(
            teacher.config, teacher.network, teacher.pairing, recipe.global_batch_size,
            (manifest.channels, manifest.height, manifest.width),
        )  # fmt: skip
    common = (plan.start.spec.in_channels, plan.start.seen.preprocessing, recipe, following)
    if plan.labels is None:
        return SegmentationTask(*common, *([plan.classes] if plan.classes else []))
    balanced = recipe.positive_weighting == "balanced"
    weights = positive_weights(plan.training.target_values) if balanced else None
    return ClassificationTask(*common, None if weights is None else weights.to(device))


def _check_validation(
    run: TrainConfig, config: ValidationConfig, training: Mixture, validation: LearningSet
) -> list[str]:
    """Refuses a validation set that could not choose an epoch; says what is worth knowing of it.

    It may share no image nor patient with the training set, unless asked for, and needs a finding
    with both classes.
    """
    notices = [
        notice
        for data, source in zip(run.sources, training.sources, strict=True)
        for notice in _check_apart(data, config, source.samples, validation.samples)
    ]
    if isinstance(validation.targets, LabelledTargets):
        notices += _check_findings(validation.targets)
    both = (training.sources[0], validation)
    learnt, chosen = (image_form(each.samples.images.manifest) for each in both)
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


def _check_findings(targets: LabelledTargets) -> list[str]:
    """Refuses labels of which no AUROC is defined; says which findings its mean leaves out."""
    counted = targets.with_both_classes
    if not counted:
        raise ConfigurationError(
            f"validation: none of its {len(targets.values)} samples has a finding both present "
            "and absent, so no AUROC is defined. Choose more samples or other labels"
        )
    left_out = [name for name in targets.names if name not in counted]
    if not left_out:
        return []
    return [
        f"validation: the best epoch is chosen by the mean AUROC of {len(counted)} of "
        f"{len(targets.names)} findings; its {len(targets.values)} images do not show the others "
        f"both present and absent: {', '.join(left_out)}"
    ]


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
