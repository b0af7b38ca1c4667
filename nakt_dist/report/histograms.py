"""Histograms of pseudo masks with the thresholds of exclusion (paper A, figure 3)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from nakt_dist.drawing.style import (
    BLUE,
    GREY,
    VERMILION,
    figure_style,
    make_panels,
    shorten,
    to_png,
)
from nakt_dist.records.pseudo_sets import PseudoSet, apply_rule
from nakt_dist.report.document import Figure
from nakt_dist.report.roles import show_threshold
from nakt_dist.transfer.exclusion import ExclusionRule

_BINS = 40
_ZERO = 0.5
"""Where images without a target pixel stand on the logarithmic axis, which has no zero."""


@dataclass(frozen=True)
class JudgedSet:
    """A set of pseudo-labels, the rule shown on it, and the splits shown; None for all."""

    pseudo: PseudoSet
    rule: ExclusionRule
    splits: tuple[str, ...] | None = None


def draw_entropy(sets: Sequence[JudgedSet]) -> Figure:
    """Draws how grey-level entropy is distributed before and after exclusion, a panel per set."""
    return Figure(
        "entropy.png",
        _panels(sets, _entropy_panel),
        "Entropy of the pseudo masks before and after exclusion (figure 3 of the paper)",
        "Grey: all images. Blue: those that stay. Line: β, above which an image is excluded; it "
        "does not apply where every teacher gave binary masks.",
    )


def draw_target_pixels(sets: Sequence[JudgedSet]) -> Figure:
    """Draws how the number of target pixels is distributed, a panel per set."""
    return Figure(
        "target-pixels.png",
        _panels(sets, _target_panel),
        "Target pixels of the pseudo masks before and after exclusion",
        "Grey: all images. Blue: those that stay. Line: α, below which an image is excluded. The "
        "axis is logarithmic; images without any target pixel stand at its left end.",
    )


def _panels(
    sets: Sequence[JudgedSet], draw: Callable[[Axes, JudgedSet, np.ndarray, np.ndarray], None]
) -> bytes:
    with figure_style():
        canvas, panels = make_panels(len(sets), 3, (3.6, 3.1), 5.6)
        for (axes,), judged in zip(panels, sets, strict=True):
            axes.set_axis_on()
            chosen = judged.pseudo.in_splits(judged.splits)
            kept = apply_rule(judged.pseudo, judged.rule).kept & chosen
            draw(axes, judged, chosen, kept)
            counts = f"{np.count_nonzero(kept)} of {np.count_nonzero(chosen)} stay"
            axes.set_title(f"{shorten(judged.pseudo.label, 34)}\n{counts}")
            axes.set_ylabel("images")
            axes.legend(loc="best", handlelength=1.4)
        return to_png(canvas)


def _entropy_panel(axes: Axes, judged: JudgedSet, chosen: np.ndarray, kept: np.ndarray) -> None:
    entropy = judged.pseudo.entropy
    beta = judged.rule.beta if judged.pseudo.manifest.soft else None
    highest = max(float(entropy[chosen].max(initial=0)), (beta or 0) * 1.1, 0.1)
    width = highest / _BINS
    if beta:
        width = beta / max(1, round(beta / width))  # β falls on an edge
    bins = width * np.arange(math.ceil(highest / width) + 1)
    _draw_both(axes, entropy, chosen, kept, bins)
    if beta is not None:
        _draw_threshold(axes, beta, f"β = {beta:g} bits")
    axes.set_xlim(0, bins[-1])
    axes.set_xlabel("grey-level entropy (bits)")


def _target_panel(axes: Axes, judged: JudgedSet, chosen: np.ndarray, kept: np.ndarray) -> None:
    manifest = judged.pseudo.manifest
    area = manifest.height * manifest.width
    alpha = judged.rule.alpha_at(manifest.height, manifest.width)
    highest = max(area, alpha * 1.1 if alpha else 0)
    bins = np.concatenate([[_ZERO / 1.3], np.geomspace(_ZERO * 1.3, highest, _BINS)])
    _draw_both(axes, np.maximum(judged.pseudo.target_pixels, _ZERO), chosen, kept, bins)
    if alpha:
        _draw_threshold(axes, alpha, f"α = {show_threshold(alpha)} pixels")
    axes.set_xscale("log")
    axes.set_xlim(_ZERO / 1.5, highest)
    powers = 10.0 ** np.arange(math.floor(math.log10(highest)) + 1)
    axes.set_xticks([_ZERO, *powers], ["0", *(f"{power:,.0f}" for power in powers)])
    axes.minorticks_off()
    axes.set_xlabel(f"target pixels (of {area:,})")


def _draw_both(
    axes: Axes, values: np.ndarray, chosen: np.ndarray, kept: np.ndarray, bins: np.ndarray
) -> None:
    edges = bins.tolist()
    axes.hist(values[chosen], edges, color=GREY, alpha=0.55, label="before")
    axes.hist(values[kept], edges, color=BLUE, alpha=0.85, label="after")


def _draw_threshold(axes: Axes, value: float, label: str) -> None:
    axes.axvline(value, color=VERMILION, linewidth=1.8, linestyle="--", label=label)
