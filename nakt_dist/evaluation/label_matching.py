"""Which outputs of a classifier answer which labels of a test set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nakt_dist.config.labels import LabelConfig
from nakt_dist.errors import CheckpointError, ConfigurationError, nearest_name
from nakt_dist.loading.labels import LabelledTargets, labelled_targets
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.sources.labels import LABEL_SETS, canonical_finding, resolve_label_names


@dataclass(frozen=True)
class MatchedLabels:
    """The labels that a network and a test set share.

    Attributes:
        targets: of these labels, in the network's order.
        outputs: number of the network's output for each.
        outputs_not_used: names of the outputs that the test set has no label for.
        labels_not_used: names of the labels that the network has no output for.
    """

    targets: LabelledTargets
    outputs: tuple[int, ...]
    outputs_not_used: tuple[str, ...]
    labels_not_used: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The shared labels, in the network's order."""
        return self.targets.names

    def describe(self) -> str | None:
        """Says what stays unused, or None where nothing does."""
        parts = []
        if self.outputs_not_used:
            parts.append(f"outputs without a label here: {', '.join(self.outputs_not_used)}")
        if self.labels_not_used:
            parts.append(f"labels without an output: {', '.join(self.labels_not_used)}")
        return "; ".join(parts) or None


def match_labels(
    weights: str, trained: TrainedNetwork, images: IndexedShards, config: LabelConfig | None
) -> MatchedLabels:
    """Finds the labels to evaluate.

    Weights of ``nakt train`` name their outputs; ``config.names`` then chooses among the test
    set's labels. For foreign weights it names the outputs, in order.

    Args:
        weights: as the user named them, for messages.
        trained: the network.
        images: the test set.
        config: labels asked for, and what unsure ones count as; None for all, and the
            manifest's policy.

    Raises:
        ConfigurationError: the outputs have no names, or not as many as there are; the test
            set has no such label; none is shared.
        CheckpointError: the weights' own names are damaged.
    """
    config = config or LabelConfig()
    outputs = _own_names(weights, trained)
    available = images.manifest.findings
    wanted = tuple(available)
    if outputs is None:
        outputs = _foreign_names(weights, trained, config)
    elif config.names is not None:
        wanted = resolve_label_names(config.names, available)
    shared = [name for name in outputs if name in wanted]
    if wanted and not shared:
        raise ConfigurationError(
            f"{weights} and {images.root} share no label: the network answers "
            f"{', '.join(outputs)}; the test set has {', '.join(wanted)}. Test it on a dataset "
            "with its labels, or name the outputs by labels.names as the dataset does"
        )
    return MatchedLabels(
        # A test set without any findings is refused here.
        targets=labelled_targets(images, replace(config, names=shared or None)),
        outputs=tuple(outputs.index(name) for name in shared),
        outputs_not_used=tuple(name for name in outputs if name not in shared),
        labels_not_used=tuple(name for name in wanted if name not in shared),
    )


def _own_names(weights: str, trained: TrainedNetwork) -> tuple[str, ...] | None:
    """Returns the names of the outputs in the weights' lineage, or None without any."""
    names = trained.lineage.get("labels")
    if names is None:
        return None
    count = trained.spec.num_outputs
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not texts or len(set(names)) != len(names) or len(names) != count:
        raise CheckpointError(
            f"{weights}: its lineage names the labels {str(names)[:80]}, expected {count} "
            "different names, one per output; copy the file again from its origin"
        )
    return tuple(names)


def _foreign_names(weights: str, trained: TrainedNetwork, config: LabelConfig) -> tuple[str, ...]:
    """Returns the names of the outputs that the configuration gives."""
    count = trained.spec.num_outputs
    if config.names is None:
        raise ConfigurationError(
            f"{weights}: does not say what its {count} outputs mean. Name them, in order, as "
            "labels.names: a list, or a label set such as chestxray14"
        )
    if isinstance(config.names, str):
        if config.names not in LABEL_SETS:
            raise ConfigurationError(
                f"labels.names: there is no label set '{config.names}'"
                f"{nearest_name(config.names, LABEL_SETS)} (known: {', '.join(LABEL_SETS)}); "
                "name the outputs one by one as a list"
            )
        names = LABEL_SETS[config.names]
    else:
        names = tuple(map(canonical_finding, config.names))
    _check_names(weights, names, count)
    return names


def _check_names(weights: str, names: Sequence[str], count: int) -> None:
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"labels.names: '{twice}' is there twice; an output has one name")
    if len(names) != count:
        raise ConfigurationError(
            f"labels.names gives {len(names)} names ({', '.join(names)}), but {weights} has "
            f"{count} outputs; name each of them, in order"
        )
