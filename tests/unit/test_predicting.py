"""What predictions are made of: back to the image's size, colours, outlines, places in a series."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from nakt_dist.drawing.overlay import outlined
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.imaging.dicom_place import DicomPlace, read_place
from nakt_dist.imaging.palette import class_palette
from nakt_dist.imaging.resizing import resize_image, restore
from nakt_dist.predicting.listing import list_images
from tests.unit.dicom_files import RAMP, bytes_of, dataset_of, save


@pytest.mark.parametrize("fit", ["stretch", "pad", "centre_crop"])
@pytest.mark.parametrize("shape", [(100, 60), (33, 77), (64, 64), (129, 64)])
def test_what_was_resized_lies_where_it_was(fit: str, shape: tuple[int, int]) -> None:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = (2.0 * rows / shape[0] + columns / shape[1]) * 80
    small = resize_image(image.astype(np.uint8), (64, 64), fit).astype(np.float32)

    back = restore(small, shape, fit, outside=-1)

    seen = back >= 0
    assert back.shape == shape and back.dtype == np.float32
    assert np.abs(back - image)[seen].max() < 4
    if fit == "centre_crop":
        side = min(shape)
        assert seen.sum() == side * side
        assert seen[shape[0] // 2, shape[1] // 2]
    else:
        assert seen.all()
    if shape == (64, 64):
        assert (back == small).all()


@pytest.mark.parametrize("fit", ["stretch", "pad", "centre_crop"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 999), (999, 1), (3, 500)])
def test_strips_come_back_without_an_error(fit: str, shape: tuple[int, int]) -> None:
    back = restore(np.ones((48, 32), np.float32), shape, fit)
    assert back.shape == shape
    assert set(np.unique(back)) <= {0.0, 1.0}


def test_colours_of_classes_differ_and_the_background_is_black() -> None:
    palette = class_palette()
    assert palette.shape == (256, 3) and not palette[0].any()
    assert len({tuple(colour) for colour in palette.tolist()}) == 256


def test_outlines_lie_inside_of_their_class_and_close_at_the_edge() -> None:
    classes = np.zeros((40, 50), np.uint8)
    classes[:10, :10], classes[20:30, 20:30], classes[20:30, 30:40] = 1, 1, 2
    image = np.full((40, 50), 7, np.uint8)

    shown = outlined(image, classes, class_palette())

    drawn = (shown != 7).any(2)
    assert drawn[0, :10].all() and drawn[:10, 0].all() and not drawn[classes == 0].any()
    assert not drawn[5, 5] and not drawn[25, 25] and drawn[25, 29] and drawn[25, 30]
    assert (shown[20, 20] == class_palette()[1]).all()
    assert (shown[20, 35] == class_palette()[2]).all()
    assert (image == 7).all()


@pytest.mark.timeout(60)
def test_outlines_of_long_images_are_as_broad_as_is_said_and_take_no_longer() -> None:
    classes = np.zeros((500, 30_000), np.uint8)
    classes[100:400, 1_000:29_000] = 1
    drawn = outlined(np.zeros_like(classes), classes, class_palette()).any(2)
    assert drawn[200:300].sum(1).tolist() == [200] * 100
    assert drawn[:, 2_000:28_000].sum(0).tolist() == [200] * 26_000


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_the_place_of_a_picture_is_read_and_nothing_else(tmp_path: Path, syntax: str) -> None:
    film = dataset_of(RAMP, SeriesInstanceUID="1.2.9", InstanceNumber=7)
    path = save(tmp_path / "film", film, syntax)
    assert read_place(path) == DicomPlace("1.2.9", "1.2.3.4", 7)
    path.write_bytes(bytes_of(film, syntax)[:250])
    assert read_place(path) in (DicomPlace(), None)


def test_a_header_that_says_no_place_or_a_wrong_one_says_nothing(tmp_path: Path) -> None:
    film = dataset_of(RAMP)
    assert read_place(save(tmp_path / "a", film)) == DicomPlace("", "1.2.3.4", None)
    film.SeriesInstanceUID, film.InstanceNumber = "1.2.9", None
    assert read_place(save(tmp_path / "e", film)) == DicomPlace("1.2.9", "1.2.3.4", None)
    film.SeriesInstanceUID, film.SOPInstanceUID = "../../x", "1..2"
    assert read_place(save(tmp_path / "b", film)) == DicomPlace()
    deflated = save(tmp_path / "c", film, DeflatedExplicitVRLittleEndian)
    assert read_place(deflated) == DicomPlace()
    (tmp_path / "d").write_text("no DICOM")
    assert read_place(tmp_path / "d") is None
    assert read_place(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["c/b (1).png", "c/b (1)_mask.png", "c/b (1)_mask_1.png", "c/b (2).png"],
            {"*_mask.png": 1, "*_mask_*.png": 1},
        ),
        (["x/a.tif", "x/gt_a.png"], {"*/gt_*.png": 1}),
        (["images/a.png", "images/b.png", "masks/a.png", "masks/b.png"], {"masks/*": 2}),
        (["training/01_training.tif", "training/mask/01_training_mask.gif"], {"*/mask/*": 1}),
        (["a.png", "b_mask.png", "mask.png"], {}),
    ],
)
def test_what_looks_like_masks_is_told_with_the_patterns_that_leave_it_out(
    tmp_path: Path, files: list[str], expected: dict[str, int]
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = list_images(str(tmp_path), "paths")
    assert found.likely_masks == expected and len(found.images) == len(files)
    rest = list_images(str(tmp_path), "paths", leave_out=list(expected))
    assert rest.left_out == sum(expected.values()) and not rest.likely_masks


@pytest.mark.parametrize(("row", "told"), [(",4", "'filename' is empty"), ("a.png,4,5", "3 cells")])
def test_a_row_of_a_list_that_names_no_image_is_refused(
    tmp_path: Path, row: str, told: str
) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "list.csv").write_text(f"filename,age\na.png,3\n{row}\n")
    with pytest.raises(DatasetError, match=f"list.csv, line 3: .*{told}.*Mend the row"):
        list_images(str(tmp_path / "list.csv"), "paths", "filename")


def test_what_cannot_be_the_name_of_a_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    table = tmp_path / "list.txt"
    table.write_text(f"{'y' * 300}.png\n")
    with pytest.raises(DatasetError, match="none of the 1 files that it names is there"):
        list_images(str(table), "paths")
    (tmp_path / "a.png").touch()
    table.write_text(f"{'y' * 300}.png\nfolder\nabsent.png\na.png\n")
    found = list_images(str(table), "paths")
    assert [each.source for each in found.images] == ["a.png"]
    told = [each.problem[1].split("and ")[1] for each in found.refused if each.problem]
    assert told == [
        "nothing is there", "something else is there", "a name too long for any file is there"
    ]  # fmt: skip


def test_paths_of_a_list_begin_at_a_folder_that_is_said(tmp_path: Path) -> None:
    table = tmp_path / "metadata.csv"
    table.write_text("filename,age\na.png,3\nabsent.png,4\n")
    with pytest.raises(DatasetError, match=r"none of the 2 files .* Set image_folder to where"):
        list_images(str(table), "paths", "filename")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    with pytest.raises(DatasetError, match=r"set --image_folder images$"):
        list_images(str(table), "paths", "filename")
    found = list_images(str(table), "paths", "filename", image_folder="images")
    assert [each.name for each in found.images] == ["a"]
    assert [each.source for each in found.refused] == ["absent.png"]
    with pytest.raises(ConfigurationError, match="image_folder is for a list"):
        list_images(str(tmp_path), "paths", image_folder="images")
