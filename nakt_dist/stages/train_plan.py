"""What a training run starts from and learns: network, data, task, and their lineage."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from nakt_dist.config import DataConfig, LabelConfig, PreprocessingConfig, TrainConfig
from nakt_dist.config.teaching import IMAGENET_MEAN, IMAGENET_STD
from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.loading.labels import LabelledImages, LabelledTargets, labelled_targets
from nakt_dist.loading.samples import (
    CachedImages,
    MaskedImages,
    SelectedSamples,
    patients_in_both,
    select_samples,
)
from nakt_dist.models.initialise import initialise, read_initial_weights
from nakt_dist.models.network_file import (
    TrainedNetwork,
    name_of_weights,
    open_network,
    stored_lineage,
    stored_preprocessing,
)
from nakt_dist.models.registry import is_classifier
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.trainable import select_trainable
from nakt_dist.models.weights import LoadedWeights
from nakt_dist.runtime.processes import say
from nakt_dist.training.following import describe_following, follow, open_teacher
from nakt_dist.training.tasks import ClassificationTask, SegmentationTask, TrainingTask
from nakt_dist.transfer.classification import positive_weights

DEFAULT_CLASSIFIER = ModelSpec("densenet121", in_channels=3)


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
class Origin:
    """The weights a network starts from.

    Attributes:
        name: of the run or file.
        weights_sha256: of the file.
        lineage: what it was trained on, and from; empty for files that are not ours.
    """

    name: str
    weights_sha256: str
    lineage: Mapping[str, Any]


@dataclass(frozen=True)
class TrainPlan:
    """Everything a training run is decided by, before any process group exists.

    Attributes:
        config: with the preprocessing filled in.
        spec: of the network.
        parent: a network of ours that is trained further, head and all; or None.
        foreign: weights that a new network of ``spec`` starts from; or None.
        training: what is learnt from.
        validation: what the best epoch is chosen on, or None.
        teacher: whom the student follows, on the CPU; or None.
    """

    config: TrainConfig
    spec: ModelSpec
    parent: TrainedNetwork | None
    foreign: LoadedWeights | None
    training: LearningSet
    validation: LearningSet | None
    teacher: TrainedNetwork | None

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the network's outputs; None for segmentation."""
        return None if self.training.targets is None else self.training.targets.names

    @property
    def origin(self) -> Origin | None:
        """The weights started from, or None."""
        if self.parent is not None:
            found = self.parent
            return Origin(found.name, found.weights_sha256, dict(found.lineage))
        if self.foreign is None:
            return None
        found = self.foreign
        name = name_of_weights(found.path)
        return Origin(name, found.sha256, stored_lineage(found))

    def build(self) -> tuple[nn.Module, int]:
        """Builds the network and freezes what is not trained; fresh weights follow torch's seed.

        Returns:
            The network, and its number of trainable parameters.

        Raises:
            CheckpointError: ``init`` does not fit the network.
            ConfigurationError: ``trainable`` names a part that is not there.
        """
        if self.parent is not None:
            network = self.parent.network.requires_grad_(True)
        else:
            network = self.spec.build()
        if self.foreign is not None:
            same_findings = stored_lineage(self.foreign).get("labels") == list(self.labels)
            report = initialise(network, self.spec, self.foreign, keep_head=same_findings)
            say(f"init {self.foreign.path.name}: {report.summary()}")
        return network, select_trainable(network, self.config.trainable)


def make_plan(config: TrainConfig) -> TrainPlan:
    """Opens data, start and teacher, and checks that they belong together.

    Raises:
        ConfigurationError: settings contradict each other or the data.
        DatasetError: data are absent, damaged, or were made for something else.
        CheckpointError: weights cannot be read or do not fit.
    """
    training = _open_set(config, config.data, None)
    names = training.targets and list(training.targets.names)
    validation = _open_set(config, config.validation, names) if config.validation else None
    _check_apart(training, validation)
    parent, foreign = _start(config, names)
    spec = _spec_of(config, parent, foreign, names)
    return TrainPlan(
        config=replace(config, preprocessing=_preprocessing_of(config, spec, parent, foreign)),
        spec=spec,
        parent=parent,
        foreign=foreign,
        training=training,
        validation=validation,
        teacher=open_teacher(config.teacher) if config.teacher else None,
    )


def make_task(plan: TrainPlan, device: torch.device) -> TrainingTask:
    """Returns the forward pass and loss of a plan, its teacher on the device.

    Raises:
        ConfigurationError: student and teacher cannot be paired.
    """
    config = plan.config
    following = None
    if plan.teacher is not None:
        if config.recipe.channels_last:
            plan.teacher.network.to(memory_format=torch.channels_last)
        following = follow(config.teacher, plan.teacher, plan.spec.name, plan.labels, device)
    common = (plan.spec.in_channels, config.preprocessing, config.recipe, following)
    if plan.training.targets is None:
        return SegmentationTask(*common)
    balanced = config.recipe.positive_weighting == "balanced"
    weights = positive_weights(plan.training.targets.values) if balanced else None
    return ClassificationTask(*common, weights)


def _open_set(config: TrainConfig, data: DataConfig, names: list[str] | None) -> LearningSet:
    """Selects samples and their targets; validation answers for the training's findings."""
    samples = select_samples(
        data.dataset, data.splits, data.pseudo_labels, data.exclusion, data.count,
        data.subset_seed, data.cache,
    )  # fmt: skip
    if config.task == "segmentation":
        return LearningSet(samples, None)
    labels = config.labels or LabelConfig()
    targets = labelled_targets(samples.images, replace(labels, names=names or labels.names))
    return LearningSet(samples, targets)


def _check_apart(training: LearningSet, validation: LearningSet | None) -> None:
    """Refuses a validation set that could not choose an epoch.

    Raises:
        ConfigurationError: it shares patients with the training set, or has no finding with
            both classes.
    """
    if validation is None:
        return
    shared = patients_in_both(training.samples, validation.samples)
    if shared:
        raise ConfigurationError(
            f"{len(shared)} patients are in both the training and the validation samples (the "
            f"first: {shared[0]}). Choose other splits for data and validation"
        )
    if validation.targets is not None:
        values = validation.targets.values
        if not ((values == 1).any(0) & (values == 0).any(0)).any():
            raise ConfigurationError(
                f"validation: none of its {len(values)} samples has a finding both present and "
                "absent, so no AUROC is defined. Choose more samples or other labels"
            )


def _start(
    config: TrainConfig, names: list[str] | None
) -> tuple[TrainedNetwork | None, LoadedWeights | None]:
    """Says whether ``init`` is a network to train further, or weights for a new one.

    A classifier is trained further where network and findings stay the same; with other
    findings, or from a file that does not say what its outputs mean, it gets a new head.

    Raises:
        CheckpointError: the file cannot be read, or describes no network and none is given.
    """
    if config.init is None:
        return None, None
    loaded = read_initial_weights(config.init)
    if config.task == "segmentation":
        return open_network(config.init, config.model if loaded.spec is None else None), None
    if loaded.spec is None and config.model is None:
        raise CheckpointError(
            f"{loaded.path}: does not say which network it belongs to. Name it in the "
            "configuration, such as model: {name: densenet121, in_channels: 3}"
        )
    if loaded.spec is not None and config.model in (None, loaded.spec, _one_output(loaded.spec)):
        parent = open_network(config.init)
        if parent.lineage.get("labels") == names:
            return parent, None
    return None, loaded


def _one_output(spec: ModelSpec) -> ModelSpec:
    """A classifier as a configuration names it, which leaves the number of outputs out."""
    return replace(spec, num_outputs=ModelSpec().num_outputs)


def _spec_of(
    config: TrainConfig,
    parent: TrainedNetwork | None,
    foreign: LoadedWeights | None,
    names: list[str] | None,
) -> ModelSpec:
    """Returns the architecture: the configuration's, or that of the weights started from.

    Raises:
        ConfigurationError: both are given and differ, or the network is of another task.
    """
    if names is not None:
        found = parent or foreign
        spec = config.model or (found and found.spec) or DEFAULT_CLASSIFIER
        return _classifier(spec, config.model, names)
    if parent is None:
        spec = config.model or ModelSpec()
    elif config.model not in (None, parent.spec):
        raise ConfigurationError(
            f"model is {config.model.name} {config.model.options}, but init holds "
            f"{parent.spec.name} {parent.spec.options}; leave model out to go on with init's"
        )
    else:
        spec = parent.spec.without_encoder_weights()
    if is_classifier(spec.name):
        raise ConfigurationError(
            f"model {spec.name} classifies images, and task is segmentation; set task: "
            "classification, or choose a segmentation network"
        )
    return spec


def _preprocessing_of(
    config: TrainConfig,
    spec: ModelSpec,
    parent: TrainedNetwork | None,
    foreign: LoadedWeights | None,
) -> PreprocessingConfig:
    """Returns the input asked for, or the one that the weights started from are used to.

    A classifier of three channels that starts from elsewhere, or from nothing, sees ImageNet's
    mean and deviation (paper B); other networks see pixels in [0, 1].
    """
    if config.preprocessing is not None:
        return config.preprocessing
    if parent is not None:
        return parent.preprocessing
    if foreign is not None and foreign.spec is not None:
        return stored_preprocessing(foreign, foreign.spec.in_channels)
    if config.task == "classification" and spec.in_channels == len(IMAGENET_MEAN):
        return PreprocessingConfig(mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD))
    return PreprocessingConfig()


def _classifier(spec: ModelSpec, asked: ModelSpec | None, names: list[str]) -> ModelSpec:
    """Gives a classifier as many outputs as there are findings."""
    if not is_classifier(spec.name):
        raise ConfigurationError(
            f"model {spec.name} segments images, and task is classification; choose a classifier "
            "such as densenet121, densenet40 or timm:NAME"
        )
    if asked is not None and asked.num_outputs not in (ModelSpec().num_outputs, len(names)):
        raise ConfigurationError(
            f"model.num_outputs is {asked.num_outputs}, and there are {len(names)} findings "
            f"({', '.join(names)}); leave it out, or choose labels.names"
        )
    return replace(spec, num_outputs=len(names))


def lineage_of(plan: TrainPlan, trainable_parameters: int) -> dict[str, Any]:
    """What the weights come from; travels inside them, holds no path."""
    config, targets = plan.config, plan.training.targets
    exclusion = config.data.exclusion
    lineage = {
        "task": config.task,
        "model": asdict(plan.spec),
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
        else {**plan.validation.samples.describe(), "splits": config.validation.splits},
        "parent": plan.origin and asdict(plan.origin),
        "transfer": plan.teacher and describe_following(config.teacher, plan.teacher),
    }
    return json.loads(json.dumps(lineage))
