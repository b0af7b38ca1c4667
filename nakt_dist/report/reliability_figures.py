"""Reliability curves: how often what is called so probable is there."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes

from nakt_dist.drawing.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    figure_style,
    make_panels,
    to_png,
    wrap,
)
from nakt_dist.records.operating_points import Curve
from nakt_dist.report.document import Figure
from nakt_dist.report.evaluations import ClassifierRun
from nakt_dist.report.finding_tables import chosen_settings
from nakt_dist.report.studies import Study

_COLUMNS = 3
_INCHES = (3.1, 3.1)
_TITLE_LENGTH = 36
_LARGEST_DOT, _SMALLEST_DOT = 160.0, 6.0
_CAPTION = (
    "All findings and seeds together, in bins of equal width: mean probability against the share "
    "of positive images. Dots: areas by the number of images in a bin. Dotted: what perfect "
    "calibration gives; below it, findings are called likelier than they are. Blue: probabilities "
    "as the network gives them. Orange: after temperature scaling, fitted on validation images."
)


def draw_reliability(study: Study, number: int) -> Figure | None:
    """Draws a panel for each method and each other network of a test set.

    Returns:
        None where nobody has operating points; the study's number names the file.
    """
    if not any(run.result.operating_points for run in study.runs):
        return None
    chosen = chosen_settings(study) if study.cells else []
    groups: list[tuple[str, Sequence[ClassifierRun]]] = [
        (study.name(method), repeats.runs) for _, method, repeats in chosen
    ]
    groups += [(run.name, (run,)) for run in study.others]
    panels = [(name, *_curves(runs)) for name, runs in groups]
    panels = [panel for panel in panels if panel[1] is not None]
    if not panels:
        return None
    with figure_style():
        canvas, grid = make_panels(len(panels), _COLUMNS, _INCHES, _INCHES[0])
        for (axes,), (name, plain, scaled) in zip(grid, panels, strict=True):
            _draw_panel(axes, plain, scaled)
            axes.set_title(wrap(name, _TITLE_LENGTH))
        png = to_png(canvas)
    title = f"Reliability of probabilities on {study.label}"
    return Figure(f"reliability-{number}.png", png, title, _CAPTION)


def _curves(runs: Sequence[ClassifierRun]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Adds up the curves of all findings of runs, float64 (bins, 3), plain and scaled."""
    plain = [each.reliability for run in runs for each in run.result.findings]
    points = [run.result.operating_points for run in runs]
    scaled = [one.reliability_scaled for each in points if each for one in each.findings]
    return _pool(plain), _pool(scaled) if all(points) else None


def _pool(curves: Iterable[Curve]) -> np.ndarray | None:
    known = [np.asarray(curve, dtype=np.float64) for curve in curves if curve]
    return sum(known[1:], known[0]) if known and len({len(each) for each in known}) == 1 else None


def _draw_panel(axes: Axes, plain: np.ndarray | None, scaled: np.ndarray | None) -> None:
    axes.set_axis_on()
    axes.plot([0, 1], [0, 1], ":", color=BLACK, linewidth=0.9, zorder=1)
    for curve, colour in ((plain, BLUE), (scaled, ORANGE)):
        if curve is not None:
            images, expected, found = curve[curve[:, 0] > 0].T
            places = expected / images, found / images
            axes.plot(*places, color=colour, linewidth=1.6)
            sizes = np.maximum(_LARGEST_DOT * images / images.sum(), _SMALLEST_DOT)
            axes.scatter(*places, s=sizes, color=colour, zorder=3, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean probability", ylabel="share of positive images")
    axes.set_aspect("equal")
    axes.grid(color=GREY, alpha=0.3)
