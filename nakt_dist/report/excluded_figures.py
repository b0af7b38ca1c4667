"""A student's Dice against the share of its transferal images that was excluded."""

from collections.abc import Sequence

from nakt_dist.drawing.style import LINES, figure_style, make_panels, shorten, to_png
from nakt_dist.records.lineage import NOT_SAID, TrainingSet
from nakt_dist.report.document import Figure
from nakt_dist.report.evaluations import SegmentationRun
from nakt_dist.report.roles import Role, describe_rule
from nakt_dist.report.wording import grouped

_COLOURS = LINES[1:7]  # neither black nor grey


def draw_excluded(runs: Sequence[SegmentationRun], number: int) -> Figure | None:
    """Draws students of one set of pseudo masks that differ in what was excluded, on one test set.

    Returns:
        None where no two students of a set, tested alike, learnt from different shares of it.
    """
    students = [run for run in runs if run.role == Role.STUDENT and _share(run) is not None]
    alike = grouped(students, lambda run: (_learnt(run).pseudo_labels_fingerprint, run.network))
    compared = [
        run for group in alike.values() if len({_share(run) for run in group}) > 1 for run in group
    ]
    panels = list(grouped(compared, lambda run: _learnt(run).pseudo_labels_fingerprint).values())
    if not panels:
        return None
    with figure_style():
        canvas, places = make_panels(len(panels), 2, (4.2, 3.4), 5.6)
        for (axes,), group in zip(places, panels, strict=True):
            axes.set_axis_on()
            by_network = grouped(group, lambda run: run.network.label)
            for place, (network, members) in enumerate(sorted(by_network.items())):
                members = sorted(members, key=lambda run: (_share(run), run.name))
                means = [run.mean for run in members]
                errors = [
                    [run.mean - run.interval[0] for run in members],
                    [run.interval[1] - run.mean for run in members],
                ]
                colour = _COLOURS[place % len(_COLOURS)]
                axes.errorbar(
                    [100 * (_share(run) or 0) for run in members], means, errors,
                    fmt="o-", color=colour, capsize=3, label=shorten(network, 24),
                )  # fmt: skip
            axes.set_title(shorten(_learnt(group[0]).label, 40))
            axes.set_xlabel("images excluded (%)")
            axes.set_ylabel("Dice (%)")
            axes.legend(loc="best")
        png = to_png(canvas)
    rules = dict.fromkeys(describe_rule(_learnt(run).exclusion) for run in compared)
    return Figure(
        f"excluded-{number}.png",
        png,
        f"Dice on {runs[0].tested_on.label} against what was excluded",
        "Points: students of the same pseudo masks. Lines through them: 95 % bootstrap intervals "
        f"over test images, which say nothing of other seeds. Rules: {'; '.join(rules)}.",
    )


def _learnt(run: SegmentationRun) -> TrainingSet:
    return run.transfer or NOT_SAID


def _share(run: SegmentationRun) -> float | None:
    """Returns which share of a set of pseudo masks was excluded; None where several were learnt."""
    learnt = _learnt(run)
    if learnt.sources or not learnt.before_exclusion:
        return None
    return 1 - learnt.samples / learnt.before_exclusion
