"""What records of ``nakt attention`` show: how alike attention is by finding, and the sheets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure as Canvas

from nakt_dist.errors import DatasetError
from nakt_dist.records.fields import label_dataset, printable, read_field
from nakt_dist.records.lineage import NOT_KNOWN, Lineages
from nakt_dist.report.attention_figures import draw_similarity
from nakt_dist.report.document import Figure
from nakt_dist.report.runs import FoundRecord, LeftOut
from nakt_dist.report.style import (
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
from nakt_dist.runtime.files import read_regular_file

SHEET_NAME = "attention.png"
_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_SHEET = 30 * 2**20
_MOST_SHEETS = 6
_COLOURS = {True: (BLUE, SKY, PURPLE), False: (VERMILION, ORANGE, GREEN)}
"""Of students that followed the teacher, and of others, as in the figures of AUROC."""

_NUMBER_OR_NONE = (int, float, type(None))


@dataclass(frozen=True)
class Attention:
    """One comparison of a student's attention with a teacher's.

    Attributes:
        found: the record.
        student: what it is called.
        teacher: what the teacher is called.
        teacher_sha256: of its weights.
        taught: whether the student followed this teacher while it learnt; None if unknown.
        tested_on: the images, as figures name them.
        phantom: whether the images are procedural.
        labels: per finding ``name``, ``images``, ``similarity_mean``, ``similarity_std`` and
            ``similarity_to_other_image_mean``.
    """

    found: FoundRecord
    student: str
    teacher: str
    teacher_sha256: str
    taught: bool | None
    tested_on: str
    phantom: bool
    labels: tuple[Mapping[str, Any], ...]


def read_attention(
    records: Sequence[FoundRecord],
    left_out: list[LeftOut],
    known: Lineages = NOT_KNOWN,
) -> list[Attention]:
    """Reads the records.

    Args:
        records: of ``nakt attention``.
        left_out: what cannot be read is added here.
        known: lineages of networks by their weights; marks teachers of phantoms.
    """
    comparisons = []
    for found in records:
        try:
            comparisons.append(_read(found, known))
        except DatasetError as error:
            left_out.append(LeftOut(found.place, str(error)))
    return comparisons


def _read(found: FoundRecord, known: Lineages) -> Attention:
    details = found.record.details
    dataset = printable(read_field(details, "test_set.dataset", str))
    phantom = read_field(details, "test_set.phantom", bool)
    weights = read_field(details, "teacher.weights_sha256", str)
    learnt = known[weights].trained_on if weights in known else None
    teacher = printable(read_field(details, "teacher.name", str))
    return Attention(
        found=found,
        student=printable(read_field(details, "network", str)),
        teacher=label_dataset(teacher, learnt is not None and learnt.phantom),
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

    Args:
        comparisons: as read.
        left_out: sheets that are not shown are added here.
        show_images: show sheets of images that are no phantoms.
    """
    groups: dict[tuple[str, str], list[Attention]] = {}
    for each in comparisons:
        groups.setdefault((each.teacher_sha256, each.tested_on), []).append(each)
    for number, group in enumerate(groups.values(), start=1):
        name = f"attention-similarity-{number}.png"
        if len(group) == 1:
            figure = draw_similarity(group[0].labels, group[0].student)
            if figure is not None:
                yield Figure(name, figure.png, figure.title, figure.caption)
        else:
            yield _draw_students(group, name)
    for number, each in enumerate(comparisons, start=1):
        if not (each.phantom or show_images):  # a page is passed on, patients' images are not
            left_out.append(LeftOut(each.found.place, _NOT_SHOWN))
        elif number > _MOST_SHEETS:
            reason = f"its attention sheet is not shown, {_MOST_SHEETS} others are"
            left_out.append(LeftOut(each.found.place, reason))
        elif (png := _read_sheet(each, left_out)) is not None:
            yield Figure(f"attention-sheet-{number}.png", png, _sheet_title(each), _SHEET_CAPTION)


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


def _read_sheet(each: Attention, left_out: list[LeftOut]) -> bytes | None:
    path = each.found.folder / SHEET_NAME
    try:
        png = read_regular_file(path, _LARGEST_SHEET)
        if not png.startswith(_PNG):
            raise ValueError("it is not a PNG")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        left_out.append(LeftOut(each.found.place, f"no attention sheet: {SHEET_NAME}: {reason}"))
        return None
    return png


def _draw_students(group: Sequence[Attention], name: str) -> Figure:
    """Draws the similarity of several students' attention with one teacher's."""
    findings = list(
        dict.fromkeys(label["name"] for each in group for label in each.labels if label["images"])
    )
    with figure_style():
        height = 1.0 + 0.3 * len(group) + (0.16 + 0.1 * len(group)) * max(len(findings), 1)
        canvas = Canvas(figsize=(7.6, height))
        axes = canvas.subplots()
        spread = 0.6 / len(group)
        for number, each in enumerate(group):
            shift = (number - (len(group) - 1) / 2) * spread
            colours = _COLOURS[bool(each.taught)]
            before = sum(bool(other.taught) == bool(each.taught) for other in group[:number])
            colour = colours[before % len(colours)]
            shown = [label for label in each.labels if label["images"]]
            places = [findings.index(label["name"]) + shift for label in shown]
            for place, label in zip(places, shown, strict=True):
                mean, deviation = label["similarity_mean"], label["similarity_std"]
                ends = [max(mean - deviation, -1), min(mean + deviation, 1)]
                axes.plot(ends, [place, place], color=colour, linewidth=1.6, alpha=0.5)
            means = [label["similarity_mean"] for label in shown]
            taught = " (followed it)" if each.taught else ""
            axes.plot(
                means, places, "o", color=colour, label=f"{shorten(each.student, 50)}{taught}"
            )
            others = [
                (label["similarity_to_other_image_mean"], place)
                for place, label in zip(places, shown, strict=True)
                if label["similarity_to_other_image_mean"] is not None
            ]
            axes.plot(*zip(*others, strict=True), "d", color=GREY, markersize=4) if others else None
        axes.plot([], [], "d", color=GREY, markersize=4, label="to the map of another image")
        axes.set_yticks(
            range(len(findings)),
            [f"{shorten(each, 30)} ({_count_images(each, group)})" for each in findings],
        )
        axes.set_ylim(len(findings) - 0.4, -0.6)
        axes.set_xlim(min(axes.get_xlim()[0], 0), 1.02)
        axes.set_xlabel("correlation of the attention maps")
        canvas.legend(loc="outside upper left", frameon=False)
        png = to_png(canvas)
    first = group[0]
    return Figure(
        name,
        png,
        f"Whose attention is like that of {first.teacher}, by finding, on {first.tested_on}",
        "Correlation of the student's attention map with the teacher's of the same image, "
        "over the images positive for each finding (their number in brackets): mean ± standard "
        "deviation. Diamonds: with "
        "the teacher's map of another image, what the maps share whatever the image.",
    )


def _count_images(finding: str, group: Sequence[Attention]) -> str:
    """Returns a finding's number of images, or from fewest to most where students differ."""
    counts = {
        label["images"] for each in group for label in each.labels if label["name"] == finding
    }
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
