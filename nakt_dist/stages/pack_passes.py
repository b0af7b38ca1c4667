"""The passes of a packing: masks are looked at, inputs read and staged, shards put together.

Any number of processes share each pass, and what was finished before an interruption is kept.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from nakt_dist.errors import DatasetError
from nakt_dist.imaging.mask_rule import MaskRule
from nakt_dist.imaging.mask_values import judge
from nakt_dist.runtime.files import file_sha256
from nakt_dist.runtime.processes import say
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.runtime.work import WorkLedger
from nakt_dist.shards.writer import Member, write_shard
from nakt_dist.stages.pack_divide import ShardPlan
from nakt_dist.stages.pack_plan import PackInput, PackPlan, tolerated_problems
from nakt_dist.stages.pack_pool import Workers
from nakt_dist.stages.pack_prepare import (
    Prepared,
    PrepareSettings,
    is_prepared,
    is_surveyed,
    prepare,
    prepared_inputs,
    staged_files,
    survey,
)

PREPARED_NAME = "prepared"
_MASKS_NAME = "masks"
_WISHED_PIECES = 64
_LEAST_IN_A_PIECE = 32
"""Each piece costs a receipt, which is flushed to the disk."""

Piece = TypeVar("Piece")


def judge_masks(plan: PackPlan, folder: Path, workers: Workers) -> tuple[MaskRule, dict[str, int]]:
    """Returns the rule by which binary masks are read, and counts of what was noticed by words.

    What each mask holds is kept in a ledger of its own in ``folder``, that of the packing's.

    Raises:
        DatasetError: the masks do not say what is target; see ``judge``.
    """
    pieces = _cut(plan, [each for each in plan.inputs if each.usable and each.has_plain_mask])
    ledger = _ledger(folder / _MASKS_NAME, pieces)
    sizes = [len(each) for each in pieces]
    _complete("look at masks", workers, ledger, pieces, sizes, survey, is_surveyed, plan.config)
    summaries = [each for receipt in ledger.receipts() for each in receipt["summaries"]]
    return judge(summaries, plan.config.mask_values)


def prepare_all(
    plan: PackPlan, rule: MaskRule, folder: Path, workers: Workers
) -> tuple[list[Prepared], int]:
    """Reads, converts and stages the inputs that are not yet staged.

    Their files lie in a folder of their own in ``folder``, that of the packing's ledger.

    Returns:
        What was made of each input, in their order, and how many were read now, by whomever.
    """
    config, pieces = plan.config, _cut(plan, plan.inputs)
    ledger = _ledger(folder / PREPARED_NAME, pieces)
    settings = PrepareSettings(
        config.image,
        tolerated_problems(config),
        config.deidentify,
        plan.content_key,
        rule,
        len(plan.classes) or None,
    )
    sizes, done = [len(each) for each in pieces], "images are read"
    read_now = _complete(
        "pack images", workers, ledger, pieces, sizes, prepare, is_prepared, settings, done
    )
    return list(prepared_inputs(ledger, pieces, settings)), read_now


def write_shards(
    shards: Sequence[ShardPlan], output: Path, ledger: WorkLedger, workers: Workers
) -> None:
    """Puts together the shards that are not there already.

    Args:
        shards: of the dataset, or some of them.
        ledger: of the shards; the staged files lie in a folder of its own.
    """
    planned = {shard.name for shard in shards}
    for left in output.glob("*-[0-9][0-9][0-9][0-9][0-9][0-9].tar"):
        if left.name not in planned:  # of a source that has changed since the packing began
            left.unlink(missing_ok=True)
    sizes, done = [1] * len(shards), "shards are there"
    _complete("write shards", workers, ledger, shards, sizes, _write_shard, _is_whole, output, done)


def _cut(plan: PackPlan, inputs: Sequence[PackInput]) -> list[Sequence[PackInput]]:
    """Cuts inputs so that workers end at about the same time, alike for whoever takes part."""
    wished = max(-(-len(inputs) // _WISHED_PIECES), _LEAST_IN_A_PIECE)
    size = min(wished, plan.config.samples_per_shard)
    return [inputs[at : at + size] for at in range(0, len(inputs), size)]


def _ledger(folder: Path, pieces: Sequence[object]) -> WorkLedger:
    ledger = WorkLedger(folder, {}, len(pieces))
    ledger.open()
    return ledger


def _complete(
    what: str,
    workers: Workers,
    ledger: WorkLedger,
    pieces: Sequence[Piece],
    sizes: Sequence[int],
    do: Callable[[WorkLedger, int, Piece, Any], None],
    is_sound: Callable[[WorkLedger, int, Piece, Any], bool],
    settings: Any,
    done: str | None = None,
) -> int:
    """Does the pieces that are not done, or do not stand as their receipts say.

    Args:
        what: of the progress bar.
        sizes: how many items each piece holds.
        do: does one; of a module, as it is sent to other processes by its name.
        is_sound: says whether a finished one is still right.
        settings: of both.
        done: what to call items that were done before; None says nothing of them.

    Returns:
        How many items were done now, by whomever.
    """
    unsound = ledger.unsound(lambda number: is_sound(ledger, number, pieces[number], settings))
    now, total = sum(sizes[number] for number in unsound), sum(sizes)
    if done is not None and now < total:
        say(f"pack: {total - now} of {total} {done} already")
    with progress_bar(what, now) as advance:
        for number in workers.complete(
            ledger, unsound, do, lambda number: (ledger, number, pieces[number], settings)
        ):
            advance(sizes[number])
    return now


def _write_shard(ledger: WorkLedger, number: int, shard: ShardPlan, output: Path) -> None:
    """Writes one shard atomically; its receipt holds an ``entry`` and the ``rows`` of the index."""
    prepared = ledger.folder / PREPARED_NAME

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for made in shard.prepared:
            yield made.key, staged_files(prepared, made)

    entry, members = write_shard(output / shard.name, shard.split, samples(), ledger.folder)
    rows = [
        _row(number, shard.split, each, made, members[made.key])
        for each, made in zip(shard.inputs, shard.prepared, strict=True)
    ]
    ledger.finish(number, {"entry": asdict(entry), "rows": rows, "inputs": shard.inputs_sha256})


def _is_whole(ledger: WorkLedger, number: int, shard: ShardPlan, output: Path) -> bool:
    """Says whether a finished shard is on disk as its receipt says, and of these very inputs."""
    try:
        receipt = ledger.receipt(number)
        entry = receipt["entry"]
        same = receipt["inputs"] == shard.inputs_sha256 and entry["name"] == shard.name
        return same and file_sha256(output / shard.name) == entry["sha256"]
    except (OSError, DatasetError, KeyError):
        return False


def _row(
    number: int, split: str, each: PackInput, made: Prepared, members: dict[str, Member]
) -> dict[str, Any]:
    """Returns a row of the index, which says where the files of a sample lie."""
    record, names = each.record, {"mask.png": "mask", "json": "json"}
    findings = record.findings
    return {
        "key": made.key,
        "shard": number,
        "split": split,
        "patient_id": record.patient_id,
        "stratum": record.stratum,
        "source": record.name,
        "labels": json.dumps(dict(record.labels), sort_keys=True),
        "findings": None if findings is None else json.dumps(dict(findings), sort_keys=True),
        "extension": made.files[0][0],
        "target_share": made.target_share,
        "pixels": made.pixels,
        **{
            f"{names.get(extension, 'image')}_{column}": value
            for extension, member in members.items()
            for column, value in vars(member).items()
        },
    }
