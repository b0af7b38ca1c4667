"""DenseNets of torchxrayvision (Cohen et al. 2022, arXiv 2111.00595), told by ``op_threshs``.

Its own files are pickled objects, which are refused; ``model.state_dict()``, saved where
torchxrayvision is installed, holds the network and its operating points.
"""

from nakt_dist.errors import CheckpointError
from nakt_dist.models.published.described import described
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import LoadedWeights
from nakt_dist.sources.findings import TORCHXRAYVISION_FINDINGS

_POINTS = "op_threshs"
_HEAD = ("classifier.weight", "classifier.bias")
_INPUT = {"height": 224, "width": 224, "mean": 0.5, "std": 1 / 2048}  # from -1024 to 1024


def recognise(loaded: LoadedWeights) -> LoadedWeights | None:
    """Takes a calibrated DenseNet for what it is; None for any other file.

    Outputs without an operating point, which were never trained, are left out.

    Raises:
        CheckpointError: an operating point is not a probability, or none is there.
    """
    found = loaded.state_dict
    first = found.get("features.conv0.weight")
    if first is None or first.ndim != 4 or not {_POINTS, *_HEAD} <= found.keys():
        return None
    points = found[_POINTS].float()
    trained = ~points.isnan()
    in_range = bool(((points > 0) & (points < 1))[trained].all())
    if points.ndim != 1 or not in_range or not trained.any():
        raise CheckpointError(
            f"{loaded.path}: its {_POINTS}, the operating points of torchxrayvision, are "
            f"{str(points.tolist())[:80]}; expected one between 0 and 1 for each output, or NaN "
            "where it was not trained"
        )
    if any(len(found[name]) != len(points) for name in _HEAD):
        return None
    kept = {name: found[name][trained] for name in (*_HEAD, _POINTS)}
    spec = ModelSpec("densenet121", first.shape[1], int(trained.sum()), {"calibrated": True})
    names: dict[str, list[str]] = {}
    if len(points) == len(TORCHXRAYVISION_FINDINGS):
        pairs = zip(TORCHXRAYVISION_FINDINGS, trained.tolist(), strict=True)
        names = {"labels": [name for name, is_trained in pairs if is_trained]}
    left_out = int((~trained).sum())
    notice = "taken for a DenseNet of torchxrayvision, whose operating points its file holds" + (
        f"; {left_out} outputs without one are left out" if left_out else ""
    )
    return described(loaded, notice, spec, {**found, **kept}, _INPUT, names)
