import copy

import pytest
import torch

from nakt_dist.errors import ConfigurationError
from nakt_dist.models import MODEL_NAMES, ModelSpec, build_model

# Each network as small as its options allow, so that one core runs every test in seconds.
SMALL = {
    "unet": {"base_channels": 4},
    "attention_unet": {"base_channels": 4},
    "sdu_net": {"base_channels": 16},
    "deeplabv3plus": {"encoder_name": "resnet18", "decoder_channels": 32},
    "panoptic_fpn": {"encoder_name": "resnet18", "decoder_pyramid_channels": 32},
    "smp:Unet/mobilenet_v2": {},
}
HAND_WRITTEN = ("unet", "attention_unet", "sdu_net")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def small(name, in_channels=1, num_outputs=1, **options):
    return build_model(name, in_channels, num_outputs, **{**SMALL[name], **options})


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("unet", {}, 14_787_777),
        ("unet", {"width": "classic"}, 31_042_369),
        ("attention_unet", {}, 34_877_421),
        ("sdu_net", {}, 5_997_681),
        ("deeplabv3plus", {}, 26_671_313),
        ("panoptic_fpn", {}, 26_109_761),
    ],
)
def test_parameter_counts_are_those_of_the_paper(name, options, parameters):
    with torch.device("meta"):
        assert count(build_model(name, **options)) == parameters


def test_sdu_net_has_the_share_of_the_unet_that_its_paper_states():
    with torch.device("meta"):
        assert count(build_model("sdu_net")) / count(build_model("unet")) == pytest.approx(
            0.406, abs=5e-4
        )


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(16, 16), (17, 33), (64, 48), (50, 101)])
def test_logits_have_the_height_and_width_of_the_images(name, size):
    network = small(name, in_channels=3, num_outputs=2).eval()
    with torch.no_grad():
        logits = network(torch.rand(2, 3, *size))
    assert logits.shape == (2, 2, *size)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_padding_changes_nothing_where_it_is_not_needed_and_mirrors_where_it_is(name):
    network = small(name, normalisation="group").eval()
    images = torch.rand(1, 1, 40, 32)
    mirrored = torch.nn.functional.pad(images, (0, 0, 4, 4), mode="reflect")
    with torch.no_grad():
        assert torch.equal(network(images), network(mirrored)[..., 4:44, :])
        assert torch.equal(network(mirrored), network._segment(mirrored))


def test_images_below_the_smallest_side_are_refused():
    with pytest.raises(ConfigurationError, match=r"8×64 pixels, expected at least 16×16"):
        small("unet")(torch.rand(1, 1, 8, 64))


def test_options_that_change_the_output_size_are_found_out():
    network = small("panoptic_fpn", upsampling=2).eval()
    with pytest.raises(ConfigurationError, match=r"32×32 logits for 64×64 images"):
        network(torch.rand(1, 1, 64, 64))


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter_and_only_they(name):
    network = small(name)
    images = torch.rand(2, 1, 32, 48)
    before = images.clone()
    network(images).square().mean().backward()
    without = [key for key, each in network.named_parameters() if each.grad is None]
    assert without == []
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_dropout_is_noise_of_training_alone_and_none_by_default(name):
    plain, noisy = (small(name, normalisation="none", dropout=share) for share in (0.0, 0.5))
    noisy.load_state_dict(plain.state_dict())
    images = torch.rand(2, 1, 32, 32)
    torch.manual_seed(1)
    state, logits = torch.get_rng_state(), plain(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(noisy(images), noisy(images))
    assert torch.equal(noisy.eval()(images), logits)


@pytest.mark.parametrize("name", SMALL)
def test_one_seed_gives_one_network(name):
    networks = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        networks.append(small(name).state_dict())
    first, again, other = networks
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_initial_signal_neither_dies_nor_explodes_without_normalisation(name):
    network = small(name, base_channels=16, normalisation="none")
    with torch.no_grad():
        spread = network(torch.randn(2, 1, 64, 64)).std()
    assert 0.05 < spread < 20


@pytest.mark.parametrize("normalisation", ["group", "none"])
@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_images_do_not_influence_each_other_without_batch_normalisation(name, normalisation):
    network = small(name, normalisation=normalisation)
    images = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        together = network(images)
        apart = torch.cat([network(images[:1]), network(images[1:])])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_batch_normalisation_couples_the_images_in_training_alone(name):
    network = small(name)
    images = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(network(images)[:2], network(images[:2]), atol=1e-3)
        network.eval()
        torch.testing.assert_close(network(images)[:2], network(images[:2]), rtol=1e-4, atol=1e-5)


def test_group_normalisation_keeps_the_parameter_count_and_none_drops_it():
    counts = [count(small("unet", normalisation=kind)) for kind in ("batch", "group", "none")]
    assert counts[0] == counts[1] > counts[2]


def test_deeplab_cannot_be_trained_on_a_batch_of_one():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        small("deeplabv3plus")(torch.rand(1, 1, 64, 64))


@pytest.mark.parametrize("name", SMALL)
def test_channels_last_gives_the_same_logits(name):
    network = small(name).eval()
    images = torch.rand(2, 1, 48, 32)
    with torch.no_grad():
        plain = network(images)
        network = network.to(memory_format=torch.channels_last)
        fast = network(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(plain, fast, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_networks_can_be_copied(name):
    network = small(name).eval()
    twin = copy.deepcopy(network)
    images = torch.rand(1, 1, 20, 32)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        assert twin(images).abs().sum() > 0


def test_networks_compile_into_one_graph_at_changing_sizes():
    network = build_model("attention_unet", base_channels=2, normalisation="none")
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for size in ((32, 32), (40, 52)):
            images = torch.rand(1, 1, *size)
            torch.testing.assert_close(compiled(images), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [("Unet", "resnet18"), ("DeepLabV3Plus", "mobilenet_v2"), ("FPN", "tu-resnet18")],
)
def test_smp_networks_keep_smp_names_weights_and_logits(architecture, encoder):
    import segmentation_models_pytorch as smp

    ours = build_model(f"smp:{architecture}/{encoder}").eval()
    theirs = getattr(smp, architecture)(encoder, encoder_weights=None, in_channels=1).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(1, 1, 64, 96)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


def test_vision_transformers_take_any_size():
    network = build_model("smp:DPT/tu-vit_tiny_patch16_224").eval()
    with torch.no_grad():
        assert network(torch.rand(1, 1, 40, 64)).shape == (1, 1, 40, 64)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unett", {}, "unknown network 'unett', did you mean 'unet'"),
        ("deeplabv3", {}, "did you mean 'deeplabv3plus'"),
        ("unet", {"widht": "paper"}, "unknown option 'widht', did you mean 'width'"),
        ("unet", {"width": "clasic"}, "'width' is 'clasic', did you mean 'classic'"),
        ("sdu_net", {"normalisation": "batchnorm"}, "did you mean 'batch'"),
        ("attention_unet", {"width": "paper"}, r"known: base_channels, normalisation"),
        ("sdu_net", {"base_channels": 24}, "is 24, expected .* multiple of 16"),
        ("attention_unet", {"base_channels": 3}, "is 3, expected .* multiple of 2"),
        ("unet", {"base_channels": 0}, "'base_channels' is 0"),
        ("unet", {"base_channels": True}, "'base_channels' is True"),
        ("sdu_net", {"dropout": 1}, r"'dropout' is 1, expected a number in \[0, 1\)"),
        ("attention_unet", {"dropout": True}, "'dropout' is True"),
        ("unet", {"in_channels": 0}, "in_channels is 0"),
        ("unet", {"num_outputs": 1.0}, "num_outputs is 1.0"),
        ("smp:unet/resnet18", {}, "unknown architecture 'unet', did you mean 'Unet'"),
        ("smp:Unet", {}, "such as smp:Unet/resnet34"),
        ("smp:Unet/resnet18", {"encoder_name": "resnet34"}, "encoder in the name and nowhere else"),
        ("smp:Unet/resnt18", {}, "unknown encoder 'resnt18', did you mean 'resnet18'"),
        ("smp:Unet/tu-resnt18", {}, "did you mean 'tu-resnet18'"),
        ("smp:Unet/tu-hf-hub:some/network", {}, "unknown encoder"),
        ("deeplabv3plus", {"encoder_name": "resnet5"}, "did you mean 'resnet50'"),
        ("deeplabv3plus", {"decoder_chanels": 1}, "did you mean 'decoder_channels'"),
        ("smp:FPN/tu-resnet18", {"decoder_dropuot": 0.1}, "did you mean 'decoder_dropout'"),
        ("panoptic_fpn", {"classes": 2}, "set the network's num_outputs"),
        ("panoptic_fpn", {"activation": "sigmoid"}, "networks here return logits"),
        ("panoptic_fpn", {"encoder_depth": 9}, r"refuses these options.*\[1, 5\]"),
        ("smp:Unet/resnet18", {"encoder_weights": "imagenett"}, "did you mean 'imagenet'"),
        ("smp:Unet/tu-resnet18", {"encoder_weights": "imagenet"}, "known: true or null"),
    ],
)
def test_what_is_unknown_is_refused_with_the_nearest_name(name, options, message):
    with pytest.raises(ConfigurationError, match=message):
        build_model(name, **options)


def test_pretrained_weights_that_cannot_be_had_are_explained(monkeypatch):
    from segmentation_models_pytorch import encoders

    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(encoders, "hf_hub_download", offline)
    with pytest.raises(ConfigurationError, match=r"resnet18\.imagenet': no network.*HF_HOME"):
        build_model("smp:Unet/resnet18", encoder_weights="imagenet")
    for nothing in (None, False):
        build_model("smp:Unet/resnet18", encoder_weights=nothing)
        build_model("smp:Unet/tu-resnet18", encoder_weights=nothing)


def test_every_name_builds_from_its_spec():
    for name in MODEL_NAMES:
        spec = ModelSpec(name, in_channels=3, num_outputs=2, options=SMALL.get(name, {}))
        with torch.device("meta"):
            assert count(ModelSpec.from_json(spec.to_json()).build()) == count(spec.build())


def test_specs_equal_their_stored_copy():
    spec = ModelSpec("deeplabv3plus", 3, 4, {"decoder_atrous_rates": (1, 2, 3), "é": None})
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert spec.to_json() == ModelSpec.from_json(spec.to_json()).to_json()
    assert ModelSpec.from_json("{}") == ModelSpec()


def test_a_spec_without_encoder_weights_keeps_everything_else():
    spec = ModelSpec("panoptic_fpn", 3, 1, {"encoder_weights": "imagenet", "encoder_depth": 4})
    assert spec.without_encoder_weights() == ModelSpec("panoptic_fpn", 3, 1, {"encoder_depth": 4})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "found list, expected a mapping"),
        ('{"nam": "unet"}', "unknown field 'nam', did you mean 'name'"),
        ('{"in_channels": "1"}', "'in_channels' is '1', expected int"),
        ('{"in_channels": true}', "'in_channels' is True"),
    ],
)
def test_damaged_specs_are_explained(text, message):
    with pytest.raises(ConfigurationError, match=message):
        ModelSpec.from_json(text)


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_options_that_json_cannot_hold_are_refused(value):
    with pytest.raises(ConfigurationError, match="options of network 'unet'"):
        ModelSpec(options={"width": value})
