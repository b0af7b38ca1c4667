"""The network that a training run begins with: its architecture, input and first weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from nakt_dist.config import TrainConfig
from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.loading.targets import name_outputs, refuse_moved
from nakt_dist.models.assumed_design import describe_assumed_design
from nakt_dist.models.building import build_configured
from nakt_dist.models.initialise import initialise
from nakt_dist.models.input_images import check_channels
from nakt_dist.models.network_file import (
    TrainedNetwork,
    open_network,
    stored_lineage,
    stored_output_names,
)
from nakt_dist.models.preprocessing import ImageForm, NetworkInput, resolve_preprocessing
from nakt_dist.models.registry import is_classifier
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.timm_files import is_of_timm, usual_input
from nakt_dist.models.trainable import select_trainable
from nakt_dist.models.weights import LoadedWeights, describe_left
from nakt_dist.models.weights_path import name_of_weights
from nakt_dist.records.lineage import Network
from nakt_dist.runtime.processes import say
from nakt_dist.transfer.classes import ONE_TARGET

DEFAULT_CLASSIFIER = ModelSpec("densenet121", in_channels=3)


@dataclass(frozen=True)
class Start:
    """A network before its first step.

    Attributes:
        seen: its input, and how that is known.
        parent: a network of ours that is trained further, head and all; or None.
        foreign: weights that a new network of ``spec`` starts from; or None.
        keeps_head: whether the foreign head's outputs are the findings to learn.
    """

    spec: ModelSpec
    seen: NetworkInput
    parent: TrainedNetwork | None
    foreign: LoadedWeights | None
    keeps_head: bool
    trainable: str | list[str]

    def describe(self, form: ImageForm) -> list[str]:
        """Says what is worth knowing of the weights started from, a sentence each."""
        if self.parent is not None:
            return self.parent.describe(form)
        if self.foreign is None:
            return []
        name, left = name_of_weights(self.foreign.path), describe_left(self.foreign)
        sentences = [f"{name}: {each}" for each in (*self.foreign.notices, left) if each]
        if self.foreign.spec is None:
            network = build_configured(self.spec.without_encoder_weights())
            sentences.append(describe_assumed_design(name, self.spec, network))
        return [*sentences, *self.seen.describe(name, stored_lineage(self.foreign), form)]

    @property
    def origin(self) -> Network | None:
        """The network started from, or None."""
        if self.parent is not None:
            found = self.parent
            return Network(found.weights_sha256, found.name, stored=found.lineage)
        if self.foreign is None:
            return None
        name = name_of_weights(self.foreign.path)
        return Network(self.foreign.sha256, name, stored=stored_lineage(self.foreign))

    def build(self) -> tuple[nn.Module, int]:
        """Builds the network and freezes what is not trained; fresh weights follow torch's seed.

        Returns:
            The network, and its number of trainable parameters.

        Raises:
            CheckpointError: ``init`` does not fit the network.
            ConfigurationError: ``trainable`` names a part that is not there, or the network is
                larger than any.
        """
        if self.parent is not None:
            network = self.parent.network.requires_grad_(True)
        else:
            network = build_configured(self.spec)
        if self.foreign is not None:
            report = initialise(network, self.foreign, keep_head=self.keeps_head)
            why = "" if self.keeps_head else " (its outputs are not known to be these findings)"
            say(f"init {name_of_weights(self.foreign.path)}: {report.summary()}{why}")
        return network, select_trainable(network, self.trainable)


def choose_start(
    config: TrainConfig,
    loaded: LoadedWeights | None,
    names: list[str] | None,
    classes: Sequence[str],
) -> Start:
    """Chooses what a run starts from.

    Args:
        loaded: the file ``init``, or None.
        names: of the findings to learn; None for segmentation.
        classes: of the masks to learn, the background first; empty for classification.

    Raises:
        ConfigurationError: model, ``init`` and task do not belong together.
        CheckpointError: ``init`` describes no network and none is given.
    """
    parent, foreign = _use_of(config, loaded, names, classes)
    spec = _spec_of(config, parent, foreign, names, classes)
    check_channels(spec.in_channels, f"model {spec.name}")
    library = None if parent else _input_of_library(spec, foreign)
    return Start(
        spec=spec,
        seen=parent.seen
        if parent
        else resolve_preprocessing(config.preprocessing, foreign, spec, library),
        parent=parent,
        foreign=foreign,
        keeps_head=foreign is not None
        and names is not None
        and _same_findings(config, foreign, names),
        trainable=config.trainable,
    )


def _input_of_library(spec: ModelSpec, foreign: LoadedWeights | None) -> dict[str, Any] | None:
    """Returns what images timm knows a network to be used to; None for one that starts afresh."""
    is_theirs = spec.options.get("pretrained") if foreign is None else foreign.spec is None
    if not (is_theirs and is_of_timm(spec)):
        return None
    return usual_input(build_configured(spec.without_encoder_weights()), spec)


def _same_findings(config: TrainConfig, foreign: LoadedWeights, names: list[str] | None) -> bool:
    """Whether the outputs of the weights started from mean what this network's will."""
    own = stored_lineage(foreign).get("labels")
    if config.init_labels is None:
        return own == names
    given = name_outputs(config.init_labels, None, "init_labels")
    refuse_moved(given, own if isinstance(own, list) else (), "init_labels", str(config.init))
    return list(given) == names


def _use_of(
    config: TrainConfig,
    loaded: LoadedWeights | None,
    names: list[str] | None,
    classes: Sequence[str],
) -> tuple[TrainedNetwork | None, LoadedWeights | None]:
    """Says whether ``init`` is a network to train further, or weights for a new one.

    It is trained further where network and findings, or classes, stay the same; with others, or
    from a file that does not say what its outputs mean, it gets a new head. What a classifier has
    learnt is for the encoder of a network that segments.
    """
    if loaded is None:
        return None, None
    if config.task == "segmentation":
        if loaded.spec is not None and is_classifier(loaded.spec.name):
            return None, loaded  # for the encoder
        parent = _open_parent(config, loaded)
        return (parent, None) if _same_classes(config, parent, classes) else (None, loaded)
    if loaded.spec is None and config.model is None:
        raise CheckpointError(
            f"{loaded.path}: does not say which network it belongs to. Name it in the "
            "configuration, such as model: {name: densenet121, in_channels: 3}"
        )
    asked = config.model and config.model.over(loaded.spec)
    if loaded.spec is not None and asked in (None, loaded.spec):
        parent = _open_parent(config, loaded)
        if parent.lineage.get("labels") == names:
            return parent, None
    return None, loaded


def _open_parent(config: TrainConfig, loaded: LoadedWeights) -> TrainedNetwork:
    model = config.model if loaded.spec is None else None
    return open_network(loaded.path, model, config.preprocessing)


def _spec_of(
    config: TrainConfig,
    parent: TrainedNetwork | None,
    foreign: LoadedWeights | None,
    names: list[str] | None,
    classes: Sequence[str],
) -> ModelSpec:
    """Returns the architecture: the configuration's, or that of the weights started from."""
    if names is not None:
        spec_of_file = parent.spec if parent else foreign and foreign.spec
        # What a file describes is built without weights of its own: it must not download any.
        described = spec_of_file.without_encoder_weights() if spec_of_file else None
        asked = config.model and config.model.over(described)
        spec = asked or described or DEFAULT_CLASSIFIER
        return _classifier(spec, config.model, names)
    if parent is None:
        stored = foreign and foreign.spec and foreign.spec.without_encoder_weights()
        asked = config.model or (replace(stored, num_outputs=1) if stored else ModelSpec())
        spec = replace(asked.over(stored or None), num_outputs=asked.num_outputs)
    elif config.model is not None and config.model.over(parent.spec) != parent.spec:
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
    expected = (1, len(classes))  # one class besides the background may have either
    if spec.num_outputs not in expected:
        raise ConfigurationError(
            f"model.num_outputs is {spec.num_outputs}, and the masks have {len(classes)} classes "
            f"({', '.join(classes)}); leave it out"
        )
    several = len(classes) > len(ONE_TARGET)
    return replace(spec, num_outputs=len(classes)) if several else spec


def _same_classes(config: TrainConfig, parent: TrainedNetwork, classes: Sequence[str]) -> bool:
    """Whether a network's outputs mean the classes to learn, one by one; or its one, the target."""
    several = len(classes) > len(ONE_TARGET)
    asked = config.model.num_outputs if config.model else 1
    if parent.spec.num_outputs == 1:
        return not several and asked == 1
    given = config.init_labels if isinstance(config.init_labels, list) else None
    names = given or stored_output_names(parent, str(config.init), "classes")
    return (several or asked > 1 or config.model is None) and list(names or ()) == list(classes)


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
