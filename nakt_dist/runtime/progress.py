"""Progress bars: on the main process, in a terminal, and nowhere else."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from nakt_dist.runtime.processes import process_place


@contextlib.contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar while the body runs.

    Args:
        description: what is counted, such as ``"pack images"``.

    Yields:
        A function that advances the bar by a number of items.
    """
    if not (sys.stderr.isatty() and process_place().is_main):
        yield lambda count: None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)
