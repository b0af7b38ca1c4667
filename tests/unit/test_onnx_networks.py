"""ONNX files as frozen networks: their answers, their taps, and what they and the settings say."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from nakt_dist.config import (
    AttentionTransferConfig,
    HintsConfig,
    PreprocessingConfig,
    RecipeConfig,
    TapConfig,
    TrainingTeacherConfig,
)
from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models import ModelSpec
from nakt_dist.models.network_file import open_network, stored_output_names
from nakt_dist.models.onnx_metadata import (
    METADATA_KEY,
    OnnxMetadata,
    OnnxOutput,
    write_metadata,
)
from nakt_dist.models.preprocessing import ImageForm
from nakt_dist.models.taps import TeacherTap
from nakt_dist.models.weights import read_weights
from nakt_dist.training.following import Following, pair
from nakt_dist.training.tasks import ClassificationTask
from nakt_dist.transfer.views import logits_of_views
from tests.datasets import make_weights
from tests.onnx_files import FLOAT, export_onnx, make_model, make_small_classifier, node

TAP = "layer3"
LABELS = ["Edema", "Mass"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints, and what they are as ONNX files."""
    folder = tmp_path_factory.mktemp("onnx")
    make_weights(folder / "mask.safetensors", seed=3)
    export_onnx(folder / "mask.safetensors", folder / "mask.onnx")
    export_onnx(folder / "mask.safetensors", folder / "theirs.onnx", ours=False, batch=2)
    make_small_classifier(folder / "chest.safetensors", LABELS, 1)
    export_onnx(folder / "chest.safetensors", folder / "chest.onnx", taps=[TAP])
    return folder


def said_by(path: Path) -> dict:
    model = onnx.load(path)
    return json.loads(next(e.value for e in model.metadata_props if e.key == METADATA_KEY))


def forge(path: Path, target: Path, **changes: object) -> Path:
    model = onnx.load(path)
    (told,) = [each for each in model.metadata_props if each.key == METADATA_KEY]
    told.value = json.dumps(json.loads(told.value) | changes)
    onnx.save(model, target)
    return target


@pytest.mark.parametrize("images", [1, 2, 5])
@pytest.mark.parametrize("name", ["mask", "theirs", "chest"])
def test_its_logits_are_those_of_the_checkpoint(folder: Path, name: str, images: int) -> None:
    checkpoint = open_network(folder / f"{name.replace('theirs', 'mask')}.safetensors")
    found = open_network(folder / f"{name}.onnx")
    seen = torch.rand(images, 1, 32, 32)
    with torch.inference_mode():
        expected, given = checkpoint.logits(seen), found.logits(seen)
    assert given.shape == expected.shape and given.dtype == torch.float32
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-5)


def test_ours_says_all_that_its_weights_said(folder: Path) -> None:
    checkpoint = open_network(folder / "chest.safetensors")
    found = open_network(folder / "chest.onnx")
    assert found.spec == checkpoint.spec and found.lineage == checkpoint.lineage
    assert found.weights_sha256 != checkpoint.weights_sha256
    assert found.preprocessing == replace(checkpoint.preprocessing, height=32, width=32)
    assert found.describe(ImageForm(32, 32)) == []


def test_names_in_the_metadata_stand_in_for_a_lineage(folder: Path, tmp_path: Path) -> None:
    outputs = said_by(folder / "chest.onnx")["outputs"]
    outputs[0]["names"] = ["One", "Other"]
    path = forge(folder / "chest.onnx", tmp_path / "a.onnx", lineage={}, outputs=outputs)
    assert stored_output_names(open_network(path), "a.onnx") == ("One", "Other")


@pytest.mark.parametrize(
    "changes",
    [{"task": "classification"}, {"model": {"name": "densenet40"}}, {"model": {"name": "no"}}],
)
def test_metadata_that_contradict_the_graph_are_refused(
    folder: Path, tmp_path: Path, changes: dict
) -> None:
    path = forge(folder / "mask.onnx", tmp_path / "forged.onnx", **changes)
    with pytest.raises(CheckpointError, match="damaged or forged"):
        open_network(path)


def test_what_was_taken_of_theirs_is_said_and_sizes_are_kept(folder: Path) -> None:
    found = open_network(folder / "theirs.onnx")
    assert found.spec == ModelSpec(
        "onnx:segmentation", 1, 1, {"output": "answer", "activation": "none"}
    )
    said = found.describe(ImageForm(32, 32))
    assert len(said) == 2 and "Taken: 'answer' for 1 outputs of segmentation" in said[0]
    assert "Assumed: mean and std" in said[1]
    with pytest.raises(ConfigurationError, match="32 × 32 pixels, and would see 64 × 64"):
        open_network(folder / "theirs.onnx", preprocessing=PreprocessingConfig(64, 64)).describe(
            ImageForm(32, 32)
        )


@pytest.mark.parametrize(
    ("activation", "classes"), [(nn.Sigmoid(), ()), (nn.Softmax(1), ("background", "a", "b"))]
)
@pytest.mark.parametrize("ours", [True, False])
def test_an_activation_in_the_file_is_taken_off(
    tmp_path: Path, activation: nn.Module, classes: tuple[str, ...], ours: bool
) -> None:
    weights = make_weights(tmp_path / "w.safetensors", seed=5, classes=classes)
    path = export_onnx(weights, tmp_path / "w.onnx", ours=ours, activation=activation)
    seen = torch.rand(2, 1, 32, 32)
    found, expected = open_network(path), open_network(weights)
    with torch.no_grad():
        torch.testing.assert_close(
            found.probability(seen), expected.probability(seen), rtol=0, atol=1e-6
        )
    assert any("since it ends in" in each for each in found.notices) is not ours


def test_findings_of_a_file_that_is_sure_of_them_keep_their_ranking(tmp_path: Path) -> None:
    nodes = [node("Flatten", "images", "flat"), node("Softmax", "flat", "answer", axis=1)]
    model = make_model(nodes, shape=("n", 1, 1, 2), output=(FLOAT, ("n", 2)))
    onnx.save(model, tmp_path / "sure.onnx")
    logits = torch.tensor([-60.0, -30.0, -20.0, -5.0, 5.0, 15.0])
    with torch.no_grad():
        seen = torch.stack([logits, torch.zeros(6)], dim=1)[:, None, None]
        found = open_network(tmp_path / "sure.onnx").network(seen)[:, 0]
    torch.testing.assert_close(found, logits, rtol=1e-3, atol=0.2)


def test_a_value_of_its_graph_is_a_tap(folder: Path) -> None:
    """Attention transfer from the ONNX file costs what it does from the network itself."""
    losses = []
    for name in ("chest.safetensors", "chest.onnx"):
        taps = [TapConfig(TAP, TAP)]
        config = TrainingTeacherConfig(
            name, attention=AttentionTransferConfig(taps=taps), hints=HintsConfig(taps=taps)
        )
        teacher = open_network(folder / name)
        torch.manual_seed(0)
        student = ModelSpec("timm:test_resnet", 3, 2).build()
        following = Following(
            config, teacher, pair(config, teacher, "timm:test_resnet", LABELS), 4, (1, 32, 32)
        )
        task = ClassificationTask(3, teacher.preprocessing, RecipeConfig(steps=1), following)
        image, target = torch.rand(4, 1, 32, 32), torch.ones(4, 2)
        told = task.forward(task.wrap(student), image, target)
        told["loss"].backward()
        losses.append({name: float(each.detach()) for name, each in told.items()})
        before = following.teacher_sha256()
        assert before == following.teacher_sha256()
    assert losses[0].keys() == losses[1].keys() and losses[0]["attention_loss"] > 0
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_inner_values_are_taps_too_and_others_are_refused(folder: Path) -> None:
    found = open_network(folder / "theirs.onnx")
    model = onnx.load(folder / "theirs.onnx")
    inner = next(each.output[0] for each in model.graph.node if each.op_type == "Relu")
    images = torch.rand(3, 1, 32, 32)
    output, (planes,) = TeacherTap(found.network, [inner]).output_and_activations(images)
    assert planes.shape == (3, 4, 32, 32) and planes.min() >= 0 and output.shape == images.shape
    (alone,) = TeacherTap(found.network, [inner]).activations(images)
    assert torch.equal(alone, planes)
    with pytest.raises(ConfigurationError, match="no value 'anwser', did you mean 'answer'"):
        TeacherTap(found.network, ["anwser"])
    with pytest.raises(ConfigurationError, match="OnnxValue, expected a linear layer"):
        TeacherTap(found.network, [inner], [inner])


def test_inner_values_of_a_network_that_sees_columns_first_come_upright(tmp_path: Path) -> None:
    turned = [
        node("Transpose", "images", "a", perm=[0, 1, 3, 2]), node("Relu", "a", "inner"),
        node("Transpose", "inner", "answer", perm=[0, 1, 3, 2]),
    ]  # fmt: skip
    model, images = make_model(turned), torch.randn(2, 1, 8, 8)
    metadata = OnnxMetadata(
        name="heart",
        task="segmentation",
        model=ModelSpec("monai_unet", options={"transposed": True}),
        preprocessing=PreprocessingConfig(8, 8, 0.0, 1.0),
        outputs=(OnnxOutput("answer", "answer", "logits"),),
        weights_sha256="0" * 64,
    )
    write_metadata(model, metadata)
    onnx.save(model, tmp_path / "monai.onnx")
    taps = TeacherTap(open_network(tmp_path / "monai.onnx").network, ["answer", "inner"])
    for found in taps.activations(images):
        assert torch.equal(found, images.relu())


def test_presets_name_the_taps_of_ours_and_none_of_theirs(folder: Path, tmp_path: Path) -> None:
    config = TrainingTeacherConfig("chest.onnx", attention=AttentionTransferConfig("paper"))
    model = {"name": "densenet121", "in_channels": 3, "num_outputs": 2}
    ours = open_network(forge(folder / "chest.onnx", tmp_path / "a.onnx", model=model))
    (tap,) = pair(config, ours, "densenet121", LABELS).taps["attention"]
    assert tap.teacher == "features.denseblock4.denselayer15"
    theirs = open_network(folder / "chest.onnx", ModelSpec("onnx", options={"activation": "none"}))
    with pytest.raises(ConfigurationError, match="no tap for the network 'onnx:classification'"):
        pair(config, theirs, "densenet121", LABELS)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (ModelSpec("unet"), "is an ONNX file, which holds its network, and model is unet"),
        (ModelSpec("onnx", options={"outptu": "answer"}), "'outptu', did you mean 'output'"),
        (ModelSpec("onnx", options={"output": "mask"}), "its answer would be 'mask'"),
        (ModelSpec("onnx", options={"activation": "tanh"}), "expected one of none, sigmoid"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    folder: Path, model: ModelSpec, expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        open_network(folder / "theirs.onnx", model)


def test_logits_are_no_probabilities_and_planes_with_a_sigmoid_no_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    onnx.save(make_model([node("Identity", "images", "answer")]), path)
    with pytest.raises(CheckpointError, match="what sigmoid gives is from 0 to 1"):
        open_network(path, ModelSpec("onnx", options={"activation": "sigmoid"}))
    shape = ("n", 3, 8, 8)
    onnx.save(make_model([node("Sigmoid", "images", "answer")], None, shape, (FLOAT, shape)), path)
    with pytest.raises(ConfigurationError, match="3 planes with a sigmoid each"):
        open_network(path)


def test_probabilities_that_are_moved_or_bounded_are_no_logits(tmp_path: Path) -> None:
    """Such as those of other libraries, whose channels were last."""
    path, seen = tmp_path / "a.onnx", torch.rand(2, 3, 8, 8)
    shape = ("n", 3, 8, 8)
    last = [
        node("Transpose", "images", "a", perm=[0, 2, 3, 1]), node("Softmax", "a", "b", axis=-1),
        node("Transpose", "b", "answer", perm=[0, 3, 1, 2]),
    ]  # fmt: skip
    onnx.save(make_model(last, None, shape, (FLOAT, shape)), path)
    preprocessing = PreprocessingConfig(mean=0.0, std=1.0)
    found = open_network(path, preprocessing=preprocessing)
    torch.testing.assert_close(found.logits(seen).softmax(1), seen.softmax(1))
    onnx.save(make_model([node("Sigmoid", "images", "s"), node("Clip", "s", "answer")]), path)
    found = open_network(path, preprocessing=preprocessing)
    torch.testing.assert_close(found.logits(seen[:, :1]).sigmoid(), seen[:, :1].sigmoid())


@pytest.mark.parametrize(
    ("operators", "planes", "message"),
    [
        ([("Softmax", {"axis": 3})], 3, "3 planes that do not sum to 1"),
        ([("Softmax", {"axis": 1}), ("Abs", {})], 3, "and sum to 1, as probabilities are"),
        ([("HardSigmoid", {})], 1, "activation: sigmoid"),
    ],
)
def test_what_cannot_be_told_from_probabilities_has_to_be_said(
    tmp_path: Path, operators: list[tuple[str, dict]], planes: int, message: str
) -> None:
    path, shape = tmp_path / "a.onnx", ("n", planes, 8, 8)
    names = ["images", *(f"v{at}" for at in range(1, len(operators))), "answer"]
    nodes = [
        node(operator, given, made, **more)
        for (operator, more), given, made in zip(operators, names[:-1], names[1:], strict=True)
    ]
    onnx.save(make_model(nodes, None, shape, (FLOAT, shape)), path)
    with pytest.raises(CheckpointError, match=message):
        open_network(path)


def test_findings_that_may_be_probabilities_have_to_be_said_unless_a_linear_layer_ends(
    tmp_path: Path,
) -> None:
    path, weights = (
        tmp_path / "a.onnx",
        {"w": torch.full((64, 2), 1e-4), "b": torch.full((2,), 0.5)},
    )
    linear = [node("Flatten", "images", "f"), node("MatMul", "f w", "m"), node("Add", "m b", "s")]
    for last in ("HardSigmoid", "Clip", "Identity"):
        model = make_model([*linear, node(last, "s", "answer")], weights, output=(FLOAT, ("n", 2)))
        onnx.save(model, path)
        if last == "Identity":
            assert "logits, since it ends in Add" in open_network(path).notices[0]
            continue
        with pytest.raises(CheckpointError, match="activation: sigmoid"):
            open_network(path)
        open_network(path, ModelSpec("onnx", options={"activation": "sigmoid"}))


def test_a_file_of_one_size_is_not_seen_at_other_scales(folder: Path) -> None:
    found = open_network(folder / "mask.onnx")
    with pytest.raises(CheckpointError, match="cannot run images of shape"):
        list(logits_of_views(found, torch.rand(1, 1, 32, 32), scales=[2.0]))


def test_it_cannot_be_trained_or_built(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be trained further"):
        read_weights(folder / "mask.onnx")
    with pytest.raises(ConfigurationError, match="choose a network with weights of its own"):
        ModelSpec("onnx:segmentation").build()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_packages_it_is_said_how_to_get_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=rf"needs {package}, .*'nakt_dist\[onnx\]'"):
        open_network(folder / "mask.onnx")
