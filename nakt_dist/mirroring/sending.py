"""Sends every run that has changed, each on its own: one that fails does not hold up the rest."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from nakt_dist.errors import DatasetError
from nakt_dist.mirroring.glance import StudyGlance
from nakt_dist.mirroring.runs import FoundRun
from nakt_dist.mirroring.sent import Sent, SentFiles
from nakt_dist.mirroring.target import Target
from nakt_dist.records.fields import ODD_VALUES
from nakt_dist.runtime.files import value_sha256
from nakt_dist.runtime.processes import printable
from nakt_dist.runtime.wandb_run import read_run_id

_LENGTH_OF_ID = 16


def send_all(
    runs: Iterable[FoundRun], target: Target, known: SentFiles, how: str, left_out: list[str]
) -> Counter[str]:
    """Sends what is new of each run, and notes it when it is sent.

    Args:
        how: the settings by which runs are shown; when they change, all is new.
        left_out: runs that could not be sent are named here, with their reason.

    Returns:
        How many were ``sent``, ``unchanged`` or ``tracked live``.

    Raises:
        NaktError: the target does not work.
    """
    counts: Counter[str] = Counter()
    places: dict[str, str] = {}
    for run in runs:
        try:
            run_id = _id_of(run)
            other = places.setdefault(run_id, run.place)
            if other != run.place:
                raise DatasetError(f"{run.folder}: is the same run as {other}, which is shown")
            done = _send(run, run_id, target, known, how)
            counts[done] += 1
            if done == "sent" and run.damage is not None:
                left_out.append(printable(run.damage))
        except DatasetError as error:
            left_out.append(printable(str(error)))
        except ODD_VALUES as error:
            left_out.append(printable(f"{run.place}: damaged: {type(error).__name__}: {error}"))
    return counts


def _send(run: FoundRun, run_id: str, target: Target, known: SentFiles, how: str) -> str:
    """Sends what is new of a run, and notes it; returns what it is counted as."""
    sent = known.read(run.place)
    if sent is None or sent.run_id != run_id:  # another run lay there
        sent = Sent(run_id)
    signature = value_sha256([run.signature(), how])
    if sent.signature == signature:
        return "unchanged"
    if is_live(run):
        return "tracked live"
    known.write(run.place, replace(target.send(run, sent), signature=signature))
    return "sent"


def send_studies(
    studies: Iterable[StudyGlance], target: Target, known: SentFiles, how: str
) -> None:
    """Shows how the runs of each study stand, where that has changed.

    Args:
        how: as for ``send_all``.

    Raises:
        NaktError: the target does not work.
    """
    for study in studies:
        sent = known.read(study.place) or Sent(study.known_by[:_LENGTH_OF_ID])
        signature = value_sha256([study.signature(), how])
        if sent.signature != signature:
            known.write(study.place, replace(target.send_study(study, sent), signature=signature))


def is_live(run: FoundRun) -> bool:
    """Says whether the run writes to W&B itself just now: two writers would mix their lines."""
    tracking = run.settings.get("tracking")
    online = isinstance(tracking, dict) and tracking.get("wandb") == "online"
    return online and not run.ended


def _id_of(run: FoundRun) -> str:
    """Returns the id of the run: that of its own W&B run, else one that any machine would give."""
    return read_run_id(run.folder) or run.known_by[:_LENGTH_OF_ID]


def shown_by(settings: dict[str, object]) -> str:
    """Returns settings as one text to compare."""
    return json.dumps(settings, sort_keys=True)
