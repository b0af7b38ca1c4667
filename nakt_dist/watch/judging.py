"""What may not be compared and who met its test images, judged as the report does, now and then."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from nakt_dist.errors import NaktError

_LEAST_SECONDS = 20.0
_SHARE = 40.0
"""Judging takes at most one part in so many of the time."""


class Judge:
    """Reads all finished records again when one was added, in the background.

    Args:
        folders: as given to ``nakt watch``.

    Attributes:
        version: grows when the verdicts change.
        cautions: what a reader must know before comparing, in whole sentences.
        by_folder: warnings of each evaluation, by its folder.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._judged: frozenset[tuple[str, float]] = frozenset()
        self._next = 0.0
        self._working: threading.Thread | None = None
        self.version = 0
        self.cautions: tuple[str, ...] = ()
        self.by_folder: dict[Path, tuple[str, ...]] = {}

    def poll(self, records: frozenset[tuple[str, float]]) -> None:
        """Begins to judge where there is something new to judge, and time for it.

        Args:
            records: folder of each finished run, and when its record was written.
        """
        busy = self._working is not None and self._working.is_alive()
        if busy or records == self._judged or time.monotonic() < self._next:
            return
        self._judged = records
        self._working = threading.Thread(target=self.judge, daemon=True)
        self._working.start()

    def judge(self) -> None:
        """Judges now."""
        begun = time.thread_time()
        try:
            self._judge()
        except NaktError:  # no evaluation is there yet
            self.cautions, self.by_folder = (), {}
        except Exception as error:  # of a record that nobody foresaw; the page goes on
            self.cautions = (f"The records could not be judged: {error!r}; try nakt report.",)
        self.version += 1
        took = time.thread_time() - begun
        self._next = time.monotonic() + max(_LEAST_SECONDS, _SHARE * took)

    def _judge(self) -> None:
        # Brings in Matplotlib and pyarrow, which the page does not wait for.
        from nakt_dist.report.cautions import cautions, classifier_cautions, unlike_inputs
        from nakt_dist.report.runs import collect

        found = collect(self._folders)
        studies, repeated = found.studies
        sentences: list[str] = []
        if found.evaluations:
            sentences += cautions(found)
        if studies:
            sentences += classifier_cautions(studies, found.classifier_trainings)
            sentences += unlike_inputs(found.records, classifiers=True)
        left_out = [*found.left_out, *repeated]
        sentences += [f"Left out: {each.place}: {each.reason}" for each in left_out]
        runs = [*found.evaluations, *found.classified]
        self.by_folder = {run.folder: run.warnings for run in runs if run.warnings}
        self.cautions = tuple(dict.fromkeys(each.removeprefix("⚠ ") for each in sentences))
