"""Trainings of nnU-Net: ``fold_0/checkpoint_final.pth`` under ``plans.json``, ``dataset.json``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from nakt_dist.errors import CheckpointError
from nakt_dist.models.published.beside import read_beside, spec_beside, take
from nakt_dist.models.published.described import AS_PACKED, LEVELS, described
from nakt_dist.models.weights import LoadedWeights

_CONVOLUTIONS = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}
_FIXED = {
    "conv_op": ("torch.nn.modules.conv.Conv2d", "torch.nn.Conv2d"),
    "norm_op": ("torch.nn.modules.instancenorm.InstanceNorm2d", "torch.nn.InstanceNorm2d"),
    "norm_op_kwargs": ({"eps": 1e-05, "affine": True},),
    "dropout_op": (None,),
    "nonlin": ("torch.nn.LeakyReLU", "torch.nn.modules.activation.LeakyReLU"),
    "nonlin_kwargs": ({"inplace": True}, {}, None),
}
"""What the networks of nnU-Net's own planners have; nothing else is built here."""

_BY_IMAGE = {"ZScoreNormalization": "z_score", "RescaleTo01Normalization": "min_max"}
_FIXED_STD = {"RGBTo01Normalization": 1.0, "NoNormalization": 1 / LEVELS}


def recognise(loaded: LoadedWeights) -> LoadedWeights | None:
    """Takes a network for what its plans say; None for a file that lies in no such folder.

    Raises:
        CheckpointError: its plans have a network or an input that is not known here.
    """
    folder = loaded.path.absolute().parent.parent
    path = folder / "plans.json"
    plans = read_beside(path) if loaded.path.parent.name.startswith("fold_") else None
    if plans is None:
        return None
    dataset = read_beside(folder / "dataset.json") or {}
    configuration = _configuration(plans, folder.name, path)
    classes = _classes(dataset, folder / "dataset.json")
    channels = dataset.get("channel_names", dataset.get("modality")) or {}
    options = _options(take(configuration, "architecture", dict, path), path)
    kind, preprocessing = _input(configuration, path)
    options["input_normalisation"] = kind
    spec = spec_beside(path, "nnunet", len(channels), len(classes), options)
    state = _as_here(loaded.state_dict)
    patch = configuration.get("patch_size")
    notice = (
        f"taken for a network of nnU-Net's plans, trained on patches of {patch}; it sees whole "
        "images here, without sliding window or mirroring"
    )
    return described(loaded, notice, spec, state, preprocessing, {"classes": classes})


def _configuration(plans: dict[str, Any], folder: str, path: Path) -> dict[str, Any]:
    """Returns the configuration that a folder's name ends with, and what it inherits."""
    known = take(plans, "configurations", dict, path)
    name = folder.rpartition("__")[2]
    name = name if name in known else "2d"
    found: dict[str, Any] = {}
    for _ in range(len(known) + 1):  # they might inherit in a circle
        own = take(known, name, dict, path)
        found = {**own, **found}
        name = own.get("inherits_from", "")
        if not name:
            break
    if list(plans.get("transpose_forward", [0, 1, 2])) != [0, 1, 2]:
        raise CheckpointError(f"{path}: transpose_forward is not [0, 1, 2], which is not done here")
    return found


def _options(architecture: dict[str, Any], path: Path) -> dict[str, Any]:
    name = take(architecture, "network_class_name", str, path).rpartition(".")[2]
    given = take(architecture, "arch_kwargs", dict, path)
    wrong = next((n for n, known in _FIXED.items() if given.get(n, known[0]) not in known), None)
    if name not in _CONVOLUTIONS or wrong is not None:
        raise CheckpointError(
            f"{path}: its network is {name}{f' with {wrong} {given[wrong]}' if wrong else ''}, "
            f"expected {' or '.join(_CONVOLUTIONS)} for images of two dimensions, as nnU-Net plans "
            "them"
        )
    levels = take(given, "n_stages", int, path)
    numbers = {
        "convolutions": given.get(_CONVOLUTIONS[name]),
        "decoder_convolutions": given.get("n_conv_per_stage_decoder"),
    }
    for option, length in (("convolutions", levels), ("decoder_convolutions", levels - 1)):
        if isinstance(numbers[option], int):
            numbers[option] = [numbers[option]] * min(max(length, 0), 100)
    return {
        "features": given.get("features_per_stage"),
        "kernel_sizes": given.get("kernel_sizes"),
        "strides": given.get("strides"),
        **numbers,
        "residual": name == "ResidualEncoderUNet",
        "bias": given.get("conv_bias", False) is True,
    }


def _input(configuration: dict[str, Any], path: Path) -> tuple[str, dict[str, Any]]:
    """Returns how images are normalised: each by itself, or all alike."""
    schemes = set(map(str, take(configuration, "normalization_schemes", list, path)))
    scheme = schemes.pop() if len(schemes) == 1 else ""
    if any(configuration.get("use_mask_for_norm", ())):
        raise CheckpointError(f"{path}: normalises within a mask, which is not done here")
    if scheme in _BY_IMAGE:
        return _BY_IMAGE[scheme], {**AS_PACKED, "mean": 0.0, "std": 1.0}
    if scheme in _FIXED_STD:
        return "none", {**AS_PACKED, "mean": 0.0, "std": _FIXED_STD[scheme]}
    raise CheckpointError(
        f"{path}: its images are normalised by {configuration['normalization_schemes']}, expected "
        f"one of {', '.join((*_BY_IMAGE, *_FIXED_STD))} for all channels"
    )


def _classes(dataset: dict[str, Any], path: Path) -> list[str]:
    labels = {n: v for n, v in take(dataset, "labels", dict, path).items() if n != "ignore"}
    if sorted(map(str, labels.values())) != sorted(map(str, range(len(labels)))):
        raise CheckpointError(
            f"{path}: its labels are {str(labels)[:80]}, expected whole numbers from 0 on, the "
            "background's first; regions, which may overlap, have no place here"
        )
    return sorted(labels, key=lambda name: int(labels[name]))


def _as_here(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leaves out what stands in the file more than once, and all outputs but the last."""
    outputs = [name for name in state_dict if name.startswith("decoder.seg_layers.")]
    last = f"{outputs[-1].rpartition('.')[0]}." if outputs else ""
    kept = {
        name: tensor
        for name, tensor in state_dict.items()
        if ".all_modules." not in name and not name.startswith("decoder.encoder.")
    }
    return {
        f"head.{name.removeprefix(last)}" if name in outputs else name: tensor
        for name, tensor in kept.items()
        if name not in outputs or name.startswith(last)
    }
