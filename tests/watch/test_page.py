"""The page in a real Chromium, while a study goes on beside it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nakt_dist.config import WatchConfig
from nakt_dist.studies.folder import PlannedRun
from nakt_dist.watch.collector import Collector
from nakt_dist.watch.server import WatchServer
from tests.browser import Browser, needs_chromium
from tests.watch.writing import STEPS, Executor

METHODS = ("attention", "scratch")
TRAININGS = [
    PlannedRun(
        f"runs/{method}-{seed}", "train", 2, "students", {"method": method, "seed": str(seed)},
        "x", ("shards/a",),
    )
    for method in METHODS
    for seed in range(3)
]  # fmt: skip
RUNS = [
    PlannedRun("shards/a", "pack", 1, "pack", output="x"),
    *TRAININGS,
    *(
        PlannedRun(run.name.replace("runs", "tests"), "evaluate", 3, "tests", run.axes, "x",
                   (run.name,))
        for run in TRAININGS
    ),
]  # fmt: skip
CHIPS = (
    "[...document.querySelectorAll('#states .chip')].map(e => e.lastChild.textContent).join(', ')"
)
TOO_WIDE = "document.documentElement.scrollWidth > innerWidth"


@pytest.fixture
def executor(tmp_path: Path) -> Executor:
    return Executor(tmp_path / "study", RUNS, "table <b>2</b>")


@pytest.fixture
def address(executor: Executor) -> Iterator[str]:
    collector = Collector([executor.files.root])
    config = WatchConfig([str(executor.files.root)], port=0, price_per_process_hour=2.0)
    stop = threading.Event()
    following = threading.Thread(target=collector.follow, args=(0.1, stop))
    following.start()
    with WatchServer(config, collector) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.url
        server.shutdown()
    stop.set()
    following.join(20)


@needs_chromium
def test_a_study_is_seen_to_go_on_and_to_finish(
    executor: Executor, address: str, tmp_path: Path
) -> None:
    with Browser(tmp_path / "profile", width=400, height=800) as browser:
        browser.open(address)
        browser.until(f"{CHIPS} === '1 ready, 12 waiting'")
        assert browser.evaluate("document.getElementById('title').innerText") == "table <b>2</b>"
        executor.finish("shards/a")
        for run in TRAININGS:
            executor.start(run.name, ago=100)
            executor.learn(run.name, STEPS // 2)
        browser.until(f"{CHIPS} === '1 done, 6 running, 6 waiting'")
        cards = browser.until("document.querySelectorAll('.card .share').length === 6 && 6")
        told = browser.evaluate("document.body.innerText")
        assert cards == 6 and "step 100 of 200" in told
        assert all(each in told for each in ("images/s 400", "data wait 4.0 %", "12.0 GiB"))

        # A run fails: its last lines stand on the page, as text, and what needs it is blocked.
        executor.fail("runs/scratch-1", ["<img src=x>", "nakt: error: the disk is full"])
        told = browser.until("document.querySelector('.card.failed pre')?.innerText")
        assert "<img src=x>\nnakt: error: the disk is full" in told
        browser.until(f"{CHIPS}.endsWith('1 failed, 1 blocked')")
        assert not browser.evaluate(TOO_WIDE)
        _look_at_curves(browser)
        _look_at_a_run(browser)

        for run in RUNS:
            if run.name not in ("runs/scratch-1", "tests/scratch-1"):
                executor.finish(run.name, dice_mean=80.0)
        browser.evaluate("document.querySelector('nav [data-view=study]').click()")
        browser.until(f"{CHIPS} === '11 done, 1 failed, 1 blocked'")
        browser.evaluate("document.getElementById('clear').click()")
        browser.until("document.querySelectorAll('.cell.done').length === 11")
        assert not browser.complaints
        assert all(url.startswith(("http://127.0.0.1:", "data:")) for url in browser.requested)


def _look_at_curves(browser: Browser) -> None:
    """Seeds are one band of each method; a filter and its link leave one of them."""
    browser.evaluate("document.querySelector('nav [data-view=curves]').click()")
    browser.until("document.querySelectorAll('.chart .band').length === 4")
    browser.evaluate("location.hash = '#view=curves&axis.method=attention&metrics=loss'")
    browser.until("document.querySelectorAll('.chart .band').length === 1")
    assert "6 of 13 runs" in browser.evaluate("document.getElementById('shown').innerText")
    link = browser.evaluate("location.href")
    browser.open("about:blank")
    browser.open(link)
    browser.until("document.querySelectorAll('.chart .band').length === 1")
    assert not browser.evaluate(TOO_WIDE)


def _look_at_a_run(browser: Browser) -> None:
    """All about a run, and two runs side by side where they differ."""
    browser.evaluate("location.hash = '#view=runs&axis.stage=train'")
    browser.until("document.querySelectorAll('.runs tbody tr').length === 6")
    browser.evaluate("[...document.querySelectorAll('.runs .plain')].at(-1).click()")
    browser.until("document.querySelector('dialog[open]') !== null")
    browser.until("document.querySelector('dialog .chart svg') !== null")
    assert "the disk is full" not in browser.evaluate("document.querySelector('dialog').innerText")
    assert not browser.evaluate(TOO_WIDE)
    browser.evaluate("document.querySelector('dialog button').click()")
    boxes = "document.querySelectorAll('.runs input[type=checkbox]')"
    for place in (0, 1):
        browser.until(f"!document.querySelector('dialog[open]') && {boxes}.length === 6")
        browser.evaluate(f"{boxes}[{place}].click()")
    browser.evaluate("document.querySelector('nav [data-view=compare]').click()")
    rows = "[...document.querySelectorAll('main tbody tr')].map(row => row.innerText).join('\\n')"
    browser.until(f"{rows}.includes('seed\\t0\\t1')")
    assert "model.name" not in browser.evaluate(rows)


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_dark_for_those_who_like_it_dark(
    executor: Executor, address: str, tmp_path: Path, dark: bool
) -> None:
    def light_of(colour: str) -> int:
        return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))

    with Browser(tmp_path / "profile", dark=dark) as browser:
        browser.open(address)
        browser.until("document.querySelectorAll('.cell').length")
        style = "getComputedStyle(document.body)"
        paper, ink = browser.evaluate(f"[{style}.backgroundColor, {style}.color]")
        assert (light_of(paper) < light_of(ink)) is dark
        assert abs(light_of(paper) - light_of(ink)) > 400
