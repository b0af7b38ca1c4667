"""Tables of single findings and of groups of patients, for one setting where methods share it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from nakt_dist.records.finding_results import PARTIAL_AUROC
from nakt_dist.records.lineage import Method
from nakt_dist.report.classification_tables import left_out_findings, show_percent, warn_of
from nakt_dist.report.document import NOTHING, Cell, Column, Table, tabulate
from nakt_dist.report.studies import Repeats, Setting, Study, mean_of_known
from nakt_dist.report.wording import grouped


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


# A row of a table: its name, how many images, and what stands below each method.
_Row = tuple[Cell, str, Callable[[Repeats], Cell]]
Chosen = Sequence[tuple[Setting, Method, Repeats]]


def findings_table(study: Study) -> Table:
    """Shows AUROC, whole and partial, average precision and calibration error of each finding."""
    chosen = chosen_settings(study)
    first = chosen[0][2].runs[0]
    rows: list[_Row] = []
    for number, each in enumerate(first.result.findings):
        images = f"{each.positives} of {each.positives + each.negatives}"
        rows.append((Cell(each.name), images, partial(_finding_cell, number=number)))
    rows.append((Cell("Mean", strong=True), f"{first.result.counted} findings", _mean_cell))
    large = (
        "Large: AUROC in percent, mean over seeds. Small: average precision (AP) in percent, "
        "expected calibration error (ECE) in percentage points, and the partial AUROC (pAUROC) in "
        "percent, up to a false-positive rate of 10 %, standardised so that chance has 50."
    )
    remarks = (large, *_apart(chosen), *warn_of(study), *left_out_findings(study))
    names = ("Findings", "Finding", "Positive images")
    return _tabulate(study, chosen, names, rows, remarks)


def _tabulate(
    study: Study,
    chosen: Chosen,
    names: tuple[str, str, str],
    rows: Sequence[_Row],
    remarks: Iterable[str],
) -> Table:
    """Makes a table of one column for each method; the names are its own and of two columns."""
    what, row_name, images = names
    together = _one_setting(chosen)
    columns = [Column(row_name, lambda row: row[0]), Column(images, lambda row: row[1])]
    for setting, method, repeats in chosen:
        where = "" if together else f"{_name_setting(study, setting)}: "
        name = f"{where}{study.name(method)}{repeats.warned}"
        columns.append(Column(name, partial(_below, repeats=repeats)))
    where = f": {_name_setting(study, chosen[0][0])}" if together else ""
    return tabulate(f"{what} on {study.label}{where}", columns, rows, remarks)


def _below(row: _Row, repeats: Repeats) -> Cell:
    return row[2](repeats)


def _name_setting(study: Study, setting: Setting) -> str:
    return f"{study.label_of(setting)}, {setting.start.phrase}"


def _one_setting(chosen: Chosen) -> bool:
    return len({setting for setting, *_ in chosen}) == 1


def _apart(chosen: Chosen) -> Iterator[str]:
    if not _one_setting(chosen):
        yield (
            "Columns headed by different networks, sizes or first weights differ in more than the "
            "method and do not compare methods."
        )


def _finding_cell(repeats: Repeats, number: int) -> Cell:
    precision = repeats.mean_of(lambda run: run.result.findings[number].average_precision)
    error = repeats.mean_of(lambda run: run.result.findings[number].calibration_points)
    partial_area = repeats.mean_of(lambda run: run.result.findings[number].partial_auroc)
    return Cell(show_percent(repeats.auroc_of(number)), _small(precision, error, partial_area))


def _small(
    precision: float | None, error: float | None, partial_area: float | None
) -> tuple[str, ...]:
    points = NOTHING if error is None else f"{show_percent(error)} points"
    area = () if partial_area is None else (f"pAUROC {show_percent(partial_area)}",)
    return (f"AP {show_percent(precision)} · ECE {points}", *area)


def _mean_cell(repeats: Repeats) -> Cell:
    precision = repeats.mean_of(lambda run: run.result.means["average_precision"])
    error = repeats.mean_of(lambda run: run.result.calibration_points)
    partial_area = repeats.mean_of(lambda run: run.result.means.get(PARTIAL_AUROC))
    return Cell(f"{repeats.mean:.1f}", _small(precision, error, partial_area), strong=True)


def subgroups_table(study: Study) -> Table | None:
    """Shows the mean AUROC of groups of patients, and how far the groups lie apart."""
    chosen = [each for each in chosen_settings(study) if each[2].runs[0].result.groups]
    if not chosen:
        return None
    rows: list[_Row] = []
    groups = grouped(chosen[0][2].runs[0].result.groups, lambda group: group.attribute)
    for attribute, members in groups.items():
        for each in members:
            show = partial(_group_cell, place=(attribute, each.group))
            rows.append((Cell(f"{attribute}: {each.group}"), str(each.images), show))
        gap = partial(_gap_cell, attribute=attribute)
        rows.append((Cell(f"{attribute}: gap", strong=True), "", gap))
    explained = (
        "Mean AUROC in percent over the findings that every compared group can be judged by, "
        "mean over seeds. Gap: largest less smallest, in percentage points, mean over seeds. "
        "Small groups are counted, not compared."
    )
    remarks = (explained, *_apart(chosen), *warn_of(study))
    return _tabulate(study, chosen, ("Groups of patients", "Group", "Images"), rows, remarks)


def _gap_cell(repeats: Repeats, attribute: str) -> Cell:
    gap = repeats.mean_of(lambda run: run.result.gaps.get(attribute))
    return Cell(show_percent(gap), strong=gap is not None)


def _group_cell(repeats: Repeats, place: tuple[str, str]) -> Cell:
    groups = [each for run in repeats.runs for each in run.result.groups]
    found = [each for each in groups if (each.attribute, each.group) == place]
    counted = {each.labels_counted for each in found if each.auroc_mean is not None}
    notes = (f"{min(counted)} findings",) if counted else ()
    return Cell(show_percent(mean_of_known(each.auroc_mean for each in found)), notes)
