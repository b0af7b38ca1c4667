"""Whether a network has met the images it is tested on: the one judge for every command and page.

A network meets images in four roles: ``training`` (it learnt from them), ``validation`` (its best
epoch was chosen on them), ``parents`` (the weights it was started from, or those before, learnt
from them or were chosen on them) and ``teacher`` (a teacher of its own or of its parents met them
in any of these roles).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.fields import read_if_there
from nakt_dist.records.lineage import NOT_KNOWN, NOT_SAID, Lineage, Lineages, TrainingSet
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.records.run_record import RunRecord
from nakt_dist.shards.pictures import PICTURES_NAME, ROLES, PicturesMet

MET = "met_test_images"
"""Where a record says in which roles images were met: true, false or null."""
_HOW = {
    "training": "learnt from",
    "parents": "started from weights that learnt from",
    "validation": "has its best epoch chosen on",
    "teacher": "followed a teacher that learnt from",
}
_HOW_CHOSEN = {
    "parents": "started from weights whose best epoch was chosen on",
    "teacher": "followed a teacher whose best epoch was chosen on",
}


class Exposure(Enum):
    """Whether images that something was learnt from are images of the test set, gravest first."""

    SAME_SPLITS = "the very splits {} tested on"
    SAME_PICTURES = "images that {} tested on"
    SPLITS_UNKNOWN = "the dataset of the test, from which splits is not known"
    OTHER_PACKING = "another packing of the test set"
    SAME_NAME = "a dataset called as the test set"
    UNKNOWN = "images that nobody knows"
    APART = "other images"

    @property
    def is_met(self) -> bool:
        """Whether images of the test are known to have been met."""
        return self in (Exposure.SAME_SPLITS, Exposure.SAME_PICTURES)

    def of_test(self, who: str) -> str:
        """Says which images they are, as of those who ``"it was"`` or ``"they were"`` tested on."""
        return self.value.format(who)

    @property
    def as_stored(self) -> bool | None:
        """Returns True or False, or None where the lineage cannot tell."""
        return True if self.is_met else False if self is Exposure.APART else None


@dataclass(frozen=True)
class Verdict:
    """How a network has met its test images in one role.

    Attributes:
        pseudo_masks: whether with pseudo masks alone, without their annotations.
        chosen: whether nothing was learnt from them: a parent's or teacher's best epoch was chosen.
    """

    exposure: Exposure
    pseudo_masks: bool = False
    chosen: bool = False

    @property
    def rank(self) -> tuple[int, bool, bool, int]:
        """Sorts the gravest first: what is met, with its annotations, by its splits."""
        order = list(Exposure).index(self.exposure)
        return (0 if self.exposure.is_met else order, self.pseudo_masks, self.chosen, order)

    def how(self, role: str) -> str:
        """Says what a network had to do with the images, such as ``"learnt from"``."""
        return _HOW_CHOSEN[role] if self.chosen else _HOW[role]


Verdicts = Mapping[str, Verdict]
"""By role."""

_OWN = ("training", "parents", "validation")
_WARNED = (
    Exposure.SAME_SPLITS,
    Exposure.SAME_PICTURES,
    Exposure.SPLITS_UNKNOWN,
    Exposure.OTHER_PACKING,
)


def judge(
    lineage: Lineage,
    tested: EvaluationSet,
    pictures: Collection[str] = (),
    unknown: Collection[str] = (),
    known: Lineages = NOT_KNOWN,
) -> Verdicts:
    """Finds out how a network may have met its test images, as far as is known.

    By lineage: images of the same packing are compared by their splits; those of a dataset of the
    same name that is packed otherwise may be of the same patients. By pictures: the same ones are
    met whatever the datasets are called, and to whatever size they were brought.

    Args:
        pictures: the roles in which pictures of the test set are known to have been met.
        unknown: the roles in which others may have been met than the lineage names.
        known: lineages by SHA-256 of the weights, of teachers whose own is not stored.
    """
    learnt = images_by_role(lineage, known)
    verdicts = {}
    for role, images in learnt.items():
        found = [
            Verdict(
                _compare(each.images, tested, role in unknown),
                bool(each.images.teachers),
                each.chosen,
            )
            for each in images
        ]
        if role in pictures:
            masks = bool(images) and all(each.images.teachers for each in images)
            # A teacher's pictures are stored without what it did with them.
            ways = {each.chosen for each in found if each.exposure.is_met}
            found.append(Verdict(Exposure.SAME_PICTURES, masks, ways == {True}))
        verdicts[role] = _gravest(found)
    return verdicts


def judge_record(record: RunRecord, tested: EvaluationSet, known: Lineages = NOT_KNOWN) -> Verdicts:
    """Judges what a record of ``nakt evaluate`` holds.

    Raises:
        DatasetError: a field is missing or wrong.
    """
    stored = read_if_there(record.details, "lineage", Mapping) or {}
    told = read_if_there(record.details, MET, Mapping) or {}
    met = [role for role in ROLES if read_if_there(record.details, f"{MET}.{role}", bool)]
    unknown = [role for role in ROLES if role in told and told[role] is None]
    return judge(read_lineage(stored, known, lenient=True), tested, met, unknown, known)


def join(first: Verdicts, second: Verdicts) -> Verdicts:
    """Returns the graver of two verdicts in each role."""
    return {role: _gravest((first[role], second[role])) for role in first}


@dataclass(frozen=True)
class Met:
    """Images that a network met.

    Attributes:
        chosen: whether only the best epoch of a parent or teacher was chosen on them.
    """

    images: TrainingSet
    chosen: bool = False


def images_by_role(lineage: Lineage, known: Lineages = NOT_KNOWN) -> dict[str, list[Met]]:
    """Returns the images that a network met by role, over all generations.

    Returns:
        An empty list where there were none; images without a name where nobody says which.
    """
    if not lineage.is_whole:
        return {role: list(_met(lineage.learnt)) for role in ROLES}
    own, *before = lineage.generations
    return {
        "training": list(_met(own.learnt)),
        "validation": [Met(own.validated_on)] if own.validated_on else [],
        "parents": list(_met_by(before)),
        "teacher": list(_met_by_teachers(lineage, known)),
    }


def _met(images: TrainingSet) -> Iterator[Met]:
    return map(Met, images.parts)


def _met_by(generations: Iterable[Lineage]) -> Iterator[Met]:
    for each in generations:
        yield from _met(each.learnt)
        if each.validated_on:
            yield Met(each.validated_on, chosen=True)


def _met_by_teachers(student: Lineage, known: Lineages) -> Iterator[Met]:
    """Yields what the teachers of a network met, and the teachers of those, each once."""
    pending, seen = [student], set()
    while pending:
        lineage = pending.pop()
        first = lineage.generations[-1]
        if first.trained_on is None and not first.is_whole:
            yield Met(NOT_SAID)
        for teacher in lineage.teachers:
            weights, found = teacher.weights_sha256, teacher.lineage
            if not found.is_whole:
                found = known.get(weights or "", found)
            if found.is_whole and weights is not None:
                if weights in seen:  # one teacher may have taught many, and by damage itself
                    continue
                seen.add(weights)
            yield from _met_by(found.generations)
            pending.append(found)


def _compare(learnt: TrainingSet, tested: EvaluationSet, others_possible: bool) -> Exposure:
    """Compares images by the names and splits of their packings.

    Args:
        others_possible: whether another packing may hold the same images, unseen.
    """
    if learnt.fingerprint != tested.fingerprint:
        if learnt.dataset == tested.dataset:
            return Exposure.OTHER_PACKING if learnt.fingerprint else Exposure.SAME_NAME
        known = learnt.dataset and not others_possible
        return Exposure.APART if known else Exposure.UNKNOWN
    if tested.splits is None:
        return Exposure.SAME_SPLITS
    if not learnt.splits_known:
        return Exposure.SPLITS_UNKNOWN
    apart = learnt.splits is not None and not set(learnt.splits) & set(tested.splits)
    return Exposure.APART if apart else Exposure.SAME_SPLITS


def _gravest(verdicts: Iterable[Verdict]) -> Verdict:
    return min(verdicts, key=lambda each: each.rank, default=Verdict(Exposure.APART))


def describe_exposure(
    verdicts: Verdicts, name: str, test_set: str, counts: Mapping[str, int | None], images: int
) -> list[str]:
    """Says in a sentence each how a network may have met its test images.

    Args:
        test_set: what to call the test set.
        counts: how many of its images were met by role, from ``PicturesMet.count``.
        images: how many it has.
    """
    sentences = []
    for role, verdict in verdicts.items():
        if verdict.exposure.is_met:
            sentences.append(
                f"'{name}' {verdict.how(role)} images that it is tested on ({test_set}): the "
                f"result {'may be' if verdict.chosen else 'is'} too high"
                f"{f'; they are {n} of its {images} images' if (n := counts[role]) else ''}"
            )
        elif verdict.exposure in (*_WARNED, Exposure.SAME_NAME):
            sentences.append(
                f"'{name}' {verdict.how(role)} images of a dataset called as that of its test set "
                f"({test_set}), which its lineage does not tell apart: patients may be shared"
            )
    return sentences


def describe_unknown(
    lineage: Lineage, fingerprint: str, verdicts: Verdicts, met: PicturesMet, images: str = "test"
) -> list[str]:
    """Says, in a sentence or none, that pictures of other packings are not known of a network.

    Args:
        fingerprint: of the manifest of the images in question.
        met: the pictures that it is known to have met.
        images: what to call the images in question.
    """
    roles = [
        role
        for role, learnt in images_by_role(lineage).items()
        if role in met.unknown
        and not verdicts[role].exposure.is_met
        and any(each.images.dataset and each.images.fingerprint != fingerprint for each in learnt)
    ]
    if not roles:
        return []
    lost = f"does not hold all that its {' and '.join(roles)} met"
    return [
        f"{PICTURES_NAME} {lost if met.are_kept else 'is not beside the weights'}: whether "
        f"{images} images were met in another packing cannot be known"
    ]


def warn(verdicts: Verdicts, score: str, labels: str = "") -> tuple[str, ...]:
    """Says for a page how a network, and a teacher, may have met the test images.

    Args:
        score: what is too high then, such as ``"Dice"``.
        labels: what was learnt of the images, such as ``"annotations of "``.

    Returns:
        The gravest of what the network met itself, and what its teachers met.
    """
    warned = {role: each for role, each in verdicts.items() if each.exposure in _WARNED}
    own = sorted(warned.keys() - {"teacher"}, key=lambda role: _gravity(role, warned[role]))
    roles = (*own[:1], *(warned.keys() & {"teacher"}))
    return tuple(
        f"{warned[role].how(role)} {_warning(role, warned[role], score, labels)}" for role in roles
    )


def warn_of_teacher(verdict: Verdict, score: str) -> tuple[str, ...]:
    """Says of a teacher which images it met that its students are tested on, or nothing."""
    exposure = verdict.exposure
    if exposure not in _WARNED:
        return ()
    how = "has its best epoch chosen on" if verdict.chosen else "learnt from"
    return (f"{how} {exposure.of_test('they were')}{_so(True, exposure, score)}",)


def _gravity(role: str, verdict: Verdict) -> tuple[int, int]:
    if verdict.exposure.is_met and not verdict.pseudo_masks:
        grave = int(role == "validation" or verdict.chosen)
    else:
        grave = 3 if verdict.pseudo_masks or role == "validation" or verdict.chosen else 2
    return grave, _OWN.index(role)


def _warning(role: str, verdict: Verdict, score: str, labels: str) -> str:
    exposure, masks = verdict.exposure, verdict.pseudo_masks and role != "teacher"
    images = exposure.of_test("it was")
    if masks:
        images = "its test images" if exposure is Exposure.SAME_SPLITS else images
        images += " with pseudo masks, without their annotations"
    elif (
        role in ("training", "parents")
        and not verdict.chosen
        and exposure is not Exposure.SAME_PICTURES
    ):
        images = f"{labels}{images}"
    if masks and exposure.is_met:
        return images
    return f"{images}{_so(role == 'teacher' or verdict.chosen, exposure, score)}"


def _so(is_indirect: bool, exposure: Exposure, score: str) -> str:
    """Says what follows from an exposure."""
    if exposure.is_met:
        return f": {score} may be too high" if is_indirect else f": its {score} is too high"
    return ": patients may be shared" if exposure is Exposure.OTHER_PACKING else ""
