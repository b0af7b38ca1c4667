"""Which values of a dataset's masks are target, judged over all of them."""

from collections import Counter
from collections.abc import Collection, Sequence

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.imaging.mask_rule import HOW_TO_SAY_LOSSY, MaskRule, how_to_say
from nakt_dist.imaging.mask_settings import MaskValues
from nakt_dist.imaging.mask_survey import MaskSummary, meaning, tell_values, write_value

_USUAL = (1, 255, 1023, 4095, 16383, 32767, 65535, -1)
"""What programs write for "yes"; another value might be the number of a class."""

_MOST_ODD = 0.1
_MOST_TOLD = 5


def judge(
    summaries: Sequence[MaskSummary], settings: MaskValues
) -> tuple[MaskRule, dict[str, int]]:
    """Decides what is target, by the values of all binary masks of a dataset.

    Clear are: 0 and one other value, the same in all masks; 0 and values that programs write for
    "yes" (1, 255, full scale), where no mask holds two of them; noise or blur around 0 and full
    scale. A few other masks are left to be set aside one by one.

    Args:
        summaries: of every mask of kind ``"binary"`` without ``mask_classes``, from
            ``survey_mask``; those with a problem are left to be set aside. An empty ``name``
            is not told.
        settings: of the packing; what they name is not judged.

    Returns:
        The rule, and counts worth saying by words.

    Raises:
        DatasetError: most masks, or many, cannot be read as background and target; or no mask
            holds a value that is named.
        ConfigurationError: values are named, and there are no such masks.
    """
    if settings.classes:
        values = (tuple(settings.classes.get(name, ())) for name in settings.class_names)
        turned = settings.orientation == "image"
        return MaskRule(classes=tuple(values), void=tuple(settings.void), turn_masks=turned), {}
    if settings.named and not summaries:
        raise ConfigurationError(
            "mask_values says what is target, but the dataset has no masks of which the values "
            "tell it; leave mask_values out"
        )
    sound = [summary for summary in summaries if "problem" not in summary]
    alpha = any(summary["carrier"] == "alpha" for summary in sound)
    turn_masks = settings.orientation == "image"
    if settings.named:
        rule = MaskRule(
            targets=() if settings.target in (None, "nonzero") else tuple(settings.target),
            void=tuple(settings.void),
            nonzero=settings.target == "nonzero",
            threshold=settings.threshold,
            named=True,
            alpha=alpha,
            turn_masks=turn_masks,
        )
        _check_named(rule, sound)
        return rule, _tell(rule, sound)
    rule = MaskRule(targets=_accepted_values(sound, alpha), alpha=alpha, turn_masks=turn_masks)
    empty = [s for s in sound if rule.meaning(s) == ("constant", 0)]
    odd = [summary for summary in sound if not rule.accepts(summary)]
    holding = len(sound) - len(empty)
    if odd and (2 * len(odd) >= holding or (len(odd) > 1 and len(odd) > _MOST_ODD * holding)):
        rest = {"are empty": len(empty), "cannot be read at all": len(summaries) - len(sound)}
        more = "".join(f" ({count} more {what})" for what, count in rest.items() if count)
        raise DatasetError(
            f"mask_values_unclear: {len(odd)} of {holding} masks that are not empty cannot be read "
            f"as background and target{more}. Found: {_tell_found(odd, sound)}. {how_to_say(odd)}"
        )
    return rule, _tell(rule, sound)


def _accepted_values(sound: Sequence[MaskSummary], alpha: bool) -> tuple[float, ...]:
    """Returns the values that may stand for the target, one to a mask."""
    rule = MaskRule(alpha=alpha)
    read = [rule.meaning(summary) for summary in sound]
    counts = Counter(value for form, value in read if form in ("pair", "soft"))
    if not counts:
        full = {value for form, value in read if form == "constant"} - {0}
        return tuple(full) if len(full) == 1 and full <= set(_USUAL) else ()
    commonest = counts.most_common(1)[0][0]
    if commonest not in _USUAL:
        return (commonest,)
    together = {
        value
        for summary, (form, _) in zip(sound, read, strict=True)
        if form == "unclear" and commonest in (values := _listed(summary))
        for value in values
    }
    return tuple(sorted(v for v in counts if v == commonest or (v in _USUAL and v not in together)))


def _check_named(rule: MaskRule, sound: Sequence[MaskSummary]) -> None:
    """Refuses what no mask holds, and what is lost in noise, as far as the summaries can say."""
    if rule.threshold is not None:
        numbers = [summary for summary in sound if summary["kind"] != "colours"]
        highest = max((_ends(rule, summary)[1] for summary in numbers), default=rule.threshold)
        if highest < rule.threshold:
            raise DatasetError(
                f"mask_values.threshold is {rule.threshold:g}, which no mask reaches; the highest "
                f"value is {highest:g}"
            )
        return
    forms = {rule.meaning(s).form for s in sound if s["lossy"] and _ends(rule, s) != (0, 0)}
    if forms == {"dark"}:
        raise DatasetError(
            f"mask_values.target cannot be told from noise: no JPEG or WebP mask holds anything "
            f"brighter than its noise. {HOW_TO_SAY_LOSSY}"
        )
    told = [s for s in sound if s["kind"] != "colours" or rule.needs_colours]
    if rule.targets and told and not any(_may_hold(rule, summary) for summary in told):
        found = Counter(what for summary in told for what in _told_values(rule, summary))
        seen = ", ".join(what for what, _ in found.most_common(10))
        raise DatasetError(
            f"mask_values.target names {', '.join(map(str, rule.targets))}, which no mask holds; "
            f"found: {seen}"
        )


def _ends(rule: MaskRule, summary: MaskSummary) -> tuple[float, float]:
    """Returns the lowest and the highest value of a mask; of its transparency where that tells."""
    if rule.alpha and summary["carrier"] == "neither":
        return summary["alpha"], summary["alpha"]
    return summary["low"], summary["high"]


def _may_hold(rule: MaskRule, summary: MaskSummary) -> bool:
    """Says whether a mask may hold a value of the target; where many, or noise, by its ends."""
    codes = rule.codes(rule.targets, summary)
    low, high = _ends(rule, summary)
    if summary["lossy"] and summary["kind"] == "numbers":  # 255 may have become 192
        return any(0 <= code <= high * 4 / 3 for code in codes)
    if summary["values"] is not None and low != high:
        return any(value in codes for value, _ in summary["values"])
    form, full_scale = rule.meaning(summary)
    high = full_scale if form == "soft" else high
    return any(low <= code <= high for code in codes)


def _told_values(rule: MaskRule, summary: MaskSummary) -> list[str]:
    low, high = _ends(rule, summary)
    if low == high or summary["values"] is None:
        return [write_value(summary["kind"])(low)] if low == high else [tell_values(summary)]
    return list(map(write_value(summary["kind"]), (value for value, _ in summary["values"])))


def _listed(summary: MaskSummary) -> Collection[float]:
    if summary["values"] is None or summary["kind"] == "colours":
        return ()
    return [value for value, _ in summary["values"] if value != 0]


def _tell_found(odd: Sequence[MaskSummary], sound: Sequence[MaskSummary]) -> str:
    """Says what the masks hold, the commonest first, each with an example."""
    shown: dict[str, list[str]] = {}
    held_by_odd = {id(summary) for summary in odd}
    for summary in sound:
        if id(summary) in held_by_odd or meaning(summary).form == "pair":
            shown.setdefault(tell_values(summary), []).append(summary["name"])
    by_count = sorted(shown.items(), key=lambda item: -len(item[1]))
    told = [
        f"{what} in {len(names)}" + (f" (such as '{names[0]}')" if names[0] else "")
        for what, names in by_count
    ]
    rest = f", and {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
    return "; ".join(told[:_MOST_TOLD]) + rest


def _tell(rule: MaskRule, sound: Sequence[MaskSummary]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for summary in sound:
        if summary["white_is_zero"]:
            counts["MinIsWhite TIFF masks; what a viewer shows white is target"] += 1
        if summary["carrier"] == "alpha":
            counts["masks of which the transparency tells; what is opaque is target"] += 1
        if rule.named:
            continue
        form, value = rule.meaning(summary)
        if form == "soft" or (form == "pair" and summary["lossy"]):
            counts[f"masks with noise or blur, target from {value / 2:g} of {value:g}"] += 1
        elif form == "pair" and summary["kind"] == "palette":
            counts[f"masks whose target is palette index {value:g}"] += rule.accepts(summary)
        elif form == "pair":
            counts[f"masks whose target is {value:g}"] += rule.accepts(summary)
    return {words: count for words, count in counts.items() if count}
