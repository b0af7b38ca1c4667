import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from nakt_dist.config import PreprocessingConfig
from nakt_dist.errors import CheckpointError
from nakt_dist.models import ModelSpec, save_weights
from nakt_dist.models.network_file import describe_for_file, open_network
from nakt_dist.models.registry import build_model

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


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("sdu_net", options={"base_channels": 16}),
        ModelSpec("attention_unet", 3, 2, {"base_channels": 4, "normalisation": "group"}),
        ModelSpec("panoptic_fpn", options={"encoder_name": "resnet18"}),
        ModelSpec("smp:Unet/mobilenet_v2"),
        ModelSpec("smp:Segformer/mit_b0"),  # reads values while it is built
        ModelSpec("smp:Unet/tu-convnext_atto"),
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
    store(path, described=replace(SPEC, options={**SPEC.options, "base_channels": 10**9}))
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
def test_a_file_cannot_ask_to_open_another(path, tmp_path, option, deep):
    options = {option: str(tmp_path / "other.pth")}
    options = {"inner": [options]} if deep else options
    store(path, described=ModelSpec("smp:Unet/tu-convnext_atto", options=options))
    with pytest.raises(CheckpointError, match=f"option '{option}', which opens a path"):
        open_network(path)


def test_the_pretrained_weights_a_file_was_started_from_are_not_fetched(path):
    spec = ModelSpec("panoptic_fpn", options={"encoder_name": "resnet18"})
    started = replace(spec, options={**spec.options, "encoder_weights": "imagenet"})
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
        ("mean", [0.5]),
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
    given = PreprocessingConfig(height=32)
    assert open_network(path, preprocessing=given).preprocessing == given


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
