"""Findings of packed images as the targets of a classifier."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nakt_dist.config.selecting import LabelConfig
from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.loading.samples import CachedImages, SelectedSamples
from nakt_dist.models.network_file import TrainedNetwork, stored_output_names
from nakt_dist.shards.pseudo_findings import PseudoFindings
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.sources.findings import (
    CHESTXRAY14_FINDINGS,
    CHEXPERT_FINDINGS,
    LABEL_SETS,
    OTHERWISE,
    LabelPolicy,
    LabelUse,
    canonical_finding,
    resolve_label_names,
    targets,
)
from nakt_dist.transfer.confidence import EVERYTHING, ConfidenceRule


@dataclass(frozen=True)
class LabelledTargets:
    """What a classifier is to answer for each of some images.

    Attributes:
        names: of the K findings, in order.
        policy: what uncertain and blank findings count as.
        values: float32 (N, K): 0 absent, 1 present, between them as sure as teachers are, NaN
            to be ignored.
    """

    names: tuple[str, ...]
    policy: LabelPolicy
    values: np.ndarray

    @property
    def with_both_classes(self) -> tuple[str, ...]:
        """The findings that images show both present and absent: an AUROC is of these alone."""
        both = (self.values == 1).any(0) & (self.values == 0).any(0)
        return tuple(name for name, counts in zip(self.names, both, strict=True) if counts)


def labelled_targets(
    images: IndexedShards, config: LabelConfig, names: tuple[str, ...] | None = None
) -> LabelledTargets:
    """Turns the stored findings into targets.

    Shards keep -1 and blanks as published, so each reader chooses what they count as. Of an
    image about which the dataset says nothing, every finding is to be ignored.

    Args:
        config: which findings, and the policy where it differs from the manifest's.
        names: of the findings, of which those that this dataset does not know are ignored; None
            takes those of ``config``, which it has to know.

    Raises:
        ConfigurationError: the dataset has no findings, or not those asked for; the policy names
            one that nobody knows.
        DatasetError: the stored findings are damaged.
    """
    manifest = images.manifest
    if not manifest.findings:
        raise ConfigurationError(
            f"{images.root}: the dataset '{manifest.dataset}' has no findings to classify. Pack "
            "it with a layout that reads them, such as chexpert or images_csv"
        )
    if names is None:
        names = resolve_label_names(config.names, manifest.findings)
    policy = label_policy(images, config, names)
    values = targets(images.findings(), names, policy)
    values[:, [name not in manifest.findings for name in names]] = np.nan
    return LabelledTargets(names, policy, values)


def label_policy(images: IndexedShards, config: LabelConfig, names: Sequence[str]) -> LabelPolicy:
    """Returns what unsure labels of some findings count as: as asked for, or as packed.

    Raises:
        ConfigurationError: the policy names a finding that nobody knows.
    """
    stored = images.manifest.label_policy
    uncertain = config.uncertain or stored["uncertain"]
    if isinstance(uncertain, Mapping):
        _check_named(uncertain, tuple(dict.fromkeys((*images.manifest.findings, *names))))
        uncertain = _simplify({OTHERWISE: stored["uncertain"], **uncertain}, names)
    return LabelPolicy(uncertain, config.blank or stored["blank"])


def _check_named(uses: Mapping[str, LabelUse], available: Sequence[str]) -> None:
    """Refuses a policy for a finding that neither the data nor the common vocabulary has."""
    known = {OTHERWISE, *available, *CHEXPERT_FINDINGS, *CHESTXRAY14_FINDINGS}
    unknown = next((name for name in uses if name not in known), None)
    if unknown is not None:
        raise ConfigurationError(
            f"labels.uncertain names '{unknown}', which is no finding{nearest_name(unknown, known)}"
            f" (known: {', '.join(available)}; {OTHERWISE} is for all that are not named)"
        )


def _simplify(uses: Mapping[str, LabelUse], names: Sequence[str]) -> LabelUse | dict[str, LabelUse]:
    """Leaves out findings that are not asked for, or used as all others; equal ones are equal."""
    otherwise = uses[OTHERWISE]
    own = {name: uses[name] for name in sorted(names) if uses.get(name, otherwise) != otherwise}
    return {OTHERWISE: otherwise, **own} if own else otherwise


def pseudo_targets(
    samples: SelectedSamples,
    config: LabelConfig,
    rule: ConfidenceRule | None,
    names: tuple[str, ...] | None = None,
) -> LabelledTargets:
    """Turns what classifiers say of samples into targets.

    Args:
        config: which findings; None takes all that the teachers know. The policy is kept for a
            validation set, whose labels people wrote.
        rule: which of them to learn; None takes all as they are.
        names: as for ``labelled_targets``.

    Raises:
        ConfigurationError: no teacher knows a finding that is asked for.
    """
    pseudo = samples.pseudo_findings
    assert pseudo is not None
    if names is None:
        names = resolve_label_names(config.names, pseudo.manifest.findings)
    policy = label_policy(samples.images, config, names)
    return LabelledTargets(names, policy, judge_findings(pseudo, names, rule))


def judge_findings(
    pseudo: PseudoFindings, names: Sequence[str], rule: ConfidenceRule | None
) -> np.ndarray:
    """Returns targets float32 (N, K); NaN where to be ignored, or where no teacher knows a finding.

    Args:
        names: of the K findings; those that the teachers do not know are ignored throughout.
    """
    known = pseudo.manifest.findings
    values = np.full((2, len(pseudo), len(names)), np.nan, np.float32)
    for column, name in enumerate(names):
        if name in known:
            number = known.index(name)
            values[0, :, column] = pseudo.probability[:, number]
            values[1, :, column] = pseudo.disagreement[:, number]
    return (rule or EVERYTHING).judge(*values)


def leave_something(
    rule: ConfidenceRule | None, names: str | Sequence[str] | None
) -> Callable[[PseudoFindings], np.ndarray]:
    """Returns what says, bool (N,), of which images a rule leaves one of the findings."""

    def judge(pseudo: PseudoFindings) -> np.ndarray:
        known = pseudo.manifest.findings
        asked = LABEL_SETS.get(names, ()) if isinstance(names, str) else names or known
        wanted = [name for name in known if name in asked] or known  # else refused later
        return ~np.isnan(judge_findings(pseudo, wanted, rule)).all(axis=1)

    return judge


def name_outputs(names: str | Sequence[str], count: int | None, field: str) -> tuple[str, ...]:
    """Returns the findings that a foreign classifier's outputs stand for.

    Args:
        names: a label set, or a list in the order of the outputs; other datasets' words for
            a finding are understood.
        count: number of outputs; None where it is not known yet.

    Raises:
        ConfigurationError: there is no such set, a name is there twice, or their number differs.
    """
    if isinstance(names, str):
        if names not in LABEL_SETS:
            raise ConfigurationError(
                f"{field}: there is no label set '{names}'{nearest_name(names, LABEL_SETS)} "
                f"(known: {', '.join(LABEL_SETS)}); name the outputs one by one as a list"
            )
        found = LABEL_SETS[names]
    else:
        found = tuple(map(canonical_finding, names))
    twice = next((name for name in found if found.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"{field}: '{twice}' is there twice; an output has one name")
    if count is not None and len(found) != count:
        raise ConfigurationError(
            f"{field} gives {len(found)} names ({', '.join(found)}), but the network has {count} "
            "outputs; name each of them, in order"
        )
    return found


def require_output_names(
    trained: TrainedNetwork,
    weights: str,
    given: str | Sequence[str] | None,
    field: str,
    wanted_by: str,
) -> tuple[str, ...]:
    """Returns the findings that a classifier's outputs stand for: those given, or its file's own.

    Args:
        weights: as the user named them, for messages.
        given: by the configuration, see ``name_outputs``.
        field: the setting's name.
        wanted_by: who cannot do without.

    Raises:
        ConfigurationError: neither names them; or as ``output_names``.
        CheckpointError: the file's own names are damaged.
    """
    names = output_names(trained, weights, given, field)
    if names is None:
        raise ConfigurationError(
            f"{weights}: does not say what its {trained.spec.num_outputs} outputs mean, which "
            f"{wanted_by} needs; name them, in order, as {field}: a list, or a label set such as "
            "chestxray14"
        )
    return names


def output_names(
    trained: TrainedNetwork, weights: str, given: str | Sequence[str] | None, field: str
) -> tuple[str, ...] | None:
    """Returns the findings that a classifier's outputs stand for; None when nobody says them.

    Args:
        weights: as the user named them, for messages.
        given: by the configuration, in the place of the file's own, see ``name_outputs``.
        field: the setting's name.

    Raises:
        ConfigurationError: a name is the file's own for another output; or as ``name_outputs``.
        CheckpointError: the file's own names are damaged.
    """
    own = stored_output_names(trained, weights)
    if given is None:
        return own
    names = name_outputs(given, trained.spec.num_outputs, field)
    refuse_moved(names, own or (), field, weights)
    return names


def refuse_moved(names: Sequence[str], own: Sequence[str], field: str, weights: str) -> None:
    """Refuses names of outputs of which one is, by the file itself, that of another output.

    Args:
        own: the file's; empty where it says none.

    Raises:
        ConfigurationError: one is.
    """
    for number, name in enumerate(names):
        if name in own and own.index(name) != number:
            raise ConfigurationError(
                f"{field} calls output {number + 1} '{name}', and {weights} itself says that this "
                f"is output {own.index(name) + 1} of {', '.join(own)}; leave {field} out"
            )


class LabelledImages(CachedImages):
    """Images with their findings: ``target`` is float32 (N, K), NaN where to be ignored.

    Args:
        targets: of these samples, in their order.
        cache_megabytes: for decoded pixels, see ``CachedImages``.

    Raises:
        ValueError: there are not as many targets as samples.
    """

    def __init__(
        self, samples: SelectedSamples, targets: LabelledTargets, cache_megabytes: float | None = 0
    ) -> None:
        if len(targets.values) != len(samples):
            raise ValueError(f"{len(targets.values)} targets for {len(samples)} samples")
        super().__init__(samples, 0, cache_megabytes)
        self.targets = targets

    @functools.cached_property
    def labels_that_count(self) -> np.ndarray:
        """See ``Images``."""
        return (~np.isnan(self.targets.values)).sum(1)

    def empty_target(self, numbers: Sequence[int], pinned: bool = False) -> torch.Tensor:
        """See ``Images``."""
        target = torch.from_numpy(self.targets.values[np.asarray(numbers)])
        return target.pin_memory() if pinned else target
