"""What a model card says of evaluations: metrics with intervals, findings, groups of patients."""

from collections.abc import Iterator, Mapping, Sequence

from nakt_dist.evaluation.classification_summary import LARGEST_SHARE_WITHOUT_A_LABEL
from nakt_dist.exporting.few import (
    FEWEST,
    findings_not_told,
    groups_not_told,
    show_hidden,
    show_people,
)
from nakt_dist.records.fields import printable, read_if_there
from nakt_dist.records.finding_results import ClassificationResult, FindingScore, GroupScore
from nakt_dist.records.operating_points import FindingPoints, OperatingPoints, PointScore
from nakt_dist.report.cautions import not_known
from nakt_dist.report.class_tables import class_tables
from nakt_dist.report.classification_tables import show_percent
from nakt_dist.report.document import WARNING, Block, Column, Notice, Paragraph, Table, tabulate
from nakt_dist.report.evaluations import ClassifierRun, Evaluation, SegmentationRun, show_interval
from nakt_dist.report.mask_tables import masks_table
from nakt_dist.report.operating_tables import name_validation
from nakt_dist.report.wording import describe_policy, show_count

_NONE_FOUND = "No evaluation of it was found: nothing is known of how well it works."
_INTERVALS = (
    "Intervals are 95 % bootstrap intervals and express the choice of test images alone, not of "
    "the training images, the seed or the teacher."
)


def result_blocks(runs: Sequence[Evaluation], capabilities: Mapping[str, float]) -> Iterator[Block]:
    """Yields the results of evaluations, and why to distrust them.

    Args:
        runs: of one network, all of one task, as ``few.told_of`` returns them.
        capabilities: knowledge-transfer capability by the evaluation's folder, in percent.
    """
    masks = [run for run in runs if isinstance(run, SegmentationRun)]
    findings = [run for run in runs if isinstance(run, ClassifierRun)]
    for run in runs:
        for words in run.warnings:
            yield Notice(f"{WARNING} On {run.tested_on.label}: it {words}.")
    for each in findings:
        for words in each.result.cautions:
            yield Notice(f"{WARNING} On {each.tested_on.label}: {words}.")
    yield from map(Paragraph, not_known(runs))
    if masks:
        yield _dice_table(masks, capabilities)
        yield from class_tables(masks)
        if (others := masks_table(masks)) is not None:
            yield others
        yield Paragraph("Groups of patients: not measured; evaluations of masks do not tell them.")
    for each in findings:
        yield _findings_table(each)
        points = each.result.operating_points
        if points is not None and points.findings:
            yield _points_table(each, points)
        yield _groups_table(each)
    yield Paragraph(_INTERVALS if runs else _NONE_FOUND)


def _dice_table(runs: Sequence[SegmentationRun], capabilities: Mapping[str, float]) -> Table:
    return tabulate(
        "Dice",
        (
            Column("Test set", lambda run: run.tested_on.label),
            Column("Images", lambda run: show_people(run.images)),
            Column("Left out", lambda run: str(run.images_left_out)),
            Column("Scored", _scored),
            Column("Dice %", lambda run: f"{run.dice}{run.warned}"),
            Column("95 % interval", lambda run: show_interval(run.interval)),
            Column(
                "Of its teacher's, %",
                lambda run: show_percent(capabilities.get(str(run.folder))),
                shown=bool(capabilities),
            ),
        ),
        runs,
        (
            "Mean ± standard deviation over the images; images without a defined Dice, or another "
            f"metric, are left out. Where they are fewer than {FEWEST} their number is not told, "
            "and counted among the images.",
        ),
    )


def _scored(run: SegmentationRun) -> str:
    """Says how masks were made of probabilities, and what counts where there is nothing."""
    test = run.tested_on
    cut = "most probable class" if run.classes else f"target above {test.threshold:g}"
    return f"{cut}; both masks empty: {'1' if test.both_empty == 'one' else 'left out'}"


def _findings_table(run: ClassifierRun) -> Table:
    result = run.result
    hidden = findings_not_told(result)

    def count(each: FindingScore, number: int) -> str:
        return show_hidden(number) if each.name in hidden else str(number)

    return tabulate(
        f"Findings on {run.tested_on.label}",
        (
            Column("Finding", lambda each: each.name),
            Column("Positive images", lambda each: count(each, each.positives)),
            Column("Negative", lambda each: count(each, each.negatives)),
            Column("AUROC %", lambda each: f"{show_percent(each.auroc)}{run.warned}"),
            Column("95 % interval", lambda each: _interval(each, result)),
            Column("Average precision %", lambda each: show_percent(each.average_precision)),
            Column("Calibration error", lambda each: show_percent(each.calibration_points)),
        ),
        result.findings,
        (
            _means(run, len(hidden)),
            *_policy(run),
            f"An interval is marked {WARNING} where more than a tenth of its resamples lack a "
            "class: it rests on few patients.",
            "Calibration error: expected, in percentage points; AUROC – lacks a class"
            + (" or rests on too few images." if hidden else "."),
        ),
    )


def _interval(finding: FindingScore, result: ClassificationResult) -> str:
    """Returns the limits of an interval, marked where many resamples lack a class."""
    drawn = read_if_there(result.rests_on, "resamples", int) or 0
    rough = finding.resamples_left_out > LARGEST_SHARE_WITHOUT_A_LABEL * drawn
    marked = f" {WARNING}" if rough and finding.interval else ""
    return f"{show_interval(finding.interval)}{marked}"


def _policy(run: ClassifierRun) -> Iterator[str]:
    """Says how unsure labels of the test were read."""
    if words := describe_policy(run.tested_on.policy):
        yield f"Labels of the test: {'; '.join(words.values())}."


def _means(run: ClassifierRun, hidden: int) -> str:
    """Says the means, over which findings, and on how many images and patients."""
    result = run.result
    test = f"{show_people(result.images)} images of {show_people(result.patients)} patients."
    if result.auroc is None:
        return f"No finding has at least {FEWEST} images of each class; {test}"
    means = (
        f"Mean over {show_count(result.counted, 'finding')}: AUROC {result.auroc:.2f} %, 95 % "
        f"interval {show_interval(result.interval)}, average precision "
        f"{show_percent(result.means['average_precision'])} %, calibration error "
        f"{show_percent(result.calibration_points)} points; {test}"
    )
    if hidden:
        means += (
            f" {show_count(hidden, 'finding')} with fewer than {FEWEST} images of a class, or "
            "whose number would give theirs away, left out of the mean, which then has no interval."
        )
    return means


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
            Column("Threshold", lambda row: f"{row[1].threshold:.6g}"),
            rate("sensitivity"),
            rate("specificity"),
            Column("Temperature", lambda row: f"{row[0].temperature:.3g}"),
        ),
        [(finding, point) for finding in points.findings for point in finding.points],
        (
            *([f"{WARNING} Its {points.caution}."] if points.caution else []),
            f"Chosen on {printable(name_validation(points))}: an image is called positive from "
            "this probability on, before its logit is divided by the temperature, which "
            "calibrates.",
        ),
    )


def _groups_table(run: ClassifierRun) -> Block:
    result = run.result
    if not result.groups:
        return Paragraph(f"Groups of patients on {run.tested_on.label}: not told by the dataset.")
    hidden = groups_not_told(result)

    def count(each: GroupScore, number: int) -> str:
        return show_hidden(number) if (each.attribute, each.group) in hidden else str(number)

    gaps = [
        f"{name}: largest less smallest {gap:.1f} percentage points."
        for name, gap in result.gaps.items()
        if gap is not None
    ]
    return tabulate(
        f"Groups of patients on {run.tested_on.label}",
        (
            Column("Group", lambda each: f"{each.attribute}: {each.group}"),
            Column("Images", lambda each: count(each, each.images)),
            Column("Patients", lambda each: count(each, each.patients)),
            Column("Mean AUROC %", lambda each: show_percent(each.auroc_mean)),
            Column("Findings", lambda each: str(each.labels_counted)),
        ),
        result.groups,
        (
            "Small groups are counted, not compared; nor are groups on findings with fewer than "
            f"{FEWEST} images of a class. Where a group has fewer than {FEWEST} patients, the "
            "number of another is left out, too.",
            *gaps,
        ),
    )
