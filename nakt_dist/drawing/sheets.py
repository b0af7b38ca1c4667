"""Sheets of images with masks drawn on them; made only where a setting asks for images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nakt_dist.drawing.style import ORANGE, SKY, figure_style, to_png

_COLUMNS = 4
_CELL_INCHES = 2.4
_HEAD_INCHES = 0.8
_LEFT = 0.02
_OPACITY = 0.55
OUTLINE_COLOURS = (SKY, ORANGE)
"""Of the first and the second kind of outline on a sheet."""

_SOFT = LinearSegmentedColormap.from_list("soft mask", [ORANGE, ORANGE])


@dataclass(frozen=True)
class Outline:
    """The outline of a binary mask.

    Attributes:
        mask: bool (H, W).
        label: for the legend; equal labels share a colour, and a sheet has at most two.
    """

    mask: np.ndarray
    label: str


@dataclass(frozen=True)
class Panel:
    """One image of a sheet.

    Attributes:
        image: uint8 (H, W) or (H, W, 3).
        caption: below the image; holds no identifier.
        outlines: drawn over it.
        soft: float (H, W) in [0, 1], shown as a tint of this opacity; None for none.
    """

    image: np.ndarray
    caption: str
    outlines: tuple[Outline, ...] = ()
    soft: np.ndarray | None = None


@dataclass(frozen=True)
class Group:
    """Images under one heading.

    Attributes:
        panels: the images; may be empty.
    """

    title: str
    panels: tuple[Panel, ...]


def draw_sheet(title: str, groups: Sequence[Group], tint: str = "soft mask") -> bytes:
    """Draws groups of images below each other.

    Args:
        groups: at least one.
        tint: what the legend calls ``Panel.soft``.

    Returns:
        The sheet as PNG.
    """
    panels = [panel for group in groups for panel in group.panels]
    labels = dict.fromkeys(outline.label for panel in panels for outline in panel.outlines)
    colour_of = dict(zip(labels, OUTLINE_COLOURS, strict=False))
    rows = [math.ceil(len(group.panels) / _COLUMNS) for group in groups]
    aspect = panels[0].image.shape[0] / panels[0].image.shape[1] if panels else 1
    row_inches = _CELL_INCHES * min(max(aspect, 0.3), 2) + 0.55
    heights = [_HEAD_INCHES, *(0.45 + row_inches * number for number in rows)]
    with figure_style():
        canvas = Canvas(figsize=(_COLUMNS * _CELL_INCHES, sum(heights)))
        grid = canvas.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
        head, *parts = grid.flat
        head.text(_LEFT, 0.92, title, ha="left", va="top", fontsize=12, fontweight="bold")
        keys: list[Line2D | Patch] = [
            Line2D([], [], color=colour, label=label) for label, colour in colour_of.items()
        ]
        if any(panel.soft is not None for panel in panels):
            keys.append(Patch(color=ORANGE, alpha=_OPACITY, label=tint))
        if keys:
            head.legend(handles=keys, loc="lower left", bbox_to_anchor=(0.01, 0), ncols=len(keys))
        for part, group, number in zip(parts, groups, rows, strict=True):
            _draw_group(part, group, number, colour_of)
        return to_png(canvas)


def _draw_group(part: SubFigure, group: Group, rows: int, colour_of: dict[str, str]) -> None:
    part.suptitle(group.title, x=_LEFT, ha="left", fontsize=11)
    if not rows:
        return
    grid = part.subplots(rows, _COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
        axes.set(xticks=[], yticks=[])
    for axes, panel in zip(grid.flat, group.panels, strict=False):
        _draw_panel(axes, panel, colour_of)


def _draw_panel(axes: Axes, panel: Panel, colour_of: dict[str, str]) -> None:
    axes.imshow(panel.image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    if panel.soft is not None:
        opacity = _OPACITY * np.clip(panel.soft, 0, 1)
        axes.imshow(panel.soft, cmap=_SOFT, alpha=opacity, interpolation="nearest")
    for outline in panel.outlines:
        draw_outline(axes, outline.mask, colour_of[outline.label])
    height, width = panel.image.shape[:2]
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.text(
        0.5, -0.04, panel.caption, transform=axes.transAxes, ha="center", va="top", fontsize=9
    )


def draw_outline(axes: Axes, mask: np.ndarray, colour: str) -> None:
    """Draws the outline of a mask, bool (H, W), over an image of its size; none of an empty one."""
    if mask.any():
        # A frame of background closes outlines that touch the image's edge.
        framed = np.pad(mask, 1).astype(float)
        rows, columns = np.arange(framed.shape[0]) - 1, np.arange(framed.shape[1]) - 1
        axes.contour(columns, rows, framed, [0.5], colors=[colour], linewidths=1.6)
