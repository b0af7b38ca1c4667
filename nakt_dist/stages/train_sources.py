"""What a training run learns from: the images of one dataset, or of several together."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from nakt_dist.config import DataConfig, LabelConfig, SourceConfig, TrainConfig, ValidationConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.loading.images import Images, MixedImages
from nakt_dist.loading.mask_planes import MaskPlanes, planes_of_samples
from nakt_dist.loading.masked import MaskedImages
from nakt_dist.loading.overlap import images_in_both
from nakt_dist.loading.sampler import batch_order
from nakt_dist.loading.samples import CachedImages, SelectedSamples, image_form
from nakt_dist.loading.targets import (
    LabelledImages,
    LabelledTargets,
    label_policy,
    labelled_targets,
    pseudo_targets,
)
from nakt_dist.records.lineage import PSEUDO_MASKS, together
from nakt_dist.sources.findings import LabelPolicy, describe_use, resolve_label_names


@dataclass(frozen=True)
class LearningSet:
    """Samples of one dataset with what is to be learnt from them.

    Attributes:
        targets: their findings, or what becomes of their masks.
    """

    samples: SelectedSamples
    targets: LabelledTargets | MaskPlanes

    def images(self, cache_megabytes: float | None) -> CachedImages:
        """Returns the samples decoded, with their targets."""
        if isinstance(self.targets, MaskPlanes):
            return MaskedImages(self.samples, cache_megabytes, self.targets)
        return LabelledImages(self.samples, self.targets, cache_megabytes)


@dataclass(frozen=True)
class Mixture:
    """The sources of one training, most often one.

    Attributes:
        names: of the sources in logs and records, no two alike.
        sources: their samples.
        findings: the network's outputs; None for segmentation.
        policy: what unsure labels count as where a source says nothing else; None likewise.
        doubled: images of a source that an earlier one holds as well.
        classes: of the masks, the background first; empty for classification.
    """

    names: tuple[str, ...]
    sources: tuple[LearningSet, ...]
    findings: tuple[str, ...] | None
    policy: LabelPolicy | None
    doubled: int
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(source.samples) for source in self.sources)

    @property
    def before_exclusion(self) -> int:
        """Number of samples before exclusion."""
        return sum(source.samples.before_exclusion for source in self.sources)

    @property
    def target_values(self) -> np.ndarray:
        """The findings of all images, float32 (N, K), NaN where to be ignored."""
        targets = [each.targets for each in self.sources]
        return np.concatenate([e.values for e in targets if isinstance(e, LabelledTargets)])

    def images(self, cache_megabytes: int | None) -> Images:
        """Returns the samples decoded, with their targets; each source keeps its part in memory."""
        if len(self.sources) == 1:
            return self.sources[0].images(cache_megabytes)
        parts = []
        for source in self.sources:
            room = cache_megabytes and cache_megabytes * len(source.samples) / len(self)
            parts.append(source.images(room))
        return MixedImages(parts, self.names)


def mix(config: TrainConfig, samples: Sequence[SelectedSamples]) -> tuple[Mixture, list[str]]:
    """Joins the sources of a run with what is to be learnt from each.

    Args:
        samples: of each source, in order.

    Returns:
        The mixture, and what is worth knowing of it, a sentence each.

    Raises:
        ConfigurationError: the sources do not belong together, or nothing is to be learnt from
            one of them.
    """
    names = _names(config.sources, samples)
    _check_forms(names, samples)
    _check_drawn(config, names, samples)
    found = _targets(config, samples)
    doubled, notices = _in_several(names, samples)
    learnt = tuple(LearningSet(*each) for each in zip(samples, found, strict=True))
    first = found[0]
    if isinstance(first, MaskPlanes):
        return Mixture(names, learnt, None, None, doubled, first.classes), notices
    policy = label_policy(samples[0].images, config.labels or LabelConfig(), first.names)
    notices += _ignored(names, samples, first.names)
    return Mixture(names, learnt, first.names, policy, doubled), notices


def answers(
    config: TrainConfig, chosen: ValidationConfig, samples: SelectedSamples, mixture: Mixture
) -> LearningSet:
    """Joins a validation set with its findings, or classes, as the training's.

    What it does not know of the findings of several sources is ignored.
    """
    if mixture.findings is None or mixture.policy is None:
        return LearningSet(samples, planes_of_samples(samples, chosen.class_map, mixture.classes))
    names, policy = mixture.findings, mixture.policy
    labels = LabelConfig(list(names), policy.uncertain, policy.blank)
    several = len(mixture.sources) > 1
    targets = labelled_targets(samples.images, labels, names if several else None)
    return LearningSet(samples, _checked(targets, samples))


def describe_training(config: TrainConfig, mixture: Mixture) -> dict[str, Any]:
    """Returns the ``trained_on`` of a lineage; of several sources each, and all together."""
    sources = list(zip(config.sources, mixture.sources, strict=True))
    each = [_source(data, learnt, mixture.policy) for data, learnt in sources]
    if len(each) == 1:
        return each[0]
    weights = config.weights or [None] * len(each)
    named = zip(mixture.names, weights, each, strict=True)
    samples = [learnt.samples for _, learnt in sources]
    forms = [image_form(one.images.manifest) for one in samples]
    return {
        **together([one.learnt for one in samples]).to_json(),
        **asdict(replace(forms[0], fit=_common([form.fit for form in forms]))),
        "image": _common([one["image"] for one in each]) or {},
        "splits": _all_splits([data.splits for data, _ in sources]),
        "exclusion": _common([one["exclusion"] for one in each if one["labels"] == PSEUDO_MASKS]),
        "subset_seed": each[0]["subset_seed"],
        "sources": [{"name": name, "weight": weight, **source} for name, weight, source in named],
    }


def _all_splits(splits: Sequence[list[str] | None]) -> list[str] | None:
    """Returns the splits of all sources together; None where one has all of its."""
    known = [each for each in splits if each is not None]
    return list(dict.fromkeys(itertools.chain(*known))) if len(known) == len(splits) else None


def _common(values: Sequence[Any]) -> Any:
    """Returns what all sources have in common; None where they differ."""
    return values[0] if values and all(each == values[0] for each in values) else None


def _source(data: DataConfig, learnt: LearningSet, of_run: LabelPolicy | None) -> dict[str, Any]:
    """Describes a source; its label policy where it was asked for, or its dataset has another."""
    told = data.labels if isinstance(data, SourceConfig) else None
    policy = learnt.targets.policy if isinstance(learnt.targets, LabelledTargets) else None
    annotated = learnt.samples.pseudo_labels is None and not learnt.samples.unlabelled
    if not told and not (annotated and policy != of_run):
        policy = None
    return {
        **learnt.samples.describe(),
        "splits": data.splits,
        "exclusion": rule.to_json() if (rule := learnt.samples.exclusion) else None,
        **({} if data.confidence is None else {"confidence": asdict(data.confidence)}),
        "count": data.count,
        "subset_seed": data.subset_seed,
        **({"label_policy": asdict(policy)} if policy else {}),
    }


def _names(sources: Sequence[DataConfig], samples: Sequence[SelectedSamples]) -> tuple[str, ...]:
    """Returns what the sources are called: as asked for, or by their datasets, then numbered."""
    asked = [each.name if isinstance(each, SourceConfig) else None for each in sources]
    taken = {name for name in asked if name is not None}
    names = []
    for name, each in zip(asked, samples, strict=True):
        dataset = each.images.manifest.dataset
        free = itertools.chain([dataset], (f"{dataset}-{number}" for number in itertools.count(2)))
        names.append(name or next(other for other in free if other not in taken))
        taken.add(names[-1])
    return tuple(names)


def _check_forms(names: Sequence[str], samples: Sequence[SelectedSamples]) -> None:
    manifests = [each.images.manifest for each in samples]
    forms = [f"{each.height}×{each.width}×{each.channels}" for each in manifests]
    if len(set(forms)) > 1:
        told = ", ".join(f"{name} {form}" for name, form in zip(names, forms, strict=True))
        raise ConfigurationError(
            f"data: the images of its sources differ in height × width × channels: {told}. Pack "
            "all with one image.height, image.width and image.colour"
        )


def _check_drawn(
    config: TrainConfig, names: Sequence[str], samples: Sequence[SelectedSamples]
) -> None:
    """Refuses a weight so small that an epoch would have no image of its source."""
    weights, size = config.weights, config.recipe.global_batch_size
    if weights is None:
        return
    order = batch_order([len(each) for each in samples], weights, size, config.seed)
    drawn = order.drawn(order.steps_per_epoch)
    for name, weight, count in zip(names, weights, drawn, strict=True):
        if not count:
            raise ConfigurationError(
                f"data: {name} has a weight of {weight:g} of {sum(weights):g}, which is no image "
                f"of the {order.steps_per_epoch * size} that an epoch draws; raise it, or leave "
                "the source out"
            )


def _planes(config: TrainConfig, samples: Sequence[SelectedSamples]) -> list[MaskPlanes]:
    """Says what becomes of the masks of each source, whose classes are the first one's."""
    found: list[MaskPlanes] = []
    for source, each in zip(config.sources, samples, strict=True):
        known = found[0].classes if found else None
        found.append(planes_of_samples(each, source.class_map, known))
    any_void = any(each.has_void for each in found)
    return [replace(each, has_void=any_void) for each in found]


def _targets(
    config: TrainConfig, samples: Sequence[SelectedSamples]
) -> Sequence[LabelledTargets | MaskPlanes]:
    """Returns the findings of each source, in the columns of the run, or what its masks become."""
    if config.task == "segmentation":
        return _planes(config, samples)
    labels, names = config.labels or LabelConfig(), None
    if len(samples) > 1:
        known = dict.fromkeys(
            finding for each in samples if not each.unlabelled for finding in _findings(each)
        )
        names = resolve_label_names(labels.names, tuple(known))
    found: list[LabelledTargets] = []
    for source, each in zip(config.sources, samples, strict=True):
        if each.unlabelled:
            first = found[0]
            nothing = np.full((len(each), len(first.names)), np.nan, np.float32)
            found.append(replace(first, values=nothing))
            continue
        own = source.labels if isinstance(source, SourceConfig) else None
        asked = labels
        if own is not None:
            uses = own.uncertain or labels.uncertain, own.blank or labels.blank
            asked = LabelConfig(labels.names, *uses)
        if each.pseudo_findings is not None:
            targets = pseudo_targets(each, asked, source.confidence, names)
        else:
            targets = labelled_targets(each.images, asked, names)
        found.append(_checked(targets, each))
    return found


def _findings(samples: SelectedSamples) -> tuple[str, ...]:
    """Returns the findings that samples have labels of, by people or by teachers."""
    return tuple((samples.pseudo_findings or samples.images).manifest.findings)


def _ignored(
    names: Sequence[str], samples: Sequence[SelectedSamples], findings: Sequence[str]
) -> Iterator[str]:
    """Says which findings are ignored in a source, as it does not know them, or not so called."""
    for name, each in zip(names, samples, strict=True):
        lacking = [] if each.unlabelled else [it for it in findings if it not in _findings(each)]
        if lacking:
            yield (
                f"data: {name} labels {len(findings) - len(lacking)} of the {len(findings)} "
                f"findings; the others are ignored there: {', '.join(lacking)}"
            )


def _checked(targets: LabelledTargets, samples: SelectedSamples) -> LabelledTargets:
    if np.isnan(targets.values).all():
        raise ConfigurationError(
            f"{samples.images.root}: every label of its {len(samples)} samples is ignored "
            f"(uncertain: {describe_use(targets.policy.uncertain)}, blank: "
            f"{targets.policy.blank}), so that "
            "there is nothing to learn. Choose other labels.names, or another policy"
        )
    return targets


def _in_several(names: Sequence[str], samples: Sequence[SelectedSamples]) -> tuple[int, list[str]]:
    """Counts the images that more than one source holds, and says which sources share some."""
    doubled, notices = Counter[tuple[int, str]](), []
    for first, second in itertools.combinations(range(len(samples)), 2):
        same = images_in_both(samples[first], samples[second])
        doubled.update((second, key) for key in same)
        if same:
            notices.append(
                f"data: {len(same)} of the {len(samples[second])} images of {names[second]} are "
                f"images of {names[first]} as well (the first: "
                f"{samples[second].images.root}:{same[0]}); each is learnt from in both"
            )
    return len(doubled), notices
