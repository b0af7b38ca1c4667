"""Figures of classifiers' AUROC: by size of the training set, and by finding."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from nakt_dist.drawing.style import BLACK, GREY, figure_style, shorten, to_png, wrap
from nakt_dist.records.lineage import Method
from nakt_dist.report.differences import Difference
from nakt_dist.report.document import Figure
from nakt_dist.report.methods import Styles, dot_face, draw_legend, method_styles, name_methods
from nakt_dist.report.studies import Setting, Study, baselines
from nakt_dist.report.wording import grouped

_COLUMNS = 3
_ROW_INCHES = 0.27
_TITLE_LENGTH = 34
"""Characters in a line of a panel's title."""


def draw_by_size(study: Study, differences: Sequence[Difference], number: int) -> Figure | None:
    """Draws AUROC against the size of the training set, and what a teacher gives below it.

    Returns:
        None where there is nothing to compare; the study's number names the file.
    """
    panels = _panels(study)
    if len(study.methods) < 2:
        return None
    styles, names = method_styles(study.methods), name_methods(study.methods)
    shown = over_strongest(study, differences)
    with figure_style():
        columns = len(panels)
        canvas = Canvas(figsize=(max(6.4, 3.4 * columns), 4.9))
        grid = canvas.subplots(2, columns, squeeze=False, sharey="row", height_ratios=(3, 2))
        for column, settings in enumerate(panels):
            sizes = sorted({each.trained_on.samples for each in settings})
            _draw_means(grid[0, column], study, settings, sizes, styles)
            here = [each for each in shown if each.setting in settings]
            _draw_differences(grid[1, column], here, sizes, study.methods, styles)
            title = _panel_title(study, settings[0])
            grid[0, column].set_title("\n".join(wrap(line, _TITLE_LENGTH) for line in title))
        grid[0, 0].set_ylabel("mean AUROC (%)")
        grid[1, 0].set_ylabel("difference (points)")
        draw_legend(canvas, names, styles)
        png = to_png(canvas)
    return Figure(
        f"auroc-by-size-{number}.png",
        png,
        f"AUROC by size of the training set, on {study.label}",
        "Upper panels: mean over seeds; bars: ± 1.96 s / √n; dots: single seeds. Lower panels: "
        "what following a teacher gives over the best transfer learning of the same setting, "
        "paired by seed; thick bars: 95 % over seeds, thin bars: 95 % over patients.",
    )


def over_strongest(study: Study, differences: Sequence[Difference]) -> list[Difference]:
    """Keeps the comparisons with the best method that follows no teacher, for each setting."""
    best = {
        setting: max(baselines(cell), key=lambda method: cell[method].mean)
        for setting, cell in study.cells.items()
        if baselines(cell)
    }
    return [each for each in differences if each.baseline == best.get(each.setting)]


def _panels(study: Study) -> list[list[Setting]]:
    """Groups settings that differ in size alone."""
    groups = grouped(
        study.cells, lambda it: replace(it, trained_on=replace(it.trained_on, samples=0))
    )
    return list(groups.values())


def _panel_title(study: Study, setting: Setting) -> tuple[str, str]:
    """Names network, first weights and, where that matters, dataset."""
    dataset = f" on {setting.trained_on.label}" if study.names_datasets else ""
    told = study.told(setting)
    return (f"{setting.network.label}{dataset}{f', {told}' if told else ''}", setting.start.phrase)


def _draw_means(
    axes: Axes, study: Study, settings: Sequence[Setting], sizes: Sequence[int], styles: Styles
) -> None:
    for method, shift in zip(study.methods, _shifts(len(study.methods)), strict=True):
        found = [
            (sizes.index(setting.trained_on.samples) + shift, study.cells[setting][method])
            for setting in settings
            if method in study.cells[setting]
        ]
        colour, line = styles[method]
        axes.plot(
            [place for place, _ in found], [each.mean for _, each in found], line, color=colour,
            linewidth=1.8, marker="o", markersize=5,
        )  # fmt: skip
        for place, each in found:
            axes.plot([place] * len(each.values), each.values, ".", color=colour, alpha=0.5)
            if each.half_width is not None:
                axes.errorbar(place, each.mean, each.half_width, color=colour, capsize=3)
    _label_sizes(axes, sizes)


def _draw_differences(
    axes: Axes,
    differences: Sequence[Difference],
    sizes: Sequence[int],
    methods: Sequence[Method],
    styles: Styles,
) -> None:
    axes.axhline(0, color=BLACK, linewidth=1)
    shifts = dict(zip(methods, _shifts(len(methods)), strict=True))
    for each in differences:
        place = sizes.index(each.setting.trained_on.samples) + shifts[each.method]
        colour = styles[each.method][0]
        for interval, width in ((each.over_patients, 1.2), (each.over_seeds, 4)):
            if interval is not None:
                axes.plot([place, place], interval, color=colour, linewidth=width, alpha=0.75)
        axes.plot(place, each.mean, "o", mfc="white", mec=colour, markersize=6, mew=1.6)
    _label_sizes(axes, sizes)
    axes.set_xlabel("training images")


def _label_sizes(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
    axes.set_xlim(-0.5, len(sizes) - 0.5)


def _shifts(count: int) -> np.ndarray:
    """Returns float64 (count,): small shifts around 0, so that bars do not hide each other."""
    return (np.arange(count) - (count - 1) / 2) * min(0.09, 0.5 / max(count, 1))


def draw_findings(study: Study, number: int) -> Figure | None:
    """Draws AUROC of every finding, methods against each other, a panel per setting.

    Returns:
        None where no setting has two methods; the study's number names the file.
    """
    settings = [setting for setting, cell in study.cells.items() if len(cell) > 1]
    if not settings:
        return None
    styles, names = method_styles(study.methods), name_methods(study.methods)
    findings = study.tested_on.findings
    columns = min(_COLUMNS, len(settings))
    rows = -(-len(settings) // columns)
    with figure_style():
        canvas = Canvas(figsize=(2.2 + 2.7 * columns, (0.9 + _ROW_INCHES * len(findings)) * rows))
        grid = canvas.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(settings) :]:
            axes.set_axis_off()
        for axes, setting in zip(grid.flat, settings, strict=False):
            _draw_findings(axes, study, setting, styles)
        for axes in grid[:, 0]:
            axes.set_yticks(range(len(findings)), [shorten(each, 26) for each in findings])
        for number_of_panel, axes in enumerate(grid.flat[: len(settings)]):
            if number_of_panel + columns >= len(settings):  # the lowest of its column
                axes.set_xlabel("AUROC (%)")
                axes.tick_params(labelbottom=True)
        grid[0, 0].set_ylim(len(findings) - 0.5, -0.5)
        draw_legend(canvas, names, styles, dots=True)
        png = to_png(canvas)
    return Figure(
        f"auroc-by-finding-{number}.png",
        png,
        f"AUROC by finding, on {study.label}",
        "Dots: mean over seeds of each method. Dotted line: chance. Findings that lack a class in "
        "the test images have no dot.",
    )


def _draw_findings(axes: Axes, study: Study, setting: Setting, styles: Styles) -> None:
    cell = study.cells[setting]
    for row in range(len(study.tested_on.findings)):
        scores = {method: repeats.auroc_of(row) for method, repeats in cell.items()}
        means = {method: mean for method, mean in scores.items() if mean is not None}
        if means:
            axes.axhline(row, color=GREY, linewidth=0.5, zorder=0.5)
        for (method, mean), shift in zip(means.items(), _shifts(len(means)), strict=True):
            colour, face = styles[method][0], dot_face(*styles[method])
            axes.plot(mean, row + shift, "o", color=colour, mfc=face, markersize=6, zorder=2)
    axes.axvline(50, color=BLACK, linewidth=0.8, linestyle=":")
    title = (study.label_of(setting), setting.start.phrase)
    axes.set_title("\n".join(wrap(line, _TITLE_LENGTH) for line in title), fontsize=9)
    axes.grid(axis="y", visible=False)
