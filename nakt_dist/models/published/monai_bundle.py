"""MONAI bundles: ``models/model.pt`` with ``configs/inference.json`` and ``metadata.json``.

The configuration is read as data. Its ``_target_`` chooses from the networks and transforms that
are known here, an expression (``$…``) is never evaluated, and a reference (``@name``) is followed
to a value of the same file.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from nakt_dist.errors import CheckpointError
from nakt_dist.models.published.beside import read_beside, take
from nakt_dist.models.published.described import described
from nakt_dist.models.published.monai_transforms import Preparation, is_disabled, read_transforms
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import LoadedWeights
from nakt_dist.sources.findings import canonical_finding

_CONFIGS = ("inference.json", "metadata.json")
_NETWORKS = ("network_def", "network", "net")
_DONE_AFTER = {
    "Activations", "AsDiscrete", "CastToType", "EnsureType", "Invert", "SaveImage", "ToTensor",
}  # fmt: skip
"""Transforms of a prediction that change no mask here."""
_HALF = 0.5
_MOST_REFERENCES = 100
_DENSE_LAYER = re.compile(r"(denselayer\d+\.)layers\.")


def recognise(loaded: LoadedWeights) -> LoadedWeights | None:
    """Takes a network for what its bundle says; None for a file that lies in none.

    Raises:
        CheckpointError: the bundle has a network that is not known, or cannot be read.
    """
    folder = loaded.path.absolute().parent
    configs = [folder.parent / "configs" / name for name in _CONFIGS]
    if folder.name != "models" or not configs[0].is_file():
        return None
    config, metadata = (read_beside(path) or {} for path in configs)
    return _Bundle(configs[0], config, metadata).describe(loaded)


class _Bundle:
    """What a bundle's files say, its references followed."""

    def __init__(self, path: Path, config: dict[str, Any], metadata: dict[str, Any]) -> None:
        self._path, self._config, self._metadata = path, config, metadata
        self._followed = 0

    def describe(self, loaded: LoadedWeights) -> LoadedWeights:
        arguments = self._plain(next(filter(self._config.__contains__, _NETWORKS), ""))
        target = _target(arguments)
        if target not in _KNOWN or arguments is None:
            raise CheckpointError(
                f"{self._path}: its network is {target or str(arguments)[:60]!r}, expected one of "
                f"{', '.join(_KNOWN)} with plain values; expressions are not evaluated. If it is a "
                "network that can be named here, copy the weights out of the bundle and name it"
            )
        transforms = self._plain("preprocessing")
        seen = read_transforms(transforms, self._path)
        activation = self._activation()
        spec = self._spec(target, arguments, seen, activation)
        self._check_activation(spec, activation)
        names = self._names(spec)
        notice = f"taken for a bundle of MONAI: {target}, {activation or 'no activation'}"
        for what, others in (("pre", seen.others), ("post", self._not_done_after())):
            if others:
                notice += f"; of its {what}processing not done here: {', '.join(others)}"
        state = _as_here(loaded.state_dict) if target.startswith("DenseNet") else loaded.state_dict
        return described(loaded, notice, spec, state, seen.preprocessing, names)

    def _spec(
        self, target: str, given: Mapping[str, Any], seen: Preparation, activation: str
    ) -> ModelSpec:
        if given.get("spatial_dims", given.get("dimensions")) != 2:
            raise CheckpointError(
                f"{self._path}: its {target} has spatial_dims {given.get('spatial_dims')!r}, "
                "expected 2: networks of volumes have no place here"
            )
        fields = dict(given)
        channels, outputs = (
            take(fields, n, int, self._path) for n in ("in_channels", "out_channels")
        )
        name, options = _KNOWN[target](given, self._path)
        options |= seen.options
        if name == "monai_densenet121" and activation == "softmax":
            options["softmax"] = True
        return ModelSpec(name, channels, outputs, options)

    def _activation(self) -> str:
        """Returns what its postprocessing applies: "sigmoid", "softmax" or nothing."""
        for each in _transforms(self._plain("postprocessing")):
            if _target(each).rstrip("d") == "Activations":
                return next((n for n in ("sigmoid", "softmax") if each.get(n) is True), "")
        return ""

    def _not_done_after(self) -> list[str]:
        """Returns what its postprocessing does besides that no stage here does."""
        found = []
        for each in _transforms(self._plain("postprocessing")):
            name, threshold = _target(each).removesuffix("d"), each.get("threshold")
            if name == "AsDiscrete" and threshold not in (None, _HALF):
                found.append(f"{name} with a threshold of {threshold!r:.20}")
            elif name not in _DONE_AFTER:
                found.append(name[:40] or "a transform without a name")
        return found

    def _check_activation(self, spec: ModelSpec, activation: str) -> None:
        segments = spec.name == "monai_unet"
        if segments and (activation == "sigmoid") > (spec.num_outputs == 1):
            raise CheckpointError(
                f"{self._path}: takes the sigmoid of {spec.num_outputs} outputs, whose masks may "
                "overlap; networks here have one target, or classes of which each pixel has one"
            )
        if segments and (activation == "softmax") > (spec.num_outputs > 1):
            raise CheckpointError(f"{self._path}: takes the softmax of one output, which is 1")

    def _names(self, spec: ModelSpec) -> dict[str, list[str]]:
        """Returns what the outputs mean, where ``metadata.json`` names all of them."""
        outputs = self._metadata.get("network_data_format", {})
        for step in ("outputs", "pred", "channel_def"):
            outputs = outputs.get(step) if isinstance(outputs, dict) else None
        if not isinstance(outputs, dict) or spec.num_outputs == 1:
            return {}
        found = [outputs.get(str(number)) for number in range(spec.num_outputs)]
        names = [name.strip() for name in found if isinstance(name, str)]
        if spec.name == "monai_unet":
            names = [n.lower() if n.lower() == "background" else n for n in names]
        else:
            names = list(map(canonical_finding, names))
        if len(set(names)) != spec.num_outputs:
            return {}
        if spec.name == "monai_unet":
            return {"classes": names} if "background" in names else {}
        return {"labels": names}

    def _plain(self, name: str) -> Any:
        """Returns a setting of the bundle, with references in it followed; None if absent."""
        return self._follow(f"@{name}") if name in self._config else None

    def _follow(self, value: Any) -> Any:
        if isinstance(value, str) and value[:1] == "@" and value[1:] in self._config:
            self._followed += 1
            if self._followed > _MOST_REFERENCES:  # in a circle, or to ever more of them
                raise CheckpointError(
                    f"{self._path}: has more than {_MOST_REFERENCES} references, the last to "
                    f"{value[1:60]}; write plain values in the place of some"
                )
            return self._follow(self._config[value[1:]])
        if isinstance(value, dict):
            return {name: self._follow(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self._follow(each) for each in value]
        return value


def _target(value: Any) -> str:
    """Returns the name of a class, without the modules before it."""
    target = value.get("_target_") if isinstance(value, dict) else None
    return target.rpartition(".")[2] if isinstance(target, str) else ""


def _transforms(value: Any) -> list[dict[str, Any]]:
    value = value.get("transforms") if isinstance(value, dict) else value
    listed = value if isinstance(value, list) else []
    return [each for each in listed if isinstance(each, dict) and not is_disabled(each)]


def _unet(given: Mapping[str, Any], path: Path) -> tuple[str, dict[str, Any]]:
    kept = ("channels", "strides", "kernel_size", "up_kernel_size", "num_res_units", "bias")
    options = {name: given[name] for name in kept if name in given}
    known = {*kept, "act", "norm", "dropout", "adn_ordering"}
    _refuse_others(given, known, path)
    for name, usual in (("act", "prelu"), ("norm", "instance")):
        kind, arguments = _split(given.get(name, usual))
        if name == "norm" and kind == "instance" and arguments.pop("affine", False) is True:
            kind = "affine_instance"
        arguments.pop("init", None)  # of weights, which the file has
        arguments.pop("inplace", None)
        if arguments:
            raise CheckpointError(
                f"{path}: {name} of its UNet is {str(given[name])[:80]}, expected a name alone"
            )
        options[name] = kind
    if given.get("adn_ordering", "NDA").replace("D", "") != "NA":
        raise CheckpointError(f"{path}: adn_ordering of its UNet is not NDA, which is known here")
    return "monai_unet", options


def _densenet(given: Mapping[str, Any], path: Path) -> tuple[str, dict[str, Any]]:
    _refuse_others(given, {"pretrained", "progress", "dropout_prob"}, path)
    return "monai_densenet121", {}


_KNOWN: dict[str, Callable[[Mapping[str, Any], Path], tuple[str, dict[str, Any]]]] = {
    **{name: _unet for name in ("UNet", "Unet")},
    **{name: _densenet for name in ("DenseNet121", "Densenet121", "densenet121")},
}


def _refuse_others(given: Mapping[str, Any], known: set[str], path: Path) -> None:
    common = {"_target_", "spatial_dims", "dimensions", "in_channels", "out_channels"}
    others = sorted(given.keys() - known - common)
    if others:
        raise CheckpointError(f"{path}: its network has {', '.join(others)}, which is not known")


def _split(value: Any) -> tuple[str, dict[str, Any]]:
    """Returns a kind of layer, in small letters, and its arguments."""
    kind, arguments = (value, {}) if isinstance(value, str) else (*value, {})[:2]
    return str(kind).lower(), dict(arguments)


def _as_here(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives the entries of MONAI's DenseNet torchvision's names."""
    return {
        _DENSE_LAYER.sub(r"\1", name).replace("class_layers.out.", "classifier."): tensor
        for name, tensor in state_dict.items()
    }
