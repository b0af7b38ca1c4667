"""Judges the masks of a dataset before any is packed."""

from dataclasses import replace

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
            summary = survey_mask(path, config.image.max_pixels)
            if config.deidentify:
                summary["name"] = ""  # names of files may be those of patients
            summaries.append(summary)
            advance(1)
    rule, found = judge(summaries, config.mask_values)
    return replace(plan, mask_rule=rule, found={**plan.found, **found})
