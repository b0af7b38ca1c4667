"""The metrics of masks besides Dice: pixels found and rightly found, and distances of outlines."""

from collections.abc import Sequence
from functools import partial

from nakt_dist.records.mask_results import MaskScore
from nakt_dist.report.document import NOTHING, WARNING, Cell, Column, Table, tabulate
from nakt_dist.report.evaluations import SegmentationRun, show_interval
from nakt_dist.report.wording import show_count

_KNOWN = {
    "sensitivity": (
        "Sensitivity %",
        "Sensitivity: share of an image's annotated pixels that are found.",
    ),
    "precision": (
        "Precision %",
        "Precision: share of an image's predicted pixels that are annotated.",
    ),
    "hd95_pixels": (
        "HD95, pixels",
        "HD95: 95th percentile of the distances between the outlines of prediction and mask, the "
        "larger of both directions.",
    ),
    "assd_pixels": (
        "ASSD, pixels",
        "ASSD: mean distance between the outlines, both directions together. Pixels are those of "
        "the packed image.",
    ),
}
_MEANS = (
    "Mean over the test images with its 95 % bootstrap interval; images without a value, because "
    "a mask is empty, are left out and counted."
)


def masks_table(evaluations: Sequence[SegmentationRun]) -> Table | None:
    """Shows what else than Dice was measured of masks; None where nothing was."""
    measured = {score.name for run in evaluations for score in run.others}
    shown = {name: words for name, words in _KNOWN.items() if name in measured}
    if not shown:
        return None
    several = len({run.tested_on for run in evaluations}) > 1
    columns = (
        Column("Run", lambda run: run.name),
        Column("Test set", lambda run: run.tested_on.label, shown=several, minor=True),
        *(Column(title, partial(_score_cell, name=name)) for name, (title, _) in shown.items()),
    )
    rows = [run for run in evaluations if run.others]
    warnings = [f"{WARNING} {run.name}: {run.warning}." for run in rows if run.warning]
    remarks = (_MEANS, *(explained for _, explained in shown.values()), *warnings)
    return tabulate("Other metrics of masks", columns, rows, remarks)


def _score_cell(run: SegmentationRun, name: str) -> Cell:
    score = next((each for each in run.others if each.name == name), MaskScore(name, 0, 0))
    count = score.images_left_out
    left_out = f"{show_count(count, 'image')} left out" if count else ""
    if score.mean is None or score.interval is None:
        return Cell(NOTHING, (left_out,) if left_out else ())
    notes = (show_interval(score.interval), *([left_out] if left_out else []))
    return Cell(f"{score.mean:.2f}{run.warned}", notes)
