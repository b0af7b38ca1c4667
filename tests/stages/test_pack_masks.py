"""Masks in ``nakt pack`` and ``nakt inspect``: judged before anything is packed, and shown."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nakt_dist.cli import main
from nakt_dist.config import ImageConfig, PackConfig
from nakt_dist.errors import DatasetError
from nakt_dist.imaging.mask_rule import MaskRule
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.sources import SourceRecord
from nakt_dist.stages import inspect_dataset
from nakt_dist.stages import pack as pack_stage
from nakt_dist.stages.inspect_dataset import draw_masks
from nakt_dist.stages.mask_coverage import describe_coverage
from nakt_dist.stages.pack_prepare import PrepareSettings, _convert
from tests.unit.image_files import gradient, save

ROWS, COLUMNS = np.mgrid[:32, :32]
FORM = ["--image.height=32", "--image.width=32", "--image.encoding=png", "--workers=1"]
ALL = "--splits.fractions={all: 1.0}"


def disc(radius: float) -> np.ndarray:
    return np.hypot(ROWS - 12, COLUMNS - 18) < radius


def publish(root: Path, masks: list[np.ndarray], suffix: str = "png") -> Path:
    for folder in ("image", "mask"):
        (root / folder).mkdir(parents=True)
    for number, mask in enumerate(masks):
        save(root / "image" / f"{number:02d}.png", np.roll(gradient(32, 32), number))
        save(root / "mask" / f"{number:02d}.{suffix}", mask)
    return root


def pack(source: Path, output: Path, *words: str) -> int:
    places = [f"--source={source}", f"--output={output}"]
    return main(["pack", "--layout=paired_folders", *places, *FORM, ALL, *words])


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return "".join(capsys.readouterr())


def packed_masks(output: Path) -> dict[str, np.ndarray]:
    images = IndexedShards(output)
    return {
        source: np.asarray(Image.open(io.BytesIO(images.mask_bytes(number)))) > 0
        for number, source in enumerate(images.index["source"].to_pylist())
    }


def test_unclear_masks_are_refused_before_anything_is_written(tmp_path, capsys):
    void = np.where(disc(6), 1, np.where(disc(8), 255, 0)).astype(np.uint8)
    source, output = publish(tmp_path / "source", [void] * 3), tmp_path / "packed"
    assert pack(source, output) == 1
    assert "mask_values_unclear: 3 of 3" in printed(capsys)
    assert not output.exists()
    assert pack(source, output, "--mask_values.target=[1]", "--mask_values.void=[255]") == 0
    assert "images with void pixels, packed as background: 3" in printed(capsys)
    assert all((mask == disc(6)).all() for mask in packed_masks(output).values())
    assert main(["pack", f"--config={output / 'config.yaml'}", f"--output={output}"]) == 0
    assert "was complete already" in printed(capsys)


def test_a_setting_that_is_misspelt_gets_the_nearest_name(tmp_path, capsys):
    source = publish(tmp_path / "source", [disc(6)])
    assert pack(source, tmp_path / "out", "--mask_values.targets=[1]") == 2
    assert "did you mean 'mask_values.target'" in printed(capsys)


def test_a_few_odd_masks_are_set_aside(tmp_path, capsys):
    masks = [255 * disc(4 + n / 4).astype(np.uint8) for n in range(12)]
    masks.append((COLUMNS * 5).astype(np.uint8))
    assert pack(publish(tmp_path / "source", masks), tmp_path / "packed") == 0
    told = printed(capsys)
    assert "masks whose target is 255: 12" in told
    assert "rejected: mask_values_unclear 1" in told


def test_coverage_is_in_the_index_and_printed_by_pack_and_inspect(tmp_path, capsys):
    masks = [disc(radius).astype(np.uint16) * 1000 for radius in (0, 3, 5, 9)]
    masks.append(np.full((32, 32), 1000, np.uint16))
    source, output = publish(tmp_path / "source", masks), tmp_path / "packed"
    assert pack(source, output) == 0
    index = pq.read_table(output / "index.parquet")
    shares = dict(zip(index["source"].to_pylist(), index["target_share"].to_pylist(), strict=True))
    expected = [float(np.float32((mask > 0).mean())) for mask in masks]
    assert [shares[name] for name in sorted(shares)] == expected
    line = (
        f"target in 5 masks: smallest 0.00% of the image, median {expected[2]:.2%}, "
        "largest 100.00%; 1 empty, 1 full"
    )
    assert line in printed(capsys)
    assert main(["inspect", str(output), f"--output={tmp_path / 'sheets'}"]) == 0
    assert line in printed(capsys)
    with Image.open(tmp_path / "sheets" / "masks.png") as sheet:
        assert sheet.width > 100


def test_a_dataset_without_masks_has_no_coverage(tmp_path, capsys):
    source, output = publish(tmp_path / "source", [disc(6)]), tmp_path / "packed"
    assert pack(source, output, "--masks=false") == 0
    assert pq.read_table(output / "index.parquet")["target_share"].to_pylist() == [None]
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets" / "masks.png").write_bytes(b"of another dataset")
    assert main(["inspect", str(output), f"--output={tmp_path / 'sheets'}"]) == 0
    assert "target in" not in printed(capsys)
    assert not (tmp_path / "sheets" / "masks.png").exists()


def test_inverted_and_empty_sets_are_warned_of(tmp_path, capsys):
    inverted = [np.where(disc(n), 0, 255).astype(np.uint8) for n in (4, 5, 6)]
    source, output = publish(tmp_path / "source", inverted), tmp_path / "packed"
    assert pack(source, output) == 0
    assert "WARNING: more than half of most images is target" in printed(capsys)
    assert pack(source, tmp_path / "right", "--mask_values.target=[0]") == 0
    assert "WARNING" not in printed(capsys)
    assert (packed_masks(tmp_path / "right")["image/00.png"] == disc(4)).all()
    mostly_empty = publish(tmp_path / "empty", [disc(0), disc(0), disc(5)])
    assert pack(mostly_empty, tmp_path / "empty_packed") == 0
    assert "WARNING: most masks are empty" in printed(capsys)


def test_class_masks_are_not_called_inverted():
    coverage = {"masks": 3, "empty": 0, "full": 1, "smallest": 0.6, "median": 0.7, "largest": 1.0}
    classes, binary = (
        SimpleNamespace(mask_kind=kind, found={}, config={}) for kind in ("classes", "binary")
    )
    assert len(describe_coverage(coverage, classes, "x")) == 1
    assert len(describe_coverage(coverage, binary, "x")) == 2
    assert describe_coverage({}, binary, "x") == []


@pytest.mark.parametrize("fit", ["stretch", "centre_crop"])
def test_targets_that_are_lost_at_this_size_are_counted_and_explained(tmp_path, capsys, fit):
    points = [(ROWS == 3) & (COLUMNS - n == 5) for n in range(4)]
    masks = [255 * mask.astype(np.uint8) for mask in (*points, disc(0), disc(8))]
    source, output = publish(tmp_path / "source", masks), tmp_path / "packed"
    form = ["--image.height=8", "--image.width=8", f"--image.fit={fit}"]
    assert pack(source, output, *form) == 0
    told = printed(capsys)
    words = "masks whose target is lost at this size: pack with a larger image.height"
    assert f"{words} and image.width" in told
    assert f"WARNING: most masks are empty; 4 of them are {words}" in told
    assert "another way" not in told
    assert main(["inspect", str(output), f"--output={tmp_path / 'sheets'}"]) == 0
    assert f"WARNING: most masks are empty; 4 of them are {words}" in printed(capsys)


def test_classes_that_are_lost_at_this_size_are_counted(tmp_path):
    image = save(tmp_path / "a.png", gradient(32, 32))
    mask = save(tmp_path / "m.png", (7 * ((ROWS == 3) & (COLUMNS == 5))).astype(np.uint8))
    record = SourceRecord("a", image, (mask,), "classes")
    for size, remarks in ((8, ["lost"]), (32, [])):
        form = ImageConfig(height=size, width=size)
        settings = PrepareSettings(form, (), False, b"", MaskRule())
        assert _convert(record, settings)[1]["remarks"] == remarks


def test_dicom_pictures_with_overlays_in_their_words_are_counted(tmp_path, capsys):
    dicom_files = pytest.importorskip("tests.unit.dicom_files", exc_type=ImportError)
    source = tmp_path / "source"
    source.mkdir()
    for number, overlay in enumerate((0, 0x1000, 0xF000)):
        values = dicom_files.RAMP + np.uint16(number)
        values[2, 3] |= overlay
        text = {"BurnedInAnnotation": "YES" if number else "NO"}
        dicom_files.save(source / f"{number}.dcm", dicom_files.dataset_of(values, **text))
    places = [f"--source={source}", f"--output={tmp_path / 'packed'}"]
    assert main(["pack", "--layout=image_folder", *places, *FORM, ALL]) == 0
    words = "DICOM pictures with bits beside their values (overlays, or a header that says too few"
    said = printed(capsys)
    assert f"{words} bits), left out: 2" in said
    assert "it may name patients, and is packed as it is: 2" in said


@pytest.mark.parametrize("of", ["image", "mask"])
def test_files_of_several_pictures_are_counted(tmp_path, capsys, of):
    source = publish(tmp_path / "source", [np.uint8(255) * disc(8)] * 3, "tif")
    pages = [Image.fromarray(255 * disc(radius).astype(np.uint8)) for radius in (8, 4)]
    path = next((source / of).glob("01.*"))
    pages[0].save(path, "TIFF", save_all=True, append_images=pages[1:])
    assert pack(source, tmp_path / "packed") == 0
    assert "holds several pictures (pages or frames); the first alone is read: 1" in printed(capsys)


def test_the_advice_for_inverted_jpeg_masks_makes_right_ones(tmp_path, capsys):
    inverted = [np.where(disc(n), 0, 255).astype(np.uint8) for n in (4, 6, 8)]
    source, output = publish(tmp_path / "source", inverted, "jpg"), tmp_path / "packed"
    assert pack(source, output) == 0
    assert "pack with --mask_values.target '[0]'" in printed(capsys)
    assert pack(source, tmp_path / "right", "--mask_values.target=[0]") == 0
    assert "WARNING" not in printed(capsys)
    right = packed_masks(tmp_path / "right")
    for number, radius in enumerate((4, 6, 8)):
        assert (right[f"image/{number:02d}.png"] != disc(radius)).mean() < 0.005


def test_a_palette_of_greys_is_not_advised_what_was_given(tmp_path, capsys):
    source = publish(tmp_path / "source", [disc(6)] * 3)
    for path in (source / "mask").iterdir():
        image = Image.fromarray((~disc(6)).astype(np.uint8), "P")
        image.putpalette([255, 255, 255, 0, 0, 0])
        save(path, image)
    assert pack(source, tmp_path / "packed") == 0
    assert all((mask == disc(6)).all() for mask in packed_masks(tmp_path / "packed").values())
    assert pack(source, tmp_path / "named", "--mask_values.target=[0]") == 0
    told = printed(capsys)
    assert "of a palette of greys it means the grey levels" in told
    assert "--mask_values.target '[0]'" not in told


def test_the_sheet_holds_the_smallest_middle_and_largest_target(tmp_path, monkeypatch):
    masks = [disc(radius) for radius in (9, 0, 3, 7, 5, 0, 4, 6, 8)]
    assert pack(publish(tmp_path / "source", masks), tmp_path / "packed") == 0
    drawn = {}
    monkeypatch.setattr(
        inspect_dataset, "draw_sheet", lambda title, groups, tint: drawn.update(groups=groups)
    )
    draw_masks(IndexedShards(tmp_path / "packed"), 3)
    with_target, without = drawn["groups"]
    assert with_target.title == "From the smallest to the largest target: 3 of 7"
    shown = [panel.outlines[0].mask for panel in with_target.panels]
    assert [int(mask.sum()) for mask in shown] == [int(disc(r).sum()) for r in (3, 6, 9)]
    words = [panel.caption.split()[0] for panel in with_target.panels]
    assert words == ["smallest", "middle", "largest"]  # the median printed is of all masks
    assert without.title == "Without a target: 2 of 2"


def test_images_turned_by_exif_with_masks_that_are_not_are_counted(tmp_path, capsys):
    source = publish(tmp_path / "source", [disc(6) for _ in range(3)])
    exif = Image.Exif()
    exif[274] = 6
    for number in range(2):
        save(source / "image" / f"{number:02d}.png", gradient(32, 32), exif=exif)
    assert pack(source, tmp_path / "packed") == 0
    words = "images turned by EXIF otherwise than their masks: check the overlays"
    assert f"{words}, and set mask_values.orientation to image" in printed(capsys)
    assert pack(source, tmp_path / "turned", "--mask_values.orientation=image") == 0
    assert "EXIF" not in printed(capsys)
    turned = packed_masks(tmp_path / "turned")
    assert (turned["image/00.png"] == np.rot90(disc(6), -1)).all()
    assert (turned["image/02.png"] == disc(6)).all()


def test_masks_that_fit_only_the_image_as_stored_are_counted(tmp_path, capsys):
    source = publish(tmp_path / "source", [disc(6) for _ in range(3)])
    exif = Image.Exif()
    exif[274] = 6
    save(source / "image" / "00.png", gradient(20, 32), exif=exif)
    save(source / "mask" / "00.png", disc(6)[:20])
    assert pack(source, tmp_path / "packed") == 0
    told = printed(capsys)
    assert "rejected: mask_size_differs 1" in told
    assert "masks whose size differs because EXIF turns the image otherwise: 1" in told


def test_a_repair_reads_masks_by_the_same_rule(tmp_path, capsys):
    masks = [disc(4 + n).astype(np.uint16) * 4095 for n in range(4)]
    output = tmp_path / "packed"
    assert pack(publish(tmp_path / "source", masks, "tif"), output, "--samples_per_shard=2") == 0
    shard = next(output.glob("*.tar"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    assert main(["verify", str(output), "--repair=true"]) == 0
    assert shard.read_bytes() == whole


def test_none_packed_is_an_error_that_names_exif(tmp_path):
    source = tmp_path / "source"
    for folder in ("image", "mask"):
        (source / folder).mkdir(parents=True)
    exif = Image.Exif()
    exif[274] = 6
    save(source / "image" / "a.png", gradient(20, 32), exif=exif)
    save(source / "mask" / "a.png", disc(6)[:20])
    with pytest.raises(DatasetError, match="EXIF turns the image"):
        pack_stage.run(PackConfig("paired_folders", str(source), str(tmp_path / "out"), workers=1))
