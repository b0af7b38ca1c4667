"""The layouts of CheXpert, MIMIC-CXR-JPG and ChestX-ray14 on small trees of empty files."""

import gzip
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.sources import SourceListing, scan_source
from nakt_dist.sources.cards import compare_counts, load_card
from nakt_dist.sources.chest import ChestTables, view_of
from nakt_dist.sources.findings import CHEXPERT_FINDINGS, LABEL_SETS
from tests.unit.source_trees import by_name, reasons, write_tree

CARDS = Path(__file__).resolve().parents[2] / "shards" / "cards"


def write_table(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def counted(listing: SourceListing) -> dict[str, int]:
    """The counts that differ from layout to layout, without those that all have."""
    always = ("images", "patients", "studies", "images named by the tables")
    return {what: count for what, count in listing.found.items() if what not in always}


def assert_nothing_lost(listing: SourceListing, root: Path) -> None:
    """Every image file has one record, and every missing one has a place below the root."""
    there = [path for path in root.rglob("*") if path.suffix in (".jpg", ".png")]
    images = [record.image for record in listing.records]
    assert len(set(images)) == len(images)
    assert all(image.resolve().is_relative_to(root.resolve()) for image in images)
    dropped = sum(listing.left_out.values())
    assert dropped or set(there) <= set(images)
    absent = [record for record in listing.records if not record.image.exists()]
    assert all(record.problem is not None for record in absent)


class TestChexpert:
    HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(CHEXPERT_FINDINGS)
    BLANK = "," * 14

    def rows(self, prefix: str) -> tuple[str, ...]:
        labels = "1.0,,-1.0,0.0" + "," * 10
        return (
            self.HEADER,
            f"{prefix}train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,{labels}",
            f"{prefix}train/patient00001/study1/view2_lateral.jpg,Female,68,Lateral,,{labels}",
            f"{prefix}train/patient00001/study2/view1_frontal.jpg,Unknown,0,Frontal,PA{self.BLANK}",
            f"{prefix}train/patient00009/study1/view1_frontal.jpg,Male,30,Frontal,PA{self.BLANK}",
        )

    def publish(self, folder: Path, prefix: str) -> Path:
        """Three of four images of train.csv, one of valid.csv, and one that no table names."""
        write_table(folder / "train.csv", *self.rows(prefix))
        valid = f"{prefix}valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP"
        write_table(folder / "valid.csv", self.HEADER, f"{valid},0.0{self.BLANK[:-1]}")
        return write_tree(
            folder,
            "train/patient00001/study1/view1_frontal.jpg",
            "train/patient00001/study1/view2_lateral.jpg",
            "train/patient00001/study2/view1_frontal.jpg",
            "valid/patient64541/study1/view1_frontal.jpg",
            "train/patient00007/study1/view1_frontal.jpg",
        )

    @pytest.mark.parametrize("prefix", ["CheXpert-v1.0/", "CheXpert-v1.0-small/", "", "/data/x/"])
    @pytest.mark.parametrize("folder", ["", "CheXpert-v1.0-small"])
    def test_any_prefix_from_the_folder_or_above(
        self, tmp_path: Path, prefix: str, folder: str
    ) -> None:
        self.publish(tmp_path / folder, prefix)
        listing = scan_source("chexpert", tmp_path, {})
        below = f"{folder}/" if folder else ""
        records = {name.removeprefix(below): r for name, r in by_name(listing).items()}
        assert listing.findings == CHEXPERT_FINDINGS
        first = records["train/patient00001/study1/view1_frontal.jpg"]
        assert first.image == tmp_path / folder / "train/patient00001/study1/view1_frontal.jpg"
        assert first.findings == {"No Finding": 1, "Cardiomegaly": -1, "Lung Opacity": 0}
        assert (first.patient_id, first.official_split, first.stratum) == (
            "patient00001",
            "train",
            "",
        )
        assert first.labels == {
            "sex": "F",
            "age": 68,
            "view": "frontal",
            "projection": "AP",
            "study": "patient00001/study1",
        }
        lateral = records["train/patient00001/study1/view2_lateral.jpg"]
        assert lateral.labels["view"] == "lateral"
        assert "projection" not in lateral.labels
        unknown = records["train/patient00001/study2/view1_frontal.jpg"]
        assert unknown.findings == {}
        assert "sex" not in unknown.labels
        valid = records["valid/patient64541/study1/view1_frontal.jpg"]
        assert (valid.official_split, valid.findings) == ("validation", {"No Finding": 0})
        assert {name.removeprefix(below): r for name, r in reasons(listing).items()} == {
            "train/patient00007/study1/view1_frontal.jpg": "not_in_table",
            "train/patient00009/study1/view1_frontal.jpg": "missing_image",
        }
        assert listing.found == {
            "files that no table names": 1,
            "images": 4,
            "images named by the tables": 5,
            "images named without a file": 1,
            "images of which every label is blank": 1,
            "patients": 2,
            "rows in train.csv": 4,
            "rows in valid.csv": 1,
            "official split train": 3,
            "official split validation": 1,
            "studies": 3,
            "view frontal": 3,
            "view lateral": 1,
        }
        assert listing.ignored_files == {}
        assert_nothing_lost(listing, tmp_path)

    def test_download_in_batches_and_a_test_table(self, tmp_path: Path) -> None:
        first = tmp_path / "CheXpert-v1.0 batch 1 (validate & csv)"
        write_table(first / "train.csv", *self.rows("CheXpert-v1.0/"))
        path = "test/patient64741/study1/view1_frontal.jpg"
        reordered = [*CHEXPERT_FINDINGS[1:], CHEXPERT_FINDINGS[0]]
        write_table(
            first / "test_labels.csv",
            "Path," + ",".join(reordered),
            f"{path},0.0,1.0{',0.0' * 12}",
        )
        write_tree(
            tmp_path,
            "CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg",
            "CheXpert-v1.0 batch 2 (train 1)/train/patient00001/study1/view2_lateral.jpg",
            f"CheXpert/{path}",
        )
        listing = scan_source("chexpert", tmp_path, {})
        usable = {r.name.split("/")[0]: r for r in listing.records if r.problem is None}
        assert len(usable) == 2
        test = usable["CheXpert"]
        assert (test.official_split, test.findings["Cardiomegaly"]) == ("test", 1)
        assert test.labels == {"view": "frontal", "study": "patient64741/study1"}
        assert Counter(reasons(listing).values()) == {"missing_image": 2}

    def test_views(self, tmp_path: Path) -> None:
        self.publish(tmp_path, "")
        listing = scan_source("chexpert", tmp_path, {"views": ["lateral"]})
        assert [r.labels["view"] for r in listing.records if not r.problem] == ["lateral"]
        assert listing.left_out == {"view frontal": 4}
        assert reasons(listing) == {"train/patient00007/study1/view1_frontal.jpg": "not_in_table"}
        assert listing.found["images"] == 4
        with pytest.raises(ConfigurationError, match=r"'frontl' is not .*did you mean 'frontal'"):
            scan_source("chexpert", tmp_path, {"views": ["frontl"]})

    def test_rows_that_repeat_or_contradict(self, tmp_path: Path) -> None:
        self.publish(tmp_path, "")
        header, first, lateral, third, missing = self.rows("")
        other_label = third.replace("PA,,", "PA,1.0,", 1)
        repeated = first.replace("train/", "CheXpert-v1.0/train/")
        write_table(
            tmp_path / "train.csv", header, first, lateral, repeated, third, other_label, missing
        )
        write_table(tmp_path / "valid.csv", header, lateral)
        listing = scan_source("chexpert", tmp_path, {})
        problems = {r.name: r.problem for r in listing.records if r.problem}
        lateral_problem = problems["train/patient00001/study1/view2_lateral.jpg"]
        assert lateral_problem == (
            "conflicting_rows",
            "several rows name this image and differ in split",
        )
        third_problem = problems["train/patient00001/study2/view1_frontal.jpg"]
        assert third_problem[1].endswith("differ in findings")
        assert listing.found["rows that repeat another"] == 1
        assert listing.found["rows that contradict another"] == 2
        assert "train/patient00001/study1/view1_frontal.jpg" not in problems
        assert_nothing_lost(listing, tmp_path)

    @pytest.mark.parametrize("value", ["2.0", "maybe", "nan", "=1+0", "0.5", "- 1", "\u0661"])
    def test_labels_other_than_published(self, tmp_path: Path, value: str) -> None:
        self.publish(tmp_path, "")
        header, first, *_ = self.rows("")
        write_table(tmp_path / "train.csv", header, first.replace("-1.0", value))
        record = by_name(scan_source("chexpert", tmp_path, {}))[first.split(",")[0]]
        assert record.problem[0] == "unreadable_label"
        assert "'Cardiomegaly' is " in record.problem[1]
        assert record.findings is None

    @pytest.mark.parametrize(
        "path",
        [
            "../train/patient00001/study1/view1_frontal.jpg",
            "CheXpert-v1.0/../../patient00001/study1/view1_frontal.jpg",
            "train/patient00001/../view1_frontal.jpg",
            "train/patient00001/study1/..",
            "/etc/passwd",
            "train\\patient00001\\study1\\view1_frontal.jpg",
            "train/patient00001/study1/view1\x00.jpg",
            "train/patient00001/study1/\u202egpj.jpg",
            "=cmd|'/c calc'!A1",
            "",
            "train/patient00001/study1/" + "a" * 5000 + ".jpg",
        ],
    )
    def test_unsafe_paths(self, tmp_path: Path, path: str) -> None:
        self.publish(tmp_path, "")
        rows = self.rows("")
        write_table(tmp_path / "train.csv", *rows, f'"{path}",Male,1,Frontal,PA{self.BLANK}')
        listing = scan_source("chexpert", tmp_path, {})
        assert reasons(listing)["train.csv, line 6"] == "unsafe_path"
        assert listing.found["images"] == 4
        assert_nothing_lost(listing, tmp_path)

    def test_truncated_rows_links_and_copies(self, tmp_path: Path) -> None:
        outside = write_tree(tmp_path / "outside", "secret.jpg")
        root = self.publish(tmp_path / "set", "")
        header, *rows = self.rows("")
        write_table(root / "train.csv", header, *rows, rows[0][:60])
        linked = root / "train/patient00001/study2/view1_frontal.jpg"
        linked.unlink()
        linked.symlink_to(outside / "secret.jpg")
        (root / "train/patient00009/study1").mkdir(parents=True)
        (root / "train/patient00009/study1/view1_frontal.jpg").symlink_to(outside)
        write_tree(root, "backup/train/patient00001/study1/view2_lateral.jpg")
        listing = scan_source("chexpert", root, {})
        assert reasons(listing) == {
            "backup/train/patient00001/study1/view2_lateral.jpg": "duplicate_image",
            "train.csv, line 6": "unreadable_row",
            "train/patient00001/study2/view1_frontal.jpg": "link_outside_root",
            "train/patient00007/study1/view1_frontal.jpg": "not_in_table",
            "train/patient00009/study1/view1_frontal.jpg": "link_outside_root",
        }

    def test_refused_trees(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"expected 'train.csv' or 'valid.csv'; found noth"):
            scan_source("chexpert", tmp_path, {})
        write_table(tmp_path / "a/train.csv", *self.rows("CheXpert-v1.0/"))
        with pytest.raises(DatasetError, match=r"name 4 images and none of them is there"):
            scan_source("chexpert", tmp_path, {})
        write_table(tmp_path / "b/train.csv", *self.rows("CheXpert-v1.0-small/"))
        with pytest.raises(DatasetError, match=r"'a/train.csv' and 'b/train.csv' both stand"):
            scan_source("chexpert", tmp_path, {})
        with pytest.raises(DatasetError, match="lacks the column 'Lung Lesion'"):
            (tmp_path / "b/train.csv").unlink()
            write_table(tmp_path / "a/train.csv", self.HEADER.replace("Lung Lesion", "Lesion"))
            scan_source("chexpert", tmp_path, {})


class TestMimicCxr:
    LABELS = sorted(CHEXPERT_FINDINGS)
    PREFIX = "mimic-cxr-2.0.0-"

    def publish(self, root: Path, suffix: str = ".csv.gz", version: str = "2.0.0") -> Path:
        """Studies 51 (PA, LL) and 52 (no view) of one patient; 53 and 54 of another.

        53 has no labels, the image of 54 no file, and no row names the file cc-2.
        """
        start = root / f"mimic-cxr-{version}-"
        header = (
            "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,"
            "Rows,Columns,StudyDate"
        )
        write_table(
            Path(f"{start}metadata{suffix}"),
            header,
            'aa-1,10000032,51,"CHEST (PA, LAT)",PA,3056,2544,21800506',
            "aa-2,10000032,51,CHEST,LATERAL,3056,2544,21800506",
            "bb-1,10000032,52,CHEST,,3056,2544,21820626",
            "cc-1,11000001,53,CHEST,AP,3056,2544,21470101",
            "dd-1,11000001,54,CHEST,LPO,3056,2544,21480101",
        )
        words = {"aa-1": "train", "aa-2": "train", "bb-1": "train", "cc-1": "validate"}
        words["zz-9"] = "test"
        rows = [f"{dicom},0,0,{word}" for dicom, word in words.items()]
        write_table(Path(f"{start}split{suffix}"), "dicom_id,study_id,subject_id,split", *rows)
        for labeler, value in (("chexpert", "-1.0"), ("negbio", "0.0")):
            write_table(
                Path(f"{start}{labeler}{suffix}"),
                "subject_id,study_id," + ",".join(self.LABELS),
                f"10000032,51,1.0,{value}" + "," * 12,
                "10000032,52" + "," * 14,
                "11000001,54,1.0" + "," * 13,
                "19999999,99,1.0" + "," * 13,
            )
        return write_tree(
            root,
            "files/p10/p10000032/s51/aa-1.jpg",
            "files/p10/p10000032/s51/aa-2.jpg",
            "files/p10/p10000032/s52/bb-1.jpg",
            "files/p11/p11000001/s53/cc-1.jpg",
            "files/p11/p11000001/s53/cc-2.jpg",
            "files/p11/p11000001/s53/index.html",
        )

    @pytest.mark.parametrize("folder", ["", "physionet.org/files/mimic-cxr-jpg/2.1.0"])
    @pytest.mark.parametrize(
        ("suffix", "version"), [(".csv.gz", "2.0.0"), (".csv", "2.0.0"), (".csv.gz", "2.1.0")]
    )
    def test_labels_views_and_what_does_not_match(
        self, tmp_path: Path, folder: str, suffix: str, version: str
    ) -> None:
        self.publish(tmp_path / folder, suffix, version)
        listing = scan_source("mimic_cxr", tmp_path, {})
        records = {Path(r.name).stem: r for r in by_name(listing).values()}
        assert listing.findings == CHEXPERT_FINDINGS
        assert records["aa-1"].findings == {"Atelectasis": 1, "Cardiomegaly": -1}
        assert records["aa-1"].findings is records["aa-2"].findings
        assert records["aa-1"].labels == {"view": "frontal", "projection": "PA", "study": "51"}
        assert records["aa-2"].labels["view"] == "lateral"
        assert records["bb-1"].labels == {"study": "52"}
        assert (records["bb-1"].findings, records["bb-1"].problem) == ({}, None)
        assert records["dd-1"].image.name == "dd-1.jpg"
        assert records["dd-1"].name.endswith("files/p11/p11000001/s54/dd-1.jpg")
        splits = [records[name].official_split for name in ("aa-1", "cc-1", "dd-1")]
        assert splits == ["train", "validation", None]
        assert {r.patient_id for r in listing.records} == {"10000032", "11000001", None}
        assert {Path(name).stem: reason for name, reason in reasons(listing).items()} == {
            "cc-1": "missing_label",
            "cc-2": "not_in_table",
            "dd-1": "missing_image",
        }
        assert listing.found == {
            "files that no table names": 1,
            "images": 4,
            "images named by the tables": 5,
            "images named without a file": 1,
            "images of which every label is blank": 1,
            "images without a ViewPosition": 1,
            "images without an official split": 1,
            "label rows of no study": 1,
            "patients": 2,
            "rows of labels": 4,
            "rows of metadata": 5,
            "split rows of no image": 1,
            "official split train": 3,
            "official split validation": 1,
            "studies": 3,
            "studies named by the metadata": 4,
            "studies without a label row": 1,
            "view frontal": 2,
            "view lateral": 1,
            "view unknown": 1,
        }
        unread = {".csv": 1} if suffix == ".csv" else {".gz": 1}
        assert listing.ignored_files == {**unread, ".html": 1}
        assert_nothing_lost(listing, tmp_path)

    def test_the_other_labeler_and_views(self, tmp_path: Path) -> None:
        self.publish(tmp_path)
        options = {"labeler": "negbio", "views": ["frontal", "unknown"]}
        listing = scan_source("mimic_cxr", tmp_path, options)
        record = by_name(listing)["files/p10/p10000032/s51/aa-1.jpg"]
        assert record.findings == {"Atelectasis": 1, "Cardiomegaly": 0}
        assert listing.left_out == {"view lateral": 1}
        with pytest.raises(ConfigurationError, match=r"'negbi' is not .*did you mean 'negbio'"):
            scan_source("mimic_cxr", tmp_path, {"labeler": "negbi"})

    def test_sex_and_age_from_mimic_iv(self, tmp_path: Path) -> None:
        self.publish(tmp_path)
        write_table(
            tmp_path / "hosp/patients.csv.gz",
            "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
            "10000032,F,52,2180,2014 - 2016,",
            "11000001,M,89,2080,2014 - 2016,",
            "cut",
        )
        listing = scan_source("mimic_cxr", tmp_path, {})
        records = {Path(r.name).stem: r.labels for r in listing.records}
        assert [records[name].get("age") for name in ("aa-1", "bb-1", "cc-1")] == [52, 54, None]
        assert [records[name].get("sex") for name in ("aa-1", "cc-1")] == ["F", "M"]
        assert listing.found["ages above 120, taken as unknown"] == 2
        assert listing.found["rows of patients that cannot be read"] == 1

    def test_who_is_above_89_has_no_other_age_in_mimic_iv(self, tmp_path: Path) -> None:
        self.publish(tmp_path)
        patients = "subject_id,gender,anchor_age,anchor_year"
        write_table(tmp_path / "patients.csv", patients, "10000032,F,91,2181")
        listing = scan_source("mimic_cxr", tmp_path, {})
        ages = {Path(r.name).stem: r.labels.get("age") for r in listing.records}
        assert [ages[name] for name in ("aa-1", "aa-2", "bb-1")] == [None, None, 91]
        words = "ages before a year in which the patient was above 89, taken as unknown"
        assert listing.found[words] == 2

    def test_damaged_tables(self, tmp_path: Path) -> None:
        self.publish(tmp_path)
        start = f"{tmp_path}/{self.PREFIX}"
        columns = "dicom_id,subject_id,study_id,ViewPosition"
        write_table(
            Path(f"{start}metadata.csv.gz"),
            columns,
            "../../../etc/passwd,1,2,PA",
            "aa-1,10000032,51,PA",
            "aa-1,10000032,51,AP",
            "aa-2,../1,51,PA",
            "bb-1,11000001,52,PA",
            "cc-1,11000001",
        )
        write_table(
            Path(f"{start}split.csv.gz"), "dicom_id,split", "bb-1,train", "bb-1,test", "aa-1,dev"
        )
        listing = scan_source("mimic_cxr", tmp_path, {})
        table = f"{self.PREFIX}metadata.csv.gz"
        found = reasons(listing)
        assert [found[f"{table}, line {line}"] for line in (2, 5, 7)] == ["unreadable_row"] * 3
        assert found["files/p10/p10000032/s51/aa-1.jpg"] == "conflicting_rows"
        assert found["files/p11/p11000001/s52/bb-1.jpg"] == "missing_image"
        assert found["files/p10/p10000032/s52/bb-1.jpg"] == "not_in_table"
        assert_nothing_lost(listing, tmp_path)

    def test_labels_of_another_patient_or_twice(self, tmp_path: Path) -> None:
        self.publish(tmp_path)
        header = "subject_id,study_id," + ",".join(self.LABELS)
        write_table(
            tmp_path / f"{self.PREFIX}chexpert.csv.gz",
            header,
            "11000001,51" + "," * 14,
            "10000032,52,1.0" + "," * 13,
            "10000032,52,0.0" + "," * 13,
            "11000001,53,maybe" + "," * 13,
            "11000001,x" + "," * 14,
        )
        listing = scan_source("mimic_cxr", tmp_path, {})
        found = {Path(name).stem: reason for name, reason in reasons(listing).items()}
        assert [found[name] for name in ("aa-1", "bb-1", "cc-1")] == [
            "conflicting_rows",
            "conflicting_rows",
            "unreadable_label",
        ]
        table = f"{self.PREFIX}chexpert.csv.gz"
        assert reasons(listing)[f"{table}, line 6"] == "unreadable_row"

    def test_splits_of_other_words(self, tmp_path: Path) -> None:
        self.publish(tmp_path)
        write_table(
            tmp_path / f"{self.PREFIX}split.csv.gz",
            "dicom_id,split",
            "aa-1,dev",
            "bb-1,train",
            "bb-1,test",
            "cc-1,test",
        )
        listing = scan_source("mimic_cxr", tmp_path, {})
        problems = {Path(r.name).stem: r.problem for r in listing.records}
        assert problems["aa-1"][0] == problems["bb-1"][0] == "unreadable_split"
        assert "'train and test'; expected train, validate, test" in problems["bb-1"][1]
        (tmp_path / f"{self.PREFIX}split.csv.gz").unlink()
        listing = scan_source("mimic_cxr", tmp_path, {})
        assert {r.official_split for r in listing.records} == {None}
        assert listing.found["images without an official split"] == 5

    def test_refused_trees(self, tmp_path: Path) -> None:
        self.publish(tmp_path)
        split = tmp_path / f"{self.PREFIX}split.csv"
        split.write_text("dicom_id,split\n")
        with pytest.raises(DatasetError, match="both stand below the dataset's folder and"):
            scan_source("mimic_cxr", tmp_path, {})
        split.unlink()
        metadata = tmp_path / f"{self.PREFIX}metadata.csv.gz"
        metadata.write_bytes(metadata.read_bytes()[:-20])
        with pytest.raises(DatasetError, match=r"metadata.csv.gz' cannot be read"):
            scan_source("mimic_cxr", tmp_path, {})
        metadata.unlink()
        with pytest.raises(DatasetError, match=r"expected 'mimic-cxr-2.0.0-metadata.csv.gz'"):
            scan_source("mimic_cxr", tmp_path, {})


HEADERS = {
    "Data_Entry_2017.csv": ",OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],",
    "Data_Entry_2017_v2020.csv": ",OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]",
    "Data_Entry_2017_quoted.csv": ',"OriginalImage[Width,Height]","PixelSpacing[x,y]"',
    "sample_labels.csv": ",OriginalImageWidth,OriginalImageHeight,Spacing_x,Spacing_y",
}


class TestChestXray14:
    FIRST = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    )
    ROWS = (
        "00000001_000.png,Cardiomegaly|Effusion,0,1,058Y,M,PA",
        "00000001_001.png,No Finding,1,1,412,M,AP",
        "00000002_000.png,Pleural_Thickening,0,2,018M,F,AP",
    )

    def publish(self, root: Path, table: str, places: tuple[str, ...], *rows: str) -> Path:
        end = ",2682,2749,0.143,0.143" + ("," if HEADERS[table].endswith(",") else "")
        lines = [f"{row}{end}" for row in rows or self.ROWS]
        write_table(root / table, self.FIRST + HEADERS[table], *lines)
        return write_tree(root, *places)

    @pytest.mark.parametrize("table", HEADERS)
    @pytest.mark.parametrize(
        "folders",
        [
            ("images",) * 3,
            ("images_001/images", "images_001/images", "images_012/images"),
            ("",) * 3,
        ],
    )
    def test_every_header_and_folder(
        self, tmp_path: Path, table: str, folders: tuple[str, ...]
    ) -> None:
        names = [row.split(",")[0] for row in self.ROWS]
        places = tuple(
            f"{folder}/{name}".lstrip("/") for folder, name in zip(folders, names, strict=True)
        )
        self.publish(tmp_path, table, (*places, "stray.png"))
        (tmp_path / "train_val_list.txt").write_text(f"{names[0]}\n{names[1]}\n")
        (tmp_path / "test_list.txt").write_text(f"{names[2]}\r\nabsent_000.png\n")
        listing = scan_source("chestxray14", tmp_path, {})
        first, second, third = (by_name(listing)[place] for place in places)
        assert listing.findings == LABEL_SETS["chestxray14_with_no_finding"]
        assert tuple(first.findings) == listing.findings
        present = [{n for n, v in r.findings.items() if v == 1} for r in (first, second, third)]
        assert present == [
            {"Cardiomegaly", "Pleural Effusion"},
            {"No Finding"},
            {"Pleural Thickening"},
        ]
        assert all(set(r.findings.values()) == {0, 1} for r in (first, second, third))
        assert first.labels == {
            "sex": "M",
            "age": 58,
            "view": "frontal",
            "projection": "PA",
            "study": "1/0",
        }
        assert "age" not in second.labels
        assert (third.labels["age"], third.patient_id) == (1, "2")
        splits = [r.official_split for r in (first, second, third)]
        assert splits == ["train", "train", "test"]
        assert reasons(listing) == {"stray.png": "not_in_table"}
        assert counted(listing) == {
            "ages above 120, taken as unknown": 1,
            "files that no table names": 1,
            "listed names without a row": 1,
            "rows in the table": 3,
            "official split test": 1,
            "official split train": 2,
            "view frontal": 3,
        }
        assert listing.ignored_files == {}
        assert_nothing_lost(listing, tmp_path)

    def test_the_sample_as_it_is_archived_twice(self, tmp_path: Path) -> None:
        names = [row.split(",")[0] for row in self.ROWS[:2]]
        copies = [f"{folder}/{n}" for n in names for folder in ("images", "sample/images")]
        self.publish(tmp_path, "sample_labels.csv", tuple(copies))
        self.publish(tmp_path / "sample", "sample_labels.csv", ("masks/00000002_000.png",))
        write_tree(tmp_path, "zzz/images/00000002_000.png")
        listing = scan_source("chestxray14", tmp_path, {})
        assert reasons(listing) == {
            "sample/images/00000001_000.png": "duplicate_image",
            "sample/images/00000001_001.png": "duplicate_image",
            "sample/masks/00000002_000.png": "duplicate_image",
        }
        assert listing.found["further copies of images"] == 3
        assert listing.ignored_files == {".csv": 1}

    def test_several_tables_and_a_chosen_one(self, tmp_path: Path) -> None:
        self.publish(tmp_path, "Data_Entry_2017.csv", ("images/00000001_000.png",))
        self.publish(tmp_path, "Data_Entry_2017_v2020.csv", (), self.ROWS[0])
        with pytest.raises(DatasetError, match=r"several tables \(Data_Entry_2017.csv, .*option"):
            scan_source("chestxray14", tmp_path, {})
        listing = scan_source("chestxray14", tmp_path, {"table": "Data_Entry_2017_v2020.csv"})
        assert [record.problem for record in listing.records] == [None]
        with pytest.raises(DatasetError, match=r"expected the table 'other.csv'"):
            scan_source("chestxray14", tmp_path, {"table": "other.csv"})
        with pytest.raises(DatasetError, match=r"expected 'Data_Entry_2017.csv' or"):
            scan_source("chestxray14", write_tree(tmp_path / "empty", "a.png"), {})

    @pytest.mark.parametrize(
        ("row", "name", "reason"),
        [
            ("a.png,,0,1,1,F,PA", "images/a.png", "missing_label"),
            ("a.png,Cardiomegali,0,1,1,F,PA", "images/a.png", "unreadable_label"),
            ("a.png,Mass||Hernia,0,1,1,F,PA", "images/a.png", "unreadable_label"),
            ("a.png,No Finding|Mass,0,1,1,F,PA", "images/a.png", "ambiguous_label"),
            ("a.png,Mass,0,../x,1,F,PA", "images/a.png", "unreadable_patient"),
            ("../a.png,Mass,0,1,1,F,PA", "Data_Entry_2017.csv, line 2", "unsafe_path"),
            ("images/a.png,Mass,0,1,1,F,PA", "Data_Entry_2017.csv, line 2", "unsafe_path"),
            ("b.png,Mass,0,1,1,F,PA", "images/b.png", "missing_image"),
        ],
    )
    def test_rows_that_cannot_be_used(
        self, tmp_path: Path, row: str, name: str, reason: str
    ) -> None:
        places = ("images/a.png", "images/00000001_000.png")
        self.publish(tmp_path, "Data_Entry_2017.csv", places, row, self.ROWS[0])
        listing = scan_source("chestxray14", tmp_path, {})
        assert reasons(listing)[name] == reason
        assert_nothing_lost(listing, tmp_path)

    def test_a_name_in_both_lists(self, tmp_path: Path) -> None:
        self.publish(tmp_path, "Data_Entry_2017.csv", ("images/00000001_000.png",), self.ROWS[0])
        for name in ("train_val_list.txt", "test_list.txt"):
            (tmp_path / name).write_text("00000001_000.png")
        (record,) = scan_source("chestxray14", tmp_path, {}).records
        assert record.problem == (
            "conflicting_split",
            "train_val_list.txt and test_list.txt both name this image",
        )


PIECES = st.sampled_from(
    ["..", "/", "train", "patient00001", "study1", "view1_frontal.jpg", "a.png", "\x00", '"', "é"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(PIECES, max_size=6).map("/".join), max_size=8), st.data())
def test_whatever_the_tables_say_nothing_is_lost(paths: list[str], data: st.DataObject) -> None:
    labels = st.lists(st.sampled_from(["", "1.0", "-1.0", "0", "x", ",", '"']), max_size=16)
    lines = [f"{path},F,3,Frontal,PA,{','.join(data.draw(labels))}" for path in paths]
    with tempfile.TemporaryDirectory() as folder:
        image = "train/patient00002/study1/view1_frontal.jpg"
        write_tree(root := Path(folder), image, image.replace("00002", "00001"), "a.png")
        usable = f"{image},F,3,Frontal,PA{TestChexpert.BLANK}"
        write_table(root / "train.csv", TestChexpert.HEADER, usable, *lines)
        try:
            listing = scan_source("chexpert", root, {})
        except DatasetError as error:
            assert "train.csv" in str(error)  # a quote that nothing closes costs the table
            return
        assert_nothing_lost(listing, root)
        assert by_name(listing)[image].problem is None


class TestShared:
    @pytest.mark.parametrize(
        ("text", "years"),
        [
            ("60", 60),
            ("060Y", 60),
            ("60.0", 60),
            ("018M", 1),
            ("010D", 0),
            ("070W", 1),
            ("120", 120),
            ("121", None),
            ("412", None),
            ("", None),
            ("old", None),
            ("-5", None),
            ("9" * 5000, None),
        ],
    )
    def test_ages(self, tmp_path: Path, text: str, years: int | None) -> None:
        tables = ChestTables(tmp_path)
        assert tables.age(text) == years
        assert tables.found.total() == (years is None and text != "")

    @pytest.mark.parametrize(
        ("projection", "view"),
        [
            ("PA", "frontal"),
            ("ap", "frontal"),
            ("AP AXIAL", "frontal"),
            ("LL", "lateral"),
            ("LATERAL", "lateral"),
            ("XTABLE LATERAL", "lateral"),
            ("LPO", None),
            ("SWIMMERS", None),
            ("", None),
        ],
    )
    def test_views(self, projection: str, view: str | None) -> None:
        assert view_of(projection) == view

    @pytest.mark.parametrize("name", ["chexpert", "mimic_cxr", "chestxray14"])
    def test_cards_state_the_published_numbers(self, name: str) -> None:
        card = load_card(name, CARDS)
        expected = card.expected_counts
        splits = [count for what, count in expected.items() if what.startswith("official split ")]
        assert sum(splits) == card.expected_counts["images"]
        assert set(card.labels) == set(
            LABEL_SETS["chestxray14_with_no_finding" if name == "chestxray14" else name]
        )

    def test_cards_are_compared_before_views_are_left_out(self, tmp_path: Path) -> None:
        TestMimicCxr().publish(tmp_path)
        listing = scan_source("mimic_cxr", tmp_path, {"views": ["frontal"]})
        found = {c.what: c.found for c in compare_counts(load_card("mimic_cxr", CARDS), listing)}
        assert found == {
            "images": 4,
            "studies": 3,
            "patients": 2,
            "studies without a label row": 1,
            "official split train": 3,
            "official split validation": 1,
            "official split test": 0,
        }
