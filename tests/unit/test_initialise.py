"""Checkpoints in each style that is in use, written here with random values."""

import re
from functools import cache

import pytest
import safetensors.torch
import torch

from nakt_dist.errors import CheckpointError
from nakt_dist.models import ModelSpec
from nakt_dist.models.entry_names import rename_entries
from nakt_dist.models.initialise import initialise, read_initial_weights
from nakt_dist.models.weights import read_weights, save_weights

LARGE = ModelSpec("densenet121", 3, 14)
SMALL = ModelSpec("densenet40", 3, 14)
OWN = {
    f"features.{name}"
    for name in ("squeeze.weight", "squeeze.bias", "expand.weight", "expand.bias")
}
HEAD = ("classifier.weight", "classifier.bias")
SHARED_BY_DENSENETS = (
    "features.conv0", "features.norm0", "features.denseblock1", "features.transition1",
    "features.denseblock2", "features.norm5", "classifier",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(3)


def trained(spec):
    """Entries of a network, each of which, buffers included, differs from fresh ones."""
    return {
        name: torch.rand(shape) if shape is not None else torch.tensor(5)
        for name, shape in shapes_of(spec.to_json()).items()
    }


@cache
def shapes_of(description):
    """Shapes of a network's entries; None for one that counts."""
    with torch.device("meta"):
        state_dict = ModelSpec.from_json(description).build().state_dict()
    return {
        name: each.shape if each.is_floating_point() else None for name, each in state_dict.items()
    }


def as_torchvision(state_dict):
    """The file on torchvision's site: dotted names in dense layers, no counters."""
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): each
        for name, each in state_dict.items()
        if not name.endswith("num_batches_tracked")
    }


def as_chexnet(state_dict):
    """A DataParallel network with an attribute densenet121, whose head is a sequence."""
    renamed = {
        f"module.densenet121.{name}".replace("classifier.", "classifier.0."): each
        for name, each in as_torchvision(state_dict).items()
    }
    return {"epoch": 7, "best_loss": 0.5, "state_dict": renamed, "optimizer": {"state": {}}}


def write(folder, style, state_dict, spec=LARGE):
    if style == "torchvision":
        path = folder / "densenet121-a639ec97.pth"
        torch.save(as_torchvision(state_dict), path, _use_new_zipfile_serialization=False)
    elif style == "timm":
        path = folder / "model.safetensors"
        safetensors.torch.save_file(state_dict, path)
    elif style == "chexnet":
        path = folder / "model.pth.tar"
        torch.save(as_chexnet(state_dict), path)
    else:
        path = folder / "best.safetensors"
        save_weights(path, state_dict, spec, {})
    return path


def start(spec, path, **options):
    network = spec.build()
    fresh = {name: each.clone() for name, each in network.state_dict().items()}
    return (
        network.state_dict(),
        fresh,
        initialise(network, read_initial_weights(path), **options),
    )


def assert_loaded(found, fresh, given, report):
    """Every entry is the file's or the fresh one, as the report says."""
    for name, each in found.items():
        assert torch.equal(each, (given if name in report.matched else fresh)[name]), name


@pytest.mark.parametrize("style", ["torchvision", "timm", "chexnet", "ours"])
@pytest.mark.parametrize("outputs", [1000, 14])
def test_every_style_fills_densenet121(tmp_path, style, outputs):
    origin = ModelSpec("densenet121", 3, outputs)
    given = trained(origin)
    found, fresh, report = start(LARGE, write(tmp_path, style, given, origin))
    counters = style in ("timm", "ours")
    expected = [
        name
        for name in found
        if (counters or not name.endswith("num_batches_tracked"))
        and (outputs == 14 or name not in HEAD)
    ]
    assert report.matched == tuple(expected)
    assert report.replaced_head == (() if outputs == 14 else HEAD)
    assert report.is_complete
    assert_loaded(found, fresh, given, report)
    assert not torch.equal(found["features.conv0.weight"], fresh["features.conv0.weight"])


@pytest.mark.parametrize("style", ["torchvision", "timm", "chexnet", "ours"])
@pytest.mark.parametrize("outputs", [1000, 14])
def test_every_style_fills_densenet40_as_far_as_it_goes(tmp_path, style, outputs):
    origin = ModelSpec("densenet121", 3, outputs)
    given = trained(origin)
    found, fresh, report = start(SMALL, write(tmp_path, style, given, origin))
    shared = {name for name in given if name.startswith(SHARED_BY_DENSENETS)}
    if style in ("torchvision", "chexnet"):
        shared = {name for name in shared if not name.endswith("num_batches_tracked")}
    if outputs == 1000:
        shared -= set(HEAD)
    assert set(report.matched) == shared
    assert {"features.norm5.weight", "features.norm5.running_var"} < set(report.matched)
    assert set(report.missing) == OWN
    left = (
        "features.transition2",
        "features.denseblock3",
        "features.transition3",
        "features.denseblock4",
    )
    assert {
        name.rsplit(".denselayer")[0].rsplit(".norm")[0].rsplit(".conv")[0]
        for name in report.unexpected
    } == set(left)
    assert report.shape_mismatched == ()
    assert_loaded(found, fresh, given, report)


def test_the_summary_is_one_line_that_names_what_is_left(tmp_path):
    _, _, report = start(
        SMALL, write(tmp_path, "torchvision", trained(ModelSpec("densenet121", 3, 1000)))
    )
    assert report.summary() == (
        # 5 of the stem, 10 in each of 18 dense layers, 5 of the transition, 4 of norm5
        "194 of 200 tensors loaded; new head: classifier (2); fresh, since the file lacks them: "
        "features.squeeze (2), features.expand (2); left in the file, the network has no place "
        "for them: features.transition2 (5), features.denseblock3 (240), features.transition3 "
        "(5), features.denseblock4 (160)"
    )


def test_a_head_of_as_many_outputs_stays_only_if_wished(tmp_path):
    given = trained(LARGE)
    path = write(tmp_path, "chexnet", given)
    found, _, report = start(LARGE, path)
    assert torch.equal(found["classifier.weight"], given["classifier.weight"])
    found, fresh, report = start(LARGE, path, keep_head=False)
    assert report.replaced_head == HEAD
    assert torch.equal(found["classifier.weight"], fresh["classifier.weight"])
    assert_loaded(found, fresh, given, report)


def test_imagenet_fills_timms_densenet_and_a_network_of_ours_itself(tmp_path):
    given = trained(LARGE)
    found, fresh, report = start(
        ModelSpec("timm:densenet121", 3, 2), write(tmp_path, "torchvision", given)
    )
    assert report.replaced_head == HEAD
    assert_loaded(found, fresh, given, report)
    small = trained(SMALL)
    path = tmp_path / "small.safetensors"
    save_weights(path, small, SMALL, {})
    found, fresh, report = start(SMALL, path)
    assert report.is_complete
    assert report.matched == tuple(found)


def test_only_the_last_layer_of_a_timm_head_is_replaced(tmp_path):
    origin, spec = ModelSpec("timm:test_convnext", 3, 1000), ModelSpec("timm:test_convnext", 3, 2)
    given = trained(origin)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(given, path)
    found, fresh, report = start(spec, path)
    assert report.replaced_head == ("head.fc.weight", "head.fc.bias")
    assert "head.norm.weight" in report.matched
    assert_loaded(found, fresh, given, report)


def test_segmentation_networks_start_from_others_with_another_head(tmp_path):
    options = {"base_channels": 4}
    origin = ModelSpec("unet", 1, 3, options)
    given = trained(origin)
    path = tmp_path / "weights.safetensors"
    save_weights(path, given, origin, {})
    found, fresh, report = start(ModelSpec("unet", 1, 1, options), path)
    assert report.replaced_head == ("head.weight", "head.bias")
    assert_loaded(found, fresh, given, report)


@pytest.mark.parametrize("style", ["torchvision", "chexnet", "ours"])
@pytest.mark.parametrize("name", ["densenet121", "densenet40"])
def test_colour_weights_are_not_adapted_to_grey_images(tmp_path, style, name):
    path = write(tmp_path, style, trained(LARGE))
    network = ModelSpec(name, 1, 14).build()
    before = {key: each.clone() for key, each in network.state_dict().items()}
    with pytest.raises(CheckpointError, match="reads 3 image channels, the network's 1: set in_ch"):
        initialise(network, read_weights(path))
    assert all(torch.equal(each, before[key]) for key, each in network.state_dict().items())


def test_a_smaller_network_does_not_fill_a_larger_one(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, trained(SMALL), SMALL, {})
    with pytest.raises(
        CheckpointError, match=r"missing \(features\.transition2\.norm\.weight"
    ) as told:
        start(LARGE, path)
    assert str(path) in str(told.value)


def test_a_network_of_other_layers_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    other = ModelSpec("timm:test_resnet", 3, 2)
    save_weights(path, trained(other), other, {})
    for spec in (LARGE, SMALL):
        with pytest.raises(CheckpointError, match="0 entries match"):
            start(spec, path)


def test_a_file_without_some_layers_is_refused_by_their_name(tmp_path):
    given = as_torchvision(trained(LARGE))
    for name in [name for name in given if name.startswith("features.norm0")]:
        del given[name]
    path = tmp_path / "weights.pth"
    torch.save(given, path)
    with pytest.raises(CheckpointError, match=r"missing \(features\.norm0\.weight"):
        start(SMALL, path)


def test_entries_besides_are_named(tmp_path):
    given = {**as_torchvision(trained(LARGE)), "auxiliary.weight": torch.rand(2)}
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {f"model.net.{name}": each for name, each in given.items()}}, path)
    _, _, report = start(LARGE, path)
    assert report.unexpected == ("auxiliary.weight",)


def test_a_head_of_another_name_is_fresh_and_named(tmp_path):
    given = as_torchvision(trained(LARGE))
    given["fc.weight"] = given.pop("classifier.weight")
    given["fc.bias"] = given.pop("classifier.bias")
    path = tmp_path / "weights.pth"
    torch.save(given, path)
    _, _, report = start(LARGE, path)
    assert report.replaced_head == HEAD
    assert report.unexpected == ("fc.weight", "fc.bias")


def test_names_that_fit_are_left_as_they_are():
    wanted = {"classifier.0.weight": torch.rand(1), "norm.1.weight": torch.rand(1)}
    assert list(rename_entries(wanted, wanted)) == list(wanted)


@pytest.mark.parametrize("name", ["imagenet", "densenet121-a639ec97.pth"])
def test_the_message_says_where_pretrained_weights_are_to_be_had(tmp_path, name):
    with pytest.raises(CheckpointError, match=r"no such weights file\. No weights are") as told:
        read_initial_weights(tmp_path / name)
    for word in ("densenet121-a639ec97.pth", "timm/densenet121", "pretrained: true"):
        assert word in str(told.value)


def test_files_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such weights file"):
        read_initial_weights(tmp_path / "other.pt")
    state_dict = trained(SMALL)
    state_dict["features.norm5.bias"][0] = float("nan")
    save_weights(tmp_path / "best.safetensors", state_dict, SMALL, {})
    with pytest.raises(CheckpointError, match=r"tensor 'features\.norm5\.bias' holds 1 of 1024"):
        read_initial_weights(tmp_path)
