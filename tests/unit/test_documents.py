"""What the pages name is there: modules and their classes, files, and the parts they link to."""

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
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
        other = page.parent / target if target else page
        if not other.exists():
            missing.append(target)
        elif anchor and anchor not in anchors(other):
            missing.append(f"{target}#{anchor}")
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


def anchors(page: Path) -> set[str]:
    """The addresses of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def module_of(name: str) -> str:
    return "nakt_dist." + name.removesuffix(".py").replace("/", ".")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page):
    assert not dangling(page)


def test_what_is_not_there_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "`nakt_dist/gone.py` `stages/gone.py` `stages/pack.py: Gone` `runtime.gone.Thing` "
        "[a page](gone.md), [a part](#gone), [this](#of-it) and `stages/pack.py: run`, "
        "`runtime.work.WorkLedger`, `config.yaml`, `sources.parquet`, `report.html`\n\n## Of it\n"
    )
    expected = ["gone.md", "#gone", "nakt_dist/gone.py", "stages/gone.py", "stages/pack.py: Gone"]
    assert dangling(page) == [*expected, "runtime.gone"]
