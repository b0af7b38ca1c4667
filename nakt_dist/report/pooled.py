"""Runs that are alike but for their fold, or seed, as one: every image once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np

from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.exposure import Exposure
from nakt_dist.records.lineage import Lineage, Network, TrainingSet
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.report.evaluations import EXPORTED_FROM, SegmentationRun
from nakt_dist.report.predictions import read_dice
from nakt_dist.report.runs import Collection, LeftOut, read_each
from nakt_dist.report.trained import without
from nakt_dist.report.wording import grouped
from nakt_dist.runtime.files import value_sha256
from nakt_dist.transfer.exclusion import ExclusionRule

_DECIDES = (
    "task", "model", "recipe", "augmentation", "trainable", "frozen_bn_eval", "preprocessing",
)  # fmt: skip
"""Settings of a training that make it another, whatever its images."""
_OF_A_FOLD = (
    "dataset", "splits", "pseudo_labels", "exclusion", "count", "subset_seed", "cache", "name",
)  # fmt: skip
"""Settings of images that differ between folds, or that its lineage says."""


@dataclass(frozen=True)
class Alike:
    """What runs that may be pooled have in common.

    Attributes:
        made: how the network was made, over all generations, without splits and seeds.
        without_rule: the same without the exclusion rules of its last training.
        teachers: how each was made whose pseudo masks it learnt last.
    """

    made: str
    without_rule: str
    teachers: tuple[str, ...]


@dataclass(frozen=True)
class Pooled:
    """Runs that are alike but for their fold or seed.

    Attributes:
        name: what their names share; ``*`` stands for what differs.
        runs: in order; the first speaks for all.
        folds: how many sets of test images, none of which share an image.
        keys: of the images of all folds, sorted.
        dice: of each, in percent, the mean over its runs, float64 (images,).
    """

    name: str
    runs: tuple[SegmentationRun, ...]
    alike: Alike
    folds: int
    keys: tuple[str, ...]
    dice: np.ndarray

    @property
    def first(self) -> SegmentationRun:
        """A run that speaks for all."""
        return self.runs[0]

    @property
    def mean(self) -> float:
        """Mean Dice over the images, in percent."""
        return float(self.dice.mean())

    @property
    def scored(self) -> EvaluationSet:
        """The dataset of all folds, and how it was scored."""
        return replace(self.first.tested_on, splits=None)

    def dice_of(self, keys: Iterable[str]) -> np.ndarray:
        """Returns the Dice of images that it was tested on, float64 (images,)."""
        found = dict(zip(self.keys, self.dice.tolist(), strict=True))
        return np.array([found[key] for key in keys])


def shared_images(first: Pooled, second: Pooled) -> list[str]:
    """Returns the images that both were tested and scored alike on, such as folds that are done."""
    if first.scored != second.scored:
        return []
    return sorted(set(first.keys) & set(second.keys))


def pool(collection: Collection, left_out: list[LeftOut]) -> list[Pooled]:
    """Joins runs that are alike, tested on disjoint splits of one dataset or more than once.

    A fold is of other weights: what one network reached on several test sets is not pooled, and
    images that networks met, such as those their best epochs were chosen on, not with others.
    Images whose Dice is not defined in a run are left out, and so are groups of which a run has no
    predictions. A training whose record is not there is told from others by its weights and pools
    with none.

    Returns:
        Groups of several runs, and each single run of a teacher of students among these, which
        their capability and their difference from it are of.
    """
    recipes = _Recipes(collection)
    groups = grouped(
        collection.evaluations,
        lambda run: (
            recipes.alike(run), replace(run.tested_on, splits=None), run.role, _met(run)
        ),
    )  # fmt: skip
    alike_runs = [(alike, one) for (alike, *_), runs in groups.items() for one in _by_network(runs)]
    pooled = [_pool(alike, one, left_out) for alike, one in alike_runs if len(one) > 1]
    found = [each for each in pooled if each is not None]
    taught = {made for each in found for made in each.alike.teachers}
    single = [
        _pool(alike, one, left_out)
        for alike, one in alike_runs
        if len(one) == 1 and alike.made in taught
    ]
    return [*found, *(each for each in single if each is not None)]


def _met(run: SegmentationRun) -> tuple[str, ...]:
    """Returns the roles in which a network met the very splits that it was tested on."""
    same = Exposure.SAME_SPLITS
    return tuple(role for role, each in run.exposure.items() if each.exposure is same)


def _by_network(runs: Sequence[SegmentationRun]) -> list[list[SegmentationRun]]:
    """Parts runs by test set where a network was tested on several; each network once in each."""
    tested = [
        list({run.original: run for run in reversed(fold)}.values())[::-1]
        for fold in grouped(runs, lambda run: run.tested_on.splits).values()
    ]
    together = [run for fold in tested for run in fold]
    several = len(together) > len({run.original for run in together})
    return tested if several else [together]


def _pool(alike: Alike, runs: Sequence[SegmentationRun], left_out: list[LeftOut]) -> Pooled | None:
    by_fold = grouped(runs, lambda run: run.tested_on.splits)
    splits = [split for fold in by_fold for split in fold or ()]
    disjoint = len(by_fold) == 1 or (None not in by_fold and len(splits) == len(set(splits)))
    if not disjoint:
        return None
    found = read_each(runs, partial(read_dice, purpose="pooling over folds"), left_out)
    if len(found) < len(runs):
        return None
    values: dict[str, list[float]] = {}
    for each in found:
        for key, value in each.items():
            values.setdefault(key, []).append(value)
    means = {key: float(np.mean(each)) for key, each in sorted(values.items())}
    known = {key: mean for key, mean in means.items() if not np.isnan(mean)}
    if not known:
        return None
    name = _common([run.name for run in runs])
    dice = np.array(list(known.values()))
    return Pooled(name, tuple(runs), alike, len(by_fold), tuple(known), dice)


def _common(names: Sequence[str]) -> str:
    """Returns what names begin and end with, ``*`` for what differs between them."""
    if len(set(names)) == 1:
        return names[0]
    start = _shared_start(names)
    end = _shared_start([name[len(start) :][::-1] for name in names])[::-1]
    return f"{start}*{end}"


def _shared_start(names: Sequence[str]) -> str:
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in alike)


class _Recipes:
    """How each network was made, from the records of trainings and pseudo-labels."""

    def __init__(self, collection: Collection) -> None:
        trained = {
            str(found.record.details.get("best_weights_sha256")): found.record
            for found in collection.trainings
        }
        self._settings = {weights: _deciding(record.config) for weights, record in trained.items()}
        self._lineages = {
            weights: read_lineage(record.details["lineage"]) for weights, record in trained.items()
        }
        self._combined = {
            each.manifest.fingerprint: each.manifest.config.get("combination")
            for each in collection.pseudo_sets
        }
        self._said = {
            (each.manifest.fingerprint, teacher.get("weights_sha256")): {
                name: teacher.get(name) for name in ("weight", "output", "flips", "scales")
            }
            for each in collection.pseudo_sets
            for teacher in each.manifest.teachers
        }
        self._originals = {
            str(teacher.get("weights_sha256")): str(teacher[EXPORTED_FROM])
            for each in collection.pseudo_sets
            for teacher in each.manifest.teachers
            if teacher.get(EXPORTED_FROM)
        }
        self._made: dict[str, Alike] = {}

    def alike(self, run: SegmentationRun) -> Alike:
        """Returns what tells a run's network from those that it may not be pooled with."""
        return self._alike(run.original)

    def _alike(self, weights: str | None) -> Alike:
        if weights not in self._settings:
            return Alike(str(weights), str(weights), ())
        if weights not in self._made:
            found = self._describe(self._settings[weights], self._lineages[weights])
            self._made[weights] = found
        return self._made[weights]

    def _describe(self, settings: Mapping[str, Any], lineage: Lineage) -> Alike:
        parent, following = lineage.parent, lineage.following
        shared = {
            **settings,
            "start": lineage.pretrained if parent is None else self._network(parent),
            "following": None
            if following is None
            else [self._network(following.teacher), following.settings],
        }
        parts = lineage.learnt.parts
        known = [self._images(part) for part in parts]
        rules = [_rule(part.exclusion) for part in parts]
        teachers = dict.fromkeys(each for part in parts for each in part.teachers)
        return Alike(
            value_sha256([shared, known, rules]),
            value_sha256([shared, known]),
            tuple(map(self._network, teachers)),
        )

    def _network(self, network: Network) -> str:
        weights = network.weights_sha256
        return self._alike(self._originals.get(str(weights), weights)).made

    def _images(self, part: TrainingSet) -> list[Any]:
        """Describes the images of a source, and who taught them; of annotations also how many."""
        pseudo = part.pseudo_labels_fingerprint
        said = [self._said.get((pseudo, each.weights_sha256)) for each in part.teachers]
        return [
            part.fingerprint,
            part.before_exclusion or part.samples,
            [self._network(each) for each in part.teachers],
            said,
            self._combined.get(pseudo),
        ]


def _deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a training that its repetitions share."""
    images = {name: without(config.get(name), _OF_A_FOLD) for name in ("data", "validation")}
    return {name: config.get(name) for name in _DECIDES} | images


def _rule(rule: ExclusionRule | None) -> Any:
    """Describes a rule; what was found differs between folds, and the way to it does not."""
    if rule is None or rule.calibration is None:
        return None if rule is None else rule.to_json()
    way = replace(rule.calibration, splits=None)
    return replace(rule.without(rule.calibration.threshold), calibration=way).to_json()


def find_alike(pooled: Iterable[Pooled], made: str, other: Pooled) -> Pooled | None:
    """Returns the runs made so that share the most test images with others; None if none does."""
    found = [each for each in pooled if each.alike.made == made and shared_images(each, other)]
    return max(found, key=lambda each: len(shared_images(each, other)), default=None)
