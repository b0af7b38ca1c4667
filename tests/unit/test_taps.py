import copy
import gc
import shutil
import weakref

import pytest
import torch
from torch import nn
from torchvision.models import DenseNet

from nakt_dist.errors import ConfigurationError
from nakt_dist.models import build_model
from nakt_dist.models.taps import TappedNetwork, TeacherTap, find_module, preset_taps

LAYER = "features.denseblock2.denselayer1"
BEFORE_RELU = "features.norm0"  # torchvision's ReLU then overwrites what it gives
IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch._dynamo.reset()


def dense_net(outputs=2):
    """DenseNet, as in-place as the large ones, in miniature."""
    return DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=outputs)


def frozen_state(network):
    return {name: each.clone() for name, each in network.state_dict().items()}


def assert_unchanged(network, before):
    for name, each in network.state_dict().items():
        assert torch.equal(each, before[name]), name


def gradients(network):
    return {name: each.grad.clone() for name, each in network.named_parameters()}


class Chain(nn.Module):
    """Three layers of which the second is called as often as wished; counts its calls."""

    def __init__(self, calls=1):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(1, 1, 1) for _ in range(3))
        self.several = nn.Identity()
        self.calls, self.reached_end = calls, 0

    def forward(self, images):
        maps = self.first(images)
        for _ in range(self.calls):
            maps = self.second(maps)
        self.reached_end += 1
        return self.third(maps)


@pytest.mark.parametrize(
    ("preset", "name", "path", "shape"),
    [
        ("paper", "densenet121", "features.denseblock4.denselayer15", (1, 32, 8, 8)),
        ("paper", "densenet40", "features.squeeze", (1, 32, 8, 8)),
        ("authors_code", "densenet121", "features.denseblock4.denselayer16.conv2", (1, 32, 8, 8)),
        ("authors_code", "densenet40", "features.squeeze", (1, 32, 8, 8)),
        ("paper", "timm:densenet121.ra_in1k", "features.denseblock4.denselayer15", (1, 32, 8, 8)),
    ],
)
def test_presets_tap_32_maps_of_8_by_8(preset, name, path, shape):
    assert preset_taps(preset, name) == path
    with torch.device("meta"), torch.no_grad():
        network = TappedNetwork(build_model(name, 3, 14), [path]).eval()
        output, (tapped,) = network(torch.rand(1, 3, 256, 256))
    assert (output.shape, tapped.shape) == ((1, 14), shape)


@pytest.mark.parametrize(
    ("preset", "name", "message"),
    [
        ("papers", "densenet121", "'papers', did you mean 'paper'"),
        ("paper", "timm:densenet169", "no tap for the network 'timm:densenet169'.*attention.taps"),
        ("authors_code", "unet", "no tap for the network 'unet'"),
    ],
)
def test_presets_say_what_they_know(preset, name, message):
    with pytest.raises(ConfigurationError, match=message):
        preset_taps(preset, name)


def test_modules_are_found_by_path():
    network = dense_net()
    assert find_module(network, LAYER) is network.features.denseblock2.denselayer1
    assert find_module(network, "classifier") is network.classifier


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("features.denseblock2.denslayer1", "did you mean 'features.denseblock2.denselayer1'"),
        ("features.denseblock2.denselayer9", "'features.denseblock2' has denselayer1, denselayer2"),
        ("zzzzzz", r"the network \(DenseNet\) has features, classifier"),
        ("classifier.zzzzzzzzzzzzzzzzzzzzzzzz", "'classifier' has none"),
        ("", r"the network \(DenseNet\) has"),
    ],
)
def test_paths_that_lead_nowhere_are_refused_with_the_nearest(path, message):
    for tapped in (TappedNetwork, TeacherTap):
        with pytest.raises(ConfigurationError, match=message):
            tapped(dense_net(), [path])


def test_several_taps_give_what_the_layers_compute():
    network = dense_net().eval()
    features = network.features
    with torch.no_grad():
        stem = features.norm0(features.conv0(IMAGES))
        block = features.denseblock1(features.pool0(stem.clone().relu_()))
        layer = features.denseblock2.denselayer1(features.transition1(block.clone()))
    paths = [LAYER, BEFORE_RELU, "features.denseblock1", LAYER]
    bare = network(IMAGES)
    output, tapped = TappedNetwork(network, paths)(IMAGES)
    assert torch.equal(output, bare)
    for found, expected in zip(tapped, (layer, stem, block, layer), strict=True):
        assert torch.equal(found, expected)
    assert tapped[1].min() < 0  # before ReLU


def test_no_taps_are_allowed():
    network = dense_net().eval()
    output, tapped = TappedNetwork(network, [])(IMAGES)
    assert tapped == ()
    assert torch.equal(output, network(IMAGES))
    assert TeacherTap(network).activations(IMAGES) == ()


def test_gradients_flow_through_taps_and_output_alike():
    network, images = dense_net().double(), IMAGES.double()
    twin = copy.deepcopy(network)
    output, tapped = TappedNetwork(network, [BEFORE_RELU, LAYER])(images)
    (output.square().sum() + sum(each.square().sum() for each in tapped)).backward()

    features = twin.features
    features.relu0 = nn.ReLU()
    stem = features.norm0(features.conv0(images))
    given = features.transition1(features.denseblock1(features.pool0(features.relu0(stem))))
    first = features.denseblock2.denselayer1(given)
    second = features.denseblock2.denselayer2([given, first])
    maps = features.norm5(torch.cat([given, first, second], 1)).relu().mean((2, 3))
    loss = twin.classifier(maps).square().sum() + stem.square().sum() + first.square().sum()
    loss.backward()
    for name, gradient in gradients(twin).items():
        torch.testing.assert_close(gradients(network)[name], gradient)


def test_a_tap_alone_teaches_the_layers_before_it_alone():
    network = Chain()
    _, (tapped,) = TappedNetwork(network, ["second"])(torch.rand(1, 1, 4, 4))
    tapped.sum().backward()
    assert network.first.weight.grad is not None
    assert network.third.weight.grad is None


def test_several_calls_do_not_mix_and_nothing_is_kept():
    tapped = TappedNetwork(dense_net().eval(), [LAYER])
    first_output, first = tapped(IMAGES[:1])
    second_output, second = tapped(IMAGES[1:])
    assert (len(first[0]), len(second[0])) == (1, 2)
    both = tapped(IMAGES)[1][0]
    torch.testing.assert_close(torch.cat([first[0], second[0]]), both, rtol=1e-4, atol=1e-5)
    (first[0].sum() + second[0].sum() + first_output.sum() + second_output.sum()).backward()
    kept = weakref.ref(first[0])
    del first
    tapped.network(IMAGES)  # the bare network records nothing
    gc.collect()
    assert kept() is None


def test_two_taps_on_one_network_do_not_disturb_each_other():
    network = dense_net().eval()
    outer, inner = TappedNetwork(network, [LAYER]), TeacherTap(copy.deepcopy(network), [LAYER])
    again = TappedNetwork(network, ["features.norm5"])
    assert torch.equal(outer(IMAGES)[1][0], inner.activations(IMAGES)[0])
    assert again(IMAGES)[1][0].shape[1] == network.classifier.in_features


def test_a_copy_taps_itself():
    tapped = TappedNetwork(dense_net().eval(), [LAYER])
    twin = copy.deepcopy(tapped)
    with torch.no_grad():
        for parameter in tapped.parameters():
            parameter.zero_()
    assert twin(IMAGES)[1][0].abs().sum() > 0
    assert tapped(IMAGES)[1][0].abs().sum() == 0


def test_an_error_in_the_network_leaves_taps_usable():
    tapped = TappedNetwork(dense_net().eval(), [LAYER])
    with pytest.raises(RuntimeError):
        tapped(torch.rand(1, 5, 32, 32))
    assert len(tapped(IMAGES)[1]) == 1


def test_a_layer_that_is_not_reached_is_named():
    for tapped in (TappedNetwork(Chain(), ["several"]), TappedNetwork(Chain(0), ["second"])):
        with pytest.raises(ConfigurationError, match=r"'s\w+' is not called in the network's"):
            tapped(torch.rand(1, 1, 4, 4))
    with pytest.raises(ConfigurationError, match="'several' is not called"):
        TeacherTap(Chain(), ["first", "several"]).activations(torch.rand(1, 1, 4, 4))


def test_a_layer_that_is_called_twice_is_named():
    with pytest.raises(ConfigurationError, match="'second' is called 2 times"):
        TappedNetwork(Chain(2), ["second"])(torch.rand(1, 1, 4, 4))


def test_a_layer_that_gives_no_tensor_is_named():
    network = build_model("smp:Unet/resnet18").eval()
    with pytest.raises(ConfigurationError, match="'encoder' gives a list, expected a tensor"):
        TappedNetwork(network, ["encoder"])(torch.rand(1, 1, 32, 32))


@pytest.mark.parametrize(
    ("name", "options", "path", "shape"),
    [
        ("unet", {"base_channels": 4}, "encoder.4", (1, 32, 3, 3)),
        ("unet", {"base_channels": 4}, "decoder.3", (1, 4, 48, 48)),
        ("attention_unet", {"base_channels": 4}, "gates.0", (1, 32, 6, 6)),
        ("sdu_net", {"base_channels": 16}, "encoder.4", (1, 128, 3, 3)),
        ("deeplabv3plus", {"encoder_name": "resnet18"}, "encoder.layer4", (1, 512, 3, 3)),
        ("panoptic_fpn", {"encoder_name": "resnet18"}, "decoder.p2", (1, 256, 16, 16)),
        ("smp:Unet/mobilenet_v2", {}, "decoder.blocks.4", (1, 16, 64, 64)),
        ("smp:FPN/tu-resnet18", {}, "encoder.model.layer1", (1, 64, 16, 16)),
    ],
)
def test_segmentation_networks_can_be_tapped(name, options, path, shape):
    network = build_model(name, **options).eval()
    images = torch.rand(1, 1, 48, 48)  # padded inside where 32 does not divide it
    bare = network(images)
    output, (tapped,) = TappedNetwork(network, [path])(images)
    assert torch.equal(output, bare)
    assert tapped.shape == shape
    (teacher,) = TeacherTap(copy.deepcopy(network), [path]).activations(images)
    assert torch.equal(teacher, tapped)
    (tapped.square().mean() + output.square().mean()).backward()
    assert all(each.grad is not None for each in network.parameters())


def in_place_chain():
    """Small enough for a compiler that turns each kernel into C++."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1)
    )


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


@pytest.mark.parametrize(
    ("backend", "build", "paths"),
    [
        ("aot_eager", dense_net, (BEFORE_RELU, LAYER)),
        pytest.param("inductor", in_place_chain, ("1", "3"), marks=needs_compiler),
    ],
)
def test_compiled_and_eager_agree(backend, build, paths):
    tapped = TappedNetwork(build(), paths)
    twin = copy.deepcopy(tapped)
    compiled = torch.compile(twin, backend=backend, fullgraph=True)
    teacher = TeacherTap(build(), paths)
    for _ in range(2):
        losses = []
        for network in (tapped, compiled):
            output, maps = network(IMAGES)
            loss = output.square().mean()
            for student_map, teacher_map in zip(maps, teacher.activations(IMAGES), strict=True):
                loss = loss + (student_map - teacher_map).square().mean()
            loss.backward()
            losses.append(loss.detach())
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients(tapped.network).items():
        found = gradients(twin.network)[name]
        torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-4)


def test_a_network_is_compiled_once_for_all_its_steps():
    counter = torch._dynamo.testing.CompileCounter()
    tapped = TappedNetwork(in_place_chain(), ["1"])
    compiled = torch.compile(tapped, backend=counter)
    for _ in range(3):
        assert len(compiled(IMAGES)[1]) == 1
        tapped.network(IMAGES)
    assert counter.frame_count == 1


def test_a_compiled_network_names_a_layer_that_is_not_reached():
    compiled = torch.compile(TappedNetwork(Chain(), ["several"]), backend="eager")
    with pytest.raises(ConfigurationError, match="'several' is not called"):
        compiled(torch.rand(1, 1, 4, 4))


def test_a_teacher_stops_at_its_last_tap():
    network = Chain()
    teacher = TeacherTap(network, ["second", "first"])
    images = torch.rand(1, 1, 4, 4)
    second, first = teacher.activations(images)
    assert network.reached_end == 0
    assert torch.equal(second, network.second(first))
    output, _ = teacher.output_and_activations(images)
    assert network.reached_end == 1
    both, tapped = teacher.output_and_activations(images)
    assert network.reached_end == 2
    assert torch.equal(output, both)
    assert torch.equal(tapped[0], second)
    assert torch.equal(output, network(images))


def test_a_teacher_stops_inside_a_dense_net():
    network = dense_net()
    calls = []
    network.features.norm5.register_forward_hook(lambda *_: calls.append("norm5"))
    network.features.denseblock2.denselayer2.register_forward_hook(lambda *_: calls.append("2"))
    TeacherTap(network, [LAYER]).activations(IMAGES)
    assert calls == []


def test_a_teacher_never_leaves_eval_nor_changes():
    network = dense_net()
    before = frozen_state(network)
    teacher = TeacherTap(network, [LAYER])
    expected = teacher.output_and_activations(IMAGES)
    for disturb in (network.train, network.features.norm0.train, nn.Sequential(network).train):
        disturb()
        output, tapped = teacher.output_and_activations(IMAGES)
        assert not any(module.training for module in network.modules())
        assert torch.equal(output, expected[0])
        disturb()
        assert torch.equal(teacher.activations(IMAGES)[0], tapped[0])
        disturb()
        assert torch.equal(teacher.output_and_activations(IMAGES)[0], output)
    assert_unchanged(network, before)
    assert not any(each.requires_grad for each in network.parameters())


def test_a_teachers_maps_enter_a_loss_and_get_no_gradient():
    teacher = TeacherTap(dense_net(), [LAYER])
    student = TappedNetwork(dense_net(), [LAYER])
    (target,) = teacher.activations(IMAGES)
    assert not target.requires_grad
    assert not target.is_inference()
    _, (found,) = student(IMAGES)
    (found * target).sum().backward()  # saves the target for the backward pass
    assert student.network.features.conv0.weight.grad.abs().sum() > 0
    assert all(each.grad is None for each in teacher.network.parameters())


def test_taps_follow_the_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        _, (tapped,) = TappedNetwork(dense_net(), [LAYER])(IMAGES)
        (target,) = TeacherTap(dense_net(), [LAYER]).activations(IMAGES)
    assert tapped.dtype == target.dtype == torch.bfloat16
    (tapped.float() - target.float()).square().mean().backward()
