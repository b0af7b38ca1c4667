"""How one classifier differs from another on the same images."""

from collections.abc import Sequence

import pyarrow as pa

from nakt_dist.config import EvaluateConfig
from nakt_dist.evaluation.finding_predictions import label_columns
from nakt_dist.evaluation.many_comparisons import holm
from nakt_dist.evaluation.resampling import LabelDifference, paired_difference
from nakt_dist.records.comparison import Comparison, FindingDifference
from nakt_dist.records.run_record import RunRecord


def compare(
    labels: Sequence[str],
    table: pa.Table,
    record: RunRecord,
    other: pa.Table,
    config: EvaluateConfig,
) -> Comparison | None:
    """Returns this network's AUROC less another's, over the labels that both have.

    Args:
        labels: of this network.
        table: its predictions.
        record: of the other's evaluation.
        other: the other's predictions, of the same images in the same order.

    Returns:
        None where no label has both classes.
    """
    names = [name for name in labels if name in record.inputs["labels"]]
    found = paired_difference(
        label_columns(table, "probability", names),
        label_columns(other, "probability", names),
        label_columns(table, "target", names),
        table["patient_id"].to_pylist(),
        config.bootstrap_samples,
        config.seed,
    )
    if found is None:
        return None
    return Comparison(
        compared_with=record.details.get("network", record.name),
        weights_sha256=record.inputs["weights_sha256"],
        difference=100 * found.difference,
        interval_95=[100 * limit for limit in found.interval],
        p_value=found.p_value,
        auroc_mean=100 * found.means[0],
        compared_auroc_mean=100 * found.means[1],
        labels_counted=found.labels_counted,
        findings=_compare_findings(names, found.labels),
    )


def _compare_findings(
    names: Sequence[str], found: Sequence[LabelDifference | None]
) -> tuple[FindingDifference, ...]:
    """Corrects the differences of single findings for how many they are."""
    known = [(name, each) for name, each in zip(names, found, strict=True) if each is not None]
    corrected = holm([each.p_value for _, each in known])
    return tuple(
        FindingDifference(
            name=name,
            difference=100 * each.difference,
            interval_95=[100 * limit for limit in each.interval],
            p_value=each.p_value,
            p_holm=p_holm,
        )
        for (name, each), p_holm in zip(known, corrected, strict=True)
    )
