"""What a whole study leaves behind, looked through for patients' names and pixels.

``SHAREABLE`` are the files that docs/privacy.md says may be passed on.
"""

import base64
import contextlib
import gzip
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import wandb
from PIL import Image

from nakt_dist.config import (
    AttentionConfig,
    ExportConfig,
    ImageConfig,
    LabelConfig,
    PackConfig,
    ProfileConfig,
    ReportConfig,
    ShownNetworkConfig,
    SplitConfig,
    TrackingConfig,
    ValidationConfig,
)
from nakt_dist.models.spec import ModelSpec
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import attention, evaluate, export, pack, report, teach, train
from tests.datasets import (
    CHEST_FINDINGS,
    THREE_SPLITS,
    make_chest_film,
    make_classifier,
    make_weights,
)
from tests.recipes import evaluate_config, teach_config, train_config

NAMES = ("MillerAnna", "MRN7390551", "ACC5520417")
"""In every file's name, in every patient's number, in every study's number."""

SHAREABLE = (
    "*/record.json", "*/metrics.jsonl", "*/pace.jsonl", "*/wandb*", "*/wandb/**/*",
    "*/*.safetensors", "*/profile/*", "report/**/*", "export/*",
)  # fmt: skip
LABELS = ["Nodule", "Pleural Effusion", "Cardiomegaly"]
_IMAGES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"iVBORw0KGgo", b"/9j/")
"""How PNG and JPEG begin, as they are and in base64."""


@dataclass(frozen=True)
class Study:
    """A study's folder and everything it printed.

    Attributes:
        root: holds ``shards``, ``pseudo``, ``train``, ``test``, ``attention`` and ``report``.
        printed: on both streams.
        identifiers: names of images, patients and studies, as published and as packed.
    """

    root: Path
    printed: str
    identifiers: tuple[str, ...]

    def files(self, *patterns: str) -> list[Path]:
        found = {path for pattern in patterns for path in self.root.glob(pattern)}
        return sorted(path for path in found if path.is_file())


def publish(folder: Path, patients: int = 20) -> Path:
    """Writes ChestX-ray14's layout, two images a patient; one more image is cut off."""
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(14)
    lines = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender"]
    for number in range(2 * patients):
        present = [finding for finding in CHEST_FINDINGS if random.random() < 0.5]
        patient = f"{NAMES[1]}{number // 2}"
        name = f"{NAMES[0]}{number:02d}.png"
        Image.fromarray(make_chest_film(present, random)).save(folder / "images" / name)
        facts = f"{NAMES[2]}{number},{patient},{40 + number % 40},{'FM'[number % 2]}"
        lines.append(f"{name},{'|'.join(present) or 'No Finding'},{facts}")
    (folder / "images" / f"{NAMES[0]}99.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    lines.append(f"{NAMES[0]}99.png,No Finding,{NAMES[2]}99,{NAMES[1]}0,40,F")
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines) + "\n")
    return folder


def run_stages(folder: Path, root: Path, deidentify: bool) -> None:
    """Runs a study; what a stage does beside its main output is asked for as well."""
    shards, weights = root / "shards", folder / "weights"
    weights.mkdir(exist_ok=True)
    pack.run(
        PackConfig(
            layout="chestxray14",
            source=str(folder / "published"),
            output=str(shards),
            name="clinic",
            image=ImageConfig(height=32, width=32, encoding="png"),
            splits=SplitConfig(fractions=THREE_SPLITS),
            workers=1,
            deidentify=deidentify,
            deidentify_key=str(folder / "deidentify.key"),
        )
    )
    teach.run(teach_config(root / "pseudo", shards, make_weights(weights / "unet.safetensors")))
    trained = train_config(
        root / "train",
        shards,
        {"steps": 2},
        task="classification",
        model=ModelSpec("densenet40", in_channels=3),
        labels=LabelConfig(LABELS),
        validation=ValidationConfig(dataset=str(shards), splits=["validation"]),
        tracking=TrackingConfig(wandb="offline"),
        profile=ProfileConfig(steps=1, after=1),
    )
    train.run(trained)
    wandb.teardown()  # its service writes the last records after the run has ended
    evaluate.run(evaluate_config(root / "test", shards, root / "train"))
    teacher = make_classifier(weights / "teacher.safetensors", LABELS)
    attention.run(
        AttentionConfig(
            student=ShownNetworkConfig(str(root / "train")),
            teacher=ShownNetworkConfig(str(teacher)),
            dataset=str(shards),
            output=str(root / "attention"),
            samples=IndexedShards(shards, ["test"]).keys[:2],
            device="cpu",
            threads=1,
        )
    )
    report.run(ReportConfig([str(root)], str(root / "report")))
    export.run(
        ExportConfig(str(root / "train"), output=str(root / "export"), formats=["safetensors"])
    )


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "deidentified"])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    publish(folder / "published")
    root, printed = folder / "runs", io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        run_stages(folder, root, deidentify=request.param)
    rows = pq.read_table(root / "shards" / "index.parquet").to_pylist()
    packed = {row[name] for row in rows for name in ("key", "patient_id", "source")}
    return Study(root, printed.getvalue(), tuple(sorted({*NAMES, *packed})))


def is_hidden(study: Study) -> bool:
    return any(name.startswith("patient-") for name in study.identifiers)


def content_of(path: Path) -> bytes:
    """A file's bytes, unpacked."""
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def texts_of(path: Path) -> Iterator[str]:
    """A file's name and all that can be read in it: columns of tables, else its bytes."""
    yield path.name
    if path.suffix == ".parquet":
        for name, column in pq.read_table(path).to_pydict().items():
            yield f"{name} {column}"
    else:
        yield content_of(path).decode("latin-1")


def found_in(paths: list[Path], names: tuple[str, ...]) -> Mapping[str, list[str]]:
    """The names found, by file."""
    found = {}
    for path in paths:
        text = "\n".join(texts_of(path)).casefold()
        inside = [name for name in names if name.casefold() in text]
        if inside:
            found[str(path)] = inside[:3]
    return found


def shows_films(png: bytes) -> bool:
    """Whether an image holds the noise of films: many greys side by side, as no drawing has."""
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    grey = (np.ptp(pixels, axis=2) == 0) & (pixels[..., 0] > 15) & (pixels[..., 0] < 200)
    return grey.mean() > 0.05 and len(np.unique(pixels[..., 0][grey])) > 100


def embedded(page: Path) -> list[bytes]:
    codes = re.findall(r"data:image/[a-z+]+;base64,([A-Za-z0-9+/=]+)", page.read_text())
    return [base64.b64decode(code) for code in codes]


def test_files_that_are_passed_on_name_no_image_no_patient_and_no_study(study: Study) -> None:
    shareable = study.files(*SHAREABLE)
    kinds = {path.name for path in shareable} | {path.suffix for path in shareable}
    wanted = {"record.json", "metrics.jsonl", "pace.jsonl", "README.md", "export.json"}
    wanted |= {"report.html", "report.md", "page.html"}
    assert wanted | {".wandb", ".safetensors", ".gz"} <= kinds
    assert found_in(shareable, study.identifiers) == {}


def test_nothing_that_is_printed_names_an_image_a_patient_or_a_study(study: Study) -> None:
    assert "pack clinic" in study.printed and "attention" in study.printed
    assert [name for name in study.identifiers if name in study.printed] == []


def test_local_files_name_patients_as_published_unless_the_dataset_is_deidentified(
    study: Study,
) -> None:
    found = found_in(study.files("**/*"), NAMES)
    assert is_hidden(study) == (found == {})
    local = {Path(each).name for each in found}
    assert is_hidden(study) or {"index.parquet", "predictions.parquet", "batches.jsonl"} <= local


def test_images_are_in_no_file_that_is_passed_on(study: Study) -> None:
    drawings = study.files("report/figures/*", "*/attention-similarity.png")
    shareable = [path for path in study.files(*SHAREABLE) if path not in drawings]
    pages = study.files("report/report.html")
    for path in shareable:
        content = content_of(path)
        if path not in pages and path.suffix != ".safetensors":  # three bytes are there by chance
            assert not any(mark in content for mark in _IMAGES), path
    shown = [*map(Path.read_bytes, drawings), *(png for page in pages for png in embedded(page))]
    assert len(shown) > 2 and not any(map(shows_films, shown))
    assert shows_films((study.root / "attention" / "attention.png").read_bytes())


def test_a_page_shows_images_where_a_setting_says_so_by_name(study: Study, tmp_path: Path) -> None:
    asked = ReportConfig([str(study.root / "attention"), str(study.root / "test")], str(tmp_path))
    report.run(asked)
    assert not any(map(shows_films, embedded(tmp_path / "report.html")))
    assert "images: true shows it here" in (tmp_path / "report.md").read_text()
    report.run(replace(asked, images=True))
    assert any(map(shows_films, embedded(tmp_path / "report.html")))
