"""Any folder of images with a table of findings: the layout for sets that have no other."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nakt_dist.errors import DatasetError, nearest_name
from nakt_dist.sources.chest import VIEWS, ChestTables, join, view_of
from nakt_dist.sources.csv_tables import NO_WIDTH, TableRow, quoted, read_rows
from nakt_dist.sources.files import FolderContents, FoundFile, walk
from nakt_dist.sources.listed_findings import FindingCounter, ListedFindings
from nakt_dist.sources.listing import SourceListing, wrong_layout
from nakt_dist.sources.named_files import NamedFiles, is_absolute
from nakt_dist.sources.patients import patient_identity
from nakt_dist.sources.registry import Source
from nakt_dist.sources.table_columns import (
    IMAGE_COLUMN,
    TableColumns,
    by_finding,
    canonical_names,
    check_deidentified,
)

_UNMET = "wanted values of 'filters' that no row has"
_MOST_VALUES_TOLD = 6
_MOST_UNMET_KEPT, _LONGEST_UNMET_KEPT = 100, 300
_TABLE_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt")
_NOBODY = frozenset({"", "nan", "na", "n/a", "<na>", "none", "null"})


def scan(
    root: Path,
    table: str = "metadata.csv",
    image_column: str = IMAGE_COLUMN,
    image_folder: str = "",
    finding_columns: Mapping[str, str] | Sequence[str] = (),
    findings_column: str | None = None,
    findings_separator: str = ",",
    finding_names: Sequence[str] = (),
    unlabelled_values: Sequence[str] = (),
    patient_column: str | None = None,
    study_column: str | None = None,
    sex_column: str | None = None,
    age_column: str | None = None,
    view_column: str | None = None,
    split_column: str | None = None,
    split_names: Mapping[str, str] | None = None,
    filters: Mapping[str, Sequence[str]] | None = None,
    views: Sequence[str] = VIEWS,
) -> SourceListing:
    """Lists the images that a table names, with the findings and facts of its columns.

    Findings come in one of two forms. With ``finding_columns`` each has a column of 1, 0, -1
    or nothing. With ``findings_column`` one cell lists those that are present, and all others
    are absent. Findings that have a name in ``nakt_dist.sources.findings`` get that name.
    Letters that are not UTF-8 are read as Windows-1252.

    Args:
        root: the folder with the table and the images.
        table: path of the table below ``root``; ``.csv`` or ``.csv.gz``.
        image_column: names the image: a path below ``image_folder``, or a file name that
            stands once anywhere below it; the suffix may be left out. Names are matched as
            ``nakt_dist.sources.named_files.NamedFiles`` says.
        image_folder: path below ``root``; images elsewhere are no part of the dataset.
        finding_columns: column by finding, or the columns whose names are the findings.
        findings_column: lists the findings of an image; a row without any entry has the
            problem ``missing_label``.
        findings_separator: between the findings of a cell; ``""`` for one finding a cell.
        finding_names: the findings wanted of that column, in order; without them all that
            occur, sorted. Others are counted and left away.
        unlabelled_values: entries of that column that say nothing, such as ``todo``, whatever
            their case.
        patient_column: names the patient, who stays in one split. Empty cells and those that
            say ``nan``, ``NA``, ``None`` or ``null`` name nobody.
        study_column: names the study.
        sex_column: ``F``, ``M``, ``female`` or ``male``; others are unknown.
        age_column: years, or as ``060Y``.
        view_column: ``PA``, ``AP``, ``L``, ``frontal``, ``lateral`` and the like.
        split_column: the official split.
        split_names: our name by the table's name of a split, such as ``{val: validation}``.
        filters: by column the values wanted, compared whole; other rows are left out. Values
            that no row has are counted.
        views: which of ``frontal``, ``lateral`` and ``unknown`` to list.

    Raises:
        ConfigurationError: settings exclude each other, or a split could not name a file.
        DatasetError: the table is not there or not of this form, or no image is there.
    """
    columns = TableColumns(
        image=image_column,
        finding_columns=by_finding(finding_columns),
        findings_column=findings_column,
        separator=findings_separator,
        names=canonical_names("finding_names", finding_names),
        unlabelled=frozenset(value.casefold() for value in ("", *unlabelled_values)),
        facts={
            "patient": patient_column,
            "study": study_column,
            "sex": sex_column,
            "age": age_column,
            "view": view_column,
            "split": split_column,
        },
        split_names=split_names or {},
        filters={column: frozenset(values) for column, values in (filters or {}).items()},
    )
    folder = image_folder.strip("/")
    contents = walk(root)
    file = _find_table(root, contents, table)
    contents = _of_folder(root, contents, folder)
    rows = _Table(root, file, columns, NamedFiles(contents.images, folder))
    if rows.left_out and not (rows.tables.images or rows.tables.records):
        raise DatasetError(
            f"'{file.name}': the option 'filters' leaves none of its {rows.left_out.total()} rows "
            f"({', '.join(rows.left_out)}); correct the wanted values{rows.unmet_filters()}"
        )
    kept = [image for image in contents.images if image.name not in rows.names_left_out]
    listing = join(
        replace(contents, images=kept),
        rows.tables,
        lambda place: rows.files[place],
        views,
        rows.findings,
        [file.name],
    )
    left_out = dict(sorted({**rows.left_out, **listing.left_out}.items()))
    return replace(listing, left_out=left_out, examples=rows.examples)


class _Table:
    """Reads the table into what ``join`` takes.

    Attributes:
        tables: an image for each row that names one.
        files: the files of each of these images, by its place.
        examples: a case of what some words of ``tables.found`` count.
        left_out: rows that a filter leaves out, by its words.
        names_left_out: of files that only such rows name.
    """

    def __init__(
        self, root: Path, file: FoundFile, columns: TableColumns, images: NamedFiles
    ) -> None:
        self._file, self._columns, self._images = file, columns, images
        self.tables = ChestTables(root)
        self.files: dict[str, list[FoundFile]] = {}
        self.left_out: Counter[str] = Counter()
        self.names_left_out: set[str] = set()
        self.examples: dict[str, str] = {}
        self._listed = self._vocabulary()
        if self._listed is not None:
            self.tables.found.update(self._listed.found)
            self.examples.update(self._listed.examples)
        self._unmet = {column: set(wanted) for column, wanted in columns.filters.items()}
        self._held: dict[str, set[str]] = {column: set() for column in columns.filters}
        self._read()
        unmet = sum(map(len, self._unmet.values()))
        self.tables.found[_UNMET] = unmet
        self.examples |= {_UNMET: quoted(min(set().union(*self._unmet.values())))} if unmet else {}
        self.names_left_out -= {file.name for files in self.files.values() for file in files}

    @property
    def findings(self) -> tuple[str, ...]:
        """The vocabulary."""
        return tuple(self._columns.finding_columns) if self._listed is None else self._listed.names

    def _patient(self, cell: str) -> str | None:
        """Returns the patient as published; None for what programs write where nothing is."""
        if self._columns.facts["patient"] and patient_identity(cell) in _NOBODY:
            self.tables.found["rows that name no patient"] += 1
            return None
        return cell or None

    def _rows(self, found: Counter[str]) -> Iterator[tuple[TableRow, Mapping[str, str]]]:
        names = self._columns.all
        for row in read_rows(self._file, names, found=found, windows_letters=True):
            yield row, dict(zip(names, row.cells, strict=True))

    def _vocabulary(self) -> ListedFindings | None:
        columns = self._columns
        if columns.findings_column is None:
            return None
        place = f"'{self._file.name}': the column '{columns.findings_column}'"
        counter = FindingCounter(columns.names, columns.separator, place)
        for row, cells in self._rows(Counter()):
            if row.fault is None and columns.refused_by(cells) is None:
                counter.add(columns.listed(cells))
        return counter.vocabulary()

    def _read(self) -> None:
        column = self._columns.image
        for row, cells in self._rows(self.tables.found):
            self.tables.found["rows in the table"] += 1
            path = cells[column].strip(NO_WIDTH).replace("\\", "/").removeprefix("./")
            refused = self._columns.refused_by(cells)
            if not row.fault:
                self._count_wanted(cells)
            if row.fault:
                self.tables.refuse(self._file, row, "unreadable_row", row.fault)
            elif refused:
                self.left_out[refused] += 1
                self.names_left_out.update(file.name for file in self._images.find(path).files)
            elif not self._may_be_looked_for(path):
                detail = f"'{column}' is {quoted(path)}; expected a path in the folder of images"
                self.tables.refuse(self._file, row, "unsafe_path", detail)
                if len(self.tables.unmet) < _MOST_UNMET_KEPT:
                    self.tables.unmet.append(path[:_LONGEST_UNMET_KEPT])
            else:
                self._add(path, cells)

    def _count_wanted(self, cells: Mapping[str, str]) -> None:
        """Remembers which values of the filters occur, and some that the columns hold."""
        for column, wanted in self._unmet.items():
            wanted.discard(cells[column])
            if len(self._held[column]) < _MOST_VALUES_TOLD:
                self._held[column].add(cells[column])

    def unmet_filters(self) -> str:
        """Returns in words the wanted values that no row has, beside values that there are."""
        told = [
            f". No row has {', '.join(map(quoted, sorted(wanted)[:_MOST_VALUES_TOLD]))} in "
            f"'{column}', which holds {', '.join(map(quoted, sorted(self._held[column])))}"
            for column, wanted in self._unmet.items()
            if wanted
        ]
        return "".join(told)

    def _may_be_looked_for(self, path: str) -> bool:
        """Says whether a cell names an image: by a plain path, or by one that ends in a file's."""
        return _is_plain(path) or bool(path.isprintable() and self._images.find(path).files)

    def _add(self, path: str, cells: Mapping[str, str]) -> None:
        columns = self._columns
        known = {name: cells[column] if column else "" for name, column in columns.facts.items()}
        findings, problem = columns.findings_of(cells, self._listed, self.tables.found)
        match = self._images.find(path)
        files, place = match.files, self._images.place(path, match.files)
        if match.how is not None and place not in self.files:
            self.tables.found[match.how] += 1
            self.examples.setdefault(match.how, quoted(match.before or path))
        if len(files) > 1:
            detail = f"{len(files)} files are called {quoted(path)}; write paths in the table"
            problem = ("ambiguous_name", detail)
        self.files[place] = files
        self.tables.add(
            place,
            name=place,
            patient_id=self._patient(known["patient"]),
            official_split=columns.split_of(known["split"]),
            labels={
                "sex": self.tables.sex(known["sex"]),
                "age": self.tables.age(known["age"]),
                "view": _view(known["view"]),
                "projection": _projection(known["view"]),
                "study": known["study"],
            },
            findings=findings,
            problem=problem,
        )


def _is_plain(path: str) -> bool:
    """Says whether a cell is a path that stays in the folder of images."""
    within = not is_absolute(path) and ".." not in path.split("/")
    return path.isprintable() and path != "" and within


def _view(words: str) -> str | None:
    if words.lower() in VIEWS[:2]:
        return words.lower()
    return "lateral" if words.upper() == "L" else view_of(words)


def _projection(words: str) -> str | None:
    """Returns the projection without what follows it, as in ``AP Supine``."""
    first = words.upper().split()[:1]
    return first[0] if first and first[0] in ("PA", "AP", "LL", "RL") else None


def _find_table(root: Path, contents: FolderContents, table: str) -> FoundFile:
    named = next((file for file in contents.others if file.name == table), None)
    if named is None:
        tables = [f.name for f in contents.others if f.name.lower().endswith(_TABLE_SUFFIXES)]
        near = nearest_name(table, tables)
        raise wrong_layout(root, "images_csv", f"the table '{table}' (option 'table'){near}")
    return named


def _of_folder(root: Path, contents: FolderContents, folder: str) -> FolderContents:
    """Returns what was found with only the images of one folder; the others are counted."""
    images = contents.below(folder) if folder else contents.images
    if not images:
        raise wrong_layout(root, "images_csv", f"images below '{folder or '.'}'")
    ignored = Counter(contents.ignored)
    if len(images) < len(contents.images):
        ignored[f"image outside of '{folder}'"] = len(contents.images) - len(images)
    return replace(contents, images=images, ignored=ignored)


SOURCE = Source(
    "images_csv",
    scan,
    path_options=("table", "image_folder"),
    check_deidentified=check_deidentified,
)
