"""Names, colours and lines of the ways students are trained, shared by tables and figures."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from nakt_dist.drawing.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    wrap,
)
from nakt_dist.records.fields import printable
from nakt_dist.records.lineage import Method, Network
from nakt_dist.report.roles import FOLLOWING, Role
from nakt_dist.report.wording import tell_apart
from nakt_dist.signals import SIGNALS

ROLE_COLOURS = {
    Role.TEACHER: BLACK,
    Role.STUDENT: BLUE,
    **{role: kind.colours[-1] for kind, role in FOLLOWING.items()},
    Role.MIXED_STUDENT: YELLOW,
    Role.FROM_SCRATCH: GREY,
    Role.FINE_TUNED_STUDENT: GREEN,
    Role.FINE_TUNED_TEACHER: ORANGE,
    Role.FINE_TUNED: PURPLE,
    Role.FOREIGN: VERMILION,
    Role.OTHER: SKY,
}
LineStyle = Literal["-", "--", ":", "-."]
Styles = Mapping[Method, tuple[str, LineStyle]]
"""Colour and line of each method."""

_LINES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")
_SHARE_OF_WIDTH = 0.98
_SHORTEST_LINE = 20


def name_methods(methods: Sequence[Method]) -> dict[Method, str]:
    """Names methods in a few words; parts and settings only where they tell some apart.

    Returns:
        A name for each, no two alike.
    """
    several_parts = len({method.parts for method in methods}) > 1
    teachers = {method.teacher for method in methods if method.teacher is not None}
    settings = tell_apart(
        methods,
        lambda method: (method.kind, method.parts, method.teacher),
        lambda method: describe_settings(json.loads(method.settings)),
    )
    named: dict[Method, str] = {}
    for method in methods:
        told = settings[method]
        parts = [
            method.kind.value,
            *_name_teacher(method.teacher, teachers),
            *_name_parts(method, several_parts),
            *([told] if told else []),
        ]
        name = ", ".join(parts)
        again = sum(other == name or other.startswith(f"{name} (") for other in named.values())
        named[method] = f"{name} ({again + 1})" if again and name in named.values() else name
    return named


def describe_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns words for each setting of a transfer, such as ``{"attention.beta": 1.0}``."""
    words: dict[str, str] = {}
    for signal, kind in SIGNALS.items():
        start = f"{signal}."
        own = {key.removeprefix(start): v for key, v in settings.items() if key.startswith(start)}
        words |= {f"{start}{name}": word for name, word in kind.describe_settings(own).items()}
    return {key: printable(word) for key, word in words.items()}


def _name_teacher(teacher: Network | None, teachers: Iterable[Network]) -> list[str]:
    if teacher is None:
        return []
    alike = [each for each in teachers if each.label == teacher.label]
    digits = f" {f'{teacher.weights_sha256}'[:6]}" if len(alike) > 1 else ""
    return [f"teacher {teacher.label}{digits}"]


def _name_parts(method: Method, several: bool) -> list[str]:
    if method.parts != "all layers":
        return [method.parts]
    return [method.parts] if several and method.teacher is None else []


def method_styles(methods: Sequence[Method]) -> Styles:
    """Returns each method's colour and line; warm colours without a teacher, cool with one."""
    styles: dict[Method, tuple[str, LineStyle]] = {}
    of_colours: Counter[tuple[str, ...]] = Counter()
    for method in methods:
        colours = method.kind.colours
        line, place = divmod(of_colours[colours], len(colours))
        of_colours[colours] += 1
        styles[method] = (colours[place], _LINES[line]) if line < len(_LINES) else (GREY, ":")
    return styles


def draw_legend(
    canvas: Canvas, names: Mapping[Method, str], styles: Styles, dots: bool = False
) -> None:
    """Puts the methods' names above all panels, and makes the figure so much higher.

    They stand in as many columns as there is room for; a name that is wider than the figure is
    broken. The canvas has all its panels, and is as wide as it will be.
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


def _handle(colour: str, line: LineStyle, name: str, dots: bool) -> Line2D:
    if not dots:
        return Line2D([], [], color=colour, linestyle=line, label=name, linewidth=2)
    face = dot_face(colour, line)
    return Line2D(
        [], [], linestyle="", marker="o", color=colour, markerfacecolor=face, label=name,
        markersize=6,
    )  # fmt: skip


def dot_face(colour: str, line: LineStyle) -> str:
    """Returns what fills a method's dot: nothing where its line would be broken."""
    return colour if line == "-" else "white"
