"""Says plainly what may not be compared among classifiers, and with paper B."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nakt_dist.records.evaluation_set import describe_splits
from nakt_dist.records.exposure import Exposure, warn, warn_of_teacher
from nakt_dist.records.fields import label_dataset, printable
from nakt_dist.records.lineage import Method
from nakt_dist.report import paper_auroc
from nakt_dist.report.document import WARNING
from nakt_dist.report.runs import FoundRecord
from nakt_dist.report.studies import Repeats, Setting, Study
from nakt_dist.report.telling import describe_packing, describe_policy
from nakt_dist.runtime.files import differing_fields
from nakt_dist.signals.kind import TRANSFER_LEARNING

# What may differ between runs that are counted as repetitions, or is said in a column's name.
_OF_THE_RUN = (
    "output", "seed", "init", "device", "workers", "threads", "memory_cache_megabytes",
    "checkpoint", "tracking", "log_keys", "teacher", "trainable", "frozen_bn_eval",
)  # fmt: skip
_OF_THE_DATA = ("dataset", "cache")
_MOST_NAMED = 4


def classifier_cautions(
    studies: Sequence[Study], trainings: Sequence[FoundRecord]
) -> tuple[str, ...]:
    """Returns what a reader must know before comparing classifiers with each other.

    Args:
        studies: all of them.
        trainings: records of ``nakt train``, for the settings of each run.
    """
    settings = {
        str(found.record.details.get("best_weights_sha256")): _deciding(found.record.config)
        for found in trainings
    }
    sentences = [*_meetings(studies), *_teachers_met(studies), *_without_validation(studies)]
    if len(studies) > 1:
        sentences.append(
            f"There are {len(studies)} test sets. Numbers compare within one of them only: "
            f"{'; '.join(_identify(study) for study in studies)}."
        )
    for study in studies:
        for setting, cell in study.cells.items():
            sentences += _unlike_starts(study, setting, cell)
            sentences += _unlike_repeats(study, setting, cell, settings)
            sentences += _unlike_methods(study, setting, cell, settings)
    if any(study.cells for study in studies):
        sentences += [
            "Intervals over seeds express the randomness of training, those over "
            "patients the choice of test images; neither expresses the choice of the training "
            "images or of the teacher.",
            "A student that follows a teacher profits from all images that the teacher learnt "
            "from; transfer learning does so only where its first weights come from them.",
        ]
    return tuple(dict.fromkeys(sentences))


def _meetings(studies: Iterable[Study]) -> Iterator[str]:
    for study in studies:
        for run in study.runs:
            own = {role: each for role, each in run.exposure.items() if role != "teacher"}
            for words in warn(own, "AUROC"):
                yield f"{WARNING} {run.name} on {study.label}: {words}."


def _teachers_met(studies: Sequence[Study]) -> Iterator[str]:
    """Says of each teacher whether it met the images its students are tested on."""
    for study in studies:
        unclear = set()
        for run in study.runs:
            teacher = None if run.lineage is None else run.lineage.method.teacher
            verdict = run.exposure["teacher"]
            if verdict.exposure is not Exposure.APART:
                unclear.add(teacher)
            if teacher is not None and verdict.exposure is not Exposure.SAME_PICTURES:
                subject = f"The teacher {teacher.label} of students tested on {study.label}"
                yield from (
                    f"{WARNING} {subject} {each}." for each in warn_of_teacher(verdict, "AUROC")
                )
            else:
                for words in warn({"teacher": verdict}, "AUROC"):
                    yield f"{WARNING} {run.name} on {study.label}: {words}."
        for teacher in dict.fromkeys(method.teacher for method in study.methods if method.teacher):
            learnt = teacher.learnt
            if learnt.fingerprint is None and learnt.dataset == study.tested_on.dataset:
                yield (
                    f"The teacher {teacher.label} learnt from {learnt.dataset}, as the test set "
                    "is called; whether from its test patients, no record here says."
                )
            elif teacher not in unclear and learnt.fingerprint == study.tested_on.fingerprint:
                yield (
                    f"The teacher {teacher.label} learnt from {describe_splits(learnt.splits)} "
                    f"of the packing tested here, and met no image of {study.label}."
                )


def _without_validation(studies: Sequence[Study]) -> Iterator[str]:
    runs = [run for study in studies for run in study.runs if run.lineage is not None]
    last = sorted({run.name for run in runs if run.lineage.validated_on is None})
    if last:
        yield (
            f"No validation set chose the epoch of {_list(last)}: these are the last epoch's "
            "weights."
        )


def _identify(study: Study) -> str:
    tested_on = study.tested_on
    facts = (
        f"{len(tested_on.findings)} findings",
        *describe_policy(tested_on.policy).values(),
        f"{tested_on.height} × {tested_on.width} pixels",
        describe_packing(tested_on.fingerprint),
    )
    return ", ".join([tested_on.label, *facts])


def _unlike_starts(study: Study, setting: Setting, cell: Mapping[Method, Repeats]) -> Iterator[str]:
    runs = [run for repeats in cell.values() for run in repeats.runs]
    weights = {run.lineage.start.weights_sha256 for run in runs} - {None}
    if len(weights) > 1:
        yield (
            f"{study.label_of(setting)}: the first weights called {setting.start.label} are "
            f"{len(weights)} different files."
        )


def _unlike_repeats(
    study: Study,
    setting: Setting,
    cell: Mapping[Method, Repeats],
    settings: Mapping[str, Mapping[str, Any]],
) -> Iterator[str]:
    """Finds runs counted as repetitions that differ in more than their seed."""
    for method, repeats in cell.items():
        known = [settings[run.weights_sha256] for run in repeats.runs
                 if run.weights_sha256 in settings]  # fmt: skip
        names = sorted({name for each in known for name in _names(known[0], each)})
        if names:
            yield (
                f"{study.label_of(setting)}, {study.name(method)}: runs counted as "
                f"repetitions differ in more than the seed: {_list(names)}."
            )


def _unlike_methods(
    study: Study,
    setting: Setting,
    cell: Mapping[Method, Repeats],
    settings: Mapping[str, Mapping[str, Any]],
) -> Iterator[str]:
    """Finds methods that were trained with other recipes than transfer learning of all layers."""
    first = next(iter(cell))
    if first.kind != TRANSFER_LEARNING:
        return
    ours = settings.get(cell[first].runs[0].weights_sha256)
    for method, repeats in cell.items():
        theirs = settings.get(repeats.runs[0].weights_sha256)
        names = _names(ours, theirs) if ours is not None and theirs is not None else []
        if names:
            yield (
                f"{study.label_of(setting)}: {study.name(method)} and "
                f"{study.name(first)} were also trained differently: {_list(names)}."
            )


def _deciding(config: Mapping[str, Any]) -> Mapping[str, Any]:
    plain = {name: value for name, value in config.items() if name not in _OF_THE_RUN}
    for part in ("data", "validation"):
        if isinstance(plain.get(part), Mapping):
            kept = plain[part].items()
            plain[part] = {name: value for name, value in kept if name not in _OF_THE_DATA}
    return plain


def _names(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    return [printable(each.split(":", 1)[0]) for each in differing_fields(first, second)]


def _list(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def differences_from_paper_b(studies: Sequence[Study]) -> tuple[str, ...]:
    """Returns why the figures of paper B beside ours are no yardstick."""
    sentences = []
    phantoms = {
        label
        for study in studies
        for phantom, label in (
            (study.tested_on.phantom, label_dataset(study.tested_on.dataset, True)),
            *((each.trained_on.phantom, each.trained_on.label) for each in study.cells),
            *(
                (each.phantom, label_dataset(each.learnt.dataset or each.name, True))
                for each in (method.teacher for method in study.methods)
                if each is not None
            ),
        )
        if phantom
    }
    if phantoms:
        sentences.append(
            f"{', '.join(sorted(phantoms))}: procedural images, not real data; their AUROC is "
            "neither better nor worse than one on patients, but another quantity. The paper's "
            "numbers stand beside none of them."
        )
    sizes = {(study.tested_on.height, study.tested_on.width) for study in studies}
    sizes -= {paper_auroc.IMAGE_SIZE}
    if sizes:
        ours = " and ".join(f"{height} × {width}" for height, width in sorted(sizes))
        sentences.append(f"Images here have {ours} pixels, the paper's 256 × 256.")
    networks = {each.network for study in studies for each in study.cells}
    other = sorted(each.label for each in networks if each.label != each.paper_name)
    if other:
        sentences.append(f"Not the paper's networks, or not as it builds them: {', '.join(other)}.")
    sentences.append(
        "The paper prints means over three repetitions; which images it drew, and its teacher's "
        "weights, are not public, so no number here repeats one of its experiments."
    )
    return tuple(sentences)
