import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from nakt_dist.errors import ConfigurationError
from nakt_dist.models import MODEL_NAMES, ModelSpec, build_model, is_classifier

DENSENETS = ("densenet121", "densenet40")
SMALL_TIMM = ("timm:test_resnet", "timm:test_vit", "timm:test_efficientnet")


pytestmark = pytest.mark.usefixtures("seeded")


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "in_channels", "num_outputs", "parameters"),
    [
        ("densenet121", 3, 14, 6_968_206),
        ("densenet40", 3, 14, 1_364_142),
        # One channel saves two thirds of 7×7×3×64 weights, an output costs 1024 + 1.
        ("densenet121", 1, 14, 6_968_206 - 6_272),
        ("densenet40", 1, 8, 1_364_142 - 6_272 - 6 * 1025),
        ("timm:densenet121", 3, 14, 6_968_206),
        ("timm:resnet18", 3, 1000, 11_689_512),  # as published
    ],
)
def test_parameter_counts_are_those_of_the_papers(name, in_channels, num_outputs, parameters):
    with torch.device("meta"):
        assert count(build_model(name, in_channels, num_outputs)) == parameters


def test_densenet121_is_torchvisions():
    ours = build_model("densenet121", 3, 5).eval()
    theirs = torchvision.models.densenet121(num_classes=5).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 48, 64)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


def test_densenet40_shares_the_tensors_of_densenet121_that_it_should():
    with torch.device("meta"):
        large = build_model("densenet121", 3, 14).state_dict()
        small = build_model("densenet40", 3, 14).state_dict()
    own = {name for name in small if name not in large}
    pointwise = ("squeeze.weight", "squeeze.bias", "expand.weight", "expand.bias")
    assert own == {f"features.{name}" for name in pointwise}
    assert all(small[name].shape == large[name].shape for name in small if name not in own)
    shared = ("conv0", "norm0", "denseblock1", "transition1", "denseblock2", "norm5")
    expected = {
        name for name in large if name.startswith((*(f"features.{s}." for s in shared), "classif"))
    }
    assert set(small) - own == expected


def test_densenet40_computes_what_its_paper_draws():
    network = build_model("densenet40", 3, 6).eval()
    features = network.features
    for norm in (features.norm5, features.norm0):  # so that its statistics matter
        norm.running_mean.uniform_(-1, 1)
    images = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        maps = images
        for name in ("conv0", "norm0", "relu0", "pool0", "denseblock1", "transition1"):
            maps = features.get_submodule(name)(maps)
        maps = features.denseblock2(maps)
        assert maps.shape == (2, 512, 12, 8)
        maps = functional.adaptive_avg_pool2d(maps, (8, 8))
        squeezed = functional.conv2d(maps, features.squeeze.weight, features.squeeze.bias)
        assert squeezed.shape == (2, 32, 8, 8)
        maps = functional.conv2d(squeezed, features.expand.weight, features.expand.bias)
        maps = features.norm5(maps).clamp(min=0)
        expected = maps.mean((2, 3)) @ network.classifier.weight.T + network.classifier.bias
        torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*DENSENETS, *SMALL_TIMM])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_classifiers_give_logits_per_image(name, in_channels):
    options = {"img_size": 64} if name == "timm:test_vit" else {}
    network = build_model(name, in_channels, 5, **options)
    logits = network(torch.rand(2, in_channels, 64, 64))
    assert (logits.shape, logits.dtype) == ((2, 5), torch.float32)
    logits.square().sum().backward()
    without = [key for key, each in network.named_parameters() if each.grad is None]
    assert without == []


@pytest.mark.parametrize("name", DENSENETS)
def test_one_seed_gives_one_classifier(name):
    states = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        states.append(build_model(name, 1, 2).state_dict())
    first, again, other = states
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["features.conv0.weight"], other["features.conv0.weight"])


@pytest.mark.parametrize("name", DENSENETS)
def test_dropout_is_an_option(name):
    network = build_model(name, 1, 2, drop_rate=0.5)
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert not torch.equal(network(images), network(images))
        network.eval()
        assert torch.equal(network(images), network(images))


@pytest.mark.parametrize("name", DENSENETS)
def test_images_below_the_smallest_side_are_refused(name):
    network = build_model(name, 1, 2).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 1, 32, 32)).shape == (1, 2)
        with pytest.raises(ConfigurationError, match="31×64 pixels, expected at least 32×32"):
            network(torch.rand(1, 1, 31, 64))


def test_classifiers_are_told_by_name():
    named = {name for name in MODEL_NAMES if is_classifier(name)}
    assert named == {*DENSENETS, "monai_densenet121"}
    assert is_classifier("timm:resnet50")
    assert not is_classifier("smp:Unet/resnet34")


def test_timm_options_reach_the_network():
    network = build_model("timm:densenet121.ra_in1k", 3, 2, block_config=[1, 1], growth_rate=4)
    assert network.num_features == 10  # 8 of the stem, 4, halved, 4
    assert ModelSpec("timm:test_vit", options={"img_size": [32, 48]}).build()(
        torch.rand(1, 1, 32, 48)
    ).shape == (1, 1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("densnet121", {}, "unknown network 'densnet121', did you mean 'densenet121'"),
        ("densenet121", {"droprate": 0.1}, "option 'droprate', did you mean 'drop_rate'"),
        ("densenet121", {"weights": "DEFAULT"}, "unknown option 'weights'"),
        ("densenet40", {"drop_rate": 1.0}, "'drop_rate' is 1.0, expected .* below 1"),
        ("densenet40", {"drop_rate": "0.1"}, "'drop_rate' is '0.1'"),
        ("timm:resnt50", {}, "no network 'resnt50', did you mean 'resnet50'"),
        ("timm:", {}, "timm has no network ''"),
        ("timm:hf-hub:someone/network", {}, "timm has no network"),
        ("timm:local-dir:/somewhere", {}, "timm has no network"),
        ("timm:test_resnet", {"num_classes": 3}, "set the network's num_outputs"),
        ("timm:test_resnet", {"in_chans": 3}, "set the network's in_channels"),
        ("timm:test_resnet", {"features_only": True}, "activation maps are had by taps"),
        ("timm:test_resnet", {"checkpoint_path": "x.pth"}, "give the file as init"),
        ("timm:test_resnet", {"pretrained_cfg": {"url": "x"}}, "give the file as init"),
        ("timm:test_resnet", {"pretrained": "x.pth"}, "'pretrained' is 'x.pth', expected true"),
        ("timm:test_resnet", {"mood": 1}, "timm refuses these options.*mood"),
        ("timm:densenet121", {"pretrained": True}, "read 3 image channels, and in_channels is 1"),
        ("timm:densenet264d", {"pretrained": True}, "no pretrained weights"),
    ],
)
def test_what_is_unknown_is_refused_with_what_to_do(name, options, message):
    with pytest.raises(ConfigurationError, match=message):
        build_model(name, **options)


def test_weights_are_downloaded_only_when_asked_for(monkeypatch):
    import timm.models._builder as builder

    def offline(*_, **__):
        raise ConnectionError("no network")

    for name in ("load_state_dict_from_hf", "load_state_dict_from_url"):
        monkeypatch.setattr(builder, name, offline)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    for name in DENSENETS:
        build_model(name, 3, 2)
    for nothing in ({}, {"pretrained": False}):
        build_model("timm:test_resnet", 3, 2, **nothing)
    with pytest.raises(ConfigurationError, match=r"timm/test_resnet.*: no network.*HF_HOME"):
        build_model("timm:test_resnet", 3, 2, pretrained=True)


@pytest.mark.parametrize("name", ["timm:test_efficientnet", "timm:mobilenetv3_small_050"])
@pytest.mark.parametrize("outputs", [1, 13, 1000])
def test_a_fresh_head_is_as_large_for_few_outputs_as_for_many(name, outputs):
    head = build_model(name, 3, outputs).get_classifier()
    assert head.weight.abs().max() <= head.in_features**-0.5


def test_features_have_no_head_to_make_smaller():
    assert isinstance(build_model("timm:test_efficientnet", 3, 0).get_classifier(), nn.Identity)
