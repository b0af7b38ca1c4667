"""What the columns of a table of findings mean: the settings of the layout ``images_csv``."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nakt_dist.errors import ConfigurationError
from nakt_dist.sources.chest import Problem, read_findings
from nakt_dist.sources.csv_tables import NO_WIDTH, quoted
from nakt_dist.sources.findings import canonical_finding, finding_form
from nakt_dist.sources.listed_findings import ListedFindings

IMAGE_COLUMN = "filename"
"""The column that names the image, where no option says otherwise."""

_SPLIT_NAME = re.compile(r"(?!pseudo$)[a-z0-9][a-z0-9_-]{0,40}")


@dataclass(frozen=True)
class TableColumns:
    """What the columns of a table mean; see the options of ``nakt_dist.sources.images_csv``.

    Attributes:
        finding_columns: column by finding; empty without such.
        findings_column: column that lists findings, or None.
        separator: between these; ``""`` for one a cell.
        names: the findings wanted of that column; empty for all.
        unlabelled: entries of that column that say nothing, in casefolded form.
        facts: column by fact, None where there is none.
        split_names: our name by the table's name of a split.

    Raises:
        ConfigurationError: both forms of findings are set, or names for none.
    """

    image: str
    finding_columns: Mapping[str, str]
    findings_column: str | None
    separator: str
    names: tuple[str, ...]
    unlabelled: frozenset[str]
    facts: Mapping[str, str | None]
    split_names: Mapping[str, str]
    filters: Mapping[str, frozenset[str]]

    def __post_init__(self) -> None:
        if self.finding_columns and self.findings_column:
            raise ConfigurationError(
                "'finding_columns' and 'findings_column' are both set; findings stand either in "
                "a column each or listed in one column. Leave one of the two out"
            )
        if self.names and not self.findings_column:
            raise ConfigurationError(
                "'finding_names' is set without 'findings_column', whose findings it chooses; "
                "name that column, or choose among columns by 'finding_columns'"
            )

    @property
    def all(self) -> tuple[str, ...]:
        """The columns to be read, each once."""
        wanted = [self.image, *self.finding_columns.values(), *self.filters]
        wanted += [column for column in (self.findings_column, *self.facts.values()) if column]
        return tuple(dict.fromkeys(wanted))

    def refused_by(self, cells: Mapping[str, str]) -> str | None:
        """Says in words which filter a row does not pass, None if it passes all.

        What the filter wants is not said: it may be long, and may name patients.
        """
        for column, wanted in self.filters.items():
            if cells[column] not in wanted:
                return f"filters on {column}"
        return None

    def listed(self, cells: Mapping[str, str]) -> list[str]:
        """Returns the entries that the cell of ``findings_column`` lists, as published.

        A cell such as ``['Edema', 'Mass']``, as Python writes a list, lists what it says.
        """
        cell = cells[str(self.findings_column)]
        if cell.startswith("[") and cell.endswith("]"):
            entries = [entry.strip(" '\"") for entry in cell[1:-1].split(",")]
        else:
            entries = cell.split(self.separator) if self.separator else [cell]
        plain = (entry.strip().strip(NO_WIDTH).strip() for entry in entries)
        return [entry for entry in plain if entry.casefold() not in self.unlabelled]

    def findings_of(
        self, cells: Mapping[str, str], vocabulary: ListedFindings | None, found: Counter[str]
    ) -> tuple[Mapping[str, int] | None, Problem | None]:
        """Returns the findings of a row, None where it has none, and what is wrong with it.

        Args:
            vocabulary: of ``findings_column``; None without one.
            found: counts rows without a label, and labels besides those wanted.
        """
        if vocabulary is None:
            if not self.finding_columns:
                return None, None
            values = tuple(cells[column] for column in self.finding_columns.values())
            return read_findings(tuple(self.finding_columns), values)
        entries = self.listed(cells)
        if not entries:
            found["rows without a label"] += 1
            cell = quoted(cells[str(self.findings_column)])
            return None, ("missing_label", f"'{self.findings_column}' is {cell}")
        findings, besides, problem = vocabulary.read(entries)
        if problem is not None:
            found["rows whose findings hold another separator, set aside"] += 1
            return None, problem
        found["labels besides 'finding_names'"] += besides
        return findings, None

    def split_of(self, name: str) -> str | None:
        """Returns the split for a table's name of it, None for an empty cell."""
        split = self.split_names.get(name, name)
        if split and not _SPLIT_NAME.fullmatch(split):
            raise ConfigurationError(
                f"The table's split {quoted(split)} could not name a file; give it a name of "
                "lower-case letters, digits, _ and - by 'split_names', such as "
                "{Training: train}"
            )
        return split or None


def check_deidentified(options: Mapping[str, Any]) -> None:
    """Refuses options that would give patients away beside de-identified shards.

    Raises:
        ConfigurationError: a filter names patients, studies or images, or any cell of the table
            may name a finding.
    """
    columns = ("patient_column", "study_column")
    identifiers = [options.get("image_column", IMAGE_COLUMN), *map(options.get, columns)]
    filters = options.get("filters")
    wanted = filters if isinstance(filters, Mapping) else {}  # scanning refuses anything else
    identifying = [column for column in wanted if column in identifiers]
    if identifying:
        raise ConfigurationError(
            f"layout_options.filters names wanted values of '{identifying[0]}', which tells "
            "patients, studies or images apart, and settings are kept beside the shards. To "
            "deidentify, leave this filter out and point the option 'table' at a table of the "
            "wanted rows"
        )
    column = options.get("findings_column")
    if column and not options.get("finding_names"):
        raise ConfigurationError(
            f"layout_options.findings_column is '{column}' without finding_names, so that whatever "
            "its cells hold would name a finding, in clear. To deidentify, list the wanted "
            "findings in layout_options.finding_names"
        )


def by_finding(columns: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Returns the column of each finding, by its common name."""
    names = canonical_names("finding_columns", tuple(columns))
    by_finding = columns.values() if isinstance(columns, Mapping) else columns
    return dict(zip(names, by_finding, strict=True))


def canonical_names(option: str, names: Sequence[str]) -> tuple[str, ...]:
    """Returns the common names of findings.

    Raises:
        ConfigurationError: one is empty, or two are the same finding.
    """
    canonical = tuple(canonical_finding(name.strip()) for name in names)
    forms = list(map(finding_form, canonical))
    for name, form in zip(canonical, forms, strict=True):
        if not form or forms.count(form) > 1:
            fault = f"names the finding '{name}' twice" if form else "holds an empty name"
            raise ConfigurationError(f"'{option}' {fault}; each finding needs one name of its own")
    return canonical
