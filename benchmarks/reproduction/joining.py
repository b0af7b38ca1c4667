"""Records of one study from several folders, such as of machines that are gone, side by side.

Nothing is mixed: a run is paired with runs of its own collection alone, and a capability is of the
one collection that has the most runs of it. Where several have a pair, their differences are
averaged, as those of several seeds are.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.reproduction.records import COLLECTION_MARK, Images, Records
from nakt_dist.errors import DatasetError

_ALIKE = ("study", "versions", "phantom")
_LISTS = ("kept", "judged_masks", "left_out")


def join(before: Records, new: Records) -> Records:
    """Returns the records of both; runs of the new ones get the collection's number in their names.

    Args:
        before: of one collection, or of several that were joined.
        new: of one more.

    Raises:
        DatasetError: they are not of one study and the same versions, a run of both was tested on
            other images, or the images are described differently.
    """
    for name in _ALIKE:
        if before.about[name] != new.about[name]:
            raise DatasetError(
                f"{name} is {before.about[name]} in the records that are there, and "
                f"{new.about[name]} in the new ones; such runs are not set side by side. Collect "
                "the new ones without --beside, in place of the others"
            )
    for run in new.runs:
        known = before.values.get(run.name)
        if known is not None and not np.array_equal(known.rows, new.values[run.name].rows):
            raise DatasetError(f"{run.name} was tested on other images than before")
    if not _same_images(before.images, new.images):
        raise DatasetError("the images have other patients or findings than before")
    number = before.about.get("collections", 1) + 1

    def renamed(name: str) -> str:
        return f"{name}{COLLECTION_MARK}{number}"

    return Records(
        about=_about(before, new, number),
        runs=(*before.runs, *(replace(run, name=renamed(run.name)) for run in new.runs)),
        values={**before.values, **{renamed(name): each for name, each in new.values.items()}},
        images=new.images,
        curves={**before.curves, **{renamed(name): each for name, each in new.curves.items()}},
    )


def _same_images(one: Images | None, other: Images | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.findings, one.patients) == (other.findings, other.patients) and np.array_equal(
        one.targets, other.targets, equal_nan=True
    )


def _about(before: Records, new: Records, number: int) -> dict[str, Any]:
    done = {run.name.partition(COLLECTION_MARK)[0] for run in before.runs}
    waiting = {k: axes for k, axes in new.about["not_run_yet"].items() if k not in done}

    def both(name: str) -> str:
        return "; ".join(dict.fromkeys(f"{each.about[name]}" for each in (before, new)))

    return {
        **new.about,
        "collections": number,
        "commit": both("commit"),
        "machine": both("machine"),
        "last_run": max(before.about["last_run"], new.about["last_run"]),
        "done": new.about["planned"] - len(waiting),
        "not_run_yet": waiting,
        **{name: [*before.about[name], *new.about[name]] for name in _LISTS},
    }
