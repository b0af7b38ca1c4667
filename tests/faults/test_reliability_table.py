"""Every test that docs/reliability.md names exists, in a file that its section names."""

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"


@dataclass(frozen=True)
class Row:
    """A line of a table: its words, and the files that its section names."""

    text: str
    files: tuple[str, ...]

    @property
    def tests(self) -> list[str]:
        return re.findall(r"`(test_\w+)`", self.text)


def rows(text: str) -> Iterator[Row]:
    """Yields the rows of all tables, without their headers."""
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        files = tuple(re.findall(r"`(tests/[\w/]+\.py)`", section))
        for line in section.splitlines():
            if line.startswith("|") and not re.match(r"\|(---| Fault)", line):
                yield Row(line, files)


@functools.cache
def defined_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def missing_tests(text: str) -> list[str]:
    """Names what a reader would look for in vain; a row without any test, too."""
    found = []
    for row in rows(text):
        known = {name for file in row.files for name in defined_in(ROOT / file)}
        found += [name for name in row.tests if name not in known]
        found += [] if row.tests else [row.text]
    return found


def test_every_test_that_the_table_names_exists() -> None:
    text = DOCUMENT.read_text()

    assert len(list(rows(text))) > 80
    assert missing_tests(text) == []


def test_a_name_that_does_not_exist_and_a_row_without_a_test_are_found() -> None:
    text = (
        "## Disks\nTests in `tests/faults/test_reliability_table.py`.\n"
        "| Fault | What happens | Test |\n|---|---|---|\n"
        "| a | b | `test_every_test_that_the_table_names_exists` |\n"
        "| a | b | `test_that_nobody_wrote` |\n| a | nothing shows it | |\n"
    )

    assert missing_tests(text) == ["test_that_nobody_wrote", "| a | nothing shows it | |"]
