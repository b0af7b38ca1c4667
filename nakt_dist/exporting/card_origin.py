"""What a model card says of data, labels, exclusions and teachers."""

import json
from collections.abc import Iterator, Sequence

from nakt_dist.records.evaluation_set import describe_splits
from nakt_dist.records.lineage import (
    ANNOTATIONS,
    NO_LABELS,
    PSEUDO_FINDINGS,
    RANDOM,
    Lineage,
    Network,
    TrainingSet,
)
from nakt_dist.report.document import NOTHING, Block, Bullets, Column, Paragraph, tabulate
from nakt_dist.report.roles import describe_confidence, describe_lineage, describe_rule
from nakt_dist.report.wording import describe_policy
from nakt_dist.signals.kind import Kind
from nakt_dist.sources.cards import DatasetCard

_PACKING_DIGITS = 12
_NOT_KNOWN = "not known"
_PATIENTS = (
    "Splits share no patient whom the dataset names; where it names none they are by image, and "
    "one patient's images may be in two."
)


def origin_blocks(lineage: Lineage, datasets: Sequence[DatasetCard] = ()) -> Iterator[Block]:
    """Yields all that is known of what a network learnt from.

    Args:
        datasets: the cards of some of its datasets.
    """
    if not lineage.is_whole:
        yield Paragraph(
            "Its weights file does not say what it learnt from: whether it met the images of any "
            "test cannot be known."
        )
        return
    yield Paragraph(f"It learnt from {describe_lineage(lineage)}.")
    yield _images(lineage)
    yield Bullets((*_facts(lineage), _PATIENTS))
    if datasets:
        yield _datasets(datasets)
    networks = _networks(lineage)
    if networks:
        yield tabulate(
            "Networks behind it",
            (
                Column("Network", lambda row: row[1].name or NOTHING),
                Column("As", lambda row: row[0]),
                Column("Learnt from", lambda row: row[1].learnt.label or _NOT_KNOWN),
                Column("SHA-256 of its weights", lambda row: row[1].weights_sha256 or _NOT_KNOWN),
            ),
            networks,
        )


def _datasets(cards: Sequence[DatasetCard]) -> Block:
    return tabulate(
        "Datasets of these names",
        (
            Column("Dataset", lambda each: each.name),
            Column("What it is", lambda each: each.title),
            Column("Images", lambda each: each.modality),
            Column("Where to get it", lambda each: each.source),
            Column("Its licence", lambda each: each.licence),
            Column("Cite", lambda each: each.citation),
            Column("Worth knowing", lambda each: each.notes or NOTHING),
        ),
        cards,
        ("As published; that the images above are these was not compared.",),
    )


def dataset_names(lineage: Lineage) -> tuple[str, ...]:
    """Names the datasets, no phantoms, of a network's trainings, of those before and teachers'."""
    followed = [each.learnt for each in lineage.teachers]
    parts = [part for each in (*reversed(lineage.trainings), *followed) for part in each.parts]
    return tuple(dict.fromkeys(each.dataset for each in parts if not each.phantom))


def _images(lineage: Lineage) -> Block:
    """Lists the images of every training, the first one first."""
    rows = [
        (number, part)
        for number, each in enumerate(reversed(lineage.trainings), 1)
        for part in each.parts
    ]
    return tabulate(
        "Images of its trainings",
        (
            Column("Training", lambda row: str(row[0])),
            Column("Dataset", lambda row: row[1].label),
            Column("Images", lambda row: _count(row[1])),
            Column("Splits", lambda row: _splits(row[1])),
            Column("Learnt of them", lambda row: _taught(row[1])),
            Column("Exclusion", lambda row: _exclusion(row[1])),
            Column("Packing", lambda row: row[1].fingerprint[:_PACKING_DIGITS] or NOTHING),
        ),
        rows,
    )


def _count(images: TrainingSet) -> str:
    if not images.samples:
        return _NOT_KNOWN
    of = f" of {images.before_exclusion:,}" if images.before_exclusion > images.samples else ""
    return f"{images.samples:,}{of}"


def _splits(images: TrainingSet) -> str:
    return describe_splits(images.splits) if images.splits_known else _NOT_KNOWN


def _taught(images: TrainingSet) -> str:
    if not images.samples:
        return _NOT_KNOWN
    if not images.teachers:
        return images.taught if images.taught == NO_LABELS else ANNOTATIONS
    return f"{images.taught} of {', '.join(each.label for each in images.teachers)}"


def _exclusion(images: TrainingSet) -> str:
    if not images.teachers:
        return NOTHING
    findings = images.taught == PSEUDO_FINDINGS
    return describe_confidence(images.confidence) if findings else describe_rule(images.exclusion)


def _facts(lineage: Lineage) -> Iterator[str]:
    yield from _first_weights(lineage)
    chosen = lineage.validated_on
    if chosen is None:
        yield "No validation set chose its epoch: these are the last epoch's weights."
    else:
        yield (
            f"Its epoch was chosen on {chosen.samples:,} images of {chosen.label}, "
            f"{_splits(chosen)}."
        )
    if json.loads(lineage.policy):
        yield f"Label policy: {'; '.join(describe_policy(lineage.policy).values())}."
    for part in lineage.learnt.parts:
        if part.policy:
            words = "; ".join(describe_policy(part.policy).values())
            yield f"Label policy of the images of {part.label}: {words}."
    for each in lineage.generations:
        if each.following is not None:
            kind: Kind = each.following.kind
            yield (
                f"It followed {each.following.teacher.label} by {kind.value.lower()}: "
                f"{each.following.settings}."
            )


def _first_weights(lineage: Lineage) -> Iterator[str]:
    """Says what each training began with, the last one first, as far as anybody says."""
    for each in lineage.generations:
        if each.parent is not None:
            name = each.parent.name or f"{each.parent.weights_sha256}"[:_PACKING_DIGITS]
            learnt = each.parent.learnt.label or "images that nobody names"
            began = f"those of “{name}”, which learnt from {learnt}"
        elif each.pretrained is not None:
            began = f"pretrained ones that a library brings ({each.pretrained})"
        elif each.learnt.fingerprint:
            began = RANDOM
        else:  # of a network that was not trained here
            continue
        yield f"First weights of the training on {each.learnt.label}: {began}."


def _networks(lineage: Lineage) -> list[tuple[str, Network]]:
    """Returns teachers and parents over all generations, each once, and what each was."""
    parents = [("start", each.parent) for each in lineage.generations if each.parent is not None]
    found: list[tuple[str, Network]] = [("teacher", each) for each in lineage.teachers]
    return list(dict.fromkeys([*found, *parents]))
