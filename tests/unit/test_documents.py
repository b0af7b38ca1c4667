"""What the pages name is there: modules and their classes, files, and the pages they link to."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "nakt_dist"
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("shards/*.md"), *ROOT.glob("b*/*.md")]
)
ROOMS = sorted(each.name for each in PACKAGE.iterdir() if (each / "__init__.py").exists())


def dangling(page: Path) -> list[str]:
    """What a page names and is not there; ``NAME`` stands for a name of the reader's."""
    text, missing = page.read_text(), []
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        if not (page.parent / target).exists():
            missing.append(target)
    for name in re.findall(r"`((?:nakt_dist|tests|launch|configs|benchmarks)/[\w./-]+)`", text):
        if "NAME" not in name and not (ROOT / name).exists():
            missing.append(name)
    rooms = "|".join(ROOMS)
    for name, member in re.findall(rf"`((?:{rooms})/\w*(?:\.py)?)(?:: (\w+))?`", text):
        if not (PACKAGE / name).exists():
            missing.append(name)
        elif member and not hasattr(importlib.import_module(module_of(name)), member):
            missing.append(f"{name}: {member}")
    for room, module in re.findall(rf"`({rooms})\.(?!py`)([a-z_]+)(?:\.\w+)*`", text):
        # config, report and sources are names of files and fields, too.
        if (
            room not in ("config", "report", "sources")
            and not (PACKAGE / room / f"{module}.py").exists()
        ):
            missing.append(f"{room}.{module}")
    return missing


def module_of(name: str) -> str:
    return "nakt_dist." + name.removesuffix(".py").replace("/", ".")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page):
    assert not dangling(page)


def test_what_is_not_there_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "`nakt_dist/gone.py` `stages/gone.py` `stages/pack.py: Gone` `runtime.gone.Thing` "
        "[a page](gone.md) and `stages/pack.py: run`, `runtime.work.WorkLedger`, "
        "`config.yaml`, `sources.parquet`, `report.html`"
    )
    expected = ["gone.md", "nakt_dist/gone.py", "stages/gone.py", "stages/pack.py: Gone"]
    assert dangling(page) == [*expected, "runtime.gone"]
