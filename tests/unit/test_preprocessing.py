"""Settings and weights file are joined one by one, and what is assumed is said."""

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from nakt_dist.config import PreprocessingConfig
from nakt_dist.errors import CheckpointError
from nakt_dist.models.network_file import describe_for_file, open_network
from nakt_dist.models.preprocessing import ImageForm, resolve_preprocessing
from nakt_dist.models.spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec
from nakt_dist.models.weights import save_weights

SPEC = ModelSpec("unet", options={"base_channels": 4, "normalisation": "none"})
COLOUR = ModelSpec("densenet40", in_channels=3)
STORED = {"height": 48, "width": 40, "mean": 0.5, "std": 0.1}
FORM = ImageForm(64, 64, "pad")


def ours(path: Path, lineage: dict | None = None, **stored: object) -> Path:
    told = describe_for_file(PreprocessingConfig(**(STORED | stored)), lineage or {})
    save_weights(path, SPEC.build().state_dict(), SPEC, told)
    return path


def foreign(path: Path, spec: ModelSpec = SPEC) -> Path:
    save_file(spec.build().state_dict(), path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize(
    "given", [{"height": 64}, {"width": 32}, {"mean": 0.25}, {"std": 0.5}, {"mean": [0.1]}, {}]
)
def test_what_is_not_given_stays_the_file_s(path: Path, given: dict) -> None:
    opened = open_network(ours(path), preprocessing=PreprocessingConfig(**given))
    assert opened.preprocessing == PreprocessingConfig(**(STORED | given))
    assert opened.seen.assumed == ()
    again = open_network(path, preprocessing=opened.preprocessing)  # as saved beside an output
    assert again.preprocessing == opened.preprocessing
    assert again.describe(FORM) == opened.describe(FORM)


def test_a_damaged_setting_is_replaced_by_one_that_is_given(path: Path) -> None:
    text = json.dumps(STORED | {"std": "none"})
    save_weights(path, SPEC.build().state_dict(), SPEC, {"preprocessing": text})
    with pytest.raises(CheckpointError, match=r"preprocessing\.std"):
        open_network(path, preprocessing=PreprocessingConfig(height=8))
    opened = open_network(path, preprocessing=PreprocessingConfig(std=0.2))
    assert opened.preprocessing == PreprocessingConfig(48, 40, 0.5, 0.2)


@pytest.mark.parametrize(
    ("spec", "given", "mean", "std"),
    [
        (SPEC, {}, 0.0, 1.0),
        (COLOUR, {}, list(IMAGENET_MEAN), list(IMAGENET_STD)),
        (COLOUR, {"height": 32}, list(IMAGENET_MEAN), list(IMAGENET_STD)),
        (COLOUR, {"mean": 0.5}, 0.5, 1.0),
        (COLOUR, {"std": 0.5}, 0.0, 0.5),
    ],
)
def test_a_foreign_network_gets_what_is_usual_and_so_does_a_new_one(
    path: Path, spec: ModelSpec, given: dict, mean: object, std: object
) -> None:
    asked = PreprocessingConfig(**given)
    opened = open_network(foreign(path, spec), spec, asked)
    assert (opened.preprocessing.mean, opened.preprocessing.std) == (mean, std)
    assert resolve_preprocessing(asked, None, spec).preprocessing == opened.preprocessing
    assert resolve_preprocessing(asked, None, spec).assumed == ()
    assert set(opened.seen.assumed) == {"height", "width", "mean", "std"} - given.keys()


def test_what_a_foreign_network_gets_is_said_in_one_line(path: Path) -> None:
    (line,) = [each for each in told(open_network(foreign(path, COLOUR), COLOUR)) if "sees" in each]
    assert "64 × 64 pixels with values from -2.118 to 2.64" in line
    assert "mean [0.485, 0.456, 0.406]" in line and "deviation [0.229, 0.224, 0.225]" in line
    assert "Assumed: mean, std, height and width" in line and "\n" not in line

    own = PreprocessingConfig(mean=0.5, std=1 / 2048)
    (line,) = [each for each in told(open_network(path, COLOUR, own)) if "sees" in each]
    assert "values from -1024 to 1024" in line and "Assumed: height and width;" in line

    whole = PreprocessingConfig(224, 224, 0.5, 0.25)
    assert not [each for each in told(open_network(path, COLOUR, whole)) if "sees" in each]


def told(opened: object) -> list[str]:
    return opened.describe(FORM)


def test_a_file_of_ours_that_states_no_input_sees_plain_pixels_and_it_is_said(path: Path) -> None:
    save_weights(path, COLOUR.build().state_dict(), COLOUR, {})
    opened = open_network(path)
    assert (opened.preprocessing.mean, opened.preprocessing.std) == (0.0, 1.0)
    (line,) = told(opened)
    assert "values from 0 to 1" in line


def test_lists_of_unlike_lengths_do_not_stop_the_notice(path: Path) -> None:
    given = PreprocessingConfig(mean=[0.1, 0.2, 0.3], std=[1.0, 2.0])
    assert told(open_network(foreign(path, COLOUR), COLOUR, given))


@pytest.mark.parametrize(
    ("trained_on", "given", "expected"),
    [
        ({"height": 64, "width": 64, "fit": "pad"}, {"height": 64, "width": 64}, ["48 × 40"]),
        ({"height": 96, "width": 96, "fit": "pad"}, {}, []),  # it always saw 48 × 40
        ({"height": 96, "width": 96, "fit": "stretch"}, {}, ["by stretch"]),
        ({"height": 96, "width": 96}, {}, []),
        ({"height": 96, "width": 96, "fit": ["x"]}, {}, []),
    ],
)
def test_another_size_or_fit_than_in_training_is_said(
    path: Path, trained_on: dict, given: dict, expected: list[str]
) -> None:
    opened = open_network(
        ours(path, {"trained_on": trained_on}), None, PreprocessingConfig(**given)
    )
    found = told(opened)
    assert len(found) == len(expected)
    assert all(part in line for part, line in zip(expected, found, strict=True))


def test_model_settings_are_joined_with_the_file_s_one_by_one(path: Path) -> None:
    ours(path)
    asked = ModelSpec("unet", options={"base_channels": 4})
    assert open_network(path, asked).spec == SPEC  # normalisation stays none
    with pytest.raises(CheckpointError, match="do not fit"):
        open_network(path, ModelSpec("unet", options={"normalisation": "batch"}))


def test_options_of_a_damaged_description_are_left_out_where_the_network_is_named(
    path: Path,
) -> None:
    hostile = ModelSpec("unet", options={**SPEC.options, "checkpoint_path": "/etc/passwd"})
    save_weights(path, SPEC.build().state_dict(), hostile, {})
    with pytest.raises(CheckpointError, match="checkpoint_path"):
        open_network(path)
    opened = open_network(path, SPEC)
    assert opened.spec == SPEC
    assert "stands alone" in opened.notices[0]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"mean": 0.25}, "mean: the file says 0.5, taken 0.25, as set"),
        (
            {"mean": [0.485], "std": 0.2},
            "mean: the file says 0.5, taken [0.485], as set; preprocessing.std: the file says 0.1, "
            "taken 0.2, as set",
        ),
        ({"mean": 0.5, "std": [0.1]}, None),
        ({}, None),
    ],
)
def test_a_mean_that_replaces_the_file_s_is_said(path: Path, given: dict, line: str | None) -> None:
    found = told(open_network(ours(path), None, PreprocessingConfig(**given)))
    assert found == ([] if line is None else [f"weights: preprocessing.{line}"])
    assert (
        told(open_network(foreign(path), SPEC, PreprocessingConfig(mean=0.5, std=1.0)))[:-1]
        == (told(open_network(path, SPEC))[:-1])
    )


@pytest.mark.parametrize(
    ("given", "end"),
    [
        ({"height": 64, "width": 64}, "sees 64 × 64 here, as preprocessing.height and width say"),
        ({"height": 64}, "sees 64 × 40 here, as preprocessing.height says"),
    ],
)
def test_a_size_that_was_set_is_not_advised(path: Path, given: dict, end: str) -> None:
    (line,) = told(open_network(ours(path), None, PreprocessingConfig(**given)))
    assert line.endswith(end)
