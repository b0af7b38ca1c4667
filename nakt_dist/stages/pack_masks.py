"""Judges the masks of a dataset before any is packed."""

from collections.abc import Sequence
from pathlib import Path

from nakt_dist.config import PackConfig
from nakt_dist.errors import DatasetError
from nakt_dist.imaging.mask_rule import MaskRule
from nakt_dist.imaging.mask_survey import survey_mask
from nakt_dist.imaging.mask_values import judge
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.runtime.work import WorkLedger
from nakt_dist.sources.deidentification import HIDDEN_DETAIL
from nakt_dist.stages.pack_plan import PackInput, PackPlan
from nakt_dist.stages.pack_pool import Workers
from nakt_dist.stages.pack_sources import times_of

_FOLDER_NAME = "masks"


def judge_masks(
    config: PackConfig, plan: PackPlan, folder: Path, workers: Workers
) -> tuple[MaskRule, dict[str, int]]:
    """Returns the rule by which binary masks are read, and counts of what was noticed by words.

    Args:
        config: of the packing.
        plan: its inputs.
        folder: of the packing's ledger; what each mask holds is kept in one of its own there.
        workers: look at the masks.

    Raises:
        DatasetError: the masks do not say what is target; see ``judge``.
    """
    inputs = [
        each
        for each in plan.inputs
        if each.usable and each.record.mask_kind == "binary" and not each.record.mask_classes
    ]
    size = config.samples_per_shard
    pieces = [inputs[at : at + size] for at in range(0, len(inputs), size)]
    ledger = WorkLedger(folder / _FOLDER_NAME, {}, len(pieces))
    ledger.open()
    unsound = ledger.unsound(lambda number: _is_surveyed(ledger, number, pieces[number]))
    with progress_bar("look at masks", sum(len(pieces[number]) for number in unsound)) as advance:
        for number in workers.complete(
            ledger, unsound, _survey, lambda number: (ledger, number, pieces[number], config)
        ):
            advance(len(pieces[number]))
    receipts = (ledger.receipt(number) for number in range(len(pieces)))
    summaries = [summary for receipt in receipts for summary in receipt["summaries"]]
    return judge(summaries, config.mask_values)


def _is_surveyed(ledger: WorkLedger, number: int, inputs: Sequence[PackInput]) -> bool:
    """Says whether the masks of a finished piece are as they were."""
    try:
        receipt = ledger.receipt(number)
    except DatasetError:
        return False
    masks = sum(len(each.record.masks) for each in inputs)
    return receipt.get("times") == _times(inputs) and len(receipt.get("summaries", ())) == masks


def _survey(
    ledger: WorkLedger, number: int, inputs: Sequence[PackInput], config: PackConfig
) -> None:
    times = _times(inputs)
    paths = [path for each in inputs for path in each.record.masks]
    as_colours = config.mask_values.needs_colours
    summaries = [survey_mask(path, config.image.max_pixels, as_colours) for path in paths]
    for summary in summaries if config.deidentify else ():
        summary["name"] = ""  # names of files may be those of patients
        if "problem" in summary:
            summary["problem"] = [summary["problem"][0], HIDDEN_DETAIL]
    ledger.finish(number, {"times": times, "summaries": summaries})


def _times(inputs: Sequence[PackInput]) -> list[list[int]]:
    """Returns what tells whether the files are as they were, as JSON gives it back."""
    return [list(time) for each in inputs for time in times_of(each.record)]
