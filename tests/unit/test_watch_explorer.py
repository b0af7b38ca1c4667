"""The exclusion explorer: statistics as bytes, images on request, and its page in a browser."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nakt_dist.cli import main
from nakt_dist.config import WatchConfig
from nakt_dist.errors import DatasetError
from nakt_dist.records.pseudo_sets import apply_rule, count_by_split, read_pseudo_set
from nakt_dist.runtime.files import file_sha256
from nakt_dist.shards.manifest import INDEX_NAME
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.shards.tables import PSEUDO_INDEX_SCHEMA, read_table, write_table
from nakt_dist.transfer.exclusion import ExclusionRule
from nakt_dist.watch.collector import Collector
from nakt_dist.watch.explorer import Explorer, pseudo_sets
from nakt_dist.watch.server import WatchServer
from nakt_dist.watch.web import Request
from tests.browser import Browser, needs_chromium
from tests.datasets import make_packed_dataset, make_pseudo_labels
from tests.records import write_pseudo_set

MARKUP = "<img src=x onerror=alert(1)>"
SPLITS = ("train", "validation", "test")


def rows(count: int = 300) -> list[tuple[str, int, float]]:
    """Statistics of 64 × 64 masks; every tenth image lies exactly on a threshold of the paper."""
    random = np.random.default_rng(7)
    pixels = np.minimum(np.exp(random.normal(5.3, 1.2, count)), 4096).astype(int)
    entropy = random.gamma(4, 0.55, count)
    pixels[::10], entropy[5::10] = 256, 2.5
    splits = random.choice(SPLITS, count)
    return list(zip(splits.tolist(), pixels.tolist(), entropy.tolist(), strict=True))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sets of two teachers, of binary masks, of real images, and a damaged one."""
    folder = tmp_path_factory.mktemp("explorer") / "study"
    write_pseudo_set(folder / "pseudo", rows(), teachers=("one", "two"))
    write_pseudo_set(folder / "binary", rows(40), dataset=MARKUP, soft=False)
    write_pseudo_set(folder / "damaged", rows(5))
    (folder / "damaged" / INDEX_NAME).write_bytes(b"no table")
    dataset = make_packed_dataset(folder, images=8, splits={"train": 1.0})
    make_pseudo_labels(folder, dataset, "seen")
    return folder


@contextlib.contextmanager
def served(folder: Path, **settings: object) -> Iterator[str]:
    config = WatchConfig(runs=[str(folder)], port=0, token=False, **settings)
    with WatchServer(config, Collector([folder])) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"{server.url}explore"
        server.shutdown()
        thread.join(10)


def unpack(data: bytes) -> dict:
    length = int.from_bytes(data[:4], "little")
    header = json.loads(data[4 : 4 + length])
    columns = {
        each["name"]: np.frombuffer(
            data, f"<{each['type']}", header["rows"], 4 + length + each["offset"]
        )
        for each in header["columns"]
    }
    return header | columns


def test_the_bytes_hold_what_the_table_holds_and_no_key(watched: Path) -> None:
    data = Explorer([watched]).statistics("study/pseudo")
    found, table = unpack(data), read_pseudo_set(watched / "pseudo").statistics
    for name in ("target_pixels", "entropy", "mean_confidence", "teacher_disagreement"):
        expected = table[name].to_numpy().astype(found[name].dtype)
        np.testing.assert_array_equal(found[name], expected)
    assert found["splits"] == sorted(SPLITS)
    assert [found["splits"][each] for each in found["split"]] == table["split"].to_pylist()
    assert all(each["offset"] % 8 == 0 for each in found["columns"])
    assert b"patient" in (watched / "pseudo" / "pseudo-000000.tar").read_bytes()
    assert b"patient" not in data


def test_statistics_that_are_missing_are_counted(tmp_path: Path) -> None:
    manifest = write_pseudo_set(tmp_path / "pseudo", rows(20))
    path = tmp_path / "pseudo" / INDEX_NAME
    table = read_table(path, PSEUDO_INDEX_SCHEMA).to_pylist()
    for row in table[:3]:
        row["entropy"] = None
    for row in table:
        row["mean_confidence"] = None
    write_table(path, PSEUDO_INDEX_SCHEMA, [table], None)
    replace(manifest, files={INDEX_NAME: file_sha256(path)}).write(tmp_path / "pseudo")
    found = unpack(Explorer([tmp_path]).statistics(f"{tmp_path.name}/pseudo"))
    told = " ".join(found["remarks"])
    assert "3 of 20 images have no entropy" in told
    assert "20 of 20 images have no mean confidence" in told
    assert np.isnan(found["entropy"]).tolist() == [True] * 3 + [False] * 17


def test_sets_are_described_and_a_damaged_one_says_why(watched: Path) -> None:
    explorer = Explorer([watched])
    described = {each["place"]: each for each in explorer.describe()["sets"]}
    assert set(described) == {f"study/{name}" for name in ("pseudo", "binary", "damaged", "seen")}
    assert [each["name"] for each in described["study/pseudo"]["teachers"]] == ["one", "two"]
    assert described["study/pseudo"]["paper"] == {
        "dataset": "Thyroid Nodule", "before": 3830, "after": 2790,
    }  # fmt: skip
    told = " ".join(unpack(explorer.statistics("study/binary"))["remarks"])
    assert "β does not apply" in told and "One teacher" in told
    with pytest.raises(DatasetError, match=r"^index.parquet: absent or not the file"):
        explorer.statistics("study/damaged")
    with pytest.raises(DatasetError, match=r"no pseudo-labels '../../etc' any more"):
        explorer.statistics("../../etc")


def test_a_damaged_manifest_is_listed_with_its_problem(tmp_path: Path) -> None:
    write_pseudo_set(tmp_path / "pseudo", rows(3))
    path = tmp_path / "pseudo" / "manifest.json"
    path.write_text(path.read_text().replace('"height": 64', '"height": 65'))
    (found,) = Explorer([tmp_path]).describe()["sets"]
    assert "damaged or edited" in found["problem"] and str(tmp_path) not in found["problem"]


def test_images_are_read_on_request_with_the_setting_alone(watched: Path) -> None:
    with pytest.raises(DatasetError, match="--images true"):
        Explorer([watched]).picture("study/seen", 0, "image")
    explorer = Explorer([watched], images=True)
    images = IndexedShards(watched / "squares")
    labels = PseudoLabels(watched / "seen", images)
    keys = read_pseudo_set(watched / "seen").statistics["key"].to_pylist()
    for row, key in enumerate(keys):
        number = images.keys.index(key)
        expected = ("image/png", images.image_bytes(number))
        assert explorer.picture("study/seen", row, "image") == expected
        soft = ("image/png", labels.soft_mask_bytes(number))
        assert explorer.picture("study/seen", row, "soft") == soft
    for hosts, shown in (([], True), (["hub.example"], False)):  # a proxy's page has left loopback
        config = WatchConfig(runs=[str(watched)], images=True, hosts=hosts)
        answer = pseudo_sets(Request({}, Collector([watched]), config))
        assert json.loads(answer.body)["images"] == shown
    with pytest.raises(DatasetError, match="no part 'json' of an image 0"):
        explorer.picture("study/seen", 0, "json")
    with pytest.raises(DatasetError, match="no part 'image' of an image 8"):
        explorer.picture("study/seen", 8, "image")
    with pytest.raises(DatasetError, match=r"the packed dataset 'thyroid' .* is not below"):
        explorer.picture("study/pseudo", 0, "image")


# A slider, or what is typed; and what it stands for.
POSITIONS = (
    ({}, ExclusionRule()),
    ({"alpha": 257}, ExclusionRule(alpha=257)),
    ({"beta-slider": 2.49}, ExclusionRule(alpha=257, beta=2.49)),
    ({"beta-slider": 1.07}, ExclusionRule(alpha=257, beta=1.07)),
    ({"alpha-slider": 0}, ExclusionRule(alpha=0, beta=1.07)),
    ({"alpha-slider": 700}, ExclusionRule(alpha=338, beta=1.07)),
    ({"combine": "both"}, ExclusionRule(alpha=338, beta=1.07, combine="both")),
    ({"alpha": 4000.5, "scale_alpha": True}, ExclusionRule(4000.5, 1.07, "both", True)),
    ({"use-beta": False}, ExclusionRule(4000.5, None, "both", True)),
    ({"combine": "either", "use-alpha": False}, ExclusionRule(None, None, "either", True)),
)

SET_CONTROL = """(([id, value]) => {
  const control = id === "combine" ? document.querySelector(`input[name=combine][value=${value}]`)
    : document.getElementById(id);
  if (typeof value === "boolean") control.checked = value;
  else if (id === "combine") control.checked = true; else control.value = value;
  for (const name of ["input", "change"]) control.dispatchEvent(new Event(name, {bubbles: true}));
})"""

COUNTS = """new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(
  Object.fromEntries([...document.querySelectorAll("#counts tr[data-group]")].map(row =>
    [row.dataset.group, Object.fromEntries([...row.querySelectorAll("[data-count]")].map(cell =>
      [cell.dataset.count, Number(cell.textContent.replace(/,/g, ""))]))]))))))"""


@needs_chromium
def test_sliders_count_what_inspect_counts(watched: Path, tmp_path: Path) -> None:
    pseudo = read_pseudo_set(watched / "pseudo")
    with served(watched) as address, Browser(tmp_path / "browser") as browser:
        browser.open(f"{address}#set=study/pseudo")
        browser.until("document.querySelectorAll('#counts tr[data-group]').length")
        for changes, rule in POSITIONS:
            for control in changes.items():
                browser.evaluate(f"{SET_CONTROL}({json.dumps(control)})")
            expected = count_by_split(pseudo, apply_rule(pseudo, rule))
            assert browser.evaluate(COUNTS) == expected, rule
        browser.evaluate("document.getElementById('paper-rule').click()")
        browser.evaluate(f"{SET_CONTROL}(['scale_alpha', true])")
        browser.evaluate("document.getElementById('three-quarters').click()")
        shown, words = browser.evaluate(COUNTS), browser.evaluate("words.textContent").split()
        assert shown["all"]["after"] >= 225 and "--exclusion.scale_alpha" in words
        (tmp_path / "rule.yaml").write_text(
            browser.evaluate("document.getElementById('yaml').textContent")
        )
        table = browser.evaluate("document.querySelector('#table-7 tbody').innerText").split()
        assert f"{100 * shown['all']['after'] / 300:.1f}" in table and "2,790" in table
        assert not browser.complaints
        assert all(each.startswith(("http://127.0.0.1:", "data:")) for each in browser.requested)
    for settings in (words, ["--config", str(tmp_path / "rule.yaml")]):
        output = ["--output", str(tmp_path / "inspected")]
        assert main(["inspect", str(watched / "pseudo"), *settings, *output]) == 0
        assert json.loads((tmp_path / "inspected" / "counts.json").read_text())["images"] == shown


@needs_chromium
def test_the_page_shows_images_on_request_and_says_what_it_cannot(
    watched: Path, tmp_path: Path
) -> None:
    with (
        served(watched, images=True) as address,
        Browser(tmp_path / "browser", width=400, dark=True) as browser,
    ):
        browser.open(f"{address}#set=study/seen&alpha=0&beta=0")
        browser.until("document.querySelectorAll('#edge figure').length === 4")
        assert not any("pseudo-image" in each for each in browser.requested)
        browser.evaluate("document.getElementById('show-images').click()")
        browser.until("document.querySelectorAll('#edge [data-drawn]').length === 4")
        colours = "getComputedStyle(document.body).backgroundColor"
        assert browser.evaluate(colours) == "rgb(15, 20, 26)"
        wide = "document.documentElement.scrollWidth"
        assert browser.evaluate(wide) == 400
        for place, told in (("binary", "β does not apply"), ("damaged", "absent or not the file")):
            browser.evaluate(f"{SET_CONTROL}(['set', 'study/{place}'])")
            browser.until(f"document.body.innerText.includes('{told}')")
            if place == "binary":
                browser.until(
                    f"document.querySelector('#table-7 td').innerText.includes('{MARKUP}')"
                )
        assert browser.evaluate("document.getElementById('main').hidden")
