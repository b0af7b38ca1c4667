"""Files of other libraries, written here in their formats, opened without being described."""

import json
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file

from nakt_dist.config import PreprocessingConfig
from nakt_dist.config.teaching import LearntImagesConfig, NetworkCardConfig
from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models import ModelSpec, build_model
from nakt_dist.models.densenet import at_operating_points
from nakt_dist.models.heads import SoftmaxHead
from nakt_dist.models.initialise import initialise, read_initial_weights
from nakt_dist.models.network_file import open_network
from nakt_dist.models.weights import read_weights
from nakt_dist.records.lineage import Lineage
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.sources.findings import TORCHXRAYVISION_FINDINGS
from nakt_dist.stages.network_card import with_card

pytestmark = pytest.mark.usefixtures("seeded")


def test_operating_points_come_to_a_half():
    points = torch.tensor([0.2, 0.2, 0.2, 0.002])
    logits = torch.tensor([[0.1, 0.2, 0.6, 0.001]]).logit()
    expected = torch.tensor([[0.25, 0.5, 0.75, 0.25]])
    assert torch.allclose(at_operating_points(logits, points).sigmoid(), expected)
    far = torch.tensor([[-80.0, 80.0, 0.0, -1e4]], requires_grad=True)
    moved = at_operating_points(far, points)
    moved.sum().backward()
    assert moved.isfinite().all() and far.grad.isfinite().all()


@pytest.fixture(scope="module")
def xray(tmp_path_factory):
    """A state dict as torchxrayvision's DenseNet has it, of which two outputs never learnt."""
    state = build_model("densenet121", 1, 18, calibrated=True).state_dict()
    state["op_threshs"] = torch.linspace(0.01, 0.9, 18)
    state["op_threshs"][[2, 5]] = torch.nan
    state["classifier.bias"] = torch.linspace(-4, 4, 18)
    path = tmp_path_factory.mktemp("xrv") / "nih.pt"
    torch.save(state, path)
    return path, state


def test_a_densenet_of_torchxrayvision_brings_its_input_and_calibration(xray):
    path, state = xray
    opened = open_network(path, ModelSpec("densenet121"))
    assert opened.spec == ModelSpec("densenet121", 1, 16, {"calibrated": True})
    seen = opened.preprocessing
    assert (seen.height, seen.width, seen.mean, seen.std) == (224, 224, 0.5, 1 / 2048)
    assert opened.prepare(torch.tensor([0, 1.0])[:, None, None, None])[:, 0, 0, 0].tolist() == [
        -1024,
        1024,
    ]
    names = list(TORCHXRAYVISION_FINDINGS)
    assert opened.lineage == {"labels": [*names[:2], *names[3:5], *names[6:]]}
    assert "torchxrayvision" in opened.notices[0] and "2 outputs" in opened.notices[0]

    plain = build_model("densenet121", 1, 18).eval()
    plain.load_state_dict({k: v for k, v in state.items() if k != "op_threshs"})
    kept = [number for number in range(18) if number not in (2, 5)]
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        p = plain((images - 0.5) * 2048).sigmoid()[:, kept]
    t = state["op_threshs"][kept]
    expected = torch.where(p < t, p / (2 * t), 1 - (1 - p) / (2 * (1 - t)))
    found = opened.network((images - 0.5) * 2048).sigmoid()
    assert torch.allclose(found, expected, atol=1e-5)


def test_other_findings_than_those_of_torchxrayvision_get_a_new_head(xray):
    network = build_model("densenet121", 1, 3, calibrated=True)
    report = initialise(network, read_initial_weights(xray[0]))
    assert set(report.replaced_head) == {"classifier.weight", "classifier.bias", "op_threshs"}
    assert network.op_threshs.tolist() == [0.5] * 3


def test_what_outputs_mean_says_nothing_of_what_was_learnt(xray):
    opened = open_network(xray[0])
    assert read_lineage(opened.lineage, lenient=True) == Lineage()
    card = NetworkCardConfig("apache-2.0", [LearntImagesConfig("chestxray14")])
    carded, _ = with_card(opened, SimpleNamespace(weights=str(xray[0]), card=card))
    assert carded.lineage["labels"] == opened.lineage["labels"]
    assert read_lineage(carded.lineage, lenient=True).learnt.dataset == "chestxray14"


@pytest.mark.parametrize("wrong", [1.5, 0.0, float("inf"), None])
def test_operating_points_that_are_none_are_refused(tmp_path, xray, wrong):
    points = torch.full((18,), torch.nan) if wrong is None else torch.full((18,), wrong)
    torch.save({**xray[1], "op_threshs": points}, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="operating points of torchxrayvision"):
        open_network(tmp_path / "net.pt")


@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:test_vit"])
def test_the_sigmoid_of_a_softmax_head_is_the_softmax(tmp_path, name):
    with torch.random.fork_rng(devices=[]):
        theirs = build_model(name, 1, 2).eval()
    ours = build_model(name, 1, 2, softmax=True).eval()
    assert all(map(torch.equal, theirs.state_dict().values(), ours.state_dict().values()))
    images = torch.rand(2, 1, 160, 160)
    with torch.no_grad():
        expected = theirs(images).softmax(1)
        assert torch.allclose(ours(images).sigmoid(), expected, atol=1e-6)
    torch.save(theirs.state_dict(), tmp_path / "net.pt")
    asked = ModelSpec(name, options={"softmax": True})
    opened = open_network(tmp_path / "net.pt", asked, PreprocessingConfig(mean=0, std=1))
    assert opened.spec.num_outputs == 2
    assert torch.allclose(opened.logits(images).sigmoid(), expected, atol=1e-6)
    assert "a sigmoid of each output" not in " ".join(opened.notices)
    told = open_network(tmp_path / "net.pt", ModelSpec(name)).notices
    assert "a sigmoid of each output (model.options.softmax: true" in " ".join(told)


def test_a_softmax_head_is_stable_and_known_by_hand():
    head = SoftmaxHead(1, 3)
    torch.nn.init.zeros_(head.weight)
    head.bias.data = torch.tensor([0.0, 200.0, -200.0])
    logits = head(torch.ones(1, 1))
    assert torch.allclose(logits, torch.tensor([[-200.0, 200.0, -400.0]]))
    logits.sum().backward()
    assert head.bias.grad.isfinite().all()


def test_a_softmax_needs_two_outputs_of_a_classifier():
    with pytest.raises(ConfigurationError, match="'softmax' is for a classifier of at least two"):
        build_model("densenet40", 1, 1, softmax=True)(torch.rand(1, 1, 32, 32))
    refused = pytest.raises(ConfigurationError, match=r"ends in one linear layer.*Conv2d")
    with refused, torch.device("meta"):
        build_model("timm:resnetv2_50", 3, 2, softmax=True)
    with pytest.raises(ConfigurationError, match="unknown option 'softmax'"):
        build_model("unet", 1, 2, softmax=True)


def test_a_checkpoint_of_lightning_holds_its_network_under_a_prefix(tmp_path):
    spec = ModelSpec("unet", options={"base_channels": 4})
    network = spec.build().eval()
    state = {f"backbone.{name}": each for name, each in network.state_dict().items()}
    state |= {"loss.pos_weight": torch.ones(1), "dice.tp": torch.zeros(1)}
    callback = {"best_model_score": torch.tensor(0.5), "best_k_models": {"a.ckpt": np.float64(1)}}
    content = {
        "epoch": 3,
        "global_step": np.int64(12),
        "pytorch-lightning_version": "2.6.6",
        "state_dict": OrderedDict(state),
        "callbacks": {"ModelCheckpoint{'monitor': 'dice'}": callback},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": np.float32(1e-3), "sizes": (64, 64), "amsgrad": np.True_},
    }
    torch.save(content, tmp_path / "last.ckpt")
    opened = open_network(tmp_path / "last.ckpt", spec)
    images = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(opened.probability(images), network(images).sigmoid())
    assert "'state_dict' of its file is read; left there: epoch" in opened.notices[0]


@pytest.mark.parametrize(
    "wrong",
    [np.ones(1), np.array([{}], dtype=object), np.datetime64("2020"), np.str_("a")],
    ids=["array", "objects", "date", "text"],
)
def test_of_numpy_only_single_numbers_are_read(tmp_path, wrong):
    content = {"state_dict": {"a": torch.ones(1), "b": torch.ones(1)}, "best": wrong}
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=r"pickled code objects \(numpy"):
        read_weights(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("activation", "classes", "more"),
    [
        ("sigmoid", 1, {"decoder_channels": (16, 8, 8, 8, 8)}),
        ("softmax2d", 2, {"decoder_attention_type": "scse"}),
        (None, 3, {}),
    ],
)
def test_a_folder_of_smp_with_its_activation(tmp_path, activation, classes, more):
    theirs = smp.Unet("tu-test_resnet", encoder_weights=None, in_channels=1, classes=classes,
                      activation=activation, **more).eval()  # fmt: skip
    theirs.save_pretrained(tmp_path / "lesions")
    opened = open_network(tmp_path / "lesions")
    assert opened.name == "lesions"
    assert (opened.spec.name, opened.spec.num_outputs) == ("smp:Unet/tu-test_resnet", classes)
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = theirs(images)
        expected = expected if activation else expected.softmax(1)
    assert torch.allclose(opened.probability(images), expected, atol=1e-6)
    assert f"activation {activation}" in opened.notices[0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"activation": "sigmoid", "classes": 3}, "activation of its 3 outputs is 'sigmoid'"),
        ({"activation": "tanh"}, "activation of its 1 outputs is 'tanh'"),
        ({"classes": "1"}, "classes is '1', expected int"),
        ({"encoder_name": 3}, "encoder_name is 3, expected str"),
        ({"url": "https://example.org"}, "option 'url', which opens a path or an address"),
        ({"decoder_channels": [10**7] * 5}, "is far larger than"),
        ({"encoder_depth": float("inf")}, r"config\.json: options of network"),
    ],
)
def test_a_description_of_smp_that_cannot_be_used_is_refused(tmp_path, wrong, message):
    config = {
        **{"_model_class": "Unet", "encoder_name": "mobilenet_v2", "activation": None},
        **{"classes": 1, "in_channels": 1, **wrong},
    }
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        open_network(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, '{"a":' * 60 + "1" + "}" * 60])
def test_a_description_that_is_no_object_is_refused(tmp_path, text):
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        open_network(tmp_path)


def test_calibration_is_on_or_off():
    with pytest.raises(ConfigurationError, match="'calibrated' is 'yes', expected true or false"):
        build_model("densenet121", 1, 2, calibrated="yes")
