"""Which outputs of a classifier answer which labels of a test set."""

from dataclasses import dataclass, replace

from nakt_dist.config.selecting import LabelConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.loading.targets import LabelledTargets, labelled_targets, require_output_names
from nakt_dist.models.network_file import TrainedNetwork, stored_output_names
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.sources.findings import resolve_label_names


@dataclass(frozen=True)
class MatchedLabels:
    """The labels that a network and a test set share.

    Attributes:
        targets: of these labels, in the network's order.
        outputs: number of the network's output for each.
        named: all outputs in order, where the settings name them; None where the weights do.
        outputs_not_used: names of the outputs that the test set has no label for.
        labels_not_used: names of the labels that the network has no output for.
    """

    targets: LabelledTargets
    outputs: tuple[int, ...]
    named: tuple[str, ...] | None
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
        config: labels asked for, and what unsure ones count as; None for all, and the
            manifest's policy.

    Raises:
        ConfigurationError: the outputs have no names, or not as many as there are; the test
            set has no such label; none is shared.
        CheckpointError: the weights' own names are damaged.
    """
    config = config or LabelConfig()
    outputs, named = stored_output_names(trained, weights), None
    available = images.manifest.findings
    wanted = tuple(available)
    if outputs is None:
        outputs = named = require_output_names(
            trained, weights, config.names, "labels.names", "nakt evaluate"
        )
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
        named=named,
        outputs_not_used=tuple(name for name in outputs if name not in shared),
        labels_not_used=tuple(name for name in wanted if name not in shared),
    )
