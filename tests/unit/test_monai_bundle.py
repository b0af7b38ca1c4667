"""Bundles as MONAI publishes them, written here, and its two networks that are built here."""

import json

import pytest
import torch

from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models import ModelSpec, build_model
from nakt_dist.models.initialise import initialise, read_initial_weights
from nakt_dist.models.network_file import open_network
from nakt_dist.models.normalisation import normalise_images

pytestmark = pytest.mark.usefixtures("seeded")

UNET = {
    "_target_": "UNet",
    "spatial_dims": 2,
    "in_channels": "@channels",
    "out_channels": 3,
    "channels": [4, 8],
    "strides": [2],
    "num_res_units": 2,
    "norm": ["INSTANCE", {"affine": True}],
    "act": ["prelu", {"init": 0.2}],
    "dropout": 0.1,
}
OURS = {"channels": [4, 8], "strides": [2], "num_res_units": 2, "norm": "affine_instance"}
READ = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd"}]
RANGE = {"_target_": "ScaleIntensityRanged", "a_min": 0, "a_max": 255, "b_min": -1, "b_max": 1}
NONZERO = {"_target_": "NormalizeIntensity", "nonzero": True}
ZSCORE = {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True}


def bundle(
    folder, state, network, transforms=(*READ, ZSCORE), activation="softmax", names=(), **others
):
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    after = {"_target_": "Activationsd", "keys": "pred", activation: True}
    config = {
        **others,
        "imports": ["$import os"],
        "channels": 1,
        "device": "$torch.device('cuda')",
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": list(transforms)},
        "postprocessing": {"_target_": "monai.transforms.Compose", "transforms": [after]},
    }
    definition = {str(number): name for number, name in enumerate(names)}
    metadata = {"network_data_format": {"outputs": {"pred": {"channel_def": definition}}}}
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.save(state, folder / "models" / "model.pt")
    return folder


def test_a_unet_of_ones_gives_what_is_counted_by_hand():
    options = {"channels": [1, 1], "strides": [1], "num_res_units": 1, "kernel_size": 1}
    network = build_model("monai_unet", 1, 1, **options, up_kernel_size=1, norm="batch").eval()
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, float(parameter.ndim == 4))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.fill_((1 + module.eps) ** 0.5)
    images = torch.rand(1, 1, 16, 16)
    # Doubled on the way down, doubled below: 2 x and 4 x side by side are 6 x, doubled 12 x.
    assert torch.allclose(network(images), 12 * images)


def test_the_entries_of_a_unet_have_monais_names():
    network = build_model("monai_unet", 1, 2, channels=[4, 8, 16], strides=[2, 2], num_res_units=2)
    shapes = {name: tuple(each.shape) for name, each in network.state_dict().items()}
    assert shapes["0.conv.unit1.conv.weight"] == (4, 4, 3, 3)
    assert shapes["0.conv.unit0.adn.A.weight"] == (1,)
    assert shapes["0.residual.weight"] == (4, 1, 3, 3)
    assert shapes["1.submodule.1.submodule.residual.weight"] == (16, 8, 1, 1)
    assert shapes["1.submodule.2.0.conv.weight"] == (24, 4, 3, 3)
    assert shapes["2.1.conv.unit0.conv.weight"] == (2, 2, 3, 3)
    plain = build_model("monai_unet", 1, 2, channels=[4, 8], strides=[2])
    assert list(plain.state_dict())[-2:] == ["2.conv.weight", "2.conv.bias"]
    assert plain(torch.rand(1, 1, 17, 30)).shape == (1, 2, 17, 30)


@pytest.mark.parametrize("residual_units", [0, 2])
def test_a_unet_starts_another_of_other_classes(tmp_path, residual_units):
    options = {"channels": [4, 8], "strides": [2], "num_res_units": residual_units}
    first = build_model("monai_unet", 1, 3, **options)
    torch.save(first.state_dict(), tmp_path / "net.pt")
    second = build_model("monai_unet", 1, 2, **options)
    report = initialise(second, read_initial_weights(tmp_path / "net.pt"))
    assert all(name.startswith("2.") for name in report.replaced_head) and not report.missing
    for one, other in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert one[0].startswith("2.") or torch.equal(one[1], other[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": [4]}, "'channels' is .4., expected at least 2"),
        ({"strides": [2]}, "'strides' is .2., expected at least 4"),
        ({"strides": [2, 2, 0, 2]}, "'strides'"),
        ({"kernel_size": 2}, "kernel_size.* odd whole numbers"),
        ({"act": "mish"}, "option 'act' is 'mish'"),
        ({"norm": "layer"}, "option 'norm' is 'layer'"),
        ({"input_normalisation": "zscore"}, "'zscore', did you mean 'z_score'"),
    ],
)
def test_options_of_a_unet_are_checked(options, message):
    with pytest.raises(ConfigurationError, match=message):
        build_model("monai_unet", 1, 1, **options)


def test_each_image_is_normalised_by_itself():
    images = torch.tensor([[[[0.0, 2], [4, 6]], [[1.0, 1], [1, 1]]]])
    scaled = normalise_images(images, "min_max")
    assert scaled.flatten().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, *[1 / 6] * 4])
    assert not normalise_images(images, "min_max", by_channel=True)[:, 1].any()
    by_channel = normalise_images(images, "z_score", by_channel=True)
    assert torch.allclose(by_channel[0, 0].flatten(), torch.tensor([-3, -1, 1, 3]) / 5**0.5)
    assert not by_channel[0, 1].any()
    nonzero = normalise_images(images[:, :1], "z_score_nonzero")
    expected = torch.tensor([0, -2, 0, 2]) / (8 / 3) ** 0.5
    assert torch.allclose(nonzero.flatten(), expected)
    other = normalise_images(images * 255, "z_score")  # levels, or pixels in [0, 1]
    assert torch.allclose(other, normalise_images(images, "z_score"), atol=1e-6)


def test_a_bundle_is_opened_with_its_input_and_classes(tmp_path):
    plain = build_model("monai_unet", 1, 3, **OURS).eval()
    state = {f"model.{name}": each for name, each in plain.state_dict().items()}
    names = ("Background", "left ventricle", "myocardium")
    opened = open_network(bundle(tmp_path / "heart", state, UNET, names=names))
    more = {"act": "prelu", "input_normalisation": "z_score", "normalised_by_channel": True}
    assert opened.spec == ModelSpec("monai_unet", 1, 3, {**OURS, **more, "transposed": True})
    assert opened.name == "heart"
    assert opened.lineage == {"classes": ["background", *names[1:]]}
    images = torch.rand(2, 1, 32, 48)
    seen = (images - images.mean((2, 3), True)) / images.std((2, 3), correction=0, keepdim=True)
    with torch.no_grad():
        expected = plain(seen.mT).softmax(1).mT
    assert torch.allclose(opened.probability(images), expected, atol=1e-5)


def test_what_comes_after_a_network_and_is_not_done_here_is_said(tmp_path):
    state = build_model("monai_unet", 1, 3, **OURS).state_dict()
    folder = bundle(tmp_path / "heart", state, UNET)
    assert "postprocessing" not in " ".join(open_network(folder).notices)
    path = folder / "configs/inference.json"
    config = json.loads(path.read_text())
    config["postprocessing"]["transforms"] += [
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {"_target_": "monai.transforms.AsDiscreted", "threshold": 0.3},
        {"_target_": "KeepLargestConnectedComponentd", "keys": "pred"},
        {"_target_": "SaveImaged", "keys": "pred"},
    ]
    path.write_text(json.dumps(config))
    (said,) = (each for each in open_network(folder).notices if "postprocessing" in each)
    assert said.endswith("AsDiscrete with a threshold of 0.3, KeepLargestConnectedComponent")


def test_a_classifier_of_a_bundle_has_its_softmax(tmp_path):
    plain = build_model("densenet121", 1, 2).eval()
    state = {
        name.replace(".norm1.", ".layers.norm1.")
        .replace(".conv1.", ".layers.conv1.")
        .replace(".norm2.", ".layers.norm2.")
        .replace(".conv2.", ".layers.conv2.")
        .replace("classifier.", "class_layers.out."): each
        for name, each in plain.state_dict().items()
    }
    network = {
        **{"_target_": "monai.networks.nets.DenseNet121", "spatial_dims": 2},
        **{"in_channels": 1, "out_channels": 2},
    }
    shifted = {"_target_": "NormalizeIntensity", "subtrahend": [0.2], "divisor": [0.5]}
    resized = {"_target_": "Resized", "spatial_size": [48, 32]}
    odd = {"_target_": "Spacingd", "pixdim": [1, 1]}
    off = {**ZSCORE, "_disabled_": True}  # MONAI leaves it out
    transforms = [*READ, off, RANGE, shifted, resized, odd, "$@preprocessing"]
    folder = bundle(tmp_path / "b", {"model": state}, network, transforms, names=("no", "effusion"))
    opened = open_network(folder)
    assert opened.spec.options == {"transposed": True, "softmax": True}
    seen = opened.preprocessing
    assert (seen.height, seen.width) == (32, 48)  # rows first
    assert seen.mean == pytest.approx([0.6]) and seen.std == pytest.approx([0.25])
    assert opened.lineage == {"labels": ["no", "Pleural Effusion"]}  # as datasets have it
    assert "not done here: Spacingd, $@preprocessing" in opened.notices[0]
    images = torch.rand(2, 1, 32, 48)
    with torch.no_grad():
        expected = plain(((2 * images - 1 - 0.2) / 0.5).mT).softmax(1)
    assert torch.allclose(opened.logits(images).sigmoid(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "more", "message"),
    [
        ("$__import__('os').mkdir('mark')", {}, "expressions are not evaluated"),
        ({"_target_": "os.mkdir", "name": "mark"}, {}, "its network is 'mkdir', expected one of"),
        ({**UNET, "channels": "$[os.mkdir('mark')]"}, {}, "'channels' is"),
        ({**UNET, "in_channels": "@device"}, {}, "in_channels is .*, expected int"),
        ({**UNET, "channels": "@a"}, {"a": ["@b"], "b": "@a"}, "more than 100 references"),
        (
            {**UNET, "channels": "@a"},
            {"a": ["@b"] * 900, "b": ["@c"] * 900, "c": [1] * 900},
            "more than 100 references, the last to ",
        ),
        ({**UNET, "act": 3}, {}, "values of other kinds than its library writes"),
        ({**UNET, "bias": "no", "channels": {}}, {}, "'channels' is"),
        ({**UNET, "spatial_dims": 3}, {}, "spatial_dims 3, expected 2"),
        ({**UNET, "channels": [10**6, 10**6]}, {}, "far larger"),
        ({**UNET, "norm": ["group", {"num_groups": 2}]}, {}, "norm of its UNet"),
        ({**UNET, "act": [3]}, {}, "option 'act' is '3'"),
        ({**UNET, "adn_ordering": "AN"}, {}, "adn_ordering"),
        (UNET, {"activation": "sigmoid"}, "sigmoid of 3 outputs, whose masks may overlap"),
        ({**UNET, "out_channels": 1}, {}, "softmax of one output"),
        (
            UNET,
            {"transforms": [{"_target_": "ScaleIntensityRange", "a_min": "$os.mkdir('mark')"}]},
            "ScaleIntensityRange in its preprocessing cannot be read",
        ),
        (
            UNET,
            {
                "transforms": [
                    {"_target_": "ScaleIntensityRange", "a_min": 9, "a_max": 99, "clip": True}
                ]
            },
            "clips to 9 to 99",
        ),
        (UNET, {"transforms": [{"_target_": "Resize", "spatial_size": 7}]}, "Resize in its"),
        (
            UNET,
            {"transforms": [{"_target_": "Resize", "spatial_size": [float("inf"), 9]}]},
            "Resize in its preprocessing cannot be read",
        ),
        (
            UNET,
            {
                "transforms": [
                    {"_target_": "Resize", "spatial_size": [9, 9], "size_mode": "longest"}
                ]
            },
            "size_mode is 'longest'",
        ),
        (UNET, {"transforms": [ZSCORE, RANGE]}, "comes after a normalisation of each image"),
        (UNET, {"transforms": [RANGE, NONZERO]}, "what comes before it changes its result"),
        (UNET, {"transforms": [ZSCORE, {**ZSCORE, "channel_wise": False}]}, "what comes before"),
    ],
)
def test_what_a_bundle_cannot_say_is_refused_and_nothing_runs(
    tmp_path, monkeypatch, network, more, message
):
    monkeypatch.chdir(tmp_path)
    state = {"model.0.conv.weight": torch.ones(1), "b": torch.ones(1)}
    with pytest.raises(CheckpointError, match=message):
        open_network(bundle(tmp_path / "b", state, network, **more))
    assert not (tmp_path / "mark").exists()
