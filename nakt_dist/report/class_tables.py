"""Dice of each of several classes, beside the mean over them in the main table."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from nakt_dist.records.mask_results import MaskScore
from nakt_dist.report.document import NOTHING, Cell, Column, Table, tabulate
from nakt_dist.report.evaluations import SegmentationRun, show_interval
from nakt_dist.report.wording import grouped

_REMARK = (
    "Each cell: mean ± standard deviation over the test images, in percent, and a 95 % bootstrap "
    "interval of the mean. The Dice of an image, in the table of all evaluations, is the mean over "
    "those of its classes that have one."
)


def class_tables(evaluations: Sequence[SegmentationRun]) -> Iterator[Table]:
    """Yields, for each test set with several classes, a table with a row for each class."""
    groups = grouped((run for run in evaluations if run.classes), lambda run: run.tested_on)
    for tested_on, runs in groups.items():
        scores = [{each.name: each.result.dice for each in run.classes} for run in runs]
        names = dict.fromkeys(name for found in scores for name in found)
        columns = [Column("Class", str)]
        columns += [Column(run.name, _shown(each)) for run, each in zip(runs, scores, strict=True)]
        yield tabulate(f"Dice by class, tested on {tested_on.label}", columns, names, [_REMARK])


def _shown(scores: Mapping[str, MaskScore]) -> Callable[[str], Cell]:
    """Returns what shows a run's score of a class, by its name."""
    return lambda name: _cell(scores.get(name))


def _cell(dice: MaskScore | None) -> Cell:
    if dice is None or dice.mean is None or dice.interval is None:
        return Cell(NOTHING)
    left_out = f", {dice.images} images" if dice.images_left_out else ""
    return Cell(f"{dice.mean:.2f} ± {dice.std:.2f} ({show_interval(dice.interval)}{left_out})")
