"""Takes the best of runs that differ in some axes, by a metric of images kept for choosing."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nakt_dist.config import EvaluateConfig, TrainConfig, as_plain
from nakt_dist.config.placeholders import Parts
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.records.evaluation_set import describe_splits
from nakt_dist.records.fields import read_if_there, sorted_json
from nakt_dist.records.finding_results import VALIDATED_FINDINGS
from nakt_dist.records.run_record import RECORD_NAME, RunRecord, read_record
from nakt_dist.sources.findings import use_of
from nakt_dist.studies.paths import absolute

_VALIDATION = "best_validation_"
_FOR_CHOOSING = ("validation", "valid", "val", "dev")
_PLACES = ("dataset", "pseudo_labels")
_JUDGED_BY = (*_PLACES, "splits", "count", "subset_seed", "exclusion", "both_empty")
_LESS_IS_BETTER = re.compile(r"error|loss|brier|_pixels_")


@dataclass(frozen=True)
class Candidate:
    """A run that may be chosen.

    Attributes:
        values: of the axes that the choice is over.
    """

    name: str
    values: Mapping[str, Any]
    output: str


@dataclass(frozen=True)
class Choice:
    """A choice that one run depends on.

    Attributes:
        by: the metric; the highest wins, of equal ones the first.
        candidates: all runs that are compared; those of equal values are averaged.
    """

    name: str
    by: str
    candidates: tuple[Candidate, ...]

    @property
    def provisional(self) -> dict[str, Any]:
        """What stands for the result while it is not known: the first candidate's."""
        return self._told(self.candidates[0])

    def decide(self) -> tuple[dict[str, Any], dict[str, float]]:
        """Reads the records and takes the best.

        Returns:
            The chosen values by axis, with ``output`` where one run alone has them; and the
            metric of each value, by its name.

        Raises:
            DatasetError: a candidate has no record, or none of this metric, or that of other
                findings.
        """
        groups: list[tuple[Candidate, list[Reached]]] = []
        for candidate in self.candidates:
            reached = read_reached(candidate.output, self.by, self.name)
            same = [found for first, found in groups if first.values == candidate.values]
            if same:
                same[0].append(reached)
            else:
                groups.append((candidate, [reached]))
        require_same_findings(self.name, self.by, [(it.name, found) for it, found in groups])
        means = [sum(each.value for each in found) / len(found) for _, found in groups]
        best, _ = groups[means.index(max(means))]
        return self._told(best), {
            first.name: mean for (first, _), mean in zip(groups, means, strict=True)
        }

    def _told(self, candidate: Candidate) -> dict[str, Any]:
        alike = [each for each in self.candidates if each.values == candidate.values]
        if len(alike) == 1:
            return {**candidate.values, "output": candidate.output}
        axes = ", ".join(candidate.values)
        return Parts(
            candidate.values,
            why=f"; {len(alike)} runs have these values, so that it has no output of its own: name "
            f"the axes in which they differ in over, beside {axes}",
        )


@dataclass(frozen=True)
class Reached:
    """What a run has reached.

    Attributes:
        value: of the metric.
        findings: that it is a mean over, and what unsure labels of each count as; empty of masks.
    """

    value: float
    findings: Mapping[str, Any]


def read_reached(output: str, by: str, name: str) -> Reached:
    """Reads a metric of the record in a folder.

    Args:
        name: of the choice, for messages.

    Raises:
        DatasetError: there is no record, or no such number in it.
    """
    path = Path(output) / RECORD_NAME
    record = read_record(path)
    value = record.metrics.get(by)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        known = [name for name in record.metrics if name.startswith(_VALIDATION)]
        raise DatasetError(
            f"{path}: its metric {by} is {value}, so that {name} cannot be chosen by it. Known: "
            f"{', '.join(known) or 'none of validation images'}"
        )
    return Reached(float(value), _findings_of(record))


def _findings_of(record: RunRecord) -> dict[str, Any]:
    """Returns the findings behind the mean of a record, and how their unsure labels were read."""
    policy = read_if_there(record.details, "lineage.label_policy", Mapping) or {}
    names = read_if_there(record.details, VALIDATED_FINDINGS, list) or []
    if record.stage != "train":
        policy = read_if_there(record.inputs, "label_policy", Mapping) or {}
        labels = read_if_there(record.details, "labels", list) or []
        names = [each["name"] for each in labels if each["auroc"] is not None]
    return {name: [use_of(policy.get("uncertain"), name), policy.get("blank")] for name in names}


def require_same_findings(
    name: str, by: str, reached: Sequence[tuple[str, Sequence[Reached]]]
) -> None:
    """Refuses to compare means over unlike findings, of which some are easier than others.

    Args:
        name: of the choice, for messages.
        reached: by the name of a value's first run, what all of its runs have reached.

    Raises:
        DatasetError: names two values, and in what they differ.
    """
    (first, expected), *others = [
        (value, {sorted_json(each.findings) for each in runs}) for value, runs in reached
    ]
    ours = reached[0][1][0].findings
    for (other, found), (_, runs) in zip(others, reached[1:], strict=True):
        if found == expected:
            continue
        theirs = runs[0].findings
        apart = [each for each in {**ours, **theirs} if ours.get(each) != theirs.get(each)]
        raise DatasetError(
            f"{name} cannot be chosen: {by} is of {len(ours)} findings for {first} and of "
            f"{len(theirs)} for {other}, which are not the same, read alike (apart: "
            f"{', '.join(apart) or 'those of repetitions'}), so that the higher one need not be "
            "the better. Judge all by findings that each of them knows: by labels.names, or by "
            "evaluate steps on validation images with such"
        )


def check_metric(by: str, configs: Sequence[Any], where: str) -> None:
    """Refuses to choose by anything but images that are kept for choosing.

    Args:
        where: of the choice, for messages.

    Raises:
        ConfigurationError: the runs do not train with validation images, or test on others than
            a validation split; or the highest of the metric is not the best.
    """
    for config in configs:
        if isinstance(config, TrainConfig):
            if not by.startswith(_VALIDATION):
                raise ConfigurationError(
                    f"{where}: by is {by}; of trainings expected {_VALIDATION}auroc or "
                    f"{_VALIDATION}dice"
                )
            if config.validation is None:
                raise ConfigurationError(
                    f"{where}: {config.output} has no validation images to be chosen by; set "
                    "validation in the step's config"
                )
        elif isinstance(config, EvaluateConfig):
            splits = config.splits
            if splits is None or not set(splits) <= set(_FOR_CHOOSING):
                told = "all splits" if splits is None else f"splits {', '.join(splits)}"
                raise ConfigurationError(
                    f"{where}: {config.output} is tested on {told}. What is chosen on test images "
                    "says nothing on them any more: choose by a metric of training "
                    f"({_VALIDATION}auroc, {_VALIDATION}dice), or of an evaluate step with splits: "
                    "[validation]"
                )
            if not by.endswith("_mean") or _LESS_IS_BETTER.search(by):
                raise ConfigurationError(
                    f"{where}: by is {by}, and the run with the highest is taken; expected the "
                    "mean of a metric of which more is better, such as auroc_mean or dice_mean"
                )
        else:
            raise ConfigurationError(
                f"{where}: expected runs of train, or of evaluate on validation images"
            )


def check_apart(chosen: Sequence[Any], tests: Sequence[EvaluateConfig], where: str) -> None:
    """Refuses validation images that the study tests on, by whatever name.

    A split that is called validation may be evaluated by itself, too: nobody takes it for a test.

    Args:
        where: of the choice, for messages.

    Raises:
        ConfigurationError: a candidate's validation images are among those of a test.
    """
    kept: dict[tuple[str, str | None], str] = {}
    for config in chosen:
        data = config.validation if isinstance(config, TrainConfig) else config
        if data is None:
            continue
        for split in _splits(data):
            kept.setdefault((absolute(data.dataset), split), config.output)
    for test in tests:
        tested, place = _splits(test), absolute(test.dataset)
        if set(tested) <= set(_FOR_CHOOSING):
            continue
        for (dataset, split), output in kept.items():
            if dataset == place and (split in tested or None in (split, *tested)):
                told = describe_splits(split and [split])
                raise ConfigurationError(
                    f"{where}: {test.output} tests on {describe_splits(test.splits)} of "
                    f"{test.dataset}, and {output} is chosen by {told} of it. Keep validation and "
                    "test images apart"
                )


def _splits(images: Any) -> Sequence[str | None]:
    """Returns the splits that are taken; None stands for all."""
    return images.splits or (None,)


def check_alike(choice: Choice, configs: Mapping[str, Any], where: str) -> None:
    """Refuses to compare by unlike images or labels: of one packing, or read otherwise.

    Args:
        configs: of the candidates, by their output.
        where: of the choice, for messages.

    Raises:
        ConfigurationError: names in what they differ.
    """
    groups: list[tuple[Candidate, dict[str, set[str]]]] = []
    for candidate in choice.candidates:
        judged = _judged_by(configs[candidate.output])
        same = [found for first, found in groups if first.values == candidate.values]
        if not same:
            same = [{name: set() for name in judged}]
            groups.append((candidate, same[0]))
        for name, value in judged.items():
            same[0][name].add(sorted_json(value))
    first, expected = groups[0]
    for other, found in groups[1:]:
        if unlike := _unlike(expected, found):
            raise ConfigurationError(
                f"{where}: {first.name} and {other.name} are judged by other "
                f"{', '.join(unlike)}, so that the higher one need not be the better. Validate "
                "them alike, or choose by evaluate steps that do"
            )


def check_trials_alike(configs: Sequence[TrainConfig]) -> None:
    """Refuses a search whose values change by what its trials are judged.

    Args:
        configs: of trials that together have each value of a choice, and the ends of all ranges.

    Raises:
        ConfigurationError: names in what they differ.
    """
    validated = [_judged_by(each) for each in configs if each.validation is not None]
    for judged in validated[1:]:
        if unlike := _unlike(validated[0], judged):
            raise ConfigurationError(
                f"search.values change by what trials are judged ({', '.join(unlike)}), so that "
                "the higher one need not be the better. Draw what decides the training alone, "
                "such as labels.uncertain of a source of data, and validate all alike"
            )


def _unlike(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names what differs between what decides a metric of two runs, or of several each."""
    unlike = [name for name in first if other[name] != first[name]]
    if "dataset" in unlike:  # such as another size of the same images
        return [name for name in unlike if name not in _PLACES]
    return unlike


def _judged_by(config: Any) -> dict[str, Any]:
    """Returns what decides, beside the network, the metric that a run is chosen by."""
    plain = as_plain(config)
    images = plain["validation"] if isinstance(config, TrainConfig) else plain
    judged = {name: images.get(name) for name in _JUDGED_BY} | {"labels": plain["labels"]}
    return judged | {name: absolute(path) for name in _PLACES if (path := judged[name])}
