"""Tables of classifiers: paper B's table 2, findings, groups of patients, and every network."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from nakt_dist.records.lineage import RANDOM, Lineage, Method
from nakt_dist.report import paper
from nakt_dist.report.document import NOTHING, WARNING, Cell, Column, Table, tabulate
from nakt_dist.report.evaluations import ClassifierRun, show_interval
from nakt_dist.report.studies import Repeats, Setting, Study
from nakt_dist.report.wording import grouped, list_some, show_count
from nakt_dist.signals.kind import ATTENTION_TRANSFER, TRANSFER_LEARNING

_PAPER = "paper"
_OF_PAPER = (TRANSFER_LEARNING, ATTENTION_TRANSFER)
_OVER_SEEDS = (
    "Mean AUROC over the findings, in percent: mean ± half of the 95 % interval over {seeds}, "
    "1.96 s / √n."
)
_ONE_SEED = "Mean AUROC over the findings, in percent, of one seed."
_BOLD = "Bold: the best of a row."
_SCRATCH = "With random first weights, transfer learning is plain training from scratch."
_BESIDE_PAPER = (
    "Paper: what its tables 2, 3 and 5 print for such a dataset, size, start and network; other "
    "images and another teacher."
)


def main_table(study: Study) -> Table:
    """Shows methods in columns, as paper B's table 2; networks, sizes and starts in rows."""
    one_start = len({setting.start.label for setting in study.cells}) == 1
    counts = {len(each.runs) for cell in study.cells.values() for each in cell.values()}

    def show(setting: Setting, method: Method) -> Cell:
        return _auroc_cell(setting, method, study.cells[setting], len(counts) > 1)

    columns = (
        Column("Network", lambda setting: setting.network.label),
        Column("Learnt from", lambda it: it.trained_on.label, shown=study.names_datasets),
        Column("Training images", study.size),
        Column("First weights", lambda setting: setting.start.label, minor=one_start),
        *(Column(study.name(method), partial(show, method=method)) for method in study.methods),
    )
    number = _table_of_paper(study)
    title = f"{f'{number} (paper B): mean' if number else 'Mean'} AUROC % on {study.label}"
    table = tabulate(title, columns, study.cells)
    cells = [cell for row in table.rows for cell in row]
    seeds = "seeds (n beside each)" if len(counts) > 1 else show_count(min(counts), "seed")
    mean = _ONE_SEED if counts == {1} else _OVER_SEEDS.format(seeds=seeds)
    remarks = [
        f"{mean} {_BOLD}" if any(cell.strong for cell in cells) else mean,
        _trainable(study),
        *([_SCRATCH] if any(it.start.label == RANDOM for it in study.cells) else []),
        *([_BESIDE_PAPER] if any(map(_names_paper, cells)) else []),
        *warn_of(study),
        *left_out_findings(study),
    ]
    return replace(table, remarks=tuple(remarks))


def _names_paper(cell: Cell) -> bool:
    return any(note.startswith(_PAPER) for note in cell.notes)


def _table_of_paper(study: Study) -> str:
    """Names the table that the paper's networks by its methods make; empty where they make none."""
    networks = {setting.network for setting in study.cells}
    kinds = {method.kind for method in study.methods}
    taught = [method for method in study.methods if method.kind == ATTENTION_TRANSFER]
    several = len({method.teacher for method in taught}) > 1
    if any(each.label != each.paper_name for each in networks) or not taught:
        return ""
    if TRANSFER_LEARNING not in kinds:
        return "Table 3" if several else ""
    if paper.chest_dataset_name(study.tested_on.dataset) == "ChestX-ray14":
        return "Table 5"
    return "Tables 2 and 3" if several else "Table 2"


def _auroc_cell(
    setting: Setting, method: Method, cell: Mapping[Method, Repeats], show_number: bool
) -> Cell:
    if method not in cell:
        return Cell(NOTHING)
    repeats = cell[method]
    number = f" (n={len(repeats.runs)})" if show_number else ""
    notes = [
        f"{_PAPER} {each.text} (table {each.table})" for each in papers(setting, method, repeats)
    ]
    best = max(round(each.mean, 2) for each in cell.values())
    return Cell(
        f"{repeats.text}{number}{repeats.warned}",
        (*notes, *repeats.warnings),
        strong=len(cell) > 1 and round(repeats.mean, 2) == best,
    )


def warn_of(study: Study) -> Iterator[str]:
    """Says which runs of a study may have met its test images, and how."""
    runs: dict[str, list[str]] = {}
    for run in study.runs:
        for words in run.warnings:
            runs.setdefault(words, []).append(run.name)
    for words, names in runs.items():
        yield f"{WARNING} {list_some(names)}: {words}."


def _marked(run: ClassifierRun) -> Cell:
    """Shows a run's AUROC, with what makes it misleading."""
    return Cell(f"{run.mean:.2f}{run.warned}", run.warnings)


def papers(setting: Setting, method: Method, repeats: Repeats) -> list[paper.PaperAuroc]:
    """Finds the paper's figures beside which runs may stand: never for procedural images."""
    teacher, trained_on = method.teacher, setting.trained_on
    tested_on = repeats.runs[0].tested_on
    images = (trained_on, tested_on, setting.start.trained_on, teacher)
    if any(each is not None and each.phantom for each in images) or method.kind not in _OF_PAPER:
        return []
    if trained_on.dataset != tested_on.dataset or setting.network.paper_name is None:
        return []
    return paper.find_auroc(
        trained_on.dataset,
        trained_on.samples,
        setting.start.dataset,
        setting.network.paper_name,
        repeats.runs[0].lineage.parameters,
        None if teacher is None else teacher.learnt.dataset or teacher.name,
    )


def _trainable(study: Study) -> str:
    """Says how many parameters learn, which the paper prints above its columns."""
    counts: dict[str, dict[str, int]] = {}
    for setting, cell in study.cells.items():
        for method, repeats in cell.items():
            parts = counts.setdefault(setting.network.label, {})
            parts.setdefault(method.parts, repeats.runs[0].lineage.parameters)
    words = [
        f"{network} " + ", ".join(f"{show_millions(n)} ({name})" for name, n in parts.items())
        for network, parts in counts.items()
    ]
    return f"Trainable parameters: {'; '.join(words)}."


def show_millions(count: int) -> str:
    """Returns a number of parameters such as ``"7.0 M"``; small ones in thousands."""
    return f"{count / 1e6:.1f} M" if count >= 50_000 else f"{count / 1e3:.1f} k"


def left_out_findings(study: Study) -> Iterator[str]:
    """Says which findings the means are over, and which are left out."""
    sets = dict.fromkeys((run.result.counted, run.result.left_out) for run in study.runs)
    for counted, left_out in sets:
        if not left_out:
            yield f"The mean is over all {counted} findings."
        else:
            yield (
                f"The mean is over {counted} findings; {len(left_out)} left out, which the test "
                f"images do not show both present and absent: {', '.join(left_out)}."
            )


def paper_table(real: bool) -> Table:
    """Returns the paper's own table 2; ``real``: whether other tables are about real images."""
    ours = [each for each in paper.all_auroc() if each.table == 2]
    networks = list(dict.fromkeys((each.network, each.trainable, each.method) for each in ours))
    networks.sort(key=lambda each: (each[0] != "DenseNet-121", each[2] != "transfer learning"))
    rows = grouped(ours, lambda each: (each.samples, each.initialisation)).values()

    def show(row: Sequence[paper.PaperAuroc], column: tuple[str, float, str]) -> Cell:
        best = max(each.mean for each in row if each.network == column[0])
        found = next(each for each in row if (each.network, each.trainable, each.method) == column)
        return Cell(found.text, strong=found.mean == best)

    columns = (
        Column("Training images", lambda row: f"{row[0].samples:,}"),
        Column("First weights", lambda row: row[0].initialisation),
        *(
            Column(f"{each[0]}, {each[1]} M, {each[2]}", partial(show, column=each))
            for each in networks
        ),
    )
    remarks = (
        "Mean AUROC % on real CheXpert images of 256 × 256 pixels, three seeds; the teacher "
        "learnt from MIMIC-CXR.",
        "Not comparable with any number above that is marked (phantom): those come from "
        "procedural images. On real images, what the paper prints stands in the cells themselves."
        if real
        else "Not comparable with any number above: those come from procedural images.",
    )
    return tabulate("The paper's own table 2, for orientation only", columns, rows, remarks)


def others_table(studies: Sequence[Study]) -> Table | None:
    """Lists evaluations of teachers and of networks that students started from."""
    rows = [(study, run) for study in studies for run in study.others]
    columns = (
        Column("Run", lambda row: row[1].name),
        Column("Network", lambda row: row[1].network.label),
        Column("Learnt from", lambda row: _learnt_from(row[1])),
        Column("Test set", lambda row: row[0].label),
        Column("AUROC %", lambda row: _marked(row[1])),
        Column("95 % interval", lambda row: show_interval(row[1].result.interval)),
        Column("Images", lambda row: str(row[1].images)),
    )
    remarks = (
        f"{WARNING} {run.name} on {study.label}: {words}."
        for study, run in rows
        for words in run.warnings
    )
    title = "Teachers, and networks that students started from"
    return tabulate(title, columns, rows, remarks) if rows else None


def _learnt_from(run: ClassifierRun) -> str:
    if not run.lineage.is_whole:
        return "unknown"
    trained_on = run.lineage.learnt
    return f"{trained_on.samples:,} images of {trained_on.label}"


def evaluations_table(studies: Sequence[Study]) -> Table:
    """Lists every evaluation of a classifier once."""
    rows = [(study, run) for study in studies for run in study.runs]
    columns = (
        Column("Run", lambda row: Cell(row[1].name, (row[1].place,))),
        Column("Network", lambda row: row[1].network.label),
        Column("Method", lambda row: _method(*row)),
        Column("Learnt from", lambda row: _learnt_from(row[1])),
        Column("First weights", lambda row: _of_lineage(row[1], lambda it: it.start.label)),
        Column("Seed", lambda row: _of_lineage(row[1], lambda it: str(it.repetition[0]))),
        Column("Test set", lambda row: row[0].label),
        Column("AUROC %", lambda row: _marked(row[1])),
        Column("95 % interval over patients", lambda row: show_interval(row[1].result.interval)),
        Column("AP %", lambda row: show_percent(row[1].result.means["average_precision"])),
        Column("Patients", lambda row: str(row[1].result.patients)),
    )
    return tabulate("Every evaluation of a classifier", columns, rows)


def _of_lineage(run: ClassifierRun, show: Callable[[Lineage], str]) -> str:
    return show(run.lineage) if run.lineage.is_whole else NOTHING


def show_percent(value: float | None) -> str:
    """Returns a percentage with one decimal, or a dash."""
    return NOTHING if value is None else f"{value:.1f}"


def _method(study: Study, run: ClassifierRun) -> str:
    if not run.lineage.is_whole or run in study.others:
        return NOTHING
    return study.name(run.lineage.method)
