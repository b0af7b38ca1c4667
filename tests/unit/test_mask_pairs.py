"""Masks that lie and are called as they are in published sets: guessed and said, or refused."""

from pathlib import Path

import pytest
from source_trees import by_name, mask_names, reasons, write_tree

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.sources import SourceListing, scan_source
from nakt_dist.sources.mask_search import (
    ENDINGS_ALIKE,
    FOLDERS_ALIKE,
    LOOK_LIKE_MASKS,
    NAMED_AS_MASKS,
)


def scan(root: Path, **options: object) -> SourceListing:
    return scan_source("image_folder", root, options)


def pairs(listing: SourceListing) -> dict[str, list[str]]:
    return {name: mask_names(record) for name, record in by_name(listing).items()}


ISIC = "ISIC2018_Task1{}_{}"
LAYOUTS = {
    "trees of images and masks": (
        ["train/images/1.jpg", "val/images/1.jpg", "test/images/2.jpg"],
        ["train/masks/1.png", "val/masks/1.png", "test/masks/2.png"],
        "masks guessed from folders called 'masks'",
    ),
    "masks below images of a split": (
        ["images/train/1.jpg", "images/test/1.jpg"],
        ["annotations/train/1.png", "annotations/test/1.png"],
        "masks guessed from folders called 'annotations'",
    ),
    "masks in a folder of the images": (
        ["a/1.jpg", "b/1.jpg"],
        ["a/GT/1.png", "b/GT/1.png"],
        "masks guessed from folders called 'GT'",
    ),
    "a folder for each image and one of masks": (
        ["p1/images/p1.png", "p2/images/p2.png"],
        ["p1/label/p1.png", "p2/label/p2.png"],
        "masks guessed from folders called 'label'",
    ),
    "folders that hold the split in their names": (
        ["train_images/1.jpg", "test_images/1.jpg"],
        ["train_masks/1.png", "test_masks/1.png"],
        "masks guessed from folders called 'train_masks'",
    ),
    "words without anything between": (
        ["train/1.png", "test/1.png"],
        ["trainannot/1.png", "testannot/1.png"],
        "masks guessed from folders called 'trainannot'",
    ),
    "folders of patients": (
        ["p1_images/1.jpg", "p2_images/1.jpg"],
        ["p1_masks/1.png", "p2_masks/1.png"],
        "masks guessed from folders with 'masks' in their names",
    ),
    "ground truth in two words": (
        ["Original/1.tif", "Original/2.tif"],
        ["Ground Truth/1.tif", "Ground Truth/2.tif"],
        "masks guessed from folders called 'Ground Truth'",
    ),
    "a dataset whose own name speaks of masks": (
        ["lung_segmentation/CXR/1.png", "lung_segmentation/CXR/2.png"],
        ["lung_segmentation/masks/1_mask.png", "lung_segmentation/masks/2_mask.png"],
        "masks guessed from folders called 'masks'",
    ),
    "ISIC 2018": (
        [ISIC.format("-2", f"{part}_Input/ISIC_{n}.jpg") for n, part in enumerate(
            ("Training", "Validation", "Test"))],
        [ISIC.format("", f"{part}_GroundTruth/ISIC_{n}_segmentation.png") for n, part in enumerate(
            ("Training", "Validation", "Test"))],
        "masks guessed from folders with 'truth' in their names",
    ),
    "names with an ending each": (
        ["images/1_img.png", "images/2_image.png"],
        ["segmentations/1_seg.png", "segmentations/2_seg.png"],
        "masks guessed from folders called 'segmentations'",
    ),
    "names that begin with what they are": (
        ["images/img_1.png", "images/img2.png"],
        ["masks/mask_1.png", "masks/mask2.png"],
        "masks guessed from folders called 'masks'",
    ),
    "masks beside that begin so": (
        ["image1.png", "image2.png"],
        ["mask1.png", "mask2.png"],
        "masks guessed from names that begin with 'mask'",
    ),
    "a dataset called after its masks beside another": (
        ["BUSI_with_GT/benign/1.png", "other/2.png"],
        ["BUSI_with_GT/benign/1_mask.png", "other/2_mask.png"],
        "masks guessed from names that end in '_mask'",
    ),
    "one flat folder of masks": (
        ["a/1.png", "b/c/2.png"],
        ["masks/1.png", "masks/2.png"],
        "masks guessed from folders called 'masks'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("images", "masks", "told"), LAYOUTS.values(), ids=LAYOUTS)
def test_usual_folders_of_masks_are_guessed_and_said(
    tmp_path: Path, images: list[str], masks: list[str], told: str
) -> None:
    listing = scan(write_tree(tmp_path, *images, *masks))
    records = by_name(listing)
    assert list(records) == sorted(images)
    found = {name: [str(m.relative_to(tmp_path)) for m in r.masks] for name, r in records.items()}
    assert found == {image: [mask] for image, mask in zip(images, masks, strict=True)}
    assert reasons(listing) == {}
    assert listing.found[told] >= 1
    assert LOOK_LIKE_MASKS not in listing.found


@pytest.mark.parametrize(
    "ending",
    ["_mask", "_Mask", "-mask", "_MASK", " mask", "_seg", "_Segmentation", "_label", "_gt", "_GT",
     "_manual1", "_annotation", "_Annotation", "_ground_truth", "_groundtruth", "_msk"],
)  # fmt: skip
def test_usual_endings_are_guessed_in_any_letter_case_and_said(tmp_path: Path, ending: str) -> None:
    root = write_tree(tmp_path, *(f"p/{name}" for name in ("a.jpg", f"a{ending}.png", "b.jpg")))
    listing = scan(root)
    assert pairs(listing) == {"p/a.jpg": [f"a{ending}.png"], "p/b.jpg": []}
    assert reasons(listing) == {"p/b.jpg": "missing_mask"}
    assert listing.found == {f"masks guessed from names that end in '{ending.lower()}'": 1}


def test_numbered_masks_are_united_and_letter_case_of_names_does_not_matter(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "A1.JPG", "a1_mask.png", "a1_mask_1.png", "images/x.png",
                      "masks/X_mask_1.png", "masks/x_mask_2.png")  # fmt: skip
    listing = scan(root)
    assert pairs(listing) == {
        "A1.JPG": ["a1_mask.png", "a1_mask_1.png"],
        "images/x.png": ["X_mask_1.png", "x_mask_2.png"],
    }
    assert reasons(listing) == {}


def test_masks_of_single_objects_belong_to_the_only_image_beside_them(tmp_path: Path) -> None:
    names = [
        "1/images/1.png",
        "1/masks/a7.png",
        "1/masks/b8.png",
        "2/images/2.png",
        "2/masks/x.png",
    ]
    listing = scan(write_tree(tmp_path / "a", *names))
    assert pairs(listing) == {"1/images/1.png": ["a7.png", "b8.png"], "2/images/2.png": ["x.png"]}
    assert reasons(listing) == {}
    with pytest.raises(ConfigurationError, match="none of its 2 files has the name of an image"):
        scan(
            write_tree(tmp_path / "b", "1/images/1.png", "1/masks/liver.png", "1/masks/spleen.png")
        )
    with pytest.raises(ConfigurationError, match="none of its 1 files has the name of an image"):
        scan(write_tree(tmp_path / "c", "1/images/1.png", "1/images/2.png", "1/masks/7.png"))


def test_parts_of_a_target_in_folders_of_their_own_are_united_on_request(tmp_path: Path) -> None:
    names = [
        f"{folder}/{n}.png" for n in "ab" for folder in ("CXR", "Mask/leftMask", "Mask/rightMask")
    ]
    root = write_tree(tmp_path, *names)
    with pytest.raises(ConfigurationError, match="'Mask/leftMask' is one of masks"):
        scan(root)
    listing = scan(root, mask_folder="Mask")
    assert pairs(listing) == {"CXR/a.png": ["a.png"] * 2, "CXR/b.png": ["b.png"] * 2}
    assert reasons(listing) == {}


def test_a_suffix_whose_images_lie_elsewhere_is_refused(tmp_path: Path) -> None:
    root = write_tree(tmp_path, *(f"{n}/{n}{e}/{n}{e}.bmp" for n in "ab" for e in ("", "_lesion")))
    assert scan(root).found == {ENDINGS_ALIKE: 2}
    with pytest.raises(ConfigurationError, match="2 files have a name that ends in '_lesion'"):
        scan(root, mask_suffix="_lesion")


def test_a_mask_of_two_images_is_ambiguous(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "a/1.png", "b/1.png", "b/2.png", "masks/1.png", "masks/2.png")
    listing = scan(root)
    assert reasons(listing) == {"a/1.png": "ambiguous_mask", "b/1.png": "ambiguous_mask"}
    assert (
        "has the name of 2 images ('a/1.png', 'b/1.png')" in by_name(listing)["a/1.png"].problem[1]
    )
    assert pairs(listing)["b/2.png"] == ["2.png"]


def test_a_second_mask_of_another_suffix_is_ambiguous(tmp_path: Path) -> None:
    names = ["images/1.png", "masks/1.png", "masks/1.bmp", "images/2.png", "masks/2.png"]
    assert reasons(scan(write_tree(tmp_path, *names))) == {"images/1.png": "ambiguous_mask"}
    listing = scan_source("paired_folders", tmp_path, {})
    assert reasons(listing) == {"images/1.png": "ambiguous_mask"}


@pytest.mark.parametrize("layout", ["image_folder", "paired_folders"])
def test_two_images_of_one_mask_are_ambiguous(tmp_path: Path, layout: str) -> None:
    names = ["images/1.png", "images/1.jpg", "masks/1.png", "images/2.png", "masks/2.png"]
    listing = scan_source(layout, write_tree(tmp_path, *names), {})
    assert reasons(listing) == dict.fromkeys(["images/1.png", "images/1.jpg"], "ambiguous_mask")


def test_a_mask_is_never_taken_from_another_split_or_patient(tmp_path: Path) -> None:
    write_tree(tmp_path, "train_images/1.jpg", "test_images/2.jpg", "train_masks/2.png",
               "train_masks/1.png")  # fmt: skip
    assert reasons(scan(tmp_path)) == {
        "test_images/2.jpg": "missing_mask", "train_masks/2.png": "mask_without_image"
    }  # fmt: skip
    root = write_tree(tmp_path / "p", "p1_images/1.jpg", "p2_images/2.jpg", "p2_masks/1.png",
                      "p2_masks/2.png")  # fmt: skip
    found = reasons(scan(root))
    assert found == {"p1_images/1.jpg": "missing_mask", "p2_masks/1.png": "mask_without_image"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["images/a.png", "masks/a.png", "labels/a.png"],
         r"2 kinds: the folder 'labels' and the folder 'masks'.*mask_folder: labels"),
        (["a.png", "a_mask.png", "a_seg.png"], r"'_mask' and .*'_seg'.*mask_suffix: '_mask'"),
        (["a.png", "a_mask.png", "gt/a.png"], r"the folder 'gt'.*mask_suffix: ''"),
        (["training/images/21_training.tif", "training/1st_manual/21_manual1.gif",
          "training/mask/21_training_mask.gif"], r"layouts of their own: drive, chase_db1"),
        (["Image_01L.jpg", "Image_01L_1stHO.png", "Image_01L_2ndHO.png"], "drive, chase_db1"),
    ],
)  # fmt: skip
def test_masks_of_several_kinds_are_refused_with_the_setting_to_give(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        scan(write_tree(tmp_path, *names))


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["images/a.png", "masks/b.png"], {}, r"'masks' is one of masks.*none of its 1 files"),
        (["in/a.png", "out/a_seg.png"], {}, r"1 files have a name that ends in '_seg'.*another"),
        (["a.png", "a_Mask.png"], {"mask_suffix": "_mask"}, r"set mask_suffix: '_Mask'"),
        (["a.png", "a_seg.png"], {"mask_suffix": "_mask"}, r"set mask_suffix: '_seg'"),
        (["i/a.png", "masks/a.png", "gt/z.png"], {"mask_folder": "gt"}, r"'gt' is one of masks"),
        (["i/a.png", "masks/a.png"], {"mask_folder": "", "mask_suffix": "_x"}, "folder: masks"),
    ],
)  # fmt: skip
def test_masks_that_are_plainly_there_are_never_passed_over(
    tmp_path: Path, names: list[str], options: dict[str, str], message: str
) -> None:
    root = write_tree(tmp_path, *names)
    with pytest.raises(ConfigurationError, match=message):
        scan(root, **options)
    listing = scan(root, mask_suffix="", mask_folder="")
    assert len(listing.records) == len(names) and reasons(listing) == {}


def test_images_that_look_like_masks_are_counted_where_settings_say_they_are_none(
    tmp_path: Path,
) -> None:
    root = write_tree(tmp_path, "a.png", "a_roi.png", "a_label.png", "b.png", "b_roi.png")
    listing = scan(root, mask_suffix="_roi")
    assert pairs(listing)["a.png"] == ["a_roi.png"]
    assert listing.found == {LOOK_LIKE_MASKS: 1}
    assert listing.examples == {LOOK_LIKE_MASKS: "'a_label.png'"}
    off = scan(write_tree(tmp_path / "x", "i/a.png", "masks/a.png"), mask_suffix="", mask_folder="")
    assert off.found == {LOOK_LIKE_MASKS: 1}


def test_what_may_be_masks_without_a_usual_name_is_said(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path / "endings", *(f"{n}{e}.png" for n in "abc" for e in ("", "_lesion"))
    )
    listing = scan(root)
    assert listing.found == {ENDINGS_ALIKE: 3}
    assert listing.examples[ENDINGS_ALIKE] == "'_lesion', for 'mask_suffix'"
    assert pairs(scan(root, mask_suffix="_lesion"))["a.png"] == ["a_lesion.png"]
    root = write_tree(
        tmp_path / "folders", *(f"{f}/{n}.png" for n in "abc" for f in ("us", "drawn"))
    )
    listing = scan(root)
    assert listing.found == {FOLDERS_ALIKE: 6}
    assert listing.examples == {FOLDERS_ALIKE: "'drawn' and 'us'"}
    assert pairs(scan(root, mask_folder="drawn"))["us/a.png"] == ["a.png"]


def test_images_named_as_masks_that_belong_to_none_are_said(tmp_path: Path) -> None:
    names = [f"{n}/{n}{e}.png" for n in ("p1", "p2") for e in ("_t1", "_t2", "_seg")]
    listing = scan(write_tree(tmp_path, *names, "p1/q.png", "p1/q_roi.png", "p2/r_roi.png"))
    assert listing.found == {NAMED_AS_MASKS: 2}
    assert listing.examples == {NAMED_AS_MASKS: "'p1/p1_seg.png'"}
    more = [f"{n}/{n}{e}.png" for n in ("p1", "p2") for e in ("", "_roi", "_R1_Label1")]
    listing = scan(write_tree(tmp_path / "more", *more))
    assert listing.found == {NAMED_AS_MASKS: 2, ENDINGS_ALIKE: 2}


def test_series_and_augmented_numbers_are_no_masks(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path, *(f"a{ending}.png" for ending in ("", "_1", "_2", "_3", "-b", "_4"))
    )
    assert scan(root).found == {}


def test_folders_of_classes_may_be_called_as_folders_of_masks(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "label_0/1.png", "label_1/2.png", "other/3.png")
    with pytest.raises(ConfigurationError, match=r"'label_0' is one of masks"):
        scan(root)
    listing = scan(root, class_from_folder=True)
    assert [record.stratum for record in listing.records] == ["label_0", "label_1", "other"]
    assert {record.mask_kind for record in listing.records} == {"none"}
    both = scan(
        write_tree(tmp_path / "x", "label_0/1.png", "label_1/1.png"), class_from_folder=True
    )
    assert len(both.records) == 2


def test_a_folder_of_masks_can_be_named_for_every_split(tmp_path: Path) -> None:
    names = [
        f"{part}/{folder}/1.png" for part in ("train", "test") for folder in ("us", "roi", "gt")
    ]
    listing = scan(write_tree(tmp_path, *names), mask_folder="roi", mask_suffix="")
    assert pairs(listing)["train/us/1.png"] == ["1.png"]
    assert [str(m.relative_to(tmp_path)) for m in by_name(listing)["test/us/1.png"].masks] == [
        "test/roi/1.png"
    ]
    with pytest.raises(DatasetError, match="the folder of masks 'rois'"):
        scan(tmp_path, mask_folder="rois")


def test_only_masks_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="images that are not masks"):
        scan(write_tree(tmp_path, "masks/1.png", "masks/2.png"))


# ---------------------------------------------------------------- official splits


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "valid", "test"), {"train": 1, "validation": 1, "test": 1}),
        (("Training", "Testing"), {"train": 1, "test": 1}),
        (("TrainDataset", "TestDataset"), {"train": 1, "test": 1}),
        (("train2017", "val2017"), {"train": 1, "validation": 1}),
        (("trainval", "test"), {"trainval": 1, "test": 1}),
        (("train patients", "test patients"), {}),
        (("val", "test"), {}),
        (("train", "more"), {}),
        (("images", "more images"), {}),
        (("images/train", "images/val"), {"train": 1, "validation": 1}),
    ],
)
def test_folders_tell_official_splits(
    tmp_path: Path, folders: tuple[str, ...], splits: dict[str, int]
) -> None:
    listing = scan(write_tree(tmp_path, *(f"{folder}/x/1.png" for folder in folders)))
    told = {f"official split {split}": count for split, count in splits.items()}
    assert {words: n for words, n in listing.found.items() if words.startswith("official")} == told
    found = [record.official_split for record in listing.records if record.official_split]
    assert sorted(found) == sorted(splits)


@pytest.mark.parametrize("form", ["{part}/images/1.png {part}/masks/1.png",
                                  "images/{part}/1.png masks/{part}/1_mask.png"])  # fmt: skip
def test_paired_folders_know_trees_of_splits(tmp_path: Path, form: str) -> None:
    names = [form.format(part=part).split() for part in ("train", "valid", "test")]
    root = write_tree(tmp_path, *(name for pair in names for name in pair))
    listing = scan_source("paired_folders", root, {})
    assert reasons(listing) == {}
    assert [len(record.masks) for record in listing.records] == [1, 1, 1]
    place = 1 if form.startswith("images") else 0
    splits = {record.name.split("/")[place]: record.official_split for record in listing.records}
    assert splits == {"train": "train", "valid": "validation", "test": "test"}


def test_isic_2018_in_two_named_folders(tmp_path: Path) -> None:
    write_tree(tmp_path, "Input/ISIC_1.jpg", "GT/ISIC_1_segmentation.png", "GT/ISIC_2_x.png")
    options = {"image_folder": "Input", "mask_folder": "GT"}
    listing = scan_source("paired_folders", tmp_path, options)
    assert pairs(listing)["Input/ISIC_1.jpg"] == ["ISIC_1_segmentation.png"]
    assert reasons(listing) == {"GT/ISIC_2_x.png": "mask_without_image"}


# ---------------------------------------------------------------- vessels of the retina


def test_drive_takes_the_vessels_and_not_the_field_of_view(tmp_path: Path) -> None:
    parts = {"training": (21, 22), "test": (1, 2)}
    names = [
        name
        for part, numbers in parts.items()
        for number in numbers
        for name in (
            f"{part}/images/{number:02d}_{part}.tif",
            f"{part}/mask/{number:02d}_{part}_mask.gif",
            f"{part}/1st_manual/{number:02d}_manual1.gif",
        )
    ]
    write_tree(
        tmp_path, *(f"DRIVE/{name}" for name in names), "DRIVE/test/2nd_manual/01_manual2.gif"
    )
    listing = scan_source("drive", tmp_path, {})
    assert pairs(listing) == {
        f"DRIVE/{part}/images/{number:02d}_{part}.tif": [f"{number:02d}_manual1.gif"]
        for part, numbers in parts.items()
        for number in numbers
    }
    assert [record.official_split for record in listing.records] == ["test"] * 2 + ["train"] * 2
    assert reasons(listing) == {}
    assert sum(listing.ignored_files.values()) == 5
    inner = scan_source("drive", tmp_path / "DRIVE", {})
    assert [record.name for record in inner.records] == [r.name[6:] for r in listing.records]


def test_drive_without_a_target_or_with_two_sets_the_image_aside(tmp_path: Path) -> None:
    write_tree(tmp_path, "test/images/01_test.tif", "test/mask/01_test_mask.gif",
               "training/images/21_training.tif", "training/1st_manual/21_manual1.gif",
               "training/1st_manual/21_manual1.png", "training/1st_manual/22_manual1.gif",
               "notes.png")  # fmt: skip
    assert reasons(scan_source("drive", tmp_path, {})) == {
        "notes.png": "unrecognised_name",
        "test/images/01_test.tif": "missing_mask",
        "training/1st_manual/22_manual1.gif": "mask_without_image",
        "training/images/21_training.tif": "ambiguous_mask",
    }


def test_both_eyes_of_a_child_are_one_patient(tmp_path: Path) -> None:
    eyes = [f"Image_{child}{eye}" for child in ("01", "02") for eye in "LR"]
    names = [f"{eye}{ending}" for eye in eyes for ending in (".jpg", "_1stHO.png")]
    root = write_tree(tmp_path, *names, *(f"{eye}_2ndHO.png" for eye in eyes[:3]))
    listing = scan_source("chase_db1", root, {})
    assert [record.patient_id for record in listing.records] == ["01", "01", "02", "02"]
    assert pairs(listing) == {f"{eye}.jpg": [f"{eye}_1stHO.png"] for eye in eyes}
    assert listing.found == {"patients": 2}
    assert listing.ignored_files == {"vessels of the other observer": 3}
    second = scan_source("chase_db1", root, {"observer": "second"})
    assert reasons(second) == {"Image_02R.jpg": "missing_mask"}
    with pytest.raises(ConfigurationError, match="did you mean 'first'"):
        scan_source("chase_db1", root, {"observer": "frist"})
