"""What travels inside an ONNX file, there and back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nakt_dist.errors import CheckpointError
from nakt_dist.models import ModelSpec
from nakt_dist.models.onnx_metadata import (
    METADATA_KEY,
    OnnxMetadata,
    OnnxOutput,
    read_metadata,
    write_metadata,
)
from nakt_dist.models.spec import IMAGENET_MEAN, IMAGENET_STD, PreprocessingConfig

METADATA = OnnxMetadata(
    name="student",
    task="classification",
    model=ModelSpec("densenet121", 3, 2, {"drop_rate": 0.1}),
    preprocessing=PreprocessingConfig(64, 48, IMAGENET_MEAN, IMAGENET_STD),
    outputs=(
        OnnxOutput("logits", "answer", "logits", ("Edema", "Effusion")),
        OnnxOutput("features.denseblock4", "tap"),
        OnnxOutput("class_activations", "class_activation", names=("Edema", "Effusion")),
    ),
    weights_sha256="0" * 64,
    fit="pad",
    lineage={"task": "classification", "parent": {"lineage": {"seed": 3}}},
    licence="apache-2.0",
)
FILE = Path("model.onnx")


def stored(metadata=METADATA):
    """The properties of a model into which metadata was written, beside another's."""
    onnx = pytest.importorskip("onnx")
    model = onnx.ModelProto()
    model.metadata_props.add(key="author", value="somebody")
    for _ in range(2):  # the second time takes the first one's place
        write_metadata(model, metadata)
    return {each.key: each.value for each in model.metadata_props}


def test_all_of_it_comes_back():
    properties = stored()
    assert read_metadata(properties, FILE) == METADATA
    assert set(properties) == {"author", METADATA_KEY}
    lowest, highest = json.loads(properties[METADATA_KEY])["value_range"]
    assert lowest == pytest.approx(-0.485 / 0.229) and highest == pytest.approx(0.594 / 0.225)


def test_a_file_of_others_says_nothing():
    assert read_metadata({"author": "somebody"}, FILE) is None


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("format", "nakt-onnx/9", "of format 'nakt-onnx/9', expected nakt-onnx/1"),
        ("task", "drawing", "task in its metadata is 'drawing'"),
        ("outputs", [], "must begin with the one answer"),
        ("outputs", [{"name": "x", "kind": "answer"}], "logits or probabilities"),
        ("model", {"name": "unet", "in_channels": "many"}, "model.in_channels in its metadata"),
        ("preprocessing", {"height": 64, "width": 64}, "height, width, mean and std"),
        ("preprocessing", {"height": -1}, "preprocessing.height must be"),
        ("preprocessing", {"height": 1, "width": 1, "mean": [0, 0], "std": 1}, "lists with 3"),
        ("lineage", "long", "lineage in its metadata is 'long'"),
    ],
)
def test_damaged_metadata_is_refused(field, value, message):
    content = json.loads(stored()[METADATA_KEY]) | {field: value}
    with pytest.raises(CheckpointError, match=message):
        read_metadata({METADATA_KEY: json.dumps(content)}, FILE)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_metadata({METADATA_KEY: "{"}, FILE)


def test_names_are_as_many_as_outputs_and_differ():
    first, *others = METADATA.outputs
    for outputs, message in (
        ((replace(first, names=("Edema",)), *others), "must have 2 names"),
        ((first, replace(others[0], name="logits")), "different names"),
        ((replace(first, names=("Edema", "Edema")), *others), "names of an output must differ"),
    ):
        with pytest.raises(CheckpointError, match=message):
            read_metadata(stored(replace(METADATA, outputs=outputs)), FILE)


def test_names_contradict_no_lineage():
    for labels in (["Effusion", "Edema"], ["Edema"], "Edema"):
        with pytest.raises(CheckpointError, match="named as the lineage's labels"):
            read_metadata(stored(replace(METADATA, lineage={"labels": labels})), FILE)
    same = replace(METADATA, lineage={"labels": ["Edema", "Effusion"]})
    assert read_metadata(stored(same), FILE) == same
