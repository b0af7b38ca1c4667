"""The header of a model card, as Hugging Face reads it: licence, tags, and results by test."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from nakt_dist.exporting.few import is_few
from nakt_dist.models.onnx_metadata import OnnxMetadata
from nakt_dist.records.fields import label_dataset
from nakt_dist.report.evaluations import ClassifierRun, Evaluation, SegmentationRun

LIBRARY = "nakt_dist"
_PIPELINES = {"segmentation": "image-segmentation", "classification": "image-classification"}

# Identifiers that Hugging Face knows; any other licence is named beside ``other``.
_LICENCES = """
apache-2.0 mit bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear isc zlib unlicense wtfpl ms-pl
mpl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 osl-3.0 afl-3.0 artistic-2.0 ecl-2.0 ncsa postgresql gpl
gpl-2.0 gpl-3.0 agpl-3.0 lgpl lgpl-2.1 lgpl-3.0 cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0
cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
cdla-permissive-1.0 cdla-permissive-2.0 c-uda odbl odc-by pddl gfdl openrail bigscience-openrail-m
creativeml-openrail-m h-research intel-research unknown other
"""


def card_header(
    told: OnnxMetadata, formats: Sequence[str], runs: Sequence[Evaluation], phantom: bool
) -> str:
    """Returns the YAML between the card's lines of dashes.

    Args:
        told: what the export says of the network.
        formats: in which it is handed on.
        runs: its evaluations, as ``few.told_of`` returns them.
        phantom: whether procedural images are behind it.
    """
    names = ["medical-imaging", "knowledge-transfer", _slug(told.model.name), *formats]
    header: dict[str, Any] = {
        **_licence(told.licence),
        "library_name": LIBRARY,
        "pipeline_tag": _PIPELINES[told.task],
        "tags": [*names, *(["phantom"] if phantom else [])],
    }
    # A reader of the header sees no warning: a test whose images were met is on the card alone.
    results = [_result(run, _PIPELINES[told.task]) for run in runs if not run.warnings]
    results = [each for each in results if each["metrics"]]
    if results:
        header["model-index"] = [{"name": told.name, "results": results}]
    return yaml.safe_dump(header, sort_keys=False, allow_unicode=True)


def _licence(licence: str | None) -> dict[str, str]:
    if licence is None:
        return {}
    known = licence.strip().lower()
    if known in _LICENCES.split():
        return {"license": known}
    return {"license": "other", "license_name": _slug(licence)}


def _slug(text: str) -> str:
    """Returns a text in small letters, joined by dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-") or "unnamed"


def _result(run: Evaluation, task: str) -> dict[str, Any]:
    tested = run.tested_on
    return {
        "task": {"type": task},
        "dataset": {
            "name": label_dataset(tested.dataset, tested.phantom),
            "type": _slug(tested.dataset),
            "split": "all" if tested.splits is None else " + ".join(tested.splits),
            "revision": tested.fingerprint,
        },
        "metrics": list(_metrics(run)),
    }


def _metrics(run: Evaluation) -> Iterator[dict[str, Any]]:
    match run:
        case SegmentationRun():
            cut = {} if run.classes else {"threshold": run.tested_on.threshold}
            yield _metric("dice", "Dice, %", run.mean, run.interval, run.images, **cut)
            for each in run.others:
                unit = "" if each.in_pixels else ", %"
                if each.mean is not None:
                    title = f"{each.name}{unit}"
                    yield _metric(each.name, title, each.mean, each.interval, each.images, **cut)
        case ClassifierRun(result=result):
            if result.auroc is not None:
                title = "AUROC, %, mean over findings"
                yield _metric("roc_auc", title, result.auroc, result.interval, run.images)
            for one in result.findings:
                if one.auroc is not None:
                    shown = one.positives + one.negatives
                    title = f"AUROC, %, {one.name}"
                    yield _metric("roc_auc", title, one.auroc, one.interval, shown)


def _metric(
    kind: str,
    title: str,
    value: float,
    interval: tuple[float, float] | None,
    images: int,
    **more: Any,
) -> dict[str, Any]:
    args: dict[str, Any] = more if is_few(images) else {"images": images, **more}
    args |= {} if interval is None else {"interval_95": list(interval)}
    return {"type": kind, "name": title, "value": value, "args": args}
