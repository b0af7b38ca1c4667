"""Figures of Dice: the mean with its interval per run, and how images scatter around it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from nakt_dist.drawing.style import BLACK, figure_style, shorten, to_png
from nakt_dist.report.document import Figure
from nakt_dist.report.evaluations import SegmentationRun
from nakt_dist.report.methods import ROLE_COLOURS
from nakt_dist.report.predictions import read_dice
from nakt_dist.report.roles import Role
from nakt_dist.report.runs import LeftOut, read_each

_ROW_INCHES = 0.44
_MOST_POINTS = 400


def draw_dice(runs: Sequence[SegmentationRun], number: int) -> Figure:
    """Draws the mean Dice of each run on one test set; the runs are sorted by role."""
    with figure_style():
        canvas, axes, rows = _rows_by_role(runs)
        for run, row in zip(runs, rows, strict=True):
            low, high = run.interval
            colour = ROLE_COLOURS[run.role]
            axes.barh(row, run.mean, height=0.62, color=colour, alpha=0.6)
            axes.plot([low, high], [row, row], color=BLACK, linewidth=1.6)
            axes.plot([low, high], [row, row], "|", color=BLACK, markersize=8)
            axes.text(high + 1.2, row, f"{run.mean:.1f}", va="center", fontsize=9)
        for run in runs:
            if run.role == Role.TEACHER:
                axes.axvline(run.mean, color=BLACK, linewidth=1, linestyle=":", zorder=0.5)
        axes.set_xlim(0, 108)
        axes.set_xlabel("Dice (%)")
        png = to_png(canvas)
    return Figure(
        f"dice-{number}.png",
        png,
        f"Mean Dice on {runs[0].tested_on.label}",
        "Bars: mean over the test images. Black lines: 95 % bootstrap interval of the mean. "
        "Dotted: the teachers' means. * marks transferal images chosen by exclusion.",
    )


def draw_distribution(
    runs: Sequence[SegmentationRun], number: int, left_out: list[LeftOut]
) -> Figure | None:
    """Draws the Dice of every test image of each run on one test set.

    Returns:
        None where no run has usable predictions; those that have none are left out.
    """
    scores = dict(read_each(runs, lambda run: (run, _read_dice(run)), left_out))
    if not scores:
        return None
    with figure_style():
        canvas, axes, rows = _rows_by_role(list(scores))
        for (run, values), row in zip(scores.items(), rows, strict=True):
            _draw_scatter(axes, values, row, ROLE_COLOURS[run.role])
        axes.set_xlim(-2, 102)
        axes.set_xlabel("Dice of one image (%)")
        png = to_png(canvas)
    return Figure(
        f"dice-per-image-{number}.png",
        png,
        f"Dice per image on {runs[0].tested_on.label}",
        f"Points: images (at most {_MOST_POINTS} a run, evenly chosen along the range). Boxes: "
        "quartiles, with the median as a line; whiskers reach from the 5th to the 95th "
        "percentile. Diamonds: the mean.",
    )


def _read_dice(run: SegmentationRun) -> np.ndarray:
    """Returns the Dice of each image in percent, float64 (images,), without undefined ones."""
    values = np.array(list(read_dice(run, "Dice per image").values()))
    return values[~np.isnan(values)]


def _draw_scatter(axes: Axes, values: np.ndarray, row: float, colour: str) -> None:
    ordered = np.sort(values)
    shown = ordered[
        np.linspace(0, len(ordered) - 1, min(len(ordered), _MOST_POINTS)).round().astype(int)
    ]
    # Multiples of the golden ratio spread points evenly without a random generator.
    offsets = (np.arange(len(shown)) * 0.6180339887 % 1 - 0.5) * 0.5
    axes.plot(shown, row + offsets, ".", color=colour, alpha=0.45, markersize=4, markeredgewidth=0)
    low, first, median, third, high = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
    axes.barh(row, third - first, left=first, height=0.56, fill=False, edgecolor=BLACK)
    axes.plot([low, first], [row, row], color=BLACK, linewidth=1)
    axes.plot([third, high], [row, row], color=BLACK, linewidth=1)
    axes.plot([median, median], [row - 0.28, row + 0.28], color=BLACK, linewidth=2)
    axes.plot(values.mean(), row, "D", color="white", markeredgecolor=BLACK, markersize=5)


def _rows_by_role(runs: Sequence[SegmentationRun]) -> tuple[Canvas, Axes, list[float]]:
    """Makes a canvas with a labelled row per run and a gap between roles."""
    rows, labels, row = [], [], 0.0
    for previous, run in zip([None, *runs], runs, strict=False):
        if previous is not None and previous.role != run.role:
            row += 0.5
        rows.append(row)
        labels.append(_label(run))
        row += 1
    canvas = Canvas(figsize=(8.6, 0.9 + _ROW_INCHES * row))
    axes = canvas.subplots()
    axes.set_yticks(rows, labels, fontsize=8.5)
    axes.set_ylim(row - 0.3, -0.7)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return canvas, axes, rows


def _label(run: SegmentationRun) -> str:
    """Names a run in two lines: what it is, and what it is called."""
    transferal = f": {run.transfer.label}{'*' if run.excluded else ''}" if run.transfer else ""
    network = shorten(run.network.paper_name or run.network.label, 24)
    return f"{run.role.value}{shorten(transferal, 36)}\n{shorten(run.name, 30)} · {network}"
