"""A network that sees other images than it learnt from, or of which less is known, is announced.

The same sentence stands in the output of every stage, and among the notes of ``doctor``.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import save_file

from nakt_dist.cli import parse_config
from nakt_dist.config import (
    AttentionConfig,
    AttentionTransferConfig,
    DistillationConfig,
    DoctorConfig,
    ImageConfig,
    PackConfig,
    PreprocessingConfig,
    ShownNetworkConfig,
    SplitConfig,
    TapConfig,
    TeacherConfig,
    TrainingTeacherConfig,
    ValidationConfig,
    as_plain,
)
from nakt_dist.errors import ConfigurationError, DatasetError, NaktError
from nakt_dist.evaluation.scores import PREDICTIONS_NAME
from nakt_dist.evaluation.segmentation_scores import PREDICTIONS_SCHEMA
from nakt_dist.models.network_file import open_network
from nakt_dist.models.preprocessing import ImageForm
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import save_weights
from nakt_dist.shards.tables import read_table
from nakt_dist.stages import attention, doctor, evaluate, pack, predict, teach, train
from tests.datasets import make_chest_dataset, make_classifier, make_packed_dataset, publish_images
from tests.recipes import TINY_UNET, evaluate_config, predict_config, teach_config, train_config

ONE_STEP = {"steps": 1, "global_batch_size": 2}
TAPS = [TapConfig("encoder.1", "encoder.1")]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_packed_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("padded")
    config = PackConfig(
        "image_folder", str(publish_images(folder / "source", height=24)), str(folder / "padded"),
        name="padded", image=ImageConfig(height=48, width=48, fit="pad", encoding="png"),
        splits=SplitConfig(fractions={"train": 0.5, "test": 0.5}), workers=1,
    )  # fmt: skip
    pack.run(config)
    return folder / "padded"


def stage_configs(
    folder: Path, dataset: Path, weights: Path, model: ModelSpec | None, **given: Any
) -> dict[str, Any]:
    """The same network in every role that a network can have, by stage and role."""
    seen = PreprocessingConfig(**given) if given else None
    network = {"weights": str(weights), "model": model, "preprocessing": seen}
    shown = ShownNetworkConfig(**network)
    transfer = AttentionTransferConfig(taps=TAPS)
    common = {"device": "cpu", "threads": 1}
    return {
        "teach": teach_config(folder / "pseudo", dataset, TeacherConfig(**network)),
        "evaluate": evaluate_config(
            folder / "eval", dataset, weights, model=model, preprocessing=seen
        ),
        "attention": AttentionConfig(
            shown, shown, str(dataset), str(folder / "attention"), taps=TAPS, **common
        ),
        "train teacher": train_config(
            folder / "student", dataset, ONE_STEP,
            teacher=TrainingTeacherConfig(**network, attention=transfer),
        ),
        "train init": train_config(
            folder / "tuned", dataset, ONE_STEP, init=str(weights), model=model,
            preprocessing=seen,
        ),
    }  # fmt: skip


RUNS = {
    "teach": teach, "evaluate": evaluate, "attention": attention, "train": train,
    "predict": predict,
}  # fmt: skip


def check_said_everywhere(
    configs: dict[str, Any], wanted: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Runs and examines every stage; each must say each of the sentences on one line."""
    for name, config in configs.items():
        stage = name.split()[0]
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(as_plain(config)))
        capsys.readouterr()
        doctor.run(DoctorConfig(stage=stage, settings=["--config", str(path)]))
        examined = capsys.readouterr().out
        RUNS[stage].run(config)
        said = capsys.readouterr().err.splitlines()
        for sentence in wanted:
            assert any(sentence in line for line in said), (name, sentence)
            assert sentence in examined, (name, sentence)


def test_what_a_foreign_network_gets_is_said_alike_everywhere(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    weights = tmp_path / "theirs.safetensors"
    save_file(TINY_UNET.build().state_dict(), weights)
    opened = open_network(weights, TINY_UNET)
    wanted = opened.describe(ImageForm(32, 32, "stretch"))
    assert len(wanted) == 2 and "leaves no trace" in wanted[0] and "from 0 to 1" in wanted[1]
    configs = stage_configs(tmp_path, dataset, weights, TINY_UNET)
    check_said_everywhere(configs, wanted, tmp_path, capsys)


def test_another_fit_and_size_are_said_alike_everywhere(
    dataset: Path, padded: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    train.run(train_config(tmp_path / "run", dataset, ONE_STEP))
    wanted = [
        "run learnt from images of 32 × 32 pixels and sees 48 × 48 here",
        "run learnt from images brought to their size by stretch and sees them brought to it by "
        "pad here; pack the dataset with image.fit stretch",
    ]
    configs = stage_configs(tmp_path, padded, tmp_path / "run", None)
    check_said_everywhere(configs, wanted, tmp_path, capsys)


def test_statistics_that_replace_the_file_s_are_said_alike_everywhere(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    seen = PreprocessingConfig(mean=0.5, std=0.1)
    train.run(train_config(tmp_path / "run", dataset, ONE_STEP, preprocessing=seen))
    wanted = ["run: preprocessing.mean: the file says 0.5, taken 0.25, as set"]
    configs = stage_configs(tmp_path, dataset, tmp_path / "run", None, mean=0.25, std=0.1)
    check_said_everywhere(configs, wanted, tmp_path, capsys)


def test_following_the_advice_on_sizes_keeps_mean_and_deviation(
    dataset: Path, padded: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The images of another size are seen as with all four settings named."""
    seen = PreprocessingConfig(mean=0.5, std=0.1)
    train.run(train_config(tmp_path / "run", dataset, ONE_STEP, preprocessing=seen))
    whole = {"height": 32, "width": 32, "mean": 0.5, "std": 0.1}
    configs = stage_configs(tmp_path, padded, tmp_path / "run", None, height=32, width=32)
    capsys.readouterr()
    for name, config in configs.items():
        RUNS[name.split()[0]].run(config)
        assert "32 × 32 pixels and sees" not in capsys.readouterr().err
        saved = yaml.safe_load((Path(config.output) / "config.yaml").read_text())
        role = {"teach": lambda s: s["teachers"][0], "train teacher": lambda s: s["teacher"]}
        role["attention"] = lambda s: s["student"]
        assert role.get(name, lambda s: s)(saved)["preprocessing"] == whole, name

    named = stage_configs(tmp_path / "named", padded, tmp_path / "run", None, **whole)
    evaluate.run(named["evaluate"])
    dice = [
        read_table(Path(each["evaluate"].output) / PREDICTIONS_NAME, PREDICTIONS_SCHEMA)
        for each in (configs, named)
    ]
    assert dice[0].equals(dice[1])
    assert teach.run(named["teach"]).counts["pseudo_labels"] == 12
    pseudo = [sorted(Path(each["teach"].output).glob("*.tar")) for each in (configs, named)]
    assert [path.read_bytes() for path in pseudo[0]] == [path.read_bytes() for path in pseudo[1]]


@pytest.mark.parametrize("stage", ["evaluate", "train"])
def test_the_settings_saved_beside_an_output_mean_the_same_run(
    padded: Path, dataset: Path, tmp_path: Path, stage: str, capsys: pytest.CaptureFixture
) -> None:
    seen = PreprocessingConfig(height=16)
    train.run(train_config(tmp_path / "run", dataset, ONE_STEP, preprocessing=seen))
    configs = stage_configs(tmp_path, padded, tmp_path / "run", None, width=24)
    config = configs["evaluate" if stage == "evaluate" else "train teacher"]
    RUNS[stage].run(config)
    capsys.readouterr()
    saved = parse_config(stage, ["--config", str(Path(config.output) / "config.yaml")])
    again = RUNS[stage].run(saved)
    said = capsys.readouterr().err
    assert "complete already" in said or "nothing to do" in said
    assert RUNS[stage].run(config).config == again.config  # nor does the first one begin anew


def test_a_new_classifier_of_which_the_size_alone_is_given_keeps_imagenet_s_statistics(
    dataset: Path, tmp_path: Path
) -> None:
    chest = make_chest_dataset(tmp_path, images=12)
    model = ModelSpec("timm:test_convnext", in_channels=3)
    config = train_config(
        tmp_path / "run", chest, ONE_STEP, task="classification", model=model,
        preprocessing=PreprocessingConfig(height=48, width=48),
    )  # fmt: skip
    train.run(config)
    seen = open_network(tmp_path / "run").preprocessing
    assert (seen.height, seen.mean) == (48, [0.485, 0.456, 0.406])


def test_a_classifier_is_no_start_of_a_segmentation_network(dataset: Path, tmp_path: Path) -> None:
    weights = make_classifier(tmp_path / "classifier.safetensors", ["Edema"])
    config = train_config(tmp_path / "out", dataset, ONE_STEP, init=str(weights), model=None)
    with pytest.raises(ConfigurationError, match="classifies images, and task is segmentation"):
        train.run(config)


def test_neither_is_it_followed_by_its_output(dataset: Path, tmp_path: Path) -> None:
    weights = make_classifier(tmp_path / "classifier.safetensors", ["Edema"])
    teacher = TrainingTeacherConfig(str(weights), distillation=DistillationConfig())
    with pytest.raises(ConfigurationError, match="is a classifier and the student a segmentation"):
        train.run(train_config(tmp_path / "out", dataset, ONE_STEP, teacher=teacher))


def test_outputs_without_names_have_no_dice(dataset: Path, tmp_path: Path) -> None:
    spec = ModelSpec("unet", num_outputs=3, options=TINY_UNET.options)
    save_weights(tmp_path / "w.safetensors", spec.build().state_dict(), spec, {})
    config = evaluate_config(tmp_path / "out", dataset, tmp_path / "w.safetensors")
    with pytest.raises(ConfigurationError, match="has 3 outputs, and classes does not name them"):
        evaluate.run(config)


def test_options_without_a_trace_belong_to_what_decides_what_a_network_says(
    dataset: Path, tmp_path: Path
) -> None:
    options = {"channels": [4, 8], "strides": [2], "input_normalisation": "min_max"}
    seen, weights = ModelSpec("monai_unet", options=options), tmp_path / "theirs.safetensors"
    save_file(seen.build().state_dict(), weights)
    given = {"model": seen, "preprocessing": PreprocessingConfig(32, 32, 0.0, 1.0)}
    tested = evaluate_config(tmp_path / "tested", dataset, weights, **given)
    asked = predict_config(
        tmp_path / "predicted", weights, publish_images(tmp_path / "images"), **given
    )
    for stage, config in ((evaluate, tested), (predict, asked)):
        stage.run(config)
        assert stage.run(config).inputs["model"]["options"] == options
        other = replace(seen, options={**options, "input_normalisation": "none"})
        with pytest.raises(DatasetError, match=r"another .*model\.options\.input_normalisation: f"):
            stage.run(replace(config, model=other))


def test_a_network_of_channels_that_images_do_not_have_is_refused_in_every_role(
    dataset: Path, tmp_path: Path
) -> None:
    spec = ModelSpec("unet", in_channels=2, options=TINY_UNET.options)
    save_weights(tmp_path / "w.safetensors", spec.build().state_dict(), spec, {})
    configs = stage_configs(tmp_path, dataset, tmp_path / "w.safetensors", None)
    configs["train"] = train_config(tmp_path / "new", dataset, ONE_STEP, model=spec)
    configs["predict"] = predict_config(
        tmp_path / "predicted", tmp_path / "w.safetensors", publish_images(tmp_path / "images")
    )
    for name, config in configs.items():
        with pytest.raises(ConfigurationError, match="wants 2 channels, and images are grey or"):
            RUNS[name.split()[0]].run(config)


def test_doctor_finds_layers_that_attention_has_none_of(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save_weights(tmp_path / "w.safetensors", TINY_UNET.build().state_dict(), TINY_UNET, {})
    words = [f"--{who}.weights={tmp_path / 'w.safetensors'}" for who in ("student", "teacher")]
    words += [f"--dataset={dataset}", f"--output={tmp_path / 'out'}"]
    with pytest.raises(NaktError, match="1 problem"):
        doctor.run(DoctorConfig(stage="attention", settings=words))
    assert "has no tap for the network 'unet'" in capsys.readouterr().out


def test_validation_of_another_form_is_said(
    dataset: Path, padded: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    validation = ValidationConfig(str(padded), splits=["test"])
    train.run(train_config(tmp_path / "out", dataset, ONE_STEP, validation=validation))
    said = capsys.readouterr().err
    assert "form 48 × 48 pixels, pad, and those learnt from 32 × 32 pixels, stretch" in said
