"""``nakt pack``: nothing lost, the same bytes whatever happens, hostile inputs set aside."""

import functools
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from nakt_dist.cli import main, parse_config
from nakt_dist.config import ImageConfig, PackConfig, SplitConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.phantoms import write_phantom_dataset
from nakt_dist.records.run_record import RunRecord
from nakt_dist.runtime.work import sole_user
from nakt_dist.shards.manifest import ShardManifest
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import pack
from tests.datasets import make_packed_dataset, publish_images
from tests.recipes import file_hashes
from tests.unit.image_files import bomb_png, encoded, gradient, save, write

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ImageConfig(height=32, width=32)
ALL_CLASSES = {"classes": ["benign", "malignant", "normal"]}


def pack_small(source: Path, output: Path, layout: str, **settings: Any) -> RunRecord:
    settings = {"image": SMALL, "samples_per_shard": 8, "workers": 1} | settings
    return pack.run(PackConfig(layout=layout, source=str(source), output=str(output), **settings))


def pack_with_words(*words: str) -> RunRecord:
    return pack.run(parse_config("pack", [*words, "--image.height=32", "--image.width=32"]))


def rejected(output: Path) -> dict[str, str]:
    table = pq.read_table(output / "rejected.parquet").to_pylist()
    assert all(row["detail"] for row in table)
    return {row["source"]: row["reason"] for row in table}


@pytest.fixture(scope="module")
def breast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty breast phantoms in BUSI's layout."""
    root = tmp_path_factory.mktemp("breast")
    write_phantom_dataset("breast_ultrasound", root, count=40, image_size=48)
    return root


# ---------------------------------------------------------------- nothing lost, same bytes


def test_every_phantom_is_packed_and_several_masks_are_united(breast: Path, tmp_path: Path) -> None:
    lesions = pack_small(breast, tmp_path / "lesions", "busi").counts
    everything = pack_small(breast, tmp_path / "all", "busi", layout_options=ALL_CLASSES).counts

    published = [path for path in breast.rglob("*.png") if "_mask" not in path.name]
    normals = [path for path in published if path.parent.name == "normal"]
    assert len(published) == 40
    assert normals
    several = len({path.name.split("_mask")[0] for path in breast.rglob("*_mask_1.png")})
    assert several, "the phantoms no longer hold an image with several masks"
    assert everything == {
        "inputs": 40, "packed": 40, "rejected": 0, "left_out": 0, "united_masks": several,
    }  # fmt: skip
    assert lesions["inputs"] == lesions["packed"] == 40 - len(normals)
    assert lesions["left_out"] == len(normals)


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_bytes(
    breast: Path, tmp_path: Path, workers: int
) -> None:
    pack_small(breast, tmp_path / "one", "busi")
    pack_small(breast, tmp_path / "several", "busi", workers=workers)

    assert file_hashes(tmp_path / "several") == file_hashes(tmp_path / "one")


@pytest.mark.realdata
def test_real_busi_loses_nothing_and_is_the_same_for_any_number_of_workers(
    real_data: Path, tmp_path: Path
) -> None:
    config = (f"--config={CONFIGS / 'pack/busi.yaml'}", f"--source={real_data / 'busi'}")
    small = ("--image.height=32", "--image.width=32")
    hashes = []
    for workers in (1, 3):
        output = tmp_path / str(workers)
        record = pack_with_words(*config, *small, f"--output={output}", f"--workers={workers}")
        hashes.append(file_hashes(output))

    assert record.counts == {
        "inputs": 200, "packed": 200, "rejected": 0, "left_out": 20, "united_masks": 9,
    }  # fmt: skip
    assert hashes[0] == hashes[1]
    assert main(["verify", str(tmp_path / "1")]) == 0


@pytest.mark.realdata
def test_real_busi_has_its_normals_by_setting(real_data: Path, tmp_path: Path) -> None:
    record = pack_with_words(
        f"--config={CONFIGS / 'pack/busi.yaml'}",
        f"--source={real_data / 'busi'}",
        f"--output={tmp_path / 'busi'}",
        "--layout_options.classes=[benign, malignant, normal]",
    )

    assert record.counts["packed"] == record.counts["inputs"] == 220
    assert record.counts["left_out"] == 0


@pytest.mark.realdata
def test_real_ddti_loses_nothing(real_data: Path, tmp_path: Path) -> None:
    record = pack_small(
        real_data / "ddti", tmp_path / "ddti", "paired_folders", workers=2, samples_per_shard=64
    )

    assert record.counts["inputs"] == record.counts["packed"] == 500
    assert ShardManifest.read(tmp_path / "ddti").mask_kind == "binary"


# ---------------------------------------------------------------------- hostile inputs

MASK = np.zeros((40, 60), np.uint8)
MASK[10:20, 10:30] = 255


@functools.cache
def bomb() -> bytes:
    return bomb_png(30_000, 30_000)


def publish_hostile(root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Writes what must be set aside, by reason, and what must be packed, by key."""
    root.mkdir()
    outside = write(root.parent / "outside.png", encoded(gradient(), "PNG"))
    whole = encoded(gradient(), "PNG")
    images = {
        "truncated.png": whole[: len(whole) // 2],
        "empty.png": b"",
        "text.png": b"this is no image at all, whatever its name says\n",
        "bomb.png": bomb(),
        "size.png": whole,
        "good.png": whole,
        "wide.tiff": encoded(gradient().astype(np.uint16) * 200, "TIFF"),
        "clear.png": encoded(np.full((40, 60, 4), (250, 250, 250, 0), np.uint8), "PNG"),
        "Café Nr. 1.v2 (über).png": whole,
        "a b.png": whole,
        "a_b.png": whole,
    }
    for name, content in images.items():
        write(root / name, content)
        save(root / f"{name.rpartition('.')[0]}_mask.png", MASK)
    save(root / "size_mask.png", MASK[:20])
    write(root / "alone.png", whole)
    write(root / "spoilt.png", whole)
    write(root / "spoilt_mask.png", whole[: len(whole) // 2])
    save(root / "nobody_mask.png", MASK)
    (root / "link.png").symlink_to(outside)
    reasons = {
        "truncated.png": "truncated_image",
        "empty.png": "empty_file",
        "text.png": "not_an_image",
        "bomb.png": "too_many_pixels",
        "size.png": "mask_size_differs",
        "alone.png": "missing_mask",
        "spoilt.png": "mask_truncated_image",
        "nobody_mask.png": "mask_without_image",
        "link.png": "link_outside_root",
    }
    packed = {
        "good.png": "good",
        "wide.tiff": "wide",
        "clear.png": "clear",
        "Café Nr. 1.v2 (über).png": "cafe_nr_1_v2_uber",
        "a b.png": "a_b-",
        "a_b.png": "a_b-",
    }
    return reasons, packed


@pytest.mark.parametrize("workers", [1, 2])
def test_hostile_inputs_are_packed_or_set_aside_with_their_reason(
    tmp_path: Path, workers: int
) -> None:
    reasons, packed = publish_hostile(tmp_path / "source")

    record = pack_small(
        tmp_path / "source", tmp_path / "out", "image_folder", workers=workers, samples_per_shard=4
    )

    assert rejected(tmp_path / "out") == reasons
    images = IndexedShards(tmp_path / "out")
    sources = dict(zip(images.index["source"].to_pylist(), images.keys, strict=True))
    assert sources.keys() == packed.keys()
    assert all(key.startswith(packed[source]) for source, key in sources.items())
    assert len(set(images.keys)) == len(packed)
    assert record.counts["inputs"] == len(reasons) + len(packed)
    assert record.counts["inputs"] == record.counts["packed"] + record.counts["rejected"]


def test_wide_and_transparent_images_are_converted(tmp_path: Path) -> None:
    publish_hostile(tmp_path / "source")
    pack_small(
        tmp_path / "source", tmp_path / "out", "image_folder",
        image=ImageConfig(height=40, width=60, encoding="png"),
    )  # fmt: skip
    images = IndexedShards(tmp_path / "out")

    wide, clear = images.keys.index("wide"), images.keys.index("clear")
    pixels = np.asarray(Image.open(io.BytesIO(images.image_bytes(wide))))
    low, high = int(gradient().min()), int(gradient().max())
    expected = (gradient().astype(float) - low) / (high - low) * 255
    assert np.abs(pixels - expected).max() <= 0.5
    assert images.metadata(wide)["scaling"] == "min_max"
    assert not np.asarray(Image.open(io.BytesIO(images.image_bytes(clear)))).any()


def test_a_dataset_of_which_nothing_is_usable_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        write(source / f"{number}.png", b"")

    with pytest.raises(DatasetError, match=r"none of its 3 inputs.*has no bytes"):
        pack_small(source, tmp_path / "out", "image_folder")

    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_output_inside_the_source_is_refused(breast: Path) -> None:
    with pytest.raises(ConfigurationError, match="lies in the source"):
        pack_small(breast, breast / "shards", "busi")
    assert not (breast / "shards").exists()


def test_a_folder_that_another_stage_has_written_is_refused(breast: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "best.safetensors").touch()
    with pytest.raises(DatasetError, match="holds what train has written"):
        pack_small(breast, tmp_path / "out", "busi")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "Train", "tr.ain", "pseudo"])
def test_a_split_name_that_could_not_name_a_file_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="split name"):
        SplitConfig({name: 1.0})


def test_tables_that_changed_between_interrupted_packings_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_phantom_dataset("dermoscopy", source, 12, image_size=32)
    table = source / "ISIC_2019_Training_Metadata.csv"
    pack_small(source, tmp_path / "out", "isic2019")
    lines = table.read_text().splitlines()
    column = lines[0].split(",").index("lesion_id")
    fields = lines[1].split(",")
    fields[column] = "another"
    table.write_text("\n".join([lines[0], ",".join(fields), *lines[2:]]) + "\n")

    with pytest.raises(DatasetError, match=r"1 image is described otherwise \('.*ISIC_0000000"):
        pack_small(source, tmp_path / "out", "isic2019")


# ------------------------------------------------------------- one output, one packing


def test_the_same_again_writes_nothing(breast: Path, tmp_path: Path) -> None:
    pack_small(breast, tmp_path / "out", "busi")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}

    record = pack_small(breast, tmp_path / "out", "busi", workers=2)

    assert record.speed == {}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": 1}, "seed: found 0, expected 1"),
        ({"image": ImageConfig(height=32, width=48)}, "image.width: found 32, expected 48"),
        ({"samples_per_shard": 9}, "samples_per_shard: found 8, expected 9"),
        ({"masks": False}, "masks: found True, expected False"),
    ],
)
def test_other_settings_on_the_same_output_are_refused_by_name(
    breast: Path, tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    pack_small(breast, tmp_path / "out", "busi")
    before = file_hashes(tmp_path / "out")

    with pytest.raises(DatasetError, match="already holds a dataset packed otherwise") as refusal:
        pack_small(breast, tmp_path / "out", "busi", **change)

    assert field in str(refusal.value)
    assert file_hashes(tmp_path / "out") == before


def test_a_second_pack_of_the_same_output_is_refused_while_the_first_writes(
    breast: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    with (
        sole_user(output, "pack"),
        pytest.raises(DatasetError, match="another pack is writing here right now"),
    ):
        pack_small(breast, output, "busi")


def interrupt_before_the_tables(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    """Packs all shards and is then interrupted."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pack, "finalise", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack_small(*arguments)


def test_a_shard_damaged_after_an_interruption_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = publish_images(tmp_path / "source"), tmp_path / "out"
    pack_small(source, tmp_path / "undisturbed", "image_folder")
    interrupt_before_the_tables(monkeypatch, source, output, "image_folder")
    shards = sorted(output.glob("*.tar"))
    shards[0].write_bytes(b"damaged")
    shards[1].unlink()

    pack_small(source, output, "image_folder")

    assert file_hashes(output) == file_hashes(tmp_path / "undisturbed")


# --------------------------------------------------------------- which samples go where


def test_a_smaller_count_is_part_of_a_larger_one(breast: Path, tmp_path: Path) -> None:
    chosen: list[set[str]] = []
    for count in (5, 9, 20):
        counts = pack_small(breast, tmp_path / str(count), "busi", count=count).counts
        assert counts["packed"] == count
        chosen.append(set(IndexedShards(tmp_path / str(count)).keys))

    assert chosen[0] < chosen[1] < chosen[2]


def test_no_patient_is_in_two_splits(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    visits = [(patient, visit) for patient in range(12) for visit in range(1 + patient % 4)]
    for patient, visit in visits:
        save(source / f"p{patient:02d}_visit{visit}.png", gradient() ^ (patient + 16 * visit))

    pack_small(
        source, tmp_path / "out", "image_folder",
        layout_options={"patient_regex": r"(?P<patient>p\d+)_"},
        splits=SplitConfig(fractions={"train": 0.5, "validation": 0.2, "test": 0.3}),
    )  # fmt: skip

    index = IndexedShards(tmp_path / "out").index.to_pylist()
    pairs = {(row["patient_id"], row["split"]) for row in index}
    assert len(index) == len(visits)
    assert len(pairs) == len({patient for patient, _ in pairs}) == 12
    assert {split for _, split in pairs} == {"train", "validation", "test"}
    assert all(row["source"].startswith(row["patient_id"]) for row in index)


def test_samples_are_shuffled_over_the_whole_dataset(breast: Path, tmp_path: Path) -> None:
    pack_small(breast, tmp_path / "out", "busi", splits=SplitConfig(fractions={"train": 1.0}))

    index = IndexedShards(tmp_path / "out").index.to_pylist()
    per_shard = [{row["stratum"] for row in index if row["shard"] == n} for n in range(4)]
    assert all(strata == {"benign", "malignant"} for strata in per_shard)


def test_class_masks_keep_their_indices(tmp_path: Path) -> None:
    write_phantom_dataset("photographs", tmp_path / "source", count=12, image_size=48)
    pack_small(
        tmp_path / "source", tmp_path / "out", "voc2012", layout_options={"only_segmented": True}
    )

    published = set()
    for path in (tmp_path / "source").rglob("SegmentationClass/*.png"):
        published |= set(np.unique(np.asarray(Image.open(path))).tolist())
    images = IndexedShards(tmp_path / "out")
    packed = set()
    for number in range(len(images)):
        mask = Image.open(io.BytesIO(images.mask_bytes(number)))
        packed |= set(np.unique(np.asarray(mask)).tolist())
    assert images.manifest.mask_kind == "classes"
    assert packed <= published
    assert packed - {0, 255}


# --------------------------------------------------------- readable without this project


def plain_webdataset_loop(shards: Sequence[str]) -> list[dict[str, Any]]:
    """What somebody who never saw this project writes."""
    return list(webdataset.WebDataset(list(shards), shardshuffle=False).decode("pil"))


@pytest.mark.parametrize("encoding", ["jpg", "png"])
def test_a_plain_webdataset_loop_reads_every_sample(tmp_path: Path, encoding: str) -> None:
    folder = make_packed_dataset(tmp_path, encoding=encoding)
    shards = sorted(str(path) for path in folder.glob("*.tar"))

    samples = plain_webdataset_loop(shards)

    assert sorted(sample["__key__"] for sample in samples) == sorted(IndexedShards(folder).keys)
    for sample in samples:
        assert sample[encoding].size == (32, 32)
        assert sample["mask.png"].size == (32, 32)
        mask = np.asarray(sample["mask.png"].convert("L"))
        assert set(np.unique(mask).tolist()) == {0, 255}
        assert sample["json"]["source"] == f"{sample['__key__']}.png"
        assert set(sample) - {"__key__", "__url__", "__local_path__"} == {
            encoding, "mask.png", "json",
        }  # fmt: skip


def test_a_plain_webdataset_loop_reads_hostile_names(tmp_path: Path) -> None:
    _, packed = publish_hostile(tmp_path / "source")
    pack_small(tmp_path / "source", tmp_path / "out", "image_folder")

    samples = plain_webdataset_loop([str(path) for path in (tmp_path / "out").glob("*.tar")])

    assert sorted(sample["json"]["source"] for sample in samples) == sorted(packed)


def test_nothing_in_the_output_names_the_machine_but_the_saved_source(
    breast: Path, tmp_path: Path
) -> None:
    pack_small(breast, tmp_path / "out", "busi")

    for path in (tmp_path / "out").iterdir():
        if path.name != "config.yaml":
            assert os.fsencode(breast) not in path.read_bytes(), path.name
    assert str(breast) not in json.dumps(ShardManifest.read(tmp_path / "out").config)


# ---------------------------------------------------------------- from a script


def script_of(code: str, folder: Path) -> subprocess.CompletedProcess:
    path = folder / "script.py"
    path.write_text(code)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(path)]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, env=environment)


def test_a_script_that_packs_whenever_it_is_imported_is_told_what_to_do(
    breast: Path, tmp_path: Path
) -> None:
    ended = script_of(
        f"""
from nakt_dist.config import ImageConfig, PackConfig
from nakt_dist.stages import pack

small = ImageConfig(height=16, width=16)
pack.run(PackConfig("busi", {str(breast)!r}, "out", image=small, samples_per_shard=8, workers=2))
""",
        tmp_path,
    )
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert "its worker processes ended while they started" in last
    assert 'if __name__ == "__main__":' in last
    assert "memory" not in ended.stderr


def test_the_example_of_the_readme_runs_as_a_script(breast: Path, tmp_path: Path) -> None:
    readme = (CONFIGS.parent / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    source = f"source={str(breast)!r}, samples_per_shard=8, workers=2"
    ended = script_of(example.replace('source="data/busi"', source), tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ShardManifest.read(tmp_path / "shards" / "busi").counts["packed"] == 37
