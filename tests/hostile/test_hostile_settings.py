"""Settings that run, repeat, nest or never end, and addresses that are commands."""

import os
import sys
from pathlib import Path

import pytest

from nakt_dist.cli import main, parse_config
from nakt_dist.config import CONFIG_NAME, PackConfig, save_config
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.loading import batches
from nakt_dist.loading.samples import select_samples
from nakt_dist.shards.location import DatasetLocation
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.sources.cards import load_card
from tests.datasets import make_packed_dataset

pytestmark = pytest.mark.faults

BASE = "output: o\ndata: {dataset: d}\nrecipe: {steps: 1}\n"


def laughs(levels: int) -> str:
    """Returns ten values, ten times ten, and so on: a few lines that stand for 10 ** levels."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    return "{" + ", ".join(lines) + "}"


REFUSED = {
    "object": "model: {options: !!python/object/apply:os.mkdir [mark]}",
    "new_object": "model: {options: !!python/object/new:os.mkdir [mark]}",
    "module": "model: {options: {a: !!python/module:planted}}",
    "name": "model: {options: {a: !!python/name:os.system}}",
    "unknown_tag": "seed: !include /etc/passwd",
    "laughs": f"model: {{options: {laughs(12)}}}",
    "laughs_by_merging": "model: {options: &a {x: 1}}\n"
    + "\n".join(f"k{n}: &k{n} {{a: *k{n - 1}, b: *k{n - 1}}}" for n in range(1, 40)).replace(
        "*k0", "*a"
    ),
    "alias_in_itself": "model: {options: {a: &a [*a]}}",
    "alias_in_its_own_mapping": "model: &a {options: *a}",
    "alias_of_nothing": "model: {options: *nobody}",
    "deep_lists": f"model: {{options: {{a: {'[' * 100_000}{']' * 100_000}}}}}",
    "deep_mappings": f"model: {{options: {'{a: ' * 100_000}1{'}' * 100_000}}}",
    "deep_by_indentation": "model:\n" + "".join(f"{' ' * n}a:\n" for n in range(1, 200)),
    "many_values": f"model: {{options: {{a: [{'1, ' * 300_000}]}}}}",
    "setting_twice": "seed: 1\nseed: 2",
    "setting_twice_inside": "checkpoint: {keep: 1, keep: 2}",
    "two_documents": "---\nseed: 1",
    "list": "- seed",
    "nul": "seed: \0",
    "tab": "\tseed: 1",
    "unknown": "class_path: os.system",
}


def refused(words: list[str], stage: str = "train") -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(stage, words)
    assert len(str(caught.value)) < 2000
    return str(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_a_hostile_settings_file_is_refused_and_nothing_runs(tmp_path, monkeypatch, text):
    (tmp_path / "planted.py").write_text("open('mark', 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(BASE + text + "\n")
    refused([f"--config={path}"])
    refused(["--config", str(path)])
    assert not (tmp_path / "mark").exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["laughs", "alias_in_itself", "deep_lists", "deep_mappings"])
def test_a_hostile_value_of_a_command_line_is_refused(name):
    value = REFUSED[name].removeprefix("model: {options: ").removesuffix("}")
    refused(["--output=o", "--data.dataset=d", "--recipe.steps=1", f"--model.options={value}"])


def test_the_setting_that_stands_there_twice_is_named(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(BASE + "seed: 1\nseed: 2\n")
    assert "the setting 'seed' stands there twice" in refused([f"--config={path}"])


def test_anchors_that_settings_files_use_are_read(tmp_path):
    path = tmp_path / "config.yaml"
    text = "output: o\ndata: &d {dataset: d, splits: [a]}\nrecipe: {steps: 1}\n"
    path.write_text(text + "validation: {<<: *d, splits: [b]}\n")
    config = parse_config("train", [f"--config={path}"])
    assert (config.validation.dataset, config.validation.splits) == ("d", ["b"])


def test_settings_that_list_the_patients_of_a_large_dataset_are_read_again(tmp_path):
    patients = [f"patient{number:05d}" for number in range(40_000)]
    options = {"filters": {"patient": patients}}
    config = PackConfig(layout="images_csv", source="s", output="o", layout_options=options)
    save_config(config, tmp_path)
    read = parse_config("pack", [f"--config={tmp_path / CONFIG_NAME}"])
    assert read.layout_options == options


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "fifty_gigabytes", "standard_input"])
def test_what_is_no_plain_settings_file_is_refused_and_not_waited_for(tmp_path, kind):
    path = tmp_path / "config.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifty_gigabytes":
        path.touch()
        os.truncate(path, 50 * 2**30)
    names = {"device": Path("/dev/zero"), "standard_input": Path("-")}
    path = names.get(kind, path)
    assert str(path) in refused([f"--config={path}"])


def test_a_settings_file_below_the_home_folder_is_checked_and_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "config.yaml"
    path.write_text(BASE + "seed: 7\n")
    assert parse_config("train", ["--config=~/config.yaml"]).seed == 7
    path.write_text(BASE + "seed: 7\nseed: 8\n")
    assert "stands there twice" in refused(["--config=~/config.yaml"])


def test_bytes_of_the_shell_that_are_no_text_are_refused():
    assert "not UTF-8" in refused(["--output=a\udcff", "--data.dataset=d", "--recipe.steps=1"])


@pytest.mark.parametrize("name", ["laughs", "alias_in_itself", "deep_lists", "object", "list"])
@pytest.mark.timeout(60)
def test_a_hostile_card_is_refused(tmp_path, name):
    (tmp_path / "card.yaml").write_text("title: " + REFUSED[name].replace("model: ", "", 1))
    with pytest.raises(ConfigurationError) as caught:
        load_card(tmp_path / "card.yaml", tmp_path)
    assert len(str(caught.value)) < 2000


URLS = [
    "pipe:mkdir mark",
    "pipe://mkdir mark",
    "PIPE:mkdir mark",
    "pipe:cat shard.tar | mkdir mark",
    "simplecache::pipe://mkdir mark",
    "filecache::simplecache::pipe:mkdir mark",
    "zip://inner::pipe:mkdir mark",
    "shell:mkdir mark",
    "cmd:mkdir mark",
    "exec://mkdir mark",
    "python://os.mkdir('mark')",
    "reference://::{folder}/spec.json",
    "simplecache::reference://::{folder}/spec.json",
    "dask://scheduler/dataset",
]


@pytest.fixture
def trap(tmp_path, monkeypatch) -> Path:
    """A folder with a specification whose templates would be rendered; returns the folder."""
    monkeypatch.chdir(tmp_path)
    code = "{{ cycler.__init__.__globals__.os.mkdir('mark') }}"
    (tmp_path / "spec.json").write_text(
        f'{{"version": 1, "templates": {{"u": "{code}"}}, "refs": {{"manifest.json": "{code}"}}}}'
    )
    return tmp_path


@pytest.mark.parametrize("url", URLS)
def test_an_address_that_is_a_command_is_refused_wherever_an_address_is_read(trap, url):
    url = url.format(folder=trap)
    dataset = IndexedShards(make_packed_dataset(trap, 2, splits={"train": 1.0}))
    cache = trap / "cache"
    for read in (
        lambda: DatasetLocation(url, cache),
        lambda: IndexedShards(url, cache=cache),
        lambda: PseudoLabels(url, dataset, cache),
        lambda: select_samples(url, None, cache=str(cache)),
        lambda: select_samples(str(dataset.root), None, url, cache=str(cache)),
    ):
        with pytest.raises(DatasetError, match=r"is not opened|cannot be opened"):
            read()
    assert not (trap / "mark").exists()


STAGES = {
    "inspect": ["{url}", "--output=o"],
    "teach": ["--dataset={url}", "--output=o", "--teachers=[{{weights: '{url}'}}]"],
    "train": ["--output=o", "--data.dataset={url}", "--recipe.steps=1"],
    "evaluate": ["--output=o", "--weights={url}", "--dataset={url}"],
    "verify": ["{url}"],
    "report": ["{url}", "--output=o"],
    "pack": ["--layout=image_folder", "--source={url}", "--output=o"],
}


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_runs_an_address_as_a_command(trap, capsys, stage):
    words = [word.format(url="pipe:mkdir mark") for word in STAGES[stage]]
    assert main([stage, *words]) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err
    assert not (trap / "mark").exists()


def test_streaming_opens_no_command_either(trap):
    for url in ("pipe:mkdir mark", "simplecache::pipe://mkdir mark"):
        with pytest.raises(DatasetError):
            batches._opener(url)
    assert not (trap / "mark").exists()
