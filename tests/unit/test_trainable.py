import pytest
import torch
from torch import nn
from torchvision.models import DenseNet

from nakt_dist.errors import ConfigurationError
from nakt_dist.models import build_model
from nakt_dist.models.trainable import keep_frozen_statistics, select_trainable

LAST34 = ("features.transition3.", "features.denseblock4.", "features.norm5.", "classifier.")


def trainable(network):
    return {name for name, each in network.named_parameters() if each.requires_grad}


def small():
    torch.manual_seed(0)
    return DenseNet(growth_rate=4, block_config=(1, 1), num_init_features=8, num_classes=2)


@pytest.mark.parametrize(
    ("name", "parts", "expected"),
    [
        ("densenet121", "all", 6_968_206),
        ("densenet121", "last34", 2_700_814),
        ("timm:densenet121", "last34", 2_700_814),
        ("densenet40", "all", 1_364_142),
        # 512·32 + 32, 32·1024 + 1024, 2·1024, 1024·14 + 14
        (
            "densenet40",
            ["features.squeeze", "features.expand", "features.norm5", "classifier"],
            66_606,
        ),
        ("densenet121", ["classifier"], 14_350),
        ("densenet121", ["classifier", "features.norm5"], 16_398),
        ("densenet121", ["features", "features.norm5", "classifier"], 6_968_206),
    ],
)
def test_parts_have_as_many_parameters_as_the_paper_counts(name, parts, expected):
    with torch.device("meta"):
        network = build_model(name, 3, 14)
    assert select_trainable(network, parts) == expected
    assert sum(each.numel() for each in network.parameters() if each.requires_grad) == expected


def test_last34_are_34_layers_with_weights():
    with torch.device("meta"):
        network = build_model("densenet121", 3, 14)
    select_trainable(network, "last34")
    chosen = trainable(network)
    assert chosen == {name for name, _ in network.named_parameters() if name.startswith(LAST34)}
    layers = [each for each in network.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    # The transition's convolution, two in each of 16 dense layers, and the classifier.
    assert sum(each.weight.requires_grad for each in layers) == 34


def test_a_later_selection_replaces_an_earlier_one():
    network = small()
    everything = trainable(network)
    select_trainable(network, ["classifier"])
    assert trainable(network) == {"classifier.weight", "classifier.bias"}
    select_trainable(network, ["features.norm5"])
    assert trainable(network) == {"features.norm5.weight", "features.norm5.bias"}
    select_trainable(network, "all")
    assert trainable(network) == everything


def test_only_selected_parts_get_gradients():
    network = small()
    select_trainable(network, ["features.norm5", "classifier"])
    network(torch.rand(2, 3, 32, 32)).sum().backward()
    found = {name for name, each in network.named_parameters() if each.grad is not None}
    assert found == trainable(network)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("last_34", "'last_34', did you mean 'last34'"),
        ("classifier", r"a list of module paths such as \[classifier\]"),
        ("last34", "layers of densenet121, and the network is a DenseNet"),
        ([], "empty list"),
        (["clasifier"], "no layer 'clasifier', did you mean 'classifier'"),
        (["features.relu0"], r"'features.relu0' \(ReLU\) has no parameters"),
    ],
)
def test_unknown_parts_are_refused_and_change_nothing(parts, message):
    network = small()
    select_trainable(network, ["features.norm5"])
    before = trainable(network)
    with pytest.raises(ConfigurationError, match=message):
        select_trainable(network, parts)
    assert trainable(network) == before


def test_frozen_batch_norms_keep_their_statistics_and_the_others_do_not():
    network = small()
    select_trainable(network, ["features.norm5", "classifier"])
    before = {name: each.clone() for name, each in network.named_buffers()}
    network.train()
    assert keep_frozen_statistics(network) == 6  # norm0, two blocks with two each, transition
    network(torch.rand(2, 3, 32, 32))
    changed = {
        name for name, each in network.named_buffers() if not torch.equal(each, before[name])
    }
    assert {name.rpartition(".")[0] for name in changed} == {"features.norm5"}
    assert network.training
    network.train()
    network(torch.rand(2, 3, 32, 32))  # as the original: frozen, yet updated
    assert not torch.equal(
        network.features.norm0.running_mean, before["features.norm0.running_mean"]
    )


def test_frozen_batch_norms_normalise_by_their_own_statistics():
    network = small()
    select_trainable(network, ["classifier"])
    images = torch.rand(3, 3, 32, 32)
    network.train()
    keep_frozen_statistics(network)
    with torch.no_grad():
        alone = torch.cat([network(each[None]) for each in images])
        torch.testing.assert_close(network(images), alone, rtol=1e-4, atol=1e-5)


def test_trained_and_parameterless_batch_norms_are_left_alone():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 3, 1))
    assert keep_frozen_statistics(network) == 0
    assert all(module.training for module in network)
    network[0].weight.requires_grad_(False)
    assert keep_frozen_statistics(network) == 0  # its bias is trained
    network.requires_grad_(False)
    assert keep_frozen_statistics(network) == 1
    assert [module.training for module in network] == [False, True, True]


def test_timms_batch_norms_count_as_well():
    network = build_model("timm:densenet121", 3, 2, block_config=[1, 1], growth_rate=4)
    select_trainable(network, ["classifier"])
    assert keep_frozen_statistics(network) == 7
