"""One colour for each method, the same in every figure of classifiers."""

from collections import Counter
from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from nakt_dist.records.lineage import Method
from nakt_dist.report.style import GREY, wrap

_LINES = ("-", "--", ":", "-.")
_SHARE_OF_WIDTH = 0.98
_SHORTEST_LINE = 20


def method_styles(methods: Sequence[Method]) -> dict[Method, tuple[str, str]]:
    """Returns colour and line style of each method; warm without a teacher, cool with one.

    Args:
        methods: in the order of the legend.
    """
    styles: dict[Method, tuple[str, str]] = {}
    of_colours: Counter[tuple[str, ...]] = Counter()
    for method in methods:
        colours = method.kind.colours
        line, place = divmod(of_colours[colours], len(colours))
        of_colours[colours] += 1
        styles[method] = (colours[place], _LINES[line]) if line < len(_LINES) else (GREY, ":")
    return styles


def draw_legend(
    canvas: Canvas,
    names: Mapping[Method, str],
    styles: Mapping[Method, tuple[str, str]],
    dots: bool = False,
) -> None:
    """Puts the methods' names above all panels, and makes the figure so much higher.

    They stand in as many columns as there is room for; a name that is wider than the figure is
    broken.

    Args:
        canvas: with all its panels, as wide as it will be.
        names: by method.
        styles: from ``method_styles``.
        dots: whether the methods are dots rather than lines.
    """
    renderer = FigureCanvasAgg(canvas).get_renderer()
    room = canvas.bbox.width * _SHARE_OF_WIDTH

    def place(columns: int, length: int) -> Legend:
        handles = [_handle(*styles[each], wrap(name, length), dots) for each, name in names.items()]
        return canvas.legend(
            handles=handles, loc="outside upper left", ncols=columns, frameon=False
        )

    longest = max(map(len, names.values()))
    tries = [(columns, longest) for columns in (3, 2, 1) if columns <= len(names)]
    tries += [(1, length) for length in range(longest - 1, _SHORTEST_LINE, -1)]
    for columns, length in tries:
        legend = place(columns, length)
        box = legend.get_window_extent(renderer)
        if box.width <= room or length == _SHORTEST_LINE + 1:
            break
        legend.remove()
    canvas.set_figheight(canvas.get_figheight() + box.height / canvas.dpi)


def _handle(colour: str, line: str, name: str, dots: bool) -> Line2D:
    if not dots:
        return Line2D([], [], color=colour, linestyle=line, label=name, linewidth=2)
    return Line2D([], [], linestyle="", label=name, markersize=6, **dot_style(colour, line))


def dot_style(colour: str, line: str) -> dict[str, str]:
    """Returns how a method's dot is drawn: hollow where its line would be broken."""
    return {"marker": "o", "color": colour, "mfc": colour if line == "-" else "white"}
