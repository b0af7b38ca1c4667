"""Judges the masks of a dataset before any is packed, and says what their targets cover."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nakt_dist.config import PackConfig
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.sources.mask_survey import MaskSummary, survey_mask
from nakt_dist.sources.mask_values import judge
from nakt_dist.stages.pack_plan import PackPlan, is_usable, tolerated_problems


def judge_masks(config: PackConfig, plan: PackPlan) -> PackPlan:
    """Returns the plan with the rule by which its binary masks are read, and what was noticed.

    Raises:
        DatasetError: the masks do not say what is target; see ``judge``.
    """
    if not config.masks:
        return plan
    tolerated = tolerated_problems(config)
    paths = [
        path
        for record in plan.records
        if record.mask_kind == "binary" and not record.mask_classes and is_usable(record, tolerated)
        for path in record.masks
    ]
    summaries: list[MaskSummary] = []
    with progress_bar("look at masks", len(paths)) as advance:
        for path in paths:
            summaries.append(survey_mask(path, config.image.max_pixels))
            advance(1)
    rule, found = judge(summaries, config.mask_values)
    return replace(plan, mask_rule=rule, found={**plan.found, **found})


def target_share(mask: np.ndarray, kind: str) -> float:
    """Returns the share of target pixels of a mask as it is packed.

    Args:
        mask: uint8 (height, width); 0 and 255, or class indices.
        kind: ``"binary"``, or ``"classes"``, of which every class but 0 and 255 counts.
    """
    target = (mask != 0) & (mask != 255) if kind == "classes" else mask != 0
    return float(target.mean())


def describe_coverage(shares: Sequence[float]) -> list[str]:
    """Says what the targets of a dataset's masks cover, and warns where that looks wrong.

    Args:
        shares: of the target of each mask, 0 to 1; may be empty.

    Returns:
        Lines to print.
    """
    if not len(shares):
        return []
    values = np.asarray(shares, dtype=np.float64)
    empty, full = int((values == 0).sum()), int((values == 1).sum())
    median = float(np.median(values))
    lines = [
        f"target covers {values.min():.1%} (smallest), {median:.1%} (median), "
        f"{values.max():.1%} (largest) of a mask; of {len(values)} masks {empty} are empty, "
        f"{full} full"
    ]
    look = "look at the overlays: nakt inspect FOLDER --output SHEETS"
    if median > 0.5:
        lines.append(
            f"warning: the target covers more than half of most masks; are they inverted? {look}; "
            "mask_values.target '[0]' takes the value 0 for target"
        )
    if 2 * empty > len(values):
        lines.append(f"warning: most masks are empty; is their target another value? {look}")
    return lines
