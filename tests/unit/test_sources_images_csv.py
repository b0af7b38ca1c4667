"""The layout ``images_csv``: a table of findings, facts and filters, and the images it names."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nakt_dist.cli import parse_config
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.imaging.images import read_image
from nakt_dist.sources import SourceListing, scan_source
from nakt_dist.sources.listed_findings import NEARLY_ALIKE, UNITED, UNLISTED
from nakt_dist.sources.named_files import LOOSELY_SPELT, OTHER_FOLDERS
from nakt_dist.sources.patients import SPELT_APART
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
    assert not {"studies", "patients"} & listing.found.keys()
    assert reasons(listing) == {}


def test_a_cell_that_is_no_label_sets_its_image_aside(tmp_path: Path) -> None:
    publish(tmp_path, "filename,Edema,Mass", "a.png,2,0", "b.png,maybe,1", "c.png,1,1", "d.png,0,0")
    assert reasons(scan(tmp_path, **IN_COLUMNS)) == {
        "images/a.png": "unreadable_label",
        "images/b.png": "unreadable_label",
    }


@pytest.mark.parametrize("word", ["True", "yes", "Y", "POSITIVE", "present", "1.00", "1."])
@pytest.mark.parametrize("other", ["false", "No", "n", "Negative", "ABSENT", "0.000"])
def test_words_for_yes_and_no_are_labels(tmp_path: Path, word: str, other: str) -> None:
    publish(tmp_path, "filename,Edema,Mass", f"a.png,{word},{other}", "b.png,-1,", "c.png,0,1")
    records = by_name(scan(tmp_path, **IN_COLUMNS))
    assert records["images/a.png"].findings == {"Edema": 1, "Mass": 0}
    assert records["images/b.png"].findings == {"Edema": -1}


@pytest.mark.parametrize("word", ["2", "1,0", "0.5", "10", "1.01", "maybe", "x", "-True", "on"])
def test_other_words_are_no_labels(tmp_path: Path, word: str) -> None:
    publish(tmp_path, "filename,Edema,Mass", f'a.png,"{word}",0', "b.png,1,0")
    listing = scan(tmp_path, **IN_COLUMNS)
    assert reasons(listing)["images/a.png"] == "unreadable_label"


def test_spellings_of_one_finding_are_united_and_said(tmp_path: Path) -> None:
    cells = ["Edema", "edema", "EDEMA ", "Pleural  effusion", "Effusion", "no finding", "foo bar"]
    cells += ["Foo_Bar", "foo bar", "pleural\u00a0effusion\u200b"]
    write_tree(tmp_path, *(f"{number}.png" for number in range(len(cells))))
    rows = [f"{number}.png,{cell}" for number, cell in enumerate(cells)]
    (tmp_path / "metadata.csv").write_text("\n".join(["filename,finding", *rows]), encoding="utf-8")
    listing = scan(tmp_path, **IN_ONE_COLUMN)
    assert listing.findings == ("Edema", "No Finding", "Pleural Effusion", "foo bar")
    present = [next(name for name, value in record.findings.items() if value == 1) for record in
               sorted(listing.records, key=lambda record: int(record.image.stem))]  # fmt: skip
    assert present == ["Edema"] * 3 + ["Pleural Effusion"] * 2 + ["No Finding"] + [
        "foo bar"
    ] * 3 + ["Pleural Effusion"]
    assert listing.found[UNITED] == 3
    assert listing.examples[UNITED] == "'Edema', also written 'EDEMA', 'edema'"


def test_the_findings_asked_for_meet_other_spellings(tmp_path: Path) -> None:
    publish(tmp_path, "filename,finding", "a.png,sarcoidosis", "b.png,EFFUSION", "c.png,other")
    listing = scan(tmp_path, finding_names=["Sarcoidosis", "Effusion"], **IN_ONE_COLUMN)
    assert by_name(listing)["images/a.png"].findings == {"Sarcoidosis": 1, "Pleural Effusion": 0}
    assert by_name(listing)["images/b.png"].findings == {"Sarcoidosis": 0, "Pleural Effusion": 1}
    assert listing.found["labels besides 'finding_names'"] == 1


def test_a_finding_asked_for_that_no_row_lists_is_said(tmp_path: Path) -> None:
    publish(tmp_path, "filename,finding", "a.png,Pneumonia", "b.png,Edema")
    listing = scan(tmp_path, finding_names=["Pnuemonia", "Edema"], **IN_ONE_COLUMN)
    assert (listing.found[UNLISTED], listing.examples[UNLISTED]) == (1, "'Pnuemonia'")
    assert UNLISTED not in scan(tmp_path, finding_names=["Edema"], **IN_ONE_COLUMN).found


def test_findings_that_are_nearly_alike_are_said(tmp_path: Path) -> None:
    publish(tmp_path, "filename,finding", "a.png,Cyst", "b.png,Cysts", "c.png,COVID-19")
    listing = scan(tmp_path, **IN_ONE_COLUMN)
    assert (listing.found[NEARLY_ALIKE], listing.examples[NEARLY_ALIKE]) == (
        2,
        "'Cyst' and 'Cysts'",
    )


def test_a_cell_that_holds_a_list_of_python_lists_what_it_says(tmp_path: Path) -> None:
    rows = ["a.png;['Edema', 'Pleural effusion']", 'b.png;["Mass"]', "c.png;[]", "d.png;Edema"]
    publish(tmp_path, "filename;finding", *rows)
    listing = scan(tmp_path, **IN_ONE_COLUMN)
    assert listing.findings == ("Edema", "Mass", "Pleural Effusion")
    found = by_name(listing)["images/a.png"].findings
    assert found == {"Edema": 1, "Mass": 0, "Pleural Effusion": 1}
    assert reasons(listing) == {"images/c.png": "missing_label"}


@pytest.mark.parametrize(
    "entry",
    ["Edema|Mass", "Foo;Bar", "Edema/Foo", "Edema & Mass", "Edema and Mass", "Edema  Mass"],
)
@pytest.mark.parametrize("names", [[], ["Edema", "Mass"]])
def test_an_entry_of_several_findings_is_set_aside(
    tmp_path: Path, entry: str, names: list[str]
) -> None:
    publish(tmp_path, "filename,finding", f'a.png,"{entry}"', 'b.png,"Edema,Mass"', "c.png,Foo")
    listing = scan(tmp_path, finding_names=names, **IN_ONE_COLUMN)
    assert reasons(listing)["images/a.png"] == "ambiguous_label"
    assert listing.findings == ("Edema", *([] if names else ["Foo"]), "Mass")
    assert by_name(listing)["images/b.png"].findings["Mass"] == 1
    assert listing.found["rows whose findings hold another separator, set aside"] == 1


def test_one_finding_a_cell_may_hold_what_separates_others(tmp_path: Path) -> None:
    rows = ['a.png,"Pneumonia/COVID-19, mild"', 'b.png,"Edema, Mass"', "c.png,Edema"]
    publish(tmp_path, "filename,finding", *rows)
    listing = scan(tmp_path, findings_separator="", **IN_ONE_COLUMN)
    assert listing.findings == ("Edema", "Pneumonia/COVID-19, mild")
    assert reasons(listing)["images/b.png"] == "ambiguous_label"
    whole = scan(
        tmp_path, findings_separator="", finding_names=["Edema, Mass", "Edema"], **IN_ONE_COLUMN
    )
    assert by_name(whole)["images/b.png"].findings == {"Edema, Mass": 1, "Edema": 0}


@pytest.mark.parametrize("names", [[], ["Edema", "Mass"]])
def test_a_wrong_separator_is_refused_with_the_right_one(tmp_path: Path, names: list[str]) -> None:
    write_tree(tmp_path, *(f"{number}.png" for number in range(12)))
    rows = [f"{number}.png,Edema|Mass" for number in range(11)]
    (tmp_path / "metadata.csv").write_text("\n".join(["filename,finding", *rows, "11.png,Edema"]))
    with pytest.raises(
        DatasetError, match=r"11 entries hold '\|', such as 'Edema\|Mass'.*set it to"
    ):
        scan(tmp_path, finding_names=names, **IN_ONE_COLUMN)
    listing = scan(tmp_path, finding_names=names, findings_separator="|", **IN_ONE_COLUMN)
    assert listing.findings == ("Edema", "Mass") and reasons(listing) == {}


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


def test_words_for_a_sex_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    rows = ("a.png,weiblich", "b.png,Unknown", "c.png,female", "d.png,2")
    publish(tmp_path, "filename,sex", *rows)
    listing = scan(tmp_path, sex_column="sex")
    assert [record.labels.get("sex") for record in listing.records] == [None, None, "F", None]
    assert listing.found["sexes that cannot be read, taken as unknown"] == 2


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


@pytest.mark.parametrize(
    ("cell", "file", "words", "example"),
    [
        ("A.PNG", "a.png", LOOSELY_SPELT, "'A.PNG'"),
        ("P1/a.png", "p1/A.PNG", LOOSELY_SPELT, "'P1/a.png'"),
        ("e\u0301.png", "\u00e9.png", LOOSELY_SPELT, "'e\u0301.png'"),
        ("\u00e9", "e\u0301.png", LOOSELY_SPELT, "'\u00e9'"),
        ("images/a.png", "a.png", OTHER_FOLDERS, "'images/'"),
        ("Images/A.png", "a.png", OTHER_FOLDERS, "'Images/'"),
        ("/data/set/images/p1/a.png", "p1/a.png", OTHER_FOLDERS, "'/data/set/'"),
        ("C:\\data\\p1\\a.png", "p1/a.png", OTHER_FOLDERS, "'C:/data/'"),
        ("\\\\server\\share\\a", "a.png", OTHER_FOLDERS, "'//server/share/'"),
        ("\ufeffa.png\u200b", "a.png", None, None),
    ],
)
def test_a_name_written_otherwise_is_matched_and_said(
    tmp_path: Path, cell: str, file: str, words: str | None, example: str | None
) -> None:
    write_tree(tmp_path, f"images/{file}", "images/other.png")
    (tmp_path / "metadata.csv").write_text(f"filename\n{cell}\nother.png\n", encoding="utf-8")
    listing = scan(tmp_path, image_folder="images")
    assert set(by_name(listing)) == {f"images/{file}", "images/other.png"}
    assert reasons(listing) == {}
    assert listing.examples.get(words) == example
    assert listing.found.get(words, 0) == (words is not None)


@pytest.mark.parametrize(
    "cell", ["/data/p2/a.png", "p2/a.png", "C:/p2/a.png", "../images/p1/a.png"]
)
def test_a_file_of_another_folder_is_never_taken(tmp_path: Path, cell: str) -> None:
    write_tree(tmp_path, "images/p1/a.png", "images/b.png")
    (tmp_path / "metadata.csv").write_text(f"filename\n{cell}\nb.png\n")
    found = reasons(scan(tmp_path, image_folder="images"))
    assert found.pop("images/p1/a.png") == "not_in_table"
    assert set(found.values()) <= {"missing_image", "unsafe_path"} and len(found) == 1


def test_two_files_that_a_name_could_mean_are_ambiguous(tmp_path: Path) -> None:
    write_tree(tmp_path, "a.png", "A.PNG", "b.png")
    (tmp_path / "metadata.csv").write_text("filename\nA.png\nb.png\n")
    assert reasons(scan(tmp_path)) == {"A.PNG": "ambiguous_name", "a.png": "duplicate_image"}


def test_a_name_as_written_goes_before_one_in_another_case(tmp_path: Path) -> None:
    write_tree(tmp_path, "a.png", "A.PNG")
    (tmp_path / "metadata.csv").write_text("filename,Edema\na.png,1\nA.PNG,0\n")
    records = by_name(scan(tmp_path, finding_columns=["Edema"]))
    assert records["a.png"].findings == {"Edema": 1}
    assert records["A.PNG"].findings == {"Edema": 0}


@pytest.mark.parametrize(
    ("cell", "cause"),
    [
        ("D:\\x\\a.png", r"1 of 1 names differ .* the folders before .*looked for 'D:/x/a\.png'"),
        ("../a.png", r"looked for '\.\./a\.png', and the file is 'images/a\.png'"),
        ("x/a.png", r"in the folders before the name: looked for 'x/a\.png', and the file is 'im"),
        ("a.dcm", r"in the suffix: looked for 'a\.dcm', and the file is 'images/a\.png'"),
        ("A.DCM", r"in the suffix: looked for 'A\.DCM'"),
        ("z.png", r"4 other images are\)\. Name the files"),
    ],
)
def test_names_that_meet_no_file_are_refused_with_the_likely_cause(
    tmp_path: Path, cell: str, cause: str
) -> None:
    publish(tmp_path, "filename", cell)
    with pytest.raises(DatasetError, match=cause):
        scan(tmp_path)


def test_a_table_without_a_usable_row_is_refused_with_the_first_fault(tmp_path: Path) -> None:
    publish(tmp_path, "filename,Edema,Mass", "a.png;1;0", "b.png;1;0")
    with pytest.raises(DatasetError, match=r"any of their 2 rows.*line 2'.*1 cells; expected 3"):
        scan(tmp_path, **IN_COLUMNS)


# ---------------------------------------------------------------- the table itself


@pytest.mark.parametrize(("separator", "words"), [(";", "';'"), ("\t", "tabs"), ("|", "'|'")])
def test_other_separators_are_read_and_said_and_decimal_commas_stay(
    tmp_path: Path, separator: str, words: str
) -> None:
    rows = ["filename,Edema,Mass,age", "a.png,1,0,54", "b.png,0,1,54"]
    publish(tmp_path, *(row.replace(",", separator) for row in rows), f"c.png{separator}0,5")
    listing = scan(tmp_path, age_column="age", **IN_COLUMNS)
    assert by_name(listing)["images/a.png"].findings == {"Edema": 1, "Mass": 0}
    assert listing.found[f"tables whose columns are separated by {words}"] == 1
    assert reasons(listing)["metadata.csv, line 4"] == "unreadable_row"


def test_numbers_in_settings_are_the_text_of_cells(tmp_path: Path) -> None:
    publish(tmp_path, "filename,1,fold", "a.png,1,0", "b.png,0,1", "c.png,1,2.5", "d.png,0,01")
    listing = scan(tmp_path, finding_columns=[1], filters={"fold": [1, 2.5]})
    assert listing.findings == ("1",)
    assert set(by_name(listing)) == {"images/b.png", "images/c.png"}
    assert listing.left_out == {"filters on fold": 2}


def test_values_of_filters_that_no_row_has_are_said(tmp_path: Path) -> None:
    publish(tmp_path, "filename,modality", "a.png,CT", "b.png,MR")
    listing = scan(tmp_path, filters={"modality": ["CT", "mr"]})
    told = "wanted values of 'filters' that no row has"
    assert (listing.found[told], listing.examples[told]) == (1, "'mr'")
    with pytest.raises(DatasetError, match="No row has 'mr' in 'modality', which holds 'CT', 'MR'"):
        scan(tmp_path, filters={"modality": ["mr"]})


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


def test_patients_that_are_nobody_or_spelt_apart_are_counted(tmp_path: Path) -> None:
    rows = ["a.png,1", "b.png,01", "c.png,nan", "d.png,\u200b"]
    publish(tmp_path, "filename,patient", *rows)
    listing = scan(tmp_path, patient_column="patient")
    assert [record.patient_id for record in listing.records] == ["1", "01", None, None]
    assert listing.found["rows that name no patient"] == 2
    assert listing.found[SPELT_APART] == 1
    assert listing.told()[f"{SPELT_APART} (such as '01' and '1')"] == 1


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
        ({"finding_columns": {"Mass": True}}, r"expected mapping\[str, str\].*True in quotes"),
        ({"filters": {"Mass": [True]}}, r"expected mapping\[str, list\[str\]\].*True in quotes"),
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
