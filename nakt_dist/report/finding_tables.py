"""Tables of single findings and of groups of patients, for one setting where methods share it."""

from collections.abc import Iterator, Sequence

import numpy as np

from nakt_dist.records.lineage import Method
from nakt_dist.report.classification_tables import left_out_findings, show_percent, warn_of
from nakt_dist.report.document import WARNING, Cell, Table
from nakt_dist.report.studies import Repeats, Setting, Study
from nakt_dist.report.tables import NOTHING


def chosen_settings(study: Study) -> list[tuple[Setting, Method, Repeats]]:
    """Returns for each method the setting to show.

    That is the one most methods share, of several the one with the highest AUROC; for methods
    that were not run in it, where they do best.
    """
    shared = max(
        study.cells,
        key=lambda each: (
            len(study.cells[each]),
            max(it.mean for it in study.cells[each].values()),
        ),
    )
    chosen = []
    for method in study.methods:
        settings = [each for each, cell in study.cells.items() if method in cell]
        best = max(settings, key=lambda each: study.cells[each][method].mean)
        setting = shared if method in study.cells[shared] else best
        chosen.append((setting, method, study.cells[setting][method]))
    return chosen


def findings_table(study: Study) -> Table:
    """Shows AUROC, average precision and calibration error of each finding."""
    chosen = chosen_settings(study)
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
        "Large: AUROC in percent, mean over seeds. Small: average precision (AP) in percent, and "
        "expected calibration error (ECE) in percentage points.",
        *_apart(chosen),
        *warn_of(study),
        *left_out_findings(study),
    )
    return Table(
        f"Findings on {study.label}{_where(study, chosen)}",
        ("Finding", "Positive images", *_columns(study, chosen)),
        tuple(rows),
        remarks,
    )


def _columns(study: Study, chosen: Sequence[tuple[Setting, Method, Repeats]]) -> tuple[str, ...]:
    names = []
    for setting, method, repeats in chosen:
        where = "" if _one_setting(chosen) else f"{_name_setting(study, setting)}: "
        warned = f" {WARNING}" if any(run.warnings for run in repeats.runs) else ""
        names.append(f"{where}{study.name(method)}{warned}")
    return tuple(names)


def _name_setting(study: Study, setting: Setting) -> str:
    return f"{study.label_of(setting)}, {setting.start.phrase}"


def _one_setting(chosen: Sequence[tuple[Setting, Method, Repeats]]) -> bool:
    return len({setting for setting, *_ in chosen}) == 1


def _where(study: Study, chosen: Sequence[tuple[Setting, Method, Repeats]]) -> str:
    """Names the setting in a title, where all columns share it."""
    return f": {_name_setting(study, chosen[0][0])}" if _one_setting(chosen) else ""


def _apart(chosen: Sequence[tuple[Setting, Method, Repeats]]) -> Iterator[str]:
    if not _one_setting(chosen):
        yield (
            "Columns headed by different networks, sizes or first weights differ in more than the "
            "method and do not compare methods."
        )


def _finding_cell(repeats: Repeats, number: int) -> Cell:
    scores = [run.findings[number] for run in repeats.runs]
    precision = _mean([score.average_precision for score in scores])
    error = _mean([score.calibration_error for score in scores])
    auroc = _mean([score.auroc for score in scores])
    return Cell(show_percent(auroc), (_small(precision, error),))


def _small(precision: float | None, error: float | None) -> str:
    points = NOTHING if error is None else f"{show_percent(error)} points"
    return f"AP {show_percent(precision)} · ECE {points}"


def _mean_cell(repeats: Repeats) -> Cell:
    precision = _mean([run.average_precision for run in repeats.runs])
    error = _mean([run.calibration_error for run in repeats.runs])
    return Cell(f"{repeats.mean:.1f}", (_small(precision, error),), strong=True)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def subgroups_table(study: Study) -> Table | None:
    """Shows the mean AUROC of groups of patients, and how far the groups lie apart."""
    chosen = [each for each in chosen_settings(study) if each[2].runs[0].groups]
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
        *_apart(chosen),
        *warn_of(study),
    )
    return Table(
        f"Groups of patients on {study.label}{_where(study, chosen)}",
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
