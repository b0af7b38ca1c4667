"""Says why the papers' figures beside ours are no yardstick."""

from collections.abc import Iterable, Iterator, Sequence

from nakt_dist.records.fields import label_dataset, sorted_json
from nakt_dist.records.lineage import TrainingSet
from nakt_dist.report import paper
from nakt_dist.report.evaluations import SegmentationRun
from nakt_dist.report.roles import Role
from nakt_dist.report.runs import Collection, FoundRecord
from nakt_dist.report.studies import Study
from nakt_dist.report.wording import describe_policy, grouped, show_range

_AS_THE_PAPER = ("{}", sorted_json({"uncertain": "zero", "blank": "zero"}))
"""Of a test whose labels are read as the paper does, or that does not say how."""


def differences_from_paper(collection: Collection) -> tuple[str, ...]:
    """Returns one or more sentences on how these runs differ from paper A's."""
    runs = collection.evaluations
    sizes = {(run.tested_on.height, run.tested_on.width) for run in runs}
    return (
        "The paper's teacher learnt from an in-house set of "
        f"{paper.TEACHER_IMAGES:,} breast ultrasound images that is not public. No number here "
        "repeats an experiment of the paper; its figures are shown as a landmark.",
        *_stand_ins(runs),
        *_test_sets(runs),
        *_image_sizes(sizes, paper.IMAGE_SIZE, _SMALLER_MASKS),
        *_networks(runs),
        *_transferal_sets(runs),
        *_lengths(collection.trainings),
    )


def differences_from_paper_b(studies: Sequence[Study]) -> tuple[str, ...]:
    """Returns one or more sentences on how these studies differ from paper B's."""
    settings = [setting for study in studies for setting in study.cells]
    teachers = [method.teacher for study in studies for method in study.methods if method.teacher]
    images = [
        *((each.dataset, each.phantom) for each in (study.tested_on for study in studies)),
        *((each.dataset, each.phantom) for each in (setting.trained_on for setting in settings)),
        *((each.learnt.dataset or each.name, each.phantom) for each in teachers),
    ]
    apart = " The paper's numbers stand beside none of them."
    sizes = {(study.tested_on.height, study.tested_on.width) for study in studies}
    networks = {setting.network for setting in settings}
    other = {each.label for each in networks if each.label != each.paper_name}
    return (
        *(f"{sentence}{apart}" for sentence in _phantoms(images, "AUROC")),
        *_image_sizes(sizes, paper.CHEST_IMAGE_SIZE),
        *_other_networks(other, "or not as it builds them"),
        *_findings(studies),
        "The paper prints means over three repetitions; which images it drew, and its teacher's "
        "weights, are not public, so no number here repeats one of its experiments.",
    )


def _findings(studies: Iterable[Study]) -> Iterator[str]:
    """Says where the mean is over other findings than the paper's, or labels are read otherwise."""
    for study in studies:
        tested_on = study.tested_on
        theirs = paper.CHEST_FINDINGS.get(paper.chest_dataset_name(tested_on.dataset) or "")
        if tested_on.phantom or theirs is None or not study.cells:
            continue
        counted = {run.result.counted for run in study.runs}
        if counted != {theirs}:
            yield (
                f"{study.label}: the mean AUROC is over {show_range(counted)} findings here, in "
                f"the paper over {theirs}."
            )
        if tested_on.policy not in _AS_THE_PAPER:
            words = "; ".join(describe_policy(tested_on.policy).values())
            yield f"{study.label}: {words}; the paper takes all of them for absent."


def _phantoms(images: Iterable[tuple[str, bool | None]], metric: str) -> Iterator[str]:
    """Says what a metric on procedural images is; takes names and whether they are phantoms."""
    phantoms = sorted({label_dataset(name, True) for name, phantom in images if phantom})
    if phantoms:
        yield (
            f"{', '.join(phantoms)}: procedural images, not real data; their {metric} is neither "
            "better nor worse than one on patients, but another quantity."
        )


_SMALLER_MASKS = (
    ": smaller images lose the outline's detail, and α, counted in pixels, is another share of "
    "the image unless it is scaled"
)


def _image_sizes(
    ours: set[tuple[int, int]], theirs: tuple[int, int], therefore: str = ""
) -> Iterator[str]:
    if ours - {theirs}:
        sizes = " and ".join(f"{height} × {width}" for height, width in sorted(ours - {theirs}))
        there = f"{theirs[0]} × {theirs[1]}"
        yield f"Images here have {sizes} pixels, the paper's {there}{therefore}."


def _other_networks(labels: set[str], how: str) -> Iterator[str]:
    if labels:
        yield f"Not the paper's networks, {how}: {', '.join(sorted(labels))}."


def _trainings(runs: Iterable[SegmentationRun]) -> list[TrainingSet]:
    """Returns the trainings behind these runs, source by source."""
    trainings = (training for run in runs for training in run.lineage.trainings)
    return list(dict.fromkeys(part for training in trainings for part in training.parts))


def _stand_ins(runs: Sequence[SegmentationRun]) -> Iterator[str]:
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
    yield from _phantoms(ours, "Dice")


def _test_sets(runs: Sequence[SegmentationRun]) -> Iterator[str]:
    for tested_on in dict.fromkeys(run.tested_on for run in runs):
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


def _networks(runs: Sequence[SegmentationRun]) -> Iterator[str]:
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
    yield from _other_networks(other, "or not with its widths")


def _transferal_sets(runs: Sequence[SegmentationRun]) -> Iterator[str]:
    taught = [training for training in _trainings(runs) if training.teachers]
    for label, trainings in grouped(taught, lambda training: training.label).items():
        dataset = trainings[0].dataset
        if (theirs := paper.find_exclusion(dataset)) is not None:
            yield (
                f"Students had {show_range(each.before_exclusion for each in trainings)} images of "
                f"{label} to learn from before exclusion; the paper's had {theirs[0]:,} of "
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
    lengths = {name: recipe_numbers(trainings, name) for name in ("epochs", "steps")}
    ours = [f"{show_range(values)} {name}" for name, values in lengths.items() if values]
    here = f"{' or '.join(ours)} here" if ours else "not known here, no training record was given"
    yield f"Length of training: {here}; the paper: {paper.EPOCHS}, on more images."


def recipe_numbers(trainings: Sequence[FoundRecord], name: str) -> set[int]:
    """Returns the whole numbers that recipes set, such as their ``epochs``."""
    recipes = [found.record.config.get("recipe") for found in trainings]
    numbers = [recipe.get(name) for recipe in recipes if isinstance(recipe, dict)]
    return {number for number in numbers if isinstance(number, int)}
