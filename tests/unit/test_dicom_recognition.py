"""DICOM files are known by how they begin, whatever they are called."""

import io
import os
import random
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nakt_dist.config import ImageConfig, PackConfig
from nakt_dist.errors import DatasetError, UnusableSample
from nakt_dist.imaging.decoding import decode_file
from nakt_dist.imaging.dicom_recognition import HEAD_BYTES, is_dicom
from nakt_dist.imaging.images import read_image
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.sources import scan_source
from nakt_dist.sources.files import FoundFile, walk
from nakt_dist.sources.keys import assign_keys
from nakt_dist.stages import pack
from tests.unit.image_files import FORMATS, encoded, gradient

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import FileMetaDataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MediaStorageDirectoryStorage,
)

from tests.unit.dicom_files import RAMP, bytes_of, dataset_of  # noqa: E402

SCALED = np.floor(RAMP * 255.0 / 4032 + 0.5)
ORDERS = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


def film(syntax: str = ExplicitVRLittleEndian) -> bytes:
    return bytes_of(dataset_of(RAMP.byteswap() if syntax == ExplicitVRBigEndian else RAMP), syntax)


def without_meta(content: bytes) -> bytes:
    """Returns the data set alone, as applications of before 1993 write it."""
    return content[144 + struct.unpack_from("<I", content, 140)[0] :]


FORMS = {
    "whole": lambda content: content,
    "any_preamble": lambda content: b"II*\0" + b"\x01" * 124 + content[128:],
    "no_preamble": lambda content: content[132:],
    "no_mark": lambda content: content[:128] + content[132:],
    "mark_alone": lambda content: content[:132] + without_meta(content),
    "data_set_alone": without_meta,
    "data_set_after_preamble": lambda content: bytes(128) + without_meta(content),
}


@pytest.mark.parametrize("syntax", ORDERS)
@pytest.mark.parametrize("form", FORMS)
def test_a_dicom_file_is_read_with_and_without_its_beginning(
    tmp_path: Path, syntax: str, form: str
) -> None:
    path = tmp_path / "IM0001"
    path.write_bytes(FORMS[form](film(syntax)))
    assert is_dicom(path.read_bytes()[:HEAD_BYTES])
    pixels, info = read_image(path, "grey", 10_000, "min_max")
    np.testing.assert_array_equal(pixels, SCALED)
    assert info["format"] == "DICOM"


def test_a_deflated_file_without_its_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "IM0001"
    path.write_bytes(bytes_of(dataset_of(RAMP), DeflatedExplicitVRLittleEndian)[132:])
    np.testing.assert_array_equal(read_image(path, "grey", 10_000, "min_max")[0], SCALED)


def test_a_compressed_file_that_does_not_say_how_is_set_aside(tmp_path: Path) -> None:
    picture = pydicom.encaps.encapsulate([encoded(RAMP, "JPEG2000", no_jp2=True)])
    path = tmp_path / "IM0001"
    path.write_bytes(without_meta(bytes_of(dataset_of(RAMP, PixelData=picture), JPEG2000Lossless)))
    with pytest.raises(UnusableSample, match="TransferSyntaxUID") as caught:
        read_image(path, "grey", 10_000, "min_max")
    assert caught.value.reason == "unsupported_dicom"


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("a.dcm", film())
    return buffer.getvalue()


OTHERS = {
    "text_with_the_mark": b"a" * 128 + b"DICM is written after 128 bytes",
    "zeros_with_the_mark": bytes(128) + b"DICM" + bytes(500),
    "mark_and_noise": bytes(128) + b"DICM" + random.Random(0).randbytes(500),
    "text": b"patient,finding\n1,0\n" * 50,
    "json": b'{"(0008,0016)": "UI"}' * 30,
    "zeros": bytes(2000),
    "nothing": b"",
    "mark_at_the_end": bytes(128) + b"DICM",
    "numbers": struct.pack("<500I", *range(0, 4000, 8)),
    "numbers_of_eight": struct.pack("<500I", *[8] * 500),
    "short_numbers": struct.pack("<1000H", *range(8, 1008)),
    "floats": np.linspace(0, 1, 300).tobytes(),
    "program": b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0\x3e\0" + bytes(200),
    "archive": archive(),
    **{kind: encoded(gradient(), kind) for kind in FORMATS},
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_none(name: str) -> None:
    assert not is_dicom(OTHERS[name])


@pytest.mark.parametrize("before", [b"", b"\x08\0", b"\x02\0", b"\0\x08", bytes(128)])
def test_noise_is_none(before: bytes) -> None:
    noise = random.Random(0)
    assert not any(is_dicom(before + noise.randbytes(300)) for _ in range(5000))
    few = [noise.choices([0, 1, 2, 4, 8, 16], k=300) for _ in range(5000)]
    assert not any(is_dicom(before + bytes(numbers)) for numbers in few)


# ---------------------------------------------------------------- in folders

NAMES = ["IM0001", "1.2.840.113619.2.55.3", "1.2.840.113619.2.55.4", "x.ima", "y.MR", "sub/z.0001"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of films without a suffix that says so, and of other files."""
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_bytes(film())
    (folder / "README").write_bytes(b"text " * 100)
    (folder / "table.csv").write_bytes(b"name\n")
    (folder / "film.txt").write_bytes(film())
    (folder / "film.zip").write_bytes(film())
    (folder / "noise.dat").write_bytes(bytes(3000))
    directory = dataset_of(RAMP, SOPClassUID=MediaStorageDirectoryStorage)
    directory.file_meta = FileMetaDataset()
    (folder / "DICOMDIR").write_bytes(bytes_of(directory))
    return folder


def test_films_of_any_name_are_images_and_other_files_are_none(root: Path) -> None:
    contents = walk(root)
    assert [file.name for file in contents.images] == sorted(NAMES)
    others = {file.name for file in contents.others}
    assert others == {"README", "table.csv", "film.txt", "film.zip", "noise.dat", "DICOMDIR"}


def test_only_files_whose_name_says_nothing_are_opened_and_only_their_beginning(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "picture.png").write_bytes(encoded(gradient(), "PNG"))
    opened: dict[str, int] = {}
    path_open = Path.open

    def watched(self: Path, *arguments: object) -> io.BufferedReader:
        file = path_open(self, *arguments)
        read = file.read
        return type("Watched", (), {
            "__enter__": lambda _: _,
            "__exit__": lambda *_: file.close(),
            "read": lambda _, size: opened.setdefault(self.name, size) and read(size),
        })()  # fmt: skip

    monkeypatch.setattr(Path, "open", watched)
    walk(root)
    assert opened.keys() == {Path(name).name for name in NAMES} | {
        "README", "noise.dat", "DICOMDIR"
    }  # fmt: skip
    assert set(opened.values()) == {HEAD_BYTES}


def test_a_file_of_no_known_kind_that_may_not_be_read_is_set_aside(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path_open = Path.open

    def refuse(self: Path, *arguments: object) -> io.BufferedReader:
        if self.name == "IM0001":
            raise PermissionError(13, "Permission denied", str(self))
        return path_open(self, *arguments)

    monkeypatch.setattr(Path, "open", refuse)
    problems = {file.name: file.problem for file in walk(root).images}
    assert problems["IM0001"][0] == "unreadable"
    assert sum(problem is not None for problem in problems.values()) == 1

    def fail(self: Path, *arguments: object) -> None:
        raise OSError(5, "Input/output error", str(self))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(DatasetError, match="Input/output error"):
        walk(root)


def test_pipes_and_links_of_no_known_kind_are_not_opened(root: Path, tmp_path: Path) -> None:
    os.mkfifo(root / "pipe")
    (tmp_path / "outside").write_bytes(film())
    (root / "IM0002").symlink_to(tmp_path / "outside")
    (root / "IM0003").symlink_to(root / "IM0001")
    names = {file.name for file in walk(root).images}
    assert names == {*NAMES, "IM0003"}


def test_a_dicom_identifier_has_no_suffix() -> None:
    file = FoundFile("study/1.2.840.113619.2.55.3", Path("unused"))
    assert (file.stem, file.suffix) == ("1.2.840.113619.2.55.3", "")
    assert file.path_below("study") == "1.2.840.113619.2.55.3"
    assert FoundFile("1.2.840.dcm", Path("unused")).stem == "1.2.840"
    assert assign_keys(["a/1.2.3", "a/1.2.4"]) == ["1_2_3", "1_2_4"]


def test_they_are_packed_by_the_layouts_that_take_any_image(root: Path, tmp_path: Path) -> None:
    listing = scan_source("image_folder", root, {})
    assert [record.name for record in listing.records] == sorted(NAMES)
    rows = "".join(f"{name},{number % 2}\n" for number, name in enumerate(NAMES))
    (root / "metadata.csv").write_text("filename,Edema\n" + rows)
    record = pack.run(
        PackConfig(
            layout="images_csv",
            source=str(root),
            output=str(tmp_path / "out"),
            layout_options={"finding_columns": ["Edema"]},
            image=ImageConfig(height=8, width=8, encoding="png"),
            workers=1,
        )
    )
    assert (record.counts["packed"], record.counts["rejected"]) == (len(NAMES), 0)
    images = IndexedShards(tmp_path / "out")
    assert {images.metadata(n)["format"] for n in range(len(NAMES))} == {"DICOM"}


def test_a_mask_that_is_dicom_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "IM0001_mask"
    path.write_bytes(film())
    with pytest.raises(UnusableSample, match="DICOM") as caught:
        decode_file(path, 10_000)
    assert caught.value.reason == "not_an_image"


def test_what_is_no_image_is_told_that_dicom_would_be_one(tmp_path: Path) -> None:
    path = tmp_path / "film.dcm"
    path.write_bytes(b"no film")
    with pytest.raises(UnusableSample, match="or DICOM"):
        read_image(path, "grey", 10_000, "min_max")
