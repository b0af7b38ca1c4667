"""What the best epoch is chosen on is never what is learnt from, unless that is asked for."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nakt_dist.cli import parse_config
from nakt_dist.config import (
    DataConfig,
    DoctorConfig,
    ImageConfig,
    PackConfig,
    SplitConfig,
    ValidationConfig,
)
from nakt_dist.errors import ConfigurationError, NaktError
from nakt_dist.loading.overlap import images_in_both
from nakt_dist.loading.samples import select_samples
from nakt_dist.models.network_file import open_network
from nakt_dist.stages import doctor, evaluate, pack, train
from tests.datasets import make_packed_dataset, publish_images
from tests.recipes import evaluate_config, train_config

ONE_STEP = {"steps": 1, "global_batch_size": 2}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_packed_dataset(tmp_path_factory.mktemp("dataset"))


def pack_again(dataset: Path, name: str, side: int = 32, seed: int = 0) -> Path:
    """Packs the published images of a dataset once more, under another name."""
    pack.run(
        PackConfig(
            layout="image_folder",
            source=f"{dataset}-published",
            output=str(dataset.with_name(name)),
            name=name,
            image=ImageConfig(height=side, width=side, encoding="png"),
            splits=SplitConfig(fractions={"train": 0.5, "validation": 0.25, "test": 0.25}),
            seed=seed,
            workers=1,
        )
    )
    return dataset.with_name(name)


def words_of(output: Path, dataset: Path, validation: Path, *more: str) -> list[str]:
    return [
        f"--output={output}", f"--data.dataset={dataset}", f"--validation.dataset={validation}",
        "--recipe.steps=1", "--recipe.global_batch_size=2", "--model.name=unet",
        "--model.options={base_channels: 4}", "--device=cpu", "--threads=1", *more,
    ]  # fmt: skip


def test_validation_without_splits_is_the_split_of_that_name(dataset: Path, tmp_path: Path) -> None:
    config = parse_config("train", words_of(tmp_path / "out", dataset, dataset))
    assert (config.data.splits, config.validation.splits) == (["train"], ["validation"])
    train.run(config)
    assert open_network(tmp_path / "out").lineage["validated_on"]["samples"] == 3


def test_no_setting_of_training_data_alone_is_taken_for_validation(tmp_path: Path) -> None:
    """Validation is read by index: a stream there would have been passed over in silence."""
    with pytest.raises(ConfigurationError, match=r"no setting '.*streaming'"):
        words = words_of(tmp_path, tmp_path, tmp_path, "--validation.streaming=true")
        parse_config("train", words)
    with pytest.raises(ConfigurationError, match="validation must be a ValidationConfig"):
        train_config(tmp_path / "out", tmp_path, validation=DataConfig(str(tmp_path)))


@pytest.mark.parametrize("role", ["data", "validation"])
def test_a_dataset_without_the_split_of_a_role_names_those_it_has(
    tmp_path: Path, role: str
) -> None:
    other = {"data": "validation", "validation": "train"}[role]
    lacking = make_packed_dataset(tmp_path, splits={other: 0.5, "test": 0.5}, name="lacking")
    whole = make_packed_dataset(tmp_path, name="whole", seed=1)
    pair = {"data": (lacking, whole), "validation": (whole, lacking)}[role]
    wanted = {"data": "train", "validation": "validation"}[role]
    with pytest.raises(ConfigurationError, match=f"^{role}.splits: split '{wanted}'") as caught:
        train.run(parse_config("train", words_of(tmp_path / "out", *pair)))
    assert other in str(caught.value) and "test" in str(caught.value)


@pytest.mark.parametrize("splits", [["train"], ["train", "validation"], None])
def test_images_that_are_learnt_from_are_refused_by_train_and_doctor(
    dataset: Path, tmp_path: Path, splits: list[str] | None, capsys: pytest.CaptureFixture
) -> None:
    validation = ValidationConfig(str(dataset), splits=splits)
    images = 12 if splits is None else {1: 6, 2: 9}[len(splits)]
    config = train_config(tmp_path / "out", dataset, ONE_STEP, validation=validation)
    with pytest.raises(ConfigurationError, match=f"6 of its {images} images are learnt from"):
        train.run(config)
    more = f"--validation.splits={'null' if splits is None else list(splits)}"
    words = words_of(tmp_path / "out", dataset, dataset, more)
    with pytest.raises(NaktError, match="1 problem"):
        doctor.run(DoctorConfig(stage="train", settings=words))
    assert "validation.same_images" in capsys.readouterr().out


def test_by_name_they_are_taken_and_it_is_said(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    same = ["--validation.splits=[train]", "--validation.same_images=true"]
    words = words_of(tmp_path / "out", dataset, dataset, *same)
    doctor.run(DoctorConfig(stage="train", settings=words))
    assert "6 of its 6 images are learnt from" in capsys.readouterr().out
    train.run(parse_config("train", words))
    assert "6 of its 6 images are learnt from" in capsys.readouterr().err
    assert open_network(tmp_path / "out").lineage["validated_on"]["same_images"] is True
    train.run(parse_config("train", ["--config", str(tmp_path / "out" / "config.yaml")]))
    assert "nothing to do" in capsys.readouterr().err


@pytest.mark.parametrize(("side", "seed"), [(32, 1), (48, 0)], ids=["other_splits", "other_size"])
def test_the_same_images_in_another_packing_are_met(dataset: Path, side: int, seed: int) -> None:
    again = pack_again(dataset, f"again-{side}-{seed}", side, seed)
    first, second = (select_samples(str(each), None) for each in (dataset, again))
    assert sorted(images_in_both(first, second)) == sorted(first.images.keys)
    training = select_samples(str(dataset), ["train"])
    found = images_in_both(training, select_samples(str(again), ["test"]))
    tested = select_samples(str(again), ["test"]).images.keys
    assert found == [key for key in tested if key in training.images.keys]


def test_images_copied_to_another_dataset_are_met_by_their_bytes_alone(
    dataset: Path, tmp_path: Path
) -> None:
    """Another source, another name, another key; and a stranger of the same key is not met."""
    source = tmp_path / "source"
    source.mkdir()
    published = sorted(Path(f"{dataset}-published").glob("image_???.png"))
    copied, stranger = published[5], make_packed_dataset(tmp_path, name="other", seed=9)
    (source / "renamed.png").write_bytes(copied.read_bytes())
    unknown = Path(f"{stranger}-published") / "image_003.png"
    (source / "image_003.png").write_bytes(unknown.read_bytes())
    config = PackConfig(
        "image_folder", str(source), str(tmp_path / "copies"), name="copies", workers=1,
        image=ImageConfig(height=32, width=32, encoding="png"), masks=False,
    )  # fmt: skip
    pack.run(config)
    first, second = (select_samples(str(each), None) for each in (dataset, tmp_path / "copies"))
    assert images_in_both(first, second) == ["renamed"]
    assert images_in_both(first, select_samples(str(stranger), None)) == []


def test_pictures_are_met_under_another_name_and_size_over_generations(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A teacher's child is tested on a part of what the teacher learnt from, packed otherwise."""
    again = pack_again(dataset, "elsewhere", side=16, seed=3)
    stranger = make_packed_dataset(tmp_path, name="stranger", seed=8)
    learnt = set(select_samples(str(dataset), ["train"]).images.keys)
    tested = select_samples(str(again), ["test"]).images.keys
    assert learnt & set(tested)  # else the seed above shows nothing
    train.run(train_config(tmp_path / "parent", dataset, ONE_STEP))
    child = train_config(tmp_path / "child", stranger, ONE_STEP, init=str(tmp_path / "parent"))
    train.run(replace(child, model=None, preprocessing=None))
    met, counts = {}, {}
    for run in ("parent", "child"):
        config = evaluate_config(tmp_path / f"test-{run}", again, tmp_path / run, splits=["test"])
        details = evaluate.run(config).details
        met[run], counts[run] = details["met_test_images"], details["met_pictures"]
    assert met["parent"]["training"] is True and met["parent"]["parents"] is False
    assert met["child"]["training"] is False and met["child"]["parents"] is True
    copies = len(learnt & set(tested))
    nothing = {"training": 0, "validation": 0, "parents": 0, "teacher": 0}
    assert counts["parent"] == nothing | {"training": copies}
    assert counts["child"] == nothing | {"parents": copies}
    printed = capsys.readouterr().err
    assert "'child' started from weights that learnt from images that it is tested on" in printed
    assert f"they are {copies} of its {len(tested)} images" in printed
    assert "cannot be known" not in printed
    weights = [path.read_bytes() for path in tmp_path.rglob("*.safetensors")]
    assert not any(re.search(rb"(?<!max_)pixels", each) for each in weights)


def test_copies_in_official_splits_are_said_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = tmp_path / "source"
    for folder in ("train", "validation"):
        publish_images(source / folder, images=4, seed=len(folder))
    shutil.copy(source / "train" / "image_001.png", source / "validation" / "image_001.png")
    config = PackConfig(
        "image_folder", str(source), str(tmp_path / "packed"), workers=1,
        image=ImageConfig(height=32, width=32), splits=SplitConfig(official=True),
    )  # fmt: skip
    pack.run(config)
    train.run(parse_config("train", words_of(tmp_path / "out", *2 * [tmp_path / "packed"])))
    printed = capsys.readouterr().err
    assert "validation: 1 of its 4 images are copies of images that are learnt from" in printed


def test_weights_that_have_met_the_validation_images_are_announced(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Once as images that init learnt from, in another packing; once not at all."""
    train.run(train_config(tmp_path / "parent", dataset, ONE_STEP))
    again = pack_again(dataset, "again-parent", side=48)
    told = {}
    for splits in ("train", "validation"):
        config = train_config(
            tmp_path / splits, dataset, ONE_STEP, init=str(tmp_path / "parent"), model=None,
            data={"splits": ["test"]}, validation=ValidationConfig(str(again), splits=[splits]),
        )  # fmt: skip
        capsys.readouterr()
        train.run(config)
        told[splits] = "parent learnt from images of the validation set" in capsys.readouterr().err
    assert told == {"train": True, "validation": False}


def test_of_weights_copied_out_of_their_run_it_is_not_known_what_they_met(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Neither of the copy, nor of the parents of a network that starts from it."""
    again = pack_again(dataset, "copied-elsewhere", side=16, seed=3)
    stranger = make_packed_dataset(tmp_path, name="stranger", seed=8)
    train.run(train_config(tmp_path / "parent", dataset, ONE_STEP))
    copy = tmp_path / "copies" / "model.safetensors"
    copy.parent.mkdir()
    shutil.copy(tmp_path / "parent" / "best.safetensors", copy)
    child = train_config(
        tmp_path / "child", stranger, ONE_STEP, init=str(copy),
        validation=ValidationConfig(str(stranger), splits=["validation"]),
    )  # fmt: skip
    capsys.readouterr()
    train.run(replace(child, model=None, preprocessing=None))
    line = "pictures.parquet is not beside the weights: whether {} images were met in another"
    assert line.format("validation") in capsys.readouterr().err
    told = {}
    for weights in (copy, tmp_path / "child"):
        config = evaluate_config(tmp_path / f"test-{weights.stem}", again, weights)
        doctor.run(
            DoctorConfig(
                stage="evaluate",
                settings=[f"--output={config.output}", f"--dataset={again}",
                          f"--weights={weights}", "--device=cpu"],
            )
        )  # fmt: skip
        examined = capsys.readouterr().out
        told[weights.stem] = evaluate.run(config).details
        said = capsys.readouterr().err
        wanted = line.format("test") if weights == copy else "does not hold all that its parents"
        assert said.count("cannot be known") == 1 and wanted in said and wanted in examined
    apart = {"validation": False, "parents": False, "teacher": False}
    assert told["model"]["met_test_images"] == {"training": None, **apart}
    assert set(told["model"]["met_pictures"].values()) == {None}
    assert told["child"]["met_test_images"]["parents"] is None
    assert told["child"]["met_test_images"]["training"] is False
    shutil.copy(tmp_path / "parent" / "pictures.parquet", copy.parent)
    config = evaluate_config(tmp_path / f"test-{copy.stem}", again, copy)
    assert evaluate.run(config).details["met_test_images"] == {"training": True, **apart}
    (copy.parent / "pictures.parquet").unlink()
    assert evaluate.run(config).details["met_test_images"] == {"training": True, **apart}
    capsys.readouterr()
    same = evaluate_config(tmp_path / "same", dataset, copy, splits=["test"])
    assert evaluate.run(same).details["met_test_images"]["training"] is False
    assert "cannot be known" not in capsys.readouterr().err
