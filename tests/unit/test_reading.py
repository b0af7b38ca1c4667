"""No setting, wherever it comes from, makes the parser import or build a class."""

import sys
from collections.abc import Callable
from pathlib import Path

import jsonargparse
import pytest

from nakt_dist.cli import parse_config
from nakt_dist.errors import ConfigurationError

PACK = ["--layout=busi", "--source=a", "--output=b"]
TRAIN = ["--output=o", "--data.dataset=d", "--recipe.epochs=1"]
TEACH = ["--dataset=d", "--output=o"]
CLASS = "{class_path: planted.Class}"


@pytest.fixture
def planted(tmp_path: Path, monkeypatch) -> Path:
    """A module that leaves a mark when it is imported; returns where the mark would be."""
    mark = tmp_path / "imported"
    module = f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Class: pass\n"
    (tmp_path / "planted.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    return mark


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("pack", [*PACK, f"--layout_options={{classes: {CLASS}}}"]),
        ("pack", [*PACK, "--layout_options", f"{{classes: [{CLASS}]}}"]),
        ("pack", [*PACK, "--layout_options.classes.class_path=planted.Class"]),
        ("pack", [*PACK, f"--layout_options.classes={CLASS}"]),
        ("pack", [*PACK, "--image=planted.Class"]),
        ("train", [*TRAIN, f"--model.options={{base_channels: {CLASS}}}"]),
        ("train", [*TRAIN, "--data.exclusion=planted.Class"]),
        ("train", [*TRAIN, "--validation", "planted.Class"]),
        ("teach", [*TEACH, "--teachers=[planted.Class]"]),
        ("teach", [*TEACH, "--teachers+=planted.Class"]),
        ("teach", [*TEACH, "--teachers=[{weights: w, model: planted.Class}]"]),
    ],
)
def test_words_that_name_a_class_are_refused_unseen(planted: Path, stage: str, words) -> None:
    with pytest.raises(ConfigurationError):
        parse_config(stage, words)
    assert not planted.exists()


@pytest.mark.parametrize(
    "line",
    [
        f"layout_options: {{classes: {CLASS}}}",
        'layout_options: {classes: {"class\\x5fpath": planted.Class}}',
        "layout_options: {classes: {class_path: subprocess.Popen, init_args: {args: [touch, x]}}}",
        "image: planted.Class",
        "splits: planted.Class",
    ],
)
def test_files_that_name_a_class_are_refused_unseen(planted: Path, tmp_path: Path, line) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"layout: busi\nsource: a\noutput: b\n{line}\n")
    with pytest.raises(ConfigurationError):
        parse_config("pack", [f"--config={file}"])
    assert not planted.exists()


def test_nested_values_that_name_a_class_are_refused_unseen(planted: Path) -> None:
    values = {"output": "o", "data": {"dataset": "d"}, "recipe": {"epochs": 1}}
    for model in ("planted.Class", {"options": {"width": {"class_path": "planted.Class"}}}):
        with pytest.raises(ConfigurationError):
            parse_config("train", [], {**values, "model": model})
    assert not planted.exists()


def test_the_parser_imports_nothing_but_ours_whatever_reaches_it(planted: Path) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--call", type=Callable)
    with pytest.raises(jsonargparse.ArgumentError, match="not allowed"):
        parser.parse_args(["--call=planted.Class"])
    assert not planted.exists()


def test_a_leading_tilde_is_the_home_folder_wherever_it_stands(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    config = parse_config("teach", ["--output=~/out", "--dataset=d", "--teachers=[{weights: ~/w}]"])
    assert (config.output, config.teachers[0].weights) == (
        "/home/someone/out",
        "/home/someone/w",
    )
