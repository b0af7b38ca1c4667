"""Looks at masks, reads and converts inputs, whatever split they will be in; in a worker process.

Pieces of the inputs are decoded once and their files staged, with a number for each picture
by which copies are known; shards are then put together from these files.
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from PIL import Image

from nakt_dist.config import ImageConfig, PackConfig
from nakt_dist.errors import DatasetError, UnusableSample
from nakt_dist.imaging.conversion import convert
from nakt_dist.imaging.images import encode_mask_png, read_mask, resize_mask
from nakt_dist.imaging.mask_rule import MaskRule
from nakt_dist.imaging.mask_survey import survey_mask
from nakt_dist.runtime.files import atomic_write, file_sha256, value_sha256
from nakt_dist.runtime.work import WorkLedger
from nakt_dist.sources import SourceRecord
from nakt_dist.sources.deidentification import HIDDEN_DETAIL
from nakt_dist.stages.mask_coverage import target_pixels
from nakt_dist.stages.pack_plan import PackInput
from nakt_dist.stages.pack_sources import FileTimes, content_hash, contents_of, facts_of, times_of


@dataclass(frozen=True)
class PrepareSettings:
    """What workers need to know.

    Attributes:
        image: the form of the images.
        tolerated: reasons of problems for which an input is not set aside.
        deidentified: tell no more than the reason why an input is set aside.
        content_key: keys the hashes of what files hold; may be empty.
        mask_rule: what is target in binary masks.
        classes: how many indices of class masks have a name; None where nobody says.
    """

    image: ImageConfig
    tolerated: Collection[str]
    deidentified: bool
    content_key: bytes
    mask_rule: MaskRule
    classes: int | None = None

    @property
    def rule_sha256(self) -> str:
        """Fingerprint of the rule."""
        return value_sha256(asdict(self.mask_rule))


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was made of one input.

    Attributes:
        files: size in bytes by extension, in the order in which they are staged and packed.
        piece: number of the staged file that holds them.
        offset: where they begin in it.
        pixels: 63-bit number of the picture: equal for equal pictures of equal size, as they
            are upright, in 8 bits and grey, before they are resized. None for a picture of one
            value everywhere, and for none.
        constant: whether the picture has one value everywhere.
        united_masks: whether its mask was united from several.
        target_share: share of target in its packed mask, 0 to 1; None without a mask.
        remarks: what is worth saying of it, by the names of ``pack_finish``.
        image: hash of the bytes of the image file, None where it cannot be read.
        masks: hash of the bytes of the mask files, None where there are none.
        facts: hash of what the dataset says of it.
        staged: hash of the bytes of its files as they are packed.
        times: of the image and each mask.
        reason: why the input is set aside, None where it is not.
    """

    key: str
    files: tuple[tuple[str, int], ...] = ()
    piece: int = -1
    offset: int = 0
    pixels: int | None = None
    constant: bool = False
    united_masks: bool = False
    target_share: float | None = None
    remarks: tuple[str, ...] = ()
    image: str | None = None
    masks: str | None = None
    facts: str = ""
    staged: str = ""
    times: tuple[FileTimes, ...] = ()
    reason: str | None = None
    detail: str = ""

    @classmethod
    def from_receipt(cls, value: dict[str, Any]) -> Self:
        """Returns what ``prepare`` wrote into a receipt."""
        files = tuple((extension, size) for extension, size in value.pop("files"))
        times = tuple(FileTimes(*each) for each in value.pop("times"))
        remarks = tuple(value.pop("remarks", ()))
        return cls(**value, files=files, times=times, remarks=remarks)


def survey(
    ledger: WorkLedger, number: int, inputs: Sequence[PackInput], config: PackConfig
) -> None:
    """Looks at the masks of some inputs, and leaves a receipt of what each of them holds."""
    times = _listed_times(inputs)
    paths = [path for each in inputs for path in each.record.masks]
    as_colours = config.mask_values.needs_colours
    summaries = [survey_mask(path, config.image.max_pixels, as_colours) for path in paths]
    for summary in summaries if config.deidentify else ():
        summary["name"] = ""  # names of files may be those of patients
        if "problem" in summary:
            summary["problem"] = [summary["problem"][0], HIDDEN_DETAIL]
    ledger.finish(number, {"times": times, "summaries": summaries})


def is_surveyed(
    ledger: WorkLedger, number: int, inputs: Sequence[PackInput], config: PackConfig
) -> bool:
    """Says whether the masks of a finished piece are as they were."""
    try:
        receipt = ledger.receipt(number)
    except DatasetError:
        return False
    masks = sum(len(each.record.masks) for each in inputs)
    same = receipt.get("times") == _listed_times(inputs)
    return same and len(receipt.get("summaries", ())) == masks


def _listed_times(inputs: Sequence[PackInput]) -> list[list[int]]:
    """Returns what tells whether the files are as they were, as JSON gives it back."""
    return [list(time) for each in inputs for time in times_of(each.record)]


def prepare(
    ledger: WorkLedger, number: int, inputs: Sequence[PackInput], settings: PrepareSettings
) -> None:
    """Stages the files of some inputs, and leaves a receipt of what was found.

    Raises:
        DatasetError: a file changes while it is read.
    """
    made, whole = [], hashlib.sha256()
    # What a power cut leaves of it is known by its hash, which is looked at before it is used.
    with atomic_write(_staged_path(ledger.folder, number), flush=False) as stream:
        for each in inputs:
            found, content = _prepare_one(each, settings)
            staged = hashlib.blake2b(content, digest_size=16).hexdigest()
            found |= {"piece": number, "offset": stream.tell(), "staged": staged}
            stream.write(content)
            whole.update(content)
            made.append(found)
    receipt = {"sha256": whole.hexdigest(), "mask_rule": settings.rule_sha256, "inputs": made}
    ledger.finish(number, receipt)


def is_prepared(
    ledger: WorkLedger, number: int, inputs: Sequence[PackInput], settings: PrepareSettings
) -> bool:
    """Says whether a finished piece is still as its receipt says, and its sources as they were.

    The rule by which masks are read follows from all of them: where others have changed, so may
    it have, and with it the masks of this piece.
    """
    key = settings.content_key
    try:
        receipt = ledger.receipt(number)
        if file_sha256(_staged_path(ledger.folder, number)) != receipt["sha256"]:
            return False
        made = _read_receipt(receipt, inputs, settings)
    except (OSError, DatasetError, KeyError, TypeError, ValueError, AttributeError):
        return False
    return made is not None and all(
        times_of(each.record) == found.times
        or contents_of(each.record, key) == (found.image, found.masks)
        for each, found in zip(inputs, made, strict=True)
    )


def _read_receipt(
    receipt: Mapping[str, Any], inputs: Sequence[PackInput], settings: PrepareSettings
) -> list[Prepared] | None:
    """Returns what was made of a piece; None if other inputs were read, or by another rule."""
    if receipt["mask_rule"] != settings.rule_sha256:
        return None
    made = [Prepared.from_receipt(value) for value in receipt["inputs"]]
    said = [(each.key, facts_of(each.record, settings.content_key)) for each in inputs]
    return made if said == [(found.key, found.facts) for found in made] else None


def prepared_inputs(
    ledger: WorkLedger, pieces: Sequence[Sequence[PackInput]], settings: PrepareSettings
) -> Iterator[Prepared]:
    """Yields what was made of all inputs, in order, when all pieces are done.

    Raises:
        DatasetError: processes that share the packing have found other files in the source.
    """
    for receipt, inputs in zip(ledger.receipts(), pieces, strict=True):
        made = _read_receipt(receipt, inputs, settings)
        if made is None:
            raise DatasetError(
                f"{ledger.folder.parent.parent}: processes that share this packing have found "
                "other files in the source, which changes while it is packed. Run the same command "
                "again when nobody writes there; what was finished is kept"
            )
        yield from made


def staged_files(folder: Path, prepared: Prepared) -> dict[str, bytes]:
    """Reads the files of a sample by extension, in the order in which they are packed."""
    with _staged_path(folder, prepared.piece).open("rb") as stream:
        stream.seek(prepared.offset)
        return {extension: stream.read(size) for extension, size in prepared.files}


def _staged_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.staged"


def _prepare_one(each: PackInput, settings: PrepareSettings) -> tuple[dict[str, Any], bytes]:
    """Returns the entry of the receipt, and the bytes of the sample's files."""
    record, times = each.record, times_of(each.record)
    found: dict[str, Any] = {"key": each.key, "files": [], "times": times}
    content = b""
    try:
        if record.problem is not None and record.problem[0] not in settings.tolerated:
            raise UnusableSample(*record.problem)
        files, facts = _convert(record, settings)
        found |= facts | {"files": [[name, len(data)] for name, data in files.items()]}
        content = b"".join(files.values())
    except UnusableSample as error:
        detail = HIDDEN_DETAIL if settings.deidentified else error.detail
        found |= {"reason": error.reason, "detail": detail}
    key = settings.content_key
    found["image"], found["masks"] = contents_of(record, key, found.get("image"))
    found["facts"] = facts_of(record, key)
    if times_of(record) != times and "reason" not in found:
        raise DatasetError(
            f"{record.image}: it, or its mask, changes while it is read. Run the same command "
            "again when nobody writes there; what was finished is kept"
        )
    return found, content


def _convert(
    record: SourceRecord, settings: PrepareSettings
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Returns the files of a usable sample by extension, in order, and what its picture is like."""
    form = settings.image
    size, made = (form.height, form.width), convert(record.image, form)
    pixels, info = made.pixels, made.info
    files: dict[str, bytes] = {form.encoding: made.encoded}
    facts: dict[str, Any] = {"image": content_hash(made.content, settings.content_key)}
    remarks = [what for what in ("other_bits", "burned_in", "holds_more") if info.get(what)]
    if record.masks:
        turn = info["orientation"]
        whole, counts = read_mask(
            record, made.shape, form.max_pixels, settings.mask_rule, turn, settings.classes
        )
        kind: Literal["binary", "classes"] = (
            "classes" if record.mask_kind == "classes" else "binary"
        )
        mask = resize_mask(whole, size, form.fit, kind)
        files["mask.png"] = encode_mask_png(mask)
        facts["target_share"] = float(target_pixels(mask, kind).mean())
        had_target = target_pixels(whole, kind).any()
        counts["lost"] = int(had_target and not facts["target_share"])
        remarks += [what for what, count in counts.items() if count]
    files["json"] = _described(record, info)
    constant = bool(pixels.min() == pixels.max())
    facts |= {
        "pixels": None if constant else _picture_number(pixels, info.get("reduction", 1)),
        "constant": constant,
        "united_masks": len(record.masks) > 1,
        "remarks": sorted(set(remarks)),
    }
    return files, facts


def _described(record: SourceRecord, info: Mapping[str, Any]) -> bytes:
    """Returns what is packed of a sample beside its pixels."""
    description = {
        "source": record.name,
        "patient_id": record.patient_id,
        "labels": dict(record.labels),
        "findings": None if record.findings is None else dict(record.findings),
        "united_masks": len(record.masks),
        **info,
    }
    return json.dumps(description, sort_keys=True).encode()


def _picture_number(pixels: np.ndarray, reduction: int) -> int:
    """Returns 63 bits of a hash of a picture, grey whatever the colours of the packed images.

    Without a key also where files are hashed with one: whoever has the picture knows it by its
    look in the shards, and copies in datasets of other keys must be known. A reduced picture is
    none that is published at that size.
    """
    grey = pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))
    kind = f"{grey.shape}" if reduction == 1 else f"{grey.shape} reduced by {reduction}"
    digest = hashlib.blake2b(kind.encode(), digest_size=8)
    digest.update(np.ascontiguousarray(grey).data)
    return int.from_bytes(digest.digest()) >> 1
