"""Which numbers of a result are not told, so that no image or patient of a few can be counted.

Findings and groups with 1 to 4 images or patients are few. Whatever would give their number away is
left out as well: the rest of a whole, rates and areas, and means to which they contribute.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nakt_dist.evaluation.classification_summary import FEWEST_PATIENTS
from nakt_dist.records.fields import read_if_there
from nakt_dist.records.finding_results import ClassificationResult, FindingScore, GroupScore
from nakt_dist.records.mask_results import MaskScore
from nakt_dist.records.operating_points import OperatingPoints
from nakt_dist.report.evaluations import ClassifierRun, Evaluation, SegmentationRun

FEWEST = 5
NOT_TOLD = "not told"


def is_few(count: int) -> bool:
    """Says whether a number of images or patients is so small that it is not told."""
    return 0 < count < FEWEST


def show_people(count: int) -> str:
    """Returns a number of images or patients; of very few not how many, who could be known."""
    return f"< {FEWEST}" if is_few(count) else str(count)


def show_hidden(count: int) -> str:
    """Returns what stands for a number in a row that is not told."""
    return show_people(count) if is_few(count) else NOT_TOLD


def not_told(parts: Sequence[int], few: Sequence[bool]) -> set[int]:
    """Chooses parts of a whole to leave out, so that the whole less the others tells nothing.

    Besides the few those that follow them are left out, until each of the few could be any number
    below ``FEWEST``. They are chosen by their place: chosen by size, they would give it away.

    Args:
        parts: how many each has.
        few: which of them must not be told.

    Returns:
        Numbers of the parts; none where none is few.
    """
    hidden = [number for number, each in enumerate(few) if each]
    if not hidden:
        return set()
    first, primary = hidden[0], len(hidden)
    turned = [(first + step) % len(parts) for step in range(1, len(parts))]
    for number in (each for each in turned if not few[each] and parts[each]):
        others = len(hidden) - primary
        least = (FEWEST - 1) * primary + FEWEST * others
        if others and sum(parts[each] for each in hidden) >= least:
            break
        hidden.append(number)
    return set(hidden)


def findings_not_told(result: ClassificationResult) -> frozenset[str]:
    """Names the findings with few positive or negative images.

    Where each image shows exactly one finding, as far as their numbers say, so that one is what the
    others leave, another is named with them.
    """
    positives = [each.positives for each in result.findings]
    few = [is_few(each.positives) or is_few(each.negatives) for each in result.findings]
    hidden = {number for number, each in enumerate(few) if each}
    if sum(positives) == result.images:
        hidden = not_told(positives, few)
    return frozenset(result.findings[number].name for number in hidden)


def groups_not_told(result: ClassificationResult) -> frozenset[tuple[str, str]]:
    """Names, by attribute and group, the groups whose images and patients are not told."""
    return frozenset(
        (attribute, groups[number].group)
        for attribute, groups in _by_attribute(result)
        for number in not_told(
            [each.patients or each.images for each in groups],
            [is_few(each.images) or is_few(each.patients) for each in groups],
        )
    )


def _by_attribute(result: ClassificationResult) -> Iterator[tuple[str, list[GroupScore]]]:
    for attribute in dict.fromkeys(each.attribute for each in result.groups):
        yield attribute, [each for each in result.groups if each.attribute == attribute]


def without_few(result: ClassificationResult) -> ClassificationResult:
    """Returns a result whose areas, means and thresholds rest on findings that are told alone.

    The counts of its findings and groups are as they were: who shows them asks
    ``findings_not_told`` and ``groups_not_told``. Where a finding is left out, the mean has no
    interval, and groups that were compared on it have neither mean nor gap.
    """
    hidden = findings_not_told(result)
    if not hidden:
        return replace(result, operating_points=_points_told(result.operating_points, hidden))
    told = [each for each in result.findings if each.name not in hidden and each.auroc is not None]
    unsure = {
        attribute for attribute, names in result.findings_of_groups.items() if hidden & set(names)
    }
    return replace(
        result,
        auroc=_mean([each.auroc for each in told]),
        interval=None,
        rests_on=_cautioned(result.rests_on),
        means={name: _mean([each.metrics[name] for each in told]) for name in result.means},
        findings=tuple(_counted(each) if each.name in hidden else each for each in result.findings),
        groups=tuple(
            replace(each, auroc_mean=None, labels_counted=0) if each.attribute in unsure else each
            for each in result.groups
        ),
        gaps={name: None if name in unsure else gap for name, gap in result.gaps.items()},
        operating_points=_points_told(result.operating_points, hidden),
    )


def _cautioned(rests_on: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out how many resamples lack a class, which tells of the fewest that show one."""
    drawn = read_if_there(rests_on, "patients_drawn", int)
    unreliable = drawn is not None and drawn < FEWEST_PATIENTS
    words = f"intervals rest on fewer than {FEWEST_PATIENTS} patients: they are not to be relied on"
    return {**rests_on, "cautions": [words] if unreliable else []}


def _counted(finding: FindingScore) -> FindingScore:
    """Returns a finding of which nothing but its counts is left."""
    nothing = dict.fromkeys(finding.metrics)
    return replace(finding, auroc=None, interval=None, metrics=nothing, reliability=())


def _points_told(points: OperatingPoints | None, hidden: frozenset[str]) -> OperatingPoints | None:
    """Leaves out thresholds tested, or chosen, on few images of a class."""
    if points is None:
        return None
    told = tuple(
        each
        for each in points.findings
        if each.name not in hidden
        and min(each.validation_positives, each.validation_negatives) >= FEWEST
    )
    return replace(points, findings=told)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return sum(known) / len(known) if known else None


def told_of(run: Evaluation) -> Evaluation:
    """Returns an evaluation without what would tell of few images or patients."""
    match run:
        case ClassifierRun(result=result):
            return replace(run, result=without_few(result))
        case SegmentationRun():
            return _masks_without_few(run)
    return run


def _masks_without_few(run: SegmentationRun) -> SegmentationRun:
    """Returns an evaluation of masks that does not tell how few images have no value."""
    whole = _whole(MaskScore("dice", run.images, run.images_left_out))
    return replace(
        run,
        images=whole.images,
        images_left_out=whole.images_left_out,
        others=tuple(map(_whole, run.others)),
        classes=tuple(
            replace(each, result=replace(each.result, dice=_whole(each.result.dice)))
            for each in run.classes
        ),
    )


def _whole(score: MaskScore) -> MaskScore:
    if not is_few(score.images_left_out):
        return score
    return replace(score, images=score.images + score.images_left_out, images_left_out=0)
