"""The procedural datasets: layouts, repeatability, markers and what the images hold."""

import csv
import dataclasses
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.phantoms import PHANTOM_KINDS, dataset, write_phantom_dataset
from nakt_dist.phantoms.breast import draw_breast
from nakt_dist.phantoms.layouts import voc_palette
from nakt_dist.phantoms.thyroid import draw_thyroid

KINDS = ("breast_ultrasound", "thyroid_ultrasound", "dermoscopy", "photographs")
IMAGE_SUFFIXES = {".png", ".PNG", ".jpg"}
SIZE = 48


def tree(root: Path) -> dict[str, str]:
    """Maps each file under the root to a digest of its bytes."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """One dataset of 40 images per kind, with its summary."""
    root = tmp_path_factory.mktemp("phantoms")
    return {kind: write_phantom_dataset(kind, root / kind, 40, SIZE, seed=3) for kind in KINDS}


@pytest.fixture(scope="module")
def breast_drawings():
    return [draw_breast(0, index, 32) for index in range(700)]


def test_registry_names_every_kind():
    chest = ("chest_chexpert", "chest_mimic", "chest_chestxray14")  # test_phantoms_chest.py
    assert tuple(PHANTOM_KINDS) == (*KINDS, *chest)
    assert all(kind.name == name for name, kind in PHANTOM_KINDS.items())
    assert len({kind.layout for kind in PHANTOM_KINDS.values()}) == len(PHANTOM_KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_summary_and_marker_agree(datasets, kind):
    summary = datasets[kind]
    assert (summary.kind, summary.layout) == (kind, PHANTOM_KINDS[kind].layout)
    assert summary.images == 40
    assert 0 < summary.with_target < 40
    marker = json.loads((summary.root / "PHANTOM.json").read_text())
    wanted = {"kind": kind, "count": 40, "image_size": SIZE, "seed": 3, "generator_version": 1}
    assert wanted.items() <= marker.items()
    assert "None shows a real patient" in marker["notice"]
    present = {path.name for path in summary.root.iterdir()}
    assert present == {"PHANTOM.json", *PHANTOM_KINDS[kind].entries}


@pytest.mark.parametrize("kind", KINDS)
def test_same_settings_give_the_same_bytes_and_other_seeds_others(datasets, tmp_path, kind):
    again = write_phantom_dataset(kind, tmp_path / "again", 40, SIZE, seed=3)
    assert again.with_target == datasets[kind].with_target
    assert tree(again.root) == tree(datasets[kind].root)
    other = tree(write_phantom_dataset(kind, tmp_path / "other", 4, SIZE, seed=4).root)
    same = tree(datasets[kind].root)
    images = [name for name in other if Path(name).suffix == ".jpg" or "image/" in name]
    assert all(other[name] != same[name] for name in images)


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_dataset_is_the_beginning_of_a_larger_one(datasets, tmp_path, kind):
    small_root = write_phantom_dataset(kind, tmp_path, 13, SIZE, seed=3).root
    small, large = tree(small_root), tree(datasets[kind].root)
    for name, digest in small.items():
        if Path(name).suffix in IMAGE_SUFFIXES:
            assert large[name] == digest
        elif Path(name).suffix in {".csv", ".txt"}:
            whole = (datasets[kind].root / name).read_text()
            assert whole.startswith((small_root / name).read_text())


def test_breast_layout(datasets):
    folder = datasets["breast_ultrasound"].root / "Dataset_BUSI_with_GT"
    assert {path.name for path in folder.iterdir()} == {"benign", "malignant", "normal"}
    total, with_lesion = 0, 0
    for finding in ("benign", "malignant", "normal"):
        images = [path for path in (folder / finding).iterdir() if "_mask" not in path.name]
        numbers = range(1, len(images) + 1)
        assert {path.name for path in images} == {f"{finding} ({n}).png" for n in numbers}
        for path in images:
            mask = pixels(path.with_name(f"{path.stem}_mask.png"))
            image = pixels(path)
            assert image.shape == (*mask.shape, 3) and mask.dtype == bool
            assert (image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all()
            assert mask.any() == (finding != "normal")
            assert 0.75 < image.shape[1] / image.shape[0] < 1.37
            with_lesion += mask.any()
        total += len(images)
    assert (total, with_lesion) == (40, datasets["breast_ultrasound"].with_target)


def test_breast_shares(breast_drawings):
    shares = Counter(drawing.finding for drawing in breast_drawings)
    assert 0.57 < shares["benign"] / 700 < 0.67
    assert 0.22 < shares["malignant"] / 700 < 0.32
    assert 0.08 < shares["normal"] / 700 < 0.14
    several = [drawing for drawing in breast_drawings if len(drawing.masks) > 1]
    assert 0.02 < len(several) / 700 < 0.07
    assert {len(drawing.masks) for drawing in several} == {2, 3}
    for drawing in several:
        assert not np.all(drawing.masks, axis=0).any()
    lesions = [mask for drawing in breast_drawings for mask in drawing.masks if mask.any()]
    assert 0.03 < np.mean([mask.mean() for mask in lesions]) < 0.12


def test_further_lesions_are_further_mask_files(breast_drawings, tmp_path):
    index = next(i for i, drawing in enumerate(breast_drawings) if len(drawing.masks) == 2)
    root = write_phantom_dataset("breast_ultrasound", tmp_path, index + 1, 32).root
    finding = breast_drawings[index].finding
    number = Counter(drawing.finding for drawing in breast_drawings[: index + 1])[finding]
    folder = root / "Dataset_BUSI_with_GT" / finding
    stored = [pixels(folder / f"{finding} ({number})_mask{k}.png") for k in ("", "_1")]
    assert np.array_equal(stored, breast_drawings[index].masks)
    assert not (folder / f"{finding} ({number})_mask_2.png").exists()


@pytest.mark.parametrize("index", range(6))
def test_lesions_are_darker_than_what_surrounds_them(index):
    drawings = [draw_breast(index, place, 64) for place in range(12)]
    drawings = [drawing for drawing in drawings if drawing.masks[0].any()]
    inside = np.mean([drawing.grey[drawing.masks[0]].mean() for drawing in drawings])
    outside = np.mean([drawing.grey[~drawing.masks[0]].mean() for drawing in drawings])
    assert inside < 0.8 * outside


def test_thyroid_layout(datasets):
    summary = datasets["thyroid_ultrasound"]
    names = {f"{number}.PNG" for number in range(1, 41)}
    with_nodule = 0
    for folder in ("image", "mask"):
        assert {path.name for path in (summary.root / folder).iterdir()} == names
    for name in names:
        image, mask = (pixels(summary.root / folder / name) for folder in ("image", "mask"))
        assert image.shape == mask.shape and image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}
        with_nodule += mask.any()
    assert with_nodule == summary.with_target


def test_thyroid_share_without_nodule():
    empty = sum(not draw_thyroid(0, index, 32).mask.any() for index in range(500))
    assert 0.11 < empty / 500 < 0.20


def test_dermoscopy_layout(datasets):
    summary = datasets["dermoscopy"]
    names = [f"ISIC_{number:07d}" for number in range(40)]
    images = summary.root / "ISIC_2019_Training_Input"
    assert {path.name for path in images.iterdir()} == {f"{name}.jpg" for name in names}
    with (summary.root / "ISIC_2019_Training_GroundTruth.csv").open(newline="") as handle:
        labels = list(csv.reader(handle))
    assert ",".join(labels[0]) == "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"
    assert [row[0] for row in labels[1:]] == names
    assert all(sorted(row[1:]) == ["0.0"] * 8 + ["1.0"] for row in labels[1:])
    with (summary.root / "ISIC_2019_Training_Metadata.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["image", "age_approx", "anatom_site_general", "lesion_id", "sex"]
    assert [row["image"] for row in rows] == names
    assert {row["sex"] for row in rows} <= {"female", "male", ""}
    assert 20 < len({row["lesion_id"] for row in rows}) < 40
    assert all(pixels(path).shape[2] == 3 for path in images.iterdir())


def test_images_of_one_lesion_share_diagnosis_and_person(datasets):
    root = datasets["dermoscopy"].root
    with (root / "ISIC_2019_Training_GroundTruth.csv").open(newline="") as handle:
        diagnosis = {row[0]: row[1:] for row in csv.reader(handle)}
    told: dict[str, tuple] = {}
    with (root / "ISIC_2019_Training_Metadata.csv").open(newline="") as handle:
        for row in csv.DictReader(handle):
            facts = (diagnosis[row["image"]], row["age_approx"], row["sex"])
            assert told.setdefault(row["lesion_id"], facts) == facts


def test_photographs_layout(datasets):
    year = datasets["photographs"].root / "VOCdevkit" / "VOC2012"
    names = [f"2012_{number:06d}" for number in range(1, 41)]
    assert {path.stem for path in (year / "JPEGImages").iterdir()} == set(names)
    segmented = {path.stem for path in (year / "SegmentationClass").iterdir()}
    assert len(segmented) == 20
    for task, wanted in (("Main", set(names)), ("Segmentation", segmented)):
        lists = {
            split: (year / "ImageSets" / task / f"{split}.txt").read_text().split()
            for split in ("train", "val", "trainval")
        }
        assert set(lists["trainval"]) == wanted == {*lists["train"], *lists["val"]}
        assert lists["train"] and lists["val"]
        assert not set(lists["train"]) & set(lists["val"])
    for name in segmented:
        with Image.open(year / "SegmentationClass" / f"{name}.png") as image:
            assert image.mode == "P" and image.getpalette() == voc_palette()
            classes = np.asarray(image)
        assert classes.shape == pixels(year / "JPEGImages" / f"{name}.jpg").shape[:2]
        assert set(np.unique(classes)) <= {*range(21), 255}
        assert 0 < (classes == 255).mean() < 0.3


def test_objects_are_parted_by_void_borders(datasets):
    folder = datasets["photographs"].root / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    for path in folder.iterdir():
        classes = pixels(path).astype(int)
        for before, after in ((classes[1:], classes[:-1]), (classes[:, 1:], classes[:, :-1])):
            assert np.all((before == after) | (before == 255) | (after == 255))


def test_palette_is_that_of_voc():
    palette = np.reshape(voc_palette(), (256, 3))
    assert palette[0].tolist() == [0, 0, 0]
    assert palette[1].tolist() == [128, 0, 0]
    assert palette[15].tolist() == [192, 128, 128]
    assert palette[20].tolist() == [0, 64, 128]
    assert palette[255].tolist() == [224, 224, 192]


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_call_draws_nothing(datasets, kind):
    root = datasets[kind].root
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert write_phantom_dataset(kind, root, 40, SIZE, seed=3) == datasets[kind]
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_other_settings_are_refused_by_name(datasets):
    root = datasets["thyroid_ultrasound"].root
    with pytest.raises(DatasetError, match=r"count is 40 there and 41 here; seed is 3 there"):
        write_phantom_dataset("thyroid_ultrasound", root, 41, SIZE, seed=5)
    with pytest.raises(DatasetError, match="kind is 'thyroid_ultrasound' there"):
        write_phantom_dataset("dermoscopy", root, 40, SIZE, seed=3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_dataset_is_written_again(tmp_path, monkeypatch, kind):
    def draw_until_killed(seed, index, image_size):
        if index == 5:
            raise KeyboardInterrupt
        return PHANTOM_KINDS[kind].draw(seed, index, image_size)

    killed = dataclasses.replace(PHANTOM_KINDS[kind], draw=draw_until_killed)
    root = tmp_path / "data"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dataset, "PHANTOM_KINDS", {kind: killed})
        write_phantom_dataset(kind, root, 9, 32)
    assert (root / "PHANTOM.incomplete").exists() and not (root / "PHANTOM.json").exists()
    write_phantom_dataset(kind, root, 7, 32)
    assert not (root / "PHANTOM.incomplete").exists()
    assert tree(root) == tree(write_phantom_dataset(kind, tmp_path / "fresh", 7, 32).root)


def test_killed_between_the_markers_is_complete(tmp_path):
    summary = write_phantom_dataset("thyroid_ultrasound", tmp_path, 2, 32)
    (tmp_path / "PHANTOM.incomplete").write_text("{}")
    assert write_phantom_dataset("thyroid_ultrasound", tmp_path, 2, 32) == summary
    assert not (tmp_path / "PHANTOM.incomplete").exists()


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "precious.png").write_bytes(b"precious")
    with pytest.raises(DatasetError, match="'image', which is no part of a phantom dataset"):
        write_phantom_dataset("thyroid_ultrasound", tmp_path, 2, 32)
    (tmp_path / "PHANTOM.incomplete").write_text('{"kind": "photographs"}')
    with pytest.raises(DatasetError, match="'image'"):
        write_phantom_dataset("thyroid_ultrasound", tmp_path, 2, 32)
    assert (tmp_path / "image" / "precious.png").read_bytes() == b"precious"


def test_a_file_in_place_of_the_root_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="is a file"):
        write_phantom_dataset("photographs", tmp_path / "file", 2, 32)


def test_a_dataset_that_lost_its_images_is_damaged(tmp_path):
    write_phantom_dataset("thyroid_ultrasound", tmp_path, 1, 32)
    (tmp_path / "mask").rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="lacks mask"):
        write_phantom_dataset("thyroid_ultrasound", tmp_path, 1, 32)


@pytest.mark.parametrize("content", ["", "[1]", '{"kind": "photographs"}'])
def test_a_damaged_marker_is_a_dataset_error(tmp_path, content):
    (tmp_path / "PHANTOM.json").write_text(content)
    with pytest.raises(DatasetError):
        write_phantom_dataset("photographs", tmp_path, 2, 32)


def test_an_unknown_kind_names_the_nearest(tmp_path):
    with pytest.raises(ConfigurationError, match="did you mean 'dermoscopy'"):
        write_phantom_dataset("dermascopy", tmp_path, 2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"), [("count", 0), ("image_size", 31), ("image_size", 5000), ("seed", -1)]
)
def test_numbers_out_of_range_are_refused(tmp_path, name, value):
    with pytest.raises(ConfigurationError, match=f"{name} is {value}"):
        write_phantom_dataset("photographs", tmp_path, **{"count": 2, name: value})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image_size", [32, 129, 300])
def test_every_size_is_drawn(tmp_path, kind, image_size):
    summary = write_phantom_dataset(kind, tmp_path, 3, image_size, seed=2**64 - 1)
    paths = [path for path in summary.root.rglob("*") if path.suffix in IMAGE_SUFFIXES]
    for path in paths:
        with Image.open(path) as image:
            side = (image.width * image.height) ** 0.5
        assert 0.9 * image_size - 1 < side < 1.1 * image_size + 1
