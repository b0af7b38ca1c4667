"""Tables of single findings and of groups of patients, for the best setting of each method."""

from collections.abc import Sequence

import numpy as np

from nakt_dist.report.classification_tables import left_out_findings, show_percent
from nakt_dist.report.classifier_lineage import Method
from nakt_dist.report.document import Cell, Table
from nakt_dist.report.studies import Repeats, Setting, Study


def best_of_each_method(study: Study) -> list[tuple[Setting, Method, Repeats]]:
    """Returns for each method its best setting, by mean AUROC."""
    every = [
        (setting, method, repeats)
        for setting, cell in study.cells.items()
        for method, repeats in cell.items()
    ]
    return [
        max((each for each in every if each[1] == method), key=lambda each: each[2].mean)
        for method in study.methods
    ]


def findings_table(study: Study) -> Table:
    """Shows AUROC, average precision and calibration error of each finding."""
    chosen = best_of_each_method(study)
    first = chosen[0][2].runs[0]
    rows = [
        (
            Cell(finding.name),
            Cell(f"{finding.positives} of {finding.positives + finding.negatives}"),
            *(_finding_cell(repeats, number) for _, _, repeats in chosen),
        )
        for number, finding in enumerate(first.findings)
    ]
    means = [_mean_cell(repeats) for _, _, repeats in chosen]
    rows.append((Cell("Mean", strong=True), Cell(f"{first.counted} findings"), *means))
    remarks = (
        "Large: AUROC in percent, mean over seeds. Small: average precision (AP) and expected "
        "calibration error (ECE), in percent. Each column is the setting in which that method "
        "does best.",
        *left_out_findings(study),
    )
    return Table(
        f"Findings on {study.tested_on.label}",
        ("Finding", "Positive images", *_columns(study, chosen)),
        tuple(rows),
        remarks,
    )


def _columns(study: Study, chosen: Sequence[tuple[Setting, Method, Repeats]]) -> tuple[str, ...]:
    return tuple(
        f"{study.name(method)}: {setting.label}, {setting.start.phrase}"
        for setting, method, _ in chosen
    )


def _finding_cell(repeats: Repeats, number: int) -> Cell:
    scores = [run.findings[number] for run in repeats.runs]
    precision = _mean([score.average_precision for score in scores])
    error = _mean([score.calibration_error for score in scores])
    auroc = _mean([score.auroc for score in scores])
    return Cell(show_percent(auroc), (f"AP {show_percent(precision)} · ECE {show_percent(error)}",))


def _mean_cell(repeats: Repeats) -> Cell:
    precision = _mean([run.average_precision for run in repeats.runs])
    error = _mean([run.calibration_error for run in repeats.runs])
    return Cell(
        f"{repeats.mean:.1f}",
        (f"AP {show_percent(precision)} · ECE {show_percent(error)}",),
        strong=True,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def subgroups_table(study: Study) -> Table | None:
    """Shows the mean AUROC of groups of patients, and how far the groups lie apart."""
    chosen = [each for each in best_of_each_method(study) if each[2].runs[0].groups]
    if not chosen:
        return None
    attributes = dict.fromkeys(group.attribute for group in chosen[0][2].runs[0].groups)
    rows = []
    for attribute in attributes:
        groups = [group for group in chosen[0][2].runs[0].groups if group.attribute == attribute]
        for group in groups:
            place = (group.attribute, group.group)
            cells = (_group_cell(repeats, place) for _, _, repeats in chosen)
            rows.append((Cell(f"{attribute}: {group.group}"), Cell(str(group.images)), *cells))
        gaps = [_mean([run.gaps.get(attribute) for run in each.runs]) for _, _, each in chosen]
        cells = (Cell(show_percent(gap), strong=gap is not None) for gap in gaps)
        rows.append((Cell(f"{attribute}: gap", strong=True), Cell(""), *cells))
    remarks = (
        "Mean AUROC in percent over the findings that every compared group can be judged by, "
        "mean over seeds. Gap: largest less smallest, in percentage points, mean over seeds. "
        "Small groups are counted, not compared.",
    )
    return Table(
        f"Groups of patients on {study.tested_on.label}",
        ("Group", "Images", *_columns(study, chosen)),
        tuple(rows),
        remarks,
    )


def _group_cell(repeats: Repeats, place: tuple[str, str]) -> Cell:
    found = [
        group
        for run in repeats.runs
        for group in run.groups
        if (group.attribute, group.group) == place
    ]
    auroc = _mean([group.auroc for group in found])
    counted = {group.counted for group in found if group.auroc is not None}
    notes = (f"{min(counted)} findings",) if counted else ()
    return Cell(show_percent(auroc), notes)
