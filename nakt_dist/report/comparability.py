"""Says plainly what may not be compared: with the paper, and between the runs themselves."""

from collections.abc import Iterable, Iterator, Sequence

from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.fields import label_dataset, read_field
from nakt_dist.records.lineage import TrainingSet
from nakt_dist.report import paper
from nakt_dist.report.evaluations import EvaluatedRun
from nakt_dist.report.roles import Role
from nakt_dist.report.runs import Collection, FoundRecord
from nakt_dist.report.unlike_inputs import unlike_inputs

PHANTOM_NOTICE = (
    "Images marked (phantom) are drawn by a program. Their numbers show that the method and the "
    "software work; they say nothing about patients, and nothing about any hospital's images."
)


def uses_phantoms(collection: Collection) -> bool:
    """Says whether any image behind the report is procedural."""
    tested = any(run.tested_on.phantom for run in collection.evaluations)
    learnt = any(
        (learnt is not None and learnt.phantom) or (following and following.teacher.phantom)
        for run in collection.evaluations
        for learnt, following in (
            (each.trained_on, each.following) for each in run.lineage.generations
        )
    )
    classified = any(run.uses_phantoms for run in collection.classified)
    return (
        tested
        or learnt
        or classified
        or any(pseudo.manifest.phantom for pseudo in collection.pseudo_sets)
    )


def differences_from_paper(collection: Collection) -> tuple[str, ...]:
    """Returns one or more sentences on why the paper's figures beside ours are no yardstick."""
    runs = collection.evaluations
    sentences = [
        "The paper's teacher learnt from an in-house set of "
        f"{paper.TEACHER_IMAGES:,} breast ultrasound images that is not public. No number here "
        "repeats an experiment of the paper; its figures are shown as a landmark."
    ]
    sentences += _stand_ins(runs)
    sentences += _test_sets(runs)
    sentences += _image_sizes(runs)
    sentences += _networks(runs)
    sentences += _transferal_sets(runs)
    sentences += _lengths(collection.trainings)
    return tuple(sentences)


def _trainings(runs: Iterable[EvaluatedRun]) -> list[TrainingSet]:
    return list(dict.fromkeys(training for run in runs for training in run.lineage.trainings))


def _stand_ins(runs: Sequence[EvaluatedRun]) -> Iterator[str]:
    """Names which of our datasets stand beside which of the paper's."""
    ours = {(each.dataset, each.phantom) for each in _trainings(runs)}
    ours |= {(run.tested_on.dataset, run.tested_on.phantom) for run in runs}
    pairs = [
        f"{label_dataset(*each)} beside {paper.dataset_name(each[0])}"
        for each in sorted(ours)
        if paper.dataset_name(each[0]) is not None
    ]
    if pairs:
        yield (
            f"Judged by their names alone, these stand beside each other: {'; '.join(pairs)}. "
            "They are not the same images."
        )
    phantoms = sorted(label_dataset(*each) for each in ours if each[1])
    if phantoms:
        yield (
            f"{', '.join(phantoms)}: procedural images, not real data; their Dice is neither "
            "better nor worse than one on patients, but another quantity."
        )


def _test_sets(runs: Sequence[EvaluatedRun]) -> Iterator[str]:
    for tested_on in _tested(runs):
        here = max(run.images for run in runs if run.tested_on == tested_on)
        theirs = paper.counterpart_test_sets(tested_on.dataset)
        counts = [
            f"{name} {paper.TEST_IMAGES[name]}" for name in theirs if name in paper.TEST_IMAGES
        ]
        if counts:
            which = (
                " The first comes from the source its teacher learnt from, the second from another "
                "hospital; compare with the one that fits the teacher here."
            )
            yield (
                f"Test set {tested_on.label}: {here} images here; in the paper "
                f"{' and '.join(counts)}.{which if len(counts) > 1 else ''}"
            )


def _image_sizes(runs: Sequence[EvaluatedRun]) -> Iterator[str]:
    sizes = {(each.height, each.width) for each in _tested(runs)} - {paper.IMAGE_SIZE}
    if sizes:
        ours = " and ".join(f"{height} × {width}" for height, width in sorted(sizes))
        yield (
            f"Images here have {ours} pixels, the paper's 384 × 384: smaller images lose the "
            "outline's detail, and α, counted in pixels, is another share of the image unless "
            "it is scaled."
        )


def _networks(runs: Sequence[EvaluatedRun]) -> Iterator[str]:
    networks = {run.network for run in runs}
    encoders = {
        network.encoder
        for network in networks
        if network.paper_name and network.encoder not in (None, paper.ENCODER)
    }
    if encoders:
        yield (
            f"Encoder {', '.join(sorted(encoders))} here, where the paper's networks of that name "
            f"have {paper.ENCODER}: another, usually lighter, network."
        )
    other = {
        network.label
        for network in networks
        if network.paper_name is None
        or (network.encoder is None and network.label != network.paper_name)
    }
    if other:
        yield f"Not the paper's networks, or not with its widths: {', '.join(sorted(other))}."


def _transferal_sets(runs: Sequence[EvaluatedRun]) -> Iterator[str]:
    counts: dict[tuple[str, bool], set[int]] = {}
    for training in _trainings(runs):
        if training.teachers and paper.find_exclusion(training.dataset) is not None:
            name = (training.dataset, training.phantom)
            counts.setdefault(name, set()).add(training.before_exclusion)
    for (dataset, phantom), ours in counts.items():
        yield (
            f"Students had {_range(ours)} images of {label_dataset(dataset, phantom)} to learn "
            f"from before exclusion; the paper's had {paper.find_exclusion(dataset)[0]:,} of "
            f"{paper.dataset_name(dataset)}."
        )
    annotated = {
        run.lineage.trainings[0].samples
        for run in runs
        if run.role in (Role.FROM_SCRATCH, Role.FINE_TUNED_STUDENT, Role.FINE_TUNED_TEACHER)
    }
    if annotated - {paper.ANNOTATED_IMAGES}:
        here = ", ".join(map(str, sorted(annotated)))
        yield f"Annotated images for fine-tuning: {here} here, {paper.ANNOTATED_IMAGES} there."


def _lengths(trainings: Sequence[FoundRecord]) -> Iterator[str]:
    lengths = {name: _recipe_numbers(trainings, name) for name in ("epochs", "steps")}
    ours = [f"{_range(values)} {name}" for name, values in lengths.items() if values]
    here = f"{' or '.join(ours)} here" if ours else "not known here, no training record was given"
    yield f"Length of training: {here}; the paper: {paper.EPOCHS}, on more images."


def _recipe_numbers(trainings: Sequence[FoundRecord], name: str) -> set[int]:
    recipes = [found.record.config.get("recipe") for found in trainings]
    numbers = [recipe.get(name) for recipe in recipes if isinstance(recipe, dict)]
    return {number for number in numbers if isinstance(number, int)}


def _range(values: set[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def cautions(collection: Collection) -> tuple[str, ...]:
    """Returns what a reader must know before comparing these runs with each other."""
    runs = collection.evaluations
    tested = _tested(runs)
    sentences = list(meetings(runs))
    if len(tested) > 1:
        sentences.append(
            f"There are {len(tested)} test sets or ways of scoring. Numbers compare within one of "
            f"them only: {'; '.join(_identify(each) for each in tested)}."
        )
    sentences += unlike_inputs(collection.records)
    chosen = [found.record.name for found in collection.trainings if _chose_the_best(found)]
    if chosen:
        sentences.append(
            "These networks are their best epoch's by Dice on a validation set: "
            f"{', '.join(sorted(set(chosen)))}. Validation and test images should be apart."
        )
    students = [run for run in runs if run.role == Role.STUDENT]
    taught = [found for found in collection.trainings if _was_taught(found)]
    if len({run.excluded for run in students}) == 2 and _recipe_numbers(taught, "epochs"):
        sentences.append(
            "Training is counted in epochs, as in the paper: students with exclusion took fewer "
            "steps than those without, which is part of any difference between them."
        )
    if any(run.images < 30 for run in runs):
        sentences.append(
            "Some test sets hold fewer than 30 images; their intervals are wide and rough."
        )
    sentences.append(
        "Intervals express the choice of test images only, not of the seed, the training images "
        "or the teacher: a difference smaller than them may be chance."
    )
    return tuple(sentences)


def meetings(runs: Sequence[EvaluatedRun]) -> Iterator[str]:
    """Says of each run that may have met its test images while it learnt how."""
    several = len(_tested(runs)) > 1
    for run in runs:
        seen = run.seen_before()
        if seen is not None:
            yield f"{run.name}{f' on {run.tested_on.label}' if several else ''}: {seen}."


def _chose_the_best(found: FoundRecord) -> bool:
    lineage = read_field(found.record.details, "lineage", dict)
    return lineage.get("validated_on") is not None


def _was_taught(found: FoundRecord) -> bool:
    lineage = read_field(found.record.details, "lineage", dict)
    return "teachers" in read_field(lineage, "trained_on", dict)


def _tested(runs: Iterable[EvaluatedRun]) -> list[EvaluationSet]:
    return list(dict.fromkeys(run.tested_on for run in runs))


def _identify(tested_on: EvaluationSet) -> str:
    return (
        f"{tested_on.label}, {tested_on.height} × {tested_on.width}, packing "
        f"{tested_on.fingerprint[:8]}, threshold {tested_on.threshold:g}, both empty "
        f"{tested_on.both_empty}"
    )
