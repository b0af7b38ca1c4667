"""DICOM files: values as the header says they are shown, and nothing else of the header."""

import builtins
import contextlib
import io
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nakt_dist.config import ImageConfig, PackConfig
from nakt_dist.errors import ConfigurationError, UnusableSample
from nakt_dist.imaging.dicom import read_dicom
from nakt_dist.imaging.images import read_image
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.sources import scan_source
from nakt_dist.stages import pack
from tests.unit.image_files import encoded, gradient

pydicom = pytest.importorskip("pydicom")

from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels import apply_modality_lut, apply_voi_lut  # noqa: E402
from pydicom.uid import (  # noqa: E402
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
)

from tests.unit.dicom_files import (  # noqa: E402
    BARE,
    PATIENT,
    RAMP,
    bytes_of,
    dataset_of,
    read,
    save,
    table_of,
)


def test_values_without_a_window_are_scaled_as_the_setting_says(tmp_path: Path) -> None:
    values = RAMP[1:, :]  # 512 to 4032
    own, info = read(tmp_path, dataset_of(values))
    assert (own.min(), own.max()) == (0, 255)
    np.testing.assert_array_equal(own, np.floor((values - 512.0) * 255 / 3520 + 0.5))
    assert (info["scaling"], info["range"]) == ("min_max", [512, 4032])
    whole, info = read(tmp_path, dataset_of(values), "grey", 10_000, "full_range")
    np.testing.assert_array_equal(whole, np.floor(values * 255.0 / 4095 + 0.5))
    assert (info["scaling"], info["range"]) == ("full_range", [0, 4095])


def test_eight_bits_are_kept(tmp_path: Path) -> None:
    values = gradient(20, 30) // 2
    pixels, info = read(tmp_path, dataset_of(values, bits=8))
    np.testing.assert_array_equal(pixels, values)
    assert (info["scaling"], info["bits_stored"], info["format"]) == ("kept", 8, "DICOM")
    assert (info["width"], info["height"]) == (30, 20)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    values = gradient(20, 30)
    pixels, info = read(tmp_path, dataset_of(values, 8, "MONOCHROME1"))
    np.testing.assert_array_equal(pixels, 255 - values)
    assert info["mode"] == "MONOCHROME1"
    wide = dataset_of(RAMP, photometric="MONOCHROME1", WindowCenter=1000, WindowWidth=500)
    dark = dataset_of(RAMP, WindowCenter=1000, WindowWidth=500)
    np.testing.assert_array_equal(read(tmp_path, wide)[0], 255 - read(tmp_path, dark)[0])


def test_a_window_is_that_of_the_standard(tmp_path: Path) -> None:
    # PS3.3 C.11.2.1.2.1: centre 2048, width 4096 on 12 bits changes nothing but the depth
    ds = dataset_of(RAMP, WindowCenter=2048, WindowWidth=4096)
    pixels, info = read(tmp_path, ds)
    np.testing.assert_array_equal(pixels, np.floor(RAMP * 255.0 / 4095 + 0.5))
    assert (info["scaling"], info["range"]) == ("window", [0, 4095])


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [(1.0, 0.0), (2.0, -1024.0), (0.5, 10.0)])
@pytest.mark.parametrize("signed", [False, True])
def test_windows_agree_with_pydicom(
    tmp_path: Path, function: str, rescale: tuple[float, float], signed: bool
) -> None:
    values = RAMP.astype(np.int16) - 2048 if signed else RAMP
    slope, intercept = rescale
    centre = 300 * slope + intercept
    ds = dataset_of(
        values,
        WindowCenter=centre,
        WindowWidth=700,
        VOILUTFunction=function,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
    )
    pixels, _ = read(tmp_path, ds)
    shown = apply_voi_lut(apply_modality_lut(values, ds), ds)
    limits = np.array([-2048, 2047] if signed else [0, 4095]) * slope + intercept
    expected = (shown - limits[0]) / (limits[1] - limits[0]) * 255
    assert np.abs(pixels - expected).max() <= 0.5 + 1e-6


def test_the_first_of_several_windows_counts(tmp_path: Path) -> None:
    several = dataset_of(RAMP, WindowCenter=[1000, 3000], WindowWidth=[500, 50])
    one = dataset_of(RAMP, WindowCenter=1000, WindowWidth=500)
    np.testing.assert_array_equal(read(tmp_path, several)[0], read(tmp_path, one)[0])


@pytest.mark.parametrize("width", [0, 0.5, -10])
def test_a_window_that_the_standard_forbids_counts_as_none(tmp_path: Path, width: float) -> None:
    _, info = read(tmp_path, dataset_of(RAMP, WindowCenter=1000, WindowWidth=width))
    assert info["scaling"] == "min_max"


@pytest.mark.parametrize("name", ["WindowWidth", "WindowCenter"])
@pytest.mark.parametrize("number", ["nan ", "inf ", "-inf"])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_that_is_no_finite_number_counts_as_none(
    tmp_path: Path, name: str, number: str, function: str
) -> None:
    ds = dataset_of(RAMP, WindowCenter="2048", WindowWidth="4000", VOILUTFunction=function)
    written = str(int(ds[name].value)).encode()
    path = tmp_path / "film.dcm"
    path.write_bytes(bytes_of(ds).replace(written, number.encode()))
    pixels, info = read_image(path, "grey", 10_000, "min_max")
    np.testing.assert_array_equal(pixels, read(tmp_path, dataset_of(RAMP))[0])
    assert (info["scaling"], info["range"]) == ("min_max", [0, 4032])


def test_a_window_of_one_is_a_threshold(tmp_path: Path) -> None:
    pixels, _ = read(tmp_path, dataset_of(RAMP, WindowCenter=1024.5, WindowWidth=1))
    np.testing.assert_array_equal(pixels, 255 * (RAMP > 1024))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_look_up_table_goes_before_a_window(tmp_path: Path, bits: int) -> None:
    top = 2**bits - 1
    entries = [top - round(top * number / 999) for number in range(1000)]
    table = table_of(entries, 100, bits)
    ds = dataset_of(RAMP, VOILUTSequence=[table], WindowCenter=1, WindowWidth=2)
    pixels, info = read(tmp_path, ds)
    index = np.clip(RAMP.astype(int) - 100, 0, 999)
    np.testing.assert_array_equal(pixels, np.floor(np.array(entries)[index] / top * 255 + 0.5))
    assert info["scaling"] == "lut"


def test_the_table_of_the_modality_comes_first(tmp_path: Path) -> None:
    entries = [2 * number for number in range(2048)]
    ds = dataset_of(RAMP, ModalityLUTSequence=[table_of(entries, 0, 12)])
    ds.WindowCenter, ds.WindowWidth = 2048, 4096
    pixels, _ = read(tmp_path, ds)
    doubled = 2 * np.clip(RAMP.astype(float), 0, 2047)
    np.testing.assert_array_equal(pixels, np.floor(doubled / 4095 * 255 + 0.5))


def test_a_constant_picture_is_black(tmp_path: Path) -> None:
    pixels, _ = read(tmp_path, dataset_of(np.full((8, 8), 700, np.uint16)))
    assert pixels.max() == 0


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_every_uncompressed_syntax_gives_the_same_picture(tmp_path: Path, syntax: str) -> None:
    stored = RAMP.byteswap() if syntax == ExplicitVRBigEndian else RAMP
    ds = dataset_of(stored)
    pixels, _ = read(tmp_path, ds, syntax=syntax)
    np.testing.assert_array_equal(pixels, np.floor(RAMP * 255.0 / 4032 + 0.5))


def test_colours_are_read_as_of_any_other_file(tmp_path: Path) -> None:
    picture = np.stack([gradient(20, 30), 255 - gradient(20, 30), gradient(20, 30) // 3], axis=2)
    ds = dataset_of(picture, 8, "RGB")
    pixels, _ = read(tmp_path, ds, "rgb", 10_000, "min_max")
    np.testing.assert_array_equal(pixels, picture)
    grey, _ = read(tmp_path, ds)
    np.testing.assert_array_equal(grey, np.array(Image.fromarray(picture).convert("L")))


def test_grey_becomes_three_equal_colours(tmp_path: Path) -> None:
    pixels, _ = read(tmp_path, dataset_of(gradient(20, 30), 8), "rgb", 10_000, "min_max")
    assert pixels.shape == (20, 30, 3)
    assert (pixels == gradient(20, 30)[..., None]).all()


@pytest.mark.parametrize(
    ("syntax", "kind"), [(JPEGBaseline8Bit, "JPEG"), (JPEG2000Lossless, "JPEG2000")]
)
def test_what_pillow_decodes_inside_a_file_is_read(tmp_path: Path, syntax: str, kind: str) -> None:
    values = gradient(40, 64) // 2
    picture = encoded(values, kind, **BARE[kind])
    ds = dataset_of(values, 8, PixelData=encapsulate([picture]))
    pixels, _ = read(tmp_path, ds, syntax=syntax)
    expected = np.array(Image.open(io.BytesIO(picture)))
    assert np.abs(pixels.astype(int) - expected).max() <= 1


# ---------------------------------------------------------------- around the file


def test_nothing_of_a_header_is_in_a_warning_or_a_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ds = dataset_of(RAMP, SpecificCharacterSet="ISO_IR 100", WindowCenter="2048", WindowWidth="64")
    content = bytes_of(ds).replace(b"ISO_IR 100", b"MILLER^ANN").replace(b"2048", b"204x")
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        with contextlib.suppress(UnusableSample):
            read_dicom(content, "film.dcm", 10_000, full_range=False)
    assert warned == []
    assert "MILLER" not in caplog.text


def test_without_pydicom_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "film.dcm", dataset_of(RAMP))
    for name in [name for name in sys.modules if name.partition(".")[0] == "pydicom"]:
        monkeypatch.delitem(sys.modules, name)
    imported = builtins.__import__

    def absent(name: str, *arguments: Any, **settings: Any) -> Any:
        if name.partition(".")[0] == "pydicom":
            raise ImportError(name)
        return imported(name, *arguments, **settings)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigurationError, match=r"nakt_dist\[dicom\]"):
        read_image(path, "grey", 10_000, "min_max")


def test_without_its_decoder_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = type("Decoder", (), {"is_available": False})
    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda syntax: decoder)
    ds = dataset_of(RAMP, PixelData=encapsulate([b"\0" * 64]))
    with pytest.raises(ConfigurationError, match=r"JPEG Lossless.*nakt_dist\[dicom\]"):
        read_dicom(bytes_of(ds, JPEGLosslessSV1), "film.dcm", 10_000, full_range=False)


def test_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    path = save(tmp_path / "film.png", dataset_of(gradient(20, 30), 8))
    assert read_image(path, "grey", 10_000, "min_max")[1]["format"] == "DICOM"
    picture = tmp_path / "picture.dcm"
    picture.write_bytes(encoded(gradient(20, 30), "PNG"))
    assert read_image(picture, "grey", 10_000, "min_max")[1]["format"] == "PNG"


def test_a_folder_of_films_is_packed_without_its_patients(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    for number in range(4):
        film = dataset_of(RAMP + np.uint16(number), WindowCenter=1000, WindowWidth=500)
        save(source / "images" / f"film_{number}.dcm", film)
    frames = dataset_of(np.concatenate([RAMP, RAMP]), Rows=8, NumberOfFrames=2)
    save(source / "images" / "film_4.dcm", frames)
    rows = [f"film_{number},{number % 2}" for number in range(5)]
    (source / "metadata.csv").write_text("\n".join(["filename,Edema", *rows]))
    assert len(scan_source("image_folder", source, {}).records) == 5

    record = pack.run(
        PackConfig(
            layout="images_csv",
            source=str(source),
            output=str(tmp_path / "out"),
            layout_options={"finding_columns": ["Edema"]},
            image=ImageConfig(height=8, width=8, encoding="png"),
            workers=1,
        )
    )
    assert (record.counts["packed"], record.counts["rejected"]) == (4, 1)
    images = IndexedShards(tmp_path / "out")
    for number in range(4):
        facts = images.metadata(number)
        assert (facts["bits_stored"], facts["format"], facts["patient_id"]) == (12, "DICOM", None)
        assert PATIENT not in json.dumps(facts)
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert not any(word in content for word in (b"Doe", b"4711", b"19500102", b"General"))
