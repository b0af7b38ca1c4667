"""What a model card says of evaluations: metrics with intervals, findings, groups of patients."""

from collections.abc import Iterator, Mapping, Sequence

from nakt_dist.records.operating_points import FindingPoints, OperatingPoints, PointScore
from nakt_dist.report.cautions import not_known
from nakt_dist.report.class_tables import class_tables
from nakt_dist.report.classification_tables import show_percent
from nakt_dist.report.document import (
    WARNING,
    Block,
    Column,
    Notice,
    Paragraph,
    Table,
    tabulate,
)
from nakt_dist.report.evaluations import (
    ClassifierRun,
    Evaluation,
    SegmentationRun,
    show_interval,
)
from nakt_dist.report.mask_tables import masks_table
from nakt_dist.report.tables import NOTHING

_NONE_FOUND = "No evaluation of it was found: nothing is known of how well it works."
_FEWEST = 5
_INTERVALS = (
    "Intervals are 95 % bootstrap intervals and express the choice of test images alone, not of "
    "the training images, the seed or the teacher."
)


def result_blocks(runs: Sequence[Evaluation], capabilities: Mapping[str, float]) -> Iterator[Block]:
    """Yields the results of evaluations, and why to distrust them.

    Args:
        runs: of one network, all of one task.
        capabilities: knowledge-transfer capability by the evaluation's folder, in percent.
    """
    masks = [run for run in runs if isinstance(run, SegmentationRun)]
    findings = [run for run in runs if isinstance(run, ClassifierRun)]
    for run in runs:
        for words in run.warnings:
            yield Notice(f"{WARNING} On {run.tested_on.label}: it {words}.")
    yield from map(Paragraph, not_known(runs))
    if masks:
        yield _dice_table(masks, capabilities)
        yield from class_tables(masks)
        if (others := masks_table(masks)) is not None:
            yield others
        yield Paragraph("Groups of patients: not measured; evaluations of masks do not tell them.")
    for each in findings:
        yield _findings_table(each)
        if each.result.operating_points is not None:
            yield _points_table(each, each.result.operating_points)
        yield _groups_table(each)
    yield Paragraph(_INTERVALS if runs else _NONE_FOUND)


def _dice_table(runs: Sequence[SegmentationRun], capabilities: Mapping[str, float]) -> Table:
    return tabulate(
        "Dice",
        (
            Column("Test set", lambda run: run.tested_on.label),
            Column("Images", lambda run: str(run.images)),
            Column("Left out", lambda run: str(run.images_left_out)),
            Column("Dice %", lambda run: f"{run.dice}{run.warned}"),
            Column("95 % interval", lambda run: show_interval(run.interval)),
            Column(
                "Of its teacher's, %",
                lambda run: show_percent(capabilities.get(str(run.folder))),
                shown=bool(capabilities),
            ),
        ),
        runs,
        ("Mean ± standard deviation over the images; images without a defined Dice are left out.",),
    )


def _findings_table(run: ClassifierRun) -> Table:
    result = run.result
    interval = NOTHING if result.interval is None else show_interval(result.interval)
    means = (
        f"Mean over {result.counted} findings: AUROC {run.mean:.2f} %, 95 % interval {interval}, "
        f"average precision {show_percent(result.means['average_precision'])} %, calibration error "
        f"{show_percent(result.calibration_points)} points; {result.images:,} images of "
        f"{result.patients:,} patients."
    )
    return tabulate(
        f"Findings on {run.tested_on.label}",
        (
            Column("Finding", lambda each: each.name),
            Column("Positive images", lambda each: _people(each.positives)),
            Column("Negative", lambda each: _people(each.negatives)),
            Column("AUROC %", lambda each: f"{show_percent(each.auroc)}{run.warned}"),
            Column(
                "95 % interval",
                lambda each: NOTHING if each.interval is None else show_interval(each.interval),
            ),
            Column("Average precision %", lambda each: show_percent(each.average_precision)),
            Column("Calibration error", lambda each: show_percent(each.calibration_points)),
        ),
        result.findings,
        (means, "Calibration error: expected, in percentage points; AUROC – lacks a class."),
    )


def _points_table(run: ClassifierRun, points: OperatingPoints) -> Table:
    """Shows what thresholds chosen on validation images give, and each finding's temperature."""

    def rate(name: str) -> Column:
        def show(row: tuple[FindingPoints, PointScore]) -> str:
            interval = row[1].intervals[name]
            limits = f" ({show_interval(interval)})" if interval else ""
            return f"{show_percent(row[1].rates[name])}{limits}"

        return Column(f"{name.capitalize()} %", show)

    return tabulate(
        f"Thresholds, tested on {run.tested_on.label}",
        (
            Column("Finding", lambda row: row[0].name),
            Column("Rule", lambda row: row[1].rule),
            Column("Threshold", lambda row: f"{row[1].threshold:.4f}"),
            rate("sensitivity"),
            rate("specificity"),
            Column("Temperature", lambda row: f"{row[0].temperature:.3g}"),
        ),
        [(finding, point) for finding in points.findings for point in finding.points],
        (
            "Chosen on validation images: an image is called positive from this probability on, "
            "before its logit is divided by the temperature, which calibrates.",
        ),
    )


def _groups_table(run: ClassifierRun) -> Block:
    result = run.result
    if not result.groups:
        return Paragraph(f"Groups of patients on {run.tested_on.label}: not told by the dataset.")
    gaps = [
        f"{name}: largest less smallest {gap:.1f} percentage points."
        for name, gap in result.gaps.items()
        if gap is not None
    ]
    return tabulate(
        f"Groups of patients on {run.tested_on.label}",
        (
            Column("Group", lambda each: f"{each.attribute}: {each.group}"),
            Column("Images", lambda each: _people(each.images)),
            Column("Patients", lambda each: _people(each.patients)),
            Column("Mean AUROC %", lambda each: show_percent(each.auroc_mean)),
            Column("Findings", lambda each: str(each.labels_counted)),
        ),
        result.groups,
        ("Small groups are counted, not compared.", *gaps),
    )


def _people(count: int) -> str:
    """Returns a number of images or patients; of very few not how many, who could be known."""
    return str(count) if count == 0 or count >= _FEWEST else f"< {_FEWEST}"
