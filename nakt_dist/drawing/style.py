"""How every figure looks: colours, type, and bytes that repeat."""

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

# Okabe and Ito's eight colours, told apart with every common colour blindness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#8A8F98"
LINES = (BLACK, BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY, YELLOW)
"""Of things that are told apart by colour alone, in this order."""

_DOTS_PER_INCH = 144


@contextmanager
def figure_style() -> Iterator[None]:
    """Applies the style within the body, and leaves the user's settings as they were."""
    with matplotlib.rc_context({
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.formatter.useoffset": False,  # ticks are values, and not what is added to +1e2
        "axes.grid": True,
        "grid.color": "#E3E6EA",
        "grid.linewidth": 0.8,
        "legend.framealpha": 0.9,
        "legend.edgecolor": "white",
        "legend.fontsize": 9,
        "figure.constrained_layout.use": True,
        "text.parse_math": False,  # a run may be called $x$
    }):  # fmt: skip
        yield


def to_png(canvas: Canvas) -> bytes:
    """Returns a figure as PNG; equal figures give equal bytes."""
    stream = io.BytesIO()
    canvas.set_dpi(_DOTS_PER_INCH)
    FigureCanvasAgg(canvas).print_png(stream, metadata={"Software": None})  # savefig draws twice
    return stream.getvalue()


def to_svg(canvas: Canvas, about: str) -> bytes:
    """Returns a figure as SVG, letters as outlines; equal figures give equal bytes.

    Args:
        about: what it was drawn from, kept as the file's description.
    """
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "nakt_dist", "svg.fonttype": "path"}):
        told = {"Date": None, "Creator": None, "Description": about}
        canvas.savefig(stream, format="svg", metadata=told)
    return stream.getvalue()


def make_panels(
    count: int, columns: int, inches: tuple[float, float], least: float, rows: int = 1
) -> tuple[Canvas, list[list[Axes]]]:
    """Makes a canvas of panels, a grid of as many as there are things to show.

    Args:
        count: things, at least one.
        columns: at most so many side by side.
        inches: width and height of a panel.
        least: width of the canvas, in inches, however few columns there are.
        rows: panels for each thing, below each other.

    Returns:
        The canvas, and the panels of each thing, whose axes are switched off.
    """
    columns = min(columns, count)
    blocks = -(-count // columns)
    canvas = Canvas(figsize=(max(least, inches[0] * columns), inches[1] * rows * blocks))
    grid = canvas.subplots(rows * blocks, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    places = (divmod(number, columns) for number in range(count))
    return canvas, [list(grid[rows * block :, column][:rows]) for block, column in places]


def wrap(text: str, length: int) -> str:
    """Breaks a text into lines of at most so many characters, between words where it can."""
    return textwrap.fill(text, length, break_on_hyphens=False)


def shorten(text: str, length: int = 44) -> str:
    """Cuts a text in the middle, so that both its ends stay readable."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[head + 1 - length :]}"
