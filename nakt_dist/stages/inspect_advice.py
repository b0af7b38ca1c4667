"""What the statistics of pseudo masks say about the choice of α and β."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from nakt_dist.records.pseudo_sets import PseudoSet, RuleVerdict, apply_rule
from nakt_dist.report.roles import show_threshold
from nakt_dist.transfer.exclusion import REFERENCE_PIXELS, ExclusionRule

PERCENTS = (5, 25, 50, 75, 95)
_MOST_EXCLUDED = 0.8
_SHARE_TO_KEEP = 0.75


def percentiles(pseudo: PseudoSet) -> dict[str, dict[str, float]]:
    """Returns percentiles of N, E and the expected Dice over all samples, empty of none.

    Returns:
        ``{"target_pixels": {"5": …, …}, "entropy": {"5": …, …}, "expected_dice": …}``.
    """
    if not pseudo.statistics.num_rows:
        return {}
    columns = {
        "target_pixels": pseudo.target_pixels,
        "entropy": pseudo.entropy,
        "expected_dice": pseudo.statistics["expected_dice"].to_numpy(),
    }
    return {
        name: {
            str(percent): round(float(value), 3)
            for percent, value in zip(PERCENTS, np.percentile(values, PERCENTS), strict=True)
        }
        for name, values in columns.items()
    }


def show_percentiles(values: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns percentiles as lines of a small table."""
    if not values:
        return []
    lines = [f"{'percentile':<24}" + "".join(f"{percent:>10}" for percent in PERCENTS)]
    for name, title, digits in (
        ("target_pixels", "N, target pixels (α)", 0),
        ("entropy", "E, entropy in bits (β)", 2),
        ("expected_dice", "expected Dice", 2),
    ):
        shown = "".join(f"{values[name][str(percent)]:>10.{digits}f}" for percent in PERCENTS)
        lines.append(f"{title:<24}{shown}")
    return lines


def show_classes(counts: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns what ``count_by_class`` counted as lines of a small table."""
    if not counts:
        return []
    width = max(24, *map(len, counts))
    titles = ("before", "after", "median N", "median E")
    lines = [f"{'images with the class':<{width}}" + "".join(f"{each:>10}" for each in titles)]
    for name, each in counts.items():
        numbers = f"{each['before']:>10}{each['after']:>10}{each['target_pixels']:>10.0f}"
        lines.append(f"{name:<{width}}{numbers}{each['entropy']:>10.2f}")
    return lines


def advise(pseudo: PseudoSet, rule: ExclusionRule, verdict: RuleVerdict) -> list[str]:
    """Returns sentences on a rule that does not fit the masks; none where it may."""
    sentences = []
    manifest = pseudo.manifest
    height, width = manifest.height, manifest.width
    scaled = replace(rule, scale_alpha=True).alpha_at(height, width)
    # Only a size of another area changes the share that α is.
    if (
        rule.alpha is not None
        and scaled is not None
        and not rule.scale_alpha
        and (height * width != REFERENCE_PIXELS)
    ):
        sentences.append(
            f"These masks have {height} × {width} pixels: α = {show_threshold(rule.alpha)} is "
            f"{100 * rule.alpha / (height * width):.2g} % of each, but "
            f"{100 * rule.alpha / REFERENCE_PIXELS:.2g} % at 384 × 384, where the paper states "
            f"it; exclusion.scale_alpha keeps that share (N < {show_threshold(scaled)} here)."
        )
    if len(verdict.kept) and np.mean(~verdict.kept) > _MOST_EXCLUDED:
        sentences.append(_much_excluded(pseudo, rule, verdict))
    return sentences


def _much_excluded(pseudo: PseudoSet, rule: ExclusionRule, verdict: RuleVerdict) -> str:
    """Says which part of a rule excludes most images, and which β would keep three quarters."""
    halves = []
    alpha = rule.alpha_at(pseudo.manifest.height, pseudo.manifest.width)
    if alpha is not None and verdict.few_targets.any():
        halves.append((verdict.few_targets, f"N < {show_threshold(alpha)}"))
    if verdict.high_entropy.any():
        halves.append((verdict.high_entropy, f"E > {rule.beta:g} bits"))
    if verdict.unsure is not None and verdict.unsure.any():
        halves.append((verdict.unsure, "teachers that are not sure"))
    shares = sorted(((100 * float(np.mean(mask)), name) for mask, name in halves), reverse=True)
    which = ", ".join(f"{share:.0f} % have {name}" for share, name in shares)
    start = f"{100 * np.mean(~verdict.kept):.0f} % of the images are excluded ({which})"
    # No β keeps three quarters then.
    if verdict.unsure is not None and np.mean(~verdict.unsure) < _SHARE_TO_KEEP:
        limits = (
            f"{words} exclusion.{name}"
            for words, name in (
                ("a smaller", "smallest_confidence"),
                ("a smaller", "smallest_expected_dice"),
                ("a greater", "largest_disagreement"),
            )
            if getattr(rule, name) is not None
        )
        return (
            f"{start}: that teachers are not sure alone excludes more than a quarter, "
            f"{' or '.join(limits)} keeps these."
        )
    if rule.beta is None or not pseudo.manifest.soft:
        return f"{start}: β plays no part here, a smaller α keeps more."
    return (
        f"{start}: β is meant for a well-trained teacher, whose masks are nearly binary; "
        f"{_better_beta(pseudo, rule)}."
    )


def _better_beta(pseudo: PseudoSet, rule: ExclusionRule) -> str:
    """Names the smallest β that keeps three quarters, with α as it is, scaled, or left out."""
    for words, changed in (
        ("", rule),
        (" with scale_alpha", replace(rule, scale_alpha=True)),
        (" without α", replace(rule, alpha=None, combine="either")),
    ):
        beta = smallest_beta(pseudo, changed, _SHARE_TO_KEEP)
        if beta is not None:
            alone = "" if changed is rule else "α alone excludes more than a quarter, "
            return f"{alone}β = {beta:.2f}{words} would keep {100 * _SHARE_TO_KEEP:.0f} %"
    raise AssertionError("without α, the largest entropy as β keeps every image")


def smallest_beta(pseudo: PseudoSet, rule: ExclusionRule, share: float) -> float | None:
    """Returns the smallest β, in hundredths of a bit, that keeps a share of the images.

    Args:
        rule: its α and its way of combining both stay.
        share: of the images, in (0, 1].

    Returns:
        None where α alone excludes too many.
    """
    # Counted in whole images: an entropy kept at β stays kept at every greater one.
    wanted = math.ceil(share * pseudo.statistics.num_rows)
    candidates = np.unique(np.ceil(100 * pseudo.entropy - 1e-9)) / 100

    def enough(beta: float) -> bool:
        kept = apply_rule(pseudo, replace(rule, beta=float(beta))).kept
        return int(np.count_nonzero(kept)) >= wanted

    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(candidates[middle]) else (middle + 1, high)
    return float(candidates[low]) if low < len(candidates) else None
