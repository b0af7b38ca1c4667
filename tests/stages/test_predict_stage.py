"""``nakt predict`` in one process: what evaluate says, of images as they are; and bad images."""

import csv
import errno
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from nakt_dist.cli import main
from nakt_dist.config import ImageConfig, PackConfig
from nakt_dist.config.evaluating import OperatingPointConfig
from nakt_dist.config.predicting import GivenImageConfig
from nakt_dist.errors import CheckpointError, ConfigurationError, DatasetError, NaktError
from nakt_dist.imaging.palette import class_palette
from nakt_dist.loading.samples import describe_images
from nakt_dist.predicting import mask_answers
from nakt_dist.records.finding_results import ClassificationResult
from nakt_dist.records.run_record import read_record
from nakt_dist.runtime.files import naming
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.stages import evaluate, pack, predict, teach
from nakt_dist.transfer.classes import ONE_TARGET
from tests.datasets import (
    CLASSES,
    make_chest_dataset,
    make_class_dataset,
    make_classifier,
    make_packed_dataset,
    make_weights,
    publish_images,
)
from tests.recipes import evaluate_config, file_hashes, predict_config, teach_config
from tests.unit.dicom_files import PATIENT, RAMP, dataset_of, save

ALL = ["masks", "network_masks", "probabilities", "network_probabilities", "overlays"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", seed=7)


def table(output: Path, key: str = "name") -> dict[str, dict[str, Any]]:
    name = "predicted" if key == "name" else "predictions"
    return {row[key]: row for row in pq.read_table(output / f"{name}.parquet").to_pylist()}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


# ------------------------------------------------------------------- as evaluate and teach


def test_masks_are_those_that_evaluate_counts_and_probabilities_those_that_teach_stores(
    tmp_path: Path, weights: Path
) -> None:
    source = publish_images(tmp_path / "published", images=6, height=70, width=50)
    image = ImageConfig(height=32, width=40, encoding="jpg", fit="pad", jpeg_quality=60)
    dataset = tmp_path / "packed"
    pack.run(PackConfig("image_folder", str(source), str(dataset), image=image, workers=1))
    evaluate.run(evaluate_config(tmp_path / "scores", dataset, weights, batch_size=1))
    teach.run(teach_config(tmp_path / "pseudo", dataset, weights, batch_size=1))

    config = predict_config(
        tmp_path / "out", weights, source, as_packed=str(dataset), files=ALL, leave_out=["*_mask*"]
    )
    record = predict.run(config)

    assert record.counts == {"images": 6, "predicted": 6, "set_aside": 0, "left_out": 6}
    shards, found = IndexedShards(dataset), table(tmp_path / "out")
    scores, taught = (
        table(tmp_path / "scores", "key"),
        PseudoLabels(str(tmp_path / "pseudo"), shards),
    )
    for number, (key, name) in enumerate(
        zip(shards.keys, shards.column("source").to_pylist(), strict=True)
    ):
        stem = name.removesuffix(".png")
        small = pixels(tmp_path / "out" / "network_masks" / name)
        assert (
            found[stem]["predicted_pixels"] == scores[key]["predicted_pixels"] == (small > 0).sum()
        )
        target = pixels(io.BytesIO(shards.mask_bytes(number))) > 0
        overlap = 2 * (target & (small > 0)).sum() / (target.sum() + (small > 0).sum())
        assert overlap == scores[key]["dice"]
        soft = pixels(io.BytesIO(taught.soft_mask_bytes(number)))
        assert (soft == pixels(tmp_path / "out" / "network_probabilities" / name)).all()
        assert found[stem]["entropy"] == taught.column("entropy")[number].as_py()
        mask, levels = (
            pixels(tmp_path / "out" / kind / name) for kind in ("masks", "probabilities")
        )
        assert mask.shape == levels.shape == (70, 50)
        assert ((levels > 128) <= (mask > 0)).all() and ((levels < 127) <= (mask == 0)).all()
        assert found[stem]["mask_pixels"] == (mask == 255).sum()
        assert pixels(tmp_path / "out" / "overlays" / name).shape == (70, 50, 3)
    assert read_record(tmp_path / "out" / "record.json").inputs["image"]["jpeg_quality"] == 60


def test_a_network_says_how_its_images_were_packed(tmp_path: Path, capfd: Any) -> None:
    dataset = make_packed_dataset(tmp_path, height=20, width=28, encoding="jpg")
    learnt = describe_images(IndexedShards(dataset).manifest)
    lineage = json.dumps({"task": "segmentation", "trained_on": learnt})
    weights = make_weights(tmp_path / "w.safetensors", lineage=lineage)

    config = predict_config(
        tmp_path / "out", weights, tmp_path / "squares-published", image=GivenImageConfig()
    )
    record = predict.run(config)

    assert record.inputs["image"] == learnt["image"]
    said = capfd.readouterr().err
    assert "how its images were made" not in said
    assert "look like masks of others" in said and """--leave_out '["*_mask.png"]'""" in said
    asked = replace(
        config, output=str(tmp_path / "b"), image=GivenImageConfig(height=16, fit="pad")
    )
    assert predict.run(asked).inputs["image"] == {**learnt["image"], "height": 16, "fit": "pad"}


def test_what_a_file_says_of_its_images_is_checked(tmp_path: Path, weights: Path) -> None:
    lineage = json.dumps({"trained_on": {"image": {"fit": "bend"}}})
    forged = make_weights(tmp_path / "w.safetensors", lineage=lineage)
    with pytest.raises(CheckpointError, match="fit"):
        predict.run(predict_config(tmp_path / "out", forged, publish_images(tmp_path / "in")))
    with pytest.raises(DatasetError, match="manifest"):
        predict.run(predict_config(tmp_path / "out", weights, tmp_path / "in", as_packed="no"))
    assert not (tmp_path / "out").exists()


def test_probabilities_of_findings_are_those_of_evaluate_with_its_operating_points(
    tmp_path: Path,
) -> None:
    dataset = make_chest_dataset(tmp_path, images=24)
    names = ["Nodule", "Pleural Effusion", "Hernia"]
    weights = make_classifier(tmp_path / "net.safetensors", names)
    both = {split: tmp_path / split for split in ("train", "test")}
    evaluate.run(evaluate_config(both["train"], dataset, weights, splits=["train"], batch_size=1))
    points = OperatingPointConfig(str(both["train"]))
    tested = evaluate_config(both["test"], dataset, weights, splits=["test"], batch_size=1)
    evaluate.run(replace(tested, operating_points=points))

    source = tmp_path / "chest-published" / "images"
    config = predict_config(
        tmp_path / "out",
        weights,
        source,
        as_packed=str(dataset),
        operating_points=str(both["test"]),
    )
    predict.run(config)

    found, scores = table(tmp_path / "out"), table(both["test"], "key")
    shards = IndexedShards(dataset, ["test"])
    for key, path in zip(shards.keys, shards.column("source").to_pylist(), strict=True):
        row = found[Path(path).stem]
        for name in names[:2]:
            assert row[f"probability {name}"] == scores[key][f"probability {name}"]
    record = read_record(both["test"] / "record.json")
    (first, *_) = ClassificationResult.from_record(record).operating_points.findings
    column = np.array([row[f"probability {first.name}"] for row in found.values()])
    scaled = 1 / (1 + np.exp(-np.log(column / (1 - column)) / first.temperature))
    assert [row[f"scaled {first.name}"] for row in found.values()] == pytest.approx(scaled)
    for point in first.points:
        called = [row[f"{point.rule} {first.name}"] for row in found.values()]
        assert called == (column >= point.threshold).tolist()
    answers = np.array([[row[f"probability {name}"] for name in names] for row in found.values()])
    bits = -(answers * np.log2(answers) + (1 - answers) * np.log2(1 - answers)).mean(1)
    assert [row["entropy"] for row in found.values()] == pytest.approx(bits)
    assert len(rows_of(tmp_path / "out" / "predicted.csv")) == 24
    other = make_classifier(tmp_path / "other.safetensors", names, seed=1)
    with pytest.raises(DatasetError, match=r"another network or input \(weights_sha256\)"):
        predict.run(replace(config, weights=str(other), output=str(tmp_path / "b")))
    with pytest.raises(DatasetError, match="chose no thresholds"):
        wrong = replace(config, operating_points=str(both["train"]), output=str(tmp_path / "b"))
        predict.run(wrong)
    with pytest.raises(DatasetError, match="are Nodule, Pleural Effusion, Hernia, and here they"):
        renamed = [*names[:2], "Fracture"]
        predict.run(replace(config, labels=renamed, output=str(tmp_path / "b")))
    with pytest.raises(DatasetError, match="saw images of 32 × 32 pixels, and here it would see"):
        larger = GivenImageConfig(height=48, width=48)
        predict.run(replace(config, image=larger, output=str(tmp_path / "b")))
    with pytest.raises(ConfigurationError, match="files is for segmentation"):
        predict.run(replace(config, files=["masks"], output=str(tmp_path / "b")))


def test_masks_of_several_classes_are_indices_with_a_palette_that_pack_reads_again(
    tmp_path: Path,
) -> None:
    dataset = make_class_dataset(tmp_path)
    names = ("square", "background", "disc")  # outputs in another order
    weights = make_weights(tmp_path / "w.safetensors", classes=names, seed=3)
    evaluate.run(evaluate_config(tmp_path / "scores", dataset, weights, batch_size=1))
    config = predict_config(
        tmp_path / "out", weights, tmp_path / "shapes-published", as_packed=str(dataset),
        files=["masks", "network_masks", "probabilities"], leave_out=["*_mask.png"],
        probability_bits=16,
    )  # fmt: skip
    record = predict.run(config)

    classes = record.details["classes"]
    assert record.details["colours"]["square"] == "#56b4e9"
    assert classes == ["background", "square", "disc"] and set(classes) == set(CLASSES)
    for name, row in table(tmp_path / "out").items():
        image = Image.open(tmp_path / "out" / "masks" / f"{name}.png")
        assert image.mode == "P"
        assert (np.array(image.getpalette()).reshape(-1, 3)[:3] == class_palette()[:3]).all()
        mask = np.asarray(image)
        assert (mask == pixels(tmp_path / "out" / "network_masks" / f"{name}.png")).all()
        planes = [
            pixels(tmp_path / "out" / "probabilities" / folder / f"{name}.png").astype(int)
            for folder in ("1-square", "2-disc")
        ]
        planes = np.stack([65535 - sum(planes), *planes])
        best = np.take_along_axis(planes, mask[None].astype(int), 0)[0]
        assert (best >= planes.max(0) - 2).all()
        for number, each in enumerate(classes[1:], start=1):
            assert row[f"mask_pixels:{each}"] == (mask == number).sum()
        assert row["mask_pixels"] == (mask > 0).sum()


# --------------------------------------------------------------------------- bad images


def test_bad_images_are_set_aside_with_their_reasons_and_the_others_keep_their_paths(
    tmp_path: Path, weights: Path, capfd: Any
) -> None:
    root = publish_images(tmp_path / "in", images=2, with_masks=False)
    deep = root / "a b" / "ü\n'=1"
    deep.mkdir(parents=True)
    good = (root / "image_000.png").read_bytes()
    (deep / "x.y.png").write_bytes(good)
    (root / os.fsdecode(b"\xff.png")).write_bytes(good)
    (root / ("n" * 240 + ".png")).write_bytes(good)
    (root / "=A1.png").write_bytes(good)
    (root / ".hidden.png").write_bytes(good)
    (root / "notes.txt").write_text("none")
    (root / "scan.MILLER").write_text("none")
    (root / "image_000.bmp").write_bytes(good)  # the same output
    (root / "a b.jpg").write_bytes(good)
    (root / "a b.png").mkdir()
    (root / "a b.png" / "in the way.png").write_bytes(good)
    (root / "text.png").write_text("no picture")
    (root / "cut.png").write_bytes(good[:200])
    (root / "empty.png").touch()
    os.mkfifo(root / "pipe.png")
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "out.png").symlink_to(weights)
    (root / "gone.png").symlink_to(root / "nowhere.png")
    Image.new("L", (2_000, 2_000)).save(root / "bomb.png")
    image = GivenImageConfig(32, 32, max_pixels=1_000_000)

    config = predict_config(tmp_path / "out", weights, root, batch_size=4, image=image)
    record = predict.run(config)

    aside = {row["source"]: row["reason"] for row in rows_of(tmp_path / "out" / "set_aside.csv")}
    assert aside == {
        "a b.png/in the way.png": "same_output_name", "image_000.png": "same_output_name",
        "text.png": "not_an_image", "cut.png": "truncated_image", "empty.png": "empty_file",
        "pipe.png": "not_a_file", "out.png": "link_outside_root", "gone.png": "broken_link",
        "bomb.png": "too_many_pixels",
    }  # fmt: skip
    sources = {row["name"]: row["source"] for row in rows_of(tmp_path / "out" / "sources.csv")}
    masks = tmp_path / "out" / "masks"
    assert {str(Path(f"{name}.png")) for name in sources} == {
        str(path.relative_to(masks)) for path in masks.rglob("*") if path.is_file()
    }
    assert sources["a b/ü\n'=1/x.y"] == "a b/ü\n'=1/x.y.png"
    assert sources["image_000"] == "image_000.bmp"
    assert sources["./=A1"] == "./=A1.png"  # no formula, and the same path
    assert "./=A1" in {row["name"] for row in rows_of(tmp_path / "out" / "predicted.csv")}
    assert record.counts == {"images": 16, "predicted": 7, "set_aside": 9, "left_out": 0}
    assert record.details["ignored_files"] == {
        ".txt": 1, "hidden": 1, "link to a folder inside the dataset": 1, "other suffixes": 1
    }  # fmt: skip
    said = capfd.readouterr().err
    assert "7 of 16 images; 9 set aside (broken_link 1, empty_file 1," in said
    assert "cut.png" not in said
    alone = predict_config(tmp_path / "alone", weights, root / "image_001.png", batch_size=4)
    predict.run(alone)
    (only,) = table(tmp_path / "alone").values()
    assert only["entropy"] == pytest.approx(table(tmp_path / "out")["image_001"]["entropy"])


def test_lists_name_images_from_their_own_folder(tmp_path: Path, weights: Path) -> None:
    root = publish_images(tmp_path / "in", images=3, with_masks=False)
    (root / "some.csv").write_text("id;path\n1;image_001.png\n2;absent.png\n3;image_001.png\n")
    (tmp_path / "lists").mkdir()
    text = tmp_path / "lists" / "some.txt"
    text.write_text(f"\ufeff../in/image_002.png\n\n{root / 'image_000.png'}\n")

    predict.run(predict_config(tmp_path / "a", weights, root / "some.csv"))
    predict.run(predict_config(tmp_path / "b", weights, text))

    assert list(table(tmp_path / "a")) == ["image_001"]
    aside = [(row["source"], row["reason"]) for row in rows_of(tmp_path / "a" / "set_aside.csv")]
    assert aside == [("absent.png", "missing_image"), ("image_001.png", "same_output_name")]
    assert list(table(tmp_path / "b")) == ["image_000", "image_002"]
    with pytest.raises(DatasetError, match="column"):
        predict.run(predict_config(tmp_path / "c", weights, root / "some.csv", column="file"))


def test_of_files_with_several_pictures_it_is_said_that_the_first_alone_is_read(
    tmp_path: Path, weights: Path, capfd: Any
) -> None:
    root = publish_images(tmp_path / "in", images=2, with_masks=False)
    pages = [Image.open(root / f"image_00{n}.png").convert("L") for n in (0, 1)]
    pages[0].save(root / "stack.tif", save_all=True, append_images=pages[1:])
    record = predict.run(predict_config(tmp_path / "out", weights, root))
    assert record.counts["predicted"] == 3 and record.counts["first_of_several"] == 1
    assert "3 of 3 images; of 1 the first picture alone, of several" in capfd.readouterr().err


def test_nothing_usable_is_an_error_that_says_where_the_reasons_are(
    tmp_path: Path, weights: Path, capfd: Any
) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DatasetError, match=r"names no image \(found: nothing\)"):
        predict.run(predict_config(tmp_path / "out", weights, tmp_path / "in"))
    (tmp_path / "in" / "a.png").write_text("none")
    words = [str(weights), str(tmp_path / "in"), f"--output={tmp_path / 'out'}", "--device=cpu"]
    for _ in range(2):  # also where it was complete already
        assert main(["predict", *words]) == 1
        assert "set_aside.csv says why of each" in capfd.readouterr().err
    with pytest.raises(DatasetError, match="nothing is there"):
        predict.run(predict_config(tmp_path / "out", weights, tmp_path / "absent"))
    with pytest.raises(ConfigurationError, match="lies in the folder of images"):
        predict.run(predict_config(tmp_path / "in" / "out", weights, tmp_path / "in"))


def test_a_finished_prediction_is_left_alone_and_another_is_refused(
    tmp_path: Path, weights: Path
) -> None:
    root = publish_images(tmp_path / "in", images=2, with_masks=False)
    config = predict_config(tmp_path / "out", weights, root)
    first, before = predict.run(config), file_hashes(tmp_path / "out")
    assert predict.run(config).inputs == first.inputs
    for changed, named in (
        ({"threshold": 0.4}, "threshold: found 0.5"), ({"files": ["overlays"]}, "files"),
    ):  # fmt: skip
        with pytest.raises(DatasetError, match=f"another prediction.*{named}"):
            predict.run(replace(config, **changed))
    (root / "image_001.png").write_bytes((root / "image_000.png").read_bytes())
    with pytest.raises(DatasetError, match="images: differs"):
        predict.run(config)
    assert file_hashes(tmp_path / "out") == before
    with pytest.raises(DatasetError, match="predict has written"):
        evaluate.run(evaluate_config(tmp_path / "out", make_packed_dataset(tmp_path), weights))


def test_the_order_of_classes_belongs_to_what_decides_a_prediction(tmp_path: Path) -> None:
    publish_images(tmp_path / "images")
    weights = make_weights(tmp_path / "two.safetensors", seed=3, classes=ONE_TARGET)
    config = predict_config(tmp_path / "out", weights, tmp_path / "images")
    predict.run(config)
    with pytest.raises(DatasetError, match="already holds another prediction"):
        predict.run(replace(config, classes=["target", "background"]))


def test_more_classes_than_a_mask_has_indices_are_refused(tmp_path: Path) -> None:
    root = publish_images(tmp_path / "in", images=1, with_masks=False)
    for count in (255, 256):
        classes = ["background", *(f"class {number}" for number in range(1, count))]
        weights = make_weights(tmp_path / f"{count}.safetensors", classes=classes)
        config = predict_config(tmp_path / "out", weights, root)
        if count == 255:
            predict.plan(config, predict.Opening())
            continue
        with pytest.raises(ConfigurationError, match="256 classes apart, expected at most 255"):
            predict.plan(config, predict.Opening())


def test_outputs_that_are_no_numbers_are_an_error(tmp_path: Path, weights: Path) -> None:
    root = publish_images(tmp_path / "in", images=1, with_masks=False)
    job = predict.plan(predict_config(tmp_path / "out", weights, root), predict.Opening())
    answer = job.answers.ask(torch.full((1, 1, 384, 384), torch.nan))[0]
    with pytest.raises(CheckpointError, match="training has diverged"):
        job.answers.row(job.listing.images[0], (32, 32), answer, tmp_path)


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS])
def test_a_fault_of_the_output_names_its_folder_and_no_image(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    def fail(path: Path, data: bytes, staging: Path) -> None:
        with naming(path):
            raise OSError(fault, os.strerror(fault))

    root = publish_images(tmp_path / "in", images=1, with_masks=False)
    monkeypatch.setattr(mask_answers, "write_bytes", fail)
    with pytest.raises(NaktError, match=rf"out: the files of .*: {os.strerror(fault)}\.") as caught:
        predict.run(predict_config(tmp_path / "out", weights, root))
    assert "image_000" not in str(caught.value)


# -------------------------------------------------------------------------------- DICOM


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series, the numbers of the first against the order of its names, and odd files."""
    folder = tmp_path_factory.mktemp("study") / "DOE_JANE"
    folder.mkdir()
    values = RAMP.repeat(4, 0).repeat(4, 1)
    for name, series, number, photometric in (
        ("DOE_1.dcm", "1.2.7", 2, "MONOCHROME2"), ("DOE_2", "1.2.7", 1, "MONOCHROME1"),
        ("DOE_3.dcm", "1.2.8", 1, "MONOCHROME2"),
    ):  # fmt: skip
        stored = 4095 - values if photometric == "MONOCHROME1" else values
        film = dataset_of(
            stored, photometric=photometric, SeriesInstanceUID=series, InstanceNumber=number
        )
        film.SOPInstanceUID = f"{series}.{number}"
        save(folder / name, film)
    many = dataset_of(np.concatenate([values, values]), SeriesInstanceUID="1.2.8")
    many.Rows, many.NumberOfFrames = 32, 2
    save(folder / "DOE_4.dcm", many)
    return folder


def test_a_study_comes_in_order_and_no_name_of_an_output_tells_whose_it_is(
    study: Path, tmp_path: Path, weights: Path, capfd: Any
) -> None:
    record = predict.run(
        predict_config(tmp_path / "out", weights, study, files=["masks", "overlays"])
    )

    found = table(tmp_path / "out")
    assert list(found) == ["series-001/0001", "series-001/0002", "series-002/0001"]
    assert [(row["series"], row["slice"]) for row in found.values()] == [(1, 1), (1, 2), (2, 1)]
    sources = [row["source"] for row in rows_of(tmp_path / "out" / "sources.csv")]
    assert sources == ["DOE_2", "DOE_1.dcm", "DOE_3.dcm"]
    (aside,) = rows_of(tmp_path / "out" / "set_aside.csv")
    assert (aside["source"], aside["reason"]) == ("DOE_4.dcm", "several_frames")
    masks = [pixels(tmp_path / "out" / "overlays" / f"{name}.png") for name in found]
    assert (masks[0] == masks[1]).all()  # MONOCHROME1 of the same film
    telling = {"sources.csv", "set_aside.csv"}
    for path in (tmp_path / "out").rglob("*"):
        assert "DOE" not in path.name and "1.2.7" not in path.name
        if path.is_file() and path.name not in telling | {"config.yaml", "record.json"}:
            content = path.read_bytes()
            assert b"DOE_" not in content and PATIENT.encode() not in content
    said = capfd.readouterr().err
    assert "DOE" not in said and "3 of 4 images" in said
    assert "DOE_1" not in json.dumps(record.details)


def test_masks_of_dicom_files_are_segmentations_in_their_study_on_request(
    study: Path, tmp_path: Path, weights: Path
) -> None:
    highdicom = pytest.importorskip("highdicom")
    folder = shutil.copytree(study, tmp_path / "in")
    film = dataset_of(
        RAMP, SeriesInstanceUID="1.2.9", StudyInstanceUID="1.2", StudyID="7", Modality="US",
        StudyTime="101112", PatientSex="F", AccessionNumber="A1", ReferringPhysicianName="",
        InstanceNumber=1, SeriesNumber=1,
    )  # fmt: skip
    save(folder / "DOE_5.dcm", film)
    publish_images(folder / "plain", images=1, with_masks=False)

    predict.run(predict_config(tmp_path / "out", weights, folder, files=["masks", "segmentations"]))

    told = {name: row["segmentation"] for name, row in table(tmp_path / "out").items()}
    lacking = dict.fromkeys(
        ["series-001/0001", "series-001/0002", "series-002/0001"], "no_dicom_segmentation"
    )
    assert told == {"plain/image_000": None, **lacking, "series-003/0001": "written"}
    (path,) = (tmp_path / "out" / "segmentations").rglob("*.dcm")
    read = highdicom.seg.segread(path)
    assert read.StudyInstanceUID == "1.2" and read.SeriesInstanceUID != "1.2.9"
    mask = pixels(tmp_path / "out" / "masks" / "series-003" / "0001.png")
    assert (read.pixel_array.reshape(8, 8) * 255 == mask).all()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("uids", ["1.2.7/1.2.7.1", "1.2.7/1.2.7.2", "1.2.8/1.2.8.1"]),
        ("paths", ["DOE_2", "DOE_1", "DOE_3"]),
        ("numbers", ["000001", "000002", "000003"]),
    ],
)
def test_other_names_are_given_where_they_are_asked_for(
    study: Path, tmp_path: Path, weights: Path, names: str, expected: list[str]
) -> None:
    predict.run(predict_config(tmp_path / "out", weights, study, names=names))
    assert list(table(tmp_path / "out")) == expected
