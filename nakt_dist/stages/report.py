"""``nakt report``: run records become tables, figures and one page."""

import sys
from pathlib import Path

from nakt_dist.config import ReportConfig, as_plain, save_config
from nakt_dist.errors import DatasetError
from nakt_dist.records.run_record import RECORD_NAME, RunRecord, Stopwatch, package_versions
from nakt_dist.report.content import make_document, terminal_tables
from nakt_dist.report.document import Table
from nakt_dist.report.markdown import FIGURE_FOLDER, table_to_markdown, to_markdown
from nakt_dist.report.page import to_html
from nakt_dist.report.runs import collect
from nakt_dist.runtime.files import write_bytes
from nakt_dist.runtime.processes import require_one_process
from nakt_dist.stages.opening import Opening

MARKDOWN_NAME = "report.md"
PAGE_NAME = "report.html"
_WIDE_TERMINAL = 120
_ENDLESS = 10_000
_NEVER_BROKEN = 14
"""Texts up to this length, such as ``87.36 ± 0.58``, stay on one line."""


def run(config: ReportConfig) -> RunRecord:
    """Writes ``report.md``, ``report.html`` and ``figures/``, and prints the main tables.

    The last line printed is the path of the page. Equal records give equal bytes: the report
    holds no time and no path of this machine.

    Raises:
        ConfigurationError: it was started as several processes.
        DatasetError: a folder does not exist, or holds no usable evaluation.
    """
    require_one_process("report")
    stopwatch = Stopwatch()
    collection = collect(config.runs)
    document = make_document(collection, config.title, config.images)
    output = Path(config.output)
    (output / FIGURE_FOLDER).mkdir(parents=True, exist_ok=True)
    for figure in document.figures:
        write_bytes(output / FIGURE_FOLDER / figure.name, figure.png)
    write_bytes(output / MARKDOWN_NAME, to_markdown(document).encode())
    write_bytes(output / PAGE_NAME, to_html(document).encode())
    save_config(config, output)
    for table in terminal_tables(collection):
        _print_table(table)
    print(output / PAGE_NAME, flush=True)
    return RunRecord(
        stage="report",
        name=output.name,
        config=as_plain(config),
        counts={
            "evaluations": len(collection.evaluations) + len(collection.classified),
            "records": len(collection.records),
            "pseudo_sets": len(collection.pseudo_sets),
            "left_out": len(collection.left_out),
        },
        details={"page": str(output / PAGE_NAME)},
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )


def plan(config: ReportConfig, opening: Opening) -> None:
    """Looks whether there are folders with records to report on."""
    records = sum(len(list(Path(run).rglob(RECORD_NAME))) for run in config.runs)
    opening.facts["records"] = f"{records:,} below {', '.join(config.runs)}"
    for run in config.runs:
        with opening.part("runs"):
            if not Path(run).is_dir():
                raise DatasetError(f"{run} is no folder; name folders that hold records")
    with opening.part("runs"):
        if opening.is_sound and not records:
            raise DatasetError(
                f"no {RECORD_NAME} of a finished stage is there; run nakt evaluate first"
            )


def _print_table(table: Table) -> None:
    """Prints a table as fits: drawn in a terminal, as Markdown in a file or a pipe."""
    if not sys.stdout.isatty():
        print(table_to_markdown(table, notes=False), end="\n\n")
        return
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    # Text objects, because rich would read [brackets] in a run's name as a command.
    drawn = Drawn(title=Text(table.title, style="bold"), title_justify="left")
    console = Console()
    # Without room, the columns that matter stay readable; the page shows the others.
    wide = console.width >= _WIDE_TERMINAL
    shown = [place for place, cell in enumerate(table.rows[0]) if wide or not cell.minor]
    numbers = [table.header[place].endswith(("%", "interval")) for place in shown]
    for place, whole in zip(shown, numbers, strict=True):
        # Headings that are whole names of methods may break, what stands below them may not.
        longest = max(len(row[place].text) for row in table.rows)
        least = longest if longest <= _NEVER_BROKEN and not any(numbers) else None
        name = Text(table.header[place])
        drawn.add_column(name, no_wrap=whole, overflow="fold", min_width=least)
    for row in table.rows:
        cells = [row[place] for place in shown]
        drawn.add_row(*(Text(cell.text, style="bold" if cell.strong else "") for cell in cells))
    needed = console.measure(drawn, options=console.options.update(width=_ENDLESS)).minimum
    if needed > console.width and not any(numbers):
        print(table_to_markdown(table, notes=False), end="\n\n")  # rather ugly than cut off
        return
    console.print(drawn)
    missing = [name for place, name in enumerate(table.header) if place not in shown]
    if missing:
        console.print(Text(f"For want of room not shown: {', '.join(missing)}.", style="dim"))
    for remark in table.remarks:
        console.print(Text(remark, style="dim"))
