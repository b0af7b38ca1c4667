"""Commands and settings that the pages name are those of the program."""

import dataclasses
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import yaml

from nakt_dist.cli import STAGES, parse_config
from nakt_dist.config import DoctorConfig, SubmitConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.stages import submit
from nakt_dist.stages.opening import Opening
from tests.unit.test_documents import PAGES, ROOT

LEFT_OUT = ("arguments are required", "no such file", "expected one argument")
"""What a page may leave to its reader: settings that are needed, and files of the reader's."""

FILES = ("csv", "jsonl", "json", "onnx", "parquet", "png", "py", "safetensors", "ts", "yaml")

CARD = "# shards/cards/"

USUAL = sorted(STAGES, key=("train", "study", "teach", "submit").count, reverse=True)
"""The stages, first those of which pages have most files."""


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a page, in blocks and in lines, from the stage on."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [line.replace("\n", " ") for line in re.findall(r"`([^`]+)`", prose(text))]
    for line in lines:
        if found := re.search(r"(?:^|\s)(?:nakt|-m nakt_dist|job\.sbatch) +(.*)", line):
            words = shlex.split(found[1].split(" && ")[0], comments=True)
            if words[0] in STAGES and "--help" not in words and "FILE" not in words:
                yield [word for word in words if word != "…"]


def prose(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def misunderstood(stage: str, words: list[str], values: Any = None) -> str | None:
    """What the program says to a command or to settings, but for what is left to the reader."""
    try:
        config = parse_config(stage, words, values)
        if isinstance(config, SubmitConfig):
            submit.plan(config, Opening())
    except ConfigurationError as error:
        return None if any(each in str(error) for each in LEFT_OUT) else str(error)
    if isinstance(config, DoctorConfig) and config.stage is not None:
        return misunderstood(config.stage, config.settings)
    return None


def settings(kind: type, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """The dotted names of a stage's settings, and whether each is a mapping, with any names."""
    for field in dataclasses.fields(kind):
        parts = list(parts_of(get_type_hints(kind)[field.name]))
        yield prefix + field.name, dict in parts or Mapping in parts
        for part in filter(dataclasses.is_dataclass, parts):
            yield from settings(part, f"{prefix}{field.name}.")


def parts_of(hint: Any) -> Iterator[Any]:
    yield from (hint, get_origin(hint))
    for each in get_args(hint):
        yield from parts_of(each)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_are_understood(page):
    for stage, *words in commands(page.read_text()):
        assert misunderstood(stage, words) is None, (stage, words)


def test_settings_that_pages_name_are_there():
    known = dict(each for stage in STAGES.values() for each in settings(stage.config))
    groups = {name.split(".")[0] for name in known if "." in name}
    for page in PAGES:
        named = re.findall(
            r"`(?:--)?(([a-z_]+)(?:\.[a-z_]+)*\.([a-z_]+))\b", prose(page.read_text())
        )
        for name, group, last in named:
            if group in groups and last not in FILES:
                assert name in known or known.get(name.rsplit(".", 1)[0]), (page, name)


def test_settings_in_yaml_are_those_of_a_stage():
    judged = 0
    for page in PAGES:
        text = page.read_text()
        for block in re.findall(r"^```yaml\n([^ ].*?)```", text, re.DOTALL | re.MULTILINE):
            if not block.startswith(CARD):
                values = yaml.safe_load(block)
                fits = (misunderstood(stage, [], values) is None for stage in USUAL)
                assert any(fits), (page, block)
                judged += 1
    assert judged > 10


def test_what_is_wrong_is_found():
    page = "`nakt train --recipe.epoch 3`\n```bash\nm -m nakt_dist doctor train --recipe.x 1\n```"
    doctor, train = (misunderstood(stage, words) for stage, *words in commands(page))
    assert doctor is not None and "recipe.x" in doctor
    assert train is not None and "recipe.epochs" in train
    assert misunderstood("teach", [], {"dataset": "a", "teacher": []}) is not None
