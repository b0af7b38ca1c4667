"""Histogram equalisation, and the rendering of MIMIC-CXR-JPG that ends with it."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.exposure import equalize_hist

from nakt_dist.config import ImageConfig, PackConfig
from nakt_dist.imaging.dicom import equalise
from nakt_dist.imaging.images import read_image
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.sources import scan_source
from nakt_dist.sources.findings import CHEXPERT_FINDINGS
from nakt_dist.stages import pack
from tests.unit.image_files import encoded, gradient

FILMS = st.integers(1, 20).flatmap(
    lambda side: arrays.arrays(np.uint8, (side, 21 - side), elements=st.integers(0, 255))
)


def test_levels_by_hand() -> None:
    # of 8 pixels 3 have the darkest level; the 5 others end after 1, 3 and 5 of 5
    grey = np.array([[10, 10, 10, 20], [30, 30, 200, 200]], np.uint8)
    np.testing.assert_array_equal(equalise(grey), [[0, 0, 0, 51], [153, 153, 255, 255]])
    # 255 × 1/2 = 127.5 is rounded to the even level
    np.testing.assert_array_equal(equalise(np.array([[0, 7, 9]], np.uint8)), [[0, 128, 255]])
    np.testing.assert_array_equal(equalise(np.array([[5, 5, 6]], np.uint8)), [[0, 0, 255]])


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_constant_picture_stays(level: int) -> None:
    grey = np.full((3, 4), level, np.uint8)
    np.testing.assert_array_equal(equalise(grey), grey)


@settings(max_examples=100, deadline=None)
@given(FILMS)
def test_levels_agree_with_the_cumulative_histogram(grey: np.ndarray) -> None:
    darkest = grey == grey.min()
    if darkest.all():
        return
    share = equalize_hist(grey, nbins=256)  # of the pixels up to each level, the darkest counted
    shown = (share - darkest.mean()) / (1 - darkest.mean()) * 255
    spread = equalise(grey)
    assert np.abs(spread - shown.clip(0)).max() <= 1
    assert (spread[darkest] == 0).all()
    assert spread.max() == 255


def test_levels_are_those_of_opencv() -> None:
    cv2 = pytest.importorskip("cv2")
    random = np.random.default_rng(0)
    for spread in (1, 5, 40, 200):
        grey = random.normal(100, spread, (301, 173)).clip(0, 255).astype(np.uint8)
        np.testing.assert_array_equal(equalise(grey), cv2.equalizeHist(grey))


pydicom = pytest.importorskip("pydicom")

from tests.unit.dicom_files import RAMP, bytes_of, dataset_of, save  # noqa: E402


def as_described(stored: np.ndarray, photometric: str) -> np.ndarray:
    """Returns the levels before they are equalised: least to most, cut to whole ones, inverted."""
    shifted = stored.astype(float) - stored.min()
    levels = (shifted / shifted.max() * 255).astype(np.uint8)
    return 255 - levels if photometric == "MONOCHROME1" else levels


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_a_film_is_rendered_as_the_jpegs_were_made(
    tmp_path: Path, photometric: str, dtype: type
) -> None:
    stored = (np.random.default_rng(0).normal(1500, 300, (40, 50)).clip(0, 4095)).astype(dtype)
    stored -= np.array(1000 if dtype == np.int16 else 0, dtype)
    ds = dataset_of(
        stored, 12, photometric, WindowCenter=1500, WindowWidth=10, RescaleSlope=3,
        RescaleIntercept=7, PixelPaddingValue=int(stored.min()),
    )  # fmt: skip
    path = save(tmp_path / "film.dcm", ds)
    pixels, info = read_image(path, "grey", 10_000, "min_max", "mimic_jpg")
    np.testing.assert_array_equal(pixels, equalise(as_described(stored, photometric)))
    assert (info["scaling"], info["range"]) == ("mimic_jpg", [stored.min(), stored.max()])
    shown, told = read_image(path, "grey", 10_000, "min_max")
    assert told["scaling"] == "window"
    assert np.abs(shown.astype(int) - pixels).max() > 50


def test_colours_and_other_files_are_read_as_without_it(tmp_path: Path) -> None:
    colours = np.stack([gradient(), gradient() // 2, 255 - gradient()], axis=2)
    path = save(tmp_path / "film.dcm", dataset_of(colours, 8, "RGB"))
    pixels, info = read_image(path, "rgb", 10_000, "min_max", "mimic_jpg")
    np.testing.assert_array_equal(pixels, colours)
    assert info["scaling"] == "kept"
    picture = tmp_path / "film.png"
    picture.write_bytes(encoded(gradient(), "PNG"))
    pixels, info = read_image(picture, "grey", 10_000, "min_max", "mimic_jpg")
    np.testing.assert_array_equal(pixels, gradient())


def mimic(root: Path, suffix: str, contents: dict[str, bytes]) -> Path:
    """Writes a release of two studies with the given files, named without their suffix."""
    metadata = ["dicom_id,subject_id,study_id,ViewPosition"]
    labels = [",".join(["subject_id", "study_id", *CHEXPERT_FINDINGS])]
    for number, (dicom, content) in enumerate(contents.items()):
        patient, study = 10000000 + number, 50000000 + number
        folder = root / "files" / "p10" / f"p{patient}" / f"s{study}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{dicom}{suffix}").write_bytes(content)
        metadata.append(f"{dicom},{patient},{study},PA")
        labels.append(f"{patient},{study}" + ",1.0" * len(CHEXPERT_FINDINGS))
    for kind, rows in (("metadata", metadata), ("chexpert", labels)):
        with gzip.open(root / f"mimic-cxr-2.0.0-{kind}.csv.gz", "wt") as file:
            file.write("\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_the_dicom_and_the_jpeg_release_give_the_same_pictures(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(1)
    films = {
        "aaaa-0": (rng.normal(1500, 300, (32, 32)).clip(0, 4095).astype(np.uint16), "MONOCHROME1"),
        "bbbb-1": (np.tile(RAMP, (4, 4)), "MONOCHROME2"),
    }
    dicom = {name: bytes_of(dataset_of(v, 12, kind)) for name, (v, kind) in films.items()}
    jpeg = {
        name: encoded(equalise(as_described(v, kind)), "JPEG", quality=95)
        for name, (v, kind) in films.items()
    }
    packed = {}
    for form, release in (("dicom", (suffix, dicom)), ("jpeg", (".jpg", jpeg))):
        (tmp_path / form).mkdir()
        pack.run(
            PackConfig(
                layout="mimic_cxr",
                source=str(mimic(tmp_path / form, *release)),
                output=str(tmp_path / f"{form}_packed"),
                image=ImageConfig(height=32, width=32, encoding="png", rendering="mimic_jpg"),
                workers=1,
            )
        )
        dataset = IndexedShards(tmp_path / f"{form}_packed")
        for number in range(2):
            facts = dataset.metadata(number)
            content = dataset.image_bytes(number)
            (tmp_path / "image.png").write_bytes(content)
            pixels = read_image(tmp_path / "image.png", "grey", 10_000, "min_max")[0]
            packed[form, Path(facts["source"]).stem] = pixels.astype(int)
            assert facts["scaling"] == ("mimic_jpg" if form == "dicom" else "none")
            assert "Doe" not in json.dumps(facts)
    for name in films:
        assert np.abs(packed["dicom", name] - packed["jpeg", name]).mean() < 3  # what JPEG loses


def test_of_an_image_in_both_forms_the_jpeg_is_used(tmp_path: Path) -> None:
    root = mimic(tmp_path, ".dcm", {"aaaa-0": bytes_of(dataset_of(RAMP))})
    mimic(tmp_path, ".jpg", {"aaaa-0": encoded(gradient(), "JPEG")})
    used, copy = sorted(scan_source("mimic_cxr", root, {}).records, key=lambda r: bool(r.problem))
    assert used.name.endswith(".jpg")
    assert copy.problem[0] == "duplicate_image"
