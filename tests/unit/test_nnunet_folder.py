"""Trainings of nnU-Net, written here in its format, and its two networks that are built here."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models import ModelSpec, build_model
from nakt_dist.models.network_file import open_network

pytestmark = pytest.mark.usefixtures("seeded")

PLAIN = {
    "features": [4, 8],
    "kernel_sizes": [[3, 3], [3, 3]],
    "strides": [[1, 1], [2, 2]],
    "convolutions": [2, 2],
    "decoder_convolutions": [2],
}
PLANS = {
    "transpose_forward": [0, 1, 2],
    "configurations": {
        "2d": {
            "patch_size": [32, 48],
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [False],
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.%s",
                "arch_kwargs": {
                    "n_stages": 2,
                    "features_per_stage": [4, 8],
                    "conv_op": "torch.nn.modules.conv.Conv2d",
                    "kernel_sizes": [[3, 3], [3, 3]],
                    "strides": [[1, 1], [2, 2]],
                    "n_conv_per_stage_decoder": [2],
                    "conv_bias": True,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                    "dropout_op": None,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": True},
                },
            },
        }
    },
}
LABELS = {"background": 0, "myocardium": 2, "ventricle": 1, "ignore": 3}


def change(value, path, new):
    *outer, last = path.split("/")
    for name in outer:
        value = value[name]
    value[last] = new


def plans_of(residual, **changes):
    plans = copy.deepcopy(PLANS)
    kind = ("PlainConvUNet", "ResidualEncoderUNet")[residual]
    architecture = plans["configurations"]["2d"]["architecture"]
    architecture["network_class_name"] %= kind
    number = ("n_conv_per_stage", "n_blocks_per_stage")[residual]
    architecture["arch_kwargs"][number] = [2, 2]
    for path, new in changes.items():
        change(plans, f"configurations/2d/{path}" if "/" in path else path, new)
    return plans


def as_published(network):
    """The state dict that nnU-Net writes: layers twice, the encoder once more, more outputs."""
    state = {}
    for name, tensor in network.state_dict().items():
        if name.startswith("head."):
            state[f"decoder.seg_layers.0.{name[5:]}"] = torch.full_like(tensor, 7)
            name = f"decoder.seg_layers.1.{name[5:]}"
        names = [name]
        twice = name.replace(".conv.", ".all_modules.0.").replace(".norm.", ".all_modules.1.")
        names += [twice] * (twice != name)
        names += [f"decoder.{each}" for each in names if each.startswith("encoder.")]
        state |= dict.fromkeys(names, tensor)
    return state


def training(folder, state, plans, labels=LABELS):
    """A folder as ``nnUNetv2_train`` leaves it."""
    (folder / "fold_0").mkdir(parents=True)
    dataset = {"channel_names": {"0": "ultrasound"}, "labels": labels, "file_ending": ".png"}
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    content = {
        "network_weights": state,
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": []},
        "logging": {"mean_fg_dice": [np.float64(0.5)], "train_losses": [np.float32(1)]},
        "_best_ema": np.float64(0.5),
        "init_args": {"plans": plans, "configuration": "2d", "device": torch.device("cuda")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
    }
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    return folder


@pytest.mark.parametrize("residual", [False, True])
def test_a_training_is_opened_with_its_classes_and_input(tmp_path, residual):
    network = build_model("nnunet", 1, 3, **PLAIN, residual=residual, input_normalisation="none")
    names = network.eval().state_dict().keys()
    assert {"decoder.transpconvs.0.weight", "decoder.stages.0.convs.1.norm.bias"} <= names
    assert {
        False: {"encoder.stages.1.0.convs.0.conv.weight"},
        True: {"encoder.stem.convs.0.conv.bias", "encoder.stages.1.blocks.0.skip.1.conv.weight"},
    }[residual] <= names
    folder = tmp_path / "Dataset001_X" / "nnUNetTrainer__nnUNetPlans__2d"
    opened = open_network(training(folder, as_published(network), plans_of(residual)))
    more = {"residual": residual, "bias": True, "input_normalisation": "z_score"}
    assert opened.spec == ModelSpec("nnunet", 1, 3, {**PLAIN, **more})
    assert opened.lineage == {"classes": ["background", "ventricle", "myocardium"]}
    assert "patches of [32, 48]" in opened.notices[0] and opened.name == folder.name
    images = torch.rand(2, 1, 32, 47)
    seen = (images - images.mean((2, 3), True)) / images.std((2, 3), correction=0, keepdim=True)
    padded = functional.pad(seen, (0, 1))  # by 0, as nnU-Net pads
    with torch.no_grad():
        expected = network(padded).softmax(1)[..., :47]
    assert torch.allclose(opened.probability(images), expected, atol=1e-5)


@pytest.mark.parametrize("residual", [False, True])
def test_networks_of_ones_give_what_their_description_says(residual):
    ones = {"kernel_sizes": [[1, 1]] * 2, "strides": [[1, 1]] * 2, "convolutions": [1, 1]}
    network = build_model(
        "nnunet", 1, 1, features=[1, 1], decoder_convolutions=[1], residual=residual, **ones
    )
    for name, parameter in network.named_parameters():
        torch.nn.init.constant_(parameter, float(name.endswith("weight")))
    images = torch.rand(1, 1, 16, 16)

    def unit(x):
        return functional.leaky_relu(normal(x), 0.01)

    def normal(x):
        return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()

    def block(x):
        return functional.leaky_relu(normal(unit(x)) + x, 0.01)

    step = block if residual else unit
    first = step(unit(normal(images)) if residual else normal(images))
    expected = unit(first + step(first))
    assert torch.allclose(network(images), expected, atol=1e-4)


KWARGS = "architecture/arch_kwargs"


@pytest.mark.parametrize(
    ("changes", "labels", "message"),
    [
        ({"architecture/network_class_name": "their.UNet"}, LABELS, "its network is UNet"),
        ({f"{KWARGS}/conv_op": "torch.nn.Conv3d"}, LABELS, "conv_op torch.nn.Conv3d"),
        ({f"{KWARGS}/norm_op_kwargs": {"eps": 1}}, LABELS, "norm_op_kwargs"),
        ({f"{KWARGS}/features_per_stage": "many"}, LABELS, "'features' is many"),
        ({f"{KWARGS}/features_per_stage": [10**6] * 2}, LABELS, "far larger"),
        ({f"{KWARGS}/features_per_stage": [math.inf] * 2}, LABELS, r"plans\.json: options of net"),
        ({f"{KWARGS}/strides": [[1, 1], [2, 2, 2]]}, LABELS, "'strides' is .2, 2, 2., expected 2"),
        ({f"{KWARGS}/strides": 2}, LABELS, "'strides'"),
        ({f"{KWARGS}/n_stages": "2"}, LABELS, "n_stages is '2', expected int"),
        ({"transpose_forward": [0, 2, 1]}, LABELS, "transpose_forward"),
        ({"transpose_forward": 5}, LABELS, "values of other kinds than its library writes"),
        ({"configurations": {}}, LABELS, "2d is None, expected dict"),
        ({}, {"background": 0, "whole": [1, 2], "core": [2]}, "regions, which may overlap"),
    ],
)
def test_plans_that_cannot_be_used_here_are_refused(tmp_path, changes, labels, message):
    state = {"a": torch.ones(1), "b": torch.ones(1)}
    with pytest.raises(CheckpointError, match=message):
        open_network(training(tmp_path / "x__2d", state, plans_of(False, **changes), labels))


@pytest.mark.parametrize(
    ("schemes", "masks", "message"),
    [
        (["CTNormalization"], [False], "its images are normalised by .'CTNormalization'"),
        (["ZScoreNormalization", "NoNormalization"], [False] * 2, "for all channels"),
        (["ZScoreNormalization"], [True], "normalises within a mask"),
    ],
)
def test_an_input_that_is_not_known_is_refused(tmp_path, schemes, masks, message):
    plans = plans_of(False)
    plans["configurations"]["2d"] |= {"normalization_schemes": schemes, "use_mask_for_norm": masks}
    with pytest.raises(CheckpointError, match=message):
        open_network(training(tmp_path / "x", {"a": torch.ones(1), "b": torch.ones(1)}, plans))


@pytest.mark.parametrize(
    "options",
    [{"features": [4]}, {"convolutions": [2, 0]}, {"kernel_sizes": [[3, 3], 3]}, {"features": 3}],
)
def test_options_of_a_network_are_checked(options):
    (name,) = options
    with pytest.raises(ConfigurationError, match=f"option '{name}'"):
        build_model("nnunet", 1, 2, **{**PLAIN, **options})
