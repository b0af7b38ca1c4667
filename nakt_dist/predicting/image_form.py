"""In what form a network is to see images that nobody packed."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from nakt_dist.config import ImageConfig, PredictConfig
from nakt_dist.config.reading import read_config
from nakt_dist.errors import CheckpointError, ConfigurationError, DatasetError
from nakt_dist.loading.samples import describe_images
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.shards.manifest import ShardManifest

_DECISIVE = ("height", "width", "colour", "fit", "encoding")


def choose_form(config: PredictConfig, trained: TrainedNetwork) -> tuple[ImageConfig, list[str]]:
    """Joins what the settings say, a packed dataset, and the images that the network learnt from.

    What none of them says is usual: the size of the network's input, as many colours as it has
    channels, and no loss of an encoding.

    Returns:
        The form, and what is worth knowing of it, a sentence each.

    Raises:
        ConfigurationError: a setting does not fit the others.
        DatasetError: ``as_packed`` is no packed dataset.
        CheckpointError: what the file says of its images cannot be used.
    """
    seen = trained.preprocessing
    usual = {
        "height": seen.height or ImageConfig.height,
        "width": seen.width or ImageConfig.width,
        "colour": "rgb" if trained.spec.in_channels == 3 else "grey",
        "fit": ImageConfig.fit,
        "encoding": "png",
    }
    if config.as_packed is not None:
        known = _of_manifest(config.as_packed)
    else:
        known = _of_lineage(config.weights, trained.lineage)
    form = ImageConfig(**{**usual, **known, **config.image.said})
    assumed = [name for name in _DECISIVE if name not in {*known, *config.image.said}]
    if not assumed or (seen.height and seen.width and assumed == ["encoding"]):
        return form, []
    told = ", ".join(f"{name} {getattr(form, name)}" for name in assumed)
    return form, [
        f"{trained.name}: its file does not say all of how its images were made. Assumed: {told}; "
        "set them as image.NAME, or give a dataset that is packed alike as as_packed"
    ]


def _of_manifest(folder: str) -> dict[str, Any]:
    manifest = ShardManifest.read(Path(folder))
    try:
        return _settings(describe_images(manifest))
    except ConfigurationError as error:
        raise DatasetError(f"{folder}: the images of its manifest: {error}") from None


def _of_lineage(weights: str, lineage: Mapping[str, Any]) -> dict[str, Any]:
    learnt = lineage.get("trained_on")
    try:
        return _settings(learnt if isinstance(learnt, Mapping) else {})
    except ConfigurationError as error:
        raise CheckpointError(
            f"{weights}: what it says of the images that it learnt from cannot be used: {error}. "
            "Give a dataset that is packed alike as as_packed"
        ) from None


def _settings(described: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a lineage or manifest says of images by setting, checked as settings are."""
    stored = described.get("image")
    said = {
        **{name: described.get(name) for name in ("height", "width", "fit")},
        **(stored if isinstance(stored, Mapping) else {}),
    }
    known = {each.name for each in fields(ImageConfig)}
    said = {name: value for name, value in said.items() if name in known and value is not None}
    checked = read_config(ImageConfig, "image", "", [], said)
    return {name: value for name, value in asdict(checked).items() if name in said}
