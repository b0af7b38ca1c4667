"""The results in a few sentences, for a reader who reads nothing else."""

from collections.abc import Iterator, Mapping, Sequence

from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.report.capability import Capability, Transfer, students_of, transfer_of
from nakt_dist.report.document import WARNING
from nakt_dist.report.evaluations import SegmentationRun
from nakt_dist.report.roles import FOLLOWING, Role
from nakt_dist.report.telling import grouped


def summarise(
    evaluations: Sequence[SegmentationRun], capabilities: Mapping[Transfer, Capability]
) -> tuple[str, ...]:
    """Returns a sentence per teacher, per transferal dataset and per effect."""
    several = len({run.tested_on for run in evaluations}) > 1
    return (
        *_teachers(evaluations, several),
        *_transfers(capabilities, several),
        *_effects_of_exclusion(evaluations, several),
        *_fine_tuning(evaluations, several),
        *_following(evaluations, several),
    )


def _where(run: SegmentationRun, several: bool) -> str:
    return f" on {run.tested_on.label}" if several else ""


def _warning(*runs: SegmentationRun) -> str:
    """Says of each run that may have met its test images how, behind its number."""
    seen = {run.name: run.warning for run in runs}
    return "".join(f" {WARNING} {name}: {words}." for name, words in seen.items() if words)


def _teachers(evaluations: Sequence[SegmentationRun], several: bool) -> Iterator[str]:
    for run in evaluations:
        if run.role == Role.TEACHER:
            yield (
                f"Teacher “{run.name}”, {run.network.label}: Dice {run.dice} %"
                f"{_where(run, several)}.{_warning(run)}"
            )


def _transfers(capabilities: Mapping[Transfer, Capability], several: bool) -> Iterator[str]:
    for transfer, capability in capabilities.items():
        best = capability.best
        how = "with exclusion" if best.excluded else "without exclusion"
        share = (
            f"{capability.percent:.1f} % of its teacher's"
            if capability.percent is not None
            else f"there is no KTC: {capability.reason}"
        )
        which = (
            "the only student"
            if capability.students == 1
            else (f"the best of {capability.students} students")
        )
        yield (
            f"{transfer.dataset} as transferal dataset, its annotations unused: {which}, "
            f"“{best.name}”, {best.network.label} {how}, reaches {best.dice} %"
            f"{_where(best, several)}; {share}.{_warning(best)}"
        )


def _effects_of_exclusion(evaluations: Sequence[SegmentationRun], several: bool) -> Iterator[str]:
    """Compares networks trained with and without exclusion, one run each."""
    groups = grouped(students_of(evaluations), lambda run: (transfer_of(run), run.network))
    for (transfer, network), runs in groups.items():
        if sorted(run.excluded for run in runs) == [False, True]:
            without, with_rule = sorted(runs, key=lambda run: run.excluded)
            counts = [run.lineage.learnt.samples for run in (without, with_rule)]
            change = f"{with_rule.mean - without.mean:+.1f}".replace("-", "−")
            yield (
                f"Exclusion changes the mean Dice of {network.label}, taught on "
                f"{transfer.dataset}, by {change} points{_where(without, several)} "
                f"({counts[0]} images without, {counts[1]} with)."
                f"{_warning(without, with_rule)}"
            )


def _fine_tuning(evaluations: Sequence[SegmentationRun], several: bool) -> Iterator[str]:
    """Compares the best fine-tuned student with the best network that learnt from scratch."""
    roles = (Role.FINE_TUNED_STUDENT, Role.FROM_SCRATCH)

    def annotated(run: SegmentationRun) -> tuple[EvaluationSet, str, int]:
        last = run.lineage.trainings[0]
        return run.tested_on, last.fingerprint, last.samples

    groups = grouped((run for run in evaluations if run.role in roles), annotated)
    for (_, _, samples), runs in groups.items():
        sides = grouped(runs, lambda run: run.role)
        if len(sides) == 2:
            tuned, scratch = (max(sides[role], key=lambda run: run.mean) for role in roles)
            yield (
                f"Fine-tuned on {samples} annotated images, the best student reaches "
                f"{tuned.dice} % (“{tuned.name}”); trained from scratch on them, the best network "
                f"reaches {scratch.dice} % (“{scratch.name}”){_where(tuned, several)}."
                f"{_warning(tuned, scratch)}"
            )


def _following(evaluations: Sequence[SegmentationRun], several: bool) -> Iterator[str]:
    """Puts students that followed a teacher beside networks from scratch on the same images."""
    for run in evaluations:
        last, following = run.lineage.learnt, run.lineage.following
        if following is None or run.role not in FOLLOWING.values():
            continue
        alike = [
            each
            for each in evaluations
            if each.role == Role.FROM_SCRATCH
            and each.tested_on == run.tested_on
            and each.network == run.network
            and last == each.lineage.learnt
        ]
        how = following.kind.value.lower()
        sentence = (
            f"“{run.name}”, {run.network.label}, which follows the teacher "
            f"{following.teacher.label} ({how}) on {last.samples} annotated images, reaches "
            f"{run.dice} %{_where(run, several)}"
        )
        best = max(alike, key=lambda each: each.mean, default=None)
        if best is None:
            yield f"{sentence}.{_warning(run)}"
        else:
            yield (
                f"{sentence}; from scratch on them, {best.dice} % (“{best.name}”)."
                f"{_warning(run, best)}"
            )
