"""Sheets of images with what two networks look at."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from nakt_dist.drawing.sheets import OUTLINE_COLOURS, Outline, draw_outline
from nakt_dist.drawing.style import BLUE, VERMILION, figure_style, shorten, to_png

_CELL_INCHES = 1.75
_CAPTION_INCHES = 0.24
_TITLE_INCHES = 0.36
_NOTE_INCHES = 0.19
_KEY_INCHES = 0.62
_COLUMN_TITLE_INCHES = 0.25
_COLUMN_TITLE_LENGTH = 20
_LEFT = 0.012
_ATTENTION = LinearSegmentedColormap.from_list(
    "attention", [(0, "#000004"), (0.35, "#7A1F6D"), (0.65, "#E65C2F"), (1, "#FCE78B")]
)
_ACTIVATION = LinearSegmentedColormap.from_list("activation", [BLUE, "#F5F5F5", VERMILION])
_OPACITY = 0.6
_STRONGEST_OPACITY = 0.8
_SMALLEST = 1e-12


@dataclass(frozen=True)
class AttentionRow:
    """One image of an attention sheet.

    Attributes:
        image: uint8 (H, W) or (H, W, 3).
        attention: per tap the student's map and the teacher's, float (h, w), 0 or more.
        similarity: of the two, averaged over the taps; not a number where it has none.
        activations: per finding the student's class activation, float (h, w).
        captions: per finding what stands below it.
        strong: per finding whether that is set in bold.
        outlines: drawn on the image, at most two; the same labels in every row.
    """

    image: np.ndarray
    attention: tuple[tuple[np.ndarray, np.ndarray], ...]
    similarity: float
    activations: tuple[np.ndarray, ...]
    captions: tuple[str, ...]
    strong: tuple[bool, ...]
    outlines: tuple[Outline, ...] = ()


def draw_attention_sheet(
    title: str, notes: Sequence[str], findings: Sequence[str], rows: Sequence[AttentionRow]
) -> bytes:
    """Draws a row per image: the image, both networks' attention, class activations.

    Attention is shown in shares of each map's largest value. Class activations of one image
    share a scale, symmetric around 0, so that findings can be compared.

    Args:
        title: heading of the sheet; holds no identifier.
        rows: at least one.

    Returns:
        The sheet as PNG.
    """
    taps = len(rows[0].attention)
    titles = _column_titles(taps, findings)
    aspect = max(row.image.shape[0] / row.image.shape[1] for row in rows)
    height = _CELL_INCHES * min(max(aspect, 0.3), 2) + _CAPTION_INCHES
    lines = 1 + max(title.count("\n") for title in titles)
    heights = [
        _TITLE_INCHES + _NOTE_INCHES * len(notes) + _KEY_INCHES,
        len(rows) * height + _COLUMN_TITLE_INCHES * lines,
    ]
    with figure_style():
        canvas = Canvas(figsize=(max(len(titles), 5) * _CELL_INCHES, sum(heights)))
        head, body = canvas.subfigures(2, 1, squeeze=False, height_ratios=heights).flat
        outlines = [outline.label for outline in rows[0].outlines]
        _draw_head(head, heights[0], title, notes)
        _draw_key(head, heights[0], bool(findings), outlines)
        grid = body.subplots(len(rows), len(titles), squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
            axes.set(xticks=[], yticks=[])  # unseen ones would be placed as well
        for cells, row in zip(grid, rows, strict=True):
            _draw_row(cells, row)
        for axes, text in zip(grid[0], titles, strict=True):
            axes.set_title(text, fontsize=9, loc="center", fontweight="bold")
        return to_png(canvas)


def _column_titles(taps: int, findings: Sequence[str]) -> list[str]:
    titles = ["image"]
    for number in [f" {tap + 1}" if taps > 1 else "" for tap in range(taps)]:
        titles += [f"student's attention{number}", f"teacher's attention{number}"]
    for finding in findings:
        lines = textwrap.wrap(shorten(finding, 2 * _COLUMN_TITLE_LENGTH), _COLUMN_TITLE_LENGTH)
        titles.append("\n".join(lines))
    return titles


def _draw_head(head: SubFigure, height: float, title: str, notes: Sequence[str]) -> None:
    head.text(_LEFT, 1 - 0.08 / height, title, fontsize=12, fontweight="bold", va="top")
    below = 1 - _TITLE_INCHES / height
    head.text(_LEFT, below, "\n".join(notes), fontsize=8.5, linespacing=1.35, va="top")


def _draw_key(head: SubFigure, height: float, activations: bool, outlines: Sequence[str]) -> None:
    bars = [(_ATTENTION, "attention", ["none", "most"], [0, 1])]
    if activations:
        bars.append((_ACTIVATION, "class activation", ["against", "0", "for"], [-1, 0, 1]))
    inches = head.bbox.width / head.figure.dpi
    for number, (colours, label, words, ticks) in enumerate(bars):
        left = _LEFT + (0.2 + 2.6 * number) / inches
        axes = head.add_axes((left, 0.26 / height, 2.0 / inches, 0.1 / height))
        scale = ScalarMappable(Normalize(ticks[0], ticks[-1]), colours)
        bar = head.colorbar(scale, cax=axes, orientation="horizontal")
        bar.set_ticks(ticks, labels=words, fontsize=8)
        bar.outline.set_visible(False)
        axes.tick_params(length=0, pad=2)
        axes.set_title(label, fontsize=8.5, loc="center", pad=3)
    keys = [
        Line2D([], [], color=colour, label=label)
        for label, colour in zip(outlines, OUTLINE_COLOURS, strict=False)
    ]
    if keys:
        place = (_LEFT + (0.2 + 2.6 * len(bars)) / inches, 0.1 / height)
        head.legend(handles=keys, loc="lower left", bbox_to_anchor=place, ncols=len(keys))


def _draw_row(cells: Sequence[Axes], row: AttentionRow) -> None:
    for axes in cells:
        axes.imshow(row.image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    for outline, colour in zip(row.outlines, OUTLINE_COLOURS, strict=False):
        draw_outline(cells[0], outline.mask, colour)
    pairs = [each for pair in row.attention for each in pair]
    for axes, values in zip(cells[1:], pairs, strict=False):
        highest = max(float(values.max()), _SMALLEST)
        _overlay(axes, values, (0, highest), row.image, _ATTENTION, _OPACITY)
    if not np.isnan(row.similarity):
        _write_below(cells[len(pairs)], f"similarity {row.similarity:.2f}")
    limit = max((float(np.abs(each).max()) for each in row.activations), default=0)
    limit = max(limit, _SMALLEST)
    places = cells[1 + len(pairs) :]
    shown = zip(places, row.activations, row.captions, row.strong, strict=True)
    for axes, values, caption, strong in shown:
        # What says nothing leaves the image as it is.
        opacity = np.sqrt(np.abs(values) / limit) * _STRONGEST_OPACITY
        _overlay(axes, values, (-limit, limit), row.image, _ACTIVATION, opacity)
        _write_below(axes, caption, "bold" if strong else "normal")


def _overlay(
    axes: Axes,
    values: np.ndarray,
    limits: tuple[float, float],
    image: np.ndarray,
    colours: LinearSegmentedColormap,
    opacity: float | np.ndarray,
) -> None:
    """Lays a coarse map over the whole image; the image shines through."""
    height, width = image.shape[:2]
    axes.imshow(
        values,
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        alpha=opacity,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="bilinear",
    )


def _write_below(axes: Axes, text: str, weight: str = "normal") -> None:
    axes.text(
        0.5, -0.03, text, transform=axes.transAxes, ha="center", va="top", fontsize=8.5,
        fontweight=weight,
    )  # fmt: skip
