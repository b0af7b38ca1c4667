"""Figures of the page, as SVG: what each claim hangs on, Dice and AUROC, and learning curves."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from benchmarks.reproduction.claims import Claim, Row, Verdict
from benchmarks.reproduction.claims_b import knows_imagenet_alone
from benchmarks.reproduction.contrasts import RESAMPLES, SEED, dice_by_row
from benchmarks.reproduction.records import Records, Run
from benchmarks.reproduction.runs_a import change_of, students, teachers_of
from nakt_dist.drawing.style import (
    BLACK,
    BLUE,
    GREY,
    LINES,
    VERMILION,
    figure_style,
    make_panels,
    shorten,
    to_svg,
    wrap,
)
from nakt_dist.evaluation.summary import bootstrap_interval
from nakt_dist.report.wording import grouped
from nakt_dist.signals.kind import TRANSFER_LEARNING

_COLOURS = {
    Verdict.SUPPORTED: BLUE,
    Verdict.NOT_SUPPORTED: VERMILION,
    Verdict.UNDECIDED: GREY,
}
_OTHER_REDUCTIONS = ("batch_frobenius", "zagoruyko")
_LONGEST_OF_TWO = 50
_ROW_INCHES, _WIDTH = 0.26, 7.2


def draw_claims(
    claims: Sequence[Claim], about: str, verdict: Callable[[Claim], str]
) -> bytes | None:
    """Draws every figure that a claim has, with its intervals and the paper's; None without any.

    Args:
        verdict: of a claim, in words.
    """
    shown = [claim for claim in claims if any(row.estimate for row in claim.rows)]
    if not shown:
        return None
    rows = [[row for row in claim.rows if row.estimate] for claim in shown]
    with figure_style():
        heights = [len(each) + 2.2 for each in rows]
        canvas = Canvas(figsize=(_WIDTH, _ROW_INCHES * sum(heights) + 0.5 * len(rows)))
        grid = canvas.subplots(len(shown), 1, squeeze=False, height_ratios=heights)
        for axes, claim, each in zip(grid[:, 0], shown, rows, strict=True):
            _draw_claim(axes, claim, each, verdict(claim))
        return to_svg(canvas, about)


def _draw_claim(axes: Axes, claim: Claim, rows: Sequence[Row], verdict: str) -> None:
    for place, row in enumerate(rows):
        estimate, colour = row.estimate, _COLOURS[claim.judge(row)]
        assert estimate is not None
        axes.plot(estimate.drawn, [place, place], color=colour, linewidth=3.5, alpha=0.5)
        if estimate.over_repeats is not None:
            axes.plot(estimate.over_repeats, [place, place], color=colour, linewidth=1.2)
        face = colour if row.decides else "white"
        axes.plot(estimate.value, place, "o", color=colour, mfc=face, markersize=6)
        theirs = [value for value, _ in row.printed]
        axes.plot(theirs, [place] * len(theirs), "D", color=BLACK, mfc="none", markersize=5)
    axes.axvline(claim.threshold, color=BLACK, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(rows)), [shorten(row.label, 58) for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(wrap(f"{claim.words}: {verdict}", 52), fontsize=9)
    axes.set_xlabel(claim.unit, fontsize=8)


def draw_dice(records: Records, about: str) -> bytes | None:
    """Draws the Dice of every student by transferal dataset, and its teacher's; None without."""
    found = [run for run in students(records.runs) if not change_of(run)]
    panels = grouped(found, lambda run: (run.teacher_start, run.transferal))
    if not panels:
        return None
    rules = sorted({run.rule for run in found})
    with figure_style():
        canvas, grid = make_panels(len(panels), 3, (2.4, 2.2), _WIDTH)
        for (axes,), (key, runs) in zip(grid, sorted(panels.items()), strict=True):
            axes.set_axis_on()
            _draw_students(axes, records, runs, rules)
            axes.set_title(wrap(f"{key[1]}, teacher from {key[0]}", 32), fontsize=8.5)
        _share_limits([axes for (axes,) in grid])
        grid[0][0].set_ylabel("Dice (%)")
        _legend(canvas, {rule or "no exclusion": LINES[n] for n, rule in enumerate(rules)})
        return to_svg(canvas, about)


def _draw_students(axes: Axes, records: Records, runs: Sequence[Run], rules: Sequence[str]) -> None:
    networks = sorted({run.network for run in runs})
    teacher = dice_by_row(records, teachers_of(runs, records.runs))
    for number, rule in enumerate(rules):
        shift = 0.22 * (number - (len(rules) - 1) / 2)
        for place, network in enumerate(networks):
            alike = [run for run in runs if (run.network, run.rule) == (network, rule)]
            if not alike:
                continue
            found = dice_by_row(records, alike)
            values, colour = np.array(list(found.values())), LINES[number]
            interval = bootstrap_interval(values, RESAMPLES, SEED)
            axes.plot([place + shift] * 2, interval, color=colour, linewidth=2, alpha=0.6)
            face = colour if found.keys() == teacher.keys() else "white"  # of other images
            axes.plot(place + shift, values.mean(), "o", color=colour, mfc=face)
    if teacher:
        mean = float(np.mean(list(teacher.values())))
        axes.axhline(mean, color=BLACK, linewidth=1, linestyle=":")
    axes.set_xticks(range(len(networks)), [shorten(n.split(" (")[0], 14) for n in networks])
    axes.set_xlim(-0.6, len(networks) - 0.4)
    axes.tick_params(axis="x", labelsize=7, rotation=20)


def _share_limits(panels: Sequence[Axes]) -> None:
    """Gives all panels the same range, so that they compare."""
    limits = np.array([axes.get_ylim() for axes in panels])
    for axes in panels:
        axes.set_ylim(limits[:, 0].min(), limits[:, 1].max())


def method_of(run: Run) -> str:
    """Names how a classifier was trained, and by whom."""
    if "findings of" in run.parts:
        whose = run.parts.split("findings of ", 1)[1]
        return f"{'Labels and p' if 'labels and' in run.parts else 'P'}seudo-findings of {whose}"
    whose = ""
    if run.method != TRANSFER_LEARNING.value:
        whose = ", ImageNet's teacher" if knows_imagenet_alone(run) else ", the domain's teacher"
    reduction = next((f", {each}" for each in _OTHER_REDUCTIONS if each in run.settings), "")
    parts = "" if run.parts == "all layers" else f", {run.parts}"
    return f"{run.method}{whose}{reduction}{parts}"


def draw_by_size(records: Records, about: str) -> bytes | None:
    """Draws mean AUROC by training images, methods against each other; None without students."""
    found = [run for run in records.runs if run.role == "student"]
    found = [run for run in found if "findings of" not in run.parts]  # they count other images
    panels = grouped(found, lambda run: (run.network, run.start))
    if not panels:
        return None
    colours = _colours(records, found)
    with figure_style():
        canvas, grid = make_panels(len(panels), 3, (2.5, 2.4), _WIDTH)
        for (axes,), (key, runs) in zip(grid, sorted(panels.items()), strict=True):
            axes.set_axis_on()
            _draw_sizes(axes, runs, colours)
            axes.set_title(wrap(f"{key[0]}, from {key[1]}", 30), fontsize=9)
            axes.set_xlabel("training images")
        _share_limits([axes for (axes,) in grid])
        grid[0][0].set_ylabel("mean AUROC (%)")
        _legend(canvas, colours)
        return to_svg(canvas, about)


def _draw_sizes(axes: Axes, runs: Sequence[Run], colours: Mapping[str, str]) -> None:
    sizes = sorted({run.samples for run in runs})
    for number, (method, colour) in enumerate(colours.items()):
        shift = 0.1 * (number - (len(colours) - 1) / 2)
        by_size = grouped([run for run in runs if method_of(run) == method], lambda r: r.samples)
        places = [sizes.index(size) + shift for size in sorted(by_size)]
        means = [np.mean([run.mean for run in by_size[size]]) for size in sorted(by_size)]
        axes.plot(places, means, "o-", color=colour, markersize=4, linewidth=1.4)
        for place, size in zip(places, sorted(by_size), strict=True):
            seeds = [run.mean for run in by_size[size]]
            axes.plot([place] * len(seeds), seeds, ".", color=colour, alpha=0.4, markersize=4)
    axes.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
    axes.set_xlim(-0.6, len(sizes) - 0.4)


def _colours(records: Records, shown: Sequence[Run]) -> dict[str, str]:
    """Returns the colours of the methods that are shown; a method has one in all figures."""
    names = {method_of(run) for run in records.runs if run.role == "student"}
    colours = dict(zip(sorted(names, reverse=True), cycle(LINES), strict=False))
    wanted = {method_of(run) for run in shown}
    return {name: colour for name, colour in colours.items() if name in wanted}


def _legend(canvas: Canvas, colours: Mapping[str, str]) -> None:
    lines = [Canvas().subplots().plot([], [], "o-", color=c)[0] for c in colours.values()]
    columns = 2 if max(map(len, colours)) < _LONGEST_OF_TWO else 1
    canvas.legend(lines, list(colours), loc="outside upper left", ncols=columns, frameon=False)
    canvas.set_figheight(canvas.get_figheight() + 0.22 * (len(colours) + 1) / columns)


def draw_curves(records: Records, about: str) -> bytes | None:
    """Draws the validation loss over the training, thick the mean over seeds; None without."""
    found = [run for run in records.runs if run.role == "student" and run.name in records.curves]
    panels = grouped(found, lambda run: (run.network, run.start, run.samples))
    panels = {key: runs for key, runs in panels.items() if len({method_of(r) for r in runs}) > 1}
    if not panels:
        return None
    colours = _colours(records, [run for runs in panels.values() for run in runs])
    with figure_style():
        canvas, grid = make_panels(len(panels), 3, (2.5, 2.0), _WIDTH)
        for (axes,), (key, runs) in zip(grid, sorted(panels.items()), strict=True):
            axes.set_axis_on()
            _draw_losses(axes, records, runs, colours)
            title = f"{key[0]}, from {key[1]}, {key[2]:,} images"
            axes.set_title(wrap(title, 34), fontsize=8.5)
            axes.set_xlabel("epoch", fontsize=8)
        grid[0][0].set_ylabel("cross-entropy", fontsize=8)
        _legend(canvas, colours)
        return to_svg(canvas, about)


def _draw_losses(
    axes: Axes, records: Records, runs: Sequence[Run], colours: Mapping[str, str]
) -> None:
    def key(run: Run) -> Hashable:
        return method_of(run)

    for method, alike in grouped(runs, key).items():
        curves = [records.curves[run.name] for run in alike]
        colour = colours[str(method)]
        for curve in curves:
            axes.plot(curve.epochs, curve.loss, color=colour, linewidth=0.6, alpha=0.5)
        shortest = min(len(curve.loss) for curve in curves)
        mean = np.mean([curve.loss[:shortest] for curve in curves], axis=0)
        axes.plot(curves[0].epochs[:shortest], mean, color=colour, linewidth=1.8)
