"""Tells evaluations of one network apart that showed it the same images otherwise."""

from collections.abc import Iterator, Mapping, Sequence

from nakt_dist.records.fields import printable
from nakt_dist.report.classifier_runs import is_classifier_test
from nakt_dist.report.runs import FoundRecord
from nakt_dist.runtime.files import differing_fields, value_sha256

_FIELD = "preprocessing"


def unlike_inputs(records: Sequence[FoundRecord], classifiers: bool = False) -> Iterator[str]:
    """Says which evaluations differ in what the same network saw of the same test images.

    Args:
        records: all that were found.
        classifiers: whether those of classifiers are looked at, or those of segmentation.
    """
    alike: dict[str, FoundRecord] = {}
    for found in records:
        record = found.record
        if record.stage != "evaluate" or is_classifier_test(record) != classifiers:
            continue
        others = {name: value for name, value in record.inputs.items() if name != _FIELD}
        first = alike.setdefault(value_sha256(others), found).record
        ours, theirs = (each.inputs.get(_FIELD) for each in (first, record))
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping) and ours != theirs:
            how = [
                f"{name} {ours.get(name)} and {theirs.get(name)}"
                for name in (each.split(":")[0] for each in differing_fields(ours, theirs))
            ]
            yield printable(
                f"{first.name} and {record.name} are one network on one test set with other "
                f"{_FIELD}: {', '.join(how)}."
            )
