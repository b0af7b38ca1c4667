"""What classifiers reach at thresholds that were chosen on validation images."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from nakt_dist.records.fields import label_dataset, printable
from nakt_dist.records.operating_points import RATES, FindingPoints, OperatingPoints, PointScore
from nakt_dist.report.classification_tables import show_percent
from nakt_dist.report.document import NOTHING, WARNING, Cell, Column, Table, tabulate
from nakt_dist.report.evaluations import ClassifierRun
from nakt_dist.report.finding_tables import chosen_settings
from nakt_dist.report.studies import Study, mean_of_known
from nakt_dist.report.wording import show_count

_MEAN = "Mean"
_READING = (
    "Large: sensitivity / specificity in percent, below them their 95 % bootstrap intervals over "
    "patients with the threshold as it is, the positive and negative predictive value (PPV, NPV) "
    "at the prevalence of these images, and the probability from which on an image is called "
    "positive."
)
_SCALED = (
    "T: temperature by which logits are divided, chosen for each finding on the validation images; "
    "it changes no AUROC, sensitivity or specificity. It lies from 0.05 to 20: at either end the "
    "validation images could not tell it. ECE: expected calibration error on the test "
    "images before and after, in percentage points."
)
_RULES = (
    "Thresholds, on the validation images: Youden's J has the largest sum of sensitivity and "
    "specificity, the others are the highest with that sensitivity and the lowest with that "
    "specificity."
)


def operating_tables(study: Study) -> list[Table]:
    """Returns a table for each method, of its first seed, and for each other network."""
    students = [
        (repeats.runs[0], len(repeats.runs))
        for _, _, repeats in (chosen_settings(study) if study.cells else ())
    ]
    shown = [*students, *((run, 1) for run in study.others)]
    tables = [
        _tabulate(study, run, run.result.operating_points, seeds)
        for run, seeds in shown
        if run.result.operating_points is not None
    ]
    explained = [
        replace(each, remarks=(_READING, _SCALED, _RULES, *each.remarks)) for each in tables[:1]
    ]
    return [*explained, *tables[1:]]


def _tabulate(study: Study, run: ClassifierRun, points: OperatingPoints, seeds: int) -> Table:
    rules = list(dict.fromkeys(each.rule for one in points.findings for each in one.points))
    columns = (
        Column("Finding", partial(_name_cell, run=run)),
        Column("Calibration", partial(_calibration_cell, run=run)),
        *(Column(_name_rule(rule), partial(_rule_cell, rule=rule)) for rule in rules),
    )
    warnings = [f"{WARNING} It {words}." for words in run.warnings]
    warnings += [f"{WARNING} Its {points.caution}."] if points.caution else []
    remarks = [*warnings, _describe_validation(points), *_left_out(points)]
    if seeds > 1:
        remarks.append(f"The first of {show_count(seeds, 'seed')}.")
    rows: list[FindingPoints | OperatingPoints] = [*points.findings, points]
    title = f"Operating points of {run.name}{run.warned} on {study.label}"
    return tabulate(title, columns, rows, remarks)


def _name_rule(rule: str) -> str:
    what, _, rate = rule.partition(" ")
    return f"{what.capitalize()} {100 * float(rate):g} %" if rate else f"{what.capitalize()}'s J"


def _name_cell(row: FindingPoints | OperatingPoints, run: ClassifierRun) -> Cell:
    if isinstance(row, OperatingPoints):
        return Cell(_MEAN, (show_count(len(row.findings), "finding"),), strong=True)
    found = next(each for each in run.result.findings if each.name == row.name)
    return Cell(row.name, (f"{found.positives} of {found.positives + found.negatives} images",))


def _calibration_cell(row: FindingPoints | OperatingPoints, run: ClassifierRun) -> Cell:
    findings = row.findings if isinstance(row, OperatingPoints) else (row,)
    names = {each.name for each in findings}
    plain = [each.calibration_points for each in run.result.findings if each.name in names]
    scaled = [each.calibration_error_scaled for each in findings]
    after = mean_of_known(None if error is None else 100 * error for error in scaled)
    text = f"ECE {show_percent(mean_of_known(plain))} → {show_percent(after)}"
    return Cell(text, () if isinstance(row, OperatingPoints) else (f"T {row.temperature:.2f}",))


def _rule_cell(row: FindingPoints | OperatingPoints, rule: str) -> Cell:
    if isinstance(row, FindingPoints):
        return _point_cell(next(each for each in row.points if each.rule == rule))
    sensitivity, specificity, ppv, npv = (show_percent(row.mean(rule, name)) for name in RATES)
    return Cell(f"{sensitivity} / {specificity}", (f"PPV {ppv} · NPV {npv}",), strong=True)


def _point_cell(point: PointScore) -> Cell:
    sensitivity, specificity, ppv, npv = (show_percent(point.rates[name]) for name in RATES)
    intervals = {name: _show(point.intervals[name]) for name in RATES}
    notes = (
        f"{intervals['sensitivity']} / {intervals['specificity']}",
        f"PPV {ppv} ({intervals['ppv']})",
        f"NPV {npv} ({intervals['npv']})",
        f"from {point.threshold:.3g} on",
    )
    return Cell(f"{sensitivity} / {specificity}", notes)


def _show(interval: tuple[float, float] | None) -> str:
    return NOTHING if interval is None else "{:.1f} to {:.1f}".format(*interval)


def _describe_validation(points: OperatingPoints) -> str:
    images = points.validation.get("images")
    return printable(f"Chosen on {images} images of {name_validation(points)}.")


def name_validation(points: OperatingPoints) -> str:
    """Names the images that thresholds were chosen on: their dataset and splits."""
    told = points.validation
    splits = told.get("splits")
    where = "all splits" if splits is None else f"split {' + '.join(map(str, splits))}"
    return f"{label_dataset(str(told.get('dataset')), told.get('phantom') is True)}, {where}"


def _left_out(points: OperatingPoints) -> Iterator[str]:
    names: Sequence[str] = points.without
    if names:
        yield f"Without both classes among the validation images: {', '.join(names)}."
