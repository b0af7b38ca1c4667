"""``nakt report``, ``nakt inspect`` and the overlays of ``nakt evaluate``, as whole stages."""

import io
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nakt_dist.config import EvaluateConfig, InspectConfig, ReportConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.evaluation.overlays import spread_over
from nakt_dist.records.run_record import RunRecord
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import evaluate, inspect, report
from nakt_dist.transfer.exclusion import ExclusionRule
from tests.datasets import make_packed_dataset, make_weights
from tests.records import (
    annotations,
    lineage,
    reported_once,
    scores,
    write_evaluation,
    write_experiment,
    write_pseudo_set,
)

VOID = {"meta", "img", "br", "wbr"}


class PageReader(HTMLParser):
    """Collects what a page refers to, and checks that every tag is closed in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def reported(
    experiment: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RunRecord, list[str]]:
    return reported_once(experiment, tmp_path_factory.mktemp("reported") / "report")


def is_png(path: Path) -> bool:
    with Image.open(path, formats=("PNG",)) as image:
        image.load()
        return image.width > 100 and image.height > 50


def test_report_writes_everything_and_ends_with_the_page(
    reported: tuple[Path, RunRecord, list[str]],
):
    output, record, lines = reported
    assert lines[-1] == str(output / "report.html") == record.details["page"]
    assert record.counts == {"evaluations": 10, "records": 15, "pseudo_sets": 1, "left_out": 0}
    rows = [line for line in lines if line.startswith("| student | student-chosen ")]
    assert len(rows) == 1 and "| **76.00 ± 10.00** | 68.50 to 83.50 | **95.00** |" in rows[0]
    assert sum(line.startswith("| ") for line in lines) == 12  # header, rule, ten runs
    assert (output / "config.yaml").exists()
    assert not list(output.rglob("*.tmp"))
    figures = sorted(path.name for path in (output / "figures").iterdir())
    assert figures == [
        "dice-1.png",
        "dice-per-image-1.png",
        "entropy.png",
        "excluded-1.png",
        "learning-curves.png",
        "target-pixels.png",
    ]
    assert all(is_png(output / "figures" / name) for name in figures)
    text = (output / "report.md").read_text()
    links = re.findall(r"\]\((figures/[^)]*)\)", text)
    assert sorted(links) == [f"figures/{name}" for name in figures]
    assert "# Knowledge transfer report" in text and "(phantom)" in text


def test_the_page_needs_nothing_from_outside(experiment: Path, undrawn: None, tmp_path: Path):
    output = tmp_path / "report"
    report.run(ReportConfig([str(experiment)], str(output), title="A & B"))
    text = (output / "report.html").read_text()
    page = PageReader()
    page.feed(text)
    page.close()
    assert page.open == [] and "script" not in page.tags and "link" not in page.tags
    assert len(page.values("src")) == 6
    assert all(source.startswith("data:image/png;base64,") for source in page.values("src"))
    targets = {href.removeprefix("#") for href in page.values("href")}
    assert targets == set(page.values("id")) and len(targets) == 7
    assert all(page.values("alt"))
    assert "http://" not in text and "https://" not in text and "url(" not in text
    assert "default-src 'none'" in text and "<title>A &amp; B</title>" in text
    for words in ("prefers-color-scheme: dark", "@media print", "width=device-width"):
        assert words in text


def test_equal_runs_give_equal_bytes_wherever_they_lie(
    experiment: Path, reported: tuple[Path, RunRecord, list[str]], tmp_path: Path
):
    moved = shutil.copytree(experiment, tmp_path / "elsewhere" / experiment.name)
    report.run(ReportConfig([str(moved)], str(tmp_path / "second")))
    for name in ("report.md", "report.html", "figures/learning-curves.png"):
        first, second = (
            (output / name).read_bytes() for output in (reported[0], tmp_path / "second")
        )
        assert first == second


def test_a_terminal_gets_a_drawn_table(
    undrawn: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    write_evaluation(tmp_path / "run", lineage(annotations()), scores(0.5), name="[red]name[/red]")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    report.run(ReportConfig([str(tmp_path)], str(tmp_path / "report")))
    out = capsys.readouterr().out
    assert "[red]name[/red]" in out and "50.00 ± 10.00" in out and "| ---" not in out
    assert out.splitlines()[-1] == str(tmp_path / "report" / "report.html")


def test_a_narrow_terminal_keeps_dice_interval_and_ktc(
    experiment: Path,
    undrawn: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    report.run(ReportConfig([str(experiment)], str(tmp_path / "report")))
    out = capsys.readouterr().out
    for words in ("76.00 ± 10.00", "68.50 to 83.50", "95.00", "not shown: Test images"):
        assert words in out


@pytest.mark.parametrize(
    ("run", "config"),
    [(report.run, ReportConfig(["absent"])), (inspect.run, InspectConfig("absent"))],
)
def test_several_processes_are_refused(run, config, monkeypatch: pytest.MonkeyPatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="started as 2 processes"):
        run(config)


def test_nothing_is_written_where_there_is_nothing_to_report(tmp_path: Path):
    with pytest.raises(DatasetError, match="found no record"):
        report.run(ReportConfig([str(tmp_path)], str(tmp_path / "report")))
    assert not (tmp_path / "report").exists()


def as_png(mask: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, format="PNG")
    return stream.getvalue()


def known_masks() -> list[tuple[np.ndarray, int, float]]:
    """Returns four 32 × 32 masks with their target pixels and entropy, known by hand."""
    half = np.zeros(1024, np.uint8)
    half[:512] = 255  # two levels, equally often: 1 bit
    all_levels = np.arange(1024) % 256  # 256 levels: 8 bits, half of them at least 128
    dark_levels = np.arange(1024) % 128  # 128 levels below 128: 7 bits, no target
    masks = ((half, 512, 1.0), (all_levels, 512, 8.0), (dark_levels, 0, 7.0), (0 * half, 0, 0.0))
    return [(mask.astype(np.uint8).reshape(32, 32), *known) for mask, *known in masks]


@pytest.fixture(scope="module")
def inspected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A packed dataset of 12 images, pseudo-labels that repeat the four masks, and its keys."""
    folder = tmp_path_factory.mktemp("inspected")
    dataset = make_packed_dataset(folder)
    images = IndexedShards(dataset)
    known = [known_masks()[number % 4] for number in range(len(images))]
    rows = [
        (split, target_pixels, entropy)
        for split, (_, target_pixels, entropy) in zip(
            images.index["split"].to_pylist(), known, strict=True
        )
    ]
    masks = {key: as_png(mask) for key, (mask, *_) in zip(images.keys, known, strict=True)}
    write_pseudo_set(
        folder / "pseudo", rows, "squares", images.manifest.fingerprint, masks=masks,
        keys=images.keys, size=(32, 32),
    )  # fmt: skip
    return dataset, folder / "pseudo", images.keys


def test_inspect_counts_what_each_rule_excludes(
    inspected: tuple[Path, Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    dataset, pseudo, keys = inspected
    output = tmp_path / "inspection"
    config = InspectConfig(str(pseudo), str(dataset), str(output), images=3)
    record = inspect.run(config)
    expected = {
        "before": 12,
        "after": 3,
        "excluded": 9,
        "below_alpha_alone": 3,
        "above_beta_alone": 3,
        "below_alpha_and_above_beta": 3,
    }
    stored = json.loads((output / "counts.json").read_text())
    assert record.counts == stored["images"]["all"] == expected
    assert stored["rule"]["alpha_in_pixels"] == 256 and stored["rule"]["beta_applies"]
    parts = [counts for name, counts in stored["images"].items() if name != "all"]
    assert [sum(counts[name] for counts in parts) for name in expected] == list(expected.values())
    table = pq.read_table(output / "excluded.parquet").to_pylist()
    assert [row["key"] for row in table] == [key for n, key in enumerate(keys) if n % 4]
    assert [row["reason"] for row in table[:3]] == [
        "entropy above beta",
        "target pixels below alpha and entropy above beta",
        "target pixels below alpha",
    ]
    assert table[0]["target_pixels"] == 512 and table[0]["entropy"] == 8.0
    for name in ("entropy_histogram.png", "target_pixel_histogram.png", "overlays.png"):
        assert is_png(output / name)
    printed = capsys.readouterr().out
    assert re.search(r"^all +12 +3 +9 +3 +3 +3$", printed, re.MULTILINE)
    assert not any(key in printed for key in keys)


def test_inspect_writes_beside_the_pseudo_labels_and_draws_images_only_when_asked(
    inspected: tuple[Path, Path, list[str]],
):
    _, pseudo, _ = inspected
    inspect.run(InspectConfig(str(pseudo), exclusion=ExclusionRule(beta=None, combine="both")))
    beside = pseudo.with_name("pseudo-inspection")
    assert json.loads((beside / "counts.json").read_text())["images"]["all"]["after"] == 6
    assert not (beside / "overlays.png").exists()


def test_inspect_draws_a_sheet_when_nothing_is_excluded(
    inspected: tuple[Path, Path, list[str]], tmp_path: Path
):
    dataset, pseudo, _ = inspected
    rule = ExclusionRule(alpha=None, beta=None)
    record = inspect.run(InspectConfig(str(pseudo), str(dataset), str(tmp_path / "out"), rule))
    assert record.counts["after"] == 12 and is_png(tmp_path / "out" / "overlays.png")
    assert pq.read_table(tmp_path / "out" / "excluded.parquet").num_rows == 0


def test_inspect_chooses_images_by_its_seed(
    inspected: tuple[Path, Path, list[str]], tmp_path: Path
):
    dataset, pseudo, _ = inspected
    sheets = []
    for number, seed in enumerate((0, 0, 1)):
        output = tmp_path / str(number)
        inspect.run(InspectConfig(str(pseudo), str(dataset), str(output), images=2, seed=seed))
        sheets.append((output / "overlays.png").read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]


def test_inspect_of_another_dataset_leaves_what_was_there(
    inspected: tuple[Path, Path, list[str]], tmp_path: Path
):
    dataset, pseudo, _ = inspected
    other = make_packed_dataset(tmp_path, images=4, name="others")
    output = tmp_path / "out"
    inspect.run(InspectConfig(str(pseudo), str(dataset), str(output), images=1))
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    rule = ExclusionRule(beta=9.0)
    with pytest.raises(DatasetError, match="not of 'others'"):
        inspect.run(InspectConfig(str(pseudo), str(other), str(output), rule))
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    inspect.run(InspectConfig(str(pseudo), None, str(output), rule))
    assert not (output / "overlays.png").exists()  # it showed another rule


def test_inspect_helps_to_choose_the_thresholds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    rows = [("train", 300 + number, 3 + number / 100) for number in range(100)]
    write_pseudo_set(tmp_path / "pseudo", rows)
    inspect.run(InspectConfig("pseudo"))
    stored = json.loads((tmp_path / "pseudo-inspection" / "counts.json").read_text())
    assert stored["percentiles"]["target_pixels"]["50"] == 349.5
    assert stored["percentiles"]["entropy"]["25"] == pytest.approx(3.248, abs=1e-3)
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "Written to pseudo-inspection"
    assert "α = 256 is 6.2 % of each" in printed and "N < 7.1 here" in printed
    sentence = "100 % of the images are excluded (100 % have E > 2.5 bits): β is meant for"
    assert sentence in printed and "β = 3.74 would keep 75 %" in printed
    inspect.run(InspectConfig("pseudo", exclusion=ExclusionRule(beta=3.74, scale_alpha=True)))
    printed = capsys.readouterr().out
    assert re.search(r"^all +100 +75 +25 ", printed, re.MULTILINE) and "would keep" not in printed
    assert "of each" not in printed and "  N < 7.1 of the 64 × 64 pixels here\n" in printed


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (ExclusionRule(alpha=1000), "α alone excludes more than a quarter, β = 3.74 with scale_"),
        (ExclusionRule(alpha=1e6), "β = 3.74 without α would keep 75 %"),
        (ExclusionRule(alpha=1000, beta=None), "β plays no part here, a smaller α keeps more"),
        (ExclusionRule(alpha=1000, combine="both"), "β = 3.74 would keep 75 %"),
        (ExclusionRule(smallest_confidence=1), "a smaller exclusion.smallest_confidence keeps"),
    ],
)
def test_inspect_names_a_better_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rule: ExclusionRule, words: str
):
    rows = [("train", 300 + number, 3 + number / 100) for number in range(100)]
    write_pseudo_set(tmp_path / "pseudo", rows)
    inspect.run(InspectConfig(str(tmp_path / "pseudo"), exclusion=rule))
    assert words in capsys.readouterr().out


def test_inspect_refuses_another_dataset_and_a_url_without_output(
    inspected: tuple[Path, Path, list[str]], tmp_path: Path
):
    _, pseudo, _ = inspected
    other = make_packed_dataset(tmp_path, images=4, name="others")
    with pytest.raises(DatasetError, match="not of 'others'"):
        inspect.run(InspectConfig(str(pseudo), str(other), str(tmp_path / "out")))
    with pytest.raises(ConfigurationError, match="--output"):
        inspect.run(InspectConfig("memory://pseudo"))
    with pytest.raises(DatasetError, match="no pseudo-label manifest"):
        inspect.run(InspectConfig(str(tmp_path), output=str(tmp_path / "out")))


def test_evaluate_draws_overlays_only_when_asked(
    inspected: tuple[Path, Path, list[str]], tmp_path: Path
):
    dataset, _, keys = inspected
    weights = str(make_weights(tmp_path / "network.safetensors"))
    for overlays in (0, 3):
        output = tmp_path / str(overlays)
        config = EvaluateConfig(
            weights, str(dataset), str(output), None, overlays=overlays, batch_size=2,
            bootstrap_samples=10, device="cpu", threads=1,
        )  # fmt: skip
        evaluate.run(config)
        assert (output / "overlays.png").exists() == (overlays > 0)
    assert is_png(tmp_path / "3" / "overlays.png")
    content = (tmp_path / "3" / "overlays.png").read_bytes()
    assert not any(key.encode() in content for key in keys)


@pytest.mark.parametrize(
    ("count", "wanted", "places"),
    [(5, 5, [0, 1, 2, 3, 4]), (9, 5, [0, 2, 4, 6, 8]), (3, 8, [0, 1, 2]), (7, 1, [0]), (0, 4, [])],
)
def test_overlays_spread_over_the_range_of_dice(count: int, wanted: int, places: list[int]):
    assert spread_over(count, wanted).tolist() == places
