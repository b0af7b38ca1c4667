import dataclasses
import itertools
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from nakt_dist.cli import STAGES, parse_config
from nakt_dist.config import CONFIG_NAME, as_plain, save_config
from nakt_dist.errors import ConfigurationError

CONFIGS = Path(__file__).parents[2] / "configs"
MINIMAL = {
    "phantoms": ["--kind=thyroid_ultrasound", "--output=o"],
    "pack": ["--layout=busi", "--source=s", "--output=o", "--layout_options.classes=[benign]"],
    "verify": ["folder"],
    "teach": ["--dataset=d", "--output=o", "--teachers=[{weights: w, model: {name: sdu_net}}]"],
    "weigh": ["--dataset=d", "--output=o", "--teachers=[{weights: v}, {weights: w}]"],
    "inspect": ["pseudo", "--exclusion.beta=null"],
    "train": ["--output=o", "--data.dataset=d", "--recipe.steps=1", "--augmentation.gamma=[1, 2]"],
    "evaluate": ["--weights=w", "--dataset=d", "--output=o", "--splits=null"],
    "predict": ["w", "i", "--output=o", "--files=[masks, overlays]", "--image.fit=pad"],
    "attention": ["--student.weights=s", "--teacher.weights=t", "--dataset=d", "--output=o"],
    "export": ["run", "--output=o", "--taps=[paper]", "--licence=mit"],
    "report": ["one", "two"],
    "mirror": ["one", "two", "--to=tensorboard"],
    "watch": ["one", "two", "--port=0"],
    "doctor": ["--wait_seconds=5"],
    "submit": ["train", "--nodes=2"],
    "study": ["--steps=[{stage: verify, config: {folder: f}}]"],
}
TRAIN = ["--output=o", "--data.dataset=d", "--recipe.steps=1"]
PACK = ["--layout=busi", "--source=s", "--output=o"]
EVALUATE = ["--weights=w", "--dataset=d", "--output=o"]


def teachers(**settings):
    """A teach configuration with one teacher of these settings, as nested values."""
    return {"dataset": "d", "output": "o", "teachers": [{"weights": "w", **settings}]}


def refused(stage, arguments=(), values=None):
    with pytest.raises(ConfigurationError) as caught:
        parse_config(stage, list(arguments), values)
    return str(caught.value)


def as_file(tmp_path, text):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return f"--config={path}"


def test_every_stage_is_tried_here():
    assert set(MINIMAL) == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_the_printed_configuration_gives_the_same_configuration_again(stage, tmp_path, capsys):
    config = parse_config(stage, MINIMAL[stage])
    with pytest.raises(SystemExit) as ended:
        parse_config(stage, [*MINIMAL[stage], "--print_config"])
    assert ended.value.code == 0
    assert parse_config(stage, [as_file(tmp_path, capsys.readouterr().out)]) == config


FILES = [path for stage in STAGES if stage != "study" for path in CONFIGS.glob(f"{stage}/*.yaml")]
WITH_GROUPS = {
    "teach": ["--teachers=[{weights: w, model: {name: unet}, class_map: {unknown: background}}]"],
    "inspect": ["--exclusion.calibration={pseudo_labels: p}"],
    "evaluate": ["--operating_points.validation=v", "--preprocessing.mean=[0.5, 0.4, 0.3]"],
    "attention": ["--taps=[{student: a, teacher: b}]", "--student.model={name: densenet121}"],
}


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        *((path.parent.name, [f"--config={path}"]) for path in FILES),
        *((stage, [*MINIMAL[stage], *words]) for stage, words in WITH_GROUPS.items()),
    ],
    ids=[*(path.stem for path in FILES), *WITH_GROUPS],
)
def test_groups_that_may_be_absent_are_printed_as_they_are_read(stage, words, tmp_path, capsys):
    config = parse_config(stage, words)
    with pytest.raises(SystemExit) as ended:
        parse_config(stage, [*words, "--print_config"])
    assert ended.value.code == 0
    assert parse_config(stage, [as_file(tmp_path, capsys.readouterr().out)]) == config


@pytest.mark.parametrize("stage", STAGES)
def test_the_saved_configuration_gives_the_same_configuration_again(stage, tmp_path):
    config = parse_config(stage, MINIMAL[stage])
    save_config(config, tmp_path)
    assert parse_config(stage, [f"--config={tmp_path / CONFIG_NAME}"]) == config


@pytest.mark.parametrize("stage", STAGES)
def test_code_and_command_line_give_the_same_configuration(stage):
    config = parse_config(stage, MINIMAL[stage])
    assert parse_config(stage, [], as_plain(config)) == config


@pytest.mark.parametrize("stage", STAGES)
def test_a_configuration_cannot_be_changed(stage):
    config = parse_config(stage, MINIMAL[stage])
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, dataclasses.fields(config)[0].name, "other")


def test_reading_values_does_not_change_them():
    values = teachers(model={"name": "unet"})
    parse_config("teach", [], values)
    assert values == teachers(model={"name": "unet"})


@pytest.mark.parametrize(
    ("stage", "arguments", "wrong", "nearest"),
    [
        ("train", [*TRAIN, "--sede=1"], "sede", "seed"),
        ("train", [*TRAIN, "--see=1"], "see", "seed"),
        ("train", [*TRAIN, "--recipe.lerning_rate=1"], "lerning_rate", "recipe.learning_rate"),
        ("train", [*TRAIN, "--recipe.learning_rat=1"], "learning_rat", "recipe.learning_rate"),
        ("train", [*TRAIN, "--data.exclusion.alfa=1"], "alfa", "alpha"),
        ("train", [*TRAIN, "--validation.splitz=[test]"], "splitz", "splits"),
        ("pack", [*PACK, "--image.hight=64"], "image.hight", "image.height"),
        ("pack", [*PACK, "--splits.fraction={a: 1}"], "splits.fraction", "splits.fractions"),
        ("verify", ["folder", "--repare=true"], "repare", "repair"),
        ("evaluate", [*EVALUATE, "--treshold=0.4"], "treshold", "threshold"),
    ],
)
def test_a_misspelt_setting_is_refused_with_the_nearest_right_one(stage, arguments, wrong, nearest):
    message = refused(stage, arguments)
    assert wrong in message
    assert f"did you mean '{nearest}'?" in message
    assert f"nakt {stage} --help" in message


@pytest.mark.parametrize(
    ("values", "nearest"),
    [
        (teachers(outptu="soft"), "output"),
        (teachers(model={"nam": "unet"}), "name"),
        (teachers(preprocessing={"men": 0.5}), "mean"),
        ({**teachers(), "batchsize": 4}, "batch_size"),
    ],
    ids=["of_a_teacher", "of_its_model", "of_its_preprocessing", "at_the_top"],
)
def test_a_misspelt_setting_inside_a_list_is_refused_with_the_nearest_right_one(
    values, nearest, tmp_path
):
    for message in (
        refused("teach", values=values),
        refused("teach", [as_file(tmp_path, yaml.safe_dump(values))]),
    ):
        assert f"did you mean '{nearest}'?" in message


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("modle: {name: sdu_net}", "model"),
        ("recipe: {steps: 1, lerning_rate: 1}", "recipe.learning_rate"),
        ("data: {dataset: d, exclusion: {alfa: 1}}", "alpha"),
    ],
)
def test_a_misspelt_setting_in_a_file_is_refused_with_the_nearest_right_one(
    text, nearest, tmp_path
):
    message = refused("train", [*TRAIN, as_file(tmp_path, text)])
    assert f"did you mean '{nearest}" in message


@pytest.mark.parametrize(
    ("stage", "arguments", "key"),
    [
        ("train", [*TRAIN, "--seed=one"], "seed"),
        ("train", [*TRAIN, "--seed=1.5"], "seed"),
        ("train", [*TRAIN, "--log_keys=perhaps"], "log_keys"),
        ("train", [*TRAIN, "--recipe.precision=int8"], "recipe.precision"),
        ("train", [*TRAIN, "--augmentation.gamma=[0.7]"], "augmentation.gamma"),
        ("train", [*TRAIN, "--data.splits=train"], "data.splits"),
        ("pack", [*PACK, "--image={height: tall}"], "height"),
        ("evaluate", [*EVALUATE, "--both_empty=zero"], "both_empty"),
    ],
)
def test_a_value_of_another_type_is_refused_by_key(stage, arguments, key):
    message = refused(stage, arguments)
    assert key in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("stage", "arguments", "message"),
    [
        (
            "train",
            [*TRAIN, "--labels.uncertain=X"],
            "labels.uncertain is X; expected zero, one, ignore, settings by name or null",
        ),
        (
            "train",
            [*TRAIN, "--labels.uncertain={Atelectasis: 1}"],
            "labels.uncertain is 1; expected zero, one, ignore, settings by name or null",
        ),
        (
            "train",
            [*TRAIN, "--teacher={weights: w, attention: {preset: papr}}"],
            "teacher.attention.preset is papr; expected paper, authors_code or null, did you mean "
            "'paper'?",
        ),
        (
            "train",
            [*TRAIN, "--teacher={weights: w, attention: {taps: [{student: 1, teacher: b}]}}"],
            "teacher.attention.taps.student is 1; expected a text",
        ),
        (
            "train",
            [*TRAIN, "--model", "densenet40"],
            "model is the text 'densenet40'; expected settings by name, such as "
            "{name: densenet40} (in a command line --model.name densenet40)",
        ),
        (
            "train",
            [*TRAIN, "--data.exclusion.combine=neither"],
            "data.exclusion.combine is neither; expected either or both, did you mean 'either'?",
        ),
        (
            "train",
            [*TRAIN, "--validation={dataset: d, splits: test}"],
            "validation.splits is test; expected a list as in [a, b] or null",
        ),
        ("train", [*TRAIN, "--trainable.x=1"], "trainable.x is '1'; expected a text or a list"),
        ("pack", [*PACK, "--image={height: tall}"], "image.height is tall; expected a whole num"),
        ("pack", [*PACK, "--splits.fractions=0.8"], "splits.fractions is 0.8; expected settings"),
    ],
)
def test_a_wrong_value_is_told_in_one_line_with_what_was_expected(stage, arguments, message):
    assert refused(stage, arguments).startswith(message)


def test_a_value_of_another_type_inside_a_list_is_refused_by_key():
    assert "weight" in refused("teach", values=teachers(weight="heavy"))
    assert "output" in refused("teach", values=teachers(output="hard"))


@pytest.mark.parametrize(
    ("stage", "arguments", "words"),
    [
        ("train", ["--output=o", "--recipe.steps=1"], "required: data.dataset"),
        ("train", [*TRAIN, "--recipe.epochs=2"], "set exactly one"),
        ("train", [*TRAIN, "--recipe.steps=0"], "positive"),
        ("train", [*TRAIN, "--recipe.micro_batch_size=0"], "recipe.micro_batch_size"),
        ("train", [*TRAIN, "--data.exclusion.alpha=1"], "data.pseudo_labels is not"),
        ("train", [*TRAIN, "--data.streaming=true", "--data.count=5"], "data.count"),
        ("train", [*TRAIN, "--augmentation.gamma=[1.3, 0.7]"], "ascending"),
        ("train", [*TRAIN, "--augmentation.smallest_crop=0"], "smallest_crop"),
        ("train", [*TRAIN, "--preprocessing.std=0"], "preprocessing.std"),
        ("train", [*TRAIN, "--seed=-1"], "seed must be 0 or more"),
        ("train", [*TRAIN, "--workers=-1"], "workers"),
        ("train", [*TRAIN, "--threads=0"], "threads"),
        ("train", [*TRAIN, "words"], "words"),
        ("teach", ["--dataset=d", "--output=o", "--teachers=[]"], "at least one teacher"),
        ("teach", [*MINIMAL["teach"], "--batch_size=0"], "batch_size"),
        ("pack", [*PACK, "--image.height=0"], "image.height"),
        ("pack", [*PACK, "--image.jpeg_quality=101"], "image.jpeg_quality"),
        ("pack", [*PACK, "--samples_per_shard=0"], "samples_per_shard"),
        ("pack", [*PACK, "--seed=-1"], "seed"),
        ("evaluate", [*EVALUATE, "--threshold=1"], "threshold"),
        ("evaluate", [*EVALUATE, "--bootstrap_samples=0"], "bootstrap_samples"),
        ("evaluate", ["word", *EVALUATE], "does not understand 'word'"),
        ("verify", ["one", "two"], "does not understand 'two'"),
        ("report", [], "required: runs"),
    ],
)
def test_settings_that_are_missing_out_of_range_or_contradict_are_refused(stage, arguments, words):
    assert words in refused(stage, arguments)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--data.exclusion.alpha=-1"], "data.exclusion.alpha"),
        (["--data.exclusion={beta: -1}"], "data.exclusion.beta"),
        (
            ["--validation={dataset: d, pseudo_labels: p, exclusion: {alpha: -1}}"],
            "validation.exclusion.alpha",
        ),
        (["--teacher={weights: w, attention: {preset: paper, beta: 0}}"], "teacher.attention.beta"),
        (["--teacher={weights: w, preprocessing: {std: 0}}"], "teacher.preprocessing.std"),
        (["--preprocessing.std=0"], "preprocessing.std"),
    ],
)
def test_a_setting_of_a_group_that_stands_in_another_is_named_whole(tmp_path, words, name):
    message = refused("train", [*TRAIN, "--data.pseudo_labels=p", *words])
    assert message.startswith(f"{name} must be")


def test_an_unknown_stage_is_refused_with_the_nearest_one():
    message = refused("trian")
    assert "did you mean 'train'?" in message
    assert all(stage in message for stage in STAGES)


def test_the_command_line_overrides_the_file_and_the_file_the_defaults(tmp_path):
    text = "output: o\nseed: 5\ndata: {dataset: d, splits: [a, b]}\nrecipe: {epochs: 3}\n"
    config = parse_config("train", [as_file(tmp_path, text), "--seed=7", "--data.splits=[c]"])
    assert (config.seed, config.data.splits) == (7, ["c"])
    assert (config.data.dataset, config.recipe.epochs) == ("d", 3)
    assert config.recipe.learning_rate == 1e-4
    steps = [as_file(tmp_path, text), "--recipe.epochs=null", "--recipe.steps=9"]
    assert parse_config("train", steps).recipe.steps == 9


def test_a_positional_word_fills_its_setting():
    assert parse_config("verify", ["folder", "--repair=true"]).folder == "folder"
    assert parse_config("report", ["one", "two", "--output=o"]).runs == ["one", "two"]
    assert parse_config("inspect", ["pseudo"]).pseudo_labels == "pseudo"


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir"])
def test_code_in_a_settings_file_is_refused_and_does_not_run(tmp_path, tag):
    marker = tmp_path / "marker"
    text = f"output: {tag} [{marker}]\ndata: {{dataset: d}}\nrecipe: {{steps: 1}}\n"
    refused("train", [as_file(tmp_path, text)])
    assert not marker.exists()


def test_code_in_a_value_does_not_run(tmp_path):
    marker = tmp_path / "marker"
    argument = f"--output=!!python/object/apply:os.mkdir [{marker}]"
    parse_config("pack", ["--layout=busi", "--source=s", argument])
    assert not marker.exists()


@pytest.mark.parametrize(
    "text", ["output: [unclosed", "- a list", "just words", "\x00", "output: o\noutput"]
)
def test_a_file_that_is_not_a_mapping_of_settings_is_refused(tmp_path, text):
    refused("train", [as_file(tmp_path, text)])


def test_an_absent_file_is_refused_by_name(tmp_path):
    path = tmp_path / "absent.yaml"
    assert str(path) in refused("train", [f"--config={path}"])


def test_the_defaults_are_the_papers():
    config = parse_config("train", ["--output=o", "--data.dataset=d", "--recipe.epochs=500"])
    recipe, augmentation = config.recipe, config.augmentation
    assert (recipe.global_batch_size, recipe.learning_rate) == (4, 1e-4)
    assert (recipe.dice_weight, recipe.cross_entropy_weight) == (1, 1)
    assert (augmentation.smallest_crop, augmentation.largest_rotation) == (0.7, 45)
    assert augmentation.gamma == augmentation.contrast == (0.7, 1.3)
    assert config.data.exclusion is None
    inspected = parse_config("inspect", ["pseudo"]).exclusion
    assert (inspected.alpha, inspected.beta, inspected.combine) == (256, 2.5, "either")
    pack = parse_config("pack", PACK)
    assert (pack.image.height, pack.image.width, pack.image.colour) == (384, 384, "grey")


def test_a_configuration_as_plain_values_holds_nothing_yaml_cannot():
    config = parse_config("train", MINIMAL["train"])
    plain = as_plain(config)
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain
    assert plain["augmentation"]["gamma"] == [1.0, 2.0]
    assert plain["recipe"]["global_batch_size"] == 4


def test_settings_can_be_left_out_of_the_saved_file(tmp_path):
    save_config(parse_config("pack", PACK), tmp_path, leave_out=("output", "workers"))
    saved = yaml.safe_load((tmp_path / CONFIG_NAME).read_text())
    assert "output" not in saved
    assert "workers" not in saved
    assert saved["layout"] == "busi"


def test_configurations_are_made_in_code_without_torch():
    script = (
        "import sys; from nakt_dist.config import DataConfig, RecipeConfig, TrainConfig\n"
        "TrainConfig(output='o', data=DataConfig('d'), recipe=RecipeConfig(steps=1))\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


STAGE_FILES = sorted(
    path for path in CONFIGS.glob("*/*.yaml") if path.parent.name not in ("accelerate",)
)


@pytest.mark.parametrize("path", STAGE_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_configuration_is_one_of_its_stage(path):
    # At the papers' scale, a study may hold definitions alone: the steps are those of another.
    files = dict.fromkeys([path.with_stem(path.stem.removesuffix("_paper")), path])
    # What the steps of studies say: test_paper_studies.
    parse_config(path.parent.name, [f"--config={each}" for each in files])


@pytest.mark.parametrize("path", STAGE_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_configuration_opens_with_its_launch_and_what_to_expect(path):
    lines = itertools.takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    opening = " ".join(lines)
    assert "launch:" in opening
    assert "expected:" in opening


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "accelerate").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_shipped_launch_configuration_is_one_of_accelerate(path):
    assert load_config_from_file(str(path)).num_processes >= 1


def settings_with_a_value(kind: type, prefix: str = "") -> Iterator[str]:
    """The dotted names of the settings that may not be null, but of those inside lists."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        parts = typing.get_args(hint) or (hint,)
        if type(None) not in parts and hint is not typing.Any:
            yield prefix + field.name
        for part in parts if typing.get_origin(hint) is not list else ():
            if dataclasses.is_dataclass(part):
                yield from settings_with_a_value(part, f"{prefix}{field.name}.")


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_null_is_no_value_of_a_setting_that_must_have_one(stage, tmp_path):
    for name in settings_with_a_value(STAGES[stage].config):
        value = None
        for part in reversed(name.split(".")):
            value = {part: value}
        with pytest.raises(ConfigurationError, match=f"^{re.escape(name)} is null; expected a"):
            parse_config(stage, [], value)


def test_null_in_a_file_is_refused_by_file_and_line(tmp_path):
    path = tmp_path / "evaluate.yaml"
    path.write_text("weights: w\ndataset: d\noutput: o\nseed: null\n")
    with pytest.raises(ConfigurationError, match=r"evaluate\.yaml, line 4: seed is null"):
        parse_config("evaluate", ["--config", str(path)])
