"""From the folder of a study to what is committed of it; unlike things are refused together."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from benchmarks.comparing import machine
from benchmarks.reproduction.mask_quality import judge_measures
from benchmarks.reproduction.per_image import DiceReader, PlacesReader, numbered
from benchmarks.reproduction.records import Curve, Records, Run
from nakt_dist.config.saving import CONFIG_NAME
from nakt_dist.config.yaml_files import load_settings_file
from nakt_dist.errors import DatasetError
from nakt_dist.records.lineage import Lineage
from nakt_dist.records.lineage_reading import parse_rule
from nakt_dist.records.pseudo_sets import ALL_SPLITS, read_pseudo_set
from nakt_dist.report import paper
from nakt_dist.report.auroc_curves import read_auroc_curve
from nakt_dist.report.evaluations import ClassifierRun, Evaluation, FoundRecord, SegmentationRun
from nakt_dist.report.roles import describe_rules
from nakt_dist.report.runs import Collection, LeftOut, collect, read_each
from nakt_dist.runtime.files import read_json
from nakt_dist.runtime.tracking import METRICS_NAME
from nakt_dist.stages.inspect import COUNTS_NAME
from nakt_dist.studies.folder import Plan, PlannedRun, StudyFolder
from nakt_dist.transfer.exclusion import ExclusionRule

AS_PRINTED, CALIBRATED, EXPECTED_DICE = "as printed", "calibrated", "expected Dice"
RULES = (CALIBRATED, EXPECTED_DICE, AS_PRINTED)
"""The paper's thresholds; β found, or in its place the smallest expected Dice."""
_UNPLANNED = "the study does not plan it, so that nobody can say what it varies"
_DIGITS = 8
_WEIGHTS = ("best_weights_sha256", "last_weights_sha256")


def collect_study(root: Path, plan: Plan, commit: str, ran_on: str | None = None) -> Records:
    """Collects the evaluations that are done in the folder of a study.

    Args:
        plan: of the whole study, which may have grown since the folder was begun.
        commit: of the code that collects.
        ran_on: the kind of machine that the study ran on; None for one like this.

    Raises:
        DatasetError: nothing is done yet, there are evaluations of both tasks, or runs are not of
            the same versions, or of phantoms and of images.
    """
    found = collect([root])
    evaluations: tuple[Evaluation, ...] = (*found.evaluations, *found.classified)
    if found.evaluations and found.classified:
        raise DatasetError(f"{root}: evaluations of masks and of findings; expected those of one")
    left_out = list(found.left_out)
    axes = {run.name: run.axes for run in plan.runs}
    left_out += [
        LeftOut(each.place, _UNPLANNED) for each in evaluations if _name_in(each) not in axes
    ]
    runs = [
        _Collected(each, found, axes[_name_in(each)])
        for each in evaluations
        if _name_in(each) in axes
    ]
    _refuse_unlike(root, evaluations, found.records)
    read = DiceReader() if found.evaluations else PlacesReader(found.classified)
    values = {each.run.name: read_each([each.evaluation], read, left_out) for each in runs}
    kept = sorted((each for each in runs if values[each.run.name]), key=lambda it: it.run.name)
    numbers = read.numbers()
    return Records(
        about={"commit": commit, "machine": ran_on or _this_machine()}
        | _about(root, plan, kept, found, left_out),
        runs=tuple(each.run for each in kept),
        values={each.run.name: numbered(*values[each.run.name][0], numbers) for each in kept},
        images=read.images(numbers),
        curves={each.run.name: each.curve for each in kept if each.curve is not None},
    )


def _about(
    root: Path,
    plan: Plan,
    kept: Sequence["_Collected"],
    found: Collection,
    left_out: Sequence[LeftOut],
) -> dict[str, Any]:
    planned = [run for run in plan.runs if run.stage == "evaluate"]
    done = {each.run.name for each in kept}
    states = [StudyFolder(root).read_state(run.name) for run in planned if run.name in done]
    ended = [state.ended for state in states if state is not None and state.ended is not None]
    day = time.strftime("%Y-%m-%d", time.gmtime(max(ended) if ended else None))
    return {
        "study": plan.name,
        "last_run": day,
        "versions": {name: each for name, (each,) in sorted(_versions(found.records).items())},
        "phantom": any(each.evaluation.uses_phantoms for each in kept),
        "planned": len(planned),
        "done": len(kept),
        "not_run_yet": {run.name: dict(run.axes) for run in planned if run.name not in done},
        "kept": [count for run in plan.runs for count in _kept(root, run)],
        "judged_masks": judge_measures(root),
        "left_out": [f"{each.place}: {each.reason}" for each in left_out],
    }


def _this_machine() -> str:
    told = machine()
    return str(told["gpu"] or f"{told['cores']} cores of {told['processor']}")


def _kept(root: Path, run: PlannedRun) -> Iterable[dict[str, Any]]:
    """Yields what a rule leaves of a set of pseudo-labels, as ``nakt inspect`` has counted it.

    Besides, whether β judges size: Spearman's correlation of entropy and target pixels over the
    images of the set, None where either is alike in all.
    """
    folder = root / run.name
    if run.stage != "inspect" or not (folder / COUNTS_NAME).is_file():
        return
    config = load_settings_file(folder / CONFIG_NAME)
    counts = read_json(folder / COUNTS_NAME, "counts of an exclusion")["images"][ALL_SPLITS]
    # The study may lie elsewhere by now than where it ran.
    (name,) = (each for each in run.needs if config["pseudo_labels"].endswith(f"/{each}"))
    pseudo = read_pseudo_set(root / name)
    ranks = [rankdata(each) for each in (pseudo.entropy, pseudo.target_pixels)]
    alike = any(np.ptp(each) == 0 for each in ranks)
    yield {
        "name": run.name,
        "transferal": pseudo.manifest.dataset,
        "entropy_by_size": None if alike else round(float(np.corrcoef(ranks)[0, 1]), 4),
        "rule": _kind_of_rules([parse_rule(config["exclusion"])]),
        "before": counts["before"],
        "after": counts["after"],
    }


def _refuse_unlike(
    root: Path, evaluations: Iterable[Evaluation], records: Sequence[FoundRecord]
) -> None:
    phantom = {each.uses_phantoms for each in evaluations}
    if len(phantom) > 1:
        raise DatasetError(f"{root}: runs of phantoms and of images; expected one of both")
    for package, several in _versions(records).items():
        if len(several) > 1:
            raise DatasetError(
                f"{root}: runs of different versions of {package} ({', '.join(sorted(several))}); "
                "expected one. Run what differs again, or collect it from another root"
            )


def _versions(records: Iterable[FoundRecord]) -> dict[str, set[str]]:
    """Returns the versions of each package that any of the runs names."""
    found: dict[str, set[str]] = {}
    for each in records:
        for package, version in each.record.versions.items():
            found.setdefault(package, set()).add(version)
    return found


def _name_in(evaluation: Evaluation) -> str:
    return evaluation.place.split("/", 1)[-1]


class _Collected:
    """An evaluation, its line, and the curve of the training behind it."""

    def __init__(self, evaluation: Evaluation, found: Collection, axes: Mapping[str, str]) -> None:
        self.evaluation = evaluation
        training = _training_of(evaluation.weights_sha256, found)
        self.run = _describe(evaluation, found, training, axes)
        self.curve = None if training is None else _curve(training)


def _training_of(weights: str | None, found: Collection) -> FoundRecord | None:
    for training in (*found.trainings, *found.classifier_trainings):
        if weights in [training.record.details.get(name, "") for name in _WEIGHTS]:
            return training
    return None


def _describe(
    evaluation: Evaluation,
    found: Collection,
    training: FoundRecord | None,
    axes: Mapping[str, str],
) -> Run:
    lineage = evaluation.lineage
    transfer, method = lineage.transfer, lineage.method
    teachers = list(dict.fromkeys(lineage.teachers))
    interval = _interval(evaluation)
    return Run(
        name=_name_in(evaluation),
        tested_on=evaluation.tested_on.dataset,
        role=_role(evaluation, found),
        network=evaluation.network.label,
        parameters=lineage.parameters,
        start=lineage.start.label,
        learnt=lineage.learnt.dataset,
        samples=lineage.learnt.samples,
        before=transfer.before_exclusion if transfer is not None else lineage.learnt.samples,
        rule=_kind_of_rule(lineage),
        exclusion="" if transfer is None else describe_rules(transfer),
        transferal="" if transfer is None else transfer.dataset,
        teachers=len(teachers),
        teacher_start=_joined(each.lineage.start.label for each in teachers),
        teacher_learnt=_joined(each.learnt.dataset or each.name for each in teachers),
        method=method.kind.value,
        parts=method.parts,
        settings=method.settings,
        steps=0 if training is None else int(training.record.details.get("steps") or 0),
        weights=evaluation.weights_sha256[:_DIGITS],
        taught_by=_joined(f"{each.weights_sha256}"[:_DIGITS] for each in teachers),
        size=evaluation.tested_on.height,
        seed=lineage.seed if training is None else int(training.record.config.get("seed") or 0),
        images=evaluation.images,
        mean=float(evaluation.mean),
        low=float(interval[0]),
        high=float(interval[1]),
        met="; ".join(evaluation.warnings),
        axes=dict(axes),
    )


def _joined(words: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(words))


def _interval(evaluation: Evaluation) -> tuple[float, float]:
    if isinstance(evaluation, SegmentationRun):
        return evaluation.interval
    assert isinstance(evaluation, ClassifierRun)
    return evaluation.result.interval or (float("nan"), float("nan"))


def _role(evaluation: Evaluation, found: Collection) -> str:
    if isinstance(evaluation, SegmentationRun):
        return evaluation.role.value
    students = {
        run.place
        for study in found.studies[0]
        for cell in study.cells.values()
        for repeats in cell.values()
        for run in repeats.runs
    }
    return "student" if evaluation.place in students else "other"


def _kind_of_rule(lineage: Lineage) -> str:
    """Says by which of ``RULES`` images were excluded."""
    return (
        _kind_of_rules(part.exclusion for part in lineage.transfer.parts)
        if lineage.transfer
        else ""
    )


def _kind_of_rules(rules: Iterable[ExclusionRule | None]) -> str:
    chosen = [rule for rule in rules if rule is not None]
    if not chosen:
        return ""
    if all(rule.smallest_expected_dice is not None for rule in chosen):
        return EXPECTED_DICE
    return AS_PRINTED if all(map(_is_printed, chosen)) else CALIBRATED


def _is_printed(rule: ExclusionRule) -> bool:
    printed = paper.EXCLUSION
    return rule.calibration is None and (rule.alpha, rule.beta) == (printed.alpha, printed.beta)


def _curve(training: FoundRecord) -> Curve | None:
    """Reads the validations of a classifier's training; None where there are none."""
    recipe, steps = training.record.config.get("recipe"), training.record.details.get("total_steps")
    epochs = recipe.get("epochs") if isinstance(recipe, Mapping) else None
    per_epoch = steps / epochs if epochs and steps else None
    try:
        read = read_auroc_curve(training.folder / METRICS_NAME, per_epoch)
    except DatasetError:  # masks, or a training without validation
        return None
    return Curve(read.places, read.loss, read.auroc)
