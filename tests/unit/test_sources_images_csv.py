"""The layout ``images_csv``: a table of findings, facts and filters, and the images it names."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nakt_dist.cli import parse_config
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.sources import SourceListing, scan_source
from nakt_dist.sources.images import read_image
from tests.unit.source_trees import by_name, reasons, write_tree

CONFIG = Path(__file__).parents[2] / "configs" / "pack" / "covid_chestxray.yaml"
MODES = {"covid-chestxray/images": {"L", "RGB"}, "nih": {"L", "RGBA"}}
IN_COLUMNS = {"finding_columns": ["Edema", "Mass"]}
IN_ONE_COLUMN = {"findings_column": "finding"}


def publish(root: Path, *rows: str, encoding: str = "utf-8") -> Path:
    """Writes the table, and an empty file for each name a.png to d.png."""
    write_tree(root, *(f"images/{name}.png" for name in "abcd"))
    (root / "metadata.csv").write_bytes("\n".join(rows).encode(encoding))
    return root


def scan(root: Path, **options: object) -> SourceListing:
    return scan_source("images_csv", root, options)


# ---------------------------------------------------------------- findings


def test_a_column_for_each_finding_keeps_what_was_published(tmp_path: Path) -> None:
    publish(tmp_path, "filename,Edema,Mass", "a.png,1,0", "b.png,-1.0,", "c.png,,", "d.png,0.0,1.0")
    listing = scan(tmp_path, **IN_COLUMNS)
    assert listing.findings == ("Edema", "Mass")
    assert {name: record.findings for name, record in by_name(listing).items()} == {
        "images/a.png": {"Edema": 1, "Mass": 0},
        "images/b.png": {"Edema": -1},
        "images/c.png": {},
        "images/d.png": {"Edema": 0, "Mass": 1},
    }


def test_findings_take_their_common_names_and_columns_any(tmp_path: Path) -> None:
    publish(tmp_path, "filename,label_1,label_2", "a.png,1,0")
    columns = {"Effusion": "label_2", "Sarcoidosis": "label_1"}
    listing = scan(tmp_path, finding_columns=columns)
    assert listing.findings == ("Pleural Effusion", "Sarcoidosis")
    assert by_name(listing)["images/a.png"].findings == {"Pleural Effusion": 0, "Sarcoidosis": 1}


def test_a_listed_finding_is_present_and_the_others_are_absent(tmp_path: Path) -> None:
    publish(tmp_path, "filename,finding", 'a.png,"COVID-19, ARDS"', "b.png,Effusion", "c.png,ARDS")
    listing = scan(tmp_path, **IN_ONE_COLUMN)
    assert listing.findings == ("ARDS", "COVID-19", "Pleural Effusion")
    records = by_name(listing)
    assert records["images/a.png"].findings == {"ARDS": 1, "COVID-19": 1, "Pleural Effusion": 0}
    assert records["images/b.png"].findings == {"ARDS": 0, "COVID-19": 0, "Pleural Effusion": 1}


@pytest.mark.parametrize(
    ("separator", "findings"),
    [("/", ("COVID-19, mild", "Pneumonia")), ("", ("Pneumonia/COVID-19, mild",))],
)
def test_the_separator_is_a_setting(
    tmp_path: Path, separator: str, findings: tuple[str, ...]
) -> None:
    publish(tmp_path, "filename,finding", 'a.png,"Pneumonia/COVID-19, mild"')
    assert scan(tmp_path, findings_separator=separator, **IN_ONE_COLUMN).findings == findings


def test_only_the_findings_asked_for_in_their_order_the_others_counted(tmp_path: Path) -> None:
    publish(tmp_path, "filename,finding", 'a.png,"B,C"', "b.png,A", "c.png,C")
    listing = scan(tmp_path, finding_names=["C", "A"], **IN_ONE_COLUMN)
    assert listing.findings == ("C", "A")
    assert by_name(listing)["images/a.png"].findings == {"C": 1, "A": 0}
    assert listing.found["labels besides 'finding_names'"] == 1


def test_rows_that_say_nothing_have_no_label_and_are_counted(tmp_path: Path) -> None:
    publish(tmp_path, "filename,finding", "a.png,", "b.png,TODO", "c.png,todo", "d.png,A")
    listing = scan(tmp_path, unlabelled_values=["todo"], **IN_ONE_COLUMN)
    assert listing.findings == ("A",)
    assert reasons(listing) == {f"images/{name}.png": "missing_label" for name in "abc"}
    assert listing.found["rows without a label"] == 3


def test_without_findings_nothing_is_said_of_any(tmp_path: Path) -> None:
    publish(tmp_path, "filename", "a.png", "b.png", "c.png", "d.png")
    listing = scan(tmp_path)
    assert listing.findings == ()
    assert {record.findings for record in listing.records} == {None}
    assert reasons(listing) == {}


def test_a_cell_that_is_no_label_sets_its_image_aside(tmp_path: Path) -> None:
    publish(tmp_path, "filename,Edema,Mass", "a.png,2,0", "b.png,yes,1", "c.png,1,1", "d.png,0,0")
    assert reasons(scan(tmp_path, **IN_COLUMNS)) == {
        "images/a.png": "unreadable_label",
        "images/b.png": "unreadable_label",
    }


def test_free_text_is_not_taken_for_a_vocabulary(tmp_path: Path) -> None:
    rows = [f"{number}.png,some words {number}" for number in range(300)]
    publish(tmp_path, "filename,finding", *rows)
    with pytest.raises(DatasetError, match="more than 200 different findings"):
        scan(tmp_path, **IN_ONE_COLUMN)


# ---------------------------------------------------------------- facts and filters


def test_facts_take_the_common_form(tmp_path: Path) -> None:
    publish(
        tmp_path,
        "filename,who,study,gender,years,pos,part",
        "a.png,007,s1,female,060Y,AP Supine,Training",
        "b.png,8,s2,M,54,L,Validation",
        "c.png,,,Unknown,,Axial,",
        "d.png,9,,F,400,lateral,Training",
    )
    listing = scan(
        tmp_path,
        patient_column="who",
        study_column="study",
        sex_column="gender",
        age_column="years",
        view_column="pos",
        split_column="part",
        split_names={"Training": "train", "Validation": "validation"},
    )
    records = by_name(listing).values()
    assert [record.patient_id for record in records] == ["007", "8", None, "9"]
    assert [record.official_split for record in records] == ["train", "validation", None, "train"]
    assert [dict(record.labels) for record in records] == [
        {"sex": "F", "age": 60, "view": "frontal", "projection": "AP", "study": "s1"},
        {"sex": "M", "age": 54, "view": "lateral", "study": "s2"},
        {},
        {"sex": "F", "view": "lateral"},
    ]
    assert listing.found["ages above 120, taken as unknown"] == 1


def test_views_and_filters_leave_out_and_count(tmp_path: Path) -> None:
    publish(
        tmp_path,
        "filename,view,modality",
        "a.png,PA,X-ray",
        "b.png,L,X-ray",
        "c.png,Axial,CT",
        "d.png,,X-ray",
        "absent.png,PA,CT",
    )
    listing = scan(
        tmp_path, view_column="view", filters={"modality": ["X-ray"]}, views=["frontal", "unknown"]
    )
    assert [record.name for record in listing.records] == ["images/a.png", "images/d.png"]
    assert listing.left_out == {"filters on modality": 2, "view lateral": 1}


def test_a_vocabulary_holds_no_finding_of_a_row_that_is_filtered_away(tmp_path: Path) -> None:
    publish(tmp_path, "filename,finding,modality", "a.png,A,CT", "b.png,B,X-ray")
    listing = scan(tmp_path, filters={"modality": ["X-ray"]}, **IN_ONE_COLUMN)
    assert listing.findings == ("B",)


@pytest.mark.parametrize("split", ["../evil", "Train", "pseudo", "a/b"])
def test_a_split_that_could_not_name_a_file_is_refused(tmp_path: Path, split: str) -> None:
    publish(tmp_path, "filename,part", f"a.png,{split}")
    with pytest.raises(ConfigurationError, match="split_names"):
        scan(tmp_path, split_column="part")


# ---------------------------------------------------------------- which file a row means


def test_an_image_is_found_by_path_or_name_with_or_without_suffix(tmp_path: Path) -> None:
    write_tree(tmp_path, "images/one/a.png", "images/two/b.jpg", "images/c.png", "images/d.png")
    write_tree(tmp_path, "other/a.png", "other/b.png")
    (tmp_path / "metadata.csv").write_text("filename\none/a.png\nb\n./c.png\nd\n")
    listing = scan(tmp_path, image_folder="images")
    assert reasons(listing) == {}
    assert set(by_name(listing)) == {
        "images/one/a.png", "images/two/b.jpg", "images/c.png", "images/d.png",
    }  # fmt: skip
    assert listing.ignored_files["image outside of 'images'"] == 2


def test_paths_of_windows_are_read(tmp_path: Path) -> None:
    publish(tmp_path, "filename", "images\\a.png", "images/b.png", "c.png", "d.png")
    assert reasons(scan(tmp_path)) == {}


def test_what_table_and_folder_do_not_share_is_set_aside_and_counted(tmp_path: Path) -> None:
    publish(tmp_path, "filename,Edema,Mass", "a.png,1,1", "absent.png,1,0", "b.png,0,0")
    listing = scan(tmp_path, image_folder="images", **IN_COLUMNS)
    assert reasons(listing) == {
        "images/absent.png": "missing_image",
        "images/c.png": "not_in_table",
        "images/d.png": "not_in_table",
    }
    assert listing.found["images named without a file"] == 1
    assert listing.found["files that no table names"] == 2


def test_a_name_of_several_files_is_ambiguous(tmp_path: Path) -> None:
    write_tree(tmp_path, "p1/x.png", "p2/x.png", "p3/y.png")
    (tmp_path / "metadata.csv").write_text("filename\nx.png\np3/y.png\n")
    assert reasons(scan(tmp_path)) == {"p1/x.png": "ambiguous_name", "p2/x.png": "duplicate_image"}


def test_rows_that_repeat_are_one_and_rows_that_contradict_are_none(tmp_path: Path) -> None:
    rows = ["a.png,1,0", "a.png,1,0", "b.png,1,0", "images/b.png,1,1", "c.png,0,0", "d.png,0,0"]
    publish(tmp_path, "filename,Edema,Mass", *rows)
    listing = scan(tmp_path, **IN_COLUMNS)
    assert reasons(listing) == {"images/b.png": "conflicting_rows"}
    assert listing.found["rows that repeat another"] == 1


@pytest.mark.parametrize("path", ["../a.png", "/etc/passwd", "x/../../a.png", "", "a\0.png"])
def test_a_path_that_leaves_the_folder_is_never_looked_for(tmp_path: Path, path: str) -> None:
    publish(tmp_path, "filename,Edema,Mass", f"{path},1,0", *(f"{n}.png,0,0" for n in "abcd"))
    listing = scan(tmp_path, **IN_COLUMNS)
    assert list(reasons(listing).values()) == ["unsafe_path"]
    assert all(record.image.is_relative_to(tmp_path) for record in listing.records)


# ---------------------------------------------------------------- the table itself


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_letters_of_windows_are_read_and_counted(tmp_path: Path, encoding: str) -> None:
    publish(tmp_path, "filename,finding,Größe", "a.png,Œdème,1", "b.png,Mass,2", encoding=encoding)
    listing = scan(tmp_path, filters={"Größe": ["1", "2"]}, **IN_ONE_COLUMN)
    assert listing.findings == ("Mass", "Œdème")
    counted = listing.found.get("lines that are not UTF-8, read as Windows-1252", 0)
    assert counted == (2 if encoding == "cp1252" else 0)


def test_quoted_commas_and_line_breaks_and_an_empty_last_column_are_read(tmp_path: Path) -> None:
    publish(
        tmp_path,
        "note,filename,Edema,Mass,",
        '"Seoul, ""Korea""\nsecond line",a.png,1,0,',
        "plain,b.png,0,1,",
        "",
        "no last cell,c.png,0,1",
    )
    listing = scan(tmp_path, **IN_COLUMNS)
    assert by_name(listing)["images/a.png"].findings == {"Edema": 1, "Mass": 0}
    assert by_name(listing)["images/b.png"].findings == {"Edema": 0, "Mass": 1}
    assert by_name(listing)["images/c.png"].findings == {"Edema": 0, "Mass": 1}
    assert listing.found["rows in the table"] == 3


def test_a_row_with_shifted_cells_is_set_aside(tmp_path: Path) -> None:
    rows = ["a.png,Seoul, Korea,1,0", "b.png,Ulm,1,0", "c.png,Ulm,1", "d.png,Ulm,0,0"]
    publish(tmp_path, "filename,place,Edema,Mass", *rows)
    assert reasons(scan(tmp_path, **IN_COLUMNS)) == {
        "images/a.png": "not_in_table",
        "images/c.png": "not_in_table",
        "metadata.csv, line 2": "unreadable_row",
        "metadata.csv, line 4": "unreadable_row",
    }


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, "filename,Edema,Mass,Edema", "a.png,1,0,0")
    with pytest.raises(DatasetError, match="'Edema' twice"):
        scan(tmp_path, **IN_COLUMNS)


def test_a_column_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    publish(tmp_path, "filename,Oedema,Mass", "a.png,1,0")
    with pytest.raises(DatasetError, match="lacks the column 'Edema', did you mean 'Oedema'"):
        scan(tmp_path, **IN_COLUMNS)


def test_a_table_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    publish(tmp_path, "filename")
    with pytest.raises(DatasetError, match=r"meta\.csv.*did you mean 'metadata\.csv'"):
        scan(tmp_path, table="meta.csv")


def test_a_table_without_a_row_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, "filename,finding")
    with pytest.raises(DatasetError, match=r"'metadata\.csv': has no row below the header"):
        scan(tmp_path, **IN_ONE_COLUMN)


def test_filters_that_leave_no_row_are_refused(tmp_path: Path) -> None:
    publish(tmp_path, "filename,modality", "a.png,CT", "b.png,MR")
    with pytest.raises(DatasetError, match=r"leaves none of its 2 rows \(filters on modality\)"):
        scan(tmp_path, filters={"modality": ["X-ray"]})


def test_a_folder_of_images_that_is_a_link_out_of_the_dataset_is_named(tmp_path: Path) -> None:
    publish(tmp_path / "real", "filename")
    root = tmp_path / "root"
    root.mkdir()
    (root / "metadata.csv").write_text("filename\na.png\n")
    (root / "images").symlink_to(tmp_path / "real" / "images")
    with pytest.raises(DatasetError, match=r"The link 'images' leads to a folder outside"):
        scan(root, image_folder="images")
    write_tree(root, "other/z.png")
    with pytest.raises(DatasetError, match=r"none of them is there.* The link 'images' leads to"):
        scan(root)


def test_patients_that_are_nobody_or_one_number_are_counted(tmp_path: Path) -> None:
    rows = ["a.png,1", "b.png,01", "c.png,nan", "d.png,"]
    publish(tmp_path, "filename,patient", *rows)
    listing = scan(tmp_path, patient_column="patient")
    assert [record.patient_id for record in listing.records] == ["1", "01", None, None]
    assert listing.found["rows that name no patient"] == 2
    told = "patients whose names are one number, such as '1' and '01', taken as several"
    assert listing.found[told] == 2


@pytest.mark.parametrize("cells", [("1", "2", "p1", "p01"), ("0" * 39 + "1", "x", "1e0", "")])
def test_patients_of_different_numbers_are_not_alike(tmp_path: Path, cells: list[str]) -> None:
    rows = [f"{name}.png,{cell}" for name, cell in zip("abcd", cells, strict=True)]
    publish(tmp_path, "filename,patient", *rows)
    found = scan(tmp_path, patient_column="patient").found
    assert not any("one number" in words for words in found)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, "filename", "a.png")
    with pytest.raises(DatasetError, match="images below 'pictures'"):
        scan(tmp_path, image_folder="pictures")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**IN_COLUMNS, **IN_ONE_COLUMN}, "both set"),
        ({"finding_names": ["Mass"]}, "without 'findings_column'"),
        ({"finding_columns": ["Mass", "Mass"]}, "'Mass' twice"),
        ({"finding_columns": {"Effusion": "a", "Pleural Effusion": "b"}}, "Effusion' twice"),
        ({"finding_columns": [""]}, "empty name"),
        ({"finding_columns": {"Mass": 3}}, r"expected mapping\[str, str\]"),
        ({"filters": {"modality": "X-ray"}}, r"expected mapping\[str, list\[str\]\]"),
        ({"views": ["side"]}, "'side' is not a value of 'views'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    publish(tmp_path, "filename,finding,Edema,Mass", "a.png,A,1,0")
    with pytest.raises(ConfigurationError, match=message):
        scan(tmp_path, **options)


# ---------------------------------------------------------------- the published collection


@pytest.fixture
def covid(real_data: Path) -> SourceListing:
    options = parse_config("pack", [f"--config={CONFIG}"]).layout_options
    return scan_source("images_csv", real_data / "covid-chestxray", options)


@pytest.mark.realdata
def test_the_covid_collection_is_read_whole(covid: SourceListing) -> None:
    assert reasons(covid) == {}
    assert len(covid.records) == 55
    assert covid.found["patients"] == len({record.patient_id for record in covid.records}) == 30
    assert covid.findings == ("ARDS", "COVID-19")
    assert all(record.findings["COVID-19"] == 1 for record in covid.records)
    assert sum(record.findings["ARDS"] for record in covid.records) == 9
    facts = [record.labels for record in covid.records]
    assert Counter(each["view"] for each in facts) == {"frontal": 55}
    assert Counter(each["projection"] for each in facts) == {"PA": 37, "AP": 18}
    assert Counter(each.get("sex") for each in facts) == {"F": 28, "M": 24, None: 3}
    assert sum("age" in each for each in facts) == 51
    assert covid.ignored_files["image outside of 'images'"] == 55


@pytest.mark.realdata
@pytest.mark.parametrize("folder", MODES)
def test_every_mode_of_the_published_files_is_read_as_pillow_shows_it(
    real_data: Path, folder: str
) -> None:
    seen = set()
    for path in sorted((real_data / folder).rglob("*.[jp]*g")):
        with Image.open(path) as image:
            if image.mode in seen or image.width * image.height > 2_000_000:
                continue
            seen.add(image.mode)
            on_black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            on_black.alpha_composite(image.convert("RGBA"))
            mode, shown = image.mode, np.asarray(on_black.convert("L"), dtype=int)
        pixels, info = read_image(path, "grey", 2_000_000, "min_max")
        assert (info["mode"], pixels.shape) == (mode, shown.shape)
        assert np.abs(pixels - shown).max() <= 1
    assert seen == MODES[folder]
