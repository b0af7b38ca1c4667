"""The examples of docs/extending.md: added to a copy of the package as the page says, and run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(?P<kind>\w+)\n# (?P<path>\S+)\n(?P<content>.*?)^```$", re.S | re.M)
TESTS_OF_ALL = ("tests/unit/test_sources_cards.py",)
"""Of the repository, which hold for what is added as well."""


def add_lines(path: Path, hunks: str) -> None:
    """Adds the lines marked ``+`` after and before those that must be there, once."""
    text = path.read_text()
    for hunk in hunks.strip("\n").split("\n\n"):
        lines = hunk.splitlines()
        before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
        after = "\n".join(line[1:] for line in lines)
        assert text.count(f"{before}\n") == 1, f"{path.name} does not hold {before!r} once"
        text = text.replace(f"{before}\n", f"{after}\n")
    path.write_text(text)


def test_examples_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "extending.md").read_text()
    for folder in ("nakt_dist", "shards/cards"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    for name in TESTS_OF_ALL:
        shutil.copy(ROOT / name, tmp_path / name)
    tests = list(TESTS_OF_ALL)
    for block in BLOCK.finditer(page):
        path = tmp_path / block["path"]
        if block["kind"] == "diff":
            add_lines(path, block["content"])
            continue
        assert not path.exists()
        path.write_text(block["content"])
        tests += [block["path"]] if block["path"].startswith("tests/") else []
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
