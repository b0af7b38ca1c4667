"""Learning curves from ``metrics.jsonl``: loss and validation Dice."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from nakt_dist.drawing.style import BLUE, GREY, ORANGE, figure_style, make_panels, shorten, to_png
from nakt_dist.errors import DatasetError
from nakt_dist.records.fields import printable
from nakt_dist.report.document import Figure
from nakt_dist.report.runs import FoundRecord, LeftOut, read_each
from nakt_dist.runtime.files import read_regular_file
from nakt_dist.runtime.tracking import METRICS_NAME

_COLUMNS = 3
_MOST_POINTS = 2000
_SHARE_OF_WINDOW = 20
"""The moving mean spans one twentieth of the logged steps."""


@dataclass(frozen=True)
class LearningCurve:
    """The numbers of one training.

    Attributes:
        loss_steps: int (logged,), steps of the losses.
        loss: float64 (logged,), total loss of each.
        dice_steps: int (validations,), steps of the validations.
        dice: float64 (validations,), mean Dice in percent; empty without a validation set.
    """

    name: str
    loss_steps: np.ndarray
    loss: np.ndarray
    dice_steps: np.ndarray
    dice: np.ndarray


def read_curve(name: str, path: Path) -> LearningCurve:
    """Reads the ``metrics.jsonl`` of a training; a last line cut by a kill is ignored.

    Raises:
        DatasetError: the file is absent, damaged, or holds no loss.
    """
    losses, validations = read_metrics(path, ("loss",), ("validation_dice",))
    losses, validations = (
        pairs[can_be_drawn(pairs).all(axis=1)] for pairs in (losses, validations)
    )
    if not len(losses):
        raise DatasetError(f"no learning curve: {path.name} holds no loss")
    return LearningCurve(
        name, losses[:, 0], losses[:, 1], validations[:, 0], 100 * validations[:, 1]
    )


def read_metrics(path: Path, *wanted: tuple[str, ...]) -> list[np.ndarray]:
    """Reads numbers in the ``metrics.jsonl`` of a training; a last line cut by a kill is ignored.

    Args:
        wanted: names of numbers that stand in one line.

    Returns:
        For each of these, the step and the numbers of each line that has the first of them,
        float64 (lines, 1 + numbers).

    Raises:
        DatasetError: the file cannot be read, or is damaged.
    """
    try:
        lines = read_regular_file(path).decode().split("\n")
        rows = [json.loads(line) for line in lines[:-1] if line]
        tables = [
            [[row[name] for name in ("step", *names)] for row in rows if names[0] in row]
            for names in wanted
        ]
        return [
            np.array(table, dtype=np.float64).reshape(-1, 1 + len(names))
            for table, names in zip(tables, wanted, strict=True)
        ]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else repr(error)
        raise DatasetError(f"no learning curve: {path.name}: {reason}") from None


def can_be_drawn(values: np.ndarray) -> np.ndarray:
    """Says which values are numbers that a float32, and so a loss, can be; bool of one shape."""
    return np.abs(values) <= np.finfo(np.float32).max


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Averages each value with its neighbours on both sides.

    Args:
        values: float (N,).
        window: how many values, at least 1; rounded down to an odd number, so that equally
            many lie on both sides. Near an end the window is cut off there.

    Returns:
        float64 (N,).
    """
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    places, reach = np.arange(len(values)), (window - 1) // 2
    starts, ends = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    return (sums[ends] - sums[starts]) / (ends - starts)


def draw_learning_curves(
    trainings: Sequence[FoundRecord], left_out: list[LeftOut]
) -> Figure | None:
    """Draws loss and validation Dice of each training.

    Returns:
        None where no training has usable metrics; those that have none are left out.
    """

    def read(found: FoundRecord) -> LearningCurve:
        return read_curve(printable(found.record.name), found.folder / METRICS_NAME)

    curves = read_each(trainings, read, left_out)
    if not curves:
        return None
    return Figure(
        "learning-curves.png",
        _draw(curves),
        "Learning curves",
        "Upper panels: training loss (Dice loss plus cross-entropy) at each logged step in grey, "
        "and its moving mean over a twentieth of the logged steps in blue. Lower panels, where a "
        "training had a validation set: mean Dice on its images; a ring marks the best.",
    )


def _draw(curves: Sequence[LearningCurve]) -> bytes:
    rows = 2 if any(len(curve.dice) for curve in curves) else 1
    highest = max(float(np.quantile(curve.loss, 0.99)) for curve in curves)
    with figure_style():
        canvas, panels = make_panels(len(curves), _COLUMNS, (3.3, 2.1), 5.6, rows)
        for (upper, *lower), curve in zip(panels, curves, strict=True):
            _draw_loss(upper, curve, highest)
            for axes in lower:
                _draw_dice(axes, curve)
        return to_png(canvas)


def _draw_loss(axes: Axes, curve: LearningCurve, highest: float) -> None:
    _finish(axes, curve, "loss")
    smooth = moving_mean(curve.loss, max(1, len(curve.loss) // _SHARE_OF_WINDOW))
    shown = np.unique(np.linspace(0, len(smooth) - 1, _MOST_POINTS).round().astype(int))
    axes.plot(curve.loss_steps[shown], curve.loss[shown], color=GREY, alpha=0.5, linewidth=0.8)
    axes.plot(curve.loss_steps[shown], smooth[shown], color=BLUE, linewidth=1.8)
    axes.set_ylim(0, 1.05 * highest if highest > 0 else 1)
    axes.set_title(shorten(curve.name, 36))


def _finish(axes: Axes, curve: LearningCurve, label: str) -> None:
    axes.set_axis_on()
    axes.set_xlim(0, 1.03 * max(float(curve.loss_steps.max()), 1))
    axes.set_ylabel(label)
    axes.set_xlabel("optimiser step")


def _draw_dice(axes: Axes, curve: LearningCurve) -> None:
    _finish(axes, curve, "validation Dice (%)")
    axes.set_ylim(0, 102)
    if not len(curve.dice):
        axes.text(0.5, 0.5, "no validation set", transform=axes.transAxes, ha="center", color=GREY)
        return
    axes.plot(curve.dice_steps, curve.dice, ".-", color=ORANGE, linewidth=1.4, markersize=4)
    best = int(np.argmax(curve.dice))
    axes.plot(curve.dice_steps[best], curve.dice[best], "o", mfc="none", mec="black", markersize=9)
    axes.annotate(
        f"{curve.dice[best]:.1f}", (curve.dice_steps[best], curve.dice[best]), (4, -14),
        textcoords="offset points", fontsize=9,
    )  # fmt: skip
