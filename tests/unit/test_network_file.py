import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nakt_dist.config import PreprocessingConfig, TeacherConfig
from nakt_dist.config.reading import read_config
from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models import ModelSpec
from nakt_dist.models.network_file import describe_for_file, open_network
from nakt_dist.models.registry import build_model
from nakt_dist.models.spec import IMAGENET_MEAN
from nakt_dist.models.weights import save_weights
from nakt_dist.models.weights_path import name_of_weights

SPEC = ModelSpec("unet", options={"base_channels": 4, "normalisation": "none"})


def store(path, spec=SPEC, described=None, **metadata):
    """Saves the network of ``spec`` under the description of another."""
    with torch.random.fork_rng(devices=[]):
        state_dict = spec.build().state_dict()
    save_weights(path, state_dict, described or spec, metadata)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def test_a_network_comes_back_with_its_input_and_origin(path):
    preprocessing = PreprocessingConfig(64, None, 0.25, 0.5)
    store(path, **describe_for_file(preprocessing, {"labels": "annotations"}))
    opened = open_network(path)
    assert (opened.spec, opened.preprocessing) == (SPEC, preprocessing)
    assert opened.lineage == {"labels": "annotations"}
    assert not opened.network.training
    assert opened.network(torch.rand(1, 1, 16, 16)).device.type == "cpu"


def test_an_input_normalised_by_channel_comes_back(path):
    spec = replace(SPEC, in_channels=3)
    preprocessing = PreprocessingConfig(mean=IMAGENET_MEAN, std=[0.25, 1, 2.0])
    assert preprocessing.mean == list(IMAGENET_MEAN)
    store(path, spec, **describe_for_file(preprocessing, {}))
    assert open_network(path).preprocessing == preprocessing


@pytest.mark.parametrize("wrong", [{"std": [1.0, 0.0]}, {"std": -1.0}, {"mean": []}, {"std": []}])
def test_an_impossible_normalisation_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=rf"preprocessing\.{name} must be"):
        PreprocessingConfig(**wrong)


@pytest.mark.parametrize(
    ("text", "mean"), [("0.5", 0.5), ("1", 1.0), ("[0.485, 0.456, 1]", [0.485, 0.456, 1.0])]
)
def test_a_mean_is_read_from_the_command_line(text, mean):
    words = ["--weights", "w", "--preprocessing.mean", text, "--preprocessing.std", text]
    read = read_config(TeacherConfig, "nakt", "", words)
    assert read.preprocessing.mean == read.preprocessing.std == mean


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("sdu_net", options={"base_channels": 16}),
        ModelSpec("attention_unet", 3, 2, {"base_channels": 4, "normalisation": "group"}),
        ModelSpec("panoptic_fpn", options={"encoder_name": "resnet18"}),
        ModelSpec("smp:Unet/mobilenet_v2"),
        ModelSpec("smp:Segformer/mit_b0"),  # reads values while it is built
        ModelSpec("smp:Unet/tu-convnext_atto"),
        ModelSpec("densenet40", 1, 2),
        ModelSpec("timm:resnet10t", 3, 5, {"drop_rate": 0.1}),
        ModelSpec("timm:test_vit", 1, 2, {"img_size": 64}),
    ],
    ids=lambda spec: spec.name,
)
def test_every_kind_of_network_passes_the_check_of_its_size(path, spec):
    opened = open_network(store(path, spec))
    assert all(each.device.type == "cpu" for each in opened.network.state_dict().values())


def test_a_network_that_reads_its_own_values_is_built_and_still_limited(path, monkeypatch):
    def build(name, in_channels, num_outputs, base_channels, normalisation):
        assert torch.ones(1).item() == 1  # which the meta device cannot
        torch.zeros(base_channels, 10**6)
        return build_model(name, in_channels, num_outputs, base_channels=4, normalisation="none")

    monkeypatch.setattr("nakt_dist.models.registry.build_model", build)
    store(path)
    assert open_network(path).spec == SPEC
    store(path, described=replace(SPEC, options={**SPEC.options, "base_channels": 90_000}))
    with pytest.raises(CheckpointError, match="is far larger than"):
        open_network(path)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_weights_that_are_not_finite_are_refused_by_tensor(tmp_path, wrong, kind):
    state_dict = SPEC.build().state_dict()
    state_dict["head.weight"].view(-1)[2] = wrong
    path = tmp_path / f"weights.{kind}"
    if kind == "pt":
        torch.save(state_dict, path)
    else:
        save_weights(path, state_dict, SPEC, {})
    with pytest.raises(CheckpointError, match=r"tensor 'head\.weight' holds 1 of 4") as caught:
        open_network(path, SPEC)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "described",
    [
        replace(SPEC, options={"base_channels": 1_000_000}),
        replace(SPEC, options={"base_channels": 10**30}),
        replace(SPEC, in_channels=10**15),
        replace(SPEC, num_outputs=10**30),
        ModelSpec("attention_unet", num_outputs=10**12),
        ModelSpec("panoptic_fpn", in_channels=10**12, options={"encoder_name": "resnet18"}),
        ModelSpec("smp:Unet/resnet18", options={"decoder_channels": [10**7] * 5}),
        ModelSpec("smp:Unet/tu-convnext_atto", options={"depths": [10**9, 1, 1, 1]}),
        ModelSpec("densenet121", num_outputs=10**12),
        ModelSpec("densenet40", in_channels=10**30),
        ModelSpec("timm:vit_giant_patch14_dinov2"),
        ModelSpec("timm:test_vit", options={"embed_dim": 90_000}),
        ModelSpec("timm:test_vit", options={"embed_dim": 64, "depth": 90_000}),
        ModelSpec("timm:densenet121", options={"growth_rate": 1, "block_config": [90_000]}),
        ModelSpec("timm:efficientnet_lite0", options={"drop_rate": 10**9}),
        ModelSpec("timm:resnet18", options={"layers": [1] * 20_000}),
    ],
    ids=lambda spec: spec.to_json(),
)
def test_a_description_of_a_gigantic_network_is_refused_before_it_is_built(path, described):
    store(path, described=described)
    with pytest.raises(CheckpointError, match="network that the file describes") as caught:
        open_network(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "described",
    [
        ModelSpec("no_such_network"),
        replace(SPEC, options={"mood": "good"}),
        replace(SPEC, options={"base_channels": "many"}),
        replace(SPEC, in_channels=-1),
        ModelSpec("panoptic_fpn", options={"encoder_name": ["resnet18"]}),
        ModelSpec("densenet121", options={"drop_rate": 2}),
        ModelSpec("timm:no_such_network"),
        ModelSpec("timm:hf-hub:someone/network"),
        ModelSpec("timm:local-dir:/somewhere"),
        ModelSpec("timm:resnet18", options={"in_chans": 3}),
    ],
    ids=lambda spec: spec.to_json(),
)
def test_a_description_that_cannot_be_built_is_told_with_its_file(path, described):
    store(path, described=described)
    with pytest.raises(CheckpointError, match="cannot be built") as caught:
        open_network(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "option",
    [
        "cache_dir",
        "checkpoint_path",
        "file",
        "hf_hub_id",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "url",
        "weights",
    ],
)
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", ["smp:Unet/tu-convnext_atto", "timm:convnext_atto"])
def test_a_file_cannot_ask_to_open_another(path, tmp_path, option, deep, name):
    options = {option: str(tmp_path / "other.pth")}
    options = {"inner": [options]} if deep else options
    store(path, described=ModelSpec(name, options=options))
    with pytest.raises(CheckpointError, match=f"option '{option}', which opens a path"):
        open_network(path)


def test_the_pretrained_weights_a_file_was_started_from_are_not_fetched(path):
    spec = ModelSpec("panoptic_fpn", options={"encoder_name": "resnet18"})
    started = replace(spec, options={**spec.options, "encoder_weights": "imagenet"})
    assert open_network(store(path, spec, started)).spec == started


def test_weights_that_timm_had_downloaded_are_not_fetched_again(path, monkeypatch):
    import timm

    def create_model(*arguments, pretrained=False, **options):
        assert not pretrained
        return genuine(*arguments, **options)

    genuine = timm.create_model
    monkeypatch.setattr(timm, "create_model", create_model)
    spec = ModelSpec("timm:resnet10t", 3, 2)
    started = replace(spec, options={"pretrained": True})
    assert open_network(store(path, spec, started)).spec == started


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("height", 0),
        ("height", 8193),
        ("height", 64.0),
        ("width", True),
        ("width", "64"),
        ("mean", None),
        ("mean", float("nan")),
        ("mean", [0.5, 0.5]),
        ("mean", []),
        ("std", ["1"]),
        ("std", [float("nan")]),
        ("std", float("inf")),
        ("std", 10**400),
        ("std", "1"),
    ],
)
def test_an_impossible_input_is_refused_by_field(path, name, wrong):
    store(path, preprocessing=json.dumps({name: wrong}))
    with pytest.raises(CheckpointError, match=rf"preprocessing\.{name} is .*, expected") as caught:
        open_network(path)
    assert str(path) in str(caught.value)
    given = PreprocessingConfig(32, 32, 0.5, 0.25)
    assert open_network(path, preprocessing=given).preprocessing == given
    instead = PreprocessingConfig(**{name: getattr(given, name)})
    assert getattr(open_network(path, preprocessing=instead).preprocessing, name) is not None


@pytest.mark.parametrize("text", ['{"std": 0}', '{"mood": 1}', "[]", "null", "{", "[" * 100_000])
def test_an_input_that_is_none_is_refused(path, text):
    store(path, preprocessing=text)
    with pytest.raises(CheckpointError, match="preprocessing"):
        open_network(path)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"text"', "{", "[" * 100_000])
def test_an_origin_that_is_no_object_is_refused(path, text):
    store(path, lineage=text)
    with pytest.raises(CheckpointError, match="its lineage") as caught:
        open_network(path)
    assert str(path) in str(caught.value)


def test_a_description_nested_too_deeply_is_refused(path):
    fields = {"format": "pt", "nakt_weights": "1", "model": "[" * 100_000}
    safetensors.torch.save_file(SPEC.build().state_dict(), path, fields)
    with pytest.raises(CheckpointError, match="network description"):
        open_network(path)


def foreign(path, outputs, style):
    """A DenseNet as torchvision's file has it, or as reproductions of CheXNet do."""
    with torch.random.fork_rng(devices=[]):
        state = ModelSpec("densenet121", 3, outputs).build().state_dict()
    state = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", name): tensor
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }
    if style == "chexnet":
        state = {
            f"module.densenet121.{name.replace('classifier.', 'classifier.0.')}": tensor
            for name, tensor in state.items()
        }
        torch.save({"epoch": 3, "state_dict": state}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize(("outputs", "style"), [(1000, "torchvision"), (14, "chexnet")])
def test_a_foreign_classifier_has_as_many_outputs_as_its_head(tmp_path, outputs, style, capsys):
    path = foreign(tmp_path / "densenet.pth", outputs, style)
    opened = open_network(path, ModelSpec("densenet121", 3))
    assert opened.spec == ModelSpec("densenet121", 3, outputs)
    assert opened.network(torch.rand(1, 3, 32, 32)).shape == (1, outputs)
    assert f"takes its {outputs} outputs from the head in the file" in capsys.readouterr().err
    assert open_network(path, replace(opened.spec)).spec.num_outputs == outputs
    assert capsys.readouterr().err == ""
    with pytest.raises(CheckpointError, match=f"set num_outputs to {outputs}"):
        open_network(path, ModelSpec("densenet121", 3, 5))


def test_a_foreign_timm_classifier_has_as_many_outputs_as_its_head(tmp_path):
    state = ModelSpec("timm:resnet10t", 3, 5).build().state_dict()
    torch.save(state, tmp_path / "net.pth")
    assert open_network(tmp_path / "net.pth", ModelSpec("timm:resnet10t", 3)).spec.num_outputs == 5


def test_a_classifier_of_one_output_stays_one(path, capsys):
    spec = ModelSpec("densenet40", 3)
    assert open_network(store(path, spec), spec).spec == spec
    assert open_network(store(path, replace(spec, num_outputs=2)), spec).spec.num_outputs == 2
    capsys.readouterr()


def test_a_network_that_segments_has_as_many_outputs_as_its_head(tmp_path, path, capsys):
    three = replace(SPEC, num_outputs=3)
    assert open_network(store(path, three), SPEC).spec == three
    torch.save(three.build().state_dict(), tmp_path / "net.pth")
    opened = open_network(tmp_path / "net.pth", SPEC)
    assert opened.spec == three
    assert "takes its 3 outputs from the head in the file" in capsys.readouterr().err
    image = torch.rand(2, 1, 32, 32)
    assert torch.allclose(opened.probability(image), opened.logits(image).softmax(1))
    assert torch.allclose(opened.probability(image).sum(1), torch.ones(()), atol=1e-6)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/model.pth.tar", "model"),
        ("a/m.25.pth.tar", "m.25"),
        ("a/model.tar", "model"),
        ("a/teacher.v2.pt", "teacher.v2"),
        ("a/student/best.safetensors", "student"),
        ("a/other.safetensors", "other"),
    ],
)
def test_a_network_is_called_after_its_run_or_its_file(path, name):
    assert name_of_weights(Path(path)) == name
