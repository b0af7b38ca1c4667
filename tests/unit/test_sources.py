"""The layouts on small trees of files: pairing, problems, settings, and nothing lost."""

from pathlib import Path

import pytest
from source_trees import by_name, mask_names, reasons, write_tree

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.sources import SOURCES, scan_source


class TestBusi:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return write_tree(
            tmp_path / "Dataset_BUSI_with_GT",
            "benign/benign (4).png",
            "benign/benign (4)_mask.png",
            "benign/benign (4)_mask_1.png",
            "benign/benign (4)_mask_2.png",
            "benign/lésion n° 1.v2.png",
            "benign/lésion n° 1.v2_mask.png",
            "malignant/malignant (1).png",
            "malignant/malignant (2)_mask.png",
            "malignant/notes.jpg",
            "malignant/Thumbs.db",
            "normal/normal (1).png",
            "normal/normal (1)_mask.png",
            "readme.txt",
            ".DS_Store",
            "__MACOSX/benign/._benign (4).png",
        )

    def test_pairs_and_problems(self, root: Path) -> None:
        listing = scan_source("busi", root.parent, {})
        records = by_name(listing)
        assert mask_names(records["benign/benign (4).png"]) == [
            "benign (4)_mask.png",
            "benign (4)_mask_1.png",
            "benign (4)_mask_2.png",
        ]
        assert records["benign/benign (4).png"].stratum == "benign"
        assert records["benign/benign (4).png"].labels == {"class": "benign"}
        assert records["benign/lésion n° 1.v2.png"].problem is None
        assert reasons(listing) == {
            "malignant/malignant (1).png": "missing_mask",
            "malignant/malignant (2)_mask.png": "mask_without_image",
            "malignant/notes.jpg": "unrecognised_name",
        }
        assert listing.left_out == {"class normal": 1}
        assert listing.ignored_files == {".txt": 1, "Thumbs.db": 1, "__MACOSX": 1, "hidden": 1}

    def test_outer_and_inner_folder_are_the_same(self, root: Path) -> None:
        options = {"classes": ["benign", "malignant", "normal"]}
        listing = scan_source("busi", root, options)
        assert listing == scan_source("busi", root.parent, options)
        assert by_name(listing)["normal/normal (1).png"].mask_kind == "binary"

    def test_wanted_class_without_folder(self, tmp_path: Path) -> None:
        write_tree(tmp_path, "benign/benign (1).png")
        with pytest.raises(DatasetError, match=r"expected the folder 'malignant'; found 'benign'"):
            scan_source("busi", tmp_path, {})


class TestPairedFolders:
    def test_suffix_does_not_matter(self, tmp_path: Path) -> None:
        root = write_tree(
            tmp_path,
            "image/1.PNG",
            "mask/1.PNG",
            "image/2.jpg",
            "mask/2.png",
            "image/a.b c.png",
            "mask/a.b c.PNG",
            "image/alone.png",
            "mask/orphan.png",
            "image/two.bmp",
            "mask/two.png",
            "mask/two.jpg",
            "elsewhere.png",
        )
        listing = scan_source("paired_folders", root, {})
        records = by_name(listing)
        assert [len(records[f"image/{name}"].masks) for name in ("1.PNG", "2.jpg")] == [1, 1]
        assert mask_names(records["image/a.b c.png"]) == ["a.b c.PNG"]
        assert reasons(listing) == {
            "elsewhere.png": "unrecognised_name",
            "image/alone.png": "missing_mask",
            "image/two.bmp": "ambiguous_mask",
            "mask/orphan.png": "mask_without_image",
        }

    def test_tn3k_has_official_splits(self, tmp_path: Path) -> None:
        pair = ("-image/0000.jpg", "-mask/0000.jpg")
        root = write_tree(
            tmp_path, *(f"{part}{name}" for part in ("trainval", "test") for name in pair)
        )
        records = by_name(scan_source("paired_folders", root, {}))
        splits = {name: record.official_split for name, record in records.items()}
        assert splits == {"test-image/0000.jpg": "test", "trainval-image/0000.jpg": "trainval"}

    def test_named_folders(self, tmp_path: Path) -> None:
        root = write_tree(tmp_path, "us/p1/1.png", "us/gt/p1/1.png")
        options = {"image_folder": "us", "mask_folder": "us/gt"}
        listing = scan_source("paired_folders", root, options)
        assert mask_names(by_name(listing)["us/p1/1.png"]) == ["1.png"]
        assert reasons(listing) == {}

    def test_refusals(self, tmp_path: Path) -> None:
        root = write_tree(tmp_path, "image/1.png", "mask/1.png", "images/1.png", "masks/1.png")
        with pytest.raises(DatasetError, match="several sets"):
            scan_source("paired_folders", root, {})
        with pytest.raises(ConfigurationError, match="go together"):
            scan_source("paired_folders", root, {"image_folder": "image"})
        with pytest.raises(ConfigurationError, match="both 'image'"):
            same = {"image_folder": "image", "mask_folder": "image/"}
            scan_source("paired_folders", root, same)
        with pytest.raises(DatasetError, match="the folder 'gt'"):
            scan_source("paired_folders", root, {"image_folder": "image", "mask_folder": "gt"})
        with pytest.raises(DatasetError, match="not of the layout"):
            scan_source("paired_folders", root / "image", {})


class TestKaggleNerve:
    NAMES = ("1_1.tif", "1_1_mask.tif", "1_10.tif", "2_1_mask.tif", "1_1 (copy).tif")

    @pytest.mark.parametrize("prefix", ["", "train/"])
    def test_training_part(self, tmp_path: Path, prefix: str) -> None:
        root = write_tree(tmp_path, *(prefix + name for name in self.NAMES), "test/1.tif")
        listing = scan_source("kaggle_nerve", root, {})
        record = by_name(listing)[f"{prefix}1_1.tif"]
        assert (record.patient_id, record.official_split) == ("1", "train")
        assert mask_names(record) == ["1_1_mask.tif"]
        assert reasons(listing) == {
            f"{prefix}1_10.tif": "missing_mask",
            f"{prefix}2_1_mask.tif": "mask_without_image",
            f"{prefix}1_1 (copy).tif": "unrecognised_name",
        }
        assert listing.left_out == {"official split test": 1}

    def test_both_parts(self, tmp_path: Path) -> None:
        root = write_tree(tmp_path, "train/1_1.tif", "train/1_1_mask.tif", "test/1.tif")
        listing = scan_source("kaggle_nerve", root, {"parts": ["train", "test"]})
        record = by_name(listing)["test/1.tif"]
        assert (record.mask_kind, record.patient_id, record.problem) == ("none", None, None)
        assert listing.left_out == {}

    def test_wanted_part_is_absent(self, tmp_path: Path) -> None:
        root = write_tree(tmp_path, "train/1_1.tif")
        with pytest.raises(DatasetError, match="'test/'"):
            scan_source("kaggle_nerve", root, {"parts": ["test"]})


class TestImageFolder:
    def test_masks_beside_images(self, tmp_path: Path) -> None:
        root = write_tree(
            tmp_path,
            "P1/a.v2 é.TIFF",
            "P1/a.v2 é_mask.png",
            "P1/a.v2 é_mask_1.gif",
            "P2/b.webp",
            "P2/c_mask.png",
            "P2/notes.docx",
        )
        options = {"patient_regex": r"^(?P<patient>P\d+)/", "class_from_folder": True}
        listing = scan_source("image_folder", root, options)
        record = by_name(listing)["P1/a.v2 é.TIFF"]
        assert (record.patient_id, record.stratum) == ("P1", "P1")
        assert mask_names(record) == ["a.v2 é_mask.png", "a.v2 é_mask_1.gif"]
        expected = {"P2/b.webp": "missing_mask", "P2/c_mask.png": "mask_without_image"}
        assert reasons(listing) == expected
        relaxed = by_name(scan_source("image_folder", root, {"require_masks": False}))
        assert relaxed["P2/b.webp"].mask_kind == "none"

    def test_masks_in_a_folder(self, tmp_path: Path) -> None:
        root = write_tree(
            tmp_path, "images/a.jpg", "masks/a.png", "images/b.jpg", "masks/b_mask.png"
        )
        listing = scan_source("image_folder", root, {})
        assert {name: mask_names(r) for name, r in by_name(listing).items()} == {
            "images/a.jpg": ["a.png"],
            "images/b.jpg": ["b_mask.png"],
        }
        off = scan_source("image_folder", root, {"mask_folder": "", "mask_suffix": ""})
        assert len(off.records) == 4
        with pytest.raises(DatasetError, match="the folder of masks 'gt'"):
            scan_source("image_folder", root, {"mask_folder": "gt"})

    def test_images_alone(self, tmp_path: Path) -> None:
        listing = scan_source("image_folder", write_tree(tmp_path, "a.png", "b/c.bmp"), {})
        assert {r.mask_kind for r in listing.records} == {"none"}
        assert reasons(listing) == {}

    def test_unknown_patient_and_class(self, tmp_path: Path) -> None:
        root = write_tree(tmp_path, "P1-a.png", "x.png")
        options = {"patient_regex": r"(?P<patient>P\d+)"}
        assert reasons(scan_source("image_folder", root, options)) == {"x.png": "patient_unknown"}
        found = reasons(scan_source("image_folder", root, {"class_from_folder": True}))
        assert set(found.values()) == {"no_class_folder"}

    @pytest.mark.parametrize("pattern", ["(", "no group"])
    def test_bad_patient_regex(self, tmp_path: Path, pattern: str) -> None:
        with pytest.raises(ConfigurationError, match="patient_regex"):
            scan_source("image_folder", tmp_path, {"patient_regex": pattern})

    def test_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="found nothing"):
            scan_source("image_folder", tmp_path, {})


def test_every_default_is_accepted() -> None:
    for source in SOURCES.values():
        assert source.read_options(source.options).keys() == source.options.keys()


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        ("busii", {}, "no layout 'busii', did you mean 'busi'"),
        ("busi", {"clases": ["benign"]}, "no option 'clases', did you mean 'classes'"),
        ("busi", {"classes": "benign"}, r"is 'benign' \(str\); expected list\[str\]"),
        ("busi", {"classes": ["bening"]}, "did you mean 'benign'"),
        ("busi", {"classes": []}, "'classes' is empty"),
        ("voc2012", {"only_segmented": 1}, r"is 1 \(int\); expected bool"),
        ("voc2012", {"classes": [True]}, "expected list"),
    ],
)
def test_wrong_settings(tmp_path: Path, layout: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        scan_source(layout, tmp_path, options)


@pytest.mark.parametrize("layout", SOURCES)
def test_wrong_roots(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DatasetError, match="was expected and nothing is there"):
        scan_source(layout, tmp_path / "absent", {})
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="was expected and a file is there"):
        scan_source(layout, tmp_path / "file", {})
    write_tree(tmp_path, "photos/readme.txt")
    with pytest.raises(DatasetError, match=f"not of the layout '{layout}': expected .*'photos'"):
        scan_source(layout, tmp_path, {})
