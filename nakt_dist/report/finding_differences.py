"""What a teacher gives for each finding, corrected for how many are compared."""

from collections.abc import Sequence
from functools import partial

from nakt_dist.evaluation.many_comparisons import holm
from nakt_dist.report.auroc_figures import over_strongest
from nakt_dist.report.classification_tables import warn_of
from nakt_dist.report.differences import Difference, signed, warnings_of
from nakt_dist.report.document import NOTHING, WARNING, Cell, Column, Table, tabulate
from nakt_dist.report.finding_tables import chosen_settings
from nakt_dist.report.studies import Study
from nakt_dist.report.wording import show_count

_SHOWN = 0.05


def finding_differences_table(study: Study, differences: Sequence[Difference]) -> Table | None:
    """Shows findings in rows, and in columns each method over the best that follows no teacher.

    Returns:
        None where nothing is compared over patients.
    """
    chosen = {(setting, method) for setting, method, _ in chosen_settings(study)}
    strongest = over_strongest(study, differences)
    shown = [each for each in strongest if (each.setting, each.method) in chosen and each.findings]
    if not shown:
        return None
    places = [
        (column, row)
        for column, each in enumerate(shown)
        for row, finding in enumerate(each.findings)
        if finding is not None
    ]
    tested = [shown[column].findings[row] for column, row in places]
    p_values = holm([each.p_value for each in tested if each is not None])
    corrected = dict(zip(places, p_values, strict=True))

    def show(row: int, column: int) -> Cell:
        found = shown[column].findings[row]
        if found is None:
            return Cell(NOTHING)
        p_value = corrected[column, row]
        low, high = found.interval
        notes = (f"{signed(low)} to {signed(high)}", f"p {p_value:.2g}")
        return Cell(signed(found.difference), notes, strong=p_value < _SHOWN)

    findings = study.tested_on.findings
    columns = (
        Column("Finding", lambda row: findings[row]),
        *(
            Column(_name_column(study, each), partial(show, column=column))
            for column, each in enumerate(shown)
        ),
    )
    remarks = (
        "AUROC of the method less that of the best without a teacher in the same setting, in "
        "percentage points, mean over pairs of runs with the same seed; below it the 95 % "
        "bootstrap interval over patients, and p corrected by Holm's method for "
        f"{show_count(len(tested), 'comparison')}, those of this table. Bold: p below {_SHOWN}.",
        *warn_of(study),
    )
    title = f"By finding: what a teacher gives, on {study.label}"
    return tabulate(title, columns, range(len(findings)), remarks)


def _name_column(study: Study, each: Difference) -> str:
    warned = f" {WARNING}" if warnings_of(study, each) else ""
    return f"{study.name(each.method)}, {study.label_of(each.setting)}{warned}"
