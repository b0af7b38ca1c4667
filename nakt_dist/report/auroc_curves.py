"""Learning curves of classifiers (paper B, figure 3): do students with a teacher overfit later?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nakt_dist.drawing.style import figure_style, make_panels, to_png, wrap
from nakt_dist.errors import DatasetError
from nakt_dist.records.fields import read_if_there
from nakt_dist.records.finding_results import VALIDATED_FINDINGS
from nakt_dist.records.lineage import NOT_KNOWN, PSEUDO_FINDINGS, Lineage, Lineages, Method
from nakt_dist.records.lineage_reading import PRETRAINED, read_lineage
from nakt_dist.records.run_record import RunRecord
from nakt_dist.report.document import Figure
from nakt_dist.report.evaluations import NetworkName, name_network
from nakt_dist.report.learning_curves import can_be_drawn, read_metrics
from nakt_dist.report.methods import draw_legend, method_styles, name_methods
from nakt_dist.report.runs import FoundRecord, LeftOut, read_each
from nakt_dist.report.studies import Setting, arrange, tell_settings
from nakt_dist.report.trained import deciding, differing_names
from nakt_dist.report.wording import grouped, list_some
from nakt_dist.runtime.tracking import METRICS_NAME

_COLUMNS = 3
_INCHES = (3.4, 2.1)
_TITLE_LENGTH = 40
_CAPTION = (
    "After paper B's figure 3. Upper panels: mean AUROC over findings on the validation images. "
    "Lower panels: cross-entropy on the validation images (solid or dashed) and on the training "
    "images (dotted); where the former rises while the latter falls, a network overfits. Thick: "
    "mean over seeds; thin: each seed. Rings, in both panels: the epoch with the highest mean "
    "AUROC; AUROC chooses the epoch whose weights are kept, for each seed on its own."
)
_OTHER_SCALE = (
    " Where positives or the teachers' certainty are weighed, or pseudo-findings learnt, the "
    "cross-entropy on the training images is of these weights and labels: its level and that on "
    "the validation images do not compare."
)


@dataclass(frozen=True)
class AurocCurve:
    """The validations of one training.

    Attributes:
        steps: float64 (validations,), optimiser steps, increasing.
        auroc: float64 (validations,), mean over findings, in percent.
        loss: float64 (validations,), cross-entropy.
        training_loss: float64 (validations,), mean cross-entropy on the training images since
            the validation before; NaN where none was logged.
        steps_per_epoch: None where the training did not count epochs.
        repetition: what tells it from others of its setting and method, such as the seed.
        other_scale: whether the training loss weighs labels, or is of others than people's.
        judged_by: what tells apart the images and findings that AUROC is of.
    """

    steps: np.ndarray
    auroc: np.ndarray
    loss: np.ndarray
    training_loss: np.ndarray
    steps_per_epoch: float | None
    repetition: tuple[int, int] = (0, 0)
    other_scale: bool = False
    judged_by: tuple[Any, ...] = ()

    @property
    def places(self) -> np.ndarray:
        """Epochs, or steps where there are none; float64 (validations,)."""
        return self.steps / (self.steps_per_epoch or 1)


_Drawn = tuple[FoundRecord, AurocCurve]
Curves = Mapping[Setting, Mapping[Method, Sequence[AurocCurve]]]


def read_auroc_curve(path: Path, steps_per_epoch: float | None) -> AurocCurve:
    """Reads the validations in a ``metrics.jsonl``; a last line cut by a kill is ignored.

    Raises:
        DatasetError: the file is absent, damaged, or holds no validation.
    """
    logged, table = read_metrics(path, ("cross_entropy",), ("validation_auroc", "validation_loss"))
    _, last = np.unique(table[::-1, 0], return_index=True)  # one that went on validates again
    table = table[::-1][last]
    if not len(table) or not can_be_drawn(table).all():
        raise DatasetError(f"no learning curve: {path.name} holds no validation, or not a number")
    steps, auroc, loss = table.T
    return AurocCurve(steps, 100 * auroc, loss, _mean_between(logged, steps), steps_per_epoch)


def _mean_between(logged: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Averages what was logged after each validation up to the next; NaN where nothing was."""
    place = np.searchsorted(steps, logged[:, 0], "left")
    usable = (place < len(steps)) & can_be_drawn(logged[:, 1])
    counts = np.bincount(place[usable], minlength=len(steps))
    sums = np.bincount(place[usable], logged[usable, 1], minlength=len(steps))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def collect_curves(
    trainings: Iterable[FoundRecord], left_out: list[LeftOut], known: Lineages = NOT_KNOWN
) -> Curves:
    """Reads the curve of every training of a classifier, by setting and method.

    Of trainings of one seed the first counts; those with other settings are listed.
    """

    def read(training: FoundRecord) -> tuple[NetworkName, Lineage, _Drawn]:
        lineage, steps = training.record.details["lineage"], _steps_per_epoch(training.record)
        classifier = read_lineage(lineage, known)
        curve = read_auroc_curve(training.folder / METRICS_NAME, steps)
        curve = replace(
            curve,
            repetition=classifier.repetition,
            other_scale=_has_other_scale(training.record, classifier),
            judged_by=(
                classifier.validated_on,
                *(read_if_there(training.record.details, VALIDATED_FINDINGS, list) or ()),
            ),
        )
        return name_network(lineage["model"], PRETRAINED), classifier, (training, curve)

    found, again = arrange(read_each(trainings, read, left_out))
    for (later, _), (first, _) in again:
        names = differing_names(deciding(each.record.config) for each in (first, later))
        if names:
            reason = (
                f"no learning curve: repeats the seed of {first.place}, which is drawn, though "
                f"trained with other settings: {list_some(names)}"
            )
            left_out.append(LeftOut(later.place, reason))
    curves = {
        setting: {method: [curve for _, curve in drawn] for method, drawn in methods.items()}
        for setting, methods in found.items()
    }
    # Unlike in tables, sizes of one start stand side by side.
    return dict(sorted(curves.items(), key=lambda each: _panel_order(each[0])))


def _panel_order(setting: Setting) -> tuple[Any, ...]:
    trained_on = setting.trained_on
    return (setting.network.order, trained_on.label, setting.start.label, trained_on.samples)


def _has_other_scale(record: RunRecord, lineage: Lineage) -> bool:
    recipe = read_if_there(record.config, "recipe", Mapping) or {}
    weights = {recipe.get(f"{what}_weighting", "none") for what in ("positive", "certainty")}
    taught = any(each.taught == PSEUDO_FINDINGS for each in lineage.learnt.parts)
    return taught or weights != {"none"}


def _steps_per_epoch(record: Any) -> float | None:
    recipe = record.config.get("recipe")
    epochs = recipe.get("epochs") if isinstance(recipe, Mapping) else None
    steps = record.details.get("total_steps")
    usable = isinstance(epochs, int) and isinstance(steps, int) and epochs > 0 and steps > 0
    return steps / epochs if usable else None


def draw_auroc_curves(curves: Curves) -> list[Figure]:
    """Draws validation AUROC and loss over the epochs, methods against each other.

    Returns:
        A figure for each dataset learnt from. A training that nothing stands against is not
        drawn, unless there are no others.
    """
    compared = {setting: methods for setting, methods in curves.items() if len(methods) > 1}
    drawn = compared or curves
    datasets = grouped(drawn, lambda setting: setting.trained_on.label)
    return [
        Figure(
            f"learning-curves-auroc-{number}.png",
            _draw({setting: drawn[setting] for setting in shown}),
            f"Learning curves of classifiers that learn from {dataset}",
            _caption(curve for it in shown for repeats in drawn[it].values() for curve in repeats),
        )
        for number, (dataset, shown) in enumerate(datasets.items(), start=1)
    ]


def _caption(curves: Iterable[AurocCurve]) -> str:
    return _CAPTION + (_OTHER_SCALE if any(curve.other_scale for curve in curves) else "")


def _draw(curves: Curves) -> bytes:
    methods = {each for cell in curves.values() for each in cell}
    ordered = sorted(methods, key=lambda each: each.order)
    styles, names, titles = method_styles(ordered), name_methods(ordered), _titles(curves)
    all_curves = [each for cell in curves.values() for repeats in cell.values() for each in repeats]
    lowest = min(curve.auroc.min() for curve in all_curves)
    highest = max(curve.auroc.max() for curve in all_curves)
    margin = 0.06 * (highest - lowest) + 0.1
    with figure_style():
        canvas, panels = make_panels(len(curves), _columns(curves), _INCHES, 6.4, rows=2)
        for (upper, lower), (setting, cell) in zip(panels, curves.items(), strict=True):
            upper.set_title(titles[setting], fontsize=9.5)
            for method, repeats in cell.items():
                draw_repeats(upper, lower, repeats, *styles[method])
            last = max(curve.places[-1] for repeats in cell.values() for curve in repeats)
            _finish(upper, last, "AUROC (%)", "")
            upper.set_ylim(lowest - margin, min(highest + margin, 100.0))
            _finish(lower, last, "cross-entropy", _unit(cell))
        draw_legend(canvas, names, styles)
        return to_png(canvas)


def _columns(curves: Curves) -> int:
    """One row of panels for each network and first weights, where that fits."""
    rows = grouped(curves, lambda it: (it.network, it.trained_on.label, it.start)).values()
    most = max(map(len, rows))
    alike = all(len(row) == most for row in rows)
    return most if alike and 1 < most <= _COLUMNS else _COLUMNS


def _titles(settings: Iterable[Setting]) -> dict[Setting, str]:
    """Names panels, with what tells them apart where these names are the same."""
    titles = {}
    for setting, told in tell_settings(settings).items():
        trained_on = setting.trained_on
        size = f"{setting.network.label}, {trained_on.samples:,} images"
        lines = (size, f"of {trained_on.label}", setting.start.phrase, told)
        titles[setting] = "\n".join(wrap(line, _TITLE_LENGTH) for line in lines if line)
    return titles


def draw_repeats(
    upper: Axes, lower: Axes, repeats: Sequence[AurocCurve], colour: str, line: str
) -> None:
    """Draws one method: AUROC above, cross-entropy below, rings at the epoch AUROC chooses."""
    if len(repeats) > 1:
        for curve in repeats:
            upper.plot(curve.places, curve.auroc, line, color=colour, linewidth=0.7, alpha=0.45)
            lower.plot(curve.places, curve.loss, line, color=colour, linewidth=0.7, alpha=0.45)
    places, (auroc, loss, training) = mean_curve(repeats)
    upper.plot(places, auroc, line, color=colour, linewidth=2)
    lower.plot(places, loss, line, color=colour, linewidth=2)
    lower.plot(places, training, ":", color=colour, linewidth=1.4)
    best = int(np.argmax(auroc))
    for axes, values in ((upper, auroc), (lower, loss)):
        axes.plot(
            places[best], values[best], "o", mfc="white", mec=colour, markersize=6, mew=1.6,
            clip_on=False, zorder=3,
        )  # fmt: skip


def mean_curve(repeats: Sequence[AurocCurve]) -> tuple[np.ndarray, np.ndarray]:
    """Averages curves where all of them have a validation.

    Args:
        repeats: at least one.

    Returns:
        Epochs or steps, float64 (P,), and AUROC, loss and training loss, float64 (3, P); those
        of the first curve where no place is common to all.
    """
    rounded = [np.round(curve.places, 6) for curve in repeats]
    common = rounded[0]
    for places in rounded[1:]:
        common = np.intersect1d(common, places)
    if not len(common):
        return mean_curve(repeats[:1])
    chosen = [np.isin(places, common) for places in rounded]
    stacked = [
        np.stack([curve.auroc[mask], curve.loss[mask], curve.training_loss[mask]])
        for curve, mask in zip(repeats, chosen, strict=True)
    ]
    return common, np.mean(stacked, axis=0)


def _finish(axes: Axes, last: float, label: str, unit: str) -> None:
    axes.set_axis_on()
    axes.set_ylabel(label)
    axes.set_xlabel(unit)
    axes.set_xlim(0, 1.03 * last)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _unit(cell: Mapping[Method, Sequence[AurocCurve]]) -> str:
    by_epoch = all(curve.steps_per_epoch for repeats in cell.values() for curve in repeats)
    return "epoch" if by_epoch else "optimiser step"
