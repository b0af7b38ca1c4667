"""The layouts of ISIC and PASCAL VOC on small trees of files."""

import json
from pathlib import Path

import pytest
from source_trees import by_name, reasons, write_tree

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.sources import scan_source


class TestIsicArchive:
    def test_labels_patients_and_missing_json(self, tmp_path: Path) -> None:
        root = write_tree(tmp_path, *(f"ISIC_000000{i}.jpg" for i in range(5)), "ISIC_1_seg.png")
        clinical = {"benign_malignant": "malignant", "age_approx": 60, "deep": {"a": 1}}
        (root / "ISIC_0000000.json").write_text(json.dumps({"meta": {"clinical": clinical}}))
        newer = {"metadata": {"clinical": {"patient_id": "IP_7", "lesion_id": "IL_1"}}}
        (root / "ISIC_0000001.json").write_text(json.dumps(newer))
        (root / "ISIC_0000002.json").write_text("{" * 5000)
        (root / "ISIC_0000003.json").write_text('{"lesion_id": "IL_9", "age_approx": NaN}')
        (root / "ISIC_0000009.json").write_text("{}")
        listing = scan_source("isic_archive", root, {})
        records = list(by_name(listing).values())
        assert records[0].labels == {"benign_malignant": "malignant", "age_approx": 60}
        assert records[0].stratum == "malignant"
        assert [r.patient_id for r in records[:4]] == [None, "IP_7", None, "lesion IL_9"]
        assert records[2].labels == {"metadata": "unreadable"}
        assert records[3].labels == {}
        assert records[4].labels == {"metadata": "missing"}
        assert reasons(listing) == {
            "ISIC_0000009.jpg": "missing_image",
            "ISIC_1_seg.png": "unrecognised_name",
        }

    COLUMNS = "isic_id,attribution,age_approx,benign_malignant,sex,melanocytic,patient_id,lesion_id"

    def test_the_table_of_isic_cli_gives_labels_and_patients(self, tmp_path: Path) -> None:
        root = write_tree(tmp_path, *(f"ISIC_000000{i}.jpg" for i in range(4)), "licenses/CC-0.txt")
        rows = [
            "ISIC_0000000,x,40,malignant,male,True,IP_0,IL_0",
            "ISIC_0000001,x,45.0,benign,female,False,IP_0,",
            "isic_0000002.jpg,x,,,,,,IL_0",
            "ISIC_0000009,x,40,benign,male,,IP_4,",
            "../ISIC_0000003,x,40,benign,male,,IP_4,",
        ]
        (root / "metadata.csv").write_text("\n".join([self.COLUMNS, *rows]))
        listing = scan_source("isic_archive", root, {})
        records = list(by_name(listing).values())[:4]
        assert [record.patient_id for record in records] == ["IP_0", "IP_0", "IP_0", None]
        assert [record.stratum for record in records] == ["malignant", "benign", "", ""]
        assert records[0].labels == {
            "benign_malignant": "malignant", "melanocytic": True, "age_approx": 40, "sex": "male"
        }  # fmt: skip
        assert records[1].labels["age_approx"] == 45
        assert records[3].labels == {"metadata": "missing"}
        assert reasons(listing) == {
            "ISIC_0000009.jpg": "missing_image",
            "metadata.csv, line 6": "unsafe_path",
        }
        assert listing.found == {"images whose metadata is missing": 1, "rows in metadata.csv": 5}
        assert listing.ignored_files == {".txt": 1}

    def test_the_first_diagnosis_says_what_benign_malignant_said(self, tmp_path: Path) -> None:
        root = write_tree(tmp_path, "a/ISIC_1.jpg", "a/ISIC_2.jpg", "b/ISIC_3.jpg")
        head = "isic_id;diagnosis_1;diagnosis_2"
        (root / "a" / "metadata.csv").write_text(f"{head}\nISIC_1;Malignant;x\nISIC_2;Benign;\n")
        (root / "b" / "metadata.csv").write_text(f"{head}\nISIC_3;Indeterminate;\n")
        (root / "b" / "old_metadata.csv").write_text("image,sex\nISIC_3,male\n")
        listing = scan_source("isic_archive", root, {})
        strata = [record.stratum for record in listing.records]
        assert strata == ["malignant", "benign", "indeterminate"]
        assert listing.records[0].labels == {"diagnosis_1": "Malignant", "diagnosis_2": "x"}
        assert listing.found["tables whose columns are separated by ';'"] == 2
        assert listing.ignored_files == {".csv": 1}

    def test_json_goes_before_the_table_which_fills_what_it_lacks(self, tmp_path: Path) -> None:
        root = write_tree(tmp_path, *(f"ISIC_{i}.jpg" for i in range(4)))
        said = {"benign_malignant": "benign", "age_approx": 50}
        for name in ("ISIC_0", "ISIC_1"):
            (root / f"{name}.json").write_text(json.dumps({"meta": {"clinical": said}}))
        rows = ["ISIC_0,x,50,malignant,male,,IP_0,", "ISIC_1,x,50,benign,,,IP_0,"]
        rows += ["ISIC_2,x,,benign,,,IP_1,", "ISIC_2,x,,benign,,,IP_2,", "ISIC_3,x,,benign,,,,"]
        (root / "metadata.csv").write_text("\n".join([self.COLUMNS, *rows]))
        listing = scan_source("isic_archive", root, {})
        records = listing.records
        assert records[0].labels == {**said, "sex": "male"}
        assert [record.patient_id for record in records[:2]] == ["IP_0", "IP_0"]
        assert reasons(listing) == {"ISIC_2.jpg": "conflicting_rows"}
        assert listing.found == {
            "images whose json and row of metadata.csv differ": 1,
            "images with a json and a row of metadata.csv, json first": 2,
            "rows in metadata.csv": 5,
            "rows that contradict another": 1,
        }


class TestIsic2019:
    HEADER = "image,MEL,NV,UNK\n"

    def tree(self, root: Path, rows: str) -> Path:
        names = ("ISIC_0000001.jpg", "ISIC_0000002_downsampled.jpg", "ISIC_0000003.jpg", "note.png")
        write_tree(root, *(f"ISIC_2019_Training_Input/{name}" for name in names))
        write_tree(root, "ISIC_2019_Test_Input/ISIC_1.jpg", "ISIC_2019_Training_Input/LICENSE.txt")
        (root / "ISIC_2019_Training_GroundTruth.csv").write_text(self.HEADER + rows)
        return root

    def test_labels_lesions_and_missing_files(self, tmp_path: Path) -> None:
        rows = "ISIC_0000001,1.0,0.0,0.0\nISIC_0000002,0.0,1.0,0.0\nISIC_0000007,0.0,1.0,0.0\n"
        root = self.tree(tmp_path, rows)
        (root / "ISIC_2019_Training_Metadata.csv").write_text(
            "image,age_approx,anatom_site_general,lesion_id,sex\n"
            "ISIC_0000001,55.0,,BCN_1,female\nISIC_0000002_downsampled,,torso,,\n"
        )
        listing = scan_source("isic2019", root, {})
        records = [r for r in listing.records if not r.problem]
        assert [r.stratum for r in records] == ["MEL", "NV", ""]
        assert [r.labels["class"] for r in records] == ["MEL", "NV", None]
        assert [r.patient_id for r in records] == ["lesion BCN_1", None, None]
        assert records[0].labels == {"class": "MEL", "age_approx": "55.0", "sex": "female"}
        assert {r.mask_kind for r in records} == {"none"}
        assert reasons(listing) == {
            "ISIC_2019_Training_Input/ISIC_0000007.jpg": "missing_image",
            "ISIC_2019_Training_Input/note.png": "unrecognised_name",
        }
        assert listing.found == {
            "images without a row of diagnoses": 1,
            "images without a row of facts, of no known lesion": 1,
        }
        assert listing.left_out == {"folder ISIC_2019_Test_Input": 1}
        assert listing.ignored_files == {".txt": 1}

    def test_tables_with_semicolons_and_words(self, tmp_path: Path) -> None:
        root = self.tree(tmp_path, "ISIC_0000001,True,False,False\nISIC_0000002,0,Yes,0\n")
        table = root / "ISIC_2019_Training_GroundTruth.csv"
        table.write_text("sep=;\n" + table.read_text().replace(",", ";"))
        listing = scan_source("isic2019", root, {})
        assert [r.stratum for r in listing.records if not r.problem] == ["MEL", "NV", ""]
        assert listing.found == {
            "images without a row of diagnoses": 1,
            "tables whose columns are separated by ';'": 1,
        }

    @pytest.mark.parametrize("form", ["{}.jpg", "images/{}.JPG", "C:\\isic\\{}.jpeg"])
    def test_names_with_a_suffix_or_folders(self, tmp_path: Path, form: str) -> None:
        names = [form.format(f"ISIC_000000{number}") for number in (1, 2, 3)]
        root = self.tree(tmp_path, "".join(f"{name},1,0,0\n" for name in names))
        listing = scan_source("isic2019", root, {})
        assert [r.stratum for r in listing.records if not r.problem] == ["MEL"] * 3

    def test_tables_of_other_images_are_refused(self, tmp_path: Path) -> None:
        root = self.tree(tmp_path, "IMG_1,1,0,0\n")
        with pytest.raises(DatasetError, match=r"names none of the 3 images; it names 'IMG_1'"):
            scan_source("isic2019", root, {})
        self.tree(tmp_path, "ISIC_0000001,1,0,0\n")
        facts = root / "ISIC_2019_Training_Metadata.csv"
        facts.write_text("image,lesion_id\nISIC_9,BCN_1\n")
        with pytest.raises(DatasetError, match=r"Metadata.csv' names none of the 3 images"):
            scan_source("isic2019", root, {})

    def test_odd_rows(self, tmp_path: Path) -> None:
        root = self.tree(tmp_path, "ISIC_0000001,1,1,0\nISIC_0000002,0,?,0\nISIC_0000003,1\n")
        found = sorted(reasons(scan_source("isic2019", root, {})).values())
        expected = ["ambiguous_label", "unreadable_label", "unreadable_label", "unrecognised_name"]
        assert found == expected

    def test_rows_with_a_cell_too_many_say_nothing(self, tmp_path: Path) -> None:
        rows = "ISIC_0000001,1,0,0\nISIC_0000002,0,1,0,0,1\nISIC_0000003,0,1,0\n"
        root = self.tree(tmp_path, rows)
        (root / "ISIC_2019_Training_Metadata.csv").write_text(
            "image,age_approx,anatom_site_general,lesion_id,sex\n"
            "ISIC_0000001,55,lower, extremity,BCN_1,male\nISIC_0000003,50,torso,BCN_1,female\n"
        )
        listing = scan_source("isic2019", root, {})
        assert [r.problem and r.problem[0] for r in listing.records[:3]] == [
            "unreadable_row",
            "unreadable_row",
            None,
        ]
        patients = [r.patient_id for r in listing.records if not r.problem]
        assert patients == ["lesion BCN_1"]
        assert all(": it has 6 cells; expected" in r.problem[1] for r in listing.records[:2])

    def test_refused_tables(self, tmp_path: Path) -> None:
        root = self.tree(tmp_path, "ISIC_0000001,1,0,0\nISIC_0000001,0,1,0\n")
        with pytest.raises(DatasetError, match=r"line 3.*second time"):
            scan_source("isic2019", root, {})
        table = root / "ISIC_2019_Training_GroundTruth.csv"
        table.write_text("<html>")
        with pytest.raises(DatasetError, match="The header of"):
            scan_source("isic2019", root, {})
        table.unlink()
        with pytest.raises(DatasetError, match=r"expected the table 'ISIC_2019_Training_Gro"):
            scan_source("isic2019", root, {})


class TestVoc2012:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = write_tree(
            tmp_path / "VOCdevkit" / "VOC2012",
            *(f"JPEGImages/{name}.jpg" for name in "abcd"),
            *(f"SegmentationClass/{name}" for name in ("a.png", "b.PNG", "x.png")),
            "SegmentationObject/a.png",
            "Annotations/a.xml",
            "stray.png",
        )
        lists = root / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("a\nc\n")
        (lists / "val.txt").write_text("b\ny\n")
        return tmp_path

    def test_masks_and_official_splits(self, root: Path) -> None:
        listing = scan_source("voc2012", root, {})
        records = by_name(listing)
        assert [records[f"JPEGImages/{n}.jpg"].official_split for n in "abcd"] == [
            "train",
            "val",
            "train",
            None,
        ]
        assert [records[f"JPEGImages/{n}.jpg"].mask_kind for n in "abd"] == [
            "classes",
            "classes",
            "none",
        ]
        assert reasons(listing) == {
            "JPEGImages/c.jpg": "missing_mask",
            "JPEGImages/y.jpg": "missing_image",
            "SegmentationClass/x.png": "mask_without_image",
            "stray.png": "unrecognised_name",
        }
        assert listing.ignored_files == {".xml": 1, "SegmentationObject/*.png": 1}
        assert scan_source("voc2012", root / "VOCdevkit" / "VOC2012", {}) == listing

    def test_an_image_in_both_lists_is_set_aside(self, root: Path) -> None:
        lists = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
        (lists / "val.txt").write_text("a\nb\n")
        record = by_name(scan_source("voc2012", root, {}))["JPEGImages/a.jpg"]
        assert record.problem[0] == "conflicting_split"
        assert "train.txt and ImageSets/Segmentation/val.txt both name" in record.problem[1]

    def test_classes_make_the_mask_binary(self, root: Path) -> None:
        options = {"classes": ["person", 5, "bottle"], "only_segmented": True}
        listing = scan_source("voc2012", root, options)
        record = by_name(listing)["JPEGImages/a.jpg"]
        assert (record.mask_kind, record.mask_classes) == ("binary", (5, 15))
        assert listing.left_out == {"images without a mask": 1}
        for classes, message in (
            (["persn"], "did you mean 'person'"),
            ([21], "0 to 20"),
            ([], "em"),
        ):
            with pytest.raises(ConfigurationError, match=message):
                scan_source("voc2012", root, {"classes": classes})
        with pytest.raises(DatasetError, match="the folder 'Masks'"):
            scan_source("voc2012", root, {"mask_folder": "Masks"})
