"""What records of ``nakt attention`` show: how alike attention is by finding, and the sheets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from nakt_dist.drawing.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    figure_style,
    shorten,
    to_png,
)
from nakt_dist.errors import DatasetError
from nakt_dist.records.fields import label_dataset, printable, read_field
from nakt_dist.records.lineage import Lineages
from nakt_dist.report.document import Figure
from nakt_dist.report.evaluations import Found, FoundRecord
from nakt_dist.report.runs import LeftOut, read_each
from nakt_dist.report.wording import grouped, show_range
from nakt_dist.runtime.files import read_regular_file

SHEET_NAME = "attention.png"
_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_SHEET = 30 * 2**20
_MOST_SHEETS = 6
_COLOURS = {True: (BLUE, SKY, PURPLE), False: (VERMILION, ORANGE, GREEN)}
"""Of students that followed the teacher, and of others, as in the figures of AUROC."""

_NUMBER_OR_NONE = (int, float, type(None))


@dataclass(frozen=True)
class Attention(Found):
    """One comparison of a student's attention with a teacher's.

    Attributes:
        taught: whether the student followed this teacher while it learnt; None if unknown.
        tested_on: the images, as figures name them.
        labels: per finding ``name``, ``images``, ``similarity_mean``, ``similarity_std`` and
            ``similarity_to_other_image_mean``.
    """

    student: str
    teacher: str
    teacher_sha256: str
    taught: bool | None
    tested_on: str
    phantom: bool
    labels: tuple[Mapping[str, Any], ...]


def read_attention(found: FoundRecord, known: Lineages) -> Attention:
    """Reads a record; what is known of teachers by their weights marks those of phantoms."""
    details = found.record.details
    dataset = printable(read_field(details, "test_set.dataset", str))
    phantom = read_field(details, "test_set.phantom", bool)
    weights = read_field(details, "teacher.weights_sha256", str)
    teacher = printable(read_field(details, "teacher.name", str))
    return Attention(
        place=found.place,
        folder=found.folder,
        student=printable(read_field(details, "network", str)),
        teacher=label_dataset(teacher, weights in known and known[weights].learnt.phantom),
        teacher_sha256=weights,
        taught=read_field(details, "teacher.taught_this_student", (bool, type(None))),
        tested_on=label_dataset(dataset, phantom),
        phantom=phantom,
        labels=tuple(_read_label(each) for each in read_field(details, "labels", list)),
    )


def _read_label(value: Any) -> Mapping[str, Any]:
    names = ("similarity_mean", "similarity_std", "similarity_to_other_image_mean")
    label = {name: read_field(value, name, _NUMBER_OR_NONE) for name in names}
    images = read_field(value, "images", int)
    if images and (label["similarity_mean"] is None or label["similarity_std"] is None):
        raise DatasetError("a finding has images, but no similarity")
    return {**label, "name": printable(read_field(value, "name", str)), "images": images}


def attention_figures(
    comparisons: Sequence[Attention], left_out: list[LeftOut], show_images: bool = False
) -> Iterator[Figure]:
    """Draws the similarity by finding, students of one teacher side by side, and the sheets.

    Sheets that are not shown, such as those of images that are no phantoms, are left out.
    """
    groups = grouped(comparisons, lambda each: (each.teacher_sha256, each.tested_on))
    for number, group in enumerate(groups.values(), start=1):
        name = f"attention-similarity-{number}.png"
        if len(group) == 1:
            figure = draw_similarity(group[0].labels, group[0].student)
            if figure is not None:
                yield replace(figure, name=name)
        else:
            yield _draw_students(group, name)
    numbers = count(1)

    def sheet(each: Attention) -> Figure:
        number = next(numbers)
        if not (each.phantom or show_images):  # a page is passed on, patients' images are not
            raise DatasetError(_NOT_SHOWN)
        if number > _MOST_SHEETS:
            raise DatasetError(f"its attention sheet is not shown, {_MOST_SHEETS} others are")
        name = f"attention-sheet-{number}.png"
        return Figure(name, _read_sheet(each), _sheet_title(each), _SHEET_CAPTION)

    yield from read_each(comparisons, sheet, left_out)


_NOT_SHOWN = (
    f"its attention sheet shows images of the dataset and stays where it is ({SHEET_NAME}); "
    "images: true shows it here"
)

_SHEET_CAPTION = (
    "Attention: mean over channels of the squared activation at the layer where both are "
    "compared, in shares of each map's largest value. Shows images of the dataset: pass this "
    "page on only to those who may see them."
)


def _sheet_title(each: Attention) -> str:
    followed = {True: ", its teacher", False: ", which it did not follow", None: ""}[each.taught]
    return f"Attention of {each.student} and of {each.teacher}{followed}, on {each.tested_on}"


def _read_sheet(each: Attention) -> bytes:
    try:
        png = read_regular_file(each.folder / SHEET_NAME, _LARGEST_SHEET)
        if not png.startswith(_PNG):
            raise ValueError("it is not a PNG")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DatasetError(f"no attention sheet: {SHEET_NAME}: {reason}") from None
    return png


def _draw_students(group: Sequence[Attention], name: str) -> Figure:
    """Draws the similarity of several students' attention with one teacher's."""
    colours = {taught: cycle(colours) for taught, colours in _COLOURS.items()}
    students = [
        Likeness(
            f"{shorten(each.student, 50)}{' (followed it)' if each.taught else ''}",
            next(colours[bool(each.taught)]),
            each.labels,
        )
        for each in group
    ]
    first = group[0]
    return Figure(
        name,
        draw_likeness(students, "to the map of another image"),
        f"Whose attention is like that of {first.teacher}, by finding, on {first.tested_on}",
        "Correlation of the student's attention map with the teacher's of the same image, "
        "over the images positive for each finding (their number in brackets): mean ± standard "
        "deviation. Diamonds: with "
        "the teacher's map of another image, what the maps share whatever the image.",
    )


def draw_similarity(labels: Sequence[Mapping[str, Any]], network: str) -> Figure | None:
    """Draws the similarity per finding that the ``labels`` of an attention record hold.

    Shows no image, and so may stand in any report; None where no finding has an image.
    """
    if not any(label["images"] for label in labels):
        return None
    student = Likeness("same image: mean ± standard deviation", BLUE, tuple(labels))
    return Figure(
        "attention-similarity.png",
        draw_likeness([student], "an image of another patient"),
        f"How alike {network} and the teacher look at images, by finding",
        "Correlation of the student's and the teacher's attention map over places, for the images "
        "positive for each finding (their number in brackets). Diamonds: the student's map against "
        "the teacher's of an image of another patient, which is what the maps share whatever the "
        "image.",
    )


@dataclass(frozen=True)
class Likeness:
    """How alike a student's attention is to its teacher's: labels as a record holds them."""

    name: str
    colour: str
    labels: tuple[Mapping[str, Any], ...]


def draw_likeness(students: Sequence[Likeness], other: str) -> bytes:
    """Draws students' similarity with a teacher as PNG, a row for each finding with an image.

    Args:
        students: at least one.
        other: what the legend calls the similarity to another image.
    """
    labels = grouped((label for each in students for label in each.labels), lambda it: it["name"])
    numbers = {name: [each["images"] for each in same] for name, same in labels.items()}
    counts = {name: images for name, images in numbers.items() if any(images)}
    row_inches = 0.16 + 0.1 * len(students)
    with figure_style():
        height = 1.0 + 0.3 * len(students) + row_inches * max(len(counts), 1)
        canvas = Canvas(figsize=(7.6, height))
        axes = canvas.subplots()
        for number, each in enumerate(students):
            shift = (number - (len(students) - 1) / 2) * 0.6 / len(students)
            _draw_student(axes, each, {name: row + shift for row, name in enumerate(counts)})
        axes.plot([], [], "d", color=GREY, markersize=4, label=other)
        rows = [f"{shorten(name, 30)} ({show_range(images)})" for name, images in counts.items()]
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(min(axes.get_xlim()[0], 0), 1.02)
        axes.set_xlabel("correlation of the attention maps")
        canvas.legend(loc="outside upper left", frameon=False)
        return to_png(canvas)


def _draw_student(axes: Axes, student: Likeness, places: Mapping[str, float]) -> None:
    """Draws dots with their standard deviation, and diamonds for another image."""
    shown = [label for label in student.labels if label["images"]]
    rows = [places[label["name"]] for label in shown]
    for label, row in zip(shown, rows, strict=True):
        mean, spread = label["similarity_mean"], label["similarity_std"]
        ends = [max(mean - spread, -1), min(mean + spread, 1)]
        axes.plot(ends, [row, row], color=student.colour, linewidth=1.6, alpha=0.5)
    means = [label["similarity_mean"] for label in shown]
    axes.plot(means, rows, "o", color=student.colour, label=student.name)
    others = [label.get("similarity_to_other_image_mean") for label in shown]
    known = [(other, row) for other, row in zip(others, rows, strict=True) if other is not None]
    if known:
        axes.plot(*zip(*known, strict=True), "d", color=GREY, markersize=4)
