"""Tags by which trackers find a run: of what, with what and how it learnt."""

from collections.abc import Iterable, Mapping
from typing import Any

from nakt_dist.records.lineage import Lineage
from nakt_dist.records.lineage_reading import is_classification, read_lineage

_LONGEST_TAG = 64  # that W&B takes


def run_tags(stored: Mapping[str, Any], more: Iterable[str] = ()) -> tuple[str, ...]:
    """Returns the tags of a training, or of what was measured of its network.

    Args:
        stored: the network's lineage as ``nakt train`` writes it; empty where nobody says.

    Returns:
        Such as ``dataset:ddti``, ``network:unet``, ``method:pseudo masks``, ``images:350`` and
        ``seed:0``, as far as they are known, then ``more``; each once and of at most 64 characters.
    """
    lineage = read_lineage(stored, lenient=True)
    model, seed = stored.get("model"), stored.get("seed")
    said = {
        "dataset": lineage.learnt.label,
        "network": model.get("name") if isinstance(model, Mapping) else None,
        "method": method_of(lineage, is_classification(stored)) if lineage.is_whole else None,
        "images": lineage.learnt.samples,
        "seed": str(seed) if type(seed) is int else None,
    }
    tags = [f"{name}:{value}" for name, value in said.items() if value]
    return tuple(dict.fromkeys(tag[:_LONGEST_TAG] for tag in (*tags, *more)))


def method_of(lineage: Lineage, classifies: bool) -> str:
    """Names in a word or two how a network was trained last."""
    if lineage.following is not None:
        return lineage.method.kind.value.lower()
    if lineage.learnt.teachers:
        return lineage.learnt.taught
    if lineage.parent is not None or lineage.pretrained:
        return "transfer learning" if classifies else "fine-tuning"
    return "from scratch"
