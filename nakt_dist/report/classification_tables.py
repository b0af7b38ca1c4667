"""Tables of classifiers: paper B's table 2, findings, groups of patients, and every network."""

from collections.abc import Iterator, Sequence

from nakt_dist.records.lineage import RANDOM, Method
from nakt_dist.report import paper_auroc
from nakt_dist.report.classifier_runs import ClassifiedRun
from nakt_dist.report.document import WARNING, Cell, Table
from nakt_dist.report.studies import Repeats, Setting, Study
from nakt_dist.report.tables import NOTHING
from nakt_dist.signals.kind import ATTENTION_TRANSFER, TRANSFER_LEARNING

_PAPER = "paper"
_MOST_NAMED = 4
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
    """Shows methods against each other, in the shape of paper B's table 2.

    Rows are networks, sizes and first weights, columns are methods.
    """
    datasets = study.names_datasets
    one_start = len({setting.start.label for setting in study.cells}) == 1
    counts = {len(each.runs) for cell in study.cells.values() for each in cell.values()}
    header = ["Network", *(["Learnt from"] if datasets else []), "Training images", "First weights"]
    rows = []
    for setting, cell in study.cells.items():
        best = max(round(each.mean, 2) for each in cell.values()) if len(cell) > 1 else None
        cells = [
            Cell(setting.network.label),
            *([Cell(setting.trained_on.label)] if datasets else []),
            Cell(study.size(setting)),
            Cell(setting.start.label, minor=one_start),
            *(
                _auroc_cell(setting, method, cell.get(method), best, len(counts) > 1)
                for method in study.methods
            ),
        ]
        rows.append(tuple(cells))
    seeds = "seeds (n beside each)" if len(counts) > 1 else f"{_number(min(counts), 'seed')}"
    mean = _ONE_SEED if counts == {1} else _OVER_SEEDS.format(seeds=seeds)
    bold = any(cell.strong for row in rows for cell in row)
    remarks = [f"{mean} {_BOLD}" if bold else mean, _trainable(study)]
    if any(setting.start.label == RANDOM for setting in study.cells):
        remarks.append(_SCRATCH)
    if any(note.startswith(_PAPER) for row in rows for cell in row for note in cell.notes):
        remarks.append(_BESIDE_PAPER)
    remarks += [*warn_of(study), *left_out_findings(study)]
    shape = "Table 2 (paper B): mean" if _has_shape_of_table_2(study) else "Mean"
    return Table(
        f"{shape} AUROC % on {study.label}",
        (*header, *(study.name(method) for method in study.methods)),
        tuple(rows),
        tuple(remarks),
    )


def _has_shape_of_table_2(study: Study) -> bool:
    """Says whether the paper's networks learnt by both of its methods."""
    networks = {setting.network for setting in study.cells}
    kinds = {method.kind for method in study.methods}
    return set(_OF_PAPER) <= kinds and all(each.label == each.paper_name for each in networks)


def _auroc_cell(
    setting: Setting,
    method: Method,
    repeats: Repeats | None,
    best: float | None,
    show_count: bool,
) -> Cell:
    if repeats is None:
        return Cell(NOTHING)
    count = f" (n={len(repeats.runs)})" if show_count else ""
    notes = [
        f"{_PAPER} {each.text} (table {each.table})" for each in papers(setting, method, repeats)
    ]
    notes += dict.fromkeys(words for run in repeats.runs for words in run.warnings)
    warned = f" {WARNING}" if any(run.warnings for run in repeats.runs) else ""
    text = f"{repeats.text}{count}{warned}"
    return Cell(text, tuple(notes), strong=round(repeats.mean, 2) == best)


def warn_of(study: Study) -> Iterator[str]:
    """Says which runs of a study may have met its test images, and how."""
    runs: dict[str, list[str]] = {}
    for run in study.runs:
        for words in run.warnings:
            runs.setdefault(words, []).append(run.name)
    for words, names in runs.items():
        more = len(names) - _MOST_NAMED
        some = ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        yield f"{WARNING} {some}: {words}."


def _marked(run: ClassifiedRun) -> Cell:
    """Shows a run's AUROC, with what makes it misleading."""
    warned = f" {WARNING}" if run.warnings else ""
    return Cell(f"{run.auroc:.2f}{warned}", run.warnings)


def papers(setting: Setting, method: Method, repeats: Repeats) -> list[paper_auroc.PaperAuroc]:
    """Finds the paper's figures beside which runs may stand: never for procedural images."""
    teacher, trained_on = method.teacher, setting.trained_on
    images = (trained_on, setting.tested_on, setting.start.trained_on, teacher)
    if any(each is not None and each.phantom for each in images) or method.kind not in _OF_PAPER:
        return []
    if trained_on.dataset != setting.tested_on.dataset or setting.network.paper_name is None:
        return []
    return paper_auroc.find_auroc(
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
    sets = dict.fromkeys((run.counted, run.left_out) for run in study.runs)
    for counted, left_out in sets:
        if not left_out:
            yield f"The mean is over all {counted} findings."
        else:
            yield (
                f"The mean is over {counted} findings; {len(left_out)} left out, which the test "
                f"images do not show both present and absent: {', '.join(left_out)}."
            )


def paper_table(real: bool) -> Table:
    """Returns the paper's own table 2, for orientation beside procedural images.

    Args:
        real: whether other tables of the page are about real images.
    """
    ours = [each for each in paper_auroc.all_auroc() if each.table == 2]
    columns = list(dict.fromkeys((each.network, each.trainable, each.method) for each in ours))
    columns.sort(key=lambda each: (each[0] != "DenseNet-121", each[2] != "transfer learning"))
    rows = {}
    for each in ours:
        row = rows.setdefault((each.samples, each.initialisation), {})
        row[each.network, each.trainable, each.method] = each
    cells = []
    for (samples, start), row in rows.items():
        best = {
            network: max(each.mean for each in row.values() if each.network == network)
            for network, *_ in columns
        }
        marked = (Cell(row[column].text, strong=row[column].mean == best[column[0]])
                  for column in columns)  # fmt: skip
        cells.append((Cell(f"{samples:,}"), Cell(start), *marked))
    names = (f"{network}, {trainable} M, {method}" for network, trainable, method in columns)
    remarks = (
        "Mean AUROC % on real CheXpert images of 256 × 256 pixels, three seeds; the teacher "
        "learnt from MIMIC-CXR.",
        "Not comparable with any number above that is marked (phantom): those come from "
        "procedural images. On real images, what the paper prints stands in the cells themselves."
        if real
        else "Not comparable with any number above: those come from procedural images.",
    )
    return Table(
        "The paper's own table 2, for orientation only",
        ("Training images", "First weights", *names),
        tuple(cells),
        remarks,
    )


def others_table(studies: Sequence[Study]) -> Table | None:
    """Lists evaluations of teachers and of networks that students started from."""
    rows = [
        (
            Cell(run.name),
            Cell(run.network.label),
            Cell(_learnt_from(run)),
            Cell(study.label),
            _marked(run),
            Cell(show_interval(run)),
            Cell(str(run.images)),
        )
        for study in studies
        for run in study.others
    ]
    if not rows:
        return None
    header = (
        "Run", "Network", "Learnt from", "Test set", "AUROC %", "95 % interval",
        "Images",
    )  # fmt: skip
    remarks = [
        f"{WARNING} {run.name} on {study.label}: {words}."
        for study in studies
        for run in study.others
        for words in run.warnings
    ]
    title = "Teachers, and networks that students started from"
    return Table(title, header, tuple(rows), tuple(remarks))


def _learnt_from(run: ClassifiedRun) -> str:
    if run.lineage is None:
        return "unknown"
    trained_on = run.lineage.trained_on
    return f"{trained_on.samples:,} images of {trained_on.label}"


def show_interval(run: ClassifiedRun) -> str:
    """Returns the interval over patients as text."""
    return NOTHING if run.interval is None else "{:.2f} to {:.2f}".format(*run.interval)


def evaluations_table(studies: Sequence[Study]) -> Table:
    """Lists every evaluation of a classifier once."""
    header = (
        "Run", "Network", "Method", "Learnt from", "First weights", "Seed", "Test set",
        "AUROC %", "95 % interval over patients", "AP %", "Patients",
    )  # fmt: skip
    rows = [
        (
            Cell(run.name, (run.place,)),
            Cell(run.network.label),
            Cell(_method(study, run)),
            Cell(_learnt_from(run)),
            Cell(NOTHING if run.lineage is None else run.lineage.start.label),
            Cell(NOTHING if run.lineage is None else str(run.lineage.repetition[0])),
            Cell(study.label),
            _marked(run),
            Cell(show_interval(run)),
            Cell(show_percent(run.average_precision)),
            Cell(str(run.patients)),
        )
        for study in studies
        for run in study.runs
    ]
    return Table("Every evaluation of a classifier", header, tuple(rows))


def show_percent(value: float | None) -> str:
    """Returns a percentage with one decimal, or a dash."""
    return NOTHING if value is None else f"{value:.1f}"


def _method(study: Study, run: ClassifiedRun) -> str:
    if run.lineage is None or run in study.others:
        return NOTHING
    return study.name(run.lineage.method)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
