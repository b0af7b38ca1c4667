"""One colour for each method, the same in every figure of classifiers."""

from collections.abc import Sequence

from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from nakt_dist.report.classifier_lineage import Kind, Method
from nakt_dist.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION

_COLOURS = {
    Kind.TRANSFER_LEARNING: (VERMILION, ORANGE),
    Kind.ATTENTION: (BLUE, SKY),
    Kind.DISTILLATION: (GREEN,),
    Kind.BOTH: (PURPLE,),
}
_LINES = ("-", "--", ":", "-.")


def method_styles(methods: Sequence[Method]) -> dict[Method, tuple[str, str]]:
    """Returns colour and line style of each method; warm without a teacher, cool with one.

    Args:
        methods: in the order of the legend.
    """
    styles: dict[Method, tuple[str, str]] = {}
    for kind, colours in _COLOURS.items():
        for number, method in enumerate(each for each in methods if each.kind == kind):
            line, place = divmod(number, len(colours))
            styles[method] = (colours[place], _LINES[line]) if line < len(_LINES) else (GREY, ":")
    return styles


def draw_legend(
    canvas: Canvas, names: dict[Method, str], styles: dict[Method, tuple[str, str]], columns: int
) -> None:
    """Puts the methods' names above all panels."""
    handles = [
        Line2D(
            [], [], color=styles[method][0], linestyle=styles[method][1], label=name, linewidth=2
        )
        for method, name in names.items()
    ]
    canvas.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False)
